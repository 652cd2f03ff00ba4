//! Whoever follows the account has what is in the store, whatever is written, by whomever and in whatever order.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sluicegate_control::store::{
    Actor, GroupChange, Location, Nameserver, NameserverGroupSpec, NewTemporaryAccess, PeerChange, Protocol,
    Reading, RecordKind, RecordSpec, Role, RouterChange, Store, TemporaryService, ZoneSpec,
};
use sqlx::{ConnectOptions, Connection, Executor};

use crate::conformance::{self, KINDS, Side, draw};
use crate::world::{all, group, join, open, places, policy, setup_key};

const STEPS: usize = 250;

/// Statements beside the store, as an operator's shell may make them: of every table and kind of statement that is followed.
/// `{n}` is a small number.
const BESIDE: [&str; 42] = [
    "UPDATE peers SET approval_required = NOT approval_required WHERE length(name) % 2 = {n} % 2",
    "UPDATE peers SET expired = CASE expired WHEN '' THEN 'login' ELSE '' END WHERE length(id) + {n} > 25",
    "UPDATE peers SET os = CASE {n} % 2 WHEN 0 THEN 'windows' ELSE 'linux' END",
    "UPDATE peers SET role = CASE role WHEN 'peer' THEN 'gateway' ELSE 'peer' END WHERE id = (SELECT max(id) FROM peers)",
    "UPDATE peers SET endpoint = '192.0.2.9:{n}' WHERE id = (SELECT min(id) FROM peers)",
    "UPDATE peers SET user_id = (SELECT max(id) FROM users) WHERE id = (SELECT max(id) FROM peers)",
    "UPDATE peers SET user_id = 'nobody' WHERE id = (SELECT min(id) FROM peers)",
    "UPDATE peers SET last_seen = {n}, connected = TRUE",
    "UPDATE users SET blocked = NOT blocked WHERE id = (SELECT max(id) FROM users)",
    "UPDATE users SET pending_approval = NOT pending_approval",
    "DELETE FROM users WHERE role = 'auditor' AND id NOT IN (SELECT user_id FROM user_groups)",
    "DELETE FROM group_peers WHERE peer_id = (SELECT min(id) FROM peers)",
    "INSERT INTO group_peers (group_id, peer_id) SELECT g.id, p.id FROM groups g, peers p WHERE p.name <> '' ON CONFLICT DO NOTHING",
    "DELETE FROM group_resources WHERE resource_id = (SELECT min(id) FROM resources)",
    "INSERT INTO group_resources (group_id, resource_id) SELECT g.id, r.id FROM groups g, resources r
     WHERE NOT g.built_in ON CONFLICT DO NOTHING",
    "UPDATE resources SET enabled = NOT enabled, address = '10.7.{n}.0/24' WHERE id = (SELECT max(id) FROM resources)",
    "UPDATE resources SET network_id = (SELECT min(id) FROM networks) WHERE id = (SELECT min(id) FROM resources)",
    "UPDATE routers SET network_id = (SELECT max(id) FROM networks) WHERE id = (SELECT min(id) FROM routers)",
    "DELETE FROM router_groups WHERE group_id = (SELECT min(group_id) FROM router_groups)",
    "DELETE FROM routers WHERE id = (SELECT min(id) FROM routers)",
    "UPDATE rules SET enabled = NOT enabled WHERE slot % 3 = {n} % 3",
    "UPDATE rules SET position = 1000 + slot, policy_id = (SELECT max(id) FROM policies) WHERE slot = {n}",
    "DELETE FROM rule_groups WHERE rule_id = (SELECT min(rule_id) FROM rule_groups)",
    "DELETE FROM policy_posture_checks WHERE check_id = (SELECT min(check_id) FROM policy_posture_checks)",
    "UPDATE peer_facts SET current = NOT current",
    "INSERT INTO learned_addresses (resource_id, peer_id, name, address)
     SELECT s.id, p.id, s.address, '10.8.0.{n}' FROM resources s, peers p WHERE s.kind = 'domain' ON CONFLICT DO NOTHING",
    "DELETE FROM learned_addresses WHERE address <> '10.8.0.{n}' AND peer_id = (SELECT min(peer_id) FROM learned_addresses)",
    "UPDATE learned_addresses SET address = 'fd08::{n}', name = resource_id || '{n}' WHERE peer_id = (SELECT max(id) FROM peers)
     AND address = (SELECT max(address) FROM learned_addresses)",
    "UPDATE account SET settings = replace(settings, 'resolution_enabled\":' || CASE {n} % 4 WHEN 0 THEN 'true' ELSE 'false' END,
     'resolution_enabled\":' || CASE {n} % 4 WHEN 0 THEN 'false' ELSE 'true' END)",
    "UPDATE peers SET dns_label = dns_label || '-{n}' WHERE id = (SELECT min(id) FROM peers) AND length(dns_label) < 50",
    "INSERT INTO peer_labels (label, peer_id) SELECT 'extra-{n}', id FROM peers WHERE id = (SELECT max(id) FROM peers)
     ON CONFLICT DO NOTHING",
    "UPDATE peer_labels SET peer_id = (SELECT min(id) FROM peers) WHERE label = (SELECT max(label) FROM peer_labels)",
    "DELETE FROM peer_labels WHERE label = (SELECT min(label) FROM peer_labels)",
    "UPDATE account SET settings = CASE WHEN settings LIKE '%dns_domain\":\"\"%'
     THEN replace(settings, 'dns_domain\":\"\"', 'dns_domain\":\"Corp.example\"')
     ELSE replace(settings, 'dns_domain\":\"Corp.example\"', 'dns_domain\":\"\"') END",
    "UPDATE zones SET enabled = NOT enabled, domain = 'n{n}.' || id WHERE id = (SELECT max(id) FROM zones)",
    "DELETE FROM zone_groups WHERE zone_id = (SELECT min(id) FROM zones)",
    "INSERT INTO zone_groups (zone_id, group_id) SELECT z.id, g.id FROM zones z, groups g WHERE g.id <> ''
     ON CONFLICT DO NOTHING",
    "UPDATE records SET ttl = {n}, zone_id = (SELECT max(id) FROM zones) WHERE id = (SELECT min(id) FROM records)",
    "UPDATE nameserver_groups SET enabled = NOT enabled, domains = '[\"n{n}.example\"]' WHERE id = (SELECT max(id) FROM nameserver_groups)",
    "INSERT INTO nameserver_group_groups (nameserver_group_id, group_id) SELECT n.id, g.id FROM nameserver_groups n, groups g
     WHERE length(g.id) % 2 = {n} % 2 ON CONFLICT DO NOTHING",
    "UPDATE dns_disabled_groups SET group_id = (SELECT min(id) FROM groups) WHERE group_id = (SELECT max(group_id) FROM dns_disabled_groups)
     AND (SELECT count(*) FROM dns_disabled_groups) = 1",
    "UPDATE policies SET enabled = NOT enabled, break_glass_until = CASE {n} % 3 WHEN 0 THEN NULL WHEN 1 THEN 1
     ELSE 9000000000000 END WHERE length(name) % 2 = {n} % 2",
];

#[tokio::test]
async fn what_is_followed_is_what_is_there_whatever_is_written() {
    for seed in [11, 12] {
        for (directory, location) in places() {
            let mut side = conformance::side(open(&location, directory.path()).await).await;
            let other_directory = tempfile::tempdir().unwrap();
            // Changes of other replicas come by the same way.
            let other = match &location {
                Location::Postgres(_) => open(&location, other_directory.path()).await,
                Location::Sqlite(_) => side.store.clone(),
            };
            let mut random = StdRng::seed_from_u64(seed);
            let (mut each, mut seldom, mut elsewhere) = (Reading::new(), Reading::new(), Reading::new());
            let mut everything = 0;
            for step in 0..STEPS {
                let what = random.random_range(0..KINDS + 20);
                let before = each.wholes();
                let done = match what.checked_sub(KINDS) {
                    None => side.step(what, &draw(&mut random)).await.map(drop).map_err(|e| e.to_string()),
                    Some(0..8) => more(&side, &mut random).await,
                    Some(_) => {
                        let beside = BESIDE[random.random_range(0..BESIDE.len())];
                        let beside = beside.replace("{n}", &random.random_range(1..20).to_string());
                        run(&location, &beside).await
                    }
                };
                let what = format!("{}, seed {seed}, step {step}, kind {what}: {done:?}", location.name());
                let fresh = side.store.snapshot().await.unwrap();
                assert!(each.read(&side.store).await.unwrap() == fresh, "{what}");
                everything += usize::from(each.wholes() > before);
                if step % 9 == 0 {
                    assert!(seldom.read(&side.store).await.unwrap() == fresh, "{what}, read seldom");
                }
                if step % 4 == 0 {
                    assert!(elsewhere.read(&other).await.unwrap() == fresh, "{what}, read elsewhere");
                }
            }
            // The first time, and after changes of posture checks.
            assert!(everything < STEPS / 5, "everything was read {everything} times");
        }
    }
}

/// Changes that conformance does not make, or not often.
async fn more(side: &Side, random: &mut StdRng) -> Result<(), String> {
    let (store, actor) = (&side.store, Actor::system());
    let peers = store.peers(None, None).await.unwrap();
    let groups = store.groups().await.unwrap();
    let pick = |random: &mut StdRng, many: usize| random.random_range(0..many.max(1));
    let peer = peers.get(pick(random, peers.len())).cloned();
    let one = groups[pick(random, groups.len())].clone();
    let done = match random.random_range(0..7) {
        // A router of a group.
        0 => {
            let networks = store.networks().await.unwrap();
            let Some(network) = networks.get(pick(random, networks.len())) else { return Ok(()) };
            let change = RouterChange {
                peer: None,
                peer_groups: vec![one.id],
                metric: 7,
                masquerade: random.random(),
                enabled: true,
            };
            store.create_router(&actor, &network.id, change).await.map(drop)
        }
        // Somebody enters or leaves a group, which may route, guard a route, or be at the end of a rule.
        1 | 2 => {
            let mut members: BTreeSet<String> = one.peers.iter().map(|peer| peer.id.clone()).collect();
            if let Some(peer) = &peer
                && !members.remove(&peer.id)
            {
                members.insert(peer.id.clone());
            }
            let resources = one.resources.iter().map(|resource| resource.id.clone()).collect();
            let change = GroupChange { name: one.name, peers: members.into_iter().collect(), resources };
            store.update_group(&actor, &one.id, change).await.map(drop)
        }
        3 => {
            let Some(peer) = peer else { return Ok(()) };
            let change = PeerChange {
                name: peer.name,
                ssh_enabled: false,
                login_expiration_enabled: random.random(),
                inactivity_expiration_enabled: false,
                approval_required: Some(random.random()),
                ip: None,
                ipv6: None,
            };
            store.update_peer(&actor, &peer.id, change).await.map(drop)
        }
        4 => {
            let Some(peer) = peer else { return Ok(()) };
            let service =
                TemporaryService { text: "icmp".into(), protocol: Protocol::Icmp, ports: Vec::new() };
            let new = NewTemporaryAccess {
                name: "guest".into(),
                wireguard_public_key: std::array::from_fn(|_| random.random()),
                services: vec![service],
            };
            store.grant_temporary_access(&actor, &peer.id, new).await.map(drop)
        }
        5 => store.delete_stale_ephemeral(i64::MAX).await.map(drop),
        _ => {
            let mut settings = store.account().await.unwrap().settings;
            settings.network_range = if random.random() { "100.70.0.0/16" } else { "100.71.0.0/16" }.into();
            settings.groups_propagation_enabled = random.random();
            settings.peer_login_expiration_enabled = random.random();
            store.update_settings(&actor, settings).await.map(drop)
        }
    };
    done.map_err(|error| error.to_string())
}

/// Runs a statement beside the store.
async fn run(location: &Location, text: &str) -> Result<(), String> {
    let text = sqlx::AssertSqlSafe(text.to_owned());
    match location {
        Location::Sqlite(file) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).foreign_keys(true);
            let mut db = options.connect().await.unwrap();
            let done = db.execute(text).await.map(drop).map_err(|error| error.to_string());
            db.close().await.unwrap();
            done
        }
        Location::Postgres(options) => {
            let mut db = options.connect().await.unwrap();
            let done = db.execute(text).await.map(drop).map_err(|error| error.to_string());
            db.close().await.unwrap();
            done
        }
    }
}

/// A store with two peers.
async fn two(location: &Location, directory: &std::path::Path) -> (Store, [String; 2]) {
    let store = open(location, directory).await;
    let key = setup_key(&store).await;
    let ids = [join(&store, &key, 1, Role::Peer).await.id, join(&store, &key, 2, Role::Peer).await.id];
    (store, ids)
}

#[tokio::test]
async fn every_statement_beside_the_store_is_a_good_one() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        for text in BESIDE {
            run(&location, &text.replace("{n}", "3")).await.unwrap();
        }
        store.close().await;
    }
}

#[tokio::test]
async fn what_agents_are_told_of_names_is_read_on_and_not_anew() {
    for (directory, location) in places() {
        let (store, [one, _]) = two(&location, directory.path()).await;
        let (actor, all) = (Actor::system(), all(&store).await);
        for domain in ["a.example", "b.example"] {
            let zone = ZoneSpec {
                name: domain.into(),
                domain: domain.into(),
                enabled: true,
                enable_search_domain: false,
                distribution_groups: [all.clone()].into(),
            };
            let zone = store.create_zone(&actor, zone).await.unwrap();
            let content = "fd20::1".into();
            let record = RecordSpec { name: domain.into(), kind: RecordKind::Aaaa, content, ttl: 1 };
            store.create_record(&actor, &zone.id, record).await.unwrap();
        }
        let group = NameserverGroupSpec {
            name: "names".into(),
            description: String::new(),
            enabled: true,
            primary: false,
            search_domains_enabled: false,
            nameservers: vec![Nameserver { ip: "2001:db8::53".parse().unwrap(), port: 53 }],
            domains: vec!["c.example".into()],
            groups: [all.clone()].into(),
        };
        store.create_nameserver_group(&actor, group).await.unwrap();
        let other = store.create_group(&actor, group_of_one("other", &one)).await.unwrap().id;
        store.set_dns_disabled_groups(&actor, [all.max(other)].into()).await.unwrap();
        let mut reading = Reading::new();
        let mut before = reading.read(&store).await.unwrap();
        for beside in [
            "UPDATE peers SET dns_label = 'other' WHERE id = (SELECT min(id) FROM peers)",
            "INSERT INTO peer_labels (label, peer_id) SELECT 'extra', max(id) FROM peers",
            "UPDATE peer_labels SET peer_id = (SELECT min(id) FROM peers)",
            "DELETE FROM peer_labels",
            "UPDATE account SET settings = replace(settings, 'dns_domain\":\"\"', 'dns_domain\":\"corp.example\"')",
            "UPDATE zones SET enable_search_domain = TRUE WHERE domain = 'b.example'",
            "DELETE FROM zone_groups WHERE zone_id = (SELECT min(id) FROM zones)",
            "INSERT INTO zone_groups (zone_id, group_id) SELECT z.id, g.id FROM zones z, groups g WHERE g.name = 'other'",
            "UPDATE zone_groups SET group_id = (SELECT id FROM groups WHERE built_in) WHERE zone_id = (SELECT min(id) FROM zones)",
            "UPDATE records SET ttl = 9 WHERE name = 'a.example'",
            "UPDATE records SET zone_id = (SELECT id FROM zones WHERE domain = 'b.example')",
            "INSERT INTO records (id, zone_id, name, kind, content, ttl) SELECT 'new', id, domain, 'A', '10.0.0.1', 5 FROM zones
             WHERE domain = 'a.example'",
            "DELETE FROM records WHERE id = 'new'",
            "UPDATE nameserver_groups SET domains = '[]', is_primary = TRUE",
            "INSERT INTO nameserver_group_groups (nameserver_group_id, group_id) SELECT n.id, g.id FROM nameserver_groups n, groups g
             WHERE g.name = 'other'",
            "DELETE FROM nameserver_group_groups WHERE group_id = (SELECT id FROM groups WHERE built_in)",
            "UPDATE dns_disabled_groups SET group_id = (SELECT min(id) FROM groups)",
            "DELETE FROM dns_disabled_groups",
            "INSERT INTO dns_disabled_groups (group_id) SELECT id FROM groups WHERE name = 'other'",
            "DELETE FROM zones WHERE domain = 'a.example'",
            "DELETE FROM nameserver_groups",
        ] {
            run(&location, beside).await.unwrap();
            let now = reading.read(&store).await.unwrap();
            assert!(now == store.snapshot().await.unwrap(), "{beside}");
            assert!(now != before, "{beside}: nothing is other");
            before = now;
        }
        assert_eq!(reading.wholes(), 1);
        store.close().await;
    }
}

fn group_of_one(name: &str, peer: &str) -> GroupChange {
    GroupChange { name: name.into(), peers: vec![peer.to_owned()], resources: Vec::new() }
}

/// A transaction that suspends a peer, not ended yet.
async fn suspending<'c>(db: &'c mut sqlx::PgConnection, peer: &str) -> sqlx::Transaction<'c, sqlx::Postgres> {
    let mut open = db.begin().await.unwrap();
    let suspend = format!("UPDATE peers SET approval_required = TRUE WHERE id = '{peer}'");
    open.execute(sqlx::AssertSqlSafe(suspend)).await.unwrap();
    open
}

#[tokio::test]
async fn a_transaction_that_ends_late_is_not_missed() {
    let [_, (directory, location)] = places();
    let (store, [late, other]) = two(&location, directory.path()).await;
    let Location::Postgres(options) = &location else { unreachable!() };
    let mut reading = Reading::new();
    reading.read(&store).await.unwrap();

    let mut beside = options.connect().await.unwrap();
    let open = suspending(&mut beside, &late).await;
    // Later lines are seen first, twice.
    for name in ["a", "b"] {
        store.create_group(&Actor::system(), group(name)).await.unwrap();
        assert!(reading.read(&store).await.unwrap().state.peers[&late].allowed);
    }
    open.commit().await.unwrap();
    let snapshot = reading.read(&store).await.unwrap();
    assert!(!snapshot.state.peers[&late].allowed && snapshot.state.peers[&other].allowed);
    assert_eq!(reading.wholes(), 1);
}

/// A dump of another cluster keeps its transactions' numbers, and there were more of them.
#[tokio::test]
async fn lines_of_another_cluster_are_not_read_again_at_every_change() {
    let [_, (directory, location)] = places();
    let (store, [late, _]) = two(&location, directory.path()).await;
    run(&location, "UPDATE touched SET tx = tx + 5000000").await.unwrap();
    let old = "INSERT INTO touched (kind, id, member, tx)
               SELECT 'group', 'gone' || n, '', 5000000 + n FROM generate_series(1, 300) n";
    run(&location, old).await.unwrap();
    let Location::Postgres(options) = &location else { unreachable!() };
    let mut reading = Reading::new();
    reading.read(&store).await.unwrap();

    let mut beside = options.connect().await.unwrap();
    let open = suspending(&mut beside, &late).await;
    for name in ["a", "b"] {
        store.create_group(&Actor::system(), group(name)).await.unwrap();
        assert!(reading.read(&store).await.unwrap() == store.snapshot().await.unwrap());
    }
    open.commit().await.unwrap();
    let snapshot = reading.read(&store).await.unwrap();
    assert!(!snapshot.state.peers[&late].allowed);
    assert_eq!(reading.wholes(), 1);
}

#[tokio::test]
async fn much_of_a_small_account_is_read_whole() {
    for (directory, location) in places() {
        let (store, _) = two(&location, directory.path()).await;
        let mut reading = Reading::new();
        reading.read(&store).await.unwrap();
        let lines = |from: u32, to: u32| {
            let lines = (from..=to).map(|n| format!("('group', 'gone{n}', '')")).collect::<Vec<_>>();
            format!("INSERT INTO touched (kind, id, member) VALUES {}", lines.join(", "))
        };
        for (from, to, wholes) in [(1, 100, 1), (101, 201, 2)] {
            run(&location, &lines(from, to)).await.unwrap();
            assert!(reading.read(&store).await.unwrap() == store.snapshot().await.unwrap());
            assert_eq!(reading.wholes(), wholes, "{from} to {to}");
        }
    }
}

#[tokio::test]
async fn what_is_not_written_down_any_more_is_read_whole() {
    for (directory, location) in places() {
        let (store, [one, _]) = two(&location, directory.path()).await;
        let mut reading = Reading::new();
        reading.read(&store).await.unwrap();
        assert_eq!(store.forget_touched().await.unwrap(), 0, "nothing is old yet");
        let all = all(&store).await;
        store.create_policy(&Actor::system(), policy("first", &all, 1, 1)).await.unwrap();
        store.create_policy(&Actor::system(), policy("second", &all, 1, 2)).await.unwrap();
        // As if as many changes had come since as are kept, and the oldest had been forgotten.
        run(&location, "DELETE FROM touched WHERE kind <> 'rule'").await.unwrap();
        run(&location, "DELETE FROM touched WHERE seq < (SELECT max(seq) FROM touched)").await.unwrap();
        assert!(reading.read(&store).await.unwrap() == store.snapshot().await.unwrap());
        assert_eq!(reading.wholes(), 2);

        run(&location, "DELETE FROM touched").await.unwrap();
        store.set_peer_endpoint(&one, Some("192.0.2.1:1".parse().unwrap())).await.unwrap();
        assert!(reading.read(&store).await.unwrap() == store.snapshot().await.unwrap());
        run(&location, "DELETE FROM touched").await.unwrap();
        assert!(reading.read(&store).await.unwrap() == store.snapshot().await.unwrap());
        assert_eq!(reading.wholes(), 3, "a table that was emptied says nothing");
    }
}

#[tokio::test]
async fn an_ordinary_change_does_not_read_everything() {
    for (directory, location) in places() {
        let (store, [one, other]) = two(&location, directory.path()).await;
        let (actor, all) = (Actor::system(), all(&store).await);
        let mut reading = Reading::new();
        reading.read(&store).await.unwrap();
        let made = store.create_group(&actor, group("g")).await.unwrap();
        let change = |peers: &[&String]| GroupChange {
            name: "g".into(),
            peers: peers.iter().map(|id| (*id).clone()).collect(),
            resources: Vec::new(),
        };
        store.update_group(&actor, &made.id, change(&[&one])).await.unwrap();
        store.update_group(&actor, &made.id, change(&[&one, &other])).await.unwrap();
        let made = store.create_policy(&actor, policy("p", &made.id, 3, 1)).await.unwrap();
        store.update_policy(&actor, &made.id, policy("p", &all, 2, 9)).await.unwrap();
        store.delete_policy(&actor, &made.id).await.unwrap();
        store.delete_peer(&actor, &other).await.unwrap();
        assert!(reading.read(&store).await.unwrap() == store.snapshot().await.unwrap());
        assert_eq!(reading.wholes(), 1);
    }
}

/// What of the schema the account is read from is written down by triggers, and all else is known not to be read. A table or column
/// that is new is in neither list: put it into one, and into the triggers and `store/state` where it is read.
#[tokio::test]
async fn every_table_and_column_is_followed_or_known_not_to_matter() {
    let followed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        (
            "peers",
            // Without these columns.
            &[
                "identity_key",
                "setup_key_id",
                "hostname",
                "created_at",
                "last_seen",
                "last_login",
                "connected",
                "ephemeral",
                "ssh_enabled",
                "login_expiration_enabled",
                "inactivity_expiration_enabled",
                "replica",
            ][..],
        ),
        (
            "users",
            &[
                "name",
                "email",
                "role",
                "is_service_user",
                "invited",
                "created_at",
                "last_login",
                "issuer",
                "subject",
                "groups_at",
            ],
        ),
        ("peer_facts", &[]),
        ("groups", &[]),
        ("group_peers", &[]),
        ("group_resources", &[]),
        ("networks", &[]),
        ("resources", &[]),
        ("learned_addresses", &[]),
        ("routers", &[]),
        ("router_groups", &[]),
        ("policies", &[]),
        ("rules", &[]),
        ("rule_groups", &[]),
        ("policy_posture_checks", &[]),
        ("posture_checks", &[]),
        ("routes", &[]),
        ("route_groups", &[]),
        ("zones", &[]),
        ("zone_groups", &[]),
        ("records", &[]),
        ("nameserver_groups", &[]),
        ("nameserver_group_groups", &[]),
        ("dns_disabled_groups", &[]),
        ("peer_labels", &[]),
    ]);
    // `account` is read every time.
    let others: BTreeSet<&str> = BTreeSet::from([
        "_sqlx_migrations",
        "account",
        "answers",
        "audit_chain",
        "credentials",
        "events",
        "flow_days",
        "flow_reporters",
        "flow_sums",
        "flow_writers",
        "invite_groups",
        "invites",
        "join_keys",
        "known_sources",
        "machine_logins",
        "password_attempts",
        "policy_revisions",
        "replicas",
        "sessions",
        "setup_key_groups",
        "setup_keys",
        "sqlite_sequence",
        "tokens",
        "touched",
        "user_groups",
    ]);
    let [(directory, location), _] = places();
    let store = open(&location, directory.path()).await;
    let Location::Sqlite(file) = &location else { unreachable!() };
    let mut db = sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
            .fetch_all(&mut db)
            .await
            .unwrap();
    for table in &tables {
        let Some(without) = followed.get(table.as_str()) else {
            assert!(others.contains(table.as_str()), "{table} is new: see here");
            continue;
        };
        let triggers: Vec<String> =
            sqlx::query_scalar("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = $1")
                .bind(table)
                .fetch_all(&mut db)
                .await
                .unwrap();
        for when in ["INSERT", "UPDATE", "DELETE"] {
            let of = triggers.iter().filter(|text| text.contains(&format!("AFTER {when} ON {table}")));
            assert_eq!(of.count(), 1, "{table}: {when}");
        }
        let update = triggers.iter().find(|text| text.contains("AFTER UPDATE")).unwrap();
        let Some((_, columns)) = update.split_once("WHEN (") else {
            assert!(without.is_empty(), "{table}: every column counts");
            continue;
        };
        let columns = columns.split_once(")\n").unwrap().0;
        let counts: BTreeSet<&str> =
            columns.split(',').map(|column| column.trim().trim_start_matches("OLD.")).collect();
        let known: BTreeSet<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info($1)")
            .bind(table)
            .fetch_all(&mut db)
            .await
            .unwrap()
            .into_iter()
            .collect();
        let said: BTreeSet<String> = counts.iter().chain(*without).map(|&name| name.to_owned()).collect();
        assert_eq!(known, said, "{table}");
    }
    assert!(followed.keys().all(|table| tables.iter().any(|known| known == table)));
    store.close().await;
}
