//! The embedded WireGuard between two network namespaces, on real TUN devices. Needs root.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sluicegate_gateway::netlink::Netlink;
use sluicegate_gateway::overlay::{
    HostSide, Link, Overlay, PeerSpec, PublicKey, UserspaceOverlay, UserspaceSettings,
};
use sluicegate_gateway::system;
use sluicegate_gateway::tun::Tun;
use sluicegate_lab::{Lab, Namespace, Program};

const PATIENCE: Duration = Duration::from_secs(20);

/// One end: a thread in its namespace with a runtime of its own.
struct End {
    commands: tokio::sync::mpsc::UnboundedSender<Command>,
}

enum Command {
    Configure(Vec<PeerSpec>),
    Links(mpsc::Sender<Vec<Link>>),
    Stop,
}

impl End {
    fn start<'scope>(
        scope: &'scope std::thread::Scope<'scope, '_>,
        namespace: &'scope Namespace,
        key: u8,
        addresses: [&str; 2],
    ) -> Self {
        let addresses: BTreeSet<ipnet::IpNet> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let (commands, mut inbox) = tokio::sync::mpsc::unbounded_channel();
        let (ready, is_ready) = mpsc::channel();
        let work = async move {
            let tun = Tun::open("sluice0").unwrap();
            let netlink = Netlink::open().unwrap();
            netlink.bring_up(tun.index(), 1420).await.unwrap();
            netlink.set_addresses(tun.index(), &addresses).await.unwrap();
            netlink.set_routes(tun.index(), &["10.99.0.0/24".parse().unwrap()].into()).await.unwrap();
            let settings = UserspaceSettings {
                key: [key; 32].into(),
                port: 51_820,
                mtu: 1420,
                probe_interval: Duration::from_millis(100),
            };
            let mut overlay = UserspaceOverlay::start(settings, HostSide::Tun(tun)).await.unwrap();
            let own = addresses.iter().find_map(|a| match a {
                ipnet::IpNet::V6(v6) => Some(v6.addr()),
                ipnet::IpNet::V4(_) => None,
            });
            overlay.set_own_address(own.unwrap());
            ready.send(()).unwrap();
            while let Some(command) = inbox.recv().await {
                match command {
                    Command::Configure(peers) => overlay.configure(peers).await.unwrap(),
                    Command::Links(answer) => answer.send(overlay.links().await).unwrap(),
                    Command::Stop => break,
                }
            }
            overlay.stop().await;
        };
        scope.spawn(move || {
            let inside =
                || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
            namespace.enter(inside).unwrap();
        });
        is_ready.recv_timeout(PATIENCE).unwrap();
        Self { commands }
    }

    fn configure(&self, peer: &PeerSpec) {
        assert!(self.commands.send(Command::Configure(vec![peer.clone()])).is_ok());
    }

    fn link_when(&self, holds: impl Fn(&Link) -> bool) -> Link {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let (answer, answered) = mpsc::channel();
            assert!(self.commands.send(Command::Links(answer)).is_ok());
            let links = answered.recv_timeout(PATIENCE).unwrap();
            if let Some(link) = links.into_iter().find(&holds) {
                return link;
            }
            assert!(Instant::now() < give_up, "the link never came to be as it should");
            std::thread::yield_now();
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
    }
}

fn public(key: u8) -> PublicKey {
    let secret = gotatun::x25519::StaticSecret::from([key; 32]);
    PublicKey(gotatun::x25519::PublicKey::from(&secret).to_bytes())
}

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
        };
        let mut spec_of_gateway = PeerSpec {
            key: public(1),
            endpoint: Some("192.0.2.1:51820".parse().unwrap()),
            allowed: allowed(["100.90.0.1/32", "fd77::1/128"]),
            probe: Some(far),
        };
        end_gateway.configure(&spec_of_peer);
        end_peer.configure(&spec_of_gateway);

        let link = end_peer.link_when(|l| l.round_trip.is_some());
        assert!(link.handshake.is_some() && link.received > 0 && link.heard.is_some());
        let learned = end_gateway.link_when(|l| l.endpoint.is_some());
        assert_eq!(learned.endpoint.unwrap().ip().to_string(), "192.0.2.2");

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
