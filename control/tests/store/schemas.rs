//! Stores of every released schema are brought to the newest, with what is in them; those of a newer one are refused.

use std::path::Path;

use sluicegate_control::store::{Actor, Location, Store};
use sqlx::{ConnectOptions, Connection, Executor};

use crate::postgres;
use crate::world::{check_trail, group, open, places, sql};

/// The released schemas, each as the database's own tool wrote down a store of it: see `tests/store/schemas`.
const RELEASED: [i64; 13] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13];

fn dump(backend: &str, schema: i64) -> String {
    let path = format!("{}/tests/store/schemas/{backend}-{schema:04}.sql", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn both_databases_have_the_same_schemas_and_all_but_the_newest_are_tested() {
    let versions = |backend: &str| -> Vec<i64> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(backend);
        let names = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut versions: Vec<i64> =
            names.map(|name| name.split('_').next().unwrap().parse().unwrap()).collect();
        versions.sort();
        versions
    };
    assert_eq!(versions("sqlite"), versions("postgres"));
    let all = versions("sqlite");
    assert_eq!(
        all[..all.len() - 1],
        RELEASED,
        "a schema that is followed by another one needs a dump in schemas/"
    );
}

#[tokio::test]
async fn sqlite_stores_of_every_released_schema_come_forward_whole() {
    for schema in RELEASED {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("control.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        let mut db = options.connect().await.unwrap();
        db.execute(sqlx::AssertSqlSafe(dump("sqlite", schema))).await.unwrap();
        db.close().await.unwrap();
        comes_forward(&Location::Sqlite(file), directory.path(), "sqlite", schema).await;
    }
}

#[tokio::test]
async fn postgres_stores_of_every_released_schema_come_forward_whole() {
    for schema in RELEASED {
        let (directory, url) = (tempfile::tempdir().unwrap(), postgres::database());
        sql(&url, &dump("postgres", schema));
        comes_forward(&Location::parse(&url, None).unwrap(), directory.path(), "postgres", schema).await;
    }
}

/// What the dumps hold: see `tests/store/schemas/README.md`.
async fn comes_forward(location: &Location, directory: &Path, backend: &str, schema: i64) {
    let what = format!("{backend} {schema}");
    let store = open(location, directory).await;
    check_trail(&store).await;
    assert_eq!(store.revision().await.unwrap(), 9, "{what}");
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.agents.len(), 1, "{what}");
    let groups: Vec<String> = store.groups().await.unwrap().into_iter().map(|group| group.name).collect();
    assert_eq!(groups, ["All", "ops"], "{what}");
    let network = snapshot.state.networks.values().next().unwrap();
    assert_eq!(
        (network.name.as_str(), network.resources.len(), network.routers.len()),
        ("site", 1, 1),
        "{what}"
    );
    let policies: Vec<String> =
        store.policies().await.unwrap().into_iter().map(|policy| policy.name).collect();
    assert_eq!(policies, ["Default", "database"], "{what}");
    assert!(store.peers(None, None).await.unwrap().iter().all(|peer| !peer.connected), "{what}");
    let users = store.users().await.unwrap();
    assert_eq!(users.len(), 1, "{what}");
    assert_eq!(store.tokens(&users[0].id).await.unwrap().len(), 1, "{what}: the owner's token");
    store.create_group(&Actor::system(), group("new")).await.unwrap();
    check_trail(&store).await;
    store.close().await;
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused_and_not_touched() {
    const NEWER: &str =
        "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time)
        VALUES (9001, 'future', current_timestamp, TRUE, '', 0)";
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        store.close().await;
        drop(store);
        match &location {
            Location::Sqlite(file) => {
                let mut db =
                    sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap();
                db.execute(NEWER).await.unwrap();
                db.close().await.unwrap();
            }
            Location::Postgres(options) => {
                let mut db = options.connect().await.unwrap();
                db.execute(NEWER).await.unwrap();
            }
        }
        let said = Store::open_at(&location, directory.path()).await.err().unwrap().to_string();
        assert!(said.contains("newer version of control") && said.contains("schema 9001"), "{said}");
        assert!(said.contains("start that version, or restore a backup"), "{said}");
    }
}
