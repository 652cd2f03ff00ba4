//! Built-in users over both databases: set-up, passwords, pauses, one-time codes, invitations.

use sluicegate_control::ids::now;
use sluicegate_control::store::{
    FirstUser, NewInvite, NewUser, Person, Source, Store, StoreError, User, UserChange, UserRole, Via,
};
use totp_rs::TOTP;

use crate::world::{check_trail, open, places};

const PASSWORD: &str = "correct horse battery";

async fn owner(store: &Store) -> User {
    store.users().await.unwrap().into_iter().find(|user| user.role == UserRole::Owner).unwrap()
}

fn invitation(email: &str) -> NewInvite {
    NewInvite {
        email: email.into(),
        name: "Ann".into(),
        role: UserRole::Auditor,
        auto_groups: vec![],
        expires_in: None,
    }
}

async fn ann(store: &Store) -> User {
    let (_, secret) = store.create_invite(&owner(store).await, invitation("Ann@example.org")).await.unwrap();
    store.accept_invite(&Source::default(), &secret, PASSWORD).await.unwrap()
}

async fn logs_in(store: &Store, address: &str, password: &str, code: &str) -> bool {
    store.password_login(&Source::default(), address, password, code).await.unwrap().is_some()
}

#[tokio::test]
async fn the_first_person_becomes_the_owner_and_there_is_no_second_first_one() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let bootstrap = owner(&store).await;
        let first = |email: &str| FirstUser {
            email: email.into(),
            name: String::new(),
            password: PASSWORD.into(),
            token_days: Some(7),
        };
        assert!(store.needs_set_up().await.unwrap());
        for wrong in [
            FirstUser { email: "nobody".into(), ..first("") },
            FirstUser { password: "short".into(), ..first("o@example.org") },
            FirstUser { token_days: Some(366), ..first("o@example.org") },
        ] {
            assert!(matches!(store.set_up(&bootstrap.actor(), wrong).await, Err(StoreError::Invalid(_))));
        }
        let actor = bootstrap.actor();
        // At once: one of them is the first.
        let (one, two) = tokio::join!(
            store.set_up(&actor, first("o@example.org")),
            store.set_up(&actor, first("p@example.org"))
        );
        let mut made: Vec<_> = [one.unwrap(), two.unwrap()].into_iter().flatten().collect();
        assert_eq!(made.len(), 1);
        let (user, token) = made.remove(0);
        assert_eq!((user.role, user.issuer.as_str(), &user.name), (UserRole::Owner, "local", &user.email));
        assert_eq!(store.user(&bootstrap.id).await.unwrap().role, UserRole::Admin);
        assert_eq!(owner(&store).await.id, user.id);
        assert_eq!(store.authenticate(&token.unwrap()).await.unwrap().unwrap().id, user.id);
        assert!(!store.needs_set_up().await.unwrap());
        assert!(store.set_up(&actor, first("q@example.org")).await.unwrap().is_none());
        assert!(logs_in(&store, &user.email, PASSWORD, "").await);
        check_trail(&store).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_password_opens_and_too_many_wrong_ones_pause_an_address_known_or_not() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let ann = ann(&store).await;
        assert!(logs_in(&store, " ann@EXAMPLE.org ", PASSWORD, "").await);
        assert!(!logs_in(&store, "bob@example.org", PASSWORD, "").await);
        assert!(!logs_in(&store, "ann@example.org", &"x".repeat(100_000), "").await);
        for _ in 0..4 {
            assert!(!logs_in(&store, "ann@example.org", "wrong password", "").await);
        }
        assert!(!logs_in(&store, "ann@example.org", PASSWORD, "").await, "a pause");
        store.end_pauses().await.unwrap();
        assert!(logs_in(&store, "ann@example.org", PASSWORD, "").await);
        assert!(logs_in(&store, "ann@example.org", PASSWORD, "").await, "success starts anew");

        let (_, token) = store.create_session(&ann, &Via::default()).await.unwrap();
        for (old, new, denied) in [("wrong", "another password", true), (PASSWORD, "short", false)] {
            let error = store.change_password(&ann, &Source::default(), old, new).await.unwrap_err();
            assert_eq!(matches!(error, StoreError::Denied(_)), denied, "{error}");
        }
        assert!(store.session_user(&token).await.unwrap().is_some());
        store.change_password(&ann, &Source::default(), PASSWORD, "another password").await.unwrap();
        assert_eq!(store.session_user(&token).await.unwrap(), None, "every login ends");
        assert!(!logs_in(&store, "ann@example.org", PASSWORD, "").await);
        assert!(logs_in(&store, "ann@example.org", "another password", "").await);

        let blocked = UserChange { role: UserRole::Auditor, blocked: Some(true), auto_groups: vec![] };
        store.update_user(&owner(&store).await, &ann.id, blocked).await.unwrap();
        let refused =
            store.password_login(&Source::default(), "ann@example.org", "another password", "").await;
        assert!(matches!(refused, Err(StoreError::Denied(_))), "{refused:?}");
        assert!(
            !logs_in(&store, "ann@example.org", PASSWORD, "").await,
            "only who knows it learns of the block"
        );
        check_trail(&store).await;
        let events = format!("{:?}", store.events().await.unwrap());
        assert!(!events.contains("argon2") && !events.contains(PASSWORD), "no secret in the trail");
        store.close().await;
    }
}

#[tokio::test]
async fn attempts_at_once_are_no_more_than_attempts_one_by_one() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        ann(&store).await;
        let tries = (0..8).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { logs_in(&store, "ann@example.org", "wrong password", "").await })
        });
        for attempt in tries.collect::<Vec<_>>() {
            assert!(!attempt.await.unwrap());
        }
        assert!(!logs_in(&store, "ann@example.org", PASSWORD, "").await);
        store.close().await;
    }
}

#[tokio::test]
async fn one_time_codes_are_asked_for_once_they_are_confirmed_and_each_is_good_once() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let ann = ann(&store).await;
        assert!(store.confirm_codes(&ann, "000000").await.is_err(), "no secret yet");
        let denied = store.begin_codes(&ann, "wrong password").await;
        assert!(matches!(denied, Err(StoreError::Denied(_))), "{denied:?}");
        store.begin_codes(&ann, PASSWORD).await.unwrap();
        let totp = TOTP::from_url(store.begin_codes(&ann, PASSWORD).await.unwrap()).unwrap();
        let code = |steps: i64| totp.generate((now() / 1000 + steps * 30).unsigned_abs());
        assert!(logs_in(&store, "ann@example.org", PASSWORD, "").await, "not confirmed");
        assert!(store.confirm_codes(&ann, &code(20)).await.is_err());
        let first = code(0);
        store.confirm_codes(&ann, &first).await.unwrap();
        assert!(!logs_in(&store, "ann@example.org", PASSWORD, "").await);
        assert!(!logs_in(&store, "ann@example.org", PASSWORD, &first).await, "the code it was confirmed by");
        assert!(!logs_in(&store, "ann@example.org", PASSWORD, &code(20)).await);
        let next = code(1);
        assert!(!logs_in(&store, "ann@example.org", "wrong password", &next).await);
        assert!(logs_in(&store, "ann@example.org", PASSWORD, &next).await);
        assert!(!logs_in(&store, "ann@example.org", PASSWORD, &next).await, "the same code again");
        assert!(store.begin_codes(&ann, PASSWORD).await.is_err(), "on already");

        assert!(store.end_own_codes(&ann, "wrong password").await.is_err());
        let auditor = {
            let (_, secret) = store
                .create_invite(
                    &owner(&store).await,
                    NewInvite { role: UserRole::User, ..invitation("b@example.org") },
                )
                .await
                .unwrap();
            store.accept_invite(&Source::default(), &secret, PASSWORD).await.unwrap()
        };
        let denied = store.end_codes_of(&auditor, &ann.id).await;
        assert!(matches!(denied, Err(StoreError::Denied(_))), "{denied:?}");
        assert!(!logs_in(&store, "ann@example.org", PASSWORD, "").await, "still on");
        store.end_codes_of(&owner(&store).await, &ann.id).await.unwrap();
        store.end_pauses().await.unwrap();
        assert!(logs_in(&store, "ann@example.org", PASSWORD, "").await);

        let totp = TOTP::from_url(store.begin_codes(&ann, PASSWORD).await.unwrap()).unwrap();
        let code = totp.generate((now() / 1000).unsigned_abs());
        for _ in 0..5 {
            assert!(store.confirm_codes(&ann, "wrong").await.is_err());
        }
        assert!(
            store.confirm_codes(&ann, &code).await.is_err(),
            "after five wrong ones it is another secret's turn"
        );
        check_trail(&store).await;
        store.close().await;
    }
}

#[tokio::test]
async fn an_invitation_is_good_once_not_for_ever_and_not_without_who_invited() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let owner = owner(&store).await;
        let (invite, first) = store.create_invite(&owner, invitation("ann@example.org")).await.unwrap();
        let twice = store.create_invite(&owner, invitation("ANN@example.org")).await;
        assert!(matches!(twice, Err(StoreError::Duplicate(_))), "{twice:?}");
        let (_, secret) = store.renew_invite(&owner, &invite.id, Some(7200)).await.unwrap();
        assert!(matches!(
            store.accept_invite(&Source::default(), &first, PASSWORD).await,
            Err(StoreError::NotFound { .. })
        ));
        assert!(matches!(
            store.accept_invite(&Source::default(), &secret, "short").await,
            Err(StoreError::Invalid(_))
        ));
        let ann = store.accept_invite(&Source::default(), &secret, PASSWORD).await.unwrap();
        assert_eq!((ann.role, ann.issuer.as_str()), (UserRole::Auditor, "local"));
        assert!(matches!(
            store.accept_invite(&Source::default(), &secret, PASSWORD).await,
            Err(StoreError::NotFound { .. })
        ));
        let denied = store.create_invite(&ann, invitation("b@example.org")).await;
        assert!(matches!(denied, Err(StoreError::Denied(_))), "an auditor invites nobody: {denied:?}");

        let (_, late) = store.create_invite(&owner, invitation("d@example.org")).await.unwrap();
        store.expire_invites().await.unwrap();
        assert!(matches!(
            store.accept_invite(&Source::default(), &late, PASSWORD).await,
            Err(StoreError::Invalid(_))
        ));
        for invite in store.invites().await.unwrap() {
            store.delete_invite(&owner, &invite.id).await.unwrap();
        }
        assert!(store.invites().await.unwrap().is_empty());

        let admin = NewInvite { role: UserRole::Admin, ..invitation("admin@example.org") };
        let (_, secret) = store.create_invite(&owner, admin).await.unwrap();
        let admin = store.accept_invite(&Source::default(), &secret, PASSWORD).await.unwrap();
        let (_, link) = store.create_invite(&admin, invitation("e@example.org")).await.unwrap();
        let above = NewInvite { role: UserRole::Owner, ..invitation("f@example.org") };
        assert!(store.create_invite(&admin, above).await.is_err());
        let demoted = UserChange { role: UserRole::User, blocked: Some(false), auto_groups: vec![] };
        store.update_user(&owner, &admin.id, demoted).await.unwrap();
        let refused = store.accept_invite(&Source::default(), &link, PASSWORD).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
        store.delete_user(&owner, &admin.id).await.unwrap();
        assert!(matches!(
            store.accept_invite(&Source::default(), &link, PASSWORD).await,
            Err(StoreError::NotFound { .. })
        ));
        check_trail(&store).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_user_who_is_there_gets_a_password_by_a_link_unless_a_provider_knows_it() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let owner = owner(&store).await;
        let new = |email: &str| NewUser {
            name: String::new(),
            email: email.into(),
            role: UserRole::Auditor,
            is_service_user: false,
            auto_groups: vec![],
        };
        let bob = store.create_user(&owner, new("bob@example.org")).await.unwrap();
        let (_, lost) = store.invite_user(&owner, &bob.id).await.unwrap();
        let (_, secret) = store.invite_user(&owner, &bob.id).await.unwrap();
        assert!(matches!(
            store.accept_invite(&Source::default(), &lost, PASSWORD).await,
            Err(StoreError::NotFound { .. })
        ));
        let came = store.accept_invite(&Source::default(), &secret, PASSWORD).await.unwrap();
        assert_eq!((&came.id, came.invited, came.role), (&bob.id, false, UserRole::Auditor));
        assert!(logs_in(&store, "bob@example.org", PASSWORD, "").await);

        // Forgotten; one-time codes stay what they were, and logins end.
        let totp = TOTP::from_url(store.begin_codes(&came, PASSWORD).await.unwrap()).unwrap();
        let code = |steps: i64| totp.generate((now() / 1000 + steps * 30).unsigned_abs());
        store.confirm_codes(&came, &code(0)).await.unwrap();
        let (_, login) = store.create_session(&came, &Via::default()).await.unwrap();
        let (_, secret) = store.invite_user(&owner, &bob.id).await.unwrap();
        store.accept_invite(&Source::default(), &secret, "another password").await.unwrap();
        assert_eq!(store.session_user(&login).await.unwrap(), None);
        assert!(!logs_in(&store, "bob@example.org", "another password", "").await);
        assert!(logs_in(&store, "bob@example.org", "another password", &code(1)).await);

        // Somebody who comes by the provider meanwhile is the provider's.
        let eve = store.create_user(&owner, new("eve@example.org")).await.unwrap();
        let (_, secret) = store.invite_user(&owner, &eve.id).await.unwrap();
        let person = Person {
            issuer: "https://idp.example".into(),
            subject: "eve".into(),
            name: "Eve".into(),
            email: "eve@example.org".into(),
            email_verified: true,
            at: 0,
        };
        assert_eq!(store.sign_in(&person, |_| None).await.unwrap().id, eve.id);
        assert!(matches!(
            store.accept_invite(&Source::default(), &secret, PASSWORD).await,
            Err(StoreError::Invalid(_))
        ));
        assert!(matches!(store.invite_user(&owner, &eve.id).await, Err(StoreError::Invalid(_))));
        assert!(
            matches!(store.invite_user(&owner, &owner.id).await, Err(StoreError::Invalid(_))),
            "a program"
        );
        check_trail(&store).await;
        store.close().await;
    }
}

#[tokio::test]
async fn logins_are_listed_ended_and_the_least_used_makes_room_and_tokens_are_no_more_than_a_hundred() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let (owner, ann) = (owner(&store).await, ann(&store).await);
        let via = Via { method: "password".into(), address: "192.0.2.7".into(), client: "sluice/1".into() };
        let (first, token) = store.create_session(&ann, &via).await.unwrap();
        assert_eq!(store.sessions(&ann.id).await.unwrap()[0].last_used, None);
        let (second, unused) = store.create_session(&ann, &via).await.unwrap();
        while now() <= second.created_at {
            tokio::task::yield_now().await;
        }
        assert_eq!(store.session_user(&token).await.unwrap().unwrap().id, ann.id);
        let mut listed = store.sessions(&ann.id).await.unwrap();
        assert_eq!(listed.len(), 2);
        listed.retain(|session| session.id == first.id);
        assert_eq!((&listed[0].address, &listed[0].client), (&via.address, &via.client));
        assert!(listed[0].last_used.is_some());
        assert_eq!(store.session_id(&token).await.unwrap().as_ref(), Some(&first.id));
        for _ in 2..50 {
            store.create_session(&ann, &via).await.unwrap();
        }
        let ended = async || {
            let events = store.events().await.unwrap();
            let ends = events.iter().filter(|event| event.code == "user.session.end");
            ends.filter(|event| event.meta["before"].contains(&second.id)).count()
        };
        assert_eq!((store.sessions(&ann.id).await.unwrap().len(), ended().await), (50, 0));
        // The second is newer than the first, and was not used since.
        store.create_session(&ann, &via).await.unwrap();
        let listed = store.sessions(&ann.id).await.unwrap();
        assert_eq!((listed.len(), ended().await), (50, 1));
        assert!(listed.iter().all(|session| session.id != second.id));
        let old = (store.session_id(&unused).await.unwrap(), store.session_id(&token).await.unwrap());
        assert_eq!(old, (None, Some(first.id.clone())));

        let other = {
            let new = NewInvite { role: UserRole::User, ..invitation("b@example.org") };
            let (_, secret) = store.create_invite(&owner, new).await.unwrap();
            store.accept_invite(&Source::default(), &secret, PASSWORD).await.unwrap()
        };
        for (caller, user) in [(&other, &ann.id), (&ann, &other.id)] {
            assert!(store.end_session_of(caller, user, &first.id).await.is_err());
        }
        assert!(matches!(store.end_session_of(&ann, &ann.id, "x").await, Err(StoreError::NotFound { .. })));
        assert!(store.session_user(&token).await.unwrap().is_some());
        store.end_session_of(&owner, &ann.id, &first.id).await.unwrap();
        assert_eq!(store.session_user(&token).await.unwrap(), None);
        let (last, _) = store.create_session(&ann, &via).await.unwrap();
        store.end_session_of(&ann, &ann.id, &last.id).await.unwrap();
        store.expire_sessions().await.unwrap();
        assert!(store.sessions(&ann.id).await.unwrap().is_empty());

        for _ in 0..100 {
            store.create_token(&ann, &ann.id, "t", 1).await.unwrap();
        }
        let refused = store.create_token(&ann, &ann.id, "t", 1).await;
        assert!(
            matches!(&refused, Err(StoreError::Invalid(why)) if why.contains("100 tokens")),
            "{refused:?}"
        );
        check_trail(&store).await;
        store.close().await;
    }
}
