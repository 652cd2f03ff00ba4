//! An agent that answers its host's questions for names, from what control says to what a client hears.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{Forward, NameServer, NetworkConfig, RemotePeer, Resolver};
use sluicegate_gateway::config::{HostMode, Settings};
use sluicegate_gateway::datapath::Choice;

use crate::dnsmasq::Dnsmasq;
use crate::{World, overlay, with_agent};

/// The agent's addresses in the overlay.
const OWN: [&str; 2] = ["100.64.0.1", "fd64::1"];
const BEFORE: &str = "nameserver 127.0.0.2\n";

fn resolver(serial: u64, label: &str) -> NetworkConfig {
    let forward = Forward {
        id: "g1".into(),
        name: "corp".into(),
        servers: vec![NameServer { address: "::1".into(), port: 5300 }],
        domains: vec!["corp.test".into()],
        search: false,
    };
    let peer = RemotePeer {
        id: "p".into(),
        name: "p".into(),
        wireguard_public_key: vec![7; 32],
        address_v4: "100.64.0.9".into(),
        address_v6: "fd64::9".into(),
        dns_labels: vec![label.into()],
        ..RemotePeer::default()
    };
    let resolver = Resolver {
        domain: "peers.test".into(),
        dns_labels: vec!["gw".into()],
        forwards: vec![forward],
        ..Resolver::default()
    };
    NetworkConfig { peers: vec![peer], resolver: Some(resolver), ..overlay(serial) }
}

/// What the agent answers at `server`: addresses, or nothing where there is no such name; `None` where nobody answers.
fn asked(server: &str, name: &str, kind: RecordType) -> Option<Vec<String>> {
    let server = SocketAddr::new(server.parse().unwrap(), 53);
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.connect(server).unwrap();
    let mut question = Message::query();
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    question.add_query(Query::query(name, kind));
    let mut buffer = [0; 1500];
    let received = tokio::task::block_in_place(|| {
        socket.send(&question.to_vec().unwrap()).and_then(|_| socket.recv(&mut buffer))
    });
    let answer = Message::from_vec(&buffer[..received.ok()?]).unwrap();
    let code = answer.metadata.response_code;
    assert!(matches!(code, ResponseCode::NoError | ResponseCode::NXDomain), "{answer}");
    Some(answer.answers.iter().map(|record| record.data.to_string()).collect())
}

async fn answers_its_host(world: &World) {
    let path = world.settings.dns.resolv_conf.clone();
    let text = || std::fs::read_to_string(&path).unwrap();
    let _corp = Dnsmasq::start("::1", 5300, &["--local=/corp.test/", "--host-record=db.corp.test,192.0.2.7"]);
    let running = world.run();
    let status =
        world.status("the agent comes up", |s| s.control.connected && s.policy.revision == Some(1)).await;
    assert_eq!((status.dns, text().as_str()), (None, BEFORE), "control says nothing of names");

    world.control.tell(Update::Network(resolver(2, "alpha")));
    let asks = |s: &sluicegate_gateway::status::Status| {
        s.dns.as_ref().is_some_and(|dns| dns.host_asks && dns.listening.len() == 2)
    };
    world.status("the host asks it", asks).await;
    assert!(text().contains("nameserver 100.64.0.1\nnameserver fd64::1\n"), "{}", text());
    for server in OWN {
        assert_eq!(asked(server, "alpha.peers.test", RecordType::A).unwrap(), ["100.64.0.9"]);
        assert_eq!(asked(server, "gw.peers.test", RecordType::AAAA).unwrap(), ["fd64::1"]);
        assert_eq!(asked(server, "db.corp.test", RecordType::A).unwrap(), ["192.0.2.7"]);
    }
    let page = world.metrics().await;
    for line in [
        "sluicegate_gateway_dns_listening 2",
        "sluicegate_gateway_dns_host_asks 1",
        "sluicegate_gateway_dns_questions_total{by=\"peers\",result=\"answered\"} 4",
        "sluicegate_gateway_dns_server_questions_total{server=\"[::1]:5300\"} 2",
    ] {
        assert!(page.lines().any(|there| there == line), "{line}\n{page}");
    }

    // What control said last holds over a restart, while control is away.
    world.control.go_away();
    running.stop().await;
    assert_eq!(text(), BEFORE);
    assert_eq!(asked(OWN[0], "alpha.peers.test", RecordType::A), None);
    let running = world.run();
    world.status("the host asks it again", asks).await;
    assert_eq!(asked(OWN[1], "alpha.peers.test", RecordType::AAAA).unwrap(), ["fd64::9"]);

    // It says nothing again of what it said before.
    world.control.fall_silent();
    world.control.come_back();
    world.control.tell(Update::Network(resolver(3, "beta")));
    let named = |s: &sluicegate_gateway::status::Status| s.control.connected && asks(s);
    world.status("control is back", named).await;
    for _ in 0..100 {
        if !asked(OWN[0], "beta.peers.test", RecordType::A).unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(asked(OWN[0], "beta.peers.test", RecordType::A).unwrap(), ["100.64.0.9"]);
    assert!(asked(OWN[0], "alpha.peers.test", RecordType::A).unwrap().is_empty());

    // The device goes, and its addresses with it: the host asks as before until it is there again.
    let deleted = std::process::Command::new("ip").args(["link", "del", "sluice0"]).status().unwrap();
    assert!(deleted.success());
    let begun = std::time::Instant::now();
    while text() != BEFORE {
        assert!(begun.elapsed() < crate::PATIENCE, "{}", text());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    while !text().contains("nameserver fd64::1") {
        assert!(begun.elapsed() < crate::PATIENCE, "{}", text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.status("the host asks it again", asks).await;
    assert_eq!(asked(OWN[1], "beta.peers.test", RecordType::A).unwrap(), ["100.64.0.9"]);

    // Control knows the agent no more: the host is on its own again.
    world.control.expel();
    world.status("it answers nobody", |s| s.dns.is_none() && !s.control.connected).await;
    assert_eq!(text(), BEFORE);
    world.control.fall_silent();
    world.control.come_back();
    world.status("it answers as before", named).await;
    assert_eq!(asked(OWN[0], "beta.peers.test", RecordType::A).unwrap(), ["100.64.0.9"]);
    world.control.tell(Update::Network(overlay(4)));
    world.status("control says nothing of names any more", |s| s.dns.is_none()).await;
    assert_eq!(text(), BEFORE);
    running.stop().await;
}

fn by_resolv_conf(settings: &mut Settings) {
    settings.dns.host = HostMode::ResolvConf;
    std::fs::write(&settings.dns.resolv_conf, BEFORE).unwrap();
}

#[test]
fn an_agent_answers_its_hosts_questions_for_names_as_control_says() {
    with_agent(Choice::Ebpf, by_resolv_conf, answers_its_host);
}

#[test]
fn an_agent_answers_its_hosts_questions_for_names_in_user_space_too() {
    with_agent(Choice::Userspace, by_resolv_conf, answers_its_host);
}

/// The program itself with these arguments, as a person starts it.
fn program(world: &World, rest: &[&str]) -> std::process::Command {
    let (places, dns) = (&world.settings.places, &world.settings.dns);
    let config = places.state_dir.with_file_name("gateway.toml");
    std::fs::write(&config, format!("[dns]\nresolv_conf = {:?}\n", dns.resolv_conf)).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sluicegate-gateway"));
    command.args(rest);
    for (flag, value) in [
        ("--config", &config),
        ("--state-dir", &places.state_dir),
        ("--socket", &places.socket),
        ("--bpf-dir", &places.bpf_dir),
        ("--device", &places.device.clone().into()),
    ] {
        command.arg(flag).arg(value);
    }
    command
}

async fn puts_the_hosts_file_back(world: &World) {
    let path = world.settings.dns.resolv_conf.clone();
    let text = || std::fs::read_to_string(&path).unwrap();
    let until = async |what: &str, wanted: &dyn Fn(&str) -> bool| {
        let begun = std::time::Instant::now();
        while !wanted(&text()) {
            assert!(begun.elapsed() < crate::PATIENCE, "{what}: {}", text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let asks = |text: &str| text.contains("nameserver 100.64.0.1\nnameserver fd64::1\n");
    let run =
        || program(world, &["run", "--datapath", "userspace", "--dns-host", "resolv.conf"]).spawn().unwrap();
    world.control.tell(Update::Network(resolver(2, "alpha")));

    let mut killed = run();
    until("the host asks it", &asks).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(asks(&text()), "it had no time to put anything back");
    let detached = tokio::task::block_in_place(|| program(world, &["detach"]).status().unwrap());
    assert!(detached.success());
    assert_eq!(text(), BEFORE);

    let mut killed = run();
    until("the host asks it though somebody will change that", &asks).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    std::fs::write(&path, text() + "options debug\n").unwrap();
    let detached = tokio::task::block_in_place(|| program(world, &["detach"]).output().unwrap());
    let said = String::from_utf8_lossy(&detached.stdout).into_owned();
    assert!(detached.status.success() && said.contains("resolv.conf.changed-sluicegate"), "{said}");
    assert_eq!(text(), BEFORE);

    let mut killed = run();
    until("the host asks it though what was there gets lost", &asks).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    for dir in [path.parent().unwrap(), &world.settings.places.state_dir] {
        std::fs::remove_file(dir.join("resolv.conf.before-sluicegate")).unwrap();
    }
    let detached = tokio::task::block_in_place(|| program(world, &["detach"]).output().unwrap());
    let said = String::from_utf8_lossy(&detached.stderr).into_owned();
    assert!(!detached.status.success() && said.contains("what was there before is not in"), "{said}");
    let device = std::path::Path::new("/proc/sys/net/ipv4/conf").join(&world.settings.places.device);
    assert!(!device.exists(), "all else is taken off");
    std::fs::write(&path, BEFORE).unwrap();

    let mut killed = run();
    until("the host asks it again", &asks).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    let mut next = program(world, &["run", "--datapath", "userspace"]).spawn().unwrap();
    until("the next run puts it back, though it is told to leave the host alone", &|text| text == BEFORE)
        .await;
    next.kill().unwrap();
    next.wait().unwrap();

    let mut stopped = run();
    until("the host asks it once more", &asks).await;
    // SAFETY: plain system call; the process is this test's own and was not waited for.
    assert_eq!(unsafe { libc::kill(stopped.id() as i32, libc::SIGTERM) }, 0);
    let ended = tokio::task::block_in_place(|| stopped.wait().unwrap());
    assert!(ended.success(), "{ended}");
    assert_eq!(text(), BEFORE);
}

#[test]
fn the_hosts_file_is_put_back_by_a_stop_by_detach_and_by_the_next_run_after_a_kill() {
    with_agent(Choice::Userspace, by_resolv_conf, puts_the_hosts_file_back);
}
