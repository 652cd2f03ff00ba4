//! Sums of flows: what is kept of them, how much, and for whom.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use sluicegate_control::metrics::Metrics;
use sluicegate_control::store::{
    Actor, FlowAmount, FlowBatch, FlowCoverage, FlowDay, FlowKey, FlowLog, FlowVerdict, GroupChange,
    Location, OF_A_DAY, Role, Settings, Store,
};

use sluicegate_control::ids::{DAY, now};
use sqlx::ConnectOptions;

use crate::postgres;
use crate::world::{join, open, places, postgres_location, setup_key, soon, sql};

const TODAY: i64 = 20_000;

fn key(peer: &str, address: &str, port: u16) -> FlowKey {
    let address: IpAddr = address.parse().unwrap();
    FlowKey {
        day: TODAY,
        peer: peer.into(),
        verdict: FlowVerdict::Accept,
        source: String::new(),
        destination: format!("resource of {address}"),
        version: if address.is_ipv4() { 4 } else { 6 },
        protocol: 6,
        port,
        policy_id: "policy".into(),
        rule_id: "rule".into(),
        enters: false,
    }
}

fn amount(address: &str, bytes: u64, at: i64) -> FlowAmount {
    let address = address.parse().unwrap();
    FlowAmount { address, begun: 2, ended: 1, packets: 3, bytes, first_seen: at, last_seen: at + 1 }
}

/// Of sums that are all seen at once.
fn batch(sums: Vec<(FlowKey, FlowAmount)>) -> FlowBatch {
    let mut days = BTreeMap::new();
    for (key, amount) in &sums {
        let more = FlowDay { events: amount.begun + amount.ended, unfit: 0, first_seen: amount.first_seen };
        days.entry((key.day, key.policy_id.clone()))
            .and_modify(|day: &mut FlowDay| day.add(&more))
            .or_insert(more);
    }
    FlowBatch { sums, days, lost: BTreeMap::new() }
}

/// Runs a statement in a store's database, beside it.
async fn run(location: &Location, statement: &'static str) {
    match location {
        Location::Sqlite(file) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
            sqlx::query(statement).execute(&mut options.connect().await.unwrap()).await.unwrap();
        }
        Location::Postgres(options) => {
            sqlx::query(statement).execute(&mut options.connect().await.unwrap()).await.unwrap();
        }
    }
}

async fn log(store: &Store) -> FlowLog {
    store.account().await.unwrap().settings.flow_log()
}

async fn read(store: &Store, from: i64) -> (BTreeMap<FlowKey, FlowAmount>, FlowCoverage) {
    let mut sums = BTreeMap::new();
    let each = |key, amount| assert!(sums.insert(key, amount).is_none(), "each once");
    let coverage = store.flow_sums("policy", from, each).await.unwrap();
    (sums, coverage)
}

async fn set(store: &Store, change: impl FnOnce(&mut Settings)) {
    let mut settings = store.account().await.unwrap().settings;
    change(&mut settings);
    store.update_settings(&Actor::system(), settings).await.unwrap();
}

#[tokio::test]
async fn sums_add_up_over_batches_and_restarts_and_change_nothing_of_the_account() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let log = log(&store).await;
        let (revision, events) = (store.revision().await.unwrap(), store.events().await.unwrap());
        for (at, address) in [(10, "10.0.0.1"), (5, "10.0.0.1"), (20, "fd00::1")] {
            let other = FlowKey { policy_id: "other".into(), ..key("a", address, 443) };
            let dropped = FlowKey { verdict: FlowVerdict::Drop, ..key("a", address, 443) };
            let sums = vec![
                (key("a", address, 443), amount(address, 100, at)),
                (key("a", address, 80), amount(address, u64::MAX, at)),
                (other, amount(address, 1, at - 3)),
                (dropped, amount(address, 1, at)),
            ];
            let added = store.add_flow_sums(&log, &batch(sums)).await.unwrap().unwrap();
            assert_eq!((added.rows, added.unfit), (4, 0));
        }
        store.flow_sums_are_whole().await.unwrap();
        store.close().await;
        drop(store);
        let store = open(&location, directory.path()).await;
        let (sums, coverage) = read(&store, 0).await;
        assert_eq!(sums.len(), 4, "two ports by two families: of this policy, what was admitted");
        let v4 = &sums[&key("a", "10.0.0.1", 443)];
        assert_eq!((v4.begun, v4.ended, v4.packets, v4.bytes), (4, 2, 6, 200));
        assert_eq!((v4.first_seen, v4.last_seen, v4.address.to_string().as_str()), (5, 11, "10.0.0.1"));
        assert_eq!(sums[&key("a", "fd00::1", 443)].bytes, 100);
        assert!(sums[&key("a", "10.0.0.1", 80)].bytes >= 1 << 60, "an agent may say any number");
        let expected = FlowCoverage { first_seen: Some(2), events: 27, ..FlowCoverage::default() };
        assert_eq!(coverage, expected);
        assert_eq!(read(&store, TODAY + 1).await, (BTreeMap::new(), FlowCoverage::default()));
        assert_eq!(store.revision().await.unwrap(), revision);
        assert_eq!(store.events().await.unwrap(), events);
        store.close().await;
    }
}

#[tokio::test]
async fn a_source_has_its_room_on_a_day_and_what_is_beyond_is_counted() {
    let most = FlowVerdict::Accept.of_a_source();
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let log = log(&store).await;
        let scan = |ports: std::ops::Range<usize>, address: &'static str| {
            let port = move |port| u16::try_from(port).unwrap();
            batch(ports.map(|number| (key("a", address, port(number)), amount(address, 1, 1))).collect())
        };
        let added = store.add_flow_sums(&log, &scan(0..most, "10.0.0.1")).await.unwrap().unwrap();
        assert_eq!((added.rows, added.unfit), (most as u64, 0));
        // In another batch, and by the other family; what is there goes on to rise.
        let added = store.add_flow_sums(&log, &scan(0..10, "fd00::1")).await.unwrap().unwrap();
        assert_eq!((added.rows, added.unfit), (0, 30));
        let added = store.add_flow_sums(&log, &scan(most - 5..most + 5, "10.0.0.1")).await.unwrap().unwrap();
        assert_eq!((added.rows, added.unfit), (5, 15));
        let other = vec![(key("b", "fd00::1", 443), amount("fd00::1", 1, 1))];
        let tomorrow = FlowKey { day: TODAY + 1, ..key("a", "fd00::1", 443) };
        let dropped = FlowKey { verdict: FlowVerdict::Drop, ..key("a", "fd00::1", 443) };
        for more in [other, vec![(tomorrow, amount("fd00::1", 1, 1)), (dropped, amount("fd00::1", 1, 1))]] {
            assert_eq!(store.add_flow_sums(&log, &batch(more)).await.unwrap().unwrap().unfit, 0);
        }
        let (sums, coverage) = read(&store, TODAY).await;
        assert_eq!((sums.len(), coverage.unfit), (most + 2, 45));
        assert_eq!(coverage.events, 3 * (most as u64 + 10 + 10 + 3));
        store.close().await;
    }
}

#[tokio::test]
async fn a_day_has_its_room_whatever_the_number_of_sources() {
    let (directory, location) = places().into_iter().next().unwrap();
    let store = open(&location, directory.path()).await;
    let log = log(&store).await;
    let sums = |from: usize, to: usize| {
        batch(
            (from..to)
                .map(|n| (key(&format!("peer {n}"), "fd00::1", 443), amount("fd00::1", 1, 1)))
                .collect(),
        )
    };
    let added = store.add_flow_sums(&log, &sums(0, OF_A_DAY - 1)).await.unwrap().unwrap();
    assert_eq!(added.unfit, 0);
    let added = store.add_flow_sums(&log, &sums(OF_A_DAY - 1, OF_A_DAY + 2)).await.unwrap().unwrap();
    assert_eq!((added.rows, added.unfit), (1, 6));
    store.close().await;
}

#[tokio::test]
async fn what_agents_lost_counts_once_whoever_they_tell() {
    for (directory, location) in places() {
        let mut store = open(&location, directory.path()).await;
        let log = log(&store).await;
        for (said, sum) in
            [(0, 0), (7, 7), (7, 7), (9, 9), (4, 13), (0, 13), (u64::MAX, 13 + u64::from(u32::MAX))]
        {
            let lost = BTreeMap::from([("gateway".to_owned(), (said, TODAY * DAY + 5))]);
            store.add_flow_sums(&log, &FlowBatch { lost, ..FlowBatch::default() }).await.unwrap().unwrap();
            let (_, coverage) = read(&store, TODAY).await;
            assert_eq!((coverage.lost, coverage.events), (sum, 0), "{said}");
            store.close().await;
            drop(store);
            store = open(&location, directory.path()).await;
        }
        // It is no peer: nothing is kept of it.
        store.prune_flow_sums(TODAY).await.unwrap();
        let lost = BTreeMap::from([("gateway".to_owned(), (3, (TODAY + 1) * DAY))]);
        store.add_flow_sums(&log, &FlowBatch { lost, ..FlowBatch::default() }).await.unwrap().unwrap();
        assert_eq!(read(&store, TODAY + 1).await.1.lost, 3);
        store.close().await;
    }
}

#[tokio::test]
async fn a_writer_that_ended_without_a_word_is_noted_once_and_one_that_is_there_is_not() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let log = log(&store).await;
        let of = |address| batch(vec![(key("a", address, 443), amount(address, 1, 1))]);
        store.add_flow_sums(&log, &of("10.0.0.1")).await.unwrap().unwrap();
        assert_eq!(read(&store, 0).await.1.broken_off, 0);
        store.close().await;
        drop(store);
        if let Location::Postgres(_) = location {
            let store = open(&location, directory.path()).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_eq!(read(&store, 0).await.1.broken_off, 0, "it may come back for a minute");
            store.close().await;
        }
        run(&location, "UPDATE flow_writers SET at = at - 3 * 86400000").await;
        let store = open(&location, directory.path()).await;
        store.add_flow_sums(&log, &of("fd00::1")).await.unwrap().unwrap();
        // In PostgreSQL by the one that leads, some seconds later.
        soon("the note", async {
            while read(&store, 0).await.1.broken_off == 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(read(&store, 0).await.1.broken_off, 1);
        let (_, lately) = read(&store, now().div_euclid(DAY) - 1).await;
        assert_eq!(lately.broken_off, 1, "what it heard last came after what it wrote last");
        store.flow_sums_are_whole().await.unwrap();
        store.close().await;
        drop(store);
        let store = open(&location, directory.path()).await;
        assert_eq!(read(&store, 0).await.1.broken_off, 1);
        store.close().await;
    }
}

#[tokio::test]
async fn a_writer_that_is_taken_for_gone_has_a_minute_from_then_to_come_back() {
    let url = postgres::database();
    let directory = tempfile::tempdir().unwrap();
    let store = open(&Location::parse(&url, None).unwrap(), directory.path()).await;
    sql(
        &url,
        "BEGIN; INSERT INTO replicas (id, last_seen) VALUES ('away', 0);
         INSERT INTO flow_writers (replica, at) VALUES ('away', 0); COMMIT;",
    );
    soon("the one that leads", async {
        while sql(&url, "SELECT count(*) FROM replicas WHERE id = 'away'").trim() != "0" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(sql(&url, "SELECT count(*) FROM flow_writers WHERE replica = 'away' AND at > 0").trim(), "1");
    assert_eq!(read(&store, 0).await.1.broken_off, 0);
    sql(&url, "UPDATE flow_writers SET at = at - 60000 WHERE replica = 'away'");
    soon("the note", async {
        while read(&store, 0).await.1.broken_off == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    store.close().await;
}

#[tokio::test]
async fn old_days_are_removed_and_no_others() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let log = log(&store).await;
        for day in [TODAY - 40, TODAY - 2, TODAY - 1, TODAY] {
            let of = |address| (FlowKey { day, ..key("a", address, 443) }, amount(address, 1, day * DAY));
            store.add_flow_sums(&log, &batch(vec![of("10.0.0.1"), of("fd00::1")])).await.unwrap().unwrap();
        }
        assert_eq!(store.prune_flow_sums(TODAY - 1).await.unwrap(), 4);
        assert_eq!(store.prune_flow_sums(TODAY - 1).await.unwrap(), 0);
        let (sums, coverage) = read(&store, 0).await;
        let days: Vec<i64> = sums.keys().map(|key| key.day).collect();
        assert_eq!(days, [TODAY - 1, TODAY - 1, TODAY, TODAY]);
        assert_eq!((coverage.first_seen, coverage.events), (Some((TODAY - 1) * DAY), 12));
        store.close().await;
    }
}

#[tokio::test]
async fn what_the_settings_forbid_is_not_written_and_what_was_there_is_forgotten() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let first = log(&store).await;
        let setup = setup_key(&store).await;
        let (a, b) =
            (join(&store, &setup, 1, Role::Peer).await.id, join(&store, &setup, 2, Role::Peer).await.id);
        let change = GroupChange { name: "watched".into(), peers: vec![b.clone()], resources: Vec::new() };
        let watched = store.create_group(&Actor::system(), change).await.unwrap().id;
        let to_b = FlowKey { destination: b.clone(), ..key(&a, "fd00::1", 22) };
        let all = batch(vec![
            (key(&a, "10.0.0.1", 443), amount("10.0.0.1", 9, 1)),
            (key(&b, "10.0.0.1", 443), amount("10.0.0.1", 9, 1)),
            (to_b.clone(), amount("fd00::1", 9, 1)),
        ]);
        store.add_flow_sums(&first, &all).await.unwrap().unwrap();

        set(&store, |settings| settings.extra.network_traffic_packet_counter_enabled = false).await;
        let (sums, _) = read(&store, 0).await;
        assert_eq!(sums.values().map(|amount| amount.bytes + amount.packets).collect::<Vec<_>>(), [0, 0, 0]);
        set(&store, |settings| settings.extra.network_traffic_logs_groups = vec![watched.clone()]).await;
        let (sums, coverage) = read(&store, 0).await;
        assert_eq!((coverage.events, coverage.unfit), (9, 3), "what is forgotten is missing");
        let kept: Vec<FlowKey> = sums.into_keys().collect();
        let mut expected = vec![key(&b, "10.0.0.1", 443), to_b];
        expected.sort();
        assert_eq!(kept, expected, "source and destination count");
        set(&store, |settings| settings.extra.network_traffic_logs_enabled = false).await;
        assert_eq!(read(&store, 0).await, (BTreeMap::new(), FlowCoverage::default()));

        // A replica that has not heard of it yet.
        assert_eq!(store.add_flow_sums(&first, &all).await.unwrap(), None);
        let lost = BTreeMap::from([("gateway".to_owned(), (7, TODAY * DAY))]);
        let off = FlowBatch { lost, ..all.clone() };
        let written = store.add_flow_sums(&log(&store).await, &off).await.unwrap().unwrap();
        assert_eq!((written.rows, written.unfit), (0, 0));
        assert_eq!(read(&store, 0).await, (BTreeMap::new(), FlowCoverage::default()));
        set(&store, |settings| settings.extra = Default::default()).await;
        assert_eq!(store.add_flow_sums(&first, &all).await.unwrap().unwrap().rows, 3);
        store.close().await;
    }
}

#[tokio::test]
async fn groups_that_include_those_before_forget_nothing_and_others_count_what_they_forget() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let setup = setup_key(&store).await;
        let a = join(&store, &setup, 1, Role::Peer).await.id;
        let mut groups = Vec::new();
        for (name, peers) in [("first", vec![a.clone()]), ("second", vec![a.clone()]), ("none", vec![])] {
            let change = GroupChange { name: name.into(), peers, resources: Vec::new() };
            groups.push(store.create_group(&Actor::system(), change).await.unwrap().id);
        }
        let limit = async |to: &[usize]| {
            let to = to.iter().map(|which| groups[*which].clone()).collect();
            set(&store, |settings| settings.extra.network_traffic_logs_groups = to).await;
        };
        limit(&[0]).await;
        // Of one that has left the group since, and of one that an agent in it told of.
        let (yesterday, mut sums) = (TODAY - 1, Vec::new());
        for address in ["10.0.0.1", "fd00::1"] {
            sums.push((key(&a, address, 443), amount(address, 1, 5)));
            sums.push((key("left", address, 443), amount(address, 1, 5)));
            sums.push((FlowKey { day: yesterday, ..key("left", address, 80) }, amount(address, 1, 4)));
        }
        store.add_flow_sums(&log(&store).await, &batch(sums)).await.unwrap().unwrap();
        for (to, left, unfit) in
            [(&[0, 2][..], 6, 0), (&[2, 0, 1], 6, 0), (&[1], 2, 12), (&[], 2, 12), (&[2], 0, 18)]
        {
            limit(to).await;
            let (sums, coverage) = read(&store, 0).await;
            assert_eq!((sums.len(), coverage.events, coverage.unfit), (left, 18, unfit), "{to:?}");
        }
        let (_, coverage) = read(&store, TODAY).await;
        assert_eq!((coverage.events, coverage.unfit, coverage.first_seen), (12, 12, Some(5)));
        store.close().await;
    }
}

/// How many statements a store has sent.
fn statements(store: &Store) -> u64 {
    let metrics = Metrics::new().unwrap();
    metrics.show_store(store.observed()).unwrap();
    let page = metrics.render().unwrap();
    let count = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
    page.lines().filter(|line| line.contains("store_operation_seconds_count")).map(count).sum()
}

#[tokio::test]
async fn settings_forget_any_number_of_sums_by_as_many_statements_as_one() {
    let mut sent = Vec::new();
    for number in [1, 3_000] {
        for (directory, location) in places() {
            let store = open(&location, directory.path()).await;
            let none = GroupChange { name: "none".into(), ..GroupChange::default() };
            let none = store.create_group(&Actor::system(), none).await.unwrap().id;
            let of = |number: usize| {
                let address = if number.is_multiple_of(2) { "10.0.0.1" } else { "fd00::1" };
                (key(&format!("peer {number}"), address, 443), amount(address, 1, 1))
            };
            let all = batch((0..number).map(of).collect());
            store.add_flow_sums(&log(&store).await, &all).await.unwrap().unwrap();
            let before = statements(&store);
            set(&store, |settings| settings.extra.network_traffic_logs_groups = vec![none]).await;
            sent.push(statements(&store) - before);
            let (sums, coverage) = read(&store, 0).await;
            assert_eq!((sums.len(), coverage.unfit), (0, 3 * number as u64));
            store.close().await;
        }
    }
    assert_eq!(sent[..2], sent[2..], "of one sum, and of many");
}

#[tokio::test]
async fn replicas_that_write_the_same_sums_at_once_lose_none() {
    const EACH: usize = 20;
    let location = postgres_location();
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let stores = [open(&location, directories[0].path()).await, open(&location, directories[1].path()).await];
    let log = log(&stores[0]).await;
    let writes = stores.clone().map(|store| {
        let log = log.clone();
        tokio::spawn(async move {
            for _ in 0..EACH {
                let of = |port, address| (key("a", address, port), amount(address, 10, 1));
                let sums = (1..=20).flat_map(|port| [of(port, "10.0.0.1"), of(port, "fd00::1")]).collect();
                store.add_flow_sums(&log, &batch(sums)).await.unwrap().unwrap();
            }
        })
    });
    // Changes of the account do not wait for them, nor they for changes.
    for number in 0..EACH {
        let change = GroupChange { name: format!("g{number}"), ..GroupChange::default() };
        stores[1].create_group(&Actor::system(), change).await.unwrap();
    }
    for write in writes {
        write.await.unwrap();
    }
    let (sums, coverage) = read(&stores[0], 0).await;
    assert_eq!((sums.len(), coverage.events), (40, 2 * EACH as u64 * 40 * 3));
    assert!(sums.values().all(|amount| amount.bytes == 2 * EACH as u64 * 10));
}
