//! How names are looked up, at a real name server. Needs root, for network namespaces.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "support/dnsmasq.rs"]
mod dnsmasq;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use dnsmasq::Dnsmasq;
use sluicegate_gateway::names::{Answer, Answers, Dns, Files, Resolve as _};
use sluicegate_gateway::system;
use sluicegate_lab::Lab;

const V4: &str = "127.0.0.1";
const V6: &str = "::1";
/// What both servers of these tests are authoritative for: what is not there is not asked for elsewhere.
const ZONE: &str = "--local=/example.org/";

/// Runs `test` in a namespace with a directory of its own.
fn in_namespace(test: impl AsyncFnOnce(&Path) + Send) {
    assert!(system::is_root(), "this test needs root, for network namespaces");
    let lab = Lab::new().unwrap();
    let host = lab.namespace("host").unwrap();
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    host.enter(|| runtime().unwrap().block_on(test(lab.dir()))).unwrap();
}

/// Files that are not there, so that neither says anything.
fn no_files(dir: &Path) -> Files {
    Files { resolv_conf: dir.join("no-resolv.conf"), hosts: dir.join("no-hosts") }
}

/// One that asks `servers` at port 5300.
fn asking(servers: &[&str], dir: &Path) -> Dns {
    let servers = servers.iter().map(|server| SocketAddr::new(server.parse().unwrap(), 5300)).collect();
    Dns::new(servers, no_files(dir))
}

fn found(addresses: &[&str], ttl: u64) -> Answer {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Answer::Addresses { addresses, ttl: Duration::from_secs(ttl) }
}

fn is_nothing(answers: &Answers, exists: bool) -> bool {
    answers.iter().all(|answer| matches!(answer, Answer::Nothing { exists: is, .. } if *is == exists))
}

#[test]
fn both_families_are_looked_up_by_both_families_with_their_time_to_live() {
    in_namespace(async |dir| {
        for server in [V4, V6] {
            let _server = Dnsmasq::start(
                server,
                5300,
                &[
                    ZONE,
                    "--host-record=db.example.org,192.0.2.7,2001:db8::7,37",
                    "--host-record=db.example.org,192.0.2.8,2001:db8::8,37",
                    "--host-record=v4.example.org,192.0.2.9,50",
                    "--host-record=v6.example.org,2001:db8::9,60",
                ],
            );
            let dns = asking(&[server], dir);
            let expected =
                [found(&["192.0.2.7", "192.0.2.8"], 37), found(&["2001:db8::7", "2001:db8::8"], 37)];
            assert_eq!(dns.look("db.example.org").await, expected, "{server}");
            let [v4, v6] = dns.look("v4.example.org").await;
            assert_eq!(v4, found(&["192.0.2.9"], 50));
            assert!(matches!(v6, Answer::Nothing { exists: true, .. }), "{v6:?}");
            let [v4, v6] = dns.look("v6.example.org").await;
            assert_eq!(v6, found(&["2001:db8::9"], 60));
            assert!(matches!(v4, Answer::Nothing { exists: true, .. }), "{v4:?}");
            assert!(is_nothing(&dns.look("absent.example.org").await, false));
        }
    });
}

#[test]
fn a_name_for_another_is_followed_and_is_good_for_the_shortest_of_their_times() {
    in_namespace(async |dir| {
        let _server = Dnsmasq::start(
            V4,
            5300,
            &[
                ZONE,
                "--host-record=db.example.org,192.0.2.7,2001:db8::7,300",
                "--cname=alias.example.org,db.example.org,20",
                "--cname=far.example.org,alias.example.org,90",
            ],
        );
        let dns = asking(&[V4], dir);
        for name in ["alias.example.org", "far.example.org"] {
            let expected = [found(&["192.0.2.7"], 20), found(&["2001:db8::7"], 20)];
            assert_eq!(dns.look(name).await, expected, "{name}");
        }
    });
}

#[test]
fn an_answer_too_long_for_a_datagram_comes_whole_by_tcp() {
    in_namespace(async |dir| {
        let addresses: Vec<(String, String)> =
            (1..=60).map(|n| (format!("192.0.2.{n}"), format!("2001:db8::{n:x}"))).collect();
        let records = addresses.iter().map(|(v4, v6)| format!("--host-record=many.example.org,{v4},{v6},30"));
        let mut records: Vec<String> = records.collect();
        // The least that a server may be told (RFC 6891 6.2.5).
        records.extend([ZONE.to_owned(), "--edns-packet-max=512".to_owned()]);
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        let _server = Dnsmasq::start(V6, 5300, &records);
        let [v4, v6] = asking(&[V6], dir).look("many.example.org").await;
        for answer in [v4, v6] {
            let Answer::Addresses { addresses, .. } = answer else { panic!("{answer:?}") };
            assert_eq!(addresses.len(), 60);
        }
    });
}

#[test]
fn the_next_server_is_asked_where_one_does_not_answer_or_refuses() {
    in_namespace(async |dir| {
        let record = "--host-record=db.example.org,192.0.2.7,2001:db8::7,30";
        let expected = [found(&["192.0.2.7"], 30), found(&["2001:db8::7"], 30)];
        // Nobody is at the first.
        let server = Dnsmasq::start(V6, 5300, &[ZONE, record]);
        let dns = asking(&["127.0.0.2", V6], dir);
        assert_eq!(dns.look("db.example.org").await, expected);
        // Without a zone and a server to ask, dnsmasq refuses.
        let refusing = Dnsmasq::start("127.0.0.2", 5300, &[]);
        assert_eq!(asking(&["127.0.0.2", V6], dir).look("db.example.org").await, expected);
        drop(server);
        let answers = asking(&["127.0.0.2", V6], dir).look("db.example.org").await;
        for answer in &answers {
            let Answer::Failed(why) = answer else { panic!("{answer:?}") };
            for said in ["127.0.0.2:5300: it answers", "Refused", "[::1]:5300: "] {
                assert!(why.contains(said), "{said}: {why}");
            }
        }
        drop(refusing);
    });
}

#[test]
fn a_server_that_was_silent_is_asked_last_for_a_while_and_then_first_again() {
    in_namespace(async |dir| {
        let files = Files { resolv_conf: dir.join("resolv.conf"), hosts: dir.join("no-hosts") };
        for [first, second] in [["127.0.0.2", V6], [V6, "127.0.0.2"]] {
            let servers = format!("nameserver {first}\nnameserver {second}\noptions timeout:1\n");
            std::fs::write(&files.resolv_conf, servers).unwrap();
            let of = |pause| Dns::new(Vec::new(), files.clone()).with_pause(pause);
            let (short, long) = (Duration::from_millis(100), Duration::from_secs(3600));
            let [healing, waiting] = [short, long].map(of);
            let silent = UdpSocket::bind((first, 53)).unwrap();
            // That there is no such name is an answer.
            let _second = Dnsmasq::start(second, 53, &[ZONE]);
            for dns in [&healing, &waiting] {
                let answers = dns.look("db.example.org").await;
                assert!(is_nothing(&answers, false), "{first}: {answers:?}");
            }
            drop(silent);
            let record = "--host-record=db.example.org,192.0.2.7,2001:db8::7,30";
            let _first = Dnsmasq::start(first, 53, &[ZONE, record]);
            tokio::time::sleep(short).await;
            let expected = [found(&["192.0.2.7"], 30), found(&["2001:db8::7"], 30)];
            assert_eq!(healing.look("db.example.org").await, expected, "{first}");
            let answers = waiting.look("db.example.org").await;
            assert!(is_nothing(&answers, false), "{first}: {answers:?}");
        }
    });
}

#[test]
fn without_servers_of_its_own_it_asks_those_of_resolv_conf_and_follows_the_file() {
    in_namespace(async |dir| {
        let _old =
            Dnsmasq::start("127.0.0.1", 53, &[ZONE, "--host-record=db.example.org,192.0.2.7,2001:db8::7,30"]);
        let _new =
            Dnsmasq::start("::1", 53, &[ZONE, "--host-record=db.example.org,192.0.2.8,2001:db8::8,30"]);
        let files = Files { resolv_conf: dir.join("resolv.conf"), hosts: dir.join("hosts") };
        let dns = Dns::new(Vec::new(), files.clone());
        let [v4, v6] = dns.look("db.example.org").await;
        for answer in [v4, v6] {
            let Answer::Failed(why) = answer else { panic!("{answer:?}") };
            assert!(why.contains("resolv.conf cannot be read"), "{why}");
        }
        // A search domain is not for names that are whole.
        std::fs::write(&files.resolv_conf, "nameserver 127.0.0.1\nsearch example.org\noptions timeout:1\n")
            .unwrap();
        assert!(dns.renewed().await && !dns.renewed().await);
        assert_eq!(
            dns.look("db.example.org").await,
            [found(&["192.0.2.7"], 30), found(&["2001:db8::7"], 30)]
        );
        let unknown = dns.look("db").await;
        assert!(unknown.iter().all(|answer| !matches!(answer, Answer::Addresses { .. })), "{unknown:?}");
        std::fs::write(&files.resolv_conf, "nameserver ::1\n").unwrap();
        assert!(dns.renewed().await);
        assert_eq!(
            dns.look("db.example.org").await,
            [found(&["192.0.2.8"], 30), found(&["2001:db8::8"], 30)]
        );
    });
}

#[test]
fn what_the_hosts_file_says_is_not_asked_for() {
    in_namespace(async |dir| {
        let _server =
            Dnsmasq::start(V4, 5300, &[ZONE, "--host-record=db.example.org,192.0.2.7,2001:db8::7,30"]);
        let files = Files { resolv_conf: dir.join("resolv.conf"), hosts: dir.join("hosts") };
        std::fs::write(&files.hosts, "# a comment\n10.9.9.9 db.example.org db\nfd09::9 six.example.org\n")
            .unwrap();
        let dns = Dns::new(vec![SocketAddr::new(V4.parse::<IpAddr>().unwrap(), 5300)], files.clone());
        let [v4, v6] = dns.look("db.example.org").await;
        assert_eq!(v4, found(&["10.9.9.9"], 60));
        assert!(matches!(v6, Answer::Nothing { exists: true, .. }), "{v6:?}");
        let [_, v6] = dns.look("six.example.org").await;
        assert_eq!(v6, found(&["fd09::9"], 60));
        std::fs::write(&files.hosts, "").unwrap();
        assert!(dns.renewed().await);
        assert_eq!(
            dns.look("db.example.org").await,
            [found(&["192.0.2.7"], 30), found(&["2001:db8::7"], 30)]
        );
    });
}
