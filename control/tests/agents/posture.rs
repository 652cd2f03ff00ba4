//! Posture from an agent's word to the images of the gateways that it concerns.

use std::time::{Duration, Instant};

use sluicegate_api::agent::facts::Addresses;
use sluicegate_api::agent::process::State;
use sluicegate_api::agent::{Facts, Process, ReportRequest, Role, SyncRequest, SystemInfo};
use sluicegate_control::geo::Places;
use sluicegate_control::posture::{Keeper, LIFETIME};
use sluicegate_control::store::{Actor, PeerFacts, PolicyChange, PostureCheckChange, Told};

use crate::support::{Control, FakeAgent, Session, policy};

const CLAMD: &str = "/usr/sbin/clamd";

/// Two sites with a gateway each; the user may reach the first when it passes, and the second in any case.
struct Sites {
    control: Control,
    near: (FakeAgent, Session),
    far: (FakeAgent, Session),
    user: (FakeAgent, Session),
    check: String,
}

fn facts(addresses: &[&str], clamd: Option<State>) -> Facts {
    let process = |state: State| Process { path: CLAMD.into(), state: state.into() };
    Facts {
        addresses: Some(Addresses { prefixes: addresses.iter().map(|text| (*text).to_owned()).collect() }),
        processes: clamd.map(process).into_iter().collect(),
    }
}

fn system(kernel: &str) -> SystemInfo {
    let text = |text: &str| text.to_owned();
    SystemInfo {
        os: text("linux"),
        kernel_version: text(kernel),
        agent_version: text("0.1.0"),
        os_version: text("12"),
    }
}

async fn connect(control: &Control, mut agent: FakeAgent, facts: Option<Facts>) -> (FakeAgent, Session) {
    let session = open(control, &mut agent, facts).await;
    (agent, session)
}

async fn open(control: &Control, agent: &mut FakeAgent, facts: Option<Facts>) -> Session {
    control.settled().await;
    let mut client = agent.client(control).await;
    let request = SyncRequest {
        system: Some(system("6.12.0")),
        facts,
        protocol: sluicegate_api::PROTOCOL,
        ..SyncRequest::default()
    };
    agent.held = None;
    let stream = client.sync(request).await.unwrap().into_inner();
    let mut session = Session { client, stream };
    agent.apply(&mut session).await;
    session
}

async fn sites(checks: serde_json::Value) -> Sites {
    let control = Control::start().await;
    control.no_default_policy().await;
    let (near, far, user) = (
        control.join(Role::Gateway).await,
        control.join(Role::Gateway).await,
        control.join(Role::Peer).await,
    );
    let users = control.group("users", &[&user]).await;
    let (near_lan, far_lan) = (control.group("near", &[]).await, control.group("far", &[]).await);
    control.site("near", "10.1.0.0/24", &near, &near_lan).await;
    control.site("far", "2001:db8:2::/64", &far, &far_lan).await;
    let change = PostureCheckChange {
        name: "laptop".into(),
        description: String::new(),
        checks: serde_json::from_value(checks).unwrap(),
    };
    let check = control.store.create_posture_check(&Actor::system(), change).await.unwrap().id;
    let asking =
        PolicyChange { source_posture_checks: vec![check.clone()], ..policy("near", &users, &near_lan, 443) };
    control.store.create_policy(&Actor::system(), asking).await.unwrap();
    control.policy("far", &users, &far_lan, 443).await;
    let near = connect(&control, near, None).await;
    let far = connect(&control, far, None).await;
    let user = connect(&control, user, Some(facts(&["198.51.100.7/24"], Some(State::Running)))).await;
    Sites { control, near, far, user, check }
}

impl Sites {
    async fn report(&mut self, facts: Facts) {
        let report = ReportRequest { facts: Some(facts), ..ReportRequest::default() };
        self.user.1.client.report(report).await.unwrap();
    }

    /// Whether the near gateway lets the user in, by the image it gets next.
    async fn near_admits(&mut self) -> bool {
        self.near.0.apply(&mut self.near.1).await;
        self.near_admits_now()
    }

    fn near_admits_now(&self) -> bool {
        !self.near.0.held.as_ref().unwrap().1.rules.is_empty()
    }

    async fn caught_up(&mut self) {
        self.control.settled().await;
        self.near.0.apply(&mut self.near.1).await;
    }

    /// The far gateway was never sent anything since it connected.
    fn far_was_left_alone(&self) {
        let overview = self.control.agents.hub().overview(&self.far.0.id());
        assert_eq!(overview.wanted.unwrap().revision, self.far.0.revision());
    }

    async fn codes(&self) -> Vec<String> {
        let id = self.user.0.id();
        let events = self.control.store.events().await.unwrap();
        let posture =
            events.into_iter().filter(|event| event.target_id == id && event.code.contains("posture"));
        posture.map(|event| event.code).collect()
    }
}

#[tokio::test]
async fn a_process_that_ends_cuts_the_peer_off_and_only_its_gateway_hears_of_it() {
    let mut sites = sites(serde_json::json!({"process_check": {"processes": [{"linux_path": CLAMD}]}})).await;
    assert_eq!(sites.user.0.network.as_ref().unwrap().watched, [CLAMD], "the agent is told what to look for");
    sites.caught_up().await;
    assert!(sites.near_admits_now());
    for (state, admitted) in
        [(State::Stopped, false), (State::Running, true), (State::Absent, false), (State::Running, true)]
    {
        sites.report(facts(&["198.51.100.7/24"], Some(state))).await;
        assert_eq!(sites.near_admits().await, admitted, "{state:?}");
    }
    sites.report(facts(&["198.51.100.7/24"], None)).await;
    assert!(!sites.near_admits().await, "what is not said is not known");
    let failing = sites.control.store.failing(None).await.unwrap();
    assert_eq!(failing.len(), 1, "{failing:?}");
    assert_eq!(failing[0].verdict.to_string(), format!("it has not said yet whether {CLAMD} is running"));
    sites.far_was_left_alone();
    // Newest first; the last is when it was first heard of.
    let (fail, pass) = ("peer.posture.fail", "peer.posture.pass");
    assert_eq!(sites.codes().await, [fail, pass, fail, pass, fail, pass]);
    let page = sites.control.agents.metrics().render().unwrap();
    assert!(page.contains("sluicegate_control_posture_turns_total{result=\"fail\"} 3"), "{page}");
}

#[tokio::test]
async fn an_address_that_is_denied_cuts_the_peer_off() {
    let range = serde_json::json!({"ranges": ["203.0.113.0/24", "2001:db8:bad::/48"], "action": "deny"});
    let mut sites = sites(serde_json::json!({"peer_network_range_check": range})).await;
    sites.caught_up().await;
    assert!(sites.near_admits_now());
    for address in ["203.0.113.9/24", "2001:db8:bad::9/64"] {
        sites.report(facts(&["198.51.100.7/24", address], None)).await;
        assert!(!sites.near_admits().await, "{address}");
        sites.report(facts(&["198.51.100.7/24"], None)).await;
        assert!(sites.near_admits().await, "{address} is gone");
    }
    sites.report(facts(&["198.51.100.7/24", "no prefix"], None)).await;
    assert!(!sites.near_admits().await, "what cannot be read could be denied");
    // Another kernel, and the same verdict: written down, and nobody hears of it.
    let revision = sites.control.store.revision().await.unwrap();
    let (agent, check) = (&mut sites.user.0, sites.check.clone());
    let mut client = agent.client(&sites.control).await;
    let request = SyncRequest {
        system: Some(system("6.13.0")),
        protocol: sluicegate_api::PROTOCOL,
        ..SyncRequest::default()
    };
    drop(client.sync(request).await.unwrap());
    assert_eq!(sites.control.store.peer(&agent.id()).await.unwrap().kernel_version, "6.13.0");
    assert_eq!(sites.control.store.revision().await.unwrap(), revision);
    assert_eq!(sites.control.store.posture_check(&check).await.unwrap().name, "laptop");
}

#[tokio::test]
async fn an_agent_that_says_nothing_for_too_long_is_not_known_to_pass() {
    let mut sites = sites(serde_json::json!({"process_check": {"processes": [{"linux_path": CLAMD}]}})).await;
    sites.caught_up().await;
    let (agents, store) = (&sites.control.agents, sites.control.store.clone());
    let mut keeper = Keeper::new(
        store.clone(),
        agents.hub().clone(),
        agents.watch().clone(),
        agents.places().clone(),
        agents.metrics().clone(),
    );
    let start = Instant::now();
    keeper.look(start).await.unwrap();
    assert!(store.failing(None).await.unwrap().is_empty());
    keeper.look(start + LIFETIME + Duration::from_secs(1)).await.unwrap();
    assert!(!sites.near_admits().await);
    let failing = store.failing(Some(&sites.user.0.id())).await.unwrap();
    assert_eq!(failing[0].verdict.to_string(), "it was not heard from lately");
    // The same words count again, for they are said now.
    sites.report(facts(&["198.51.100.7/24"], Some(State::Running))).await;
    assert!(sites.near_admits().await);

    // Away, it is given as long as connected and silent.
    drop(sites.user.1);
    let id = sites.user.0.id();
    while store.peer(&id).await.unwrap().connected {
        tokio::task::yield_now().await;
    }
    keeper.look(start).await.unwrap();
    keeper.look(start + LIFETIME - Duration::from_secs(1)).await.unwrap();
    assert!(store.failing(None).await.unwrap().is_empty());
    keeper.look(start + LIFETIME).await.unwrap();
    assert_eq!(store.failing(None).await.unwrap().len(), 1);
    sites.near.0.apply(&mut sites.near.1).await;
    assert!(sites.near.0.held.as_ref().unwrap().1.rules.is_empty());
    sites.user.1 = open(&sites.control, &mut sites.user.0, Some(facts(&[], Some(State::Running)))).await;
    assert!(store.failing(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_agent_that_turns_too_often_is_not_believed_for_a_while() {
    let mut sites = sites(serde_json::json!({"process_check": {"processes": [{"linux_path": CLAMD}]}})).await;
    let before = sites.control.store.revision().await.unwrap();
    for turn in 0..100 {
        let state = if turn % 2 == 0 { State::Stopped } else { State::Running };
        sites.report(facts(&[], Some(state))).await;
    }
    let changes = sites.control.store.revision().await.unwrap() - before;
    assert!(changes <= 24, "{changes}");
    assert_eq!(sites.control.store.failing(None).await.unwrap().len(), 1, "and meanwhile it does not pass");

    // Connecting again does not help, with another word neither, and neither does being forgotten for want of a stream.
    let revision = sites.control.store.revision().await.unwrap();
    sites.control.agents.watch().silent(&[], Instant::now());
    for state in [State::Running, State::Stopped, State::Running] {
        let session = open(&sites.control, &mut sites.user.0, Some(facts(&[], Some(state)))).await;
        sites.user.1 = session;
    }
    let failing = sites.control.store.failing(None).await.unwrap();
    assert_eq!(failing[0].verdict.to_string(), "it was not heard from lately");
    assert_eq!(sites.control.store.revision().await.unwrap(), revision);
}

#[tokio::test]
async fn only_executables_that_are_watched_are_kept() {
    let mut sites = sites(serde_json::json!({"process_check": {"processes": [{"linux_path": CLAMD}]}})).await;
    let process = |path: String| Process { path, state: State::Running.into() };
    let mut many = facts(&[], Some(State::Running));
    many.processes.extend((0..1000).map(|i| process(format!("/opt/{i}"))));
    sites.report(many.clone()).await;
    assert!(sites.control.store.failing(None).await.unwrap().is_empty());
    assert_eq!(
        sites.control.sql_text("SELECT min(processes) FROM peer_facts").await,
        r#"{"/usr/sbin/clamd":"running"}"#
    );
    // One that is watched from now on is known by the next report, though that says nothing new.
    let checks = serde_json::json!({"process_check": {"processes": [{"linux_path": "/opt/7"}]}});
    let change = PostureCheckChange {
        name: "laptop".into(),
        description: String::new(),
        checks: serde_json::from_value(checks).unwrap(),
    };
    sites.control.store.update_posture_check(&Actor::system(), &sites.check, change).await.unwrap();
    assert_eq!(sites.control.store.failing(None).await.unwrap().len(), 1);
    sites.report(many).await;
    assert!(sites.control.store.failing(None).await.unwrap().is_empty());
}

fn database(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/geo/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[tokio::test]
async fn a_geo_database_that_is_replaced_judges_every_machine_anew() {
    let place =
        serde_json::json!({"locations": [{"country_code": "gb", "city_name": "boxford"}], "action": "allow"});
    let mut sites = sites(serde_json::json!({"geo_location_check": place})).await;
    let (agents, store, id) = (&sites.control.agents, sites.control.store.clone(), sites.user.0.id());
    let reason = async || match &store.failing(None).await.unwrap()[..] {
        [] => String::new(),
        [failing] => failing.verdict.to_string(),
        more => panic!("{more:?}"),
    };
    assert_eq!(reason().await, "it is not known where 127.0.0.1 is");
    assert_eq!(sites.codes().await, ["peer.posture.fail"], "it never passed, and that is told");
    // As if it had called from there.
    let from = "2.125.160.216".parse().ok();
    let told = Told { system: PeerFacts { connection_ip: from, ..PeerFacts::default() }, ..Told::default() };
    assert_eq!(store.note_facts(&id, &told).await.unwrap(), []);

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("geo.mmdb");
    std::fs::write(&file, database("GeoIP2-City-Test.mmdb")).unwrap();
    let (hub, watch, metrics) = (agents.hub().clone(), agents.watch().clone(), agents.metrics().clone());
    let places = Places::open(&file).unwrap();
    let mut keeper = Keeper::new(store.clone(), hub, watch, places.clone(), metrics);
    // A machine that cannot be noted does not keep the others, and is tried again.
    let near = sites.near.0.id();
    assert_eq!(store.note_facts(&near, &told).await.unwrap(), []);
    sites
        .control
        .sql([
            &format!(
                "CREATE TRIGGER broken BEFORE UPDATE ON peer_facts WHEN NEW.peer_id = '{near}'
                 BEGIN SELECT RAISE(ABORT, 'broken'); END"
            ),
            &format!(
                "CREATE FUNCTION broken() RETURNS trigger AS
                 $$ BEGIN RAISE EXCEPTION 'broken'; END $$ LANGUAGE plpgsql;
                 CREATE TRIGGER broken BEFORE UPDATE ON peer_facts FOR EACH ROW
                 WHEN (NEW.peer_id = '{near}') EXECUTE FUNCTION broken()"
            ),
        ])
        .await;
    keeper.relocate().await.unwrap_err();
    assert_eq!(reason().await, "");
    assert!(store.places(Some(&near)).await.unwrap().is_empty());
    sites.control.sql(["DROP TRIGGER broken", "DROP TRIGGER broken ON peer_facts"]).await;
    keeper.look(Instant::now()).await.unwrap();
    assert_eq!(store.places(Some(&near)).await.unwrap().len(), 1);
    assert!(sites.near_admits().await);
    std::fs::write(directory.path().join("new"), database("GeoIP2-Country-Test.mmdb")).unwrap();
    std::fs::rename(directory.path().join("new"), &file).unwrap();
    assert!(places.look().unwrap());
    keeper.relocate().await.unwrap();
    assert_eq!(reason().await, "its city in GB is not known");
    assert!(!sites.near_admits().await);
    sites.far_was_left_alone();
}
