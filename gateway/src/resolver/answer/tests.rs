//! Who is asked for what, and names that lead from one to another.

use std::sync::Mutex;

use futures_util::future::BoxFuture;
use hickory_resolver::proto::rr::rdata::{A, CNAME};
use tokio::net::UdpSocket;

use super::super::message::{self, Read};
use super::super::routed::RoutedAnswer;
use super::super::wanted::tests::wanted;
use super::super::wanted::{Forward, RoutedName, Wanted, ZoneRecord, name};
use super::*;

/// A name server that answers every A question below `answers` as they say, and anything else with no such name.
async fn server(answers: &'static [(&'static str, &'static str)]) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
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

/// Addresses, or else names.
fn records(asked: &Name, answers: &[(&str, &str)]) -> Vec<Record> {
    let of_name = answers.iter().filter(|(owner, _)| name(owner).unwrap() == *asked);
    let data = |text: &str| match text.parse() {
        Ok(address) => RData::A(A(address)),
        Err(_) => RData::CNAME(CNAME(name(text).unwrap())),
    };
    of_name.map(|(_, text)| Record::from_rdata(asked.clone(), 33, data(text))).collect()
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
    let message = ask(answers, of, RecordType::A).await;
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
