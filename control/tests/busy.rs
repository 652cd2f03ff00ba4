//! Logins while too many passwords are looked at already. In a process of its own: the queue is the whole process's.

use sluicegate_control::passwords::{HashError, Place};
use sluicegate_control::store::{FirstUser, Store, StoreError, UserRole};

const PASSWORD: &str = "correct horse battery";

#[tokio::test]
async fn who_finds_no_place_in_the_queue_has_not_tried() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    let users = store.users().await.unwrap();
    let bootstrap = users.iter().find(|user| user.role == UserRole::Owner).unwrap();
    let first = FirstUser {
        email: "own@example.org".into(),
        name: String::new(),
        password: PASSWORD.into(),
        token_days: None,
    };
    let (user, _) = store.set_up(&bootstrap.actor(), first).await.unwrap().unwrap();

    let places: Vec<Place> = std::iter::from_fn(|| Place::take().ok()).collect();
    assert_eq!(places.len(), 64);
    let busy = |error: StoreError| matches!(error, StoreError::Hash(HashError::Busy));
    for _ in 0..6 {
        assert!(busy(store.password_login(&user.email, PASSWORD, "").await.unwrap_err()));
        assert!(busy(store.change_password(&user, PASSWORD, "another password").await.unwrap_err()));
        assert!(busy(store.end_own_codes(&user, PASSWORD).await.unwrap_err()));
    }
    drop(places);
    assert_eq!(store.password_login(&user.email, PASSWORD, "").await.unwrap().unwrap().id, user.id);
    store.close().await;
}
