use std::path::Path;

use axum::Router;
use axum::middleware::from_fn_with_state;
use serde_json::{Value, json};
use sluicegate_api::agent::flow_event::Kind;
use sluicegate_api::agent::{FlowEvent, Health, LinkState, ReportRequest, Role, RuleCounter};
use sluicegate_control::metrics::count_requests;
use tokio::net::TcpListener;

use crate::support::{Control, soon};

/// The agents' HTTP routes on a port of their own; the base URL.
async fn http(control: &Control) -> String {
    let (api, _) = control.agents.api_routes().split_for_parts();
    let (open, _) = control.agents.open_routes().split_for_parts();
    let metrics = control.agents.metrics().clone();
    let router: Router = api.merge(open).layer(from_fn_with_state(metrics, count_requests));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

async fn get(url: &str) -> (u16, Value) {
    let response = soon("an answer", reqwest::get(url)).await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn flow(kind: Kind, source: &str) -> FlowEvent {
    FlowEvent {
        time_ms: 1_700_000_000_000,
        kind: kind.into(),
        protocol: 6,
        source: source.into(),
        source_port: 40_000,
        destination: "10.1.0.10".into(),
        destination_port: 443,
        direction: "overlay".into(),
        ..FlowEvent::default()
    }
}

#[tokio::test]
async fn a_gateway_is_shown_with_what_it_enforces_counts_and_complains_of() {
    let control = Control::start().await;
    let mut gateway = control.join(Role::Gateway).await;
    let user = control.join(Role::Peer).await;
    let web = control.group("web", &[]).await;
    let users = control.group("users", &[&user]).await;
    control.site("office", "10.1.0.10", &gateway, &web).await;
    control.policy("users to web", &users, &web, 443).await;
    control.settled().await;
    let url = http(&control).await;
    let (_, before) = get(&format!("{url}/api/gateways")).await;
    assert_eq!(before.as_array().unwrap().len(), 1, "peers are not gateways: {before}");
    assert_eq!((&before[0]["connected"], &before[0]["counters"]), (&json!(false), &Value::Null));

    let mut session = gateway.sync(&control).await.unwrap();
    gateway.apply(&mut session).await;
    let image = &gateway.held.as_ref().unwrap().1;
    let (slot, _) = image.rules.iter().find(|(_, rule)| rule.policy_name == "users to web").unwrap();
    let health = Health {
        datapath: "ebpf".into(),
        revision: gateway.revision(),
        flows: 3,
        flows_started: 9,
        packets_forwarded: 100,
        bytes_forwarded: 64_000,
        drops: [("no_rule".to_owned(), 4), ("invalid".to_owned(), 1)].into(),
        rules: vec![RuleCounter { slot: *slot, flows: 9, drops: 0, packets: 100, bytes: 64_000 }],
        degraded: vec!["site device eth1 uses generic XDP".into()],
        links: vec![LinkState {
            peer_id: user.id(),
            endpoint: "192.0.2.1:1".into(),
            last_handshake_ms: 5,
            live: true,
        }],
    };
    let report = ReportRequest { health: Some(health), flow_events_lost: 2, ..ReportRequest::default() };
    session.client.report(report).await.unwrap();

    let (_, shown) = get(&format!("{url}/api/gateways/{}", gateway.id())).await;
    assert_eq!(shown["connected"], true);
    assert_eq!(shown["datapath"], "ebpf");
    assert_eq!(shown["networks"][0]["network_name"], "office");
    assert_eq!(shown["networks"][0]["metric"], 100);
    assert_eq!(shown["image"]["in_sync"], true);
    assert_eq!(shown["image"]["revision_applied"], gateway.revision());
    assert_eq!(shown["image"]["revision_wanted"], gateway.revision());
    assert_eq!(shown["image"]["apply_time_ms"], 2.5);
    assert_eq!(shown["counters"]["packets_dropped"], 5);
    assert_eq!(shown["counters"]["flow_events_lost"], 2);
    assert_eq!(shown["drops"], json!({"no_rule": 4, "invalid": 1}));
    assert_eq!(shown["degraded"][0], "site device eth1 uses generic XDP");
    assert_eq!(shown["links"][0]["live"], true);
    let (_, rules) = get(&format!("{url}/api/gateways/{}/rules", gateway.id())).await;
    let rule = rules.as_array().unwrap().iter().find(|rule| rule["policy_name"] == "users to web").unwrap();
    assert_eq!(
        (&rule["flows"], &rule["bytes"], &rule["action"]),
        (&json!(9), &json!(64_000), &json!("accept"))
    );
    let (status, body) = get(&format!("{url}/api/gateways/nobody")).await;
    assert_eq!((status, &body["code"]), (404, &json!(404)));
}

#[tokio::test]
async fn flow_events_are_listed_in_netbirds_shape_and_streamed_as_they_come() {
    let control = Control::start().await;
    let mut gateway = control.join(Role::Gateway).await;
    let user = control.join(Role::Peer).await;
    let mut session = gateway.sync(&control).await.unwrap();
    gateway.apply(&mut session).await;
    let source = control.store.peer(&user.id()).await.unwrap().ip.to_string();
    // Events are named by the state last compiled: it must be the one with the user in it.
    control.settled().await;
    let events = vec![flow(Kind::Start, &source), flow(Kind::Drop, "192.0.2.9")];
    session.client.report(ReportRequest { flows: events, ..ReportRequest::default() }).await.unwrap();

    let url = http(&control).await;
    let (_, page) = get(&format!("{url}/api/events/network-traffic?page_size=1")).await;
    assert_eq!((&page["total_records"], &page["total_pages"]), (&json!(2), &json!(2)));
    assert_eq!(page["data"][0]["events"][0]["type"], "TYPE_DROP");
    let (_, page) = get(&format!("{url}/api/events/network-traffic?source_id={}", user.id())).await;
    assert_eq!(page["data"][0]["source"]["type"], "PEER");
    assert_eq!(page["data"][0]["reporter_id"], gateway.id());
    assert_eq!(by_netbirds_client(&url, &gateway.id()).await, "drop 192.0.2.9\nstart PEER\n");
    let (status, body) = get(&format!("{url}/api/events/network-traffic?page=0")).await;
    assert_eq!((status, &body["code"]), (400, &json!(400)));

    let mut stream = reqwest::get(format!("{url}/api/flows/stream?replay=1")).await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    let mut until = async |needle: &str| {
        while !text.contains(needle) {
            let chunk = soon("an event", stream.chunk()).await.unwrap().expect("the stream goes on");
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        text.clone()
    };
    let replayed = until("\n\n").await;
    assert!(replayed.contains("192.0.2.9") && !replayed.contains(&source), "{replayed}");
    session
        .client
        .report(ReportRequest { flows: vec![flow(Kind::End, &source)], ..Default::default() })
        .await
        .unwrap();
    until("\"kind\":\"end\"").await;
    control.agents.end_streams();
    while soon("the stream ends", stream.chunk()).await.unwrap().is_some() {}
}

#[tokio::test]
async fn flow_events_say_whose_machine_it_was_what_runs_on_it_and_where_it_is() {
    let control = Control::start().await;
    let mut gateway = control.join(Role::Gateway).await;
    let (of_user, of_nobody) = (control.join(Role::Peer).await, control.join(Role::Peer).await);
    let mut session = gateway.sync(&control).await.unwrap();
    gateway.apply(&mut session).await;
    control.settled().await;
    let owner = control.store.users().await.unwrap().remove(0);
    let (peer, other) = (
        control.store.peer(&of_user.id()).await.unwrap(),
        control.store.peer(&of_nobody.id()).await.unwrap(),
    );
    let known = |yes: &str| {
        format!(
            "UPDATE peers SET user_id = '{owner}', os = 'linux' WHERE id = '{peer}';
             INSERT INTO peer_facts (peer_id, current, os_version, processes, country_code, city_name, geoname_id)
             VALUES ('{peer}', {yes}, '', '{{}}', 'SE', 'Linköping', 1)",
            owner = owner.id,
            peer = peer.id
        )
    };
    control.sql([&known("1"), &known("TRUE")]).await;
    let sources = [peer.ip.to_string(), peer.ipv6.to_string(), other.ip.to_string(), other.ipv6.to_string()];
    let flows = sources.iter().map(|source| flow(Kind::Start, source)).collect();
    session.client.report(ReportRequest { flows, ..ReportRequest::default() }).await.unwrap();

    let url = http(&control).await;
    let (_, page) = get(&format!("{url}/api/events/network-traffic?user_id={}", owner.id)).await;
    assert_eq!(page["total_records"], 2, "{page}");
    for event in page["data"].as_array().unwrap() {
        let user = json!({ "id": owner.id, "email": owner.email, "name": owner.name });
        assert_eq!(event["user"], user);
        let (source, destination) = (&event["source"], &event["destination"]);
        assert_eq!(
            source["geo_location"],
            json!({ "country_code": "SE", "city_name": "Linköping" }),
            "{event}"
        );
        assert_eq!((&source["id"], &source["os"]), (&json!(peer.id), &json!("linux")), "{event}");
        let name = format!("{}.sluicegate.internal", peer.dns_label);
        assert_eq!(source["dns_label"], name, "{event}");
        assert_eq!((&destination["os"], &destination["dns_label"]), (&Value::Null, &Value::Null), "{event}");
    }
    let (_, page) = get(&format!("{url}/api/events/network-traffic?user_id=")).await;
    assert_eq!(page["total_records"], 2, "{page}");
    for event in page["data"].as_array().unwrap() {
        assert_eq!(event["user"], json!({ "id": "", "email": "", "name": "" }), "{event}");
        assert_eq!(
            event["source"]["geo_location"],
            json!({ "country_code": "", "city_name": "" }),
            "{event}"
        );
    }
}

/// The flow events of a reporter by NetBird's Python client, the newest first, one on each page.
async fn by_netbirds_client(url: &str, reporter: &str) -> String {
    const SCRIPT: &str = "
import sys
from netbird import APIClient
client = APIClient(host=sys.argv[1], api_token='t')
for page in (1, 2):
    [one] = client.events.get_network_traffic_events(page=page, page_size=1, reporter_id=sys.argv[2])
    kind = one['events'][0]['type'].removeprefix('TYPE_').lower()
    print(kind, one['source']['type'] if kind == 'start' else one['source']['address'].split(':')[0])
assert client.events.get_network_traffic_events(page=3, page_size=1, reporter_id=sys.argv[2]) == []
assert client.events.get_network_traffic_events(reporter_id='nobody') == []
assert len(client.events.get_network_traffic_events(event_type='TYPE_DROP')) == 1
";
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python");
    assert!(program.exists(), "there is no {}: run `cargo xtask setup`", program.display());
    let mut python = tokio::process::Command::new(program);
    python.args(["-B", "-W", "ignore::DeprecationWarning", "-c", SCRIPT, url, reporter]).kill_on_drop(true);
    let output = python.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn health_readiness_and_metrics_need_no_token() {
    let control = Control::start().await;
    let mut gateway = control.join(Role::Gateway).await;
    let mut session = gateway.sync(&control).await.unwrap();
    gateway.apply(&mut session).await;
    let url = http(&control).await;
    let alive = reqwest::get(format!("{url}/healthz")).await.unwrap();
    assert_eq!((alive.status().as_u16(), alive.text().await.unwrap().as_str()), (200, "ok\n"));
    let (status, ready) = get(&format!("{url}/readyz")).await;
    assert_eq!((status, &ready["ready"]), (200, &json!(true)), "{ready}");
    let names: Vec<_> =
        ready["checks"].as_array().unwrap().iter().map(|check| check["name"].clone()).collect();
    assert_eq!(names, ["store", "compiler", "authority"]);
    let page = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
    for line in [
        "sluicegate_control_connected_agents{role=\"gateway\"} 1",
        "sluicegate_control_images_pushed_total{kind=\"snapshot\"} 1",
        "sluicegate_control_http_requests_total{method=\"GET\",route=\"/readyz\",status=\"200\"} 1",
        "sluicegate_control_enrolments_total{result=\"ok\"} 1",
        "sluicegate_control_certificate_expiry_timestamp_seconds{certificate=\"server\"}",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}
