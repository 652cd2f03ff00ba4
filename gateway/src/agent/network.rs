//! The overlay as control describes it, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sluicegate_api::agent;

use crate::control::Told;
use crate::facts::Wanted;
use crate::names;
use crate::overlay::PublicKey;
use crate::resolver;

/// The overlay as this agent is to build it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Network {
    /// Own IPv4 address, with the overlay's prefix length.
    pub own_v4: Ipv4Net,
    /// Own IPv6 address, with the overlay's prefix length.
    pub own_v6: Ipv6Net,
    /// The others, by id.
    pub peers: BTreeMap<String, Peer>,
    /// Prefixes reached through routers.
    pub routes: Vec<Route>,
    /// Prefixes this agent is a router of.
    pub routed: Vec<Routed>,
    /// Executables about which control is to be told.
    pub watched: BTreeSet<String>,
    /// What control is to be told of flows.
    pub told: Told,
    /// Names this agent is to look up, with the resources they are the names of.
    pub names: BTreeMap<String, BTreeSet<String>>,
    /// Who may ask for the names of a resource that this agent routes, by their overlay addresses.
    pub askers: BTreeMap<String, Arc<BTreeSet<Ipv6Addr>>>,
    /// Of whom this agent asks for the names of a resource: metric and overlay address of each router.
    pub asked: Arc<BTreeMap<String, BTreeSet<(u32, Ipv6Addr)>>>,
    /// How this host's questions for names are to be answered.
    pub resolver: Option<resolver::Wanted>,
    /// Whether its user has to log in again before it takes part in anything.
    pub login_expired: bool,
}

/// Another agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// Its name, for people.
    pub name: String,
    /// Its WireGuard key.
    pub key: PublicKey,
    /// Where it can be reached, if it can.
    pub endpoint: Option<SocketAddr>,
    /// Its overlay IPv4 address.
    pub v4: Ipv4Addr,
    /// Its overlay IPv6 address.
    pub v6: Ipv6Addr,
}

/// A prefix and its routers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Network id.
    pub network: String,
    /// Resource id.
    pub resource: String,
    /// The prefix, masked.
    pub prefix: IpNet,
    /// Metric by peer id; every id is one of the peers.
    pub routers: BTreeMap<String, u32>,
    /// Where it is taken only when the operator asks for it, the name to ask by; else empty.
    pub choice: String,
}

/// A prefix this agent is a router of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Routed {
    /// Network id.
    pub network: String,
    /// Resource id.
    pub resource: String,
    /// The prefix, masked.
    pub prefix: IpNet,
    /// Whether sources are replaced by ours.
    pub masquerade: bool,
    /// This router's metric.
    pub metric: u32,
}

impl Network {
    /// Reads what control says. Of the routes that are taken only when asked for, those named in `asked` stay.
    pub(super) fn read(config: &agent::NetworkConfig, asked: &[String]) -> anyhow::Result<Self> {
        let mut network = Self::try_from(config)?;
        network.routes.retain(|route| route.choice.is_empty() || asked.contains(&route.choice));
        Ok(network)
    }
}

impl TryFrom<&agent::NetworkConfig> for Network {
    type Error = anyhow::Error;

    fn try_from(config: &agent::NetworkConfig) -> anyhow::Result<Self> {
        let own_v4 =
            config.address_v4.parse().with_context(|| format!("own address {:?}", config.address_v4))?;
        let own_v6 =
            config.address_v6.parse().with_context(|| format!("own address {:?}", config.address_v6))?;
        let mut peers = BTreeMap::new();
        let mut keys = BTreeSet::new();
        for peer in &config.peers {
            let checked = checked_peer(peer).with_context(|| format!("peer {} ({})", peer.id, peer.name))?;
            if !keys.insert(checked.key) {
                bail!("peer {} ({}): another peer has the same key", peer.id, peer.name);
            }
            if peers.insert(peer.id.clone(), checked).is_some() {
                bail!("peer {} is there twice", peer.id);
            }
        }
        let routes = config.routes.iter().map(|r| checked_route(r, &peers)).collect::<anyhow::Result<_>>()?;
        let routed = config.routed.iter().map(checked_routed).collect::<anyhow::Result<_>>()?;
        let watched = config.watched.iter().cloned().collect();
        let told = Told { events: !config.no_flow_events, counters: !config.no_flow_counters };
        let sets = config.askers.iter().map(|set| checked_askers(set, config, &peers));
        let sets = sets.collect::<anyhow::Result<Vec<_>>>()?;
        let mut names = BTreeMap::<String, BTreeSet<String>>::new();
        let mut askers = BTreeMap::new();
        for name in &config.names {
            let of = || format!("name {:?} of resource {:?}", name.name, name.resource_id);
            checked_name(name).with_context(of)?;
            if let Some(place) = name.askers.checked_sub(1) {
                let set = sets.get(place as usize).context("its askers are not there").with_context(of)?;
                askers.insert(name.resource_id.clone(), set.clone());
            }
            names.entry(name.name.clone()).or_default().insert(name.resource_id.clone());
        }
        let asked = Arc::new(asked(config.resolver.as_ref(), &peers));
        let resolver = resolver::Wanted::read(config)?;
        Ok(Self {
            own_v4,
            own_v6,
            peers,
            routes,
            routed,
            watched,
            told,
            names,
            askers,
            asked,
            resolver,
            login_expired: config.login_expired,
        })
    }
}

impl Network {
    /// What is to be looked for on this machine.
    pub(super) fn wanted(&self) -> Wanted {
        let overlay = [self.own_v4.addr().into(), self.own_v6.addr().into()].into();
        Wanted { paths: self.watched.clone(), overlay }
    }

    /// Names to be looked up.
    pub(super) fn wanted_names(&self) -> names::Wanted {
        names::Wanted {
            names: self.names.clone(),
            overlay: vec![self.own_v4.trunc().into(), self.own_v6.trunc().into()],
            askers: self.askers.clone(),
        }
    }

    /// What resources with a name stood for when this was said, by what their routers were told to route.
    pub(super) fn stood_for(&self) -> BTreeMap<String, BTreeSet<IpAddr>> {
        let mut stood_for = BTreeMap::<String, BTreeSet<IpAddr>>::new();
        let named: BTreeSet<&String> = self.names.values().flatten().collect();
        for routed in self.routed.iter().filter(|routed| named.contains(&routed.resource)) {
            if routed.prefix.prefix_len() == routed.prefix.max_prefix_len() {
                stood_for.entry(routed.resource.clone()).or_default().insert(routed.prefix.addr());
            }
        }
        stood_for
    }

    /// Own addresses, as the overlay device is to have them.
    pub(super) fn addresses(&self) -> BTreeSet<IpNet> {
        [IpNet::V4(self.own_v4), IpNet::V6(self.own_v6)].into()
    }
}

impl Peer {
    /// Its overlay addresses as prefixes of one address each.
    pub(super) fn prefixes(&self) -> [IpNet; 2] {
        [IpNet::from(IpAddr::V4(self.v4)), IpNet::from(IpAddr::V6(self.v6))]
    }
}

fn checked_peer(peer: &agent::RemotePeer) -> anyhow::Result<Peer> {
    let endpoint = match peer.endpoint.as_str() {
        "" => None,
        text => Some(text.parse().with_context(|| format!("endpoint {text:?}"))?),
    };
    Ok(Peer {
        name: peer.name.clone(),
        key: PublicKey::try_from(&peer.wireguard_public_key[..]).context("its key is not 32 bytes long")?,
        endpoint,
        v4: peer.address_v4.parse().with_context(|| format!("address {:?}", peer.address_v4))?,
        v6: peer.address_v6.parse().with_context(|| format!("address {:?}", peer.address_v6))?,
    })
}

fn checked_route(route: &agent::Route, peers: &BTreeMap<String, Peer>) -> anyhow::Result<Route> {
    let prefix = prefix(&route.prefix)?;
    let known = route.routers.iter().filter(|r| peers.contains_key(&r.peer_id));
    Ok(Route {
        network: route.network_id.clone(),
        resource: route.resource_id.clone(),
        prefix,
        routers: known.map(|r| (r.peer_id.clone(), r.metric)).collect(),
        choice: route.choice.clone(),
    })
}

fn checked_routed(routed: &agent::RoutedPrefix) -> anyhow::Result<Routed> {
    Ok(Routed {
        network: routed.network_id.clone(),
        resource: routed.resource_id.clone(),
        prefix: prefix(&routed.prefix)?,
        masquerade: routed.masquerade,
        metric: routed.metric,
    })
}

/// The overlay addresses of some of the peers, by their places.
fn checked_askers(
    set: &agent::PeerSet,
    config: &agent::NetworkConfig,
    peers: &BTreeMap<String, Peer>,
) -> anyhow::Result<Arc<BTreeSet<Ipv6Addr>>> {
    let asker = |place: &u32| {
        let peer = config.peers.get(*place as usize).and_then(|peer| peers.get(&peer.id));
        peer.map(|peer| peer.v6).with_context(|| format!("who may ask for names: there is no peer {place}"))
    };
    Ok(Arc::new(set.peers.iter().map(asker).collect::<anyhow::Result<_>>()?))
}

/// Routers to ask for names; those that are not among the peers cannot be asked.
fn asked(
    resolver: Option<&agent::Resolver>,
    peers: &BTreeMap<String, Peer>,
) -> BTreeMap<String, BTreeSet<(u32, Ipv6Addr)>> {
    let mut asked = BTreeMap::<String, BTreeSet<(u32, Ipv6Addr)>>::new();
    for name in resolver.into_iter().flat_map(|resolver| &resolver.routed) {
        let known = name.routers.iter().filter_map(|router| {
            let peer = peers.get(&router.peer_id)?;
            Some((router.metric, peer.v6))
        });
        asked.entry(name.resource_id.clone()).or_default().extend(known);
    }
    asked
}

/// A name, or a wildcard and what it is below: as control keeps them, which is what may be in DNS.
fn checked_name(name: &agent::Name) -> anyhow::Result<()> {
    if name.resource_id.is_empty() {
        bail!("it is of no resource");
    }
    let domain = name.name.strip_prefix("*.").unwrap_or(&name.name);
    if !names::is_domain(domain) {
        bail!("it is no name in lower case, such as db.example.org or *.example.org");
    }
    Ok(())
}

fn prefix(text: &str) -> anyhow::Result<IpNet> {
    let prefix: IpNet = text.parse().with_context(|| format!("prefix {text:?}"))?;
    Ok(prefix.trunc())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn remote(id: &str, n: u8, endpoint: &str) -> agent::RemotePeer {
        agent::RemotePeer {
            id: id.into(),
            name: id.into(),
            wireguard_public_key: vec![n; 32],
            endpoint: endpoint.into(),
            address_v4: format!("100.90.0.{n}"),
            address_v6: format!("fd5c::{n:x}"),
            dns_labels: Vec::new(),
        }
    }

    pub(crate) fn route(prefix: &str, routers: &[(&str, u32)]) -> agent::Route {
        let routers =
            routers.iter().map(|(id, metric)| agent::Router { peer_id: (*id).into(), metric: *metric });
        agent::Route {
            network_id: "net".into(),
            resource_id: "res".into(),
            prefix: prefix.into(),
            routers: routers.collect(),
            choice: String::new(),
        }
    }

    pub(crate) fn config() -> agent::NetworkConfig {
        agent::NetworkConfig {
            protocol: sluicegate_api::PROTOCOL,
            serial: 1,
            address_v4: "100.90.0.7/16".into(),
            address_v6: "fd5c::7/64".into(),
            peers: vec![
                remote("g1", 1, "192.0.2.1:51820"),
                remote("g2", 2, "[2001:db8::2]:51820"),
                remote("p", 3, ""),
            ],
            routes: vec![route("10.1.0.9/24", &[("g1", 100), ("g2", 200), ("unknown", 1)])],
            watched: vec!["/usr/sbin/clamd".into()],
            ..agent::NetworkConfig::default()
        }
    }

    #[test]
    fn a_whole_configuration_is_read() {
        let network = Network::try_from(&config()).unwrap();
        assert_eq!(network.routes[0].prefix, "10.1.0.0/24".parse().unwrap());
        assert_eq!(network.routes[0].routers, [("g1".into(), 100), ("g2".into(), 200)].into());
        assert_eq!(network.peers["p"].endpoint, None);
    }

    #[test]
    fn what_control_is_told_of_flows_is_part_of_it() {
        let told = |no_flow_events, no_flow_counters| {
            let config = agent::NetworkConfig { no_flow_events, no_flow_counters, ..config() };
            Network::try_from(&config).unwrap().told
        };
        // A control that does not say wants everything.
        assert_eq!(told(false, false), Told::default());
        assert_eq!(told(true, false), Told { events: false, counters: true });
        assert_eq!(told(false, true), Told { events: true, counters: false });
    }

    fn name(resource: &str, name: &str) -> agent::Name {
        agent::Name { resource_id: resource.into(), name: name.into(), askers: 0 }
    }

    #[test]
    fn names_are_wanted_with_their_resources_and_the_overlay_is_none_of_their_addresses() {
        let names =
            [name("r1", "db.example.org"), name("r2", "db.example.org"), name("r3", "*.x-1._y.example")];
        let config = agent::NetworkConfig { names: names.into(), ..config() };
        let wanted = Network::try_from(&config).unwrap().wanted_names();
        let of = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        let names =
            [("db.example.org".to_owned(), of(&["r1", "r2"])), ("*.x-1._y.example".to_owned(), of(&["r3"]))];
        assert_eq!(wanted.names, names.into());
        assert_eq!(wanted.overlay, ["100.90.0.0/16".parse().unwrap(), "fd5c::/64".parse().unwrap()]);
    }

    #[test]
    fn who_may_ask_and_who_is_asked_are_known_by_their_overlay_addresses() {
        let mut config = agent::NetworkConfig {
            names: vec![name("r1", "*.example.org"), name("r2", "db.example.org")],
            askers: vec![agent::PeerSet { peers: vec![0, 2] }],
            ..config()
        };
        config.names[0].askers = 1;
        let routers = [("g2", 100), ("g1", 200), ("unknown", 1)];
        let routers = routers.map(|(id, metric)| agent::Router { peer_id: id.into(), metric });
        let routed = agent::RoutedName {
            resource_id: "r9".into(),
            name: "*.far.example".into(),
            routers: routers.into(),
        };
        let domain = "peers.test".into();
        config.resolver = Some(agent::Resolver { domain, routed: vec![routed], ..Default::default() });
        let network = Network::try_from(&config).unwrap();
        let of = |peers: &[&str]| peers.iter().map(|peer| peer.parse::<Ipv6Addr>().unwrap()).collect();
        assert_eq!(network.askers, [("r1".to_owned(), Arc::new(of(&["fd5c::1", "fd5c::3"])))].into());
        assert_eq!(network.wanted_names().askers, network.askers);
        let [g1, g2] = ["fd5c::1", "fd5c::2"].map(|peer| peer.parse().unwrap());
        assert_eq!(*network.asked, [("r9".to_owned(), [(100, g2), (200, g1)].into())].into());
    }

    #[test]
    fn what_names_stood_for_are_the_addresses_that_are_routed_for_their_resources() {
        let routed = |resource: &str, prefix: &str| agent::RoutedPrefix {
            resource_id: resource.into(),
            prefix: prefix.into(),
            ..Default::default()
        };
        let routed = [
            routed("named", "192.0.2.7/32"),
            routed("named", "2001:db8::7/128"),
            routed("other", "192.0.2.8/32"),
            routed("named", "192.0.2.0/24"),
        ];
        let names = vec![name("named", "db.example.org")];
        let config = agent::NetworkConfig { names, routed: routed.into(), ..config() };
        let stood_for = Network::try_from(&config).unwrap().stood_for();
        let addresses = ["192.0.2.7", "2001:db8::7"].map(|address| address.parse().unwrap());
        assert_eq!(stood_for, [("named".to_owned(), addresses.into())].into());
    }

    #[test]
    fn a_route_of_choice_is_taken_only_by_whom_asks_for_it() {
        let mut config = config();
        config.routes.push(agent::Route { choice: "exit".into(), ..route("0.0.0.0/0", &[("g1", 100)]) });
        let prefixes = |asked: &[String]| {
            let routes = Network::read(&config, asked).unwrap().routes;
            routes.iter().map(|route| route.prefix.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(prefixes(&[]), ["10.1.0.0/24"]);
        assert_eq!(prefixes(&["other".into()]), ["10.1.0.0/24"]);
        assert_eq!(prefixes(&["exit".into()]), ["10.1.0.0/24", "0.0.0.0/0"]);
    }

    #[test]
    fn one_wrong_value_refuses_all_and_is_named() {
        type Spoil = fn(&mut agent::NetworkConfig);
        let cases: &[(Spoil, &str)] = &[
            (|c| c.address_v4 = "nonsense".into(), "own address"),
            (|c| c.peers[1].endpoint = "nowhere".into(), "g2"),
            (|c| c.peers[1].wireguard_public_key.truncate(31), "g2"),
            (|c| c.peers[2].wireguard_public_key = vec![1; 32], "same key"),
            (|c| c.peers[2].id = "g1".into(), "twice"),
            (|c| c.routes[0].prefix = "10.0.0.0/33".into(), "prefix"),
            (
                |c| c.routed.push(agent::RoutedPrefix { prefix: "10.0.0.0/40".into(), ..Default::default() }),
                "10.0.0.0/40",
            ),
            (|c| c.askers.push(agent::PeerSet { peers: vec![3] }), "no peer 3"),
            (
                |c| {
                    c.names.push(agent::Name { askers: 1, ..name("r", "db.example.org") });
                },
                "askers",
            ),
            (|c| c.names.push(name("", "db.example.org")), "of no resource"),
            (|c| c.names.push(name("r", "DB.example.org")), "DB.example.org"),
            (|c| c.names.push(name("r", "db.example.org.")), "db.example.org."),
            (|c| c.names.push(name("r", "*.*.example.org")), "*.*.example.org"),
            (|c| c.names.push(name("r", "192.0.2.1")), "192.0.2.1"),
            (|c| c.names.push(name("r", "-db.example.org")), "-db.example.org"),
            (|c| c.names.push(name("r", "*.")), "lower case"),
            (|c| c.names.push(name("r", "")), "lower case"),
            (|c| c.names.push(name("r", &format!("{}.org", "a".repeat(64)))), "lower case"),
            (|c| c.names.push(name("r", &["abc"; 64].join("."))), "lower case"),
        ];
        for (spoil, named) in cases {
            let mut config = config();
            spoil(&mut config);
            let error = format!("{:#}", Network::try_from(&config).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }
}
