//! Rules are suggested from what was seen of a policy: by whichever control, and before it started again.

use serde_json::{Value, json};
use sluicegate_api::agent::flow_event::Kind;
use sluicegate_api::agent::{FlowEvent, ReportRequest, Role};
use sluicegate_control::ids::now;
use sluicegate_control::store::{Actor, FlowVerdict};

use crate::flows::{Rest, World, world};
use crate::support::{Control, FakeAgent, Session, soon};

const SUGGEST: &str = "/api/policy-file/suggest";

/// Who tells control of flows of the policy that the world begins with.
struct Teller {
    policy: String,
    rule: String,
    v4: String,
    v6: String,
}

impl Teller {
    async fn of(world: &World) -> Self {
        let policy = world.control.store.policies().await.unwrap().remove(0);
        let peer = world.control.store.peer(&world.user.id()).await.unwrap();
        let (v4, v6) = (peer.ip.to_string(), peer.ipv6.to_string());
        Self { rule: policy.rules[0].id.clone(), policy: policy.id, v4, v6 }
    }

    /// The user's flow to a site, by the family of its address.
    fn event(&self, kind: Kind, destination: &str, source_port: u32, port: u32) -> FlowEvent {
        let source = if destination.contains(':') { &self.v6 } else { &self.v4 };
        FlowEvent {
            time_ms: now().unsigned_abs(),
            kind: kind.into(),
            protocol: 6,
            source: source.clone(),
            source_port,
            destination: destination.to_owned(),
            destination_port: port,
            policy_id: self.policy.clone(),
            rule_id: self.rule.clone(),
            packets: if kind == Kind::End { 4 } else { 0 },
            bytes: if kind == Kind::End { 1_000 } else { 0 },
            direction: "overlay".into(),
            ..FlowEvent::default()
        }
    }

    /// Beginnings and ends of so many flows to port 443.
    fn flows(&self, destination: &str, count: u32) -> Vec<FlowEvent> {
        let both =
            |port| [Kind::Start, Kind::End].map(|kind| self.event(kind, destination, 40_000 + port, 443));
        (0..count).flat_map(both).collect()
    }
}

async fn tell(session: &mut Session, flows: Vec<FlowEvent>, lost: u64) {
    let report = ReportRequest { flows, flow_events_lost: lost, ..ReportRequest::default() };
    session.client.report(report).await.unwrap();
}

/// A gateway that has its image.
async fn connect(gateway: &mut FakeAgent, control: &Control) -> Session {
    let mut session = gateway.sync(control).await.unwrap();
    gateway.apply(&mut session).await;
    session
}

async fn suggest(rest: &Rest) -> Value {
    rest.post(SUGGEST, json!({ "policy": "web" })).await
}

/// Destinations of the rules, with how many flows each would have admitted.
fn rules(suggestion: &Value) -> Vec<(String, u64)> {
    let rules = suggestion["rules"].as_array().unwrap().iter();
    let mut rules: Vec<(String, u64)> = rules
        .map(|rule| (rule["to"].as_str().unwrap().to_owned(), rule["flows"].as_u64().unwrap()))
        .collect();
    rules.sort();
    rules
}

fn sites(v4: u64, v6: u64) -> Vec<(String, u64)> {
    vec![("resource:site 1 resource".into(), v4), ("resource:site 1 v6 resource".into(), v6)]
}

#[tokio::test]
async fn what_was_seen_before_control_started_again_is_suggested_and_nothing_twice() {
    let control = Control::start().await;
    let mut gateway = control.join(Role::Gateway).await;
    let world = world(&[&gateway], control).await;
    let teller = Teller::of(&world).await;
    let mut session = connect(&mut gateway, &world.control).await;
    tell(&mut session, teller.flows("10.1.0.10", 3), 0).await;
    let began = vec![teller.event(Kind::Start, "fd10::1:10", 1, 443)];
    tell(&mut session, began, 0).await;
    assert_eq!(suggest(&world.rest).await["flows"], 4, "nothing has to be waited for");

    world.rest.end().await;
    let control = world.control.restart().await;
    let rest = Rest::of(&control).await;
    assert_eq!(rest.get("/api/events/network-traffic").await["total_records"], 0, "single events are gone");
    let suggestion = suggest(&rest).await;
    assert_eq!(rules(&suggestion), sites(3, 1), "{suggestion}");
    assert_eq!(suggestion["rules"][0]["bytes"].as_u64().unwrap() % 1_000, 0);
    let coverage = &suggestion["coverage"];
    assert_eq!((&coverage["whole"], &coverage["events"]), (&json!(true), &json!(7)), "{suggestion}");
    assert_eq!(coverage["since"], suggestion["seen"][0], "{suggestion}");
    assert!(!suggestion["file"].as_str().unwrap().contains("not all of it"), "{suggestion}");

    // The end of a flow that began before, as control hears of it now, and one that its source's machine tells of as well.
    let mut session = connect_again(&gateway, &control).await;
    tell(&mut session, vec![teller.event(Kind::End, "fd10::1:10", 1, 443)], 0).await;
    let mut own = world.user.sync(&control).await.unwrap();
    let local = |event| FlowEvent { direction: "local".into(), ..event };
    tell(&mut own, teller.flows("10.1.0.10", 3).into_iter().map(local).collect(), 0).await;
    let suggestion = suggest(&rest).await;
    assert_eq!(rules(&suggestion), sites(3, 1), "{suggestion}");
    assert_eq!((&suggestion["flows"], &suggestion["blocked"]), (&json!(4), &json!([])), "{suggestion}");

    let one = rest.post(SUGGEST, json!({ "policy": "web", "days": 2, "min_flows": 2 })).await;
    assert_eq!((one["rules"].as_array().unwrap().len(), one["blocked"].as_array().unwrap().len()), (1, 1));
    for days in [0, 367] {
        let (status, refused) = rest.refused(SUGGEST, json!({ "policy": "web", "days": days })).await;
        assert_eq!(status, 422, "{refused}");
    }
}

/// Without waiting for an image that it has.
async fn connect_again(gateway: &FakeAgent, control: &Control) -> Session {
    control.settled().await;
    gateway.sync(control).await.unwrap()
}

#[tokio::test]
async fn a_suggestion_from_less_than_all_of_it_says_so_in_the_answer_and_in_the_file() {
    let control = Control::start().await;
    let mut gateway = control.join(Role::Gateway).await;
    let world = world(&[&gateway], control).await;
    let teller = Teller::of(&world).await;
    let mut session = connect(&mut gateway, &world.control).await;
    tell(&mut session, teller.flows("fd10::1:10", 2), 0).await;
    tell(&mut session, teller.flows("10.1.0.10", 2), 17).await;
    let suggestion = suggest(&world.rest).await;
    let coverage = &suggestion["coverage"];
    assert_eq!((&coverage["whole"], &coverage["lost"]), (&json!(false), &json!(17)), "{suggestion}");
    let file = suggestion["file"].as_str().unwrap();
    assert!(file.contains("agents lost 17 of any policy"), "{file}");

    // Ports of a scan take the room of whoever scans, and what was seen before goes on to rise.
    let most = u32::try_from(FlowVerdict::Accept.of_a_source()).unwrap();
    for first in (1..=most + 1_000).step_by(1_000) {
        let scan = (first..first + 1_000).map(|port| teller.event(Kind::Start, "10.1.0.10", 9, 1_000 + port));
        tell(&mut session, scan.collect(), 17).await;
    }
    suggest(&world.rest).await;
    tell(&mut session, teller.flows("10.1.0.10", 1), 17).await;
    let suggestion = suggest(&world.rest).await;
    let coverage = &suggestion["coverage"];
    let scanned = u64::from(most / 1_000 + 2) * 1_000;
    assert_eq!(coverage["events"], scanned + 10, "{coverage}");
    assert_eq!(coverage["unfit"], scanned - (u64::from(most) - 2), "{coverage}");
    assert_eq!(rules(&suggestion).iter().map(|rule| rule.1).sum::<u64>(), u64::from(most) - 2 + 5);
    let metrics = world.control.agents.metrics().render().unwrap();
    let unfit = format!("sluicegate_control_flow_events_unfit_total {}", coverage["unfit"]);
    assert!(metrics.contains(&unfit), "{unfit}");
}

#[tokio::test]
async fn a_control_that_was_killed_has_not_written_what_it_heard_last_and_a_suggestion_says_so() {
    let control = Control::start().await;
    let mut gateway = control.join(Role::Gateway).await;
    let world = world(&[&gateway], control).await;
    let teller = Teller::of(&world).await;
    let mut session = connect(&mut gateway, &world.control).await;
    tell(&mut session, teller.flows("fd10::1:10", 2), 0).await;
    assert_eq!(suggest(&world.rest).await["coverage"]["whole"], true);
    tell(&mut session, teller.flows("10.1.0.10", 2), 0).await;
    world.rest.end().await;
    let control = world.control.restart_killed().await;
    let rest = Rest::of(&control).await;
    let suggestion = soon("word of the one that was killed", async {
        loop {
            let gone =
                "UPDATE flow_writers SET at = at - 60000 WHERE replica NOT IN (SELECT id FROM replicas)";
            control.sql(["SELECT 1", gone]).await;
            let suggestion = suggest(&rest).await;
            if suggestion["coverage"]["broken_off"] == 1 {
                return suggestion;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(
        (&suggestion["coverage"]["whole"], &suggestion["flows"]),
        (&json!(false), &json!(2)),
        "{suggestion}"
    );
    assert!(suggestion["file"].as_str().unwrap().contains("control broke off 1 times"), "{suggestion}");
}

#[tokio::test]
async fn flows_of_a_peer_that_is_gone_get_no_rule_and_are_counted() {
    let control = Control::start().await;
    let mut gateway = control.join(Role::Gateway).await;
    let world = world(&[&gateway], control).await;
    let teller = Teller::of(&world).await;
    let mut session = connect(&mut gateway, &world.control).await;
    for site in ["10.1.0.10", "fd10::1:10"] {
        tell(&mut session, teller.flows(site, 2), 0).await;
    }
    assert_eq!(rules(&suggest(&world.rest).await), sites(2, 2));
    world.control.store.delete_peer(&Actor::system(), &world.user.id()).await.unwrap();
    let suggestion = suggest(&world.rest).await;
    assert_eq!(
        (&suggestion["coverage"]["gone"], &suggestion["flows"], &suggestion["rules"]),
        (&json!(4), &json!(0), &json!([])),
        "{suggestion}"
    );
}

#[tokio::test]
async fn what_one_replica_heard_is_suggested_by_the_other() {
    let [first, second] = Control::replicas().await;
    let (mut near, mut far) = (first.join(Role::Gateway).await, first.join(Role::Gateway).await);
    let world = world(&[&near, &far], first).await;
    let teller = Teller::of(&world).await;
    let mut session = connect(&mut near, &world.control).await;
    let mut other = connect(&mut far, &second).await;
    tell(&mut session, teller.flows("10.1.0.10", 2), 3).await;
    tell(&mut other, teller.flows("fd10::1:10", 5), 4).await;
    // One gateway's site goes by the other now, of which it tells the other replica.
    tell(&mut other, teller.flows("10.1.0.10", 1), 4).await;
    let suggestion = soon("what the other replica heard", async {
        loop {
            let suggestion = suggest(&world.rest).await;
            if suggestion["flows"] == 8 {
                return suggestion;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(rules(&suggestion), sites(3, 5), "{suggestion}");
    let coverage = &suggestion["coverage"];
    assert_eq!((&coverage["events"], &coverage["lost"]), (&json!(16), &json!(7)), "{suggestion}");
}
