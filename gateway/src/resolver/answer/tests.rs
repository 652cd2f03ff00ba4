//! Who is asked for what, and names that lead from one to another.

use std::net::IpAddr;
use std::sync::Mutex;

use futures_util::future::BoxFuture;
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, NULL, TXT};
use hickory_resolver::proto::serialize::binary::BinEncodable as _;
use tokio::net::UdpSocket;

use super::super::message::{self, Read};
use super::super::routed::RoutedAnswer;
use super::super::wanted::tests::wanted;
use super::super::wanted::{Forward, RoutedName, Wanted, ZoneRecord, name};
use super::*;

/// A name server that answers every A question below `answers` as they say, and anything else with no such name.
async fn server(answers: &'static [(&'static str, &'static str)]) -> SocketAddr {
    server_at("127.0.0.1:0", answers).await
}

async fn server_at(at: &str, answers: &'static [(&'static str, &'static str)]) -> SocketAddr {
    let socket = UdpSocket::bind(at).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let asked = question.queries[0].name().clone();
            let records = records(&asked, answers);
            let mut answer = question.into_response();
            if records.is_empty() {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            answer.answers = records;
            socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
        }
    });
    address
}

/// A name server at `at` that says the same to everything.
async fn liar(at: &str, says: Vec<Record>) -> SocketAddr {
    let socket = UdpSocket::bind(at).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            let mut answer = Message::from_vec(&buffer[..length]).unwrap().into_response();
            answer.answers = says.clone();
            socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
        }
    });
    address
}

/// A record that says of a name what stands here: an address of either family, or else a name.
fn record(owner: &str, text: &str) -> Record {
    let data = match text.parse() {
        Ok(IpAddr::V4(v4)) => RData::A(A(v4)),
        Ok(IpAddr::V6(v6)) => RData::AAAA(AAAA(v6)),
        Err(_) => RData::CNAME(CNAME(name(text).unwrap())),
    };
    Record::from_rdata(name(owner).unwrap(), 33, data)
}

/// What these say of a name.
fn records(asked: &Name, answers: &[(&str, &str)]) -> Vec<Record> {
    let all = answers.iter().map(|(owner, text)| record(owner, text));
    all.filter(|record| record.name == *asked).collect()
}

/// A router that knows these names, of the resource `r1`.
struct Fake {
    answers: &'static [(&'static str, &'static str)],
    asked: Mutex<Vec<String>>,
    failure: Option<RoutedFailure>,
}

impl Routed for Fake {
    fn ask<'a>(
        &'a self,
        resource_id: &'a str,
        question: &'a Query,
    ) -> BoxFuture<'a, Result<RoutedAnswer, RoutedFailure>> {
        self.asked.lock().unwrap().push(format!("{resource_id} {}", question.name()));
        let records = records(question.name(), self.answers);
        let code = if records.is_empty() { ResponseCode::NXDomain } else { ResponseCode::NoError };
        let answer = self.failure.map_or(Ok(RoutedAnswer { code, records }), Err);
        Box::pin(async { answer })
    }
}

fn forward(server: SocketAddr, domains: &[&str]) -> Forward {
    let domains = domains.iter().map(|domain| name(domain).unwrap()).collect();
    Forward { id: String::new(), name: String::new(), servers: vec![server], domains, search: false }
}

fn alias(of: &str, target: &str) -> ZoneRecord {
    ZoneRecord { name: name(of).unwrap(), ttl: 120, data: RData::CNAME(CNAME(name(target).unwrap())) }
}

fn answers(wanted: &Wanted, upstreams: &[SocketAddr]) -> Answers {
    let answers = Answers::default();
    let servers = wanted.forwards.iter().flat_map(|forward| &forward.servers).chain(upstreams);
    answers.forwarder.keep(&servers.copied().collect());
    answers.know(Known { table: Table::new(wanted, &[], Vec::new()), upstreams: upstreams.to_vec() });
    answers
}

async fn ask(answers: &Answers, of: &str, kind: RecordType) -> Message {
    let mut question = Message::query();
    question.add_query(Query::query(name(of).unwrap(), kind));
    let Read::Asked(asked) = message::read(&question.to_vec().unwrap()) else { panic!() };
    answers.answer(&asked).await
}

/// What was answered, in a line: the code, each record, and whether the agent answers for it.
async fn said(answers: &Answers, of: &str) -> String {
    said_of(answers, of, RecordType::A).await
}

async fn said_of(answers: &Answers, of: &str, kind: RecordType) -> String {
    let message = ask(answers, of, kind).await;
    let records = message.answers.iter().map(|record| record.data.to_string());
    let words: Vec<String> = std::iter::once(format!("{:?}", message.metadata.response_code))
        .chain(records)
        .chain(message.metadata.authoritative.then(|| "authoritative".to_owned()))
        .collect();
    words.join(" ")
}

#[tokio::test]
async fn a_zone_answers_for_itself_and_says_for_how_long_there_is_nothing() {
    let answers = answers(&wanted(), &[]);
    assert_eq!(said(&answers, "alpha.peers.test").await, "NoError 100.90.0.1 authoritative");
    let absent = ask(&answers, "absent.peers.test", RecordType::A).await;
    assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
    let RData::SOA(soa) = &absent.authorities[0].data else { panic!("{absent}") };
    assert_eq!((absent.authorities[0].ttl, soa.minimum), (10, 10));
    let no_such_type = ask(&answers, "alpha.peers.test", RecordType::MX).await;
    assert_eq!(no_such_type.metadata.response_code, ResponseCode::NoError);
    assert!(no_such_type.answers.is_empty() && no_such_type.authorities.len() == 1);
}

#[tokio::test]
async fn names_for_others_are_followed_through_zones_name_servers_routers_and_back() {
    const TO_ZONE: &[(&str, &str)] = &[
        ("up.corp.test", "alpha.peers.test"),
        ("host.far.test", "192.0.2.9"),
        ("lost.far.test", "x.far.test"),
    ];
    const TO_FAR: &[(&str, &str)] = &[("app.db.test", "host.far.test"), ("own.db.test", "192.0.2.8")];
    let far = server(TO_ZONE).await;
    let mut wanted = wanted();
    wanted.forwards = vec![forward(far, &["far.test", "corp.test"])];
    wanted.routed[0].domain = name("db.test").unwrap();
    wanted.zones[0].records.extend([
        alias("far.zone.test", "host.far.test"),
        alias("near.zone.test", "me.peers.test"),
        alias("long.zone.test", "far.zone.test"),
        alias("app.zone.test", "app.db.test"),
        alias("broken.zone.test", "absent.zone.test"),
        alias("one.zone.test", "two.zone.test"),
        alias("two.zone.test", "one.zone.test"),
    ]);
    let answers = answers(&wanted, &[]);
    answers.route(Some(Arc::new(Fake { answers: TO_FAR, asked: Mutex::default(), failure: None })));
    for (name, expected) in [
        ("near.zone.test", "NoError me.peers.test. 100.90.0.7 authoritative"),
        ("far.zone.test", "NoError host.far.test. 192.0.2.9 authoritative"),
        ("long.zone.test", "NoError far.zone.test. host.far.test. 192.0.2.9 authoritative"),
        ("app.zone.test", "NoError app.db.test. host.far.test. 192.0.2.9 authoritative"),
        ("own.db.test", "NoError 192.0.2.8"),
        ("broken.zone.test", "NXDomain absent.zone.test. authoritative"),
        ("up.corp.test", "NoError alpha.peers.test. 100.90.0.1"),
        ("lost.far.test", "NoError x.far.test."),
        ("one.zone.test", "ServFail"),
    ] {
        assert_eq!(said(&answers, name).await, expected, "{name}");
    }
}

#[tokio::test]
async fn name_servers_speak_for_no_names_that_others_hold() {
    for (at, kind, peer, resource, forged, own) in [
        ("127.0.0.1:0", RecordType::A, "100.90.0.1", "192.0.2.8", "203.0.113.6", "192.0.2.9"),
        ("[::1]:0", RecordType::AAAA, "fd5c::1", "2001:db8::8", "2001:db8:bad::6", "2001:db8::9"),
    ] {
        let group = vec![
            record("up.far.test", "alpha.peers.test"),
            record("alpha.peers.test", forged),
            record("gone.far.test", "absent.peers.test"),
            record("absent.peers.test", forged),
            record("back.far.test", "alias.zone.test"),
            record("alias.zone.test", "own.far.test"),
            record("long.far.test", "own.far.test"),
            record("own.far.test", own),
            record("round.far.test", "about.far.test"),
            record("about.far.test", "round.far.test"),
        ];
        let host = vec![
            record("www.example.org", "app.corp.test"),
            record("app.corp.test", forged),
            record("cdn.example.org", "cdn.example.net"),
            record("cdn.example.net", own),
        ];
        let (group, host) = (liar(at, group).await, liar(at, host).await);
        let mut wanted = wanted();
        wanted.forwards = vec![forward(group, &["far.test"])];
        wanted.zones[0].records.retain(|record| record.data.ip_addr().is_some());
        wanted.zones[0].records.push(alias("alias.zone.test", "alpha.peers.test"));
        let answers = answers(&wanted, &[host]);
        let known: &[_] = if kind == RecordType::A {
            &[("app.corp.test", "192.0.2.8")]
        } else {
            &[("app.corp.test", "2001:db8::8")]
        };
        let fake = Arc::new(Fake { answers: known, asked: Mutex::default(), failure: None });
        answers.route(Some(fake.clone()));
        for (name, expected) in [
            ("up.far.test", format!("NoError alpha.peers.test. {peer}")),
            ("gone.far.test", "NXDomain absent.peers.test.".into()),
            ("back.far.test", format!("NoError alias.zone.test. alpha.peers.test. {peer}")),
            ("long.far.test", format!("NoError own.far.test. {own}")),
            ("own.far.test", format!("NoError {own}")),
            ("nothing.far.test", "NoError".into()),
            ("round.far.test", "NoError about.far.test. round.far.test.".into()),
            ("www.example.org", format!("NoError app.corp.test. {resource}")),
            ("cdn.example.org", format!("NoError cdn.example.net. {own}")),
        ] {
            assert_eq!(said_of(&answers, name, kind).await, expected, "{name}");
        }
        assert_eq!(*fake.asked.lock().unwrap(), ["r1 app.corp.test."]);
        assert_eq!(said_of(&answers, "up.far.test", RecordType::CNAME).await, "NoError alpha.peers.test.");
    }
}

#[tokio::test]
async fn a_chain_longer_than_one_answer_is_read_for_is_followed_to_its_end() {
    for (at, kind, address) in
        [("127.0.0.1:0", RecordType::A, "192.0.2.9"), ("[::1]:0", RecordType::AAAA, "2001:db8::9")]
    {
        let link = |n: usize| format!("n{n}.far.test");
        let mut says: Vec<Record> = (0..20).map(|n| record(&link(n), &link(n + 1))).collect();
        says.push(record(&link(20), address));
        let mut wanted = wanted();
        wanted.forwards = vec![forward(liar(at, says).await, &["far.test"])];
        let said = said_of(&answers(&wanted, &[]), "n0.far.test", kind).await;
        assert!(said.ends_with(&format!(" n19.far.test. n20.far.test. {address}")), "{said}");
        assert_eq!(said.split(' ').count(), 22, "{said}");
    }
}

#[tokio::test]
async fn what_a_name_for_another_is_made_of_stays_with_it() {
    let made = |owner: &str| {
        let target = name("new.far.test").unwrap();
        let data = RData::Unknown { code: RecordType::DNAME, rdata: NULL::with(target.to_bytes().unwrap()) };
        Record::from_rdata(name(owner).unwrap(), 33, data)
    };
    for (at, kind, address) in
        [("127.0.0.1:0", RecordType::A, "192.0.2.9"), ("[::1]:0", RecordType::AAAA, "2001:db8::9")]
    {
        let says = vec![
            made("old.far.test"),
            made("other.far.test"),
            made("test"),
            record("a.old.far.test", "a.new.far.test"),
            record("a.new.far.test", address),
        ];
        let mut wanted = wanted();
        wanted.forwards = vec![forward(liar(at, says).await, &["far.test"])];
        let message = ask(&answers(&wanted, &[]), "a.old.far.test", kind).await;
        let owners = message.answers.iter().map(|record| record.name.to_string());
        assert_eq!(owners.collect::<Vec<_>>(), ["old.far.test.", "a.old.far.test.", "a.new.far.test."]);
    }
}

#[tokio::test]
async fn a_name_of_several_resources_is_asked_of_the_next_where_one_fails() {
    const KNOWN: &[(&str, &str)] = &[("a.corp.test", "192.0.2.8")];
    let mut wanted = wanted();
    // The same wildcard of another resource.
    wanted.routed.push(RoutedName { resource: "r9".into(), ..wanted.routed[0].clone() });
    let answers = answers(&wanted, &[]);
    assert_eq!(said(&answers, "a.corp.test").await, "ServFail", "nobody asks routers yet");
    for (failure, expected, asked) in [
        (None, "NoError 192.0.2.8", 1),
        (Some(RoutedFailure::NoRouter), "ServFail", 2),
        (Some(RoutedFailure::NoAnswer), "ServFail", 2),
        (Some(RoutedFailure::Unresolved), "ServFail", 2),
        (Some(RoutedFailure::Refused), "Refused", 2),
    ] {
        let fake = Arc::new(Fake { answers: KNOWN, asked: Mutex::default(), failure });
        answers.route(Some(fake.clone()));
        assert_eq!(said(&answers, "a.corp.test").await, expected, "{failure:?}");
        let all = ["r1 a.corp.test.", "r9 a.corp.test."];
        assert_eq!(*fake.asked.lock().unwrap(), all[..asked]);
    }
    answers.route(None);
    assert_eq!(said(&answers, "a.corp.test").await, "ServFail");
    let failed = answers.counts.questions().find(|(by, result, _)| (*by, *result) == ("routed", "failed"));
    assert_eq!(failed, Some(("routed", "failed", 6)));
}

#[tokio::test]
async fn what_nobody_holds_is_asked_of_the_hosts_own_servers_unless_a_group_takes_all() {
    let host = server(&[("www.example.org", "192.0.2.1")]).await;
    let primary = server(&[("www.example.org", "192.0.2.2")]).await;
    let mut wanted = wanted();
    let by_host = answers(&wanted, &[host]);
    assert_eq!(said(&by_host, "www.example.org").await, "NoError 192.0.2.1");
    assert_eq!(said(&by_host, "absent.example.org").await, "NXDomain");
    wanted.forwards = vec![forward(primary, &[])];
    assert_eq!(said(&answers(&wanted, &[host]), "www.example.org").await, "NoError 192.0.2.2");
    assert_eq!(
        said(&answers(&self::wanted(), &[]), "www.example.org").await,
        "ServFail",
        "there is nobody to ask"
    );
}

#[tokio::test]
async fn a_question_goes_on_with_what_was_known_when_it_was_asked() {
    let slow = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut wanted = wanted();
    wanted.forwards = vec![forward(slow.local_addr().unwrap(), &["far.test"])];
    let answers = Arc::new(answers(&wanted, &[]));
    let asking = tokio::spawn({
        let answers = answers.clone();
        async move { said(&answers, "a.far.test").await }
    });
    let mut buffer = [0; 1500];
    let (length, client) = slow.recv_from(&mut buffer).await.unwrap();
    // Control says otherwise meanwhile.
    answers.forwarder.keep(&Default::default());
    answers.know(Known::default());
    let mut answer = Message::from_vec(&buffer[..length]).unwrap().into_response();
    answer.answers = records(&name("a.far.test").unwrap(), &[("a.far.test", "192.0.2.3")]);
    slow.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
    assert_eq!(asking.await.unwrap(), "NoError 192.0.2.3");
    assert_eq!(said(&answers, "a.far.test").await, "ServFail");
}

#[tokio::test]
async fn control_is_found_by_the_hosts_servers_below_a_zone_and_the_peers_domain() {
    for (at, kind, address) in
        [("127.0.0.1:0", RecordType::A, "192.0.2.99"), ("[::1]:0", RecordType::AAAA, "2001:db8::99")]
    {
        let names = ["control.zone.test", "control.peers.test", "control.corp.test"];
        let host = liar(at, names.map(|name| record(name, address)).into()).await;
        let answers = Answers::default();
        answers.forwarder.keep(&[host].into());
        let table = Table::new(&wanted(), &[], names.map(|own| name(own).unwrap()).into());
        answers.know(Known { table, upstreams: vec![host] });
        for name in names {
            assert_eq!(said_of(&answers, name, kind).await, format!("NoError {address}"), "{name}");
        }
        assert_eq!(said_of(&answers, "other.zone.test", kind).await, "NXDomain authoritative");
    }
}

#[tokio::test]
async fn what_is_no_address_of_a_resources_name_is_said_by_whoever_would_hold_the_name_without_it() {
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let text = |owner: &str, text: &str| {
            Record::from_rdata(name(owner).unwrap(), 33, RData::TXT(TXT::new(vec![text.into()])))
        };
        let group = liar(at, vec![text("db.corp.test", "group")]).await;
        let host = liar(at, vec![text("a.example.org", "host"), record("a.example.org", "192.0.2.6")]).await;
        let mut wanted = wanted();
        wanted.forwards = vec![forward(group, &["corp.test"])];
        wanted.routed.push(RoutedName {
            resource: "r3".into(),
            domain: name("example.org").unwrap(),
            below: true,
        });
        let answers = answers(&wanted, &[host]);
        let fake = Arc::new(Fake { answers: &[], asked: Mutex::default(), failure: None });
        answers.route(Some(fake.clone()));
        assert_eq!(said_of(&answers, "db.corp.test", RecordType::TXT).await, "NoError group");
        assert_eq!(said_of(&answers, "a.example.org", RecordType::TXT).await.split(' ').nth(1), Some("host"));
        assert_eq!(said_of(&answers, "db.zone.test", RecordType::TXT).await, "NoError authoritative");
        assert!(fake.asked.lock().unwrap().is_empty(), "no router is asked for that");
        use RecordType as T;
        for kind in [T::A, T::AAAA, T::HTTPS, T::SVCB, T::ANY] {
            assert_eq!(said_of(&answers, "a.example.org", kind).await, "NXDomain", "{kind}");
            assert_eq!(fake.asked.lock().unwrap().pop().as_deref(), Some("r3 a.example.org."), "{kind}");
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_know_a_resources_name_does_not_say_that_there_is_none() {
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let ignorant = server_at(at, &[("www.example.org", "a.corp.test")]).await;
        let mut wanted = wanted();
        wanted.forwards = vec![forward(ignorant, &["corp.test"])];
        let answers = answers(&wanted, &[ignorant]);
        for (name, expected) in [
            ("a.corp.test", "NoError"),
            ("corp.test", "NXDomain"),
            ("www.example.org", "NoError a.corp.test."),
            ("other.example.org", "NXDomain"),
        ] {
            assert_eq!(said_of(&answers, name, RecordType::MX).await, expected, "{name}");
        }
    }
}
