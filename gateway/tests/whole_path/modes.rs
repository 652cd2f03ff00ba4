//! Cilium CVE-2026-33726 and CVE-2025-30162: in some ways of routing nothing was enforced. Here every way that a packet can take
//! is asked in every mode, in both families: what a rule admits gets there and back, and the same a port further does not.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use sluicegate_api::image::Image;
use sluicegate_gateway::datapath::XdpChoice;
use sluicegate_gateway::datapath::ebpf::EbpfDatapath;
use sluicegate_lab::Namespace;
use sluicegate_policy::model::{End, Rule, Service};

use crate::policy;
use crate::until;
use crate::world::{ADDRESSES, PORT, World, drops, udp};

#[test]
fn every_way_of_routing_is_judged_by_the_rules() {
    for choice in [XdpChoice::Native, XdpChoice::Generic, XdpChoice::Off] {
        for masquerade in [true, false] {
            let world = World::new();
            let mut datapath = world.open_with(choice, &image(masquerade));
            for [client, own, site, server] in ADDRESSES {
                let mode = format!("{choice:?}, masquerade {masquerade}, {client}");
                let [at_client, at_gateway, at_server] =
                    [(&world.client, client), (&world.gateway, own), (&world.server, server)]
                        .map(|(namespace, address)| Ends::new(namespace, address));
                let sees = if masquerade { site } else { client };
                // Overlay to site, to this host, and this host into the overlay.
                for (from, to, seen, way) in [
                    (&at_client, &at_server, sees, "to the site"),
                    (&at_client, &at_gateway, client, "to the gateway"),
                    (&at_gateway, &at_client, own, "from the gateway"),
                ] {
                    passes(from, to, seen, &format!("{mode}, {way}"));
                    refused(&mut datapath, "no_rule", &format!("{mode}, {way}"), || {
                        from.permitted.send_to(b"denied", to.denied.local_addr().unwrap()).unwrap();
                    });
                    to.is_silent(&format!("{mode}, {way}"));
                }
                // Turned back at the gateway's address on the site, and unasked from the site to the overlay.
                let port = |address: &str| SocketAddr::new(address.parse().unwrap(), PORT);
                for (from, to, reason) in [
                    (&at_client, site, "hairpin"),
                    (&at_server, client, "no_flow"),
                    (&at_server, own, "no_flow"),
                ] {
                    refused(&mut datapath, reason, &format!("{mode}, to {to}"), || {
                        from.denied.send_to(b"denied", port(to)).unwrap();
                    });
                }
                for end in [&at_client, &at_gateway, &at_server] {
                    end.is_silent(&mode);
                }
            }
        }
    }
}

/// The user may reach the server, the gateway itself, and is reached by it, each at one port.
fn image(masquerade: bool) -> Image {
    let network = ("server", vec!["10.128.0.0/24".to_owned(), "fd10::/64".to_owned()]);
    let rule = |number| policy::rule(number, Service::Udp(vec![PORT..=PORT]));
    let gateway = || End::Peer("gw".into());
    let rules = vec![
        rule(0),
        Rule { destinations: gateway(), ..rule(1) },
        Rule { sources: gateway(), destinations: End::Peer("user0".into()), ..rule(2) },
    ];
    policy::compile(&[policy::parsed(policy::USER)], &[network], masquerade, rules)
}

/// The sockets of one host, at a port that is open to whom a rule names and at one that is not.
struct Ends {
    permitted: UdpSocket,
    denied: UdpSocket,
}

impl Ends {
    fn new(namespace: &Namespace, address: &str) -> Self {
        Self { permitted: udp(namespace, address, PORT), denied: udp(namespace, address, PORT + 1) }
    }

    /// Nothing has come that was not looked for.
    fn is_silent(&self, when: &str) {
        for socket in [&self.permitted, &self.denied] {
            socket.set_nonblocking(true).unwrap();
            let came = socket.recv_from(&mut [0; 16]);
            socket.set_nonblocking(false).unwrap();
            assert!(came.is_err(), "{when}: {came:?} came");
        }
    }
}

/// A question gets there from `seen`, and its answer back.
fn passes(from: &Ends, to: &Ends, seen: &str, when: &str) {
    let mut buffer = [0; 16];
    from.permitted.send_to(b"question", to.permitted.local_addr().unwrap()).unwrap();
    let (got, source) = to.permitted.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{when}: {e}"));
    assert_eq!((&buffer[..got], source.ip()), (&b"question"[..], seen.parse::<IpAddr>().unwrap()), "{when}");
    to.permitted.send_to(b"answer", source).unwrap();
    let (got, source) = from.permitted.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{when}: {e}"));
    assert_eq!((&buffer[..got], source), (&b"answer"[..], to.permitted.local_addr().unwrap()), "{when}");
}

/// What `send` sends is dropped for this reason.
fn refused(datapath: &mut EbpfDatapath, reason: &str, when: &str, send: impl FnOnce()) {
    let before = drops(datapath, reason);
    send();
    until(|| drops(datapath, reason) > before);
    assert_eq!(drops(datapath, reason), before + 1, "{when}");
}
