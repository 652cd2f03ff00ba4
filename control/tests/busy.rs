//! Logins while too many passwords are looked at already. In a process of its own: the queue is the whole process's.

use sluicegate_control::passwords::{HashError, Place};
use sluicegate_control::store::{FirstUser, Source, Store, StoreError, UserRole};

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

    let (home, elsewhere) =
        (Source::of(Some("192.0.2.7".parse().unwrap())), Source::of(Some("2001:db8::7".parse().unwrap())));
    assert!(store.password_login(&home, &user.email, PASSWORD, "").await.unwrap().is_some());

    let busy = |error: StoreError| matches!(error, StoreError::Hash(HashError::Busy));
    let strangers: Vec<Place> = std::iter::from_fn(|| Place::for_stranger().ok()).collect();
    assert_eq!(strangers.len(), 48);
    assert!(busy(store.password_login(&elsewhere, &user.email, PASSWORD, "").await.unwrap_err()));
    assert!(busy(store.password_login(&home, "nobody@example.org", PASSWORD, "").await.unwrap_err()));
    assert!(store.password_login(&home, &user.email, PASSWORD, "").await.unwrap().is_some());

    let places: Vec<Place> = std::iter::from_fn(|| Place::take().ok()).collect();
    assert_eq!(places.len(), 16);
    for _ in 0..6 {
        assert!(busy(store.password_login(&home, &user.email, PASSWORD, "").await.unwrap_err()));
        let changed = store.change_password(&user, &home, PASSWORD, "another password").await;
        assert!(busy(changed.unwrap_err()));
        assert!(busy(store.end_own_codes(&user, PASSWORD).await.unwrap_err()));
    }
    drop((strangers, places));
    for from in [&home, &elsewhere] {
        let login = store.password_login(from, &user.email, PASSWORD, "").await.unwrap();
        assert_eq!(login.unwrap().id, user.id);
    }
    store.close().await;
}
