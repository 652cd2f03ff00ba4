//! The account's settings decide which flow events there are.

use serde_json::{Value, json};
use sluicegate_api::agent::flow_event::Kind;
use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{FlowEvent, NetworkConfig, ReportRequest, Role};
use sluicegate_control::store::{Actor, ExtraSettings, GroupChange};

use crate::flows::{file, world};
use crate::support::{Control, FakeAgent, Session, soon};

const TRAFFIC: &str = "/api/events/network-traffic";

/// Changes the settings, and waits until they are in force.
async fn set(control: &Control, change: impl FnOnce(&mut ExtraSettings)) {
    let mut settings = control.store.account().await.unwrap().settings;
    change(&mut settings.extra);
    control.store.update_settings(&Actor::system(), settings).await.unwrap();
    control.settled().await;
}

/// The next update, which is of the overlay, without its lists unless it is the first: no image changes.
async fn overlay(session: &mut Session) -> NetworkConfig {
    let message = soon("an overlay", session.stream.message()).await.unwrap().unwrap();
    match message.update {
        Some(Update::Network(network)) => network,
        Some(Update::NetworkChange(change)) => change.set.unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn tell(session: &mut Session, ends: &[(&str, &str)]) {
    let event = |(source, destination): &(&str, &str)| FlowEvent {
        time_ms: 1_700_000_000_000,
        kind: Kind::End.into(),
        protocol: 6,
        source: (*source).to_owned(),
        source_port: 50_000,
        destination: (*destination).to_owned(),
        destination_port: 443,
        packets: 7,
        bytes: 700,
        direction: "overlay".into(),
        ..FlowEvent::default()
    };
    let report = ReportRequest { flows: ends.iter().map(event).collect(), ..ReportRequest::default() };
    session.client.report(report).await.unwrap();
}

/// Source and destination of the events that control has, oldest first.
fn ends(page: &Value) -> Vec<(String, String)> {
    let address = |end: &Value| end["address"].as_str().unwrap().rsplit_once(':').unwrap().0.to_owned();
    let events = page["data"].as_array().unwrap().iter().rev();
    events.map(|event| (address(&event["source"]), address(&event["destination"]))).collect()
}

async fn addresses(control: &Control, agent: &FakeAgent) -> (String, String) {
    let peer = control.store.peer(&agent.id()).await.unwrap();
    (peer.ip.to_string(), peer.ipv6.to_string())
}

#[tokio::test]
async fn while_flow_events_are_off_agents_are_told_so_and_nothing_is_kept_or_suggested() {
    let control = Control::start().await;
    let mut gateway = control.join(Role::Gateway).await;
    let world = world(&[&gateway], control).await;
    let (control, rest) = (&world.control, &world.rest);
    let mut session = gateway.sync(control).await.unwrap();
    gateway.apply(&mut session).await;
    let network = gateway.network.clone().unwrap();
    assert!(!network.no_flow_events && !network.no_flow_counters, "a new account keeps them");
    let (v4, v6) = addresses(control, &world.user).await;
    let both = [(v4.as_str(), "10.1.0.10"), (v6.as_str(), "fd10::1:10")];
    tell(&mut session, &both).await;
    assert_eq!(rest.get(TRAFFIC).await["total_records"], 2);
    let suggest = json!({ "policy": "web" });
    let suggestion = rest.post("/api/policy-file/suggest", suggest.clone()).await;
    assert_eq!(suggestion.get("note"), None, "{suggestion}");
    assert_eq!(rest.plan(&file("tcp/80")).await["flows"].get("note"), None);

    set(control, |extra| extra.network_traffic_logs_enabled = false).await;
    let told = overlay(&mut session).await;
    assert!(told.no_flow_events && !told.no_flow_counters, "{told:?}");
    assert_eq!(rest.get(TRAFFIC).await["data"], json!([]), "what there was is forgotten");
    // An agent of an earlier version does not know what it was told.
    tell(&mut session, &both).await;
    assert_eq!(rest.get(TRAFFIC).await["total_records"], 0);
    let (status, refused) = rest.refused("/api/policy-file/suggest", suggest.clone()).await;
    let off = "the account's setting network_traffic_logs_enabled is off";
    assert_eq!(status, 412, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains(off), "{refused}");
    // The gateway here is too old to list its flows, so nothing is known of them.
    let planned = rest.plan(&file("tcp/80")).await;
    assert_eq!(planned["flows"]["known"], 0, "{planned}");
    assert!(planned["flows"]["note"].as_str().unwrap().contains(off), "{planned}");
    let stream = rest.begins("/api/flows/stream").await;
    assert!(stream.contains("event: off") && stream.contains(off), "{stream}");

    set(control, |extra| extra.network_traffic_logs_enabled = true).await;
    assert!(!overlay(&mut session).await.no_flow_events);
    tell(&mut session, &both[1..]).await;
    assert_eq!(rest.get(TRAFFIC).await["total_records"], 1);
    rest.post("/api/policy-file/suggest", suggest).await;
    assert!(!rest.begins("/api/flows/stream?replay=1").await.contains("event: off"));
}

#[tokio::test]
async fn flows_are_kept_of_the_peers_of_the_named_groups_and_counted_where_that_is_on() {
    let control = Control::start().await;
    let mut gateway = control.join(Role::Gateway).await;
    let world = world(&[&gateway], control).await;
    let (control, rest) = (&world.control, &world.rest);
    let other = control.join(Role::Peer).await;
    let watched = control.group("watched", &[&world.user]).await;
    control.settled().await;
    let mut session = gateway.sync_listing(control).await;
    gateway.apply(&mut session).await;
    let ((user_v4, user_v6), (other_v4, other_v6)) =
        (addresses(control, &world.user).await, addresses(control, &other).await);
    let (user_v4, user_v6, other_v4, other_v6) =
        (user_v4.as_str(), user_v6.as_str(), other_v4.as_str(), other_v6.as_str());
    let from_other = [(other_v4, "10.1.0.10"), (other_v6, "fd10::1:10")];
    tell(&mut session, &from_other).await;
    assert_eq!(rest.get(TRAFFIC).await["total_records"], 2);

    set(control, |extra| extra.network_traffic_logs_groups = vec![watched.clone()]).await;
    assert_eq!(rest.get(TRAFFIC).await["total_records"], 0, "what is kept no more is forgotten");
    let of_user = [(user_v4, "10.1.0.10"), (user_v6, "fd10::1:10"), (other_v4, user_v4), (other_v6, user_v6)];
    tell(&mut session, &from_other).await;
    tell(&mut session, &of_user).await;
    let page = rest.get(TRAFFIC).await;
    let bare = |(source, destination): &(&str, &str)| {
        let written =
            |address: &str| if address.contains(':') { format!("[{address}]") } else { address.into() };
        (written(source), written(destination))
    };
    assert_eq!(ends(&page), of_user.iter().map(bare).collect::<Vec<_>>());
    assert_eq!((&page["data"][0]["rx_bytes"], &page["data"][0]["rx_packets"]), (&json!(700), &json!(7)));
    let suggestion = rest.post("/api/policy-file/suggest", json!({ "policy": "web" })).await;
    assert!(suggestion["note"].as_str().unwrap().contains("network_traffic_logs_groups"), "{suggestion}");

    // Whoever enters the group is in it from then on; of a gateway in it, all that it reports.
    let change = |peers: Vec<String>| GroupChange { name: "watched".into(), peers, resources: Vec::new() };
    control.store.update_group(&Actor::system(), &watched, change(vec![other.id()])).await.unwrap();
    control.settled().await;
    assert_eq!(rest.get(TRAFFIC).await["total_records"], 4, "what was kept stays");
    tell(&mut session, &[from_other[0], of_user[0]]).await;
    assert_eq!(rest.get(TRAFFIC).await["total_records"], 5);
    control.store.update_group(&Actor::system(), &watched, change(vec![gateway.id()])).await.unwrap();
    control.settled().await;
    tell(&mut session, &[from_other[0], of_user[0]]).await;
    assert_eq!(rest.get(TRAFFIC).await["total_records"], 7);

    set(control, |extra| {
        extra.network_traffic_logs_groups.clear();
        extra.network_traffic_packet_counter_enabled = false;
    })
    .await;
    let told = overlay(&mut session).await;
    assert!(told.no_flow_counters && !told.no_flow_events, "{told:?}");
    tell(&mut session, &of_user[..1]).await;
    let page = rest.get(TRAFFIC).await;
    assert_eq!((&page["data"][0]["rx_bytes"], &page["data"][0]["rx_packets"]), (&json!(0), &json!(0)));
    assert_eq!(page["total_records"], 8);
}
