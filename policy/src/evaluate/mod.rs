//! Why a flow is admitted, or what is missing: the evaluator behind `explain`.
//!
//! A flow is judged twice: by the agent it starts at, and by the peer it ends at or the gateway that carries it to its
//! resource. It is admitted when both accept. Which gateway that is follows from the routes the source is given: the
//! longest prefix, then the lowest metric. Whether a gateway is alive is not known here; the answer is for when all are.

mod endpoints;
mod judge;
mod near;
mod report;

use std::net::IpAddr;

use sluicegate_engine::image::Decision;

use crate::compile::Compiler;
use crate::resolve::{Resolved, Scope};
use crate::service::Probe;
use endpoints::{Destination, destination, source};
use judge::{Target, judge};
pub use near::{NearMiss, Unmet};
pub use report::{Carrier, Endpoint, Explanation, Judgement, Loser, Missing, RouterRef, RuleRef, Verdict};

/// What somebody asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Who opens the flow: a peer's id, name or overlay address.
    pub source: String,
    /// Where to: an address, a peer's id or name, or a resource's id or name.
    pub destination: String,
    /// The packet.
    pub probe: Probe,
}

/// What the image of `agent` says about a packet: the same as a look-up in the compiled image. `l4` is a value of
/// [`sluicegate_engine::image::axis`].
pub fn decide(compiler: &Compiler, agent: &str, source: IpAddr, destination: IpAddr, l4: u32) -> Decision {
    let r = compiler.resolved();
    let (Some(me), Some(opener)) = (r.peer(agent), r.peer_at(source)) else { return Decision::NONE };
    match judge(r, me, opener, &Target::at(r, destination), l4).map(|rule| &r.written.rules[rule as usize]) {
        None => Decision::NONE,
        Some(rule) if rule.accept => Decision::accept(rule.slot),
        Some(rule) => Decision::drop(rule.slot),
    }
}

/// The accept rule by which peer `me` lets `opener` send a packet to an address, if it does. `l4` is a value of the image's axis.
pub(crate) fn accepting(
    compiler: &Compiler,
    me: u32,
    opener: u32,
    address: IpAddr,
    l4: u32,
) -> Option<RuleRef> {
    let r = compiler.resolved();
    let rule = judge(r, me, opener, &Target::at(r, address), l4)?;
    r.written.rules[rule as usize].accept.then(|| RuleRef::new(r, rule))
}

/// Answers a query.
pub fn explain(compiler: &Compiler, query: &Query) -> Explanation {
    let r = compiler.resolved();
    let mut report = Explanation::new(query);
    let from = source(r, &query.source);
    let to = destination(r, &query.destination);
    let (from, to) = match (from, to) {
        (Ok(from), Ok(to)) => (from, to),
        (from, to) => {
            report.missing.extend(from.err());
            report.missing.extend(to.err());
            return report.finish(Verdict::Unknown);
        }
    };
    report.source = Some(Endpoint::peer(&r.state, from, to.address.is_ipv6()));
    report.destination = Some(to.endpoint(r));
    let Some(opener) = r.peer(from) else {
        report.missing.push(Missing::NotAllowed { peer: r.state.peers[from].name.clone() });
        return report.finish(Verdict::NoRule);
    };
    let target = Target::at(r, to.address);
    if target == Target::Peer(Some(opener)) {
        return report.finish(Verdict::NotJudged);
    }
    let scope = Scope::new(r, from);
    let far_end = match &target {
        Target::Peer(peer) => *peer,
        Target::Resources(_) => match carrier(r, &scope, to.address) {
            Way::Direct => return report.finish(Verdict::NotJudged),
            Way::None => None,
            Way::Through(router, carrier) => {
                report.carrier = Some(*carrier);
                Some(router)
            }
        },
    };
    let l4 = query.probe.axis(to.address);
    let agents = [Some(opener), far_end];
    let outcomes: Vec<(u32, Option<u32>)> =
        agents.into_iter().flatten().map(|me| (me, judge(r, me, opener, &target, l4))).collect();
    report.judgements = outcomes.iter().map(|&(me, rule)| Judgement::new(r, me, rule)).collect();
    let refused =
        outcomes.iter().find(|(_, rule)| !rule.is_some_and(|rule| r.written.rules[rule as usize].accept));
    let deciding = refused.or(outcomes.last()).and_then(|o| o.1);
    report.rule = deciding.map(|rule| RuleRef::new(r, rule));
    let verdict = match (refused, far_end) {
        (None, Some(_)) => Verdict::Allowed,
        (Some((_, Some(_))), _) => Verdict::Dropped,
        _ => Verdict::NoRule,
    };
    if let (Verdict::NoRule, [(_, Some(_)), (_, None)], Some(carrier)) =
        (verdict, &outcomes[..], &report.carrier)
    {
        let (router, network, prefix) =
            (carrier.router.name.clone(), carrier.network.clone(), carrier.prefix);
        report.missing.push(Missing::CarriedElsewhere { router, network, prefix });
    }
    if verdict != Verdict::Allowed {
        missing(&mut report, r, opener, &to);
    }
    if verdict == Verdict::NoRule {
        report.rule = None;
        report.near_misses = near::misses(r, from, &to, query.probe);
    }
    report.finish(verdict)
}

/// How a resource is reached.
enum Way {
    /// The source routes it itself.
    Direct,
    /// No accept rule gives the source a route.
    None,
    /// Through this router.
    Through(u32, Box<Carrier>),
}

fn carrier(r: &Resolved, scope: &Scope, address: IpAddr) -> Way {
    let own =
        scope.routed.iter().filter(|x| x.prefix.contains(&address)).map(|x| x.prefix.prefix_len()).max();
    let mut choices = Vec::new();
    for resource in scope.opened_resources(r) {
        let around = r.resources[resource as usize].prefixes.iter().filter(|p| p.contains(&address));
        let Some(&prefix) = around.max_by_key(|p| p.prefix_len()) else { continue };
        choices.extend(r.routers(resource).iter().map(|&routing| (resource, prefix, routing)));
    }
    let id = |peer: u32| &r.peers[peer as usize].id;
    choices.sort_by_key(|(q, prefix, x)| (std::cmp::Reverse(prefix.prefix_len()), x.metric, id(x.peer), *q));
    let Some(&(resource, prefix, winner)) = choices.first() else {
        return if own.is_some() { Way::Direct } else { Way::None };
    };
    if own.is_some_and(|own| own >= prefix.prefix_len()) {
        return Way::Direct;
    }
    let others = choices.iter().skip(1).filter(|(_, _, x)| x.peer != winner.peer);
    let losers = others.map(|&(_, shorter, x)| {
        let why = if shorter.prefix_len() < prefix.prefix_len() {
            format!("its prefix {shorter} is shorter than {prefix}")
        } else if x.metric > winner.metric {
            format!("its metric {} is higher than {}", x.metric, winner.metric)
        } else {
            format!("its metric {} is the same, and its id comes later", x.metric)
        };
        Loser { router: RouterRef::new(r, x), why }
    });
    let carrier = Carrier::new(r, resource, prefix, winner, losers.collect());
    Way::Through(winner.peer, Box::new(carrier))
}

/// Facts that stand in the way whatever one rule says.
fn missing(report: &mut Explanation, r: &Resolved, opener: u32, to: &Destination<'_>) {
    let state = &r.state;
    let mut accepts = r.sets.of_peer(opener).into_iter().flat_map(|set| r.halves_from(set));
    if !accepts.any(|&h| r.accepts(&r.written.halves[h as usize])) {
        report
            .missing
            .push(Missing::SourceInNoRule { peer: state.peers[&*r.peers[opener as usize].id].name.clone() });
    }
    let leads_to = |sets: Vec<u32>| {
        sets.into_iter().flat_map(|set| r.halves_to(set)).any(|&h| r.accepts(&r.written.halves[h as usize]))
    };
    if r.in_overlay(to.address) {
        match to.peer {
            None => report.missing.push(Missing::NobodyAtAddress { address: to.address }),
            Some(id) => match r.peer(id) {
                None => report.missing.push(Missing::NotAllowed { peer: state.peers[id].name.clone() }),
                Some(peer) if !leads_to(r.sets.of_peer(peer)) => {
                    report.missing.push(Missing::DestinationInNoRule { name: state.peers[id].name.clone() });
                }
                Some(_) => {}
            },
        }
        return;
    }
    if to.resources.is_empty() {
        report.missing.push(Missing::InNoResource { address: to.address });
    }
    for &(network_id, network, resource_id, resource) in &to.resources {
        let name = resource.name.clone();
        let Some(number) = r.resources.iter().position(|q| *q.id == **resource_id) else {
            report.missing.push(Missing::ResourceDisabled { resource: name });
            continue;
        };
        if r.routers(number as u32).is_empty() {
            let disabled = network.routers.values().filter(|x| !x.enabled).count();
            let (network, network_id) = (network.name.clone(), network_id.clone());
            report.missing.push(Missing::NoRouter {
                network,
                network_id,
                routers: network_routers(r, number),
                disabled,
            });
        }
        if !leads_to(r.sets.of_resource(number as u32)) {
            report.missing.push(Missing::DestinationInNoRule { name });
        }
    }
}

fn network_routers(r: &Resolved, resource: usize) -> usize {
    let network = &r.networks[r.resources[resource].network as usize].id;
    r.state.networks[&**network].routers.len()
}
