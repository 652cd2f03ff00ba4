//! Name servers of nameserver groups, real ones.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::RecordType;
use sluicegate_gateway::config::HostMode;

use crate::dnsmasq::Dnsmasq;
use crate::world::{By, OWN, World, ask_message, config, line, question, said, until, want, with_edns};

/// What servers of these tests are authoritative for: what is not there is not asked for elsewhere.
const CORP: &str = "--local=/corp.test/";
const EXAMPLE: &str = "--local=/example.org/";

#[test]
fn names_of_a_group_are_asked_of_its_servers_and_names_for_others_lead_there_and_back() {
    World::new().run(async |world| {
        for server in ["127.0.0.2", "::1"] {
            let records = [
                CORP,
                "--host-record=db.corp.test,192.0.2.7,2001:db8::7,37",
                "--cname=alias.corp.test,db.corp.test,20",
                "--txt-record=db.corp.test,hello",
                "--mx-host=corp.test,db.corp.test,10",
            ];
            let _server = Dnsmasq::start(server, 5300, &records);
            let handle = world.start(&[], HostMode::Off);
            let at = format!("{server}#5300");
            want(&handle, &config(&[(&[&at], &["corp.test"])]), 2).await;
            use RecordType as T;
            for (name, kind, expected) in [
                ("db.corp.test", T::A, "NoError 37 192.0.2.7"),
                ("db.corp.test", T::AAAA, "NoError 37 2001:db8::7"),
                ("alias.corp.test", T::A, "NoError 20 db.corp.test. 37 192.0.2.7"),
                ("db.zone.test", T::A, "NoError 120 db.corp.test. 37 192.0.2.7"),
                ("db.zone.test", T::AAAA, "NoError 120 db.corp.test. 37 2001:db8::7"),
                ("absent.corp.test", T::A, "NXDomain"),
                ("db.corp.test", T::SRV, "NoError"),
                ("www.example.org", T::A, "ServFail"),
            ] {
                assert_eq!(said(name, kind), expected, "{server} {name} {kind}");
            }
            assert!(said("db.corp.test", T::TXT).contains("hello"));
            assert!(said("corp.test", T::MX).contains("10 db.corp.test."));
            let status = until(&handle, "its questions are counted", |_| true).await;
            let server = &status.forwards[0].servers[0];
            assert!(server.questions >= 8 && !server.silent, "{server:?}");
            assert!(server.failures.iter().all(|failure| failure.count == 0), "{server:?}");
        }
    });
}

#[test]
fn the_next_server_is_asked_where_one_is_silent_refuses_or_is_not_there() {
    World::new().run(async |world| {
        let record = "--host-record=db.corp.test,192.0.2.7,2001:db8::7,37";
        let _good = Dnsmasq::start("::1", 5300, &[CORP, record]);
        // Without a zone and a server to ask, dnsmasq refuses.
        let _refusing = Dnsmasq::start("127.0.0.3", 5300, &[]);
        let _silent = UdpSocket::bind("127.0.0.2:5300").unwrap();
        for (first, reason) in
            [("127.0.0.2", "timeout"), ("127.0.0.3", "refused"), ("198.51.100.1", "unreachable")]
        {
            let handle = world.start(&[], HostMode::Off);
            let servers: &[&str] = &[&format!("{first}#5300"), "::1#5300"];
            want(&handle, &config(&[(servers, &["corp.test"])]), 2).await;
            for (kind, expected) in
                [(RecordType::A, "NoError 37 192.0.2.7"), (RecordType::AAAA, "NoError 37 2001:db8::7")]
            {
                let begun = Instant::now();
                assert_eq!(said("db.corp.test", kind), expected, "{first}");
                let waited = begun.elapsed();
                assert!(waited < Duration::from_secs(4), "{first} {waited:?}");
                if kind == RecordType::AAAA {
                    assert!(
                        waited < Duration::from_millis(1400),
                        "{first} is not waited for again: {waited:?}"
                    );
                }
            }
            let status = handle.status().unwrap();
            let [asked, good] = &status.forwards[0].servers[..] else { panic!("{status:?}") };
            let failed = asked.failures.iter().find(|failure| failure.count > 0).unwrap();
            assert_eq!(failed.reason, reason);
            assert_eq!((asked.silent, good.silent), (reason != "refused", false), "{first}");
        }
    });
}

#[test]
fn when_no_server_answers_that_is_said_before_the_client_asks_again() {
    World::new().run(async |world| {
        let _silent =
            ["127.0.0.2", "127.0.0.3", "127.0.0.4"].map(|address| UdpSocket::bind((address, 5300)).unwrap());
        let handle = world.start(&[], HostMode::Off);
        let servers: &[&str] = &["127.0.0.2#5300", "127.0.0.3#5300", "127.0.0.4#5300"];
        want(&handle, &config(&[(servers, &["corp.test"])]), 2).await;
        let begun = Instant::now();
        assert_eq!(said("db.corp.test", RecordType::A), "ServFail");
        let waited = begun.elapsed();
        assert!((Duration::from_secs(4)..Duration::from_millis(5500)).contains(&waited), "{waited:?}");
    });
}

#[test]
fn an_answer_too_long_for_a_datagram_is_fetched_by_tcp_and_given_as_the_client_takes_it() {
    World::new().run(async |world| {
        let records =
            (1..=60).map(|n| format!("--host-record=many.corp.test,192.0.2.{n},2001:db8::{n:x},30"));
        let mut records: Vec<String> = records.collect();
        records.extend([CORP.to_owned(), "--edns-packet-max=512".to_owned()]);
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        let _server = Dnsmasq::start("::1", 5300, &records);
        let handle = world.start(&[], HostMode::Off);
        want(&handle, &config(&[(&["::1#5300"], &["corp.test"])]), 2).await;
        for kind in [RecordType::A, RecordType::AAAA] {
            let plain = question("many.corp.test", kind);
            for server in OWN {
                let short = ask_message(server, By::Udp, &plain);
                assert!(short.metadata.truncation && short.answers.is_empty() && short.edns.is_none());
                let longer = ask_message(server, By::Udp, &with_edns(plain.clone(), 4096));
                assert_eq!((longer.metadata.truncation, longer.answers.len()), (false, 60));
                assert!(longer.edns.is_some(), "who speaks EDNS is spoken to in it");
                let whole = ask_message(server, By::Tcp, &plain);
                assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 60));
            }
        }
    });
}

#[test]
fn what_nobody_holds_is_asked_of_the_hosts_own_servers_or_of_a_group_for_all_names() {
    World::new().run(async |world| {
        let _host = Dnsmasq::start(
            "127.0.0.2",
            53,
            &[
                EXAMPLE,
                CORP,
                "--host-record=www.example.org,192.0.2.1",
                "--host-record=control.corp.test,192.0.2.99",
            ],
        );
        let _group = Dnsmasq::start("127.0.0.3", 53, &[EXAMPLE, "--host-record=www.example.org,192.0.2.2"]);
        std::fs::write(world.resolv_conf(), "nameserver 127.0.0.2\n").unwrap();
        let handle = world.start(&[], HostMode::Off);
        want(&handle, &config(&[(&["127.0.0.3"], &["corp.test"])]), 2).await;
        let www = || said("www.example.org", RecordType::A).split(' ').next_back().unwrap().to_owned();
        assert_eq!(www(), "192.0.2.1");
        assert_eq!(said("absent.example.org", RecordType::A), "NXDomain");
        assert!(
            said("control.corp.test", RecordType::A).ends_with("192.0.2.99"),
            "control is found by the host's servers"
        );
        let status = handle.status().unwrap();
        assert_eq!(status.upstreams[0].address, "127.0.0.2:53");
        // The host's file is followed.
        std::fs::write(world.resolv_conf(), "nameserver 127.0.0.3\n").unwrap();
        until(&handle, "the host asks elsewhere", |s| {
            s.upstreams.iter().any(|u| u.address == "127.0.0.3:53")
        })
        .await;
        assert_eq!(www(), "192.0.2.2");
        std::fs::write(world.resolv_conf(), "nameserver 127.0.0.2\n").unwrap();
        handle.want(
            sluicegate_gateway::resolver::Wanted::read(&config(&[(&["127.0.0.3"], &[])])).unwrap().as_ref(),
        );
        until(&handle, "a group takes all", |s| s.forwards[0].domains.is_empty()).await;
        assert_eq!(www(), "192.0.2.2");
    });
}

#[test]
fn questions_in_flight_are_answered_though_control_says_otherwise_meanwhile() {
    World::new().run(async |world| {
        let slow = UdpSocket::bind("127.0.0.2:5300").unwrap();
        slow.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let handle = world.start(&[], HostMode::Off);
        want(&handle, &config(&[(&["127.0.0.2#5300"], &["corp.test"])]), 2).await;
        let asking = UdpSocket::bind((OWN[0], 0)).unwrap();
        asking.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let asked = question("db.corp.test", RecordType::A);
        asking.send_to(&asked.to_vec().unwrap(), (OWN[0], 53)).unwrap();
        let mut buffer = [0; 1500];
        let (length, from) = tokio::task::block_in_place(|| slow.recv_from(&mut buffer)).unwrap();
        let question = hickory_resolver::proto::op::Message::from_vec(&buffer[..length]).unwrap();
        // The group goes, the agent's addresses, too.
        let mut next = config(&[]);
        world.host.ip(&["address", "add", "100.90.0.8/16", "dev", "sluice0"]).unwrap();
        next.address_v4 = "100.90.0.8/16".into();
        handle.want(sluicegate_gateway::resolver::Wanted::read(&next).unwrap().as_ref());
        until(&handle, "it has moved", |s| {
            s.listening.contains(&"100.90.0.8:53".into()) && s.forwards.is_empty()
        })
        .await;
        let answer = question.into_response();
        slow.send_to(&answer.to_vec().unwrap(), from).unwrap();
        let length = tokio::task::block_in_place(|| asking.recv(&mut buffer)).expect("an answer");
        let answer = hickory_resolver::proto::op::Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!((line(&answer), answer.metadata.id), ("NoError".into(), asked.metadata.id));
    });
}
