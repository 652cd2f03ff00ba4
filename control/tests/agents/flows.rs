//! Plans ask gateways which flows they have.

use std::net::IpAddr;

use serde_json::{Value, json};
use sluicegate_api::agent::flow_event::Kind;
use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{FlowEvent, FlowList, FlowsQuery, LiveFlow, ReportRequest, Role, RuleName};
use sluicegate_control::app::App;
use sluicegate_control::geo::Places;
use sluicegate_control::identity::Identity;
use sluicegate_control::rest::{Extra, router};
use tokio::net::TcpListener;

use crate::support::{Control, FakeAgent, Session, soon};

/// Control's whole REST interface.
pub(crate) struct Rest {
    client: reqwest::Client,
    url: String,
    token: String,
    serving: tokio::task::JoinHandle<()>,
}

impl Rest {
    pub(crate) async fn of(control: &Control) -> Self {
        Self::by(control, control.token()).await
    }

    /// By the token of an account that another replica has made.
    async fn by(control: &Control, token: String) -> Self {
        let app = App {
            store: control.store.clone(),
            control_fingerprint: None,
            places: Places::none(),
            identity: Identity::default(),
        };
        let agents = &control.agents;
        let extra = Extra { protected: agents.api_routes(), open: agents.open_routes(), ..Extra::default() };
        let (router, _) = router(app, extra);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { client: reqwest::Client::new(), url, token, serving }
    }

    /// Ends it, so that control can start again.
    pub(crate) async fn end(self) {
        drop(self.client);
        self.serving.abort();
        let _ = self.serving.await;
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.send(self.client.post(format!("{}{path}", self.url)).json(&body)).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Status and body of what is refused.
    pub(crate) async fn refused(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(self.client.post(format!("{}{path}", self.url)).json(&body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.send(self.client.get(format!("{}{path}", self.url))).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// What a stream begins with.
    pub(crate) async fn begins(&self, path: &str) -> String {
        let request = self.client.get(format!("{}{path}", self.url));
        let request = request.header("Authorization", format!("Token {}", self.token));
        let mut answer = soon("an answer", request.send()).await.unwrap();
        let chunk = soon("a beginning", answer.chunk()).await.unwrap().unwrap();
        String::from_utf8(chunk.to_vec()).unwrap()
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let request = request.header("Authorization", format!("Token {}", self.token));
        let answer = soon("an answer", request.send()).await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap())
    }

    pub(crate) async fn plan(&self, file: &str) -> Value {
        self.post("/api/policy-file/plan", json!({ "file": file })).await
    }
}

fn bytes(address: &str) -> Vec<u8> {
    match address.parse().unwrap() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn flow(source: IpAddr, destination: &str, port: u32, carried: u64) -> LiveFlow {
    LiveFlow {
        protocol: 6,
        source: bytes(&source.to_string()),
        source_port: 40_000,
        destination: bytes(destination),
        destination_port: port,
        translated_source: bytes(if destination.contains(':') { "fd10::1" } else { "10.1.0.1" }),
        translated_port: 20_001,
        rule: 1,
        packets: 10,
        bytes: carried,
        confirmed: true,
    }
}

/// The next question for flows; whatever else comes is taken.
async fn asked(session: &mut Session) -> FlowsQuery {
    loop {
        let message = soon("a question", session.stream.message()).await.unwrap().unwrap();
        if let Some(Update::Flows(query)) = message.update {
            return query;
        }
    }
}

async fn answer(session: &mut Session, list: FlowList) {
    let report = ReportRequest { flow_list: Some(list), ..ReportRequest::default() };
    session.client.report(report).await.unwrap();
}

pub(crate) struct World {
    pub(crate) control: Control,
    pub(crate) rest: Rest,
    pub(crate) user: FakeAgent,
    policy: String,
}

/// Four sites behind a gateway each, and a user of all of them by ports 80 and 443.
pub(crate) async fn world(gateways: &[&FakeAgent], control: Control) -> World {
    control.no_default_policy().await;
    let user = control.join(Role::Peer).await;
    let users = control.group("users", &[&user]).await;
    let web = control.group("web", &[]).await;
    for (number, gateway) in (1..).zip(gateways) {
        control.site(&format!("site {number}"), &format!("10.{number}.0.10"), gateway, &web).await;
        control.site(&format!("site {number} v6"), &format!("fd10::{number}:10"), gateway, &web).await;
    }
    let policy = control.policy("web", &users, &web, 443).await;
    let rest = Rest::of(&control).await;
    rest.post("/api/policy-file/apply", json!({ "file": file("tcp/80,443") })).await;
    control.settled().await;
    World { control, rest, user, policy }
}

pub(crate) fn file(service: &str) -> String {
    format!("policies:\n  - name: web\n    rules:\n      - {{from: users, to: web, service: '{service}'}}\n")
}

#[tokio::test]
async fn a_plan_asks_gateways_which_flows_they_have_and_names_those_that_do_not_say() {
    let control = Control::start().await;
    let (mut near, mut mute) = (control.join(Role::Gateway).await, control.join(Role::Gateway).await);
    let (mut old, away) = (control.join(Role::Gateway).await, control.join(Role::Gateway).await);
    let world = world(&[&near, &mute, &old, &away], control).await;
    let control = &world.control;
    let peer = control.store.peer(&world.user.id()).await.unwrap();
    let (v4, v6) = (IpAddr::from(peer.ip), IpAddr::from(peer.ipv6));
    let rule = control.store.policies().await.unwrap().remove(0).rules.remove(0).id;

    let mut sessions = [
        near.sync_listing(control).await,
        mute.sync_listing(control).await,
        old.sync(control).await.unwrap(),
    ];
    for (agent, session) in [&mut near, &mut mute, &mut old].into_iter().zip(&mut sessions) {
        agent.apply(session).await;
    }
    let [near_session, mute_session, old_session] = &mut sessions;
    // Of the mute one's flows control was told as they began.
    let event = FlowEvent {
        time_ms: 1_700_000_000_000,
        kind: Kind::Start.into(),
        protocol: 6,
        source: v4.to_string(),
        source_port: 50_000,
        destination: "10.2.0.10".into(),
        destination_port: 443,
        direction: "overlay".into(),
        ..FlowEvent::default()
    };
    let report = ReportRequest { flows: vec![event], ..ReportRequest::default() };
    mute_session.client.report(report).await.unwrap();

    let answering = async {
        let query = asked(near_session).await;
        assert!(query.most >= 1_000, "{query:?}");
        // What nobody asked is taken by nobody.
        answer(near_session, FlowList { query: query.id + 1, live: 99, ..FlowList::default() }).await;
        let flows = vec![
            flow(v4, "10.1.0.10", 443, 5_000),
            flow(v6, "fd10::1:10", 443, 7_000),
            flow(v4, "10.1.0.10", 80, 1),
            LiveFlow { destination: vec![1, 2, 3], ..flow(v4, "10.1.0.10", 443, 1) },
            // Its image does not admit this: the change is not what ends it.
            flow(v4, "10.1.0.10", 22, 1),
        ];
        let rules = vec![RuleName { policy_id: world.policy.clone(), rule_id: rule.clone() }];
        answer(near_session, FlowList { query: query.id, live: 12, flows, rules }).await;
        asked(mute_session).await
    };
    let wanted = file("tcp/80,8443");
    let (plan, _) = tokio::join!(world.rest.plan(&wanted), answering);
    let flows = &plan["flows"];
    let gateway = |agent: &FakeAgent| {
        let asked = flows["asked"].as_array().unwrap();
        asked.iter().find(|one| one["id"] == agent.id().as_str()).unwrap().clone()
    };
    assert_eq!(flows["asked"].as_array().unwrap().len(), 4, "{plan}");
    let said = gateway(&near);
    assert_eq!(
        [&said["answer"], &said["live"], &said["listed"], &said["more"], &said["cut"], &said["cut_bytes"]],
        [&json!("answered"), &json!(12), &json!(5), &json!(7), &json!(2), &json!(12_000)]
    );
    for (agent, word) in [(&mute, "did not answer"), (&old, "too old to ask"), (&away, "not connected")] {
        assert_eq!((&gateway(agent)["answer"], &gateway(agent)["cut"]), (&json!(word), &json!(0)), "{plan}");
    }
    // Four flows that make sense of the one, and one event of the mute.
    assert_eq!((&flows["known"], &flows["cut"]), (&json!(5), &json!(3)), "{flows}");
    let cut = flows["flows"].as_array().unwrap();
    assert_eq!(cut.len(), 2, "{flows}");
    let first = &cut[0];
    assert_eq!(
        [&first["source"], &first["translated_source"], &first["destination"], &first["bytes"]],
        [
            &json!(format!("[{v6}]:40000")),
            &json!("[fd10::1]:20001"),
            &json!("[fd10::1:10]:443"),
            &json!(7_000)
        ]
    );
    assert_eq!(
        [&first["policy_id"], &first["rule_id"], &first["policy_name"], &first["destination_name"]],
        [&json!(world.policy), &json!(rule), &json!("web"), &json!("site 1 v6 resource")]
    );
    assert_eq!(
        (&cut[1]["source"], &cut[1]["source_name"]),
        (&json!(format!("{v4}:40000")), &json!(peer.name))
    );

    // Once it is done nobody is asked: then the flows are cut. The old agent was asked nothing at all.
    let applied = world.rest.post("/api/policy-file/apply", json!({ "file": wanted })).await;
    assert_eq!(applied["plan"]["flows"]["asked"], json!([]), "{applied}");
    near.apply(near_session).await;
    old.apply(old_session).await;
}

#[tokio::test]
async fn only_gateways_that_get_another_image_are_asked_and_two_questions_at_once_are_one() {
    let control = Control::start().await;
    let (mut near, mut far) = (control.join(Role::Gateway).await, control.join(Role::Gateway).await);
    let world = world(&[&near], control).await;
    let control = &world.control;
    let alone = control.group("alone", &[]).await;
    control.site("far", "10.9.0.10", &far, &alone).await;
    control.settled().await;
    let mut session = near.sync_listing(control).await;
    near.apply(&mut session).await;
    let mut other = far.sync_listing(control).await;
    far.apply(&mut other).await;

    let wanted = file("tcp/80");
    let answering = async {
        let query = asked(&mut session).await;
        answer(&mut session, FlowList { query: query.id, live: 1, ..FlowList::default() }).await;
    };
    let (plan, ()) = tokio::join!(world.rest.plan(&wanted), answering);
    let names = plan["flows"]["asked"].as_array().unwrap();
    assert_eq!((names.len(), &names[0]["id"]), (1, &json!(near.id())), "{plan}");

    // A stream that ends leaves nobody waiting for its answer.
    let ending = async {
        asked(&mut session).await;
        drop(session);
    };
    let hub = control.agents.hub();
    let ids = [near.id()];
    let patience = std::time::Duration::from_secs(3600);
    let (answers, ()) =
        soon("an end", async { tokio::join!(hub.live_flows(&ids, 10, patience), ending) }).await;
    assert!(matches!(answers[..], [sluicegate_control::hub::Asked::Silent]), "{answers:?}");

    let mut session = near.sync_listing(control).await;
    let both = async { tokio::join!(hub.live_flows(&ids, 10, patience), hub.live_flows(&ids, 10, patience)) };
    let answering = async {
        let query = asked(&mut session).await;
        let flows = vec![flow("100.64.0.1".parse().unwrap(), "10.1.0.10", 443, 1); 12];
        answer(&mut session, FlowList { query: query.id, live: 2, flows, ..FlowList::default() }).await;
    };
    let (both, ()) = soon("both answers", async { tokio::join!(both, answering) }).await;
    for answers in [both.0, both.1] {
        let [sluicegate_control::hub::Asked::Listed(list)] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!((list.flows.len(), list.live), (10, 10), "no more than was asked for is kept");
    }
}

#[tokio::test]
async fn a_list_of_more_flows_than_there_can_be_is_refused_before_it_is_decoded() {
    let control = Control::start().await;
    let mut gateway = control.join(Role::Gateway).await;
    let mut session = gateway.sync(&control).await.unwrap();
    gateway.apply(&mut session).await;
    let report = |many: usize| {
        // Two bytes each on the wire.
        let list = FlowList { flows: vec![LiveFlow::default(); many], ..FlowList::default() };
        let report = ReportRequest { flow_list: Some(list), ..ReportRequest::default() };
        assert!(prost::Message::encoded_len(&report) < 1 << 20);
        report
    };
    session.client.report(report(16_384)).await.unwrap();
    let refused = session.client.report(report(200_000)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("more than 16384 live flows"), "{refused:?}");
    // What is larger than any message is not even read.
    let flow = LiveFlow { source: vec![1; 1 << 20], ..LiveFlow::default() };
    let list = FlowList { flows: vec![flow; 5], ..FlowList::default() };
    let huge = ReportRequest { flow_list: Some(list), ..ReportRequest::default() };
    let refused = session.client.report(huge).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("4194304 bytes"), "{refused:?}");
    // The stream goes on, and so does the agent.
    gateway.acknowledge(&mut session, "").await;
}

#[tokio::test]
async fn a_plan_asks_gateways_that_follow_another_replica_and_names_those_that_do_not_say() {
    let [first, second] = Control::replicas().await;
    let mut gateways = Vec::new();
    for _ in 0..5 {
        gateways.push(first.join(Role::Gateway).await);
    }
    let world = world(&gateways.iter().collect::<Vec<_>>(), first).await;
    let peer = world.control.store.peer(&world.user.id()).await.unwrap();
    let (v4, v6) = (IpAddr::from(peer.ip), IpAddr::from(peer.ipv6));
    let mut near = gateways[0].sync_listing(&world.control).await;
    let mut far = gateways[1].sync_listing(&second).await;
    let mut mute = gateways[2].sync_listing(&second).await;
    let mut old = gateways[3].sync(&second).await.unwrap();
    for (gateway, session) in gateways.iter_mut().zip([&mut near, &mut far, &mut mute, &mut old]) {
        gateway.apply(session).await;
    }
    // So many that no notification could carry them.
    let many: Vec<LiveFlow> =
        (0..2_000).map(|port| LiveFlow { source_port: port, ..flow(v6, "fd10::2:10", 443, 3) }).collect();
    let answering = async {
        let query = asked(&mut near).await;
        let flows = vec![flow(v4, "10.1.0.10", 443, 5_000)];
        answer(&mut near, FlowList { query: query.id, live: 1, flows, ..FlowList::default() }).await;
        let query = asked(&mut far).await;
        let flows =
            many.iter().cloned().chain([flow(v4, "10.2.0.10", 443, 9_000), flow(v4, "10.2.0.10", 80, 1)]);
        answer(
            &mut far,
            FlowList { query: query.id, live: 2_005, flows: flows.collect(), ..FlowList::default() },
        )
        .await;
        let query = asked(&mut mute).await;
        // What one says is on its way before another has not said anything for long enough.
        let far = "SELECT count(*)::text FROM flow_questions a JOIN flow_questions b ON a.id = b.id
                   WHERE a.outcome = 'listed' AND b.outcome = ''";
        soon("the first answer", async {
            while world.control.sql_text(far).await != "1" {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        query
    };
    let wanted = file("tcp/80,8443");
    let (plan, _) = tokio::join!(world.rest.plan(&wanted), answering);
    let flows = &plan["flows"];
    let said = |gateway: &FakeAgent| {
        let asked = flows["asked"].as_array().unwrap();
        asked.iter().find(|one| one["id"] == gateway.id().as_str()).unwrap().clone()
    };
    for (gateway, [live, listed, cut]) in gateways.iter().zip([[1, 1, 1], [2_005, 2_002, 2_001]]) {
        let said = said(gateway);
        assert_eq!(
            [&said["answer"], &said["live"], &said["listed"], &said["cut"]],
            [&json!("answered"), &json!(live), &json!(listed), &json!(cut)],
            "{plan}"
        );
    }
    let words = ["did not answer", "too old to ask", "not connected"];
    for (gateway, word) in gateways[2..].iter().zip(words) {
        assert_eq!((&said(gateway)["answer"], &said(gateway)["cut"]), (&json!(word), &json!(0)), "{plan}");
    }
    assert_eq!((&flows["known"], &flows["cut"]), (&json!(2_003), &json!(2_002)));
    assert_eq!(flows["flows"][0]["bytes"], 9_000, "{flows}");
    let left = world.control.sql_text("SELECT count(*)::text FROM flow_questions").await;
    assert_eq!(left, "0", "nothing stays of a question");

    // And the other way round, without waiting for anybody who is mute.
    let rest = Rest::by(&second, world.control.token()).await;
    drop(mute);
    let answering = async {
        let query = asked(&mut near).await;
        answer(&mut near, FlowList { query: query.id, live: 0, ..FlowList::default() }).await;
        let query = asked(&mut far).await;
        answer(&mut far, FlowList { query: query.id, live: 0, ..FlowList::default() }).await;
    };
    let (plan, ()) = tokio::join!(rest.plan(&wanted), answering);
    let answered =
        plan["flows"]["asked"].as_array().unwrap().iter().filter(|one| one["answer"] == "answered");
    assert_eq!(answered.count(), 2, "{plan}");
}

#[tokio::test]
async fn a_replica_that_answers_as_many_questions_as_it_may_says_so_to_the_next_at_once() {
    let [first, second] = Control::replicas().await;
    let mut gateway = first.join(Role::Gateway).await;
    let world = world(&[&gateway], first).await;
    let mut mute = gateway.sync_listing(&second).await;
    gateway.apply(&mut mute).await;
    let (store, agents) = (&world.control.store, [gateway.id()]);
    let patience = std::time::Duration::from_secs(40);
    let mut open = Vec::new();
    for number in 0..5 {
        open.push(store.ask_elsewhere(&agents, 1, patience).await.unwrap().unwrap());
        if number == 0 {
            asked(&mut mute).await;
        }
    }
    let started = std::time::Instant::now();
    let until = tokio::time::Instant::now() + patience;
    let answers = store.answers(open.pop().unwrap(), until).await.unwrap();
    assert_eq!((answers.len(), answers[0].outcome.as_str()), (1, "busy"));
    assert!(started.elapsed() < patience / 2, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_replica_that_is_gone_holds_a_plan_up_no_longer_than_a_gateway_that_is_silent() {
    let [first, second] = Control::replicas().await;
    let gateway = first.join(Role::Gateway).await;
    let world = world(&[&gateway], first).await;
    let gone = format!(
        "INSERT INTO replicas (id, last_seen) VALUES ('gone', 9000000000000000);
         UPDATE peers SET connected = TRUE, replica = 'gone' WHERE id = '{}'",
        gateway.id()
    );
    second.sql(["", &gone]).await;
    let started = std::time::Instant::now();
    let plan = world.rest.plan(&file("tcp/80")).await;
    assert!(started.elapsed() < std::time::Duration::from_secs(8), "{:?}", started.elapsed());
    let asked = plan["flows"]["asked"].as_array().unwrap();
    assert_eq!((asked.len(), &asked[0]["answer"]), (1, &json!("did not answer")), "{plan}");
}
