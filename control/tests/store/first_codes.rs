//! One-time codes that the account asks of everybody who logs in by password, over both databases.

use sluicegate_control::ids::now;
use sluicegate_control::store::{
    Actor, NewInvite, Result, Source, Store, StoreError, User, UserChange, UserRole, Via,
};
use totp_rs::TOTP;

use crate::world::{check_trail, open, places};

const ANN: &str = "ann@example.org";
const PASSWORD: &str = "correct horse battery";
const WRONG: &str = "wrong password";

async fn owner(store: &Store) -> User {
    store.users().await.unwrap().into_iter().find(|user| user.role == UserRole::Owner).unwrap()
}

async fn ann(store: &Store) -> User {
    let new = NewInvite {
        email: ANN.into(),
        name: "Ann".into(),
        role: UserRole::Auditor,
        auto_groups: vec![],
        expires_in: None,
    };
    let (_, secret) = store.create_invite(&owner(store).await, new).await.unwrap();
    store.accept_invite(&Source::default(), &secret, PASSWORD).await.unwrap()
}

async fn require(store: &Store, required: bool) {
    let mut settings = store.account().await.unwrap().settings;
    settings.local_mfa_enabled = required;
    store.update_settings(&Actor::system(), settings).await.unwrap();
}

fn code(url: &str, steps: i64) -> String {
    TOTP::from_url(url).unwrap().generate((now() / 1000 + steps * 30).unsigned_abs())
}

fn needs_codes<T: std::fmt::Debug>(login: &Result<T>) {
    assert!(matches!(login, Err(StoreError::NeedsCodes)), "{login:?}");
}

#[tokio::test]
async fn nobody_is_logged_in_before_a_first_code_was_shown() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let ann = ann(&store).await;
        for (from, first) in [("192.0.2.7", true), ("2001:db8::7", false)] {
            let from = Source::of(Some(from.parse().unwrap()));
            let login = async |password, code: &str| store.password_login(&from, ANN, password, code).await;
            let begin = async |password| store.begin_first_codes(&from, ANN, password).await;
            assert!(login(PASSWORD, "").await.unwrap().is_some(), "by choice until then");
            assert!(matches!(begin(PASSWORD).await, Err(StoreError::Invalid(_))));
            let (_, before) = store.create_session(&ann, &Via::default()).await.unwrap();

            require(&store, true).await;
            assert!(store.session_user(&before).await.unwrap().is_some(), "who is logged in stays so");
            for _ in 0..3 {
                assert!(login(WRONG, "").await.unwrap().is_none(), "nothing is told who guesses");
                assert!(begin(WRONG).await.unwrap().is_none());
                // These begin the count of failures anew: there is no pause.
                needs_codes(&login(PASSWORD, "").await);
                needs_codes(&login(PASSWORD, "000000").await);
            }
            assert_eq!(store.begin_first_codes(&from, "bob@example.org", PASSWORD).await.unwrap(), None);

            let unused = begin(PASSWORD).await.unwrap().unwrap();
            let shown = begin(PASSWORD).await.unwrap().unwrap();
            needs_codes(&login(PASSWORD, "").await);
            assert!(login(PASSWORD, &code(&unused, 0)).await.unwrap().is_none(), "another took its place");
            assert!(login(WRONG, &code(&shown, 0)).await.unwrap().is_none());
            let used = code(&shown, 0);
            assert_eq!(login(PASSWORD, &used).await.unwrap().unwrap().id, ann.id);
            let on = store.events().await.unwrap().into_iter().find(|event| event.code == "user.totp.enable");
            assert_eq!(on.unwrap().initiator.id, ann.id);
            for again in ["", used.as_str()] {
                assert!(login(PASSWORD, again).await.unwrap().is_none(), "as ever with codes");
            }
            assert!(begin(PASSWORD).await.unwrap().is_none(), "who has codes is told nothing without one");
            store.end_pauses().await.unwrap();
            assert!(login(PASSWORD, &code(&shown, 1)).await.unwrap().is_some());

            // Off again, by the user or an administrator: who has no codes is not logged in.
            match first {
                true => store.end_own_codes(&ann, PASSWORD).await.unwrap(),
                false => store.end_codes_of(&owner(&store).await, &ann.id).await.unwrap(),
            }
            assert!(store.session_user(&before).await.unwrap().is_none(), "every login ends");
            needs_codes(&login(PASSWORD, "").await);
            require(&store, false).await;
            assert!(login(PASSWORD, "").await.unwrap().is_some());
        }
        check_trail(&store).await;
        store.close().await;
    }
}

#[tokio::test]
async fn five_wrong_codes_cost_the_secret_and_a_blocked_user_gets_none() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let ann = ann(&store).await;
        require(&store, true).await;
        let from = Source::default();
        let login = async |code: &str| store.password_login(&from, ANN, PASSWORD, code).await;
        let shown = store.begin_first_codes(&from, ANN, PASSWORD).await.unwrap().unwrap();
        for _ in 0..5 {
            assert!(login("12345").await.unwrap().is_none());
            store.end_pauses().await.unwrap();
        }
        needs_codes(&login(&code(&shown, 0)).await);

        let blocked =
            |blocked| UserChange { role: UserRole::Auditor, blocked: Some(blocked), auto_groups: vec![] };
        let owner = owner(&store).await;
        store.update_user(&owner, &ann.id, blocked(true)).await.unwrap();
        assert!(matches!(login("").await, Err(StoreError::Denied(_))));
        let refused = store.begin_first_codes(&from, ANN, PASSWORD).await;
        assert!(matches!(refused, Err(StoreError::Denied(_))), "{refused:?}");
        store.update_user(&owner, &ann.id, blocked(false)).await.unwrap();
        // Two at once with one code: it is good for one of them.
        let shown = store.begin_first_codes(&from, ANN, PASSWORD).await.unwrap().unwrap();
        let first = code(&shown, 0);
        let (one, two) = tokio::join!(login(&first), login(&first));
        assert_eq!([one, two].into_iter().filter_map(Result::unwrap).count(), 1);
        check_trail(&store).await;
        store.close().await;
    }
}
