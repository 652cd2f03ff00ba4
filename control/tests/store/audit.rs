//! The chain through the audit trail, over both databases: whatever is done to the rows behind control's back is found,
//! retention leaves what still verifies, and filters and pages give what a naive filter gives.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use sluicegate_audit::{Anchor, Broken, Head, Report, Verifier};
use sluicegate_control::store::{Actor, Event, EventFilter, Location, NetworkChange, NewSetupKey, Store};
use sqlx::{ConnectOptions, Connection, Executor};

use crate::world::{all, group, open, places, policy};

/// Verifies a store's trail as `sluice audit verify` does, in small pages.
pub(crate) async fn verify(store: &Store, noted: Option<Head>) -> Result<Report, Broken> {
    let mut page = store.chain(None, 7).await.unwrap();
    let mut verifier = Verifier::new(page.anchor.clone(), noted);
    while let Some(last) = page.links.last() {
        let after = last.event.id;
        page.links.iter().for_each(|link| verifier.push(link, &page.head));
        page = store.chain(Some(after), 7).await.unwrap();
    }
    verifier.finish(&page.head)
}

/// Runs SQL in a store's database, beside control.
pub(crate) async fn behind(location: &Location, text: String) {
    let text = sqlx::AssertSqlSafe(text);
    match location {
        Location::Sqlite(file) => {
            let mut db = sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap();
            db.execute(text).await.unwrap();
            db.close().await.unwrap();
        }
        Location::Postgres(options) => {
            let mut db = options.connect().await.unwrap();
            db.execute(text).await.unwrap();
            db.close().await.unwrap();
        }
    }
}

/// Some changes of several kinds by several people.
async fn changes(store: &Store, random: &mut StdRng, count: usize) {
    let everybody = all(store).await;
    for number in 0..count {
        let who = ["Änne", "bob", "carol"].choose(random).unwrap();
        let actor =
            Actor { id: format!("u-{who}"), name: (*who).into(), email: format!("{who}@example.org") };
        let name = format!(
            "{} {number}-{}",
            ["Ωne", "two", "%_"].choose(random).unwrap(),
            store.revision().await.unwrap()
        );
        match random.random_range(0..4) {
            0 => drop(store.create_group(&actor, group(&name)).await.unwrap()),
            1 => {
                let change =
                    NetworkChange { name, description: "Straße \u{1f600} \"quoted\" \\ back".into() };
                store.create_network(&actor, change).await.unwrap();
            }
            2 => drop(store.create_policy(&actor, policy(&name, &everybody, 2, 80)).await.unwrap()),
            _ => {
                let key = NewSetupKey { name, ..NewSetupKey::default() };
                let (key, _) = store.create_setup_key(&actor, key).await.unwrap();
                store.update_setup_key(&actor, &key.id, true, &[]).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn every_field_of_every_event_and_every_event_is_held_by_the_chain() {
    const FIELDS: [&str; 10] = [
        "at",
        "revision",
        "code",
        "initiator_id",
        "initiator_name",
        "initiator_email",
        "target_id",
        "meta",
        "previous",
        "hash",
    ];
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let mut random = StdRng::seed_from_u64(3);
        changes(&store, &mut random, 20).await;
        let good = verify(&store, None).await.unwrap();
        assert_eq!(
            (good.head.id, good.events),
            (store.events().await.unwrap()[0].id, good.head.id.unsigned_abs())
        );
        let links = store.chain(None, 1000).await.unwrap().links;
        let mut any = || random.random_range(2..good.head.id);
        behind(&location, "CREATE TABLE kept AS SELECT * FROM events".into()).await;
        let restore = "DELETE FROM events; INSERT INTO events SELECT * FROM kept";

        for field in FIELDS {
            let id = any();
            let to = match field {
                "at" | "revision" => format!("{field} + 1"),
                // Of the details, what is no JSON any more.
                _ => format!("{field} || 'x'"),
            };
            behind(&location, format!("UPDATE events SET {field} = {to} WHERE id = {id}")).await;
            let found = verify(&store, None).await;
            assert_eq!(found, Err(Broken::Changed { id }), "{field}");
            behind(&location, restore.into()).await;
        }
        for _ in 0..5 {
            let id = any();
            behind(&location, format!("DELETE FROM events WHERE id = {id}")).await;
            let missing = Broken::Missing { after: id - 1, before: Some(id + 1) };
            assert_eq!(verify(&store, None).await, Err(missing));
            behind(&location, restore.into()).await;

            let (a, b) = (any(), any());
            if a != b {
                let swap = format!(
                    "UPDATE events SET id = -1 WHERE id = {a}; UPDATE events SET id = {a} WHERE id = {b};
                     UPDATE events SET id = {b} WHERE id = -1"
                );
                behind(&location, swap).await;
                assert_eq!(
                    verify(&store, None).await,
                    Err(Broken::Reordered { id: a.min(b) }),
                    "{a} and {b}"
                );
                behind(&location, restore.into()).await;
            }
        }
        let last = good.head.id;
        behind(&location, format!("DELETE FROM events WHERE id > {}", last - 3)).await;
        assert_eq!(verify(&store, None).await, Err(Broken::Missing { after: last - 3, before: None }));
        behind(&location, restore.into()).await;

        // Written as control would, by somebody who knows how: after the newest, and then control goes on.
        let forged = sluicegate_audit::Event { id: last + 1, code: "group.add".into(), ..Default::default() }
            .link(&links[links.len() - 1].hash);
        behind(
            &location,
            format!(
                "INSERT INTO events (id, at, revision, code, initiator_id, initiator_name, initiator_email, target_id,
                 meta, previous, hash) VALUES ({}, 0, 0, 'group.add', '', '', '', '', '', '{}', '{}')",
                forged.event.id, forged.previous, forged.hash
            ),
        )
        .await;
        let inserted = Err(Broken::Inserted { id: last + 1, after: last });
        assert_eq!(verify(&store, None).await, inserted);
        store.create_group(&Actor::system(), group("after all")).await.unwrap();
        assert_eq!(verify(&store, None).await, inserted);
        behind(&location, format!("DELETE FROM events WHERE id = {}", last + 1)).await;
        assert!(verify(&store, Some(good.head.clone())).await.is_ok());

        // The whole chain written anew is found by a head that was noted, and by nothing else.
        let mut text = String::new();
        let mut head = Head::default();
        for link in store.chain(None, 1000).await.unwrap().links {
            let at = link.event.at + i64::from(link.event.id == 5);
            let link = sluicegate_audit::Event { at, ..link.event }.link(&head.hash);
            text += &format!(
                "UPDATE events SET at = {at}, previous = '{}', hash = '{}' WHERE id = {};\n",
                link.previous, link.hash, link.event.id
            );
            head = link.head();
        }
        behind(&location, format!("{text} UPDATE audit_chain SET head_hash = '{}'", head.hash)).await;
        assert!(verify(&store, None).await.is_ok());
        assert_eq!(verify(&store, Some(good.head)).await, Err(Broken::Rewritten { id: last }));
    }
}

#[tokio::test]
async fn retention_leaves_what_still_verifies_and_says_what_it_removed() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let mut random = StdRng::seed_from_u64(4);
        changes(&store, &mut random, 12).await;
        assert_eq!(store.prune_events(0).await.unwrap(), 0, "nothing is that old");
        assert_eq!(verify(&store, None).await.unwrap().anchor, Anchor::default());
        let noted = verify(&store, None).await.unwrap().head;
        changes(&store, &mut random, 3).await;

        let revision = store.revision().await.unwrap();
        let old = store.chain(None, 1000).await.unwrap().links;
        // All but the last three are made old: they keep their place in the order, so they are hashed anew.
        let mut text = String::new();
        let mut head = Head::default();
        for (number, link) in old.iter().enumerate() {
            let at = if number + 3 < old.len() { 1_000 } else { link.event.at };
            let link = sluicegate_audit::Event { at, ..link.event.clone() }.link(&head.hash);
            text += &format!(
                "UPDATE events SET at = {at}, previous = '{}', hash = '{}' WHERE id = {};\n",
                link.previous, link.hash, link.event.id
            );
            head = link.head();
        }
        behind(&location, format!("{text} UPDATE audit_chain SET head_hash = '{}'", head.hash)).await;

        // A broken event is not removed: it would be forgotten with the others.
        behind(&location, "UPDATE events SET code = code || 'x' WHERE id = 4".into()).await;
        let error = store.prune_events(2_000).await.unwrap_err().to_string();
        assert!(error.contains("event 4 does not follow"), "{error}");
        assert_eq!(store.chain(None, 1000).await.unwrap().links.len(), old.len());
        behind(&location, format!("UPDATE events SET code = '{}' WHERE id = 4", old[3].event.code)).await;

        let gone = u64::try_from(old.len() - 3).unwrap();
        assert_eq!(store.prune_events(2_000).await.unwrap(), gone);
        assert_eq!(store.prune_events(2_000).await.unwrap(), 0);
        assert_eq!(store.revision().await.unwrap(), revision + 1, "it is a change like any other");
        let report = verify(&store, None).await.unwrap();
        assert_eq!((report.events, report.anchor.removed.unsigned_abs()), (4, gone));
        assert_eq!(verify(&store, Some(noted.clone())).await, Err(Broken::Removed { id: noted.id }));
        let events = store.events().await.unwrap();
        assert_eq!((events[0].code.as_str(), &events[0].meta["removed"]), ("audit.prune", &gone.to_string()));

        // Once more, with what has come since; then the anchor moved by somebody who is not retention.
        changes(&store, &mut random, 4).await;
        let removed = store.prune_events(i64::MAX).await.unwrap();
        let report = verify(&store, None).await.unwrap();
        assert_eq!((report.events, report.anchor.removed.unsigned_abs()), (1, gone + removed));
        changes(&store, &mut random, 4).await;
        let first = store.chain(None, 1).await.unwrap().links.remove(0);
        behind(&location, format!("DELETE FROM events WHERE id = {}", first.event.id)).await;
        assert!(matches!(verify(&store, None).await, Err(Broken::Missing { .. })));
        let forged = format!(
            "UPDATE audit_chain SET anchor_id = {}, anchor_hash = '{}', anchor_removed = anchor_removed + 1",
            first.event.id, first.hash
        );
        behind(&location, forged).await;
        assert_eq!(verify(&store, None).await, Err(Broken::Anchor { id: first.event.id }));
    }
}

/// What `EventFilter` says, without a database.
fn naive(events: &[Event], filter: &EventFilter) -> Vec<i64> {
    let takes = |event: &&Event| {
        let text = |wanted: &Option<String>, fields: &[&str]| {
            wanted.as_ref().is_none_or(|wanted| fields.contains(&wanted.as_str()))
        };
        let who = &event.initiator;
        let everything = format!(
            "{}\n{}\n{}\n{}\n{}\n{}\n{}",
            event.code,
            event.activity,
            who.id,
            who.name,
            who.email,
            event.target_id,
            event.meta.values().cloned().collect::<Vec<_>>().join("\n")
        );
        (filter.codes.is_empty() || filter.codes.contains(&event.code))
            && text(&filter.initiator, &[&who.id, &who.name, &who.email])
            && text(&filter.target, &[&event.target_id, event.meta.get("name").map_or("", String::as_str)])
            && filter.from.is_none_or(|from| event.at >= from)
            && filter.until.is_none_or(|until| event.at < until)
            && filter.before.is_none_or(|before| event.id < before)
            && filter
                .search
                .as_ref()
                .is_none_or(|search| everything.to_lowercase().contains(&search.to_lowercase()))
    };
    events.iter().filter(takes).take(filter.limit).map(|event| event.id).collect()
}

#[tokio::test]
async fn filters_and_pages_give_what_a_naive_filter_gives() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let mut random = StdRng::seed_from_u64(5);
        changes(&store, &mut random, 40).await;
        let events = store.events().await.unwrap();
        let mut found = 0;
        for round in 0..150 {
            let some = events.choose(&mut random).unwrap().clone();
            let other = events.choose(&mut random).unwrap().clone();
            let mut maybe = |value: String| random.random_bool(0.3).then_some(value);
            let filter = EventFilter {
                codes: maybe(some.code.clone()).into_iter().chain(maybe(other.code.clone())).collect(),
                initiator: maybe(
                    [&some.initiator.id, &some.initiator.name, &some.initiator.email][round % 3].clone(),
                ),
                target: maybe(
                    some.meta.get("name").filter(|_| round % 2 == 0).unwrap_or(&some.target_id).clone(),
                ),
                search: maybe(
                    ["ÄNNE", "strasse", "STRAßE", "%", "_", "\"name\":", "created", "ωNE 1"][round % 8]
                        .into(),
                ),
                from: maybe(String::new()).map(|_| some.at.min(other.at)),
                until: maybe(String::new()).map(|_| some.at.max(other.at) + 1),
                before: maybe(String::new()).map(|_| other.id),
                limit: random.random_range(1..60),
            };
            let ids = |events: Vec<Event>| events.into_iter().map(|event| event.id).collect::<Vec<_>>();
            let expected = naive(&events, &filter);
            assert_eq!(ids(store.find_events(&filter).await.unwrap()), expected, "{filter:?}");
            found += expected.len();

            let whole = EventFilter { limit: usize::MAX, ..filter.clone() };
            let (mut paged, mut before) = (Vec::new(), filter.before);
            loop {
                let page = EventFilter { before, limit: 1 + round % 5, ..filter.clone() };
                let page = ids(store.find_events(&page).await.unwrap());
                let Some(last) = page.last() else { break };
                before = Some(*last);
                paged.extend(page);
            }
            assert_eq!(paged, naive(&events, &whole), "{filter:?}");
        }
        assert!(found > 300, "{found}");
    }
}
