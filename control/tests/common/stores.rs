//! Which database this run of the tests is over: SQLite, or PostgreSQL with `SLUICEGATE_TEST_STORE=postgres`.

use std::path::Path;

use sluicegate_control::store::{Location, OpenError, Store};

use crate::postgres;

/// The file of a data directory that says which database belongs to it.
const URL: &str = "test-store-url";

/// Opens the store of a data directory, each time the same.
pub(crate) async fn open(directory: &Path) -> Result<Store, OpenError> {
    match std::env::var("SLUICEGATE_TEST_STORE").as_deref() {
        Ok("postgres") => {}
        Ok("sqlite") | Err(_) => return Store::open(directory).await,
        Ok(other) => panic!("SLUICEGATE_TEST_STORE is {other:?}: it is sqlite or postgres"),
    }
    let file = directory.join(URL);
    let url = std::fs::read_to_string(&file).unwrap_or_else(|_| {
        let url = postgres::database();
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(&file, &url).unwrap();
        url
    });
    Store::open_at(&Location::parse(&url, None).unwrap(), directory).await
}
