//! The policies that contestants enforce: the same account, as our image and as NetBird's nftables rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::Result;
use ipnet::IpNet;
use sluicegate_api::image::Image;
use sluicegate_policy::compile::Compiler;
use sluicegate_policy::model::{
    Action, End, Group, Network, Peer, Policy, Resource, Router, Rule, Service, State,
};

/// Peers that send.
pub(crate) const PEERS: u32 = 256;
/// First overlay address of a sending peer, host order: 100.64.1.0.
pub(crate) const FIRST_PEER: u32 = 0x6440_0100;
/// Upper 12 bytes of overlay IPv6 addresses; the lower four are the IPv4 address.
pub(crate) const OVERLAY6: [u8; 12] = [0xfd, 0x64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// First resource host, host order: 10.128.0.1; one host per resource.
pub(crate) const FIRST_RESOURCE: u32 = 0x0a80_0001;
/// Upper 12 bytes of resource IPv6 addresses.
pub(crate) const RESOURCE6: [u8; 12] = [0xfd, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// The port every rule admits.
pub(crate) const PORT: u16 = 4433;
/// A port no rule admits.
pub(crate) const DENIED_PORT: u16 = 4432;
/// Resources there are at most: further policies admit all peers to further ports of the same, [`PORT`] + 1 and so on. A gateway
/// routes no more than 65,536 prefixes, and each resource has two.
const RESOURCES_MAX: u32 = 10_000;
/// Resources in the small account.
pub(crate) const FEW: u32 = 10;
/// Resources in the large account.
pub(crate) const MANY: u32 = 1000;
/// The gateway's peer id.
pub(crate) const GATEWAY: &str = "gw";

/// A resource's addresses.
pub(crate) fn resource(number: u32) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::from(FIRST_RESOURCE + number), wide(RESOURCE6, FIRST_RESOURCE + number))
}

/// A sending peer's addresses.
pub(crate) fn peer(number: u32) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::from(FIRST_PEER + number), wide(OVERLAY6, FIRST_PEER + number))
}

fn wide(upper: [u8; 12], lower: u32) -> Ipv6Addr {
    let mut bytes = [0; 16];
    bytes[..12].copy_from_slice(&upper);
    bytes[12..].copy_from_slice(&lower.to_be_bytes());
    bytes.into()
}

/// `policies` policies that admit all peers to a port of a host resource each, all behind one masquerading gateway.
pub(crate) fn state(policies: u32) -> Result<State> {
    let gateway = (
        "gw".to_owned(),
        Peer {
            name: GATEWAY.into(),
            v4: Ipv4Addr::new(100, 64, 0, 1),
            v6: "fd64::6440:1".parse()?,
            allowed: true,
        },
    );
    let peers: BTreeMap<String, Peer> = (0..PEERS)
        .map(|number| {
            let (v4, v6) = peer(number);
            (format!("peer{number:05}"), Peer { name: format!("peer{number}"), v4, v6, allowed: true })
        })
        .chain([gateway])
        .collect();
    let users: BTreeSet<String> = peers.keys().filter(|id| *id != GATEWAY).cloned().collect();
    let groups = BTreeMap::from([(
        "users".to_owned(),
        Group { name: "users".into(), peers: users.into(), ..Group::default() },
    )]);
    let resources = policies.min(RESOURCES_MAX);
    let hosts = (0..resources)
        .map(|number| {
            let (v4, v6) = resource(number);
            let prefixes = vec![IpNet::from(std::net::IpAddr::V4(v4)), IpNet::from(std::net::IpAddr::V6(v6))];
            (
                format!("res{number:06}"),
                Resource {
                    name: format!("host{number}"),
                    prefixes,
                    enabled: true,
                    domain: None,
                    distribution: None,
                },
            )
        })
        .collect();
    let router =
        Router { peers: BTreeSet::from([GATEWAY.to_owned()]), metric: 100, masquerade: true, enabled: true };
    let network = Network {
        name: "site".into(),
        resources: hosts,
        routers: BTreeMap::from([("router".to_owned(), router)]),
    };
    let policies = (0..policies)
        .map(|number| {
            let port = PORT + (number / RESOURCES_MAX) as u16;
            let rule = Rule {
                id: format!("rule{number:06}"),
                name: "users".into(),
                slot: number,
                enabled: true,
                action: Action::Accept,
                bidirectional: false,
                service: Service::Udp(vec![port..=port]),
                sources: End::Groups(BTreeSet::from(["users".to_owned()])),
                destinations: End::Resource(format!("res{:06}", number % RESOURCES_MAX)),
            };
            let policy = Policy {
                name: format!("policy{number}"),
                enabled: true,
                posture_failed: Default::default(),
                rules: vec![rule].into(),
            };
            (format!("policy{number:06}"), policy)
        })
        .collect();
    Ok(State {
        overlay_v4: "100.64.0.0/16".parse()?,
        overlay_v6: "fd64::/64".parse()?,
        peers: peers.into(),
        groups: groups.into(),
        networks: [("net".to_owned(), network)].into(),
        policies,
    })
}

/// The gateway's image for that account.
pub(crate) fn image(policies: u32) -> Result<Image> {
    Ok(Compiler::new(Arc::new(state(policies)?))?.compile(GATEWAY)?)
}

/// The ruleset NetBird writes for that account on a routing peer (facts: its nftables backend): for every masqueraded
/// route two rules in mangle prerouting, for every route ACL one rule behind the established one, masquerade by mark.
pub(crate) fn netbird_ruleset(resources: u32) -> String {
    let mut rules = String::new();
    for (family, any, host) in [("ip", "ip", false), ("ip6", "ip6", true)] {
        let address = |number: u32| {
            let (v4, v6) = resource(number);
            if host { v6.to_string() } else { v4.to_string() }
        };
        let sources: Vec<String> = (0..PEERS)
            .map(|number| if host { peer(number).1.to_string() } else { peer(number).0.to_string() })
            .collect();
        let kind = if host { "ipv6_addr" } else { "ipv4_addr" };
        rules += &format!(
            "table {family} netbird {{\n set users {{ type {kind}; flags interval; elements = {{ {} }} }}\n",
            sources.join(", ")
        );
        rules += " chain rt-fwd {\n  ct state established,related accept\n";
        for number in 0..resources {
            rules += &format!(
                "  {any} saddr @users {any} daddr {} udp dport {PORT} counter accept\n",
                address(number)
            );
        }
        rules +=
            " }\n chain acl-forward-filter {\n  type filter hook forward priority filter; policy accept;\n";
        rules +=
            "  meta mark 0x1bd20 accept\n  iifname \"overlay\" jump rt-fwd\n  iifname \"overlay\" drop\n }\n";
        rules +=
            " chain mangle-prerouting {\n  type filter hook prerouting priority mangle; policy accept;\n";
        for number in 0..resources {
            let address = address(number);
            rules +=
                &format!("  iifname \"overlay\" ct state new {any} daddr {address} meta mark set 0x1bd21\n");
            rules += &format!(
                "  iifname != \"overlay\" ct state new {any} saddr {address} meta mark set 0x1bd22\n"
            );
        }
        rules +=
            " }\n chain rt-postrouting {\n  type nat hook postrouting priority srcnat - 1; policy accept;\n";
        rules += "  oifname != \"lo\" meta mark 0x1bd21 masquerade\n  oifname \"overlay\" meta mark 0x1bd22 masquerade\n }\n}\n";
    }
    rules
}

/// What an expert would write for the same policies: one set look-up for the policy, masquerade for everything.
pub(crate) fn expert_ruleset(resources: u32) -> String {
    let mut rules = String::new();
    for (family, host) in [("ip", false), ("ip6", true)] {
        let elements: Vec<String> = (0..resources)
            .map(|number| {
                let (v4, v6) = resource(number);
                let address = if host { v6.to_string() } else { v4.to_string() };
                format!("{address} . {PORT}")
            })
            .collect();
        let kind = if host { "ipv6_addr" } else { "ipv4_addr" };
        rules += &format!(
            "table {family} expert {{\n set services {{ type {kind} . inet_service; elements = {{ {} }} }}\n chain forward {{\n  \
             type filter hook forward priority filter; policy drop;\n  ct state established,related accept\n  \
             iifname \"overlay\" meta l4proto udp {family} daddr . udp dport @services accept\n }}\n chain postrouting {{\n  \
             type nat hook postrouting priority srcnat; policy accept;\n  iifname \"overlay\" oifname \"site\" masquerade\n }}\n}}\n",
            elements.join(", ")
        );
    }
    rules
}
