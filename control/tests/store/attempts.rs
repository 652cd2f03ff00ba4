//! Who guesses is slowed down, and keeps nobody else out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};
use sluicegate_control::ids::now;
use sluicegate_control::store::{Location, NewInvite, Source, Store, StoreError, User, UserRole};
use sqlx::{ConnectOptions, Connection};
use totp_rs::TOTP;

use crate::audit::behind;
use crate::world::{check_trail, open, places};

const ANN: &str = "ann@example.org";
const PASSWORD: &str = "correct horse battery";
/// A one-time code that nobody ever has.
const NO_CODE: &str = "00000x";

fn at(address: &str) -> Source {
    Source::of(Some(address.parse().unwrap()))
}

/// Somebody's machine, of many: every other one has IPv6, and a /64 of its own.
fn bot(number: u16) -> Source {
    let address: IpAddr = match number % 2 {
        0 => Ipv4Addr::new(198, 51, (number >> 8) as u8, number as u8).into(),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 0xb07, number, 0, 0, 0, 1).into(),
    };
    Source::of(Some(address))
}

async fn invite(store: &Store, email: &str, from: &Source) -> User {
    let owner = store.users().await.unwrap().into_iter().find(|user| user.role == UserRole::Owner).unwrap();
    let new = NewInvite {
        email: email.into(),
        name: "Ann".into(),
        role: UserRole::Auditor,
        auto_groups: vec![],
        expires_in: None,
    };
    let (_, secret) = store.create_invite(&owner, new).await.unwrap();
    store.accept_invite(from, &secret, PASSWORD).await.unwrap()
}

async fn try_with(store: &Store, from: &Source, password: &str, code: &str) -> bool {
    store.password_login(from, ANN, password, code).await.unwrap().is_some()
}

async fn logs_in(store: &Store, from: &Source) -> bool {
    try_with(store, from, PASSWORD, "").await
}

/// Many machines guess, until none of them is listened to.
async fn guess(store: &Store) {
    for number in 0..22 {
        assert!(!try_with(store, &bot(number), "wrong password", "").await);
    }
}

/// And, where none of them is, guess codes: they know the password.
async fn guess_codes(store: &Store, from: impl Fn(u16) -> Source) {
    for number in 100..122 {
        assert!(!try_with(store, &from(number), PASSWORD, NO_CODE).await);
    }
}

/// Switches a user's one-time codes on, and gives the two that are good next.
async fn codes(store: &Store, ann: &User) -> [String; 2] {
    let totp = TOTP::from_url(store.begin_codes(ann, PASSWORD).await.unwrap()).unwrap();
    let begun = now() / 1000;
    let [first, next @ ..] = [-1, 0, 1].map(|steps: i64| totp.generate((begun + steps * 30).unsigned_abs()));
    store.confirm_codes(ann, &first).await.unwrap();
    next
}

/// What is counted of an address.
async fn counted(location: &Location, address: &str) -> Vec<(String, i64)> {
    const COUNTS: &str = "SELECT scope, failures FROM password_attempts WHERE login_hash = $1 ORDER BY scope";
    let hash = Sha256::digest(address).to_vec();
    match location {
        Location::Sqlite(file) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
            let mut db = options.connect().await.unwrap();
            let counts: Vec<(String, i64)> =
                sqlx::query_as(COUNTS).bind(hash).fetch_all(&mut db).await.unwrap();
            db.close().await.unwrap();
            counts
        }
        Location::Postgres(options) => {
            let mut db = options.connect().await.unwrap();
            let counts: Vec<(String, i64)> =
                sqlx::query_as(COUNTS).bind(hash).fetch_all(&mut db).await.unwrap();
            db.close().await.unwrap();
            counts
        }
    }
}

#[tokio::test]
async fn guesses_from_elsewhere_keep_nobody_out_where_he_has_come_from_before() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let (home, office, hotel) = (at("192.0.2.7"), at("2001:db8:0:1::5"), at("203.0.113.9"));
        invite(&store, ANN, &home).await;
        assert!(logs_in(&store, &office).await);
        guess(&store).await;
        assert!(
            !logs_in(&store, &bot(900)).await,
            "nobody else is listened to, with the right password neither"
        );
        assert!(!logs_in(&store, &hotel).await);
        for _ in 0..2 {
            assert!(logs_in(&store, &home).await, "known by the invitation");
            assert!(logs_in(&store, &at("2001:db8:0:1:ffff::9")).await, "of the same /64");
            assert!(!logs_in(&store, &at("2001:db8:0:2::5")).await);
            assert!(!logs_in(&store, &hotel).await, "a login does not begin the strangers' count anew");
        }
        // A place of its own that is guessed from is left alone by itself.
        for _ in 0..5 {
            assert!(!try_with(&store, &home, "wrong password", "").await);
        }
        assert!(!logs_in(&store, &home).await);
        assert!(logs_in(&store, &office).await);
        store.end_pauses().await.unwrap();
        assert!(logs_in(&store, &home).await);
        assert!(logs_in(&store, &hotel).await, "strangers are slowed down, not shut out");
        guess(&store).await;
        assert!(logs_in(&store, &hotel).await, "and it is known now");

        // After ninety days it is a place like any other.
        store.forget_sources().await.unwrap();
        assert!(!logs_in(&store, &hotel).await);
        check_trail(&store).await;
        store.close().await;
    }
}

#[tokio::test]
async fn one_place_that_guesses_is_left_alone_and_holds_up_no_other() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        invite(&store, ANN, &at("192.0.2.7")).await;
        for _ in 0..22 {
            assert!(!try_with(&store, &at("2001:db8:bad::1"), "wrong password", "").await);
        }
        assert!(!logs_in(&store, &at("2001:db8:bad::2")).await);
        for number in 0..16 {
            assert!(logs_in(&store, &bot(number)).await, "{number}: logins count nothing");
        }
        store.close().await;
    }
}

#[tokio::test]
async fn a_one_time_code_is_let_through_whatever_passwords_were_tried_and_once() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let (home, hotel) = (at("192.0.2.7"), at("203.0.113.9"));
        let ann = invite(&store, ANN, &home).await;
        let totp = TOTP::from_url(store.begin_codes(&ann, PASSWORD).await.unwrap()).unwrap();
        let begun = now() / 1000;
        let code = |steps: i64| totp.generate((begun + steps * 30).unsigned_abs());
        store.confirm_codes(&ann, &code(-1)).await.unwrap();
        guess(&store).await;
        for place in [&home, &hotel] {
            for _ in 0..5 {
                assert!(!try_with(&store, place, "wrong password", "").await);
            }
        }
        assert!(!try_with(&store, &hotel, PASSWORD, "").await);
        assert!(!try_with(&store, &hotel, PASSWORD, &code(-1)).await, "used");
        assert!(!try_with(&store, &hotel, PASSWORD, &code(40)).await);
        assert!(!try_with(&store, &hotel, "wrong password", &code(0)).await);
        assert!(!try_with(&store, &hotel, PASSWORD, &code(0)).await, "a code is good for one guess");
        assert!(try_with(&store, &hotel, PASSWORD, &code(1)).await);
        assert!(!try_with(&store, &hotel, PASSWORD, &code(1)).await);
        store.close().await;
    }
}

#[tokio::test]
async fn one_time_codes_are_not_guessed_in_a_pause_by_who_knows_the_password() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let (home, hotel) = (at("192.0.2.7"), at("203.0.113.9"));
        let ann = invite(&store, ANN, &home).await;
        let [first, second] = codes(&store, &ann).await;
        guess(&store).await;
        guess_codes(&store, bot).await;
        assert!(!try_with(&store, &hotel, PASSWORD, &first).await, "no code is looked at any more");
        assert!(try_with(&store, &home, PASSWORD, &first).await, "nor used up, and home waits for nobody");
        assert!(!try_with(&store, &hotel, PASSWORD, &second).await, "a login does not begin the count anew");
        for _ in 0..5 {
            assert!(!try_with(&store, &home, "wrong password", "").await);
        }
        assert!(!try_with(&store, &home, PASSWORD, "").await, "a pause");
        assert!(try_with(&store, &home, PASSWORD, &second).await, "the count is that of unknown places");
        store.close().await;
    }
}

#[tokio::test]
async fn one_time_codes_are_not_guessed_where_the_user_has_been_and_are_listened_to_again_later() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let (home, hotel) = (at("192.0.2.7"), at("203.0.113.9"));
        let ann = invite(&store, ANN, &home).await;
        let [first, second] = codes(&store, &ann).await;
        for _ in 0..5 {
            assert!(!try_with(&store, &home, "wrong password", "").await);
        }
        guess_codes(&store, |_| home.clone()).await;
        assert!(!try_with(&store, &home, PASSWORD, &first).await);
        assert!(try_with(&store, &hotel, PASSWORD, &first).await, "what is guessed at home is home's");
        store.end_pauses().await.unwrap();
        assert!(!try_with(&store, &home, "wrong password", "").await);
        assert!(!try_with(&store, &home, PASSWORD, "").await, "a pause");
        assert!(try_with(&store, &home, PASSWORD, &second).await);
        store.close().await;
    }
}

#[tokio::test]
async fn codes_are_counted_alike_of_an_address_with_codes_without_and_of_nobodys() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let (bob, nobody) = ("bob@example.org", "nobody@example.org");
        let home = at("192.0.2.7");
        let ann = invite(&store, ANN, &home).await;
        invite(&store, bob, &home).await;
        codes(&store, &ann).await;
        let hotel = at("203.0.113.9");
        assert!(counted(&location, ANN).await.is_empty());
        for address in [ANN, bob, nobody] {
            // Five failures, and in the pause three codes that are wrong, one empty and one blank.
            for code in ["", NO_CODE, "", "", "", NO_CODE, NO_CODE, NO_CODE, "", " "] {
                assert!(
                    store.password_login(&hotel, address, "wrong password", code).await.unwrap().is_none()
                );
            }
        }
        let counts = counted(&location, ANN).await;
        let expected = [("at 203.0.113.9", 5), ("codes", 3), ("strangers", 5)];
        assert_eq!(counts, expected.map(|(scope, failures)| (scope.to_owned(), failures)));
        assert_eq!(counted(&location, bob).await, counts);
        assert_eq!(counted(&location, nobody).await, counts);
        store.close().await;
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_keeps_nobody_out() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let home = at("192.0.2.7");
        invite(&store, ANN, &home).await;
        let ahead = async |milliseconds: i64| {
            let set = format!("UPDATE password_attempts SET failed_at = failed_at + {milliseconds}");
            behind(&location, set).await;
        };
        for _ in 0..5 {
            assert!(!try_with(&store, &home, "wrong password", "").await);
        }
        ahead(3_000_000).await;
        assert!(!logs_in(&store, &home).await, "the pause begins now, at most");
        store.end_pauses().await.unwrap();
        assert!(logs_in(&store, &home).await, "and ends when one does");
        for _ in 0..5 {
            assert!(!try_with(&store, &home, "wrong password", "").await);
        }
        ahead(24 * 3_600_000).await;
        assert!(logs_in(&store, &home).await, "from far ahead nothing is kept");
        store.close().await;
    }
}

#[tokio::test]
async fn a_link_that_sets_a_password_lets_in_where_it_was_used_and_nowhere_else_without_waiting() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let (home, hotel) = (at("192.0.2.7"), at("203.0.113.9"));
        let ann = invite(&store, ANN, &home).await;
        guess(&store).await;
        let owner =
            store.users().await.unwrap().into_iter().find(|user| user.role == UserRole::Owner).unwrap();
        let (_, secret) = store.invite_user(&owner, &ann.id).await.unwrap();
        store.accept_invite(&hotel, &secret, PASSWORD).await.unwrap();
        guess(&store).await;
        assert!(logs_in(&store, &hotel).await);
        assert!(!logs_in(&store, &home).await, "the one before may have been somebody else's");
        store.change_password(&ann, &home, PASSWORD, "another password").await.unwrap();
        guess(&store).await;
        assert!(try_with(&store, &home, "another password", "").await);
        assert!(!try_with(&store, &hotel, "another password", "").await);
        store.close().await;
    }
}

#[tokio::test]
async fn of_a_user_twenty_places_are_known_the_ones_seen_last() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        invite(&store, ANN, &bot(100)).await;
        for number in 100..121 {
            let before = now();
            assert!(logs_in(&store, &bot(number)).await);
            while now() <= before {
                tokio::task::yield_now().await;
            }
        }
        guess(&store).await;
        assert!(!logs_in(&store, &bot(100)).await);
        assert!(logs_in(&store, &bot(101)).await);
        assert!(logs_in(&store, &bot(120)).await);
        store.close().await;
    }
}

#[tokio::test]
async fn whoever_is_logged_in_guesses_no_more_than_others_and_is_held_up_by_none_of_them() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let home = at("192.0.2.7");
        let ann = invite(&store, ANN, &home).await;
        guess(&store).await;
        for _ in 0..6 {
            assert!(!try_with(&store, &home, "wrong password", "").await);
        }
        store.begin_codes(&ann, PASSWORD).await.unwrap();
        for _ in 0..5 {
            let wrong = store.change_password(&ann, &home, "wrong password", "another password").await;
            assert!(matches!(wrong, Err(StoreError::Denied(_))), "{wrong:?}");
        }
        let paused = store.change_password(&ann, &home, PASSWORD, "another password").await;
        assert!(matches!(paused, Err(StoreError::Denied(_))), "{paused:?}");
        assert!(matches!(store.end_own_codes(&ann, PASSWORD).await, Err(StoreError::Denied(_))));
        store.end_pauses().await.unwrap();
        store.change_password(&ann, &home, PASSWORD, "another password").await.unwrap();
        store.close().await;
    }
}
