//! Stores of every schema there was are brought to the newest, with what is in them; those of a newer one are refused.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use sluicegate_control::store::{Actor, Expired, Location, RecordKind, Store, UserRole};
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

fn versions(migrations: &Migrator) -> Vec<i64> {
    migrations.iter().map(|migration| migration.version).collect()
}

/// What stores of a schema have that those of the one before cannot have: see `tests/store/schemas`.
fn rows(backend: &str, schema: i64, newest: i64) -> String {
    let path = format!("{}/tests/store/schemas/rows/{schema:04}.sql", env!("CARGO_MANIFEST_DIR"));
    match std::fs::read_to_string(&path) {
        // Bytes are written otherwise there.
        Ok(text) if backend == "postgres" => text.replace("X'", "'\\x"),
        Ok(text) => text,
        // There is no migration that they could be tried with.
        Err(_) if schema == newest => String::new(),
        Err(error) => {
            panic!("{path}: {error}: a migration came after it, which has to be tried with such rows")
        }
    }
}

/// The tables with rows of each schema that are to come through those that follow it, with how many.
const KEPT: [(i64, &str, i64); 24] = [
    (4, "routes", 1),
    (4, "route_groups", 1),
    (4, "nameserver_groups", 1),
    (4, "nameserver_group_groups", 1),
    (4, "dns_disabled_groups", 1),
    (4, "zones", 1),
    (4, "zone_groups", 1),
    (4, "records", 1),
    (5, "answers", 1),
    (6, "posture_checks", 1),
    (6, "policy_posture_checks", 1),
    (6, "peer_facts", 1),
    (7, "policy_revisions", 1),
    (8, "sessions", 1),
    (8, "user_groups", 1),
    (11, "credentials", 1),
    (11, "invite_groups", 1),
    (12, "join_keys", 1),
    (14, "known_sources", 1),
    (15, "learned_addresses", 2),
    (16, "peer_labels", 1),
    (17, "flow_sums", 1),
    (17, "flow_days", 1),
    (17, "flow_reporters", 1),
];

/// How many rows a table has.
async fn count(location: &Location, table: &str) -> i64 {
    let query = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    match location {
        Location::Sqlite(file) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
            sqlx::query_scalar(query).fetch_one(&mut options.connect().await.unwrap()).await.unwrap()
        }
        Location::Postgres(options) => {
            sqlx::query_scalar(query).fetch_one(&mut options.connect().await.unwrap()).await.unwrap()
        }
    }
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
    let versions = versions(&migrations);
    for schema in versions.iter().copied() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("control.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        let mut db = options.connect().await.unwrap();
        db.execute(sqlx::AssertSqlSafe(first("sqlite"))).await.unwrap();
        for step in 2..=schema {
            migrations.run_to(step, &mut db).await.unwrap();
            db.execute(sqlx::AssertSqlSafe(rows("sqlite", step, versions.len() as i64))).await.unwrap();
        }
        db.close().await.unwrap();
        comes_forward(&Location::Sqlite(file), directory.path(), "sqlite", schema).await;
    }
}

#[tokio::test]
async fn postgres_stores_of_every_schema_come_forward_whole() {
    let migrations = migrations("postgres").await;
    let versions = versions(&migrations);
    for schema in versions.iter().copied() {
        let (directory, url) = (tempfile::tempdir().unwrap(), postgres::database());
        sql(&url, &first("postgres"));
        let location = Location::parse(&url, None).unwrap();
        let Location::Postgres(options) = &location else { panic!("{location:?}") };
        let mut db = options.connect().await.unwrap();
        for step in 2..=schema {
            migrations.run_to(step, &mut db).await.unwrap();
            db.execute(sqlx::AssertSqlSafe(rows("postgres", step, versions.len() as i64))).await.unwrap();
        }
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
    assert_eq!(users.len(), if schema < 8 { 1 } else { 3 }, "{what}");
    let owner = users.iter().find(|user| user.role == UserRole::Owner).unwrap();
    assert_eq!(store.tokens(&owner.id).await.unwrap().len(), 1, "{what}: the owner's token");
    for (since, table, rows) in KEPT {
        let rows = if schema >= since { rows } else { 0 };
        assert_eq!(count(location, table).await, rows, "{what}: {table}");
    }
    means_the_same(&store, schema, &what).await;
    store.create_group(&Actor::system(), group("new")).await.unwrap();
    check_trail(&store).await;
    store.close().await;
}

/// What the rows of later schemas say, as the store reads it.
async fn means_the_same(store: &Store, schema: i64, what: &str) {
    if schema >= 4 {
        let route = store.route("route").await.unwrap();
        assert_eq!((route.spec.network.to_string(), route.spec.groups.len()), ("2001:db8:9::/48".into(), 1));
        let names = store.nameserver_group("names").await.unwrap().spec;
        assert_eq!((names.nameservers[0].port, names.groups.len()), (53, 1), "{what}");
        let zone = store.zone("zone").await.unwrap();
        assert_eq!(zone.records[0].spec.kind, RecordKind::Aaaa, "{what}");
        assert_eq!(
            (zone.spec.distribution_groups.len(), store.dns_disabled_groups().await.unwrap().len()),
            (1, 1)
        );
    }
    let policies = store.policies().await.unwrap();
    let database = policies.iter().find(|policy| policy.name == "database").unwrap();
    if schema >= 6 {
        assert_eq!(database.source_posture_checks, ["check"], "{what}");
        assert_eq!(
            store.places(None).await.unwrap().into_values().next().unwrap().city_name,
            "Linköping",
            "{what}"
        );
    }
    if schema >= 7 {
        assert_eq!(database.break_glass.as_ref().unwrap().reason, "a test", "{what}");
        assert_eq!(store.policy_revision(1).await.unwrap().file, "groups: []", "{what}");
    }
    if schema >= 8 {
        let ann = store.user("ann").await.unwrap();
        assert_eq!((ann.subject.as_str(), ann.auto_groups.len()), ("a-1", 1), "{what}");
        let peer = store.peers(None, None).await.unwrap().remove(0);
        assert_eq!((peer.user_id.as_str(), peer.expired), ("ann", Some(Expired::Login)), "{what}");
        let session = store.sessions("bea").await.unwrap().remove(0);
        assert_eq!(session.method, if schema < 13 { "" } else { "password" }, "{what}");
    }
    if schema >= 11 {
        let invite = store.invite("invite").await.unwrap();
        assert_eq!((invite.email.as_str(), invite.auto_groups.len()), ("eve@example.org", 1), "{what}");
    }
    if schema >= 15 {
        let site = store.networks().await.unwrap().remove(0);
        let db = store.resources(&site.id).await.unwrap().remove(0);
        assert_eq!(
            db.addresses,
            ["10.0.0.5", "2001:db8:7::5"].map(|ip| ip.parse::<IpAddr>().unwrap()),
            "{what}"
        );
    }
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
