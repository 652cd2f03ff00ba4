//! Databases that control cannot work on are refused with what to do about it.

use std::os::unix::fs::PermissionsExt;

use sluicegate_control::store::{AuthorityError, Location, Store};

use crate::postgres;
use crate::world::{open, places, sql};

async fn refusal(location: &Location) -> String {
    let directory = tempfile::tempdir().unwrap();
    Store::open_at(location, directory.path()).await.err().unwrap().to_string()
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_named_with_the_reason_and_without_the_password() {
    let url = "postgres://control:secret@127.0.0.1:1/x";
    let said = refusal(&Location::parse(url, None).unwrap()).await;
    assert!(
        said.contains("postgres://control@127.0.0.1:1/x") && said.contains("cannot be reached"),
        "{said}"
    );
    assert!(said.contains("refused") && !said.contains("secret"), "{said}");

    let url = postgres::database().replace("localhost/test", "localhost/absent");
    let said = refusal(&Location::parse(&url, None).unwrap()).await;
    assert!(said.contains("absent") && said.contains("does not exist"), "{said}");
}

#[tokio::test]
async fn a_database_that_takes_no_changes_is_refused() {
    let url = postgres::database();
    sql(&url, "ALTER DATABASE :DBNAME SET default_transaction_read_only = on");
    let said = refusal(&Location::parse(&url, None).unwrap()).await;
    assert!(said.contains("read-only") && said.contains("primary"), "{said}");
}

#[tokio::test]
async fn a_database_of_another_encoding_is_refused() {
    let url = postgres::database();
    sql(&url, "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0");
    let (front, back) = url.split_once("localhost/").unwrap();
    let (_, socket) = back.split_once('?').unwrap();
    let said = refusal(&Location::parse(&format!("{front}localhost/latin?{socket}"), None).unwrap()).await;
    assert!(said.contains("LATIN1") && said.contains("UTF8"), "{said}");
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("control.db");
    std::fs::write(&file, "precious".repeat(100)).unwrap();
    let said = refusal(&Location::Sqlite(file.clone())).await;
    assert!(said.contains("control.db") && said.contains("not a database"), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious".repeat(100));
}

#[tokio::test]
async fn a_file_elsewhere_is_used_by_one_control_at_a_time() {
    let (first, second, files) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let location = Location::Sqlite(files.path().join("x.db"));
    let store = open(&location, first.path()).await;
    assert_eq!(std::fs::metadata(files.path().join("x.db")).unwrap().permissions().mode() & 0o777, 0o600);
    let said = Store::open_at(&location, second.path()).await.err().unwrap().to_string();
    assert!(said.contains("x.db is in use"), "{said}");
    store.close().await;
}

#[tokio::test]
async fn replicas_share_one_authority_and_a_file_follows_its_directory() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        store.pin_authority(None).await.unwrap();
        store.pin_authority(Some("aa")).await.unwrap();
        store.pin_authority(Some("aa")).await.unwrap();
        let others = [store.pin_authority(None).await, store.pin_authority(Some("bb")).await];
        if let Location::Sqlite(_) = location {
            assert!(others.iter().all(Result::is_ok));
            continue;
        }
        for other in others {
            let Err(error @ AuthorityError::Other { .. }) = other else { panic!("{other:?}") };
            assert!(
                error.to_string().contains("sha256:aa") && error.to_string().contains("ca.key"),
                "{error}"
            );
        }
    }
}
