//! The rules of a state, looked up policy by policy: those of a policy that is as it was are taken from the state before.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluicegate_engine::image::SLOTS_MAX;

use super::peers::Turned;
use super::sets::Members;
use super::{Half, Lists, RuleEntry, SetId, Sets, effectively_bidirectional};
use crate::compile::CompileError;
use crate::model::{Action, End, Policy, PostureFailed, Rule, State};

/// Every rule that counts, and what it leads from and to.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) policies: Vec<Arc<str>>,
    /// A number for each policy that no other reading of any has: where it is the same, so are all names and rules.
    pub(crate) readings: Vec<u64>,
    pub(crate) rules: Vec<RuleEntry>,
    pub(crate) halves: Vec<Half>,
    ranges: Vec<Range<u32>>,
    /// Where the rules, halves and ranges of each policy begin.
    starts: Vec<[u32; 3]>,
    by_source: Lists,
    by_destination: Lists,
}

impl Written {
    /// Looks up the rules of a state. `before` are those of another state whose groups have the same numbers, and so have peers
    /// and resources but for those named; its sets are among `sets`.
    pub(super) fn new(
        state: &State,
        sets: &mut Sets,
        before: Option<(&Self, &State, &Named<'_>)>,
    ) -> Result<Self, CompileError> {
        let mut this = Self::default();
        let turned = |policy: &Policy| before.is_some_and(|(.., named)| named.by(policy));
        let old = before.into_iter().flat_map(|(written, state, _)| {
            state.policies.iter().zip(0..).map(move |((id, policy), number)| (id, policy, written, number))
        });
        let mut old = old.peekable();
        for (id, policy) in &state.policies {
            while old.next_if(|old| old.0 < id).is_some() {}
            this.starts.push(this.ends());
            match old.next_if(|old| old.0 == id) {
                Some((_, was, written, number)) if reads_as(policy, was) && !turned(policy) => {
                    this.take(written, number, policy.name == was.name);
                }
                _ => this.policy(id, policy, sets)?,
            }
        }
        sets.index();
        let pairs = |end: fn(&Half) -> SetId| {
            this.halves.iter().zip(0..).map(|(h, i)| (end(h), i)).collect::<Vec<_>>()
        };
        let (sources, destinations) = (pairs(|h| h.source), pairs(|h| h.destination));
        this.by_source = Lists::new(sets.len(), &sources);
        this.by_destination = Lists::new(sets.len(), &destinations);
        Ok(this)
    }

    fn ends(&self) -> [u32; 3] {
        [self.rules.len(), self.halves.len(), self.ranges.len()].map(|len| len as u32)
    }

    /// Appends a policy as it was, but perhaps for its name.
    fn take(&mut self, from: &Self, policy: usize, same_name: bool) {
        let here = self.ends();
        let [rules, halves, ranges] = from.starts[policy];
        let [rules_end, halves_end, ranges_end] =
            from.starts.get(policy + 1).copied().unwrap_or_else(|| from.ends());
        let number = self.policies.len() as u32;
        self.policies.push(from.policies[policy].clone());
        self.readings.push(if same_name { from.readings[policy] } else { reading() });
        self.ranges.extend_from_slice(&from.ranges[ranges as usize..ranges_end as usize]);
        for rule in &from.rules[rules as usize..rules_end as usize] {
            let Range { start, end } = rule.ranges;
            let ranges = start - ranges + here[2]..end - ranges + here[2];
            self.rules.push(RuleEntry { policy: number, ranges, ..*rule });
        }
        let half = |half: &Half| Half { rule: half.rule - rules + here[0], ..*half };
        self.halves.extend(from.halves[halves as usize..halves_end as usize].iter().map(half));
    }

    /// Looks up a policy, and appends it.
    fn policy(&mut self, id: &str, policy: &Policy, sets: &mut Sets) -> Result<(), CompileError> {
        let number = self.policies.len() as u32;
        self.policies.push(id.into());
        self.readings.push(reading());
        if !policy.enabled {
            return Ok(());
        }
        for (rule, index) in policy.rules.iter().zip(0..).filter(|(r, _)| r.enabled) {
            if rule.slot >= SLOTS_MAX {
                return Err(CompileError::Slot { rule: rule.id.clone(), slot: rule.slot });
            }
            let start = self.ranges.len() as u32;
            self.ranges.extend(rule.service.axis_ranges());
            let ranges = start..self.ranges.len() as u32;
            let accept = rule.action == Action::Accept;
            self.rules.push(RuleEntry { policy: number, index, slot: rule.slot, accept, ranges });
            // Who fails is let in by nothing, and kept out as before.
            self.halves(rule, accept.then_some(&policy.posture_failed), sets);
        }
        Ok(())
    }

    fn halves(&mut self, rule: &Rule, failing: Option<&PostureFailed>, sets: &mut Sets) {
        let number = self.rules.len() as u32 - 1;
        let Some(sources) = sets.intern(&rule.sources, failing, 0, Members::Peers) else { return };
        if let Some(destination) = sets.intern(&rule.destinations, None, 0, Members::All) {
            self.halves.push(Half { rule: number, source: sources, destination });
        }
        for distribution in sets.distributions_of(&rule.destinations) {
            let within = sets.intern(&rule.sources, failing, distribution, Members::Peers);
            let to = sets.intern(&rule.destinations, None, 0, Members::Distributed(distribution));
            if let (Some(source), Some(destination)) = (within, to) {
                self.halves.push(Half { rule: number, source, destination });
            }
        }
        if effectively_bidirectional(rule)
            && let Some(source) = sets.intern(&rule.destinations, failing, 0, Members::Peers)
        {
            self.halves.push(Half { rule: number, source, destination: sources });
        }
    }

    /// The axis ranges of a rule.
    pub(super) fn service(&self, rule: u32) -> &[Range<u32>] {
        let Range { start, end } = self.rules[rule as usize].ranges;
        &self.ranges[start as usize..end as usize]
    }

    /// Halves whose sources are the set.
    pub(super) fn halves_from(&self, set: SetId) -> &[u32] {
        self.by_source.get(set)
    }

    /// Halves whose destinations are the set.
    pub(super) fn halves_to(&self, set: SetId) -> &[u32] {
        self.by_destination.get(set)
    }

    /// How many sets no half has any more.
    pub(super) fn unused_sets(&self, sets: &Sets) -> usize {
        let unused = |set: &u32| self.halves_from(*set).is_empty() && self.halves_to(*set).is_empty();
        (0..sets.len() as u32).filter(unused).count()
    }
}

/// What rules or lists of failing peers may name, and which came or went since they were looked up.
pub(super) struct Named<'a> {
    pub(super) peers: &'a Turned<'a>,
    pub(super) resources: BTreeSet<Arc<str>>,
}

impl Named<'_> {
    /// Whether a policy names one of them.
    fn by(&self, policy: &Policy) -> bool {
        let end = |end: &End| match end {
            End::Groups(_) => false,
            End::Peer(id) => self.peers.contains(id.as_str()),
            End::Resource(id) => self.resources.contains(id.as_str()),
        };
        !self.is_empty()
            && (policy.rules.iter().any(|rule| end(&rule.sources) || end(&rule.destinations))
                || self.peers.iter().any(|&id| policy.posture_failed.contains(id)))
    }

    fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.resources.is_empty()
    }

    /// Whether any policy does.
    pub(super) fn by_any(&self, state: &State) -> bool {
        !self.is_empty() && state.policies.values().any(|policy| self.by(policy))
    }
}

fn reading() -> u64 {
    static READINGS: AtomicU64 = AtomicU64::new(0);
    READINGS.fetch_add(1, Ordering::Relaxed)
}

/// Whether two policies have the same rules for the same peers, whatever they are called; found without looking into them.
fn reads_as(a: &Policy, b: &Policy) -> bool {
    a.enabled == b.enabled && a.rules.is_same(&b.rules) && a.posture_failed.is_same(&b.posture_failed)
}
