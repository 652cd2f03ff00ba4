use std::collections::BTreeMap;

use sluicegate_policy::model::{Network, Peer, Resource, State};

use super::*;

/// The `i`th of a row of records; even ones are drops.
pub(super) fn record(i: u64) -> FlowRecord {
    let party = |id: String, kind| Party { id, name: format!("name-{i}"), kind };
    FlowRecord {
        sequence: i,
        time_ms: i * 1000,
        received_ms: i * 1000 + 5,
        kind: if i.is_multiple_of(2) { "drop" } else { "start" },
        reporter: Reporter { id: "gw".into(), name: "gateway".into() },
        protocol: 6,
        source: FlowEnd {
            address: "100.90.0.1".into(),
            port: 40_000,
            party: party(format!("peer-{i}"), PartyKind::Peer),
        },
        destination: FlowEnd {
            address: "10.0.0.1".into(),
            port: 443,
            party: party("res".into(), PartyKind::HostResource),
        },
        rule: DecidingRule::default(),
        drop_reason: String::new(),
        packets: 3,
        bytes: 300,
        translated_source: String::new(),
        direction: "overlay".into(),
    }
}

/// Where nothing is known beside what the event says.
fn shown(record: &FlowRecord) -> netbird::TrafficEvent {
    let places = crate::geo::Places::none();
    netbird::event(record, &netbird::Known { machines: &Default::default(), places: &places })
}

fn event(kind: Kind, source: &str, destination: &str) -> FlowEvent {
    FlowEvent {
        kind: kind.into(),
        protocol: 17,
        source: source.into(),
        source_port: 1000,
        destination: destination.into(),
        destination_port: 53,
        direction: "overlay".into(),
        ..FlowEvent::default()
    }
}

pub(super) fn state() -> State {
    let resource = |name: &str, prefix: &str| Resource {
        name: name.into(),
        prefixes: vec![prefix.parse().unwrap()],
        enabled: true,
        domain: None,
        distribution: None,
    };
    let resources = BTreeMap::from([
        ("r1".to_owned(), resource("site", "10.1.0.0/16")),
        ("r2".to_owned(), resource("web", "10.1.2.3/32")),
        ("r3".to_owned(), resource("site6", "fd00:1::/48")),
    ]);
    let peer = Peer {
        name: "laptop".into(),
        v4: "100.90.0.2".parse().unwrap(),
        v6: "fd5c::2".parse().unwrap(),
        allowed: true,
    };
    State {
        overlay_v4: "100.90.0.0/16".parse().unwrap(),
        overlay_v6: "fd5c::/64".parse().unwrap(),
        peers: [("p1".to_owned(), peer)].into(),
        groups: Default::default(),
        networks: [("n".to_owned(), Network { resources, ..Network::default() })].into(),
        policies: Default::default(),
    }
}

#[test]
fn ends_are_named_by_peer_then_longest_prefix() {
    let directory = Directory::new(&state());
    let name = |address: &str| {
        let party = directory.party(address.parse().unwrap());
        (party.id, party.kind)
    };
    assert_eq!(name("100.90.0.2"), ("p1".into(), PartyKind::Peer));
    assert_eq!(name("fd5c::2"), ("p1".into(), PartyKind::Peer));
    assert_eq!(name("10.1.2.3"), ("r2".into(), PartyKind::HostResource));
    assert_eq!(name("10.1.2.4"), ("r1".into(), PartyKind::SubnetResource));
    assert_eq!(name("fd00:1::9"), ("r3".into(), PartyKind::SubnetResource));
    assert_eq!(name("192.0.2.1"), (String::new(), PartyKind::Unknown));
    assert_eq!(name("fd00:2::9"), (String::new(), PartyKind::Unknown));
}

#[test]
fn the_ring_keeps_the_newest_and_numbers_all() {
    let flows = Flows::with_capacity(Metrics::new().unwrap(), 3);
    flows.set_directory(Arc::new(Directory::new(&state())));
    flows.record("gw", vec![event(Kind::Start, "100.90.0.2", "10.1.2.3"); 4], 7);
    flows.record(
        "gw",
        vec![event(Kind::Unspecified, "x", "y"), event(Kind::Drop, "not an address", "fd00:1::1")],
        8,
    );
    let kept: Vec<(u64, &str)> = flows.recent().iter().map(|record| (record.sequence, record.kind)).collect();
    assert_eq!(kept, [(3, "start"), (4, "start"), (5, "drop")]);
    let last = flows.recent().pop().unwrap();
    assert_eq!(last.source.party, Party::default());
    assert_eq!((last.destination.party.id.as_str(), last.received_ms), ("r3", 8));
    assert_eq!(flows.metrics.flow_events.with_label_values(&["start"]).get(), 4);
}

#[tokio::test]
async fn a_watcher_gets_the_replay_and_then_every_event_until_the_end() {
    let flows = Flows::new(Metrics::new().unwrap());
    flows.record("gw", vec![event(Kind::Start, "100.90.0.2", "10.1.2.3"); 3], 1);
    let Watch { replay, live: mut receiver } = flows.watch(2).unwrap();
    assert_eq!(replay.iter().map(|record| record.sequence).collect::<Vec<_>>(), [2, 3]);
    flows.record("gw", vec![event(Kind::End, "100.90.0.2", "10.1.2.3")], 2);
    assert_eq!(receiver.recv().await.unwrap().sequence, 4);
    flows.close();
    assert!(receiver.recv().await.is_err());
    assert!(flows.watch(0).is_none());
}

#[test]
fn events_of_one_conversation_share_a_flow_id_in_netbirds_shape() {
    let (start, mut end) = (record(1), record(1));
    end.kind = "end";
    let (start, end) = (shown(&start), shown(&end));
    assert_eq!(start.flow_id, end.flow_id);
    assert_ne!(start.flow_id, shown(&FlowRecord { protocol: 17, ..record(1) }).flow_id);
    let json = serde_json::to_value(&end).unwrap();
    assert_eq!(json["source"]["address"], "100.90.0.1:40000");
    assert_eq!(json["source"]["type"], "PEER");
    assert_eq!(json["events"][0]["timestamp"], "1970-01-01T00:00:01Z");
    assert_eq!((json["num_of_ends"].as_u64(), json["num_of_starts"].as_u64()), (Some(1), Some(0)));
    let echo = FlowRecord {
        protocol: 58,
        destination: FlowEnd { address: "fd00:1::1".into(), port: 128 << 8, party: Party::default() },
        ..record(2)
    };
    let json = serde_json::to_value(shown(&echo)).unwrap();
    assert_eq!(
        (json["icmp"]["type"].as_u64(), json["destination"]["address"].as_str()),
        (Some(128), Some("fd00:1::1"))
    );
}

#[test]
fn the_texts_of_an_agent_are_kept_short_and_printable() {
    let flows = Flows::with_capacity(Metrics::new().unwrap(), 4);
    let long = FlowEvent {
        drop_reason: "x".repeat(1 << 20),
        rule_id: "\u{1b}[2Jr".into(),
        policy_id: "y".repeat(1 << 20),
        translated_source: "z".repeat(1 << 20),
        direction: "d".repeat(1 << 20),
        ..event(Kind::Drop, &"s".repeat(1 << 20), "10.1.2.3")
    };
    flows.record("gw", vec![long], 1);
    let kept = flows.recent().remove(0);
    assert_eq!((kept.rule.rule_id.as_str(), kept.drop_reason.len()), ("[2Jr", TEXT));
    assert!(serde_json::to_string(&*kept).unwrap().len() < 8 * TEXT + 1024);
}
