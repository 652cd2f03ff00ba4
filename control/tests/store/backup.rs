//! Backups of a file: complete while changes go on, and put back only where they fit.

use std::os::unix::fs::PermissionsExt;

use sluicegate_control::store::backup::{backup, restore};
use sluicegate_control::store::{Actor, Location, Store};
use sqlx::{ConnectOptions, Connection, Executor};

use crate::world::{check_trail, group, open, postgres_location};

#[tokio::test]
async fn a_backup_under_writes_is_whole_and_restored_gives_its_revision_back() {
    let directory = tempfile::tempdir().unwrap();
    let location = Location::file_in(directory.path());
    let store = open(&location, directory.path()).await;
    store.pin_authority(Some("aa")).await.unwrap();
    let writer = store.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let writes = tokio::spawn(async move {
        let mut stopped = stopped;
        for number in 0.. {
            writer.create_group(&Actor::system(), group(&format!("g{number}"))).await.unwrap();
            if stopped.try_recv().is_ok() {
                return number + 1;
            }
        }
        0
    });
    let mut changes = store.changes();
    changes.wait_for(|revision| *revision > 5).await.unwrap();
    let file = directory.path().join("backup.db");
    let contents = backup(&location, &file).await.unwrap();
    assert!(contents.revision > 5 && contents.authority == "aa");
    changes.wait_for(|revision| *revision > contents.revision + 5).await.unwrap();
    stop.send(()).unwrap();
    let written: u64 = writes.await.unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = backup(&location, &file).await.unwrap_err().to_string();
    assert!(again.contains("is there already"), "{again}");

    let running = restore(&location, directory.path(), Some("aa"), &file).await.unwrap_err().to_string();
    assert!(running.contains("in use by another control process"), "{running}");
    store.close().await;
    drop(store);
    drop(changes);
    let foreign = restore(&location, directory.path(), Some("bb"), &file).await.unwrap_err().to_string();
    assert!(foreign.contains("sha256:aa") && foreign.contains("sha256:bb"), "{foreign}");

    let (restored, kept) = restore(&location, directory.path(), Some("aa"), &file).await.unwrap();
    assert_eq!(restored, contents);
    let store = open(&location, directory.path()).await;
    assert_eq!(store.revision().await.unwrap(), contents.revision);
    check_trail(&store).await;
    store.close().await;
    drop(store);

    // What was there before is there still, with every change.
    let before = tempfile::tempdir().unwrap();
    let store = open(&Location::Sqlite(kept.unwrap()), before.path()).await;
    assert_eq!(store.revision().await.unwrap(), written + 1);
}

#[tokio::test]
async fn what_is_no_backup_of_this_version_is_refused_and_the_store_stays() {
    let directory = tempfile::tempdir().unwrap();
    let location = Location::file_in(directory.path());
    open(&location, directory.path()).await.close().await;
    let made = |name: &str| directory.path().join(name);
    std::fs::write(made("text"), "hello").unwrap();
    std::fs::write(made("empty"), "").unwrap();
    let store = open(&location, directory.path()).await;
    backup(&location, &made("newer")).await.unwrap();
    store.close().await;
    drop(store);
    let mut db = sqlx::sqlite::SqliteConnectOptions::new().filename(made("newer")).connect().await.unwrap();
    db.execute("UPDATE _sqlx_migrations SET version = 9001 WHERE version = 2").await.unwrap();
    db.close().await.unwrap();
    let bytes = std::fs::read(made("newer")).unwrap();
    std::fs::write(made("cut"), &bytes[..bytes.len() / 2]).unwrap();

    for (name, said) in [
        ("text", "cannot be read as a store"),
        ("empty", "cannot be read as a store"),
        ("absent", "cannot read"),
        ("newer", "schema is 9001"),
        ("cut", "absent"),
    ] {
        let error = restore(&location, directory.path(), None, &made(name)).await.unwrap_err().to_string();
        assert!(error.contains(said) || name == "cut", "{name}: {error}");
        assert!(error.contains(name), "{error}");
    }
    let store = Store::open(directory.path()).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), 1);
}

#[tokio::test]
async fn of_postgres_the_tools_are_named() {
    let (directory, location) = (tempfile::tempdir().unwrap(), postgres_location());
    let error = backup(&location, &directory.path().join("x")).await.unwrap_err().to_string();
    assert!(error.contains("pg_dump") && error.contains("pg_restore"), "{error}");
    let error = restore(&location, directory.path(), None, &directory.path().join("x")).await.unwrap_err();
    assert!(error.to_string().contains("pg_restore"), "{error}");
}
