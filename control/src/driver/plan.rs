//! One compilation: pure, on its own thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use ipnet::{Ipv4Net, Ipv6Net};
use sluicegate_api::network::Overlay;
use sluicegate_policy::Compiler;
use sluicegate_policy::model::{Network, Shared, State};

use super::ends::Ends;
use super::overlay::{Remotes, overlay};
use super::resolver::Resolvers;
use crate::hub::{Base, Compiled, Later, Member, Roster, Target};
use crate::store::{Agent, FlowLog, Role, Snapshot};

/// A state of the store, ready to compile from.
pub(super) struct Plan {
    pub(super) revision: u64,
    compiler: Compiler,
    agents: Shared<BTreeMap<String, Agent>>,
    remotes: Remotes,
    resolvers: Resolvers,
    flow_log: FlowLog,
    ends: Ends,
}

/// An image, and what it becomes by the clock.
type Images = (Arc<Compiled>, Arc<[Later]>);

impl Plan {
    /// Prepares a state; the error says what in it cannot be compiled. Parts that it shares with the state of `before` cost nothing.
    pub(super) fn new(snapshot: Snapshot, before: Option<&Plan>) -> Result<Self, String> {
        let Snapshot { revision, state, agents, names, flow_log, ends } = snapshot;
        let compiler = match before {
            Some(before) => Compiler::after(Arc::new(state), &before.compiler),
            None => Compiler::new(Arc::new(state)).map(Compiler::remembering),
        };
        let compiler = compiler.map_err(|error| error.to_string())?;
        let ends = Ends::new(ends, &compiler)?;
        let peers = &compiler.state().peers;
        let remotes = Remotes::new(&agents, peers, before.map(|before| &before.remotes));
        Ok(Self { revision, compiler, agents, remotes, resolvers: Resolvers::new(names), flow_log, ends })
    }

    /// The state it is of.
    pub(super) fn state(&self) -> &State {
        self.compiler.state()
    }

    /// Images and overlays of these agents. One whose image is of the state `before`, and which the difference does not
    /// touch, is not compiled again. Works on every processor: a change may concern a thousand gateways.
    pub(super) fn targets(
        &self,
        before: Option<&Plan>,
        agents: BTreeMap<String, Base>,
    ) -> BTreeMap<String, Target> {
        let change = before.map(|before| Change {
            before,
            affected: self.compiler.affected(&before.compiler),
            everybody: self.told_everybody() != before.told_everybody(),
            moved: self.moved(before),
            named: self.resolvers.concerned(self.state(), &before.resolvers, before.state()),
            ends: self.ends.affected(&before.ends),
        });
        let agents: Vec<(String, Base)> = agents.into_iter().collect();
        let (work, mut rest): (Vec<_>, Vec<_>) = agents
            .into_iter()
            .map(|(agent, base)| {
                let known = base.image.clone().filter(|_| base.current);
                let known = known.zip(change.as_ref());
                let untouched = known.filter(|(_, change)| !change.affected.contains(agent.as_str()));
                let untouched = untouched.and_then(|(image, change)| {
                    if change.ends.as_ref().is_some_and(|ends| !ends.contains(agent.as_str())) {
                        return Some((image, base.later.clone()));
                    }
                    (!self.ends.concern(&agent)).then(|| (image, Arc::default()))
                });
                (agent, base, untouched)
            })
            .partition(|(agent, _, untouched)| {
                untouched.is_none() || change.as_ref().is_some_and(|change| change.may_tell(agent))
            });
        let target = |(agent, base, untouched)| self.target(change.as_ref(), agent, base, untouched);
        let mut done: BTreeMap<String, Target> = shared_out(work, target).into_iter().flatten().collect();
        let same = rest.drain(..).filter_map(|(agent, _, images)| {
            self.state()
                .peers
                .contains_key(&agent)
                .then_some((agent, Target { image: Ok(images?), network: None }))
        });
        done.extend(same);
        done
    }

    /// Image and overlay of one agent, of which `untouched` is the image when it is the same.
    fn target(
        &self,
        change: Option<&Change<'_>>,
        agent: String,
        base: Base,
        untouched: Option<Images>,
    ) -> Option<(String, Target)> {
        // An agent without an image of the state before may have no overlay either.
        let known = change.filter(|_| base.image.is_some() && base.current);
        let network = self.overlay(known, &agent)?;
        let image = match untouched {
            Some(images) => Ok(images),
            None => self.compile(&agent, base.image),
        };
        Some((agent, Target { image, network }))
    }

    /// The overlay of an agent, or `Some(None)` when it has had the same since the state before; `None` for one that is not there.
    fn overlay(&self, change: Option<&Change<'_>>, agent: &str) -> Option<Option<Overlay>> {
        if let Some(change) = change.filter(|change| !change.tells(agent)) {
            let own = self.state().peers.contains_key(agent);
            if own && self.compiler.same_network(&change.before.compiler, agent) {
                let moved = |peer: &Arc<str>| change.moved.contains(&**peer);
                if change.moved.is_empty() || !self.compiler.network(agent).peers.iter().any(moved) {
                    return Some(None);
                }
            }
        }
        let view = self.compiler.network(agent);
        let resolver = self.resolvers.of(agent, self.state(), &self.agents, &view);
        let mut overlay = overlay(&view, agent, self.state(), &self.agents, &self.remotes)?;
        overlay.rest.resolver = resolver;
        overlay.rest.no_flow_events = !self.flow_log.enabled;
        overlay.rest.no_flow_counters = !self.flow_log.counters;
        Some(Some(overlay))
    }

    /// What of the overlay is the same for every agent.
    fn told_everybody(&self) -> (Ipv4Net, Ipv6Net, bool, bool, &str) {
        let (state, log) = (self.state(), &self.flow_log);
        (state.overlay_v4, state.overlay_v6, log.enabled, log.counters, self.resolvers.domain())
    }

    /// Peers that were there before and have another address, name, DNS label, or way to be reached now. Who comes or goes is in the overlays
    /// of affected agents only.
    fn moved<'a>(&'a self, before: &'a Plan) -> BTreeSet<&'a str> {
        let mut moved = differences(&before.agents, &self.agents, |a, b| a == b);
        let (old, new) = (&before.state().peers, &self.state().peers);
        moved.extend(differences(old, new, |a, b| (&a.name, a.v4, a.v6) == (&b.name, b.v4, b.v6)));
        moved
    }

    fn compile(&self, agent: &str, before: Option<Arc<Compiled>>) -> Result<Images, String> {
        let parts = self.compiler.compile_parts(agent, before.as_ref().map(|before| &before.parts));
        let image = Compiled::new(parts.map_err(|error| error.to_string())?, before);
        // An image of which it is not known what it is to become grants for too long: then the one before it stays.
        let later = self.ends.compile(agent, &image)?;
        Ok((image, later))
    }
}

/// Does the same to all of some things, on every processor. Whoever is done with one takes the next: some cost far more than others,
/// and processors have other work.
pub fn shared_out<T: Send, U: Send>(things: Vec<T>, each: impl Fn(T) -> U + Sync) -> Vec<U> {
    let others = thread::available_parallelism().map_or(1, usize::from).min(things.len()).saturating_sub(1);
    let things = Mutex::new(things.into_iter());
    let next = || things.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || std::iter::from_fn(next).map(&each).collect::<Vec<_>>();
    thread::scope(|scope| {
        let others: Vec<_> = (0..others).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    })
}

/// What differs from the state before.
struct Change<'a> {
    before: &'a Plan,
    /// Agents whose image or overlay may differ because of rules, networks or groups.
    affected: BTreeSet<Arc<str>>,
    /// Whether what every agent is told of the overlay is another.
    everybody: bool,
    /// See [`Plan::moved`].
    moved: BTreeSet<&'a str>,
    /// See [`Resolvers::concerned`].
    named: BTreeSet<&'a str>,
    /// See [`Ends::affected`].
    ends: Option<BTreeSet<Arc<str>>>,
}

impl Change<'_> {
    /// Whether the overlay of an agent may be another for reasons beside rules, networks and groups.
    fn may_tell(&self, agent: &str) -> bool {
        !self.moved.is_empty() || self.tells(agent)
    }

    /// Whether it may be another for such a reason that is not some other peer's.
    fn tells(&self, agent: &str) -> bool {
        self.everybody || self.moved.contains(agent) || self.named.contains(agent)
    }
}

/// Ids of entries that are in both maps and not the same.
fn differences<'a, T>(
    old: &'a Shared<BTreeMap<String, T>>,
    new: &'a Shared<BTreeMap<String, T>>,
    same: impl Fn(&T, &T) -> bool,
) -> BTreeSet<&'a str> {
    if old.is_same(new) {
        return BTreeSet::new();
    }
    let mut new = new.iter().peekable();
    let changed = old.iter().filter(|(id, a)| {
        while new.next_if(|(other, _)| other < id).is_some() {}
        new.next_if(|(other, _)| other == id).is_some_and(|(_, b)| !same(a, b))
    });
    changed.map(|(id, _)| id.as_str()).collect()
}

/// What a roster is made from.
pub(super) struct RosterOf {
    agents: Shared<BTreeMap<String, Agent>>,
    networks: Shared<BTreeMap<String, Network>>,
}

impl RosterOf {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        Self { agents: snapshot.agents.clone(), networks: snapshot.state.networks.clone() }
    }

    /// Whether a roster made from this is the same as one from `other`, found without looking into them.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.agents.is_same(&other.agents) && self.networks.is_same(&other.networks)
    }
}

/// The peers there are, and which of them are gateways: those that joined as one, and those that route a network.
pub(super) fn roster(snapshot: &Snapshot) -> Roster {
    let networks = snapshot.state.networks.values();
    let routers: BTreeSet<&String> =
        networks.flat_map(|n| n.routers.values()).flat_map(|r| &r.peers).collect();
    let member = |(id, agent): (&String, &Agent)| {
        let gateway = agent.role == Role::Gateway || routers.contains(id);
        (id.clone(), Member { gateway })
    };
    snapshot.agents.iter().map(member).collect()
}

#[cfg(test)]
pub(super) mod tests;
