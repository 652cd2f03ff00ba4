//! Which database this run of the tests is over: SQLite, or PostgreSQL with `SLUICEGATE_TEST_STORE=postgres`.

use std::path::Path;

use sluicegate_control::store::{Location, OpenError, Store};

use crate::postgres;

/// The file of a data directory that says which database belongs to it.
const URL: &str = "test-store-url";

/// Opens the store of a data directory, each time the same.
pub(crate) async fn open(directory: &Path) -> Result<Store, OpenError> {
    let url = match (url(directory), over_postgres()) {
        (Some(url), _) => url,
        (None, true) => {
            let url = postgres::database();
            belongs(directory, &url);
            url
        }
        (None, false) => return Store::open(directory).await,
    };
    Store::open_at(&Location::parse(&url, None).unwrap(), directory).await
}

/// The PostgreSQL database that belongs to a data directory; none where it is a file in the directory.
pub(crate) fn url(directory: &Path) -> Option<String> {
    std::fs::read_to_string(directory.join(URL)).ok()
}

/// Makes the database at `url` that of a data directory.
pub(crate) fn belongs(directory: &Path, url: &str) {
    std::fs::create_dir_all(directory).unwrap();
    std::fs::write(directory.join(URL), url).unwrap();
}

fn over_postgres() -> bool {
    match std::env::var("SLUICEGATE_TEST_STORE").as_deref() {
        Ok("postgres") => true,
        Ok("sqlite") | Err(_) => false,
        Ok(other) => panic!("SLUICEGATE_TEST_STORE is {other:?}: it is sqlite or postgres"),
    }
}
