//! From what control wants and what the links say: which router, which allowed IPs, which kernel routes. No effects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::network::{Network, Peer};
use crate::config::Failover;
use crate::failover::{Candidate, Liveness, choose};
use crate::overlay::{Link, PeerSpec, PublicKey};

/// Silence after which a peer that is not probed counts as gone: two keepalives of 25 s and some.
const UNPROBED: Duration = Duration::from_secs(60);
/// Silence after which a peer that is probed once a second counts as gone, unless the operator waits longer for any.
const NOW_AND_THEN: Duration = Duration::from_secs(3);

/// The links as they were at the last look, and the routers in use.
#[derive(Default)]
pub(super) struct Routing {
    seen: BTreeMap<PublicKey, Seen>,
    /// Router in use by prefix.
    chosen: BTreeMap<IpNet, String>,
    transitions: u64,
}

#[derive(Clone, Copy)]
struct Seen {
    added: Instant,
    /// When the last thing came from it; `None` when nothing ever did.
    heard: Option<Instant>,
    /// Whether it answers probes, so that its silence can be set against another's.
    probed: bool,
    live_since: Option<Instant>,
}

/// What the overlay and the kernel are to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// WireGuard's peers.
    pub peers: Vec<PeerSpec>,
    /// Prefixes the kernel sends into the overlay device.
    pub routes: BTreeSet<IpNet>,
    /// Prefixes of routes that are not taken, since they hold what must be reached outside the overlay.
    pub outside: BTreeSet<IpNet>,
    /// Prefixes that are not routed, each a sentence.
    pub refused: Vec<String>,
}

impl Routing {
    /// Takes in the state of the links at `now`; those in `probed` owe an answer all the time, the others say something
    /// now and then. Who was found dead has to be heard of anew.
    pub(super) fn observe(
        &mut self,
        links: &[Link],
        probed: &BTreeSet<PublicKey>,
        failover: &Failover,
        now: Instant,
    ) {
        self.seen.retain(|key, _| links.iter().any(|l| l.key == *key));
        for link in links {
            let seen = self.seen.entry(link.key).or_insert(Seen {
                added: now,
                heard: None,
                probed: false,
                live_since: None,
            });
            seen.heard = link.heard.and_then(|heard| now.checked_sub(heard)).or(seen.heard);
            seen.probed = probed.contains(&link.key);
            let patience = match () {
                () if !seen.probed => UNPROBED,
                () if seen.live_since.is_none() => failover.dead_after,
                () => patience(link, failover),
            };
            let live = link.heard.is_some_and(|heard| heard < patience);
            seen.live_since = live.then(|| seen.live_since.unwrap_or(now));
        }
    }

    /// Whether the peer with this key was heard of lately.
    pub(super) fn live(&self, key: &PublicKey) -> bool {
        self.seen.get(key).is_some_and(|s| s.live_since.is_some())
    }

    /// Chooses routers anew; true when a prefix changed hands.
    pub(super) fn decide(&mut self, network: &Network, failover: &Failover, now: Instant) -> bool {
        let mut chosen = BTreeMap::new();
        for (prefix, routers) in routers(network) {
            let current = self.chosen.get(&prefix).map(String::as_str);
            let current_key = current.and_then(|id| network.peers.get(id)).map(|peer| &peer.key);
            let candidates: Vec<Candidate<'_>> = routers
                .iter()
                .filter_map(|(id, metric)| {
                    let key = &network.peers.get(*id)?.key;
                    let liveness = match self.liveness(key, failover, now) {
                        Liveness::Live(_)
                            if current_key.is_some_and(|current| self.as_silent(key, current)) =>
                        {
                            Liveness::Dead
                        }
                        liveness => liveness,
                    };
                    Some(Candidate { peer: id, metric: *metric, liveness })
                })
                .collect();
            if let Some(router) = choose(current, &candidates, failover.return_after) {
                if let Some(left) = current.filter(|c| *c != router) {
                    tracing::info!(%prefix, from = left, to = router, "traffic moves to another router");
                    self.transitions += 1;
                }
                chosen.insert(prefix, router.to_owned());
            }
        }
        let changed = chosen != self.chosen;
        self.chosen = chosen;
        changed
    }

    /// The router in use for `prefix`.
    pub(super) fn router(&self, prefix: &IpNet) -> Option<&str> {
        self.chosen.get(prefix).map(String::as_str)
    }

    /// How often a prefix changed hands since the agent started.
    pub(super) fn transitions(&self) -> u64 {
        self.transitions
    }

    /// What follows from the choice. `hints` are places where peers without a fixed one last were; `control` are
    /// addresses that must stay reachable outside the overlay.
    pub(super) fn plan(
        &self,
        network: &Network,
        hints: &BTreeMap<PublicKey, SocketAddr>,
        control: &[IpAddr],
    ) -> Plan {
        let mut plan = Plan::default();
        let own: BTreeSet<IpNet> = network.routed.iter().map(|r| r.prefix).collect();
        let underlay: Vec<IpAddr> = network
            .peers
            .values()
            .filter_map(|p| p.endpoint)
            .map(|e| e.ip())
            .chain(control.iter().copied())
            .collect();
        let several = routers(network).into_values().filter(|routers| routers.len() > 1);
        let watched: BTreeSet<&str> = several.flat_map(BTreeMap::into_keys).collect();
        let mut allowed: BTreeMap<&str, BTreeSet<IpNet>> = BTreeMap::new();
        for route in network.routes.iter().filter(|r| !own.contains(&r.prefix)) {
            let Some(router) = self.router(&route.prefix) else { continue };
            if let Some(outside) = underlay.iter().find(|ip| route.prefix.contains(*ip)) {
                let prefix = route.prefix;
                plan.refused.push(format!(
                    "{prefix} is not routed: it holds {outside}, which must be reached outside the overlay"
                ));
                plan.outside.insert(prefix);
                continue;
            }
            allowed.entry(router).or_default().insert(route.prefix);
            plan.routes.insert(route.prefix);
        }
        for (id, peer) in &network.peers {
            let mut prefixes = allowed.remove(id.as_str()).unwrap_or_default();
            prefixes.extend(peer.prefixes());
            plan.peers.push(spec(peer, prefixes, hints, watched.contains(id.as_str())));
        }
        plan
    }

    /// Whether a router has not been heard of since the one in use fell silent for good. Then the silence may be at this end,
    /// and the way to both: nothing is gained by leaving one for the other.
    fn as_silent(&self, candidate: &PublicKey, current: &PublicKey) -> bool {
        let (Some(candidate), Some(current)) = (self.seen.get(candidate), self.seen.get(current)) else {
            return false;
        };
        let silent = current.live_since.is_none() && candidate.probed && current.probed;
        silent && candidate.heard <= current.heard
    }

    /// Those that could stand in for routers in use which have been silent for half of what is borne: they are to be asked.
    pub(super) fn stand_ins(
        &self,
        network: &Network,
        links: &[Link],
        failover: &Failover,
    ) -> BTreeSet<PublicKey> {
        let key = |id: &str| network.peers.get(id).map(|peer| peer.key);
        let silent = |used: &PublicKey| {
            let link = links.iter().find(|link| link.key == *used && link.brisk.is_some());
            link.and_then(|link| link.heard).is_some_and(|heard| heard >= failover.dead_after / 2)
        };
        let mut asked = BTreeSet::new();
        for (prefix, routers) in routers(network).into_iter().filter(|(_, routers)| routers.len() > 1) {
            let used = self.router(&prefix).and_then(key);
            if used.as_ref().is_some_and(silent) {
                asked.extend(routers.into_keys().filter_map(key).filter(|key| Some(*key) != used));
            }
        }
        asked
    }

    fn liveness(&self, key: &PublicKey, failover: &Failover, now: Instant) -> Liveness {
        match self.seen.get(key) {
            None => Liveness::Unknown,
            Some(Seen { live_since: Some(since), .. }) => {
                Liveness::Live(now.saturating_duration_since(*since))
            }
            Some(seen)
                if seen.heard.is_none() && now.saturating_duration_since(seen.added) < grace(failover) =>
            {
                Liveness::Unknown
            }
            Some(_) => Liveness::Dead,
        }
    }
}

/// The routers of each prefix, with the lowest metric of each: several resources may share a prefix, each with routers of its own.
fn routers(network: &Network) -> BTreeMap<IpNet, BTreeMap<&str, u32>> {
    let mut all = BTreeMap::<IpNet, BTreeMap<&str, u32>>::new();
    for route in &network.routes {
        let of_prefix = all.entry(route.prefix).or_default();
        for (id, &metric) in &route.routers {
            let lowest = of_prefix.entry(id).or_insert(metric);
            *lowest = metric.min(*lowest);
        }
    }
    all
}

/// How long a link may take to be heard of for the first time.
fn grace(failover: &Failover) -> Duration {
    failover.dead_after.max(NOW_AND_THEN)
}

/// How long a link that is probed may be silent. Where brisk probes have just begun, their answers are still on the way; how
/// long they take must be known.
fn patience(link: &Link, failover: &Failover) -> Duration {
    let brisk = link.round_trip.map(|trip| failover.dead_after + trip);
    brisk
        .filter(|patience| link.brisk.is_some_and(|since| since >= *patience))
        .unwrap_or_else(|| failover.dead_after.max(NOW_AND_THEN))
}

/// Whoever has a fixed place is probed, router or not: there are few of them, and both ends then know of each other.
fn spec(
    peer: &Peer,
    allowed: BTreeSet<IpNet>,
    hints: &BTreeMap<PublicKey, SocketAddr>,
    watched: bool,
) -> PeerSpec {
    PeerSpec {
        key: peer.key,
        endpoint: peer.endpoint.or_else(|| hints.get(&peer.key).copied()),
        allowed,
        probe: peer.endpoint.is_some().then_some(peer.v6),
        watched,
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_api::agent;

    use super::super::network::tests::{config, route};
    use super::*;

    const FAILOVER: Failover = Failover {
        probe_interval: Duration::from_secs(1),
        dead_after: Duration::from_secs(3),
        return_after: Duration::from_secs(2),
    };

    fn link(n: u8, heard: Option<u64>) -> Link {
        Link {
            key: PublicKey([n; 32]),
            endpoint: None,
            handshake: None,
            heard: heard.map(Duration::from_millis),
            round_trip: None,
            brisk: None,
            received: 0,
            sent: 0,
        }
    }

    fn network(change: impl FnOnce(&mut agent::NetworkConfig)) -> Network {
        let mut config = config();
        change(&mut config);
        Network::try_from(&config).unwrap()
    }

    fn holders(plan: &Plan, prefix: &str) -> Vec<u8> {
        let prefix = prefix.parse().unwrap();
        plan.peers.iter().filter(|p| p.allowed.contains(&prefix)).map(|p| p.key.0[0]).collect()
    }

    #[test]
    fn a_silent_router_is_left_and_its_prefix_moves_with_it() {
        let network = network(|_| {});
        let mut routing = Routing::default();
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let probed = [PublicKey([1; 32]), PublicKey([2; 32])].into();
        assert!(routing.decide(&network, &FAILOVER, at(0)));
        assert_eq!(holders(&routing.plan(&network, &BTreeMap::new(), &[]), "10.1.0.0/24"), [1]);

        routing.observe(&[link(1, Some(100)), link(2, Some(100))], &probed, &FAILOVER, at(1));
        assert!(!routing.decide(&network, &FAILOVER, at(1)));
        routing.observe(&[link(1, Some(3000)), link(2, Some(100))], &probed, &FAILOVER, at(4));
        assert!(routing.decide(&network, &FAILOVER, at(4)));
        assert_eq!(holders(&routing.plan(&network, &BTreeMap::new(), &[]), "10.1.0.0/24"), [2]);

        routing.observe(&[link(1, Some(10)), link(2, Some(100))], &probed, &FAILOVER, at(5));
        assert!(!routing.decide(&network, &FAILOVER, at(5)));
        routing.observe(&[link(1, Some(10)), link(2, Some(100))], &probed, &FAILOVER, at(7));
        assert!(routing.decide(&network, &FAILOVER, at(7)));
        assert_eq!(routing.router(&"10.1.0.0/24".parse().unwrap()), Some("g1"));
        assert_eq!(routing.transitions(), 2);
    }

    #[test]
    fn a_router_in_use_is_left_soon_and_stays_left_until_it_is_heard_of() {
        let failover = Failover {
            probe_interval: Duration::from_millis(50),
            dead_after: Duration::from_millis(200),
            ..FAILOVER
        };
        let network = network(|_| {});
        let mut routing = Routing::default();
        let start = Instant::now();
        let probed = [PublicKey([1; 32]), PublicKey([2; 32])].into();
        let mut router = |ms: u64, links: [Link; 2]| {
            let now = start + Duration::from_millis(ms);
            routing.observe(&links, &probed, &failover, now);
            let asked = routing.stand_ins(&network, &links, &failover);
            routing.decide(&network, &failover, now);
            let router = routing.router(&"10.1.0.0/24".parse().unwrap()).unwrap().to_owned();
            (router, asked.first().map(|key| key.0[0]))
        };
        let idle = |heard| link(2, Some(heard));
        let brisk = |heard, since: u64, trip: Option<u64>| Link {
            brisk: Some(Duration::from_millis(since)),
            round_trip: trip.map(Duration::from_millis),
            ..link(1, Some(heard))
        };
        let first = |asked| ("g1".to_owned(), asked);
        assert_eq!(router(0, [link(1, Some(10)), idle(10)]), first(None));
        assert_eq!(
            router(1000, [link(1, Some(999)), idle(900)]),
            first(None),
            "idle, it answers once a second"
        );
        assert_eq!(router(1050, [brisk(99, 50, Some(1)), idle(950)]), first(None));
        assert_eq!(
            router(1100, [brisk(900, 0, Some(1)), idle(0)]),
            first(Some(2)),
            "brisk probes have just begun"
        );
        assert_eq!(
            router(1300, [brisk(240, 300, Some(50)), idle(100)]),
            first(Some(2)),
            "answers take their time"
        );
        assert_eq!(router(1301, [brisk(240, 300, None), idle(100)]), first(Some(2)), "nobody knows how long");
        assert_eq!(router(1302, [brisk(240, 300, Some(30)), idle(900)]), first(Some(2)), "both are silent");
        assert_eq!(router(1303, [brisk(240, 300, Some(30)), idle(240)]), first(Some(2)), "both are silent");
        let second = |asked| ("g2".to_owned(), asked);
        assert_eq!(router(1304, [brisk(240, 300, Some(30)), idle(10)]), second(Some(2)));
        assert_eq!(
            router(3600, [link(1, Some(2536)), idle(10)]),
            second(None),
            "what was dead is not alive by idling"
        );
    }

    /// Two routes of one prefix, as high availability is written with them.
    #[test]
    fn routers_of_equal_prefixes_stand_in_for_each_other() {
        let network = network(|c| {
            c.routes = vec![route("10.1.0.0/24", &[("g1", 100)]), route("10.1.0.0/24", &[("g2", 200)])];
        });
        let mut routing = Routing::default();
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let probed = [PublicKey([1; 32]), PublicKey([2; 32])].into();
        routing.decide(&network, &FAILOVER, at(0));
        assert_eq!(routing.router(&"10.1.0.0/24".parse().unwrap()), Some("g1"));
        routing.observe(&[link(1, Some(100)), link(2, Some(100))], &probed, &FAILOVER, at(1));
        routing.observe(&[link(1, Some(3000)), link(2, Some(100))], &probed, &FAILOVER, at(4));
        assert!(routing.decide(&network, &FAILOVER, at(4)));
        assert_eq!(holders(&routing.plan(&network, &BTreeMap::new(), &[]), "10.1.0.0/24"), [2]);
    }

    /// A packet for the prefix must not leave by another way because its routers are away.
    #[test]
    fn a_prefix_whose_routers_are_all_gone_stays_with_the_last() {
        let prefixes = ["10.1.0.0/24", "fd00:1::/64"];
        let network = network(|c| c.routes = prefixes.map(|p| route(p, &[("g1", 100), ("g2", 200)])).into());
        let mut routing = Routing::default();
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let probed = [PublicKey([1; 32]), PublicKey([2; 32])].into();
        routing.observe(&[link(1, Some(100)), link(2, Some(100))], &probed, &FAILOVER, at(1));
        routing.decide(&network, &FAILOVER, at(1));
        routing.observe(&[link(1, Some(3100)), link(2, Some(100))], &probed, &FAILOVER, at(4));
        routing.decide(&network, &FAILOVER, at(4));
        routing.observe(&[link(1, Some(63_100)), link(2, Some(60_100))], &probed, &FAILOVER, at(64));
        routing.decide(&network, &FAILOVER, at(64));
        assert!(![1, 2].iter().any(|n| routing.live(&PublicKey([*n; 32]))));
        let plan = routing.plan(&network, &BTreeMap::new(), &[]);
        for prefix in prefixes {
            assert!(plan.routes.contains(&prefix.parse().unwrap()), "{prefix}");
            assert_eq!(holders(&plan, prefix), [2], "{prefix}");
        }
    }

    #[test]
    fn peers_without_a_place_are_neither_probed_nor_forgotten() {
        let network = network(|_| {});
        let hints = [(PublicKey([3; 32]), "198.51.100.3:4000".parse().unwrap())].into();
        let mut routing = Routing::default();
        routing.decide(&network, &FAILOVER, Instant::now());
        let plan = routing.plan(&network, &hints, &[]);
        let peer = plan.peers.iter().find(|p| p.key.0[0] == 3).unwrap();
        assert_eq!((peer.endpoint, peer.probe), (Some("198.51.100.3:4000".parse().unwrap()), None));
        let router = plan.peers.iter().find(|p| p.key.0[0] == 1).unwrap();
        assert!(router.probe.is_some() && router.allowed.len() == 3);
    }

    #[test]
    fn a_route_that_would_swallow_the_underlay_is_refused() {
        let network = network(|c| c.routes.push(route("0.0.0.0/0", &[("g1", 1)])));
        let mut routing = Routing::default();
        routing.decide(&network, &FAILOVER, Instant::now());
        let plan = routing.plan(&network, &BTreeMap::new(), &[]);
        assert_eq!(plan.routes.len(), 1);
        assert!(plan.refused[0].contains("192.0.2.1"), "{:?}", plan.refused);
    }

    #[test]
    fn a_prefix_that_is_routed_here_is_not_sent_into_the_overlay() {
        let network = network(|c| {
            c.routed.push(agent::RoutedPrefix { prefix: "10.1.0.0/24".into(), ..Default::default() });
        });
        let mut routing = Routing::default();
        routing.decide(&network, &FAILOVER, Instant::now());
        assert!(routing.plan(&network, &BTreeMap::new(), &[]).routes.is_empty());
    }
}
