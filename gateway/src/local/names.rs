//! The names behind the numbers of the datapath: rules, routes and addresses.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};

use ipnet::IpNet;
use serde::Serialize;
use sluicegate_api::image::{Image, RouteInfo, RuleInfo};

/// What numbers and addresses are called, at one moment.
#[derive(Debug, Default)]
pub struct Names {
    /// The image in force, then the one before it: events come late.
    images: Vec<Arc<Image>>,
    peers: HashMap<IpAddr, Who>,
    own: Option<Own>,
    resources: OnceLock<Prefixes>,
}

/// An agent of the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Peer id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// This agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Who it is.
    pub who: Who,
    /// Its overlay addresses.
    pub v4: Ipv4Addr,
    /// As above.
    pub v6: Ipv6Addr,
}

/// One end of a flow, as it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct End {
    /// Its address.
    pub address: String,
    /// Its port; ICMP id for the source of an echo; `type << 8 | code` for an ICMP destination in events.
    pub port: u16,
    /// Peer or resource id; empty when nobody is known there.
    pub id: String,
    /// Its name; empty when it has none.
    pub name: String,
    /// `PEER`, `RESOURCE` or `UNKNOWN`.
    #[serde(rename = "type")]
    pub kind: &'static str,
}

/// A rule, as it is told; empty texts when there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Policy id.
    pub policy_id: String,
    /// Policy name.
    pub policy_name: String,
    /// Rule id.
    pub rule_id: String,
    /// Rule name.
    pub rule_name: String,
}

/// A resource, as it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resource {
    /// Resource id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Id of its network.
    pub network_id: String,
    /// The prefix by which it was found.
    pub prefix: String,
}

impl Names {
    /// `images`: in force, then before. `peers` by overlay address.
    pub fn new(
        images: Vec<Arc<Image>>,
        peers: impl IntoIterator<Item = (IpAddr, Who)>,
        own: Option<Own>,
    ) -> Self {
        Self { images, peers: peers.into_iter().collect(), own, resources: OnceLock::new() }
    }

    /// The rule behind a slot.
    pub fn rule(&self, slot: u32) -> Option<&RuleInfo> {
        self.images.iter().find_map(|image| image.rules.get(&slot))
    }

    /// The rules of the image in force, by slot.
    pub fn rules(&self) -> impl Iterator<Item = (u32, &RuleInfo)> {
        self.images.first().into_iter().flat_map(|image| image.rules.iter().map(|(slot, rule)| (*slot, rule)))
    }

    /// The prefix behind a route number.
    pub fn route(&self, number: u16) -> Option<&RouteInfo> {
        self.images.iter().find_map(|image| image.routes.get(&number.into()))
    }

    /// The routes of the image in force, by number.
    pub fn routes(&self) -> impl Iterator<Item = (u16, &RouteInfo)> {
        let routes = self.images.first().into_iter().flat_map(|image| &image.routes);
        routes.filter_map(|(number, route)| Some((u16::try_from(*number).ok()?, route)))
    }

    /// The resource whose narrowest prefix holds `address`, among those this agent is a router of.
    pub fn resource(&self, address: IpAddr) -> Option<&RouteInfo> {
        let prefixes = self.resources.get_or_init(|| Prefixes::of(&self.images));
        let (image, number) = prefixes.narrowest(address)?;
        self.images.get(image)?.routes.get(&number)
    }

    /// The agent with this overlay address, this one included.
    pub fn peer(&self, address: IpAddr) -> Option<&Who> {
        self.peers
            .get(&address)
            .or_else(|| self.own.as_ref().filter(|own| own.has(address)).map(|own| &own.who))
    }

    /// This agent.
    pub fn own(&self) -> Option<&Own> {
        self.own.as_ref()
    }

    /// Addresses of `host`: an address, or the name or id of an agent or of a resource that is one address. At most one of
    /// each family; empty when nobody is called that.
    pub fn addresses(&self, host: &str) -> Vec<IpAddr> {
        if let Ok(address) = host.parse() {
            return vec![address];
        }
        let called = |who: &Who| who.id == host || who.name == host;
        let mut found: Vec<IpAddr> =
            self.peers.iter().filter(|(_, who)| called(who)).map(|(address, _)| *address).collect();
        if let Some(own) = self.own.as_ref().filter(|own| called(&own.who)) {
            found.extend([IpAddr::V4(own.v4), IpAddr::V6(own.v6)]);
        }
        let single = |route: &&RouteInfo| route.prefix.prefix_len() == route.prefix.max_prefix_len();
        let resources = self.routes().map(|(_, route)| route).filter(single);
        found.extend(
            resources
                .filter(|route| route.resource_id == host || route.resource_name == host)
                .map(|route| route.prefix.addr()),
        );
        found.sort();
        found.dedup_by_key(|address| address.is_ipv4());
        found
    }

    /// An end of a flow.
    pub fn end(&self, address: IpAddr, port: u16) -> End {
        let end = End { address: address.to_string(), port, kind: "UNKNOWN", ..End::default() };
        if let Some(who) = self.peer(address) {
            return End { id: who.id.clone(), name: who.name.clone(), kind: "PEER", ..end };
        }
        match self.resource(address) {
            Some(route) => End {
                id: route.resource_id.clone(),
                name: route.resource_name.clone(),
                kind: "RESOURCE",
                ..end
            },
            None => end,
        }
    }

    /// A rule by its slot.
    pub fn told(&self, slot: Option<u32>) -> Rule {
        slot.and_then(|slot| self.rule(slot)).map(Rule::from).unwrap_or_default()
    }
}

impl Own {
    /// Whether `address` is one of its.
    pub fn has(&self, address: IpAddr) -> bool {
        address == IpAddr::V4(self.v4) || address == IpAddr::V6(self.v6)
    }
}

impl From<&RuleInfo> for Rule {
    fn from(rule: &RuleInfo) -> Self {
        Self {
            policy_id: rule.policy_id.clone(),
            policy_name: rule.policy_name.clone(),
            rule_id: rule.rule_id.clone(),
            rule_name: rule.rule_name.clone(),
        }
    }
}

impl From<&RouteInfo> for Resource {
    fn from(route: &RouteInfo) -> Self {
        Self {
            id: route.resource_id.clone(),
            name: route.resource_name.clone(),
            network_id: route.network_id.clone(),
            prefix: route.prefix.to_string(),
        }
    }
}

/// Prefixes of routes, for finding the narrowest that holds an address.
#[derive(Debug, Default)]
struct Prefixes {
    /// Index of the image, and route number.
    routes: HashMap<IpNet, (usize, u32)>,
    /// Lengths that occur, by family (IPv6 last).
    lengths: [BTreeSet<u8>; 2],
}

impl Prefixes {
    fn of(images: &[Arc<Image>]) -> Self {
        let mut prefixes = Self::default();
        for (i, image) in images.iter().enumerate() {
            for (number, route) in &image.routes {
                prefixes.routes.entry(route.prefix).or_insert((i, *number));
                prefixes.lengths[usize::from(route.prefix.addr().is_ipv6())]
                    .insert(route.prefix.prefix_len());
            }
        }
        prefixes
    }

    fn narrowest(&self, address: IpAddr) -> Option<(usize, u32)> {
        let lengths = self.lengths[usize::from(address.is_ipv6())].iter().rev();
        lengths
            .filter_map(|length| IpNet::new(address, *length).ok())
            .find_map(|prefix| self.routes.get(&prefix.trunc()).copied())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn route(prefix: &str, name: &str) -> RouteInfo {
        RouteInfo {
            prefix: prefix.parse().unwrap(),
            network_id: "net".into(),
            resource_id: format!("id-{name}"),
            resource_name: name.into(),
            masquerade: true,
        }
    }

    pub(crate) fn names() -> Names {
        let rule = |name: &str, accept| RuleInfo {
            policy_id: "p1".into(),
            policy_name: "web".into(),
            rule_id: format!("id-{name}"),
            rule_name: name.into(),
            accept,
        };
        let image = Image {
            rules: [(0, rule("users to web", true)), (1, rule("not there", false))].into(),
            routes: [
                (0, route("10.9.0.0/16", "site")),
                (1, route("10.9.7.0/24", "lab")),
                (2, route("fd09::7/128", "printer")),
            ]
            .into(),
            ..Image::default()
        };
        let alice = Who { id: "a".into(), name: "alice".into() };
        let peers = [("100.64.0.2", alice.clone()), ("fd64::2", alice)];
        let own = Own {
            who: Who { id: "g".into(), name: "gw".into() },
            v4: "100.64.0.1".parse().unwrap(),
            v6: "fd64::1".parse().unwrap(),
        };
        let peers = peers.map(|(address, who)| (address.parse().unwrap(), who));
        Names::new(vec![Arc::new(image)], peers, Some(own))
    }

    #[test]
    fn the_narrowest_prefix_names_the_resource() {
        let names = names();
        let name = |a: &str| names.resource(a.parse().unwrap()).map(|r| r.resource_name.clone());
        assert_eq!(name("10.9.1.1").as_deref(), Some("site"));
        assert_eq!(name("10.9.7.1").as_deref(), Some("lab"));
        assert_eq!(name("fd09::7").as_deref(), Some("printer"));
        assert_eq!((name("fd09::8"), name("10.8.0.1")), (None, None));
    }

    #[test]
    fn ends_are_named_by_who_is_there() {
        let names = names();
        let end = |a: &str| {
            let end = names.end(a.parse().unwrap(), 5);
            (end.kind, end.name, end.id)
        };
        assert_eq!(end("fd64::2"), ("PEER", "alice".into(), "a".into()));
        assert_eq!(end("100.64.0.1"), ("PEER", "gw".into(), "g".into()));
        assert_eq!(end("10.9.7.1"), ("RESOURCE", "lab".into(), "id-lab".into()));
        assert_eq!(end("8.8.8.8"), ("UNKNOWN", String::new(), String::new()));
    }

    #[test]
    fn a_host_is_an_address_a_peer_or_a_resource_of_one_address() {
        let names = names();
        let addresses =
            |host: &str| names.addresses(host).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(addresses("alice"), "100.64.0.2 fd64::2");
        assert_eq!(addresses("g"), "100.64.0.1 fd64::1");
        assert_eq!(addresses("printer"), "fd09::7");
        assert_eq!(addresses("10.1.2.3"), "10.1.2.3");
        assert_eq!((addresses("site"), addresses("bob")), (String::new(), String::new()));
    }
}
