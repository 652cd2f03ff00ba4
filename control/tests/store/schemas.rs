//! Stores of every schema there was are brought to the newest, with what is in them; those of a newer one are refused.

use std::fmt::Write as _;
use std::path::Path;

use sluicegate_control::store::{Actor, Location, Store};
use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions, Connection, Executor};

use crate::postgres;
use crate::world::{check_trail, group, open, places, sql};

const BACKENDS: [&str; 2] = ["sqlite", "postgres"];

/// The migrations as they are in the source tree.
async fn migrations(backend: &str) -> Migrator {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(backend);
    Migrator::new(directory).await.unwrap()
}

/// The versions of all schemas but the newest.
fn earlier(migrations: &Migrator) -> Vec<i64> {
    let mut versions: Vec<i64> = migrations.iter().map(|migration| migration.version).collect();
    versions.pop().unwrap();
    versions
}

/// The first schema's store: see `tests/store/schemas`.
fn first(backend: &str) -> String {
    let path = format!("{}/tests/store/schemas/{backend}-0001.sql", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[tokio::test]
async fn both_databases_have_the_same_schemas_and_no_migration_is_ever_changed() {
    let mut found = String::new();
    for backend in BACKENDS {
        for (migration, number) in migrations(backend).await.iter().zip(1..) {
            assert_eq!(migration.version, number, "{backend}: a number is left out");
            let sum = migration.checksum.iter().fold(String::new(), |mut sum, byte| {
                write!(sum, "{byte:02x}").unwrap();
                sum
            });
            writeln!(found, "{backend} {number:04} {sum}").unwrap();
        }
    }
    let [sqlite, postgres] =
        BACKENDS.map(|backend| found.lines().filter(|line| line.starts_with(backend)).count());
    assert_eq!(sqlite, postgres, "one database has more than the other");
    let known = include_str!("schemas/checksums");
    for (found, known) in found.lines().zip(known.lines().chain(std::iter::repeat("nothing"))) {
        assert_eq!(
            found, known,
            "stores have the migrations in schemas/checksums: what is to be otherwise is a migration of its own, \
             whose line is added there"
        );
    }
    assert_eq!(found.lines().count(), known.lines().count(), "a migration is gone");
}

#[tokio::test]
async fn sqlite_stores_of_every_schema_come_forward_whole() {
    let migrations = migrations("sqlite").await;
    for schema in earlier(&migrations) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("control.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        let mut db = options.connect().await.unwrap();
        db.execute(sqlx::AssertSqlSafe(first("sqlite"))).await.unwrap();
        migrations.run_to(schema, &mut db).await.unwrap();
        db.close().await.unwrap();
        comes_forward(&Location::Sqlite(file), directory.path(), "sqlite", schema).await;
    }
}

#[tokio::test]
async fn postgres_stores_of_every_schema_come_forward_whole() {
    let migrations = migrations("postgres").await;
    for schema in earlier(&migrations) {
        let (directory, url) = (tempfile::tempdir().unwrap(), postgres::database());
        sql(&url, &first("postgres"));
        let location = Location::parse(&url, None).unwrap();
        let Location::Postgres(options) = &location else { panic!("{location:?}") };
        let mut db = options.connect().await.unwrap();
        migrations.run_to(schema, &mut db).await.unwrap();
        db.close().await.unwrap();
        comes_forward(&location, directory.path(), "postgres", schema).await;
    }
}

/// What the first store holds: see `tests/store/schemas/README.md`.
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
