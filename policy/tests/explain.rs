//! What `explain` tells a person, on the three-tier site.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod support;

use sluicegate_policy::evaluate::{Explanation, Missing, Query, Unmet, Verdict, explain};
use sluicegate_policy::model::{End, State};
use sluicegate_policy::service::Probe;
use support::*;

/// Users pa (engineering) and pb (contractors), pc monitors, pd and pe are gateways of metric 100 and 200.
fn site() -> State {
    let mut state = world();
    add_network(
        &mut state,
        "site",
        &[
            ("web-server", &["10.20.0.10/32", "fd20::10/128"]),
            ("metrics-exporter", &["10.20.0.30/32"]),
            ("database-server", &["10.20.0.20/32"]),
        ],
        &[("pd", 100), ("pe", 200)],
    );
    add_group(&mut state, "engineering", &["pa"], &[]);
    add_group(&mut state, "contractors", &["pb"], &[]);
    add_group(&mut state, "monitoring", &["pc"], &[]);
    add_group(&mut state, "web", &[], &["web-server"]);
    add_group(&mut state, "metrics", &[], &["metrics-exporter"]);
    add_group(&mut state, "database", &[], &["database-server"]);
    let web = accept(groups(&["engineering", "contractors"]), groups(&["web"]), "tcp/443");
    add_policy(&mut state, "web for users", vec![web]);
    let scrape = accept(groups(&["monitoring"]), groups(&["metrics", "web"]), "tcp/9100");
    add_policy(&mut state, "metrics", vec![scrape]);
    state
}

fn ask(state: &State, source: &str, destination: &str, probe: &str) -> Explanation {
    let query =
        Query { source: source.into(), destination: destination.into(), probe: Probe::parse(probe).unwrap() };
    explain(&compiler(state), &query)
}

#[test]
fn an_admitted_flow_names_its_rule_and_its_gateway() {
    for (source, destination) in [
        ("pa", "10.20.0.10"),
        ("peer pa", "web-server"),
        ("PEER PA", "fd20::10"),
        ("100.64.0.4", "10.20.0.10"),
    ] {
        let answer = ask(&site(), source, destination, "443/tcp");
        assert_eq!(answer.verdict, Verdict::Allowed, "{answer:#?}");
        assert_eq!(answer.rule.as_ref().unwrap().policy_id, "web for users");
        let carrier = answer.carrier.unwrap();
        assert_eq!((carrier.router.name.as_str(), carrier.router.metric), ("peer pd", 100));
        assert_eq!(carrier.others[0].router.name, "peer pe");
        assert_eq!(carrier.others[0].why, "its metric 200 is higher than 100");
        assert!(answer.missing.is_empty() && answer.near_misses.is_empty());
        assert_eq!(answer.judgements.len(), 2);
    }
    let answer = ask(&site(), "pa", "web-server", "443/tcp");
    assert_eq!(answer.summary, "allowed by policy `web for users`, rule `a rule`, through peer pd");
    let json = serde_json::to_value(&answer).unwrap();
    assert_eq!(json["verdict"], "allowed");
    assert_eq!(json["carrier"]["router"]["peer_id"], "pd");
}

#[test]
fn the_database_is_for_nobody() {
    let answer = ask(&site(), "pa", "database-server", "5432/tcp");
    assert_eq!(answer.verdict, Verdict::NoRule);
    assert_eq!(answer.missing, [Missing::DestinationInNoRule { name: "database-server".into() }]);
    assert_eq!(answer.summary, "denied: no enabled accept rule leads to database-server");
}

#[test]
fn ports_that_do_not_match_are_near_misses() {
    let answer = ask(&site(), "pa", "10.20.0.10", "22/tcp");
    assert_eq!(answer.verdict, Verdict::NoRule);
    assert_eq!(answer.near_misses.len(), 1);
    assert_eq!(answer.near_misses[0].rule.policy_id, "web for users");
    assert_eq!(answer.near_misses[0].unmet, [Unmet::Service { offered: "tcp/443".into() }]);
    assert!(answer.summary.contains("it admits tcp/443"), "{}", answer.summary);
}

#[test]
fn a_source_outside_every_group_is_told_so() {
    let answer = ask(&site(), "pf", "10.20.0.10", "443/tcp");
    assert_eq!(answer.missing, [Missing::SourceInNoRule { peer: "peer pf".into() }]);
    let expected = vec!["group contractors".to_string(), "group engineering".into()];
    assert_eq!(answer.near_misses[0].unmet, [Unmet::SourceNotIn { expected }]);
    assert!(answer.carrier.is_none());
}

#[test]
fn switches_and_posture_are_named() {
    let lacks = |state: &State| {
        let answer = ask(state, "pa", "10.20.0.10", "443/tcp");
        assert_eq!(answer.verdict, Verdict::NoRule);
        answer.near_misses[0].unmet.clone()
    };
    let mut state = site();
    state.policies.get_mut("web for users").unwrap().enabled = false;
    assert_eq!(lacks(&state), [Unmet::PolicyDisabled]);
    let mut state = site();
    state.policies.get_mut("web for users").unwrap().rules[0].enabled = false;
    assert_eq!(lacks(&state), [Unmet::RuleDisabled]);
    let mut state = site();
    state.policies.get_mut("web for users").unwrap().posture_failed.insert("pa".into());
    let failed = |reason: &str| Unmet::PostureFailed { peer: "peer pa".into(), reason: reason.into() };
    assert_eq!(lacks(&state), [failed("")]);
    assert_eq!(failed("").to_string(), "peer pa fails the posture checks of its policy");
    let why = [("pa".to_owned(), "antivirus: /usr/sbin/clamd is not running".to_owned())];
    state.policies.get_mut("web for users").unwrap().posture_failed = why.into_iter().collect();
    assert_eq!(lacks(&state), [failed("antivirus: /usr/sbin/clamd is not running")]);
    assert!(
        lacks(&state)[0].to_string().ends_with("of its policy: antivirus: /usr/sbin/clamd is not running")
    );
}

#[test]
fn routers_that_are_missing_are_named() {
    let mut state = site();
    state.networks.get_mut("site").unwrap().routers.values_mut().for_each(|r| r.enabled = false);
    let answer = ask(&state, "pa", "10.20.0.10", "443/tcp");
    let (network, network_id) = ("site".to_string(), "site".to_string());
    assert_eq!(answer.missing, [Missing::NoRouter { network, network_id, routers: 2, disabled: 2 }]);
    let mut state = site();
    state.networks.get_mut("site").unwrap().routers.get_mut("site-pd").unwrap().enabled = false;
    assert_eq!(ask(&state, "pa", "10.20.0.10", "443/tcp").carrier.unwrap().router.peer_id, "pe");
    let mut state = site();
    state.networks.get_mut("site").unwrap().resources.get_mut("web-server").unwrap().enabled = false;
    let answer = ask(&state, "pa", "10.20.0.10", "443/tcp");
    assert_eq!(answer.missing, [Missing::ResourceDisabled { resource: "web-server".into() }]);
}

#[test]
fn a_drop_rule_is_named() {
    let mut state = site();
    let all = drop_rule(groups(&["contractors"]), groups(&["web"]), "all");
    add_policy(&mut state, "zz no contractors", vec![all]);
    let answer = ask(&state, "pb", "10.20.0.10", "443/tcp");
    assert_eq!(answer.verdict, Verdict::Dropped);
    assert_eq!(answer.rule.unwrap().policy_id, "zz no contractors");
    assert!(ask(&state, "pa", "10.20.0.10", "443/tcp").allowed());
}

#[test]
fn what_is_unknown_or_elsewhere_is_told() {
    let state = site();
    let answer = ask(&state, "nobody", "nothing", "443/tcp");
    assert_eq!(answer.verdict, Verdict::Unknown);
    assert_eq!(answer.missing.len(), 2);
    let missing = |destination: &str| ask(&state, "pa", destination, "443/tcp").missing;
    let address = |text: &str| text.parse().unwrap();
    assert_eq!(missing("9.9.9.9"), [Missing::InNoResource { address: address("9.9.9.9") }]);
    assert_eq!(missing("100.64.0.200"), [Missing::NobodyAtAddress { address: address("100.64.0.200") }]);
    assert_eq!(missing("pf"), [Missing::DestinationInNoRule { name: "peer pf".into() }]);
    assert_eq!(ask(&state, "pd", "10.20.0.10", "443/tcp").verdict, Verdict::NotJudged);
    assert_eq!(ask(&state, "pa", "pa", "443/tcp").verdict, Verdict::NotJudged);
    let mut state = site();
    state.peers.get_mut("pb").unwrap().name = "peer pa".into();
    let answer = ask(&state, "peer pa", "10.20.0.10", "443/tcp");
    assert_eq!(
        answer.missing,
        [Missing::Ambiguous { text: "peer pa".into(), ids: vec!["pa".into(), "pb".into()] }]
    );
    state.peers.get_mut("pa").unwrap().allowed = false;
    let answer = ask(&state, "pa", "10.20.0.10", "443/tcp");
    assert_eq!(answer.missing, [Missing::NotAllowed { peer: "peer pa".into() }]);
}

#[test]
fn a_one_way_rule_between_peers_is_a_near_miss_the_other_way() {
    let mut state = world();
    let rule = accept(End::Peer("pa".into()), End::Peer("pb".into()), "tcp/22");
    add_policy(&mut state, "ssh", vec![rule]);
    assert!(ask(&state, "pa", "pb", "22/tcp").allowed());
    assert_eq!(ask(&state, "pb", "pa", "22/tcp").near_misses[0].unmet, [Unmet::OneWay]);
}

#[test]
fn a_longer_route_into_another_network_is_told() {
    let mut state = world();
    add_network(&mut state, "large", &[("ten", &["10.0.0.0/8"])], &[("pd", 10)]);
    add_network(&mut state, "small", &[("ten-one", &["10.1.0.0/16"])], &[("pe", 10)]);
    let web = accept(End::Peer("pa".into()), End::Resource("ten".into()), "tcp/80");
    let ssh = accept(End::Peer("pa".into()), End::Resource("ten-one".into()), "tcp/22");
    add_policy(&mut state, "p", vec![web, ssh]);
    let answer = ask(&state, "pa", "10.1.2.3", "22/tcp");
    assert!(answer.allowed());
    assert_eq!(answer.carrier.unwrap().others[0].why, "its prefix 10.0.0.0/8 is shorter than 10.1.0.0/16");
    let answer = ask(&state, "pa", "10.1.2.3", "80/tcp");
    assert_eq!(answer.verdict, Verdict::NoRule);
    assert!(
        matches!(&answer.missing[..], [Missing::CarriedElsewhere { network, .. }] if network == "small"),
        "{answer:#?}"
    );
}
