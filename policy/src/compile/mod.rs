//! The compiler: a state's rules as one packet image for each agent.
//!
//! 1. `resolve` looks up once, for all agents, who each rule names.
//! 2. For one agent, nested prefixes become disjoint intervals, and addresses that the same rules lead to in the same way
//!    become a destination class (`intervals`, `destinations`). A prefix costs two boundaries, however large it is.
//! 3. Peers in the same source sets get a row, destinations in the same destination sets a column; where that would be too
//!    many, lists of rows and of columns (`lanes`, `sources`, `columns`, `short`).
//! 4. For each row and column the rules that meet are settled over protocols and ports (`services`, `outcomes`, `shares`,
//!    `rows`, `matrix`).
//!
//! An agent's own flows and those of others never share a cell: outbound rules start only at the agent's own row
//! and lead only to remote destinations; inbound rules start at other peers and lead only to the agent itself and
//! to what it routes. Addresses of the overlay ranges belong to peers alone: no resource's prefix reaches into them, so
//! an exit route opens neither the gateway nor other peers.

mod affected;
mod columns;
mod destinations;
mod error;
mod intervals;
mod kept;
mod laid;
mod lanes;
mod lines;
mod matrix;
mod memory;
mod outcomes;
mod ranks;
mod rows;
mod services;
mod shares;
mod short;
mod slots;
mod sources;
mod words;

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use sluicegate_api::image::{Hash, Image, Parts, RouteInfo, RuleInfo};
use sluicegate_engine::image::{INTERVALS_LOG_MAX, LINE, ROUTES_MAX, header};

use crate::model::{Policy, State};
use crate::network::NetworkView;
use crate::resolve::{Resolved, RuleEntry, Scope};
pub(crate) use affected::{in_one, side_by_side};
use destinations::Destinations;
pub use error::CompileError;
use kept::Kept;
use laid::Laid;
use matrix::Matrix;
use memory::Memory;
use rows::Placed;
pub(crate) use slots::mix_words;
use words::Words;

/// The most words an image may have, the budget of one half on the gateway.
pub use sluicegate_api::image::WORDS_MAX;

/// The most IPv4 overlay addresses an image has room for.
const OVERLAY_MAX: u64 = 1 << 16;

/// A state prepared for compiling every agent of it. Cheap to share between threads.
#[derive(Debug)]
pub struct Compiler {
    resolved: Resolved,
    limits: Limits,
    /// What is kept from image to image; `None` where nothing is.
    memory: Option<Arc<Memory>>,
}

/// How much an image may take, and what is traded for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most words of an image: [`WORDS_MAX`].
    pub words: usize,
    /// The most port ranges of distinct outcomes that are kept while compiling: 2^27, which are 1 GiB.
    pub steps: usize,
    /// Up to about so many words, counted before equal things are joined, each source has one row and each destination one
    /// column: 2^22. Above, both may have lists of them.
    pub together: u64,
    /// In lists: for how many words less one more row in the list of every source, or one more column in the list of every
    /// destination, is good: 2^21.
    pub look_up: u64,
}

/// An agent's image, not yet put together.
#[derive(Debug)]
struct Made {
    words: Words,
    placed: Placed,
    /// Rules that decide anything, rising.
    rules: Vec<u32>,
    kept: Option<Kept>,
    scope: Scope,
}

impl Default for Limits {
    fn default() -> Self {
        Self { words: WORDS_MAX, steps: 1 << 27, together: 1 << 22, look_up: 1 << 21 }
    }
}

impl Compiler {
    /// Prepares a state. Refused when it breaks what [`crate::model`] promises; then no agent has a new image.
    pub fn new(state: Arc<State>) -> Result<Self, CompileError> {
        Self::prepare(state, None)
    }

    /// The same as [`Compiler::new`], for less where the state shares parts with the one of `before`. Limits are those of `before`,
    /// and so is what it remembers ([`Compiler::remembering`]).
    pub fn after(state: Arc<State>, before: &Self) -> Result<Self, CompileError> {
        Self::prepare(state, Some(before))
    }

    fn prepare(state: Arc<State>, before: Option<&Self>) -> Result<Self, CompileError> {
        let addresses = 1u64 << (32 - state.overlay_v4.prefix_len());
        if addresses > OVERLAY_MAX {
            return Err(CompileError::Overlay { overlay: state.overlay_v4, addresses, max: OVERLAY_MAX });
        }
        let resolved = Resolved::new(state, before.map(|before| &before.resolved))?;
        Ok(match before {
            Some(before) => Self { resolved, limits: before.limits, memory: before.memory.clone() },
            None => Self { resolved, limits: Limits::default(), memory: None },
        })
    }

    /// This with other limits. Images of other limits say the same of every packet.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        let memory = self.memory.map(|_| Arc::default());
        Self { limits, memory, ..self }
    }

    /// This, keeping of each agent what makes its next image cheap: for whoever follows a state by [`Compiler::after`]. Takes up to
    /// 256 MiB, some two MB for an agent that 6,000 peers may reach.
    #[must_use]
    pub fn remembering(self) -> Self {
        Self { memory: Some(Arc::default()), ..self }
    }

    /// The state this was made from.
    pub fn state(&self) -> &Arc<State> {
        &self.resolved.state
    }

    pub(crate) fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// The image of one agent: the same for the same state, whatever came before. An agent that is unknown or may not
    /// take part gets an image that denies everything.
    pub fn compile(&self, agent: &str) -> Result<Image, CompileError> {
        let kept = self.memory.as_ref().and_then(|memory| memory.take(agent));
        let made = self.make(agent, kept, None)?;
        let image = self.image(&made);
        self.remember(agent, made, None);
        Ok(image)
    }

    /// The same as [`Compiler::compile`], encoded. Where it comes from `before`, which this returned for the agent the last time,
    /// and the agent is remembered ([`Compiler::remembering`]), it costs what has changed; any other `before` is of use to
    /// share parts with.
    pub fn compile_parts(&self, agent: &str, before: Option<&Parts>) -> Result<Parts, CompileError> {
        let mut kept = self.memory.as_ref().and_then(|memory| memory.take(agent));
        let laid = kept.as_mut().and_then(|kept| kept.laid.take());
        let made = self.make(agent, kept, laid.as_ref())?;
        let change = before.zip(laid.as_ref()).and_then(|(before, laid)| {
            let delta = laid.delta(self, before, &made)?;
            before.apply(&delta).ok()
        });
        let parts = change.unwrap_or_else(|| Parts::new(&self.image(&made), before));
        self.remember(agent, made, Some((parts.hash(), laid)));
        Ok(parts)
    }

    /// `laid` is how the image before was laid out, if that is known.
    fn make(&self, agent: &str, kept: Option<Kept>, laid: Option<&Laid>) -> Result<Made, CompileError> {
        let r = &self.resolved;
        let scope = Scope::new(r, agent);
        if scope.routed.len() > ROUTES_MAX as usize {
            return Err(CompileError::Routes { agent: agent.into(), routes: scope.routed.len() });
        }
        let destinations = Destinations::new(r, &scope);
        let (mut matrix, kept) = Matrix::new(r, &scope, agent, &destinations, &self.limits, kept)?;
        let before = laid.map(Laid::words);
        let words = self.words(agent, &scope, &destinations, &mut matrix, before)?;
        Ok(Made { words, placed: matrix.placed, rules: matrix.rules, kept, scope })
    }

    fn image(&self, made: &Made) -> Image {
        let r = &self.resolved;
        let words = made.words.whole(r, made.placed.tables());
        Image { words, rules: self.rule_infos(&made.rules), routes: self.route_infos(&made.scope) }
    }

    /// Keeps what makes the agent's next image cheap; `laid` is the hash of this one, if anybody asked, and how that before it was
    /// laid out.
    fn remember(&self, agent: &str, mut made: Made, laid: Option<(Hash, Option<Laid>)>) {
        let (Some(memory), Some(mut kept)) = (&self.memory, made.kept.take()) else { return };
        kept.rows.placed = mem::take(&mut made.placed);
        kept.laid = laid.map(|(hash, before)| Laid::new(self, hash, made, before.as_ref()));
        memory.put(agent, kept);
    }

    /// Whom the agent talks to, what it reaches through routers and what it routes.
    pub fn network(&self, agent: &str) -> NetworkView {
        NetworkView::new(&self.resolved, &Scope::new(&self.resolved, agent))
    }

    /// Whether [`Compiler::network`] surely says what `before` says. Where networks are the very ones this takes less
    /// than both views, and may be `false` of equal ones: of a resource without a prefix that is opened.
    pub fn same_network(&self, before: &Self, agent: &str) -> bool {
        let (new, old) = (&self.resolved, &before.resolved);
        if !new.peers.is_numbered_as(&old.peers) || !Arc::ptr_eq(&new.networks, &old.networks) {
            return self.network(agent) == before.network(agent);
        }
        // Whoever came, went, or has another address has another number.
        let [new, old] = [new, old].map(|r| {
            let scope = Scope::new(r, agent);
            (scope.neighbours(r), scope.opened_resources(r), scope.askers(r), scope.routed)
        });
        new == old
    }

    fn words(
        &self,
        agent: &str,
        scope: &Scope,
        destinations: &Destinations,
        matrix: &mut Matrix,
        before: Option<&Words>,
    ) -> Result<Words, CompileError> {
        let r = &self.resolved;
        let of_peer: Vec<u32> = matrix.sources.iter().map(|places| places.0).collect();
        let mut classes = vec![0; 2 * destinations.count as usize];
        for (class, columns) in destinations.classes.iter().zip(&matrix.destinations) {
            let at = 2 * class.number as usize;
            (classes[at], classes[at + 1]) = (class.attributes.0, columns.0);
        }
        for (what, intervals) in
            [("IPv4 destination", &destinations.v4), ("IPv6 destination", &destinations.v6)]
        {
            if intervals.len() > 1 << INTERVALS_LOG_MAX {
                return Err(CompileError::Intervals {
                    agent: agent.into(),
                    what,
                    intervals: intervals.len(),
                });
            }
        }
        let rule_slot = |&rule: &u32| r.written.rules[rule as usize].slot;
        let slots = matrix.rules.iter().map(rule_slot).max().map_or(0, |slot| slot + 1);
        let mut ranks = vec![0; if matrix.ranks.is_empty() { 0 } else { slots as usize }];
        for (rule, &rank) in matrix.rules.iter().zip(&matrix.ranks) {
            ranks[rule_slot(rule) as usize] = rank;
        }
        let lines = |words: &[u32]| (words.len() / LINE) as u32;
        let own = scope.me.map_or(0, |me| of_peer[me as usize]);
        let mut words = Words::new(r, of_peer, before);
        words.counted(header::CLASSES, header::CLASSES_LEN, destinations.count, classes);
        words.intervals(header::SRC4_LEN, 1, &[(0, 0)]);
        words.sources6();
        words.intervals(header::DST4_LEN, 1, &destinations.v4);
        words.intervals(header::DST6_LEN, 4, &destinations.v6);
        let lists = mem::take(&mut matrix.row_lists);
        words.counted(header::ROW_LISTS, header::ROW_LISTS_LEN, lines(&lists), lists);
        let lists = mem::take(&mut matrix.column_lists);
        words.counted(header::COLUMN_LISTS, header::COLUMN_LISTS_LEN, lines(&lists), lists);
        words.counted(header::RANKS, header::RANKS_LEN, ranks.len() as u32, ranks);
        let entries = matrix.services.len() as u32 / 2;
        words.counted(header::SERVICES, header::SERVICES_LEN, entries, mem::take(&mut matrix.services));
        let placed = &matrix.placed;
        words.lines(header::BLOCKS, header::BLOCKS_LEN, &placed.blocks);
        words.lines(header::PAGES, header::PAGES_LEN, &placed.pages);
        words.set(header::COLUMNS_LEN, matrix.columns);
        words.set(header::ROW_PAGES, matrix.width);
        words.counted(header::ROWS, header::ROWS_LEN, matrix.rows, mem::take(&mut matrix.row_words));
        words.set(header::RULE_SLOTS, slots);
        words.set(header::OWN, own);
        words.set(header::ROUTES, scope.routed.iter().map(|x| u32::from(x.number) + 1).max().unwrap_or(0));
        if words.len() > self.limits.words {
            return Err(CompileError::Words {
                agent: agent.into(),
                words: words.len() as u64,
                sources: u64::from(matrix.rows),
                destinations: u64::from(matrix.columns),
                max: self.limits.words as u64,
            });
        }
        Ok(words.finish())
    }

    /// Who is behind each of these rules, which rise, by slot.
    fn rule_infos(&self, rules: &[u32]) -> BTreeMap<u32, RuleInfo> {
        let written = &self.resolved.written;
        // Policies are numbered in the order in which the state has them.
        let mut policies = self.resolved.state.policies.iter().zip(0..).peekable();
        let info = |&rule: &u32| {
            let entry = &written.rules[rule as usize];
            while policies.next_if(|(_, number)| *number < entry.policy).is_some() {}
            let ((id, policy), _) = policies.peek()?;
            Some((entry.slot, rule_info(id, policy, entry)))
        };
        rules.iter().filter_map(info).collect()
    }

    /// Who is behind a rule.
    fn rule_info(&self, rule: u32) -> RuleInfo {
        let entry = &self.resolved.written.rules[rule as usize];
        let (id, policy, _) = self.resolved.rule(rule);
        rule_info(id, policy, entry)
    }

    fn route_infos(&self, scope: &Scope) -> BTreeMap<u32, RouteInfo> {
        let r = &self.resolved;
        let info = |routed: &crate::resolve::Routed| {
            let resource = &r.resources[routed.resource as usize];
            let network = &r.networks[resource.network as usize].id;
            let info = RouteInfo {
                prefix: routed.prefix,
                network_id: network.to_string(),
                resource_id: resource.id.to_string(),
                resource_name: r.state.networks[&**network].resources[&*resource.id].name.clone(),
                masquerade: routed.masquerade,
            };
            (u32::from(routed.number), info)
        };
        scope.routed.iter().map(info).collect()
    }
}

fn rule_info(id: &str, policy: &Policy, entry: &RuleEntry) -> RuleInfo {
    let rule = &policy.rules[entry.index as usize];
    RuleInfo {
        policy_id: id.to_owned(),
        policy_name: policy.name.clone(),
        rule_id: rule.id.clone(),
        rule_name: rule.name.clone(),
        accept: entry.accept,
    }
}
