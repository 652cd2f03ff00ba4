//! Users who come by an identity provider, their peers, and what cuts those, over both databases.

use sluicegate_control::store::{
    EnrollError, EnrolledPeer, Enrollment, Expired, NewUser, Person, Role, Store, StoreError, User,
    UserChange, UserRole, Via,
};

use crate::world::{
    all, check_trail, group, image_from_scratch, join, machine, open, places, policy, setup_key,
};

fn person(subject: &str, at: i64) -> Person {
    Person {
        issuer: "https://idp.example".into(),
        subject: subject.into(),
        name: subject.into(),
        email: format!("{subject}@example.org"),
        email_verified: true,
        at,
    }
}

async fn owner(store: &Store) -> User {
    store.users().await.unwrap().into_iter().find(|user| user.role == UserRole::Owner).unwrap()
}

async fn without_approval(store: &Store) {
    let mut settings = store.account().await.unwrap().settings;
    settings.extra.user_approval_required = false;
    store.update_settings(&owner(store).await.actor(), settings).await.unwrap();
}

/// A user without groups.
async fn user(store: &Store, subject: &str) -> User {
    store.sign_in(&person(subject, 0), |_| None).await.unwrap()
}

/// A machine joins with a key that its user has made.
async fn log_in_on(store: &Store, user: &User, machine: Enrollment) -> Result<EnrolledPeer, EnrollError> {
    let (setup_key, _) = store.create_join_key(user).await?;
    store.enroll(&Enrollment { setup_key, ..machine }).await
}

fn change(blocked: bool) -> UserChange {
    UserChange { role: UserRole::User, blocked: Some(blocked), auto_groups: vec![] }
}

#[tokio::test]
async fn blocking_a_user_changes_the_images_of_all_who_could_reach_the_users_peers() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        without_approval(&store).await;
        let (owner, all, key) = (owner(&store).await, all(&store).await, setup_key(&store).await);
        store.create_policy(&owner.actor(), policy("ssh", &all, 1, 22)).await.unwrap();
        let ann = user(&store, "ann").await;
        let mine = [
            log_in_on(&store, &ann, machine(1, Role::Peer)).await.unwrap(),
            log_in_on(&store, &ann, machine(2, Role::Peer)).await.unwrap(),
        ];
        let server = join(&store, &key, 3, Role::Peer).await;
        let allowed = async |id: &str| store.snapshot().await.unwrap().state.peers[id].allowed;
        let image = async |id: &str| image_from_scratch(&store, id).await.1;
        let before = (image(&server.id).await, image(&mine[0].id).await);
        assert!(allowed(&mine[0].id).await && allowed(&mine[1].id).await);

        let (early, _) = store.create_join_key(&ann).await.unwrap();
        store.update_user(&owner, &ann.id, change(true)).await.unwrap();
        assert!(!allowed(&mine[0].id).await && !allowed(&mine[1].id).await && allowed(&server.id).await);
        assert_ne!(image(&server.id).await, before.0);
        assert_ne!(image(&mine[0].id).await, before.1);
        let early = Enrollment { setup_key: early, ..machine(4, Role::Peer) };
        let refused = store.enroll(&early).await;
        assert!(matches!(refused, Err(EnrollError::UnknownKey)), "{refused:?}");
        assert!(matches!(store.create_join_key(&ann).await, Err(StoreError::Denied(_))));
        assert!(matches!(store.renew_peer(&ann, &mine[0].id).await, Err(StoreError::Denied(_))));

        store.update_user(&owner, &ann.id, change(false)).await.unwrap();
        assert_eq!((image(&server.id).await, image(&mine[0].id).await), before);
        let refused = store.enroll(&early).await;
        assert!(matches!(refused, Err(EnrollError::UnknownKey)), "a block ends keys for good: {refused:?}");

        store.delete_user(&owner, &ann.id).await.unwrap();
        let left: Vec<String> =
            store.peers(None, None).await.unwrap().into_iter().map(|peer| peer.id).collect();
        assert_eq!(left, [server.id]);
        check_trail(&store).await;
        store.close().await;
    }
}

#[tokio::test]
async fn who_waits_for_approval_may_do_nothing_and_may_be_let_in_or_sent_away() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let owner = owner(&store).await;
        let denied = store.sign_in(&person("bob", 0), |_| None).await;
        assert!(matches!(denied, Err(StoreError::Denied(_))), "{denied:?}");
        let waiting = store.users().await.unwrap().into_iter().find(|user| user.subject == "bob").unwrap();
        assert!(waiting.pending_approval && waiting.role == UserRole::User);
        assert!(store.create_session(&waiting, &Via::default()).await.is_err());
        assert!(log_in_on(&store, &waiting, machine(1, Role::Peer)).await.is_err());
        // Coming again makes nobody else.
        assert!(store.sign_in(&person("bob", 0), |_| None).await.is_err());
        assert_eq!(store.users().await.unwrap().len(), 2);

        store.approve_user(&owner, &waiting.id).await.unwrap();
        let bob = user(&store, "bob").await;
        assert_eq!(bob.id, waiting.id);
        let (session, text) = store.create_session(&bob, &Via::default()).await.unwrap();
        assert_eq!(store.session_user(&text).await.unwrap().unwrap().id, session.user_id);
        store.update_user(&owner, &bob.id, change(true)).await.unwrap();
        assert_eq!(store.session_user(&text).await.unwrap(), None);
        assert!(matches!(store.approve_user(&owner, &bob.id).await, Err(StoreError::Invalid(_))));

        assert!(store.sign_in(&person("carl", 0), |_| None).await.is_err());
        let carl = store.users().await.unwrap().into_iter().find(|user| user.subject == "carl").unwrap();
        store.reject_user(&owner, &carl.id).await.unwrap();
        assert_eq!(store.users().await.unwrap().len(), 2);
        check_trail(&store).await;
        store.close().await;
    }
}

#[tokio::test]
async fn an_invitation_is_taken_once_by_a_verified_address_and_an_older_token_brings_no_group_back() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let owner = owner(&store).await;
        let new = NewUser {
            name: "Ann".into(),
            email: "ANN@example.org".into(),
            role: UserRole::Admin,
            is_service_user: false,
            auto_groups: vec![],
        };
        let invited = store.create_user(&owner, new).await.unwrap();
        let unverified = Person { email_verified: false, ..person("ann", 0) };
        assert!(store.sign_in(&unverified, |_| None).await.is_err());
        let other = Person { subject: "ann2".into(), ..person("ann", 0) };
        assert_eq!(store.sign_in(&other, |_| None).await.unwrap().id, invited.id);
        let again = Person { subject: "ann3".into(), ..person("ann", 0) };
        assert!(store.sign_in(&again, |_| None).await.is_err(), "the invitation is taken");

        let mut settings = store.account().await.unwrap().settings;
        settings.jwt_groups_enabled = true;
        store.update_settings(&owner.actor(), settings).await.unwrap();
        let hour = 3_600_000;
        let now = sluicegate_control::ids::now();
        let at = |at: i64| Person { at, ..other.clone() };
        let groups = async |person: Person, names: &[&str]| -> usize {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            store.sign_in(&person, |_| Some(names.clone())).await.unwrap().auto_groups.len()
        };
        assert_eq!(groups(at(now), &["dev", "ops"]).await, 2);
        let revision = store.revision().await.unwrap();
        assert_eq!(groups(at(now), &["ops", "dev"]).await, 2);
        assert_eq!(store.revision().await.unwrap(), revision, "nothing new writes nothing");
        assert_eq!(groups(at(now + hour), &["ops"]).await, 1);
        assert_eq!(groups(at(now - hour), &["dev", "ops"]).await, 1, "an old token");

        // A second older is older; one that does not say when it was issued is never news.
        assert_eq!(groups(at(now + hour - 1000), &["dev", "ops"]).await, 1);
        assert_eq!(groups(at(0), &["dev", "ops"]).await, 1);
        // Two tokens of one login, of which only one has the claim, or with other groups in each.
        let revision = store.revision().await.unwrap();
        for _ in 0..3 {
            let bare = store.sign_in(&at(now + hour), |_| None).await.unwrap();
            assert_eq!(bare.auto_groups.len(), 1);
            assert_eq!(groups(at(now + hour), &["dev"]).await, 1);
            assert_eq!(groups(at(now + hour), &["ops"]).await, 1);
        }
        let bare = store.sign_in(&at(now + 2 * hour), |_| None).await.unwrap();
        assert_eq!(bare.auto_groups.len(), 1, "a newer one that says nothing of groups");
        // A newer one that brings nothing new counts all the same.
        assert_eq!(groups(at(now + 2 * hour), &["ops"]).await, 1);
        assert_eq!(groups(at(now + hour + 1000), &["dev", "ops"]).await, 1);
        assert_eq!(store.revision().await.unwrap(), revision);
        assert_eq!(groups(at(now + 2 * hour + 1), &[]).await, 0);
        check_trail(&store).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_login_on_a_machine_gets_old_and_is_renewed_by_its_own_user_and_keys() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        without_approval(&store).await;
        let (owner, key) = (owner(&store).await, setup_key(&store).await);
        let (ann, eve) = (user(&store, "ann").await, user(&store, "eve").await);
        let mine = log_in_on(&store, &ann, machine(1, Role::Peer)).await.unwrap();
        let server = join(&store, &key, 2, Role::Peer).await;
        let day = 24 * 3_600_000;
        for id in [&mine.id, &server.id] {
            store.age_peer(id, day - 60_000).await.unwrap();
        }
        assert_eq!(store.expire_peers().await.unwrap(), 0);
        for id in [&mine.id, &server.id] {
            store.age_peer(id, 120_000).await.unwrap();
        }
        assert_eq!(store.expire_peers().await.unwrap(), 1);
        assert_eq!(store.expire_peers().await.unwrap(), 0);
        let expired = async |id: &str| store.peer(id).await.unwrap().expired;
        let allowed = async |id: &str| store.snapshot().await.unwrap().state.peers[id].allowed;
        assert_eq!(expired(&mine.id).await, Some(Expired::Login));
        assert!(!allowed(&mine.id).await && allowed(&server.id).await, "a setup key's peer never expires");

        let foreign = Enrollment { identity_key: [9; 32], ..machine(1, Role::Peer) };
        for refused in [
            log_in_on(&store, &ann, foreign).await,
            log_in_on(&store, &eve, machine(1, Role::Peer)).await,
            log_in_on(&store, &ann, machine(2, Role::Peer)).await,
        ] {
            assert!(matches!(refused, Err(EnrollError::KnownWireguardKey(_))), "{refused:?}");
        }
        let again = log_in_on(&store, &ann, machine(1, Role::Peer)).await.unwrap();
        assert_eq!((again.id.as_str(), again.created), (mine.id.as_str(), false));
        assert!(expired(&mine.id).await.is_none() && allowed(&mine.id).await);

        // The settings decide at once, either way.
        store.age_peer(&mine.id, 7_200_000).await.unwrap();
        let mut settings = store.account().await.unwrap().settings;
        settings.peer_login_expiration = 3600;
        store.update_settings(&owner.actor(), settings.clone()).await.unwrap();
        assert!(!allowed(&mine.id).await);
        settings.peer_login_expiration_enabled = false;
        store.update_settings(&owner.actor(), settings.clone()).await.unwrap();
        assert!(allowed(&mine.id).await);
        // Away for too long: coming back alone does not help.
        settings.peer_inactivity_expiration_enabled = true;
        settings.peer_inactivity_expiration = 3600;
        store.update_settings(&owner.actor(), settings).await.unwrap();
        assert!(expired(&mine.id).await.is_none(), "control has not been there for as long");
        store.start_at(sluicegate_control::ids::now() - 3_590_000);
        assert_eq!(store.expire_peers().await.unwrap(), 0);
        store.start_at(sluicegate_control::ids::now() - 3_600_000);
        assert_eq!(store.expire_peers().await.unwrap(), 1);
        assert_eq!(expired(&mine.id).await, Some(Expired::Inactivity));
        store.peer_seen(&mine.id, &Default::default()).await.unwrap();
        assert_eq!(store.expire_peers().await.unwrap(), 0);
        assert!(!allowed(&mine.id).await);
        for (other, id) in [(&eve, &mine.id), (&ann, &server.id)] {
            assert!(matches!(store.renew_peer(other, id).await, Err(StoreError::NotFound { .. })));
        }
        assert!(!allowed(&mine.id).await);
        store.renew_peer(&ann, &mine.id).await.unwrap();
        assert!(allowed(&mine.id).await);

        let gateway = log_in_on(&store, &ann, machine(5, Role::Gateway)).await;
        assert!(matches!(gateway, Err(EnrollError::User(_))), "{gateway:?}");
        check_trail(&store).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_restart_of_control_expires_nobody_who_was_there() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        without_approval(&store).await;
        let owner = owner(&store).await;
        let ann = user(&store, "ann").await;
        let mine = log_in_on(&store, &ann, machine(1, Role::Peer)).await.unwrap();
        let mut settings = store.account().await.unwrap().settings;
        settings.peer_inactivity_expiration_enabled = true;
        store.update_settings(&owner.actor(), settings).await.unwrap();
        // Connected for two hours, which says nothing of the end.
        store.peer_seen(&mine.id, &Default::default()).await.unwrap();
        store.age_peer(&mine.id, 7_200_000).await.unwrap();
        assert_eq!(store.expire_peers().await.unwrap(), 0);
        store.close().await;
        drop(store);

        let store = open(&location, directory.path()).await;
        let seen = store.peer(&mine.id).await.unwrap();
        assert!(!seen.connected && seen.last_seen + 60_000 > sluicegate_control::ids::now(), "{seen:?}");
        store.age_peer(&mine.id, 3_600_000).await.unwrap();
        assert_eq!(store.expire_peers().await.unwrap(), 0, "control was away, not the peer");
        store.start_at(sluicegate_control::ids::now() - 600_000);
        assert_eq!(store.expire_peers().await.unwrap(), 1);
        store.close().await;
    }
}

#[tokio::test]
async fn a_token_is_made_with_the_role_that_its_maker_has_by_then() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let owner = owner(&store).await;
        let new = |name: &str, role| NewUser {
            name: name.into(),
            email: String::new(),
            role,
            is_service_user: true,
            auto_groups: vec![],
        };
        let maker = store.create_user(&owner, new("maker", UserRole::Admin)).await.unwrap();
        let robot = store.create_user(&owner, new("robot", UserRole::Admin)).await.unwrap();
        let (token, _) = store.create_token(&maker, &robot.id, "t", 1).await.unwrap();
        // What authentication had read of the maker is old.
        for role in [UserRole::NetworkAdmin, UserRole::User] {
            store.update_user(&owner, &maker.id, UserChange { role, ..change(false) }).await.unwrap();
            let refused = store.create_token(&maker, &robot.id, "t", 1).await;
            assert!(matches!(refused, Err(StoreError::Denied(_))), "{refused:?}");
            let refused = store.delete_token(&maker, &robot.id, &token.id).await;
            assert!(matches!(refused, Err(StoreError::Denied(_))), "{refused:?}");
        }
        store.create_token(&maker, &maker.id, "own", 1).await.unwrap();
        store.update_user(&owner, &maker.id, change(true)).await.unwrap();
        let refused = store.create_token(&maker, &maker.id, "own", 1).await;
        assert!(matches!(refused, Err(StoreError::Denied(_))), "{refused:?}");
        assert_eq!(store.tokens(&robot.id).await.unwrap().len(), 1);
        store.close().await;
    }
}

#[tokio::test]
async fn a_key_for_a_machine_is_one_machines_and_not_for_long() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        without_approval(&store).await;
        let (owner, ann) = (owner(&store).await, user(&store, "ann").await);
        let group = store.create_group(&owner.actor(), group("staff")).await.unwrap().id;
        let staff = UserChange { auto_groups: vec![group.clone()], ..change(false) };
        store.update_user(&owner, &ann.id, staff).await.unwrap();
        let (setup_key, _) = store.create_join_key(&ann).await.unwrap();
        let with = |machine: Enrollment| Enrollment { setup_key: setup_key.clone(), ..machine };
        let named = Enrollment { dns_labels: vec!["mail".into()], ..machine(7, Role::Peer) };
        let refused = store.enroll(&with(named)).await;
        assert!(matches!(refused, Err(EnrollError::DnsLabels(_))), "{refused:?}");
        let one = store.enroll(&with(machine(7, Role::Peer))).await.unwrap();
        let peer = store.peer(&one.id).await.unwrap();
        assert_eq!(peer.user_id, ann.id);
        assert!(peer.groups.iter().any(|own| own.id == group), "{:?}", peer.groups);
        assert_eq!(store.enroll(&with(machine(7, Role::Peer))).await.unwrap().id, one.id, "a lost answer");
        let second = store.enroll(&with(machine(8, Role::Peer))).await;
        assert!(matches!(second, Err(EnrollError::Overused(_))), "{second:?}");
        store.delete_peer(&owner.actor(), &one.id).await.unwrap();
        let again = store.enroll(&with(machine(7, Role::Peer))).await;
        assert!(matches!(again, Err(EnrollError::Overused(_))), "it was deleted: {again:?}");
        assert!(store.peers(None, None).await.unwrap().is_empty());

        let unknown =
            Enrollment { setup_key: sluicegate_control::secret::new_join_key(), ..machine(8, Role::Peer) };
        assert!(matches!(store.enroll(&unknown).await, Err(EnrollError::UnknownKey)));
        let malformed = Enrollment { setup_key: "sgj_x".into(), ..machine(8, Role::Peer) };
        assert!(matches!(store.enroll(&malformed).await, Err(EnrollError::UnknownKey)));
        let (setup_key, _) = store.create_join_key(&ann).await.unwrap();
        store.expire_join_keys().await.unwrap();
        let late = store.enroll(&Enrollment { setup_key, ..machine(9, Role::Peer) }).await;
        assert!(matches!(late, Err(EnrollError::Expired(_))), "{late:?}");
        assert!(store.create_join_key(&owner).await.is_err(), "service users have setup keys");
        for _ in 0..20 {
            store.create_join_key(&ann).await.unwrap();
        }
        assert!(matches!(store.create_join_key(&ann).await, Err(StoreError::Invalid(_))), "too many");
        check_trail(&store).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_login_that_is_ended_takes_the_unused_keys_of_its_user_with_it() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        without_approval(&store).await;
        let owner = owner(&store).await;
        let (ann, eve) = (user(&store, "ann").await, user(&store, "eve").await);
        let of = async |user: &User, which: u8| -> Enrollment {
            let (setup_key, _) = store.create_join_key(user).await.unwrap();
            Enrollment { setup_key, ..machine(which, Role::Peer) }
        };
        let (used, others) = (of(&ann, 1).await, of(&eve, 2).await);
        let mine = store.enroll(&used).await.unwrap();
        for logout in [false, true] {
            let (session, text) = store.create_session(&ann, &Via::default()).await.unwrap();
            let unused = of(&ann, 3).await;
            match logout {
                false => store.end_session_of(&owner, &ann.id, &session.id).await.unwrap(),
                true => store.end_session(&text).await.unwrap(),
            }
            assert_eq!(store.session_user(&text).await.unwrap(), None);
            let refused = store.enroll(&unused).await;
            assert!(matches!(refused, Err(EnrollError::UnknownKey)), "{logout}: {refused:?}");
            // A token that is no login's any more ends nothing.
            let next = of(&ann, 4).await;
            store.end_session(&text).await.unwrap();
            assert_eq!(store.enroll(&next).await.unwrap().created, !logout);
        }
        // The answer to a machine that is there may have been lost.
        let again = store.enroll(&used).await.unwrap();
        assert_eq!((again.id, again.created), (mine.id, false));
        assert!(store.enroll(&others).await.unwrap().created, "another's");
        check_trail(&store).await;
        store.close().await;
    }
}
