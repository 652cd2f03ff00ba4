//! The embedded WireGuard between two network namespaces, on real TUN devices. Needs root.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "support/end.rs"]
mod end;

use std::net::Ipv6Addr;

use sluicegate_gateway::overlay::PeerSpec;
use sluicegate_gateway::system;
use sluicegate_lab::{Lab, Namespace, Program};

use self::end::{End, PATIENCE, public};

fn ping(from: &Namespace, to: &str) -> bool {
    from.run(&Program::new("ping").args(["-c", "1", "-W", "2", to]), PATIENCE).unwrap().success()
}

#[test]
fn two_namespaces_reach_each_other_and_allowed_prefixes_move_live() {
    assert!(system::is_root(), "this test needs root, for network namespaces");
    let lab = Lab::new().unwrap();
    let (gateway, peer) = (lab.namespace("gateway").unwrap(), lab.namespace("peer").unwrap());
    lab.veth((&gateway, "eth0"), (&peer, "eth0")).unwrap();
    gateway.address("eth0", "192.0.2.1/24").unwrap();
    peer.address("eth0", "192.0.2.2/24").unwrap();
    gateway.ip(&["address", "add", "10.99.0.1/32", "dev", "lo"]).unwrap();
    let far: Ipv6Addr = "fd77::1".parse().unwrap();
    std::thread::scope(|scope| {
        let end_gateway = End::start(scope, &gateway, 1, ["100.90.0.1/16", "fd77::1/64"]);
        let end_peer = End::start(scope, &peer, 2, ["100.90.0.2/16", "fd77::2/64"]);
        // The gateway does not know where the peer is; the peer dials and probes.
        let allowed = |v: [&str; 2]| v.iter().map(|a| a.parse().unwrap()).collect();
        let spec_of_peer = PeerSpec {
            key: public(2),
            endpoint: None,
            allowed: allowed(["100.90.0.2/32", "fd77::2/128"]),
            probe: None,
            watched: false,
        };
        let mut spec_of_gateway = PeerSpec {
            key: public(1),
            endpoint: Some("192.0.2.1:51820".parse().unwrap()),
            allowed: allowed(["100.90.0.1/32", "fd77::1/128"]),
            probe: Some(far),
            watched: true,
        };
        end_gateway.configure(&spec_of_peer);
        end_peer.configure(&spec_of_gateway);

        let link = end_peer.link_when(|l| l.round_trip.is_some());
        assert!(link.handshake.is_some() && link.received > 0 && link.heard.is_some());
        let learned = end_gateway.link_when(|l| l.endpoint.is_some());
        assert_eq!(learned.endpoint.unwrap().ip().to_string(), "192.0.2.2");

        // The handshake is use; probes and their answers are none.
        end_peer.link_when(|l| l.brisk.is_none());
        assert!(ping(&peer, "fd77::1"));
        end_peer.link_when(|l| l.brisk.is_some());
        assert!(ping(&peer, "100.90.0.1"), "IPv4 through the overlay");
        assert!(ping(&peer, "fd77::1"), "IPv6 through the overlay");
        assert!(!ping(&peer, "10.99.0.1"), "a prefix nobody may carry");
        spec_of_gateway.allowed.insert("10.99.0.0/24".parse().unwrap());
        end_peer.configure(&spec_of_gateway);
        assert!(ping(&peer, "10.99.0.1"), "the prefix after it was given to the gateway");
        spec_of_gateway.allowed.remove(&"10.99.0.0/24".parse().unwrap());
        end_peer.configure(&spec_of_gateway);
        assert!(!ping(&peer, "10.99.0.1"), "the prefix after it was taken away");
    });
    // The device outlives who read it, with what is on it.
    assert!(gateway.ip(&["address", "show", "dev", "sluice0"]).unwrap().contains("100.90.0.1/16"));
}
