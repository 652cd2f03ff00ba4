//! Differences once found, each as the shortest story that shows it, under the name of the bug.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluicegate_engine::DropReason::{
    InvalidTcp, NatExhausted, NotOpening, PolicyExpired, Revoked, SpoofedSource,
};
use sluicegate_engine::flow::{Side, State as Life, Timeouts};
use sluicegate_engine::pipeline::Verdict::{self, Drop, Host, Overlay, Site};
use sluicegate_policy::model::*;

use crate::case::{AGENT, Arrival, Exit, Outcome, Setup, Step};
use crate::kernel::Kernel;
use crate::packets::flag::{ACK, FIN, SYN};
use crate::packets::{Draft, Payload};
use crate::parse;
use crate::trio::Trio;
use crate::world::{self, EGRESS, PEERS};

pub(crate) const DEVICE: u32 = 11;

/// A gateway with one peer and one site behind it.
#[derive(Clone, Copy)]
pub(crate) struct Scene {
    pub(crate) masquerade: bool,
    pub(crate) nat_count: u16,
    pub(crate) six: bool,
    pub(crate) pool: u16,
    pub(crate) half_open_per_source: u32,
    pub(crate) endpoint_independent: bool,
}

impl Scene {
    pub(crate) fn both(masquerade: bool) -> [Self; 2] {
        [false, true].map(|six| Self {
            masquerade,
            nat_count: 100,
            six,
            pool: 1,
            half_open_per_source: 0,
            endpoint_independent: false,
        })
    }

    pub(crate) fn peer(&self) -> IpAddr {
        world::peer(PEERS[1], self.six)
    }

    pub(crate) fn agent(&self) -> IpAddr {
        world::peer(AGENT, self.six)
    }

    pub(crate) fn server(&self) -> IpAddr {
        if self.six { "fd01:1::5" } else { "10.1.2.3" }.parse().unwrap()
    }

    /// Plays a story on all three, which are compared after every step.
    pub(crate) fn play(&self, story: impl FnOnce(&mut Player<'_>)) {
        let mut kernel = Kernel::shared();
        let setup = Setup {
            start: u64::from(u32::MAX) - 5,
            overlay_mtu: 1420,
            nat_first: 20_000,
            nat_count: self.nat_count,
            timeouts: Timeouts::defaults(1),
            half_open_per_source: self.half_open_per_source,
            endpoint_independent: self.endpoint_independent,
            hop_lifetime: 1 << 20,
            overlay: world::overlay(),
        };
        let trio = Trio::new(setup, &mut kernel).unwrap();
        let mut player = Player { trio, six: self.six, pool: self.pool };
        player.policy(self.state(0));
        story(&mut player);
    }

    /// Everything is open to the peer by the rule with this slot.
    pub(crate) fn state(&self, slot: u32) -> State {
        let peers = PEERS.iter().map(|id| {
            let (IpAddr::V4(v4), IpAddr::V6(v6)) = (world::peer(id, false), world::peer(id, true)) else {
                unreachable!()
            };
            (id.to_string(), Peer { name: id.to_string(), v4, v6, allowed: true })
        });
        let prefixes = ["10.1.2.0/24", "fd01:1::/64"].map(|p| p.parse().unwrap()).to_vec();
        let resource =
            Resource { name: "site".into(), prefixes, enabled: true, domain: None, distribution: None };
        let router = Router {
            peers: BTreeSet::from([AGENT.to_owned()]),
            metric: 100,
            masquerade: self.masquerade,
            enabled: true,
        };
        let network = Network {
            name: "site".into(),
            resources: BTreeMap::from([("r".to_owned(), resource)]),
            routers: BTreeMap::from([("g".to_owned(), router)]),
        };
        let everything = Group {
            name: "everything".into(),
            peers: PEERS.iter().map(|id| id.to_string()).collect(),
            resources: ["r".to_owned()].into(),
        };
        let all = End::Groups(BTreeSet::from(["all".to_owned()]));
        let rule = Rule {
            id: format!("rule {slot}"),
            name: "everything".into(),
            slot,
            enabled: true,
            action: Action::Accept,
            bidirectional: true,
            service: Service::All,
            sources: all.clone(),
            destinations: all,
        };
        let policy = Policy {
            name: "everything".into(),
            enabled: true,
            posture_failed: Default::default(),
            rules: vec![rule].into(),
        };
        State {
            overlay_v4: "100.64.0.0/24".parse().unwrap(),
            overlay_v6: "fd5c:1::/64".parse().unwrap(),
            peers: peers.collect(),
            groups: [("all".to_owned(), everything)].into(),
            networks: [("n".to_owned(), network)].into(),
            policies: [("p".to_owned(), policy)].into(),
        }
    }
}

pub(crate) struct Player<'k> {
    pub(crate) trio: Trio<'k>,
    pub(crate) six: bool,
    pool: u16,
}

impl Player<'_> {
    pub(crate) fn step(&mut self, step: &Step) -> Option<Outcome> {
        let outcome = self.trio.step(step).and_then(|outcome| self.trio.compare().map(|()| outcome));
        outcome.unwrap_or_else(|difference| panic!("{step:?}\n{difference}"))
    }

    pub(crate) fn policy(&mut self, state: State) {
        self.step(&Step::Image(Arc::new(state), None));
        let source = EGRESS[0].map(|address| address.parse().ok());
        self.step(&Step::Egress(vec![Exit { device: DEVICE, mtu: 1500, source, pool: self.pool }; 4]));
    }

    fn send(&mut self, side: Side, source: IpAddr, destination: IpAddr, payload: Payload) -> Outcome {
        let bytes = Draft::new(source, destination, payload).build();
        let arrival = Arrival { side, six: self.six, bytes, segment: 0, screened: side == Side::Site };
        self.step(&Step::Packet(arrival)).expect("a packet has an outcome")
    }

    pub(crate) fn expect(
        &mut self,
        side: Side,
        from: (IpAddr, u16),
        to: (IpAddr, u16),
        flags: u8,
        verdict: Verdict,
    ) -> Outcome {
        let outcome = self.send(side, from.0, to.0, tcp(from.1, to.1, flags));
        assert_eq!(outcome.verdict, verdict, "{from:?} to {to:?}, flags {flags:#x}");
        outcome
    }
}

fn tcp(source: u16, destination: u16, flags: u8) -> Payload {
    Payload::Tcp { source, destination, flags, data: 0 }
}

fn echo(six: bool, request: bool, id: u16) -> Payload {
    let kind = match (six, request) {
        (false, true) => 8,
        (false, false) => 0,
        (true, true) => 128,
        (true, false) => 129,
    };
    Payload::Icmp { kind, code: 0, id, data: 8 }
}

/// The source a packet leaves with.
pub(crate) fn source(outcome: &Outcome, six: bool) -> (IpAddr, u16) {
    let (header, _) = parse::network(&outcome.bytes, six).unwrap();
    (header.source, parse::transport(&outcome.bytes, &header).unwrap().source_port)
}

/// The probes' stride was odd whatever the size of the range: in a range of six, a stride of three saw two ports.
#[test]
fn a_small_range_of_masquerade_ports_is_used_up_before_it_is_exhausted() {
    for nat_count in [1, 2, 3, 6, 9, 15, 21, 31] {
        let scene = Scene { nat_count, ..Scene::both(true)[usize::from(nat_count % 2 == 0)] };
        scene.play(|player| {
            for port in 0..nat_count {
                let from = (scene.peer(), 1000 + port);
                player.expect(Side::Overlay, from, (scene.server(), 80), SYN, Site(DEVICE));
            }
            player.expect(Side::Overlay, (scene.peer(), 999), (scene.server(), 80), SYN, Drop(NatExhausted));
        });
    }
}

/// Requests and replies with id 0 have the same key: a site could ping a peer that had pinged it.
#[test]
fn an_echo_request_with_id_zero_does_not_come_back_through_the_flow_of_another() {
    for scene in Scene::both(false) {
        scene.play(|player| {
            let (peer, server, six) = (scene.peer(), scene.server(), scene.six);
            for (side, from, to, request, verdict) in [
                (Side::Overlay, peer, server, true, Site(DEVICE)),
                (Side::Site, server, peer, true, Drop(NotOpening)),
                (Side::Overlay, peer, server, false, Drop(NotOpening)),
                (Side::Site, server, peer, false, Overlay),
                (Side::Site, server, peer, true, Drop(NotOpening)),
            ] {
                assert_eq!(
                    player.send(side, from, to, echo(six, request, 0)).verdict,
                    verdict,
                    "{side:?} {request}"
                );
            }
        });
    }
}

/// A FIN in `syn_sent` or `syn_received` was remembered, so that the closing FIN looked like its repetition.
#[test]
fn a_fin_before_the_handshake_is_complete_does_not_hide_the_real_one() {
    for scene in Scene::both(false) {
        scene.play(|player| {
            let (client, server) = ((scene.peer(), 1000), (scene.server(), 80));
            for (there, flags) in [
                (true, SYN),
                (false, FIN | ACK),
                (false, SYN | ACK),
                (false, FIN | ACK),
                (true, ACK),
                (true, FIN | ACK),
                (false, FIN | ACK),
            ] {
                if there {
                    player.expect(Side::Overlay, client, server, flags, Site(DEVICE));
                } else {
                    player.expect(Side::Site, server, client, flags, Overlay);
                }
            }
            assert_eq!(player.trio.flows()[0].state, Life::TimeWait as u8);
        });
    }
}

/// The image told known sources from unknown ones, but not the agent's own from a peer's.
#[test]
fn an_own_address_from_the_overlay_is_spoofed_and_so_is_a_peers_from_the_host() {
    for scene in Scene::both(false) {
        scene.play(|player| {
            let (agent, peer, server) = ((scene.agent(), 1000), (scene.peer(), 1000), (scene.server(), 80));
            player.expect(Side::Overlay, agent, peer, SYN, Drop(SpoofedSource));
            player.expect(Side::Overlay, agent, server, SYN, Drop(SpoofedSource));
            player.expect(Side::Local, peer, agent, SYN, Drop(SpoofedSource));
            player.expect(Side::Local, agent, peer, SYN, Host);
        });
    }
}

/// Answers to masqueraded flows went to the host's stack, whose reset would have ended the flow for good.
#[test]
fn an_expired_policy_does_not_hand_masqueraded_flows_to_the_host() {
    for scene in Scene::both(true) {
        scene.play(|player| {
            let (client, server) = ((scene.peer(), 1000), (scene.server(), 80));
            let first = player.expect(Side::Overlay, client, server, SYN, Site(DEVICE));
            let seen = source(&first, scene.six);
            player.expect(Side::Site, server, seen, SYN | FIN, Drop(InvalidTcp));
            player.step(&Step::Deadline(Some(0)));
            player.step(&Step::Advance(1));
            player.expect(Side::Site, server, seen, SYN | ACK, Drop(PolicyExpired));
            player.expect(Side::Site, server, (seen.0, 22), SYN, Verdict::Pass);
            player.step(&Step::Deadline(None));
            player.expect(Side::Site, server, seen, SYN | ACK, Overlay);
        });
    }
}

/// A packet that was refused within its flow left one half under the rule of the revision before.
#[test]
fn a_refused_packet_does_not_leave_half_a_flow_under_the_old_rule() {
    for scene in Scene::both(false) {
        scene.play(|player| {
            let (client, server) = ((scene.peer(), 1000), (scene.server(), 80));
            player.expect(Side::Overlay, client, server, SYN, Site(DEVICE));
            player.policy(scene.state(3));
            // Nothing but a SYN+ACK answers a SYN; from the opener itself it is out of place.
            player.expect(Side::Overlay, client, server, SYN | ACK, Drop(InvalidTcp));
            let mut closed = scene.state(3);
            closed.policies.clear();
            player.policy(closed);
            let outcome = player.expect(Side::Overlay, client, server, SYN, Drop(Revoked));
            assert_eq!(outcome.events[0].rule, 3 + 1);
        });
    }
}
