//! The host's own programs, by the C library and its resolv.conf.

use sluicegate_gateway::config::HostMode;

use crate::dnsmasq::Dnsmasq;
use crate::world::{World, config, exists, runtime, until, want};

const EXAMPLE: &str = "--local=/example.org/";
const BEFORE: &str = "# of a person\nnameserver 127.0.0.2\nsearch example.org\noptions timeout:2\n";

/// A name server of the host's own, which knows one name.
fn own_server() -> Dnsmasq {
    Dnsmasq::start("127.0.0.2", 53, &[EXAMPLE, "--host-record=www.example.org,192.0.2.1,2001:db8::1"])
}

#[test]
fn programs_of_the_host_find_peers_zones_and_all_they_found_before_until_the_agent_stops() {
    World::new().run(async |world| {
        let _own = own_server();
        std::fs::write(world.resolv_conf(), BEFORE).unwrap();
        let getent = |name: &str| tokio::task::block_in_place(|| world.getent("ahosts", name));
        assert!(getent("alpha.peers.test").is_empty());
        let mut handle = world.start(&[], HostMode::ResolvConf);
        want(&handle, &config(&[]), 2).await;
        until(&handle, "the host asks", |status| status.host_asks).await;
        assert_eq!(
            world.resolv_conf_lines(),
            [
                "search peers.test zone.test example.org",
                "nameserver 100.90.0.7",
                "nameserver fd5c::7",
                "options timeout:2"
            ]
        );
        for (name, addresses) in [
            ("alpha.peers.test", &["100.90.0.1", "fd5c::1"][..]),
            ("alpha", &["100.90.0.1", "fd5c::1"]),
            ("peer.zone.test", &["100.90.0.1", "fd5c::1"]),
            ("www.zone.test", &["192.0.2.1", "2001:db8::1"]),
            ("www.example.org", &["192.0.2.1", "2001:db8::1"]),
            ("absent.peers.test", &[]),
            ("absent.example.org", &[]),
        ] {
            assert_eq!(getent(name), addresses, "{name}");
        }
        let reverse = tokio::task::block_in_place(|| world.getent("hosts", "fd5c::1"));
        assert!(reverse[0].contains("alpha.peers.test"), "{reverse:?}");
        let reverse = tokio::task::block_in_place(|| world.getent("hosts", "100.90.0.1"));
        assert!(reverse[0].contains("alpha.peers.test"), "{reverse:?}");
        handle.stop().await.unwrap();
        assert_eq!(std::fs::read_to_string(world.resolv_conf()).unwrap(), BEFORE);
        assert!(getent("alpha.peers.test").is_empty());
        assert_eq!(getent("www"), ["192.0.2.1", "2001:db8::1"]);
    });
}

#[test]
fn an_agent_that_was_killed_leaves_no_host_without_names_once_it_is_started_again() {
    World::new().run(async |world| {
        let _own = own_server();
        std::fs::write(world.resolv_conf(), BEFORE).unwrap();
        tokio::task::block_in_place(|| {
            let killed = runtime();
            killed.block_on(async {
                let handle = world.start(&[], HostMode::ResolvConf);
                want(&handle, &config(&[]), 2).await;
                until(&handle, "the host asks", |status| status.host_asks).await;
                std::mem::forget(handle);
            });
            // Nothing of it runs any more, and it was told nothing.
            killed.shutdown_background();
        });
        assert!(world.resolv_conf_lines()[0].contains("peers.test"), "it had no time to put anything back");
        let getent = |name: &str| tokio::task::block_in_place(|| world.getent("ahosts", name));
        // Another run with other wishes, and before control says anything.
        let handle = world.start(&[], HostMode::Off);
        assert_eq!(std::fs::read_to_string(world.resolv_conf()).unwrap(), BEFORE);
        assert_eq!(getent("www.example.org"), ["192.0.2.1", "2001:db8::1"]);
        want(&handle, &config(&[]), 2).await;
        assert_eq!(handle.status().unwrap().upstreams[0].address, "127.0.0.2:53");
        assert_eq!(std::fs::read_to_string(world.resolv_conf()).unwrap(), BEFORE);
    });
}

#[test]
fn a_file_that_cannot_be_put_back_is_said_by_whoever_ends_the_resolver() {
    World::new().run(async |world| {
        std::fs::write(world.resolv_conf(), BEFORE).unwrap();
        let mut handle = world.start(&[], HostMode::ResolvConf);
        want(&handle, &config(&[]), 2).await;
        until(&handle, "the host asks", |status| status.host_asks).await;
        let obstacle = world.dir.join("resolv.conf.sluicegate-new");
        std::fs::create_dir(&obstacle).unwrap();
        let why = handle.stop().await.unwrap_err().to_string();
        assert!(why.contains("cannot be put back as it was"), "{why}");
        std::fs::remove_dir(&obstacle).unwrap();
        let _next = world.start(&[], HostMode::Off);
        assert_eq!(std::fs::read_to_string(world.resolv_conf()).unwrap(), BEFORE);
    });
}

#[test]
fn what_another_program_writes_meanwhile_stays_and_is_said() {
    World::new().run(async |world| {
        std::fs::write(world.resolv_conf(), BEFORE).unwrap();
        let mut handle = world.start(&[], HostMode::ResolvConf);
        want(&handle, &config(&[]), 2).await;
        until(&handle, "the host asks", |status| status.host_asks).await;
        let others = "nameserver 127.0.0.9\n";
        std::fs::write(world.resolv_conf(), others).unwrap();
        let status = until(&handle, "the agent sees it", |status| !status.host_asks).await;
        assert_eq!(status.listening.len(), 2, "it still answers who asks it");
        let degraded = handle.degraded();
        assert!(
            degraded.iter().any(|sentence| sentence.contains("another program has written")),
            "{degraded:?}"
        );
        until(&handle, "its servers are asked", |s| s.upstreams.iter().any(|u| u.address == "127.0.0.9:53"))
            .await;
        handle.stop().await.unwrap();
        assert_eq!(std::fs::read_to_string(world.resolv_conf()).unwrap(), others);
        assert!(!exists(&world.dir.join("resolv.conf.before-sluicegate")));
    });
}

#[test]
fn the_host_asks_as_before_once_control_says_nothing_of_names_any_more_or_nobody_can_answer() {
    World::new().run(async |world| {
        std::fs::write(world.resolv_conf(), BEFORE).unwrap();
        let text = || std::fs::read_to_string(world.resolv_conf()).unwrap();
        let handle = world.start(&[], HostMode::ResolvConf);
        want(&handle, &config(&[]), 2).await;
        until(&handle, "the host asks", |status| status.host_asks).await;
        handle.want(None);
        for _ in 0..250 {
            if handle.status().is_none() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!((text().as_str(), handle.status()), (BEFORE, None));
        // Somebody has both ports: a resolv.conf that names them would leave the host without names.
        let _taken = crate::world::OWN.map(|address| std::net::UdpSocket::bind((address, 53)).unwrap());
        want(&handle, &config(&[]), 0).await;
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        assert_eq!(text(), BEFORE);
        assert!(!handle.status().unwrap().host_asks && handle.degraded().len() >= 2);
    });
}

#[test]
fn a_host_whose_file_leads_to_systemd_resolved_is_asked_by_those_that_systemd_resolved_asks() {
    World::new().run(async |world| {
        let _own = own_server();
        let stub = "nameserver 127.0.0.53\n";
        std::fs::write(world.resolv_conf(), stub).unwrap();
        let mut handle = world.start(&[], HostMode::ResolvConf);
        want(&handle, &config(&[(&["127.0.0.3"], &["corp.test"])]), 2).await;
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        let degraded = handle.degraded();
        assert!(degraded.iter().any(|sentence| sentence.contains("names no server")), "{degraded:?}");
        assert!(!handle.status().unwrap().host_asks, "nobody could say what control does not");
        assert_eq!(std::fs::read_to_string(world.resolv_conf()).unwrap(), stub);
        let resolved = "nameserver 100.90.0.7\nnameserver fd5c::7\nnameserver 127.0.0.2\n";
        std::fs::write(world.dir.join("resolved.conf"), resolved).unwrap();
        let status = until(&handle, "the host asks", |status| status.host_asks).await;
        let upstreams: Vec<&str> = status.upstreams.iter().map(|server| server.address.as_str()).collect();
        assert_eq!(upstreams, ["127.0.0.2:53"]);
        let addresses = tokio::task::block_in_place(|| world.getent("ahosts", "www.example.org"));
        assert_eq!(addresses, ["192.0.2.1", "2001:db8::1"]);
        handle.stop().await.unwrap();
        assert_eq!(std::fs::read_to_string(world.resolv_conf()).unwrap(), stub);
    });
}

#[test]
fn without_the_operators_wish_nothing_of_the_host_is_written() {
    World::new().run(async |world| {
        std::fs::write(world.resolv_conf(), BEFORE).unwrap();
        let mut handle = world.start(&[], HostMode::Off);
        want(&handle, &config(&[]), 2).await;
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        assert!(!handle.status().unwrap().host_asks);
        handle.stop().await.unwrap();
        assert_eq!(std::fs::read_to_string(world.resolv_conf()).unwrap(), BEFORE);
        assert_eq!(std::fs::read_dir(&world.dir).unwrap().count(), 2, "and nothing is beside it");
    });
}

#[test]
fn systemd_resolved_that_is_not_there_is_said_and_the_agent_answers_all_the_same() {
    World::new().run(async |world| {
        std::fs::write(world.resolv_conf(), BEFORE).unwrap();
        let handle = world.start(&[], HostMode::SystemdResolved);
        want(&handle, &config(&[]), 2).await;
        let status = until(&handle, "it answers", |status| status.host == "systemd-resolved").await;
        assert!(!status.host_asks);
        let degraded = handle.degraded();
        assert!(
            degraded.iter().any(|sentence| sentence.contains("systemd-resolved does not ask")),
            "{degraded:?}"
        );
        assert_eq!(
            crate::world::said("alpha.peers.test", hickory_resolver::proto::rr::RecordType::A),
            "NoError 60 100.90.0.1"
        );
    });
}

#[test]
fn systemd_resolved_asks_for_controls_domains_alone_unless_a_group_takes_all_names() {
    use std::os::unix::fs::PermissionsExt as _;

    World::new().run(async |world| {
        std::fs::write(world.resolv_conf(), BEFORE).unwrap();
        // In its place a program that writes down how it was called.
        let (path, log) = (world.dir.join("resolvectl"), world.dir.join("log"));
        std::fs::write(&path, format!("#!/bin/sh\necho \"$@\" >> {}\n", log.display())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let called = || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let _ = std::fs::remove_file(&log);
            text
        };
        let mut handle = world.start(&[], HostMode::SystemdResolved);
        want(&handle, &config(&[(&["127.0.0.2"], &["corp.test"])]), 2).await;
        until(&handle, "the host asks", |status| status.host_asks).await;
        let reverse = "~0.0.0.0.0.0.0.0.0.0.0.0.c.5.d.f.ip6.arpa ~90.100.in-addr.arpa";
        let lines = [
            "dns sluice0 100.90.0.7 fd5c::7".to_owned(),
            format!("domain sluice0 peers.test zone.test {reverse} ~corp.test"),
            "default-route sluice0 no".to_owned(),
            "dnsovertls sluice0 no".to_owned(),
            "dnssec sluice0 no\n".to_owned(),
        ];
        let mut said: Vec<String> = called().split(' ').map(str::to_owned).collect();
        let mut expected: Vec<String> = lines.join("\n").split(' ').map(str::to_owned).collect();
        // Domains have no order.
        said.sort();
        expected.sort();
        assert_eq!(said, expected);
        handle.want(
            sluicegate_gateway::resolver::Wanted::read(&config(&[(&["127.0.0.2"], &[])])).unwrap().as_ref(),
        );
        until(&handle, "a group takes all", |status| status.forwards[0].domains.is_empty()).await;
        handle.stop().await.unwrap();
        let last = called();
        let end =
            " ~.\ndefault-route sluice0 yes\ndnsovertls sluice0 no\ndnssec sluice0 no\nrevert sluice0\n";
        assert!(last.ends_with(end), "{last}");
        // A run in another mode takes back what one that was killed has told.
        std::fs::write(world.dir.join("state").join("systemd-resolved"), "sluice0\n").unwrap();
        let _next = world.start(&[], HostMode::Off);
        assert_eq!(called(), "revert sluice0\n");
        assert_eq!(std::fs::read_to_string(world.resolv_conf()).unwrap(), BEFORE);
    });
}
