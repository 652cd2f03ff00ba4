//! A host's questions for names, put by real clients and answered with real name servers behind. Needs root, for namespaces.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "../support/dnsmasq.rs"]
mod dnsmasq;
mod forwards;
mod host;
mod strangers;
mod world;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use sluicegate_gateway::config::HostMode;

use world::{By, OWN, World, ask, config, line, said, until, want};

#[test]
fn names_of_peers_and_zones_are_answered_over_both_families_by_udp_and_tcp() {
    World::new().run(async |world| {
        let handle = world.start(&[], HostMode::Off);
        want(&handle, &config(&[]), 2).await;
        use RecordType as T;
        for server in OWN {
            for by in [By::Udp, By::Tcp] {
                for (name, kind, expected) in [
                    ("alpha.peers.test", T::A, "NoError 60 100.90.0.1"),
                    ("Extra.Peers.test", T::AAAA, "NoError 60 fd5c::1"),
                    ("me.peers.test", T::AAAA, "NoError 60 fd5c::7"),
                    ("alpha.peers.test", T::TXT, "NoError"),
                    ("beta.peers.test", T::A, "NXDomain"),
                    ("www.zone.test", T::A, "NoError 120 192.0.2.1"),
                    ("www.zone.test", T::AAAA, "NoError 120 2001:db8::1"),
                    ("peer.zone.test", T::A, "NoError 120 alpha.peers.test. 60 100.90.0.1"),
                    ("peer.zone.test", T::AAAA, "NoError 120 alpha.peers.test. 60 fd5c::1"),
                    ("absent.zone.test", T::AAAA, "NXDomain"),
                    ("1.0.90.100.in-addr.arpa", T::PTR, "NoError 60 alpha.peers.test."),
                    ("9.0.90.100.in-addr.arpa", T::PTR, "NXDomain"),
                ] {
                    let answer = ask(server, by, name, kind);
                    assert_eq!(line(&answer), expected, "{server} {by:?} {name} {kind}");
                    assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
                    assert_eq!(
                        answer.authorities.is_empty(),
                        !answer.answers.is_empty(),
                        "{name}: SOA or records"
                    );
                }
            }
        }
        let status = until(&handle, "questions are counted", |_| true).await;
        let counted = |by: &str, result: &str| {
            status.questions.iter().find(|asked| asked.by == by && asked.result == result).unwrap().count
        };
        assert_eq!((counted("peers", "answered"), counted("zone", "no_such_name")), (12, 4));
        assert_eq!((counted("reverse", "answered"), counted("peers", "nothing")), (4, 4));
    });
}

#[test]
fn a_resolver_of_another_make_is_content_with_the_answers() {
    World::new().run(async |world| {
        let handle = world.start(&[], HostMode::Off);
        want(&handle, &config(&[]), 2).await;
        for server in OWN {
            let address = server.parse().unwrap();
            let connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            let servers = vec![NameServerConfig::new(address, true, connections)];
            let config = ResolverConfig::from_name_servers(servers);
            let client = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            let client = client.build().unwrap();
            let mut found: Vec<String> =
                client.lookup_ip("peer.zone.test.").await.unwrap().iter().map(|a| a.to_string()).collect();
            found.sort();
            assert_eq!(found, ["100.90.0.1", "fd5c::1"], "{server}");
            let error = client.lookup_ip("absent.zone.test.").await.unwrap_err();
            assert!(error.to_string().contains("no records"), "{error}");
            let reverse =
                client.reverse_lookup("fd5c::1".parse::<std::net::IpAddr>().unwrap()).await.unwrap();
            assert_eq!(reverse.answers()[0].data.to_string(), "alpha.peers.test.");
        }
    });
}

#[test]
fn what_control_says_anew_holds_at_once_and_other_addresses_are_listened_at() {
    World::new().run(async |world| {
        let handle = world.start(&[], HostMode::Off);
        want(&handle, &config(&[]), 2).await;
        assert_eq!(said("beta.peers.test", RecordType::A), "NXDomain");
        let mut next = config(&[]);
        next.peers[0].dns_labels = vec!["beta".into()];
        world.host.ip(&["address", "add", "100.90.0.8/16", "dev", "sluice0"]).unwrap();
        world.host.ip(&["address", "add", "fd5c::8/64", "dev", "sluice0", "nodad"]).unwrap();
        (next.address_v4, next.address_v6) = ("100.90.0.8/16".into(), "fd5c::8/64".into());
        handle.want(sluicegate_gateway::resolver::Wanted::read(&next).unwrap().as_ref());
        let at = ["100.90.0.8:53", "[fd5c::8]:53"];
        until(&handle, "it has moved", |status| status.listening == at).await;
        for server in ["100.90.0.8", "fd5c::8"] {
            let answer = ask(server, By::Udp, "beta.peers.test", RecordType::A);
            assert_eq!(line(&answer), "NoError 60 100.90.0.1");
            assert_eq!(line(&ask(server, By::Tcp, "alpha.peers.test", RecordType::A)), "NXDomain");
        }
        assert!(std::net::TcpStream::connect((OWN[0], 53)).is_err(), "nobody listens there any more");
        handle.want(None);
        for _ in 0..100 {
            if handle.status().is_none() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(handle.status(), None);
        assert!(std::net::TcpStream::connect(("100.90.0.8", 53)).is_err());
    });
}

#[test]
fn a_port_that_somebody_has_is_said_and_taken_once_it_is_free() {
    World::new().run(async |world| {
        let taken = std::net::UdpSocket::bind((OWN[0], 53)).unwrap();
        let handle = world.start(&[], HostMode::Off);
        want(&handle, &config(&[]), 1).await;
        let degraded = handle.degraded();
        let said_of_port =
            |sentence: &&String| sentence.contains("100.90.0.7:53") && sentence.contains("[dns] listen");
        assert!(degraded.iter().find(said_of_port).is_some(), "{degraded:?}");
        let answer = ask(OWN[1], By::Udp, "alpha.peers.test", RecordType::A);
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        drop(taken);
        until(&handle, "it listens at both", |status| status.listening.len() == 2).await;
        assert!(handle.degraded().iter().find(said_of_port).is_none());
        assert_eq!(said("alpha.peers.test", RecordType::A), "NoError 60 100.90.0.1");
    });
}

#[test]
fn it_listens_where_it_is_told_and_not_at_other_machines_doors() {
    World::new().run(async |world| {
        world.host.ip(&["address", "add", "192.0.2.1/24", "dev", "sluice0"]).unwrap();
        let handle = world.start(&["127.0.0.153:53", "[::1]:53", "192.0.2.1:53"], HostMode::Off);
        want(&handle, &config(&[]), 2).await;
        let status = handle.status().unwrap();
        assert_eq!(status.listening, ["127.0.0.153:53", "[::1]:53"]);
        let degraded = handle.degraded();
        assert!(
            degraded.iter().any(|sentence| sentence.contains("192.0.2.1:53, which is neither")),
            "{degraded:?}"
        );
        for server in ["127.0.0.153", "::1"] {
            for by in [By::Udp, By::Tcp] {
                let answer = ask(server, by, "alpha.peers.test", RecordType::A);
                assert_eq!(line(&answer), "NoError 60 100.90.0.1");
            }
        }
    });
}
