//! Cables, processes and traffic between namespaces. Needs root.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::net::SocketAddr;
use std::time::Duration;

use sluicegate_lab::traffic::read_reports;
use sluicegate_lab::{Forward, Lab, Namespace, Program, http, wait};

const PATIENCE: Duration = Duration::from_secs(10);

fn two_hosts(lab: &Lab) -> (Namespace, Namespace) {
    let [a, switch, b] = ["a", "switch", "b"].map(|name| lab.namespace(name).unwrap());
    switch.bridge("br0").unwrap();
    for (host, port, number) in [(&a, "to-a", 1), (&b, "to-b", 2)] {
        lab.veth((host, "eth0"), (&switch, port)).unwrap();
        switch.plug(port, "br0").unwrap();
        host.address("eth0", &format!("10.9.0.{number}/24")).unwrap();
        host.address("eth0", &format!("fd09::{number}/64")).unwrap();
        host.offload_off("eth0").unwrap();
    }
    (a, b)
}

fn traffic() -> Program {
    Program::new(env!("CARGO_BIN_EXE_lab-traffic"))
}

#[test]
fn hosts_on_a_switch_reach_each_other_by_both_families() {
    let lab = Lab::new().unwrap();
    let (a, b) = two_hosts(&lab);
    let web = b.spawn("web", &traffic().args(["web", "[::]:80"])).unwrap();
    for (target, own) in [("10.9.0.2", "10.9.0.1"), ("fd09::2", "fd09::1")] {
        let ping = a.run(&Program::new("ping").args(["-c", "1", "-W", "5", target]), PATIENCE).unwrap();
        assert!(ping.success(), "{ping:?}");
        let address = SocketAddr::new(target.parse().unwrap(), 80);
        wait::http(&a, address, "/", &web, PATIENCE).unwrap();
        let response = a.enter(|| http::get(address, "/", PATIENCE)).unwrap().unwrap();
        assert_eq!(response.body, format!("web seen {own}\n"));
    }
    let forward = Forward::start(&a, "10.9.0.2:80".parse().unwrap()).unwrap();
    assert_eq!(http::get(forward.address(), "/", PATIENCE).unwrap().body, "web seen 10.9.0.1\n");
}

#[test]
fn streams_report_when_their_input_ends() {
    let lab = Lab::new().unwrap();
    let (a, b) = two_hosts(&lab);
    let servers = [("tcp-echo", "[::]:7"), ("udp-echo", "[::]:7"), ("web", "[::]:80")];
    for (name, listen) in servers {
        let server = b.spawn(name, &traffic().args([name, listen])).unwrap();
        server.wait_for_line("listening", PATIENCE).unwrap();
    }
    for (name, to) in
        [("tcp-stream", "[fd09::2]:7"), ("udp-stream", "10.9.0.2:7"), ("download", "10.9.0.2:80")]
    {
        let client = a.spawn(name, &traffic().args([name, to])).unwrap();
        wait::until(PATIENCE, || {
            let (progress, _) = read_reports(&client.log());
            Ok::<_, ()>(progress.filter(|progress| progress.received > 10))
        })
        .unwrap()
        .unwrap_or_else(|| panic!("{name}: {}", client.log()));
        client.close_stdin();
        assert!(client.wait(PATIENCE).is_some_and(|status| status.success()), "{}", client.log());
        let (_, report) = read_reports(&client.log());
        let report = report.unwrap();
        assert_eq!((report.wrong, report.ended.as_str()), (0, "stopped"), "{name}: {report:?}");
    }
}

#[test]
fn a_program_that_takes_too_long_is_killed_with_all_it_started() {
    let lab = Lab::new().unwrap();
    let host = lab.namespace("host").unwrap();
    let program = Program::new("sh").args(["-c", "echo begun; sleep 1000 & sleep 1000"]);
    let finished = host.run(&program, Duration::from_millis(300)).unwrap();
    assert_eq!((finished.status, finished.stdout.as_str()), (None, "begun\n"));
    assert!(finished.output().unwrap_err().to_string().contains("took too long"));
    let failed = host.run(&Program::new("sh").args(["-c", "echo why >&2; exit 3"]), PATIENCE).unwrap();
    let message = failed.output().unwrap_err().to_string();
    assert!(message.contains("why") && message.contains('3'), "{message}");
}

#[test]
fn a_process_that_ends_early_is_reported_with_its_log() {
    let lab = Lab::new().unwrap();
    let host = lab.namespace("host").unwrap();
    let process = host.spawn("early", &Program::new("sh").args(["-c", "echo port taken; exit 1"])).unwrap();
    let error = process.wait_for_line("ready", PATIENCE).unwrap_err().to_string();
    assert!(error.contains("ended before") && error.contains("port taken"), "{error}");
    let address = "127.0.0.1:9".parse().unwrap();
    let error = wait::tcp(&host, address, &process, PATIENCE).unwrap_err().to_string();
    assert!(error.contains("port taken"), "{error}");
}

/// As when a process that was forked while it was open still holds a copy of it.
#[test]
fn a_port_is_bound_as_soon_as_whoever_holds_it_lets_go() {
    let lab = Lab::new().unwrap();
    let host = lab.namespace("host").unwrap();
    for address in ["127.0.0.1:5300", "[::1]:5300"] {
        let address: SocketAddr = address.parse().unwrap();
        let (held, listening) = (host.udp(address).unwrap(), host.listen(address).unwrap());
        let holder = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop((held, listening));
        });
        host.udp(address).unwrap();
        host.listen(address).unwrap();
        holder.join().unwrap();
    }
    let foreign: SocketAddr = "192.0.2.1:53".parse().unwrap();
    let refusal = host.udp(foreign).unwrap_err();
    assert!(refusal.to_string().contains("192.0.2.1:53 in namespace host"), "{refusal:#}");
}
