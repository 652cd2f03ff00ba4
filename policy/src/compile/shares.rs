//! What the rules that start at each source set decide: its share of the rows of whoever is in it.

use rustc_hash::FxHashMap;

use super::CompileError;
use super::columns::Columns;
use super::destinations::{inbound, outbound};
use super::outcomes::Outcomes;
use crate::resolve::{Resolved, Scope, SetId};

/// The halves that concern one agent: (source set, destination set as in `DestinationClass::sets`, rule), rising.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Halves {
    inbound: Vec<[u32; 3]>,
    /// Those the agent opens flows by; the source set is 0.
    own: Vec<[u32; 3]>,
}

/// About how many words a cell that decides something takes, its service set included.
const CELL: u64 = 16;

impl Halves {
    pub(super) fn new(r: &Resolved, scope: &Scope) -> Self {
        let half = |&h: &u32| &r.written.halves[h as usize];
        let rising = |mut halves: Vec<[u32; 3]>| {
            halves.sort_unstable();
            halves.dedup();
            halves
        };
        let others = scope.inbound.iter().map(half).map(|h| [h.source, inbound(h.destination), h.rule]);
        let own = scope.outbound.iter().map(half).map(|h| [0, outbound(h.destination), h.rule]);
        Self { inbound: rising(others.collect()), own: rising(own.collect()) }
    }

    /// About how many bytes they take.
    pub(super) fn size(&self) -> usize {
        (self.inbound.len() + self.own.len()) * size_of::<[u32; 3]>()
    }

    /// The column of each destination set, alone.
    pub(super) fn columns(&self) -> FxHashMap<u32, Alone> {
        let mut columns = FxHashMap::default();
        for halves in [&self.inbound, &self.own] {
            for meeting in halves.chunk_by(|a, b| a[..2] == b[..2]) {
                columns.entry(meeting[0][1]).or_insert(Alone::NOTHING).add(CELL, meeting);
            }
        }
        columns
    }

    /// The row of each source set, alone.
    pub(super) fn rows(&self, columns: &Columns) -> FxHashMap<SetId, Alone> {
        let mut rows = FxHashMap::default();
        for meeting in self.inbound.chunk_by(|a, b| a[..2] == b[..2]) {
            let words = CELL * columns.of(meeting[0][1]).count() as u64;
            rows.entry(meeting[0][0]).or_insert(Alone::NOTHING).add(words, meeting);
        }
        rows
    }
}

/// What a row or a column would be if there were no others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alone {
    /// About how many words it takes.
    pub(super) words: u64,
    /// The first of its rules: what tells sets apart that are equal in all else.
    pub(super) first: u32,
}

impl Alone {
    const NOTHING: Self = Self { words: 0, first: u32::MAX };

    fn add(&mut self, words: u64, meeting: &[[u32; 3]]) {
        self.words += words;
        self.first = self.first.min(meeting[0][2]);
    }
}

/// What one source set's rules decide: (index of a column, outcome), rising by column.
pub(super) type Share = Vec<(u32, u32)>;

/// The shares of one agent.
#[derive(Debug)]
pub(super) struct Shares {
    pub(super) of_set: FxHashMap<SetId, Share>,
    pub(super) own: Share,
}

impl Shares {
    pub(super) fn new(
        r: &Resolved,
        agent: &str,
        halves: &Halves,
        columns: &Columns,
        outcomes: &mut Outcomes,
    ) -> Result<Self, CompileError> {
        let mut of_set = FxHashMap::default();
        for from in halves.inbound.chunk_by(|a, b| a[0] == b[0]) {
            of_set.insert(from[0][0], share(r, from, columns, outcomes));
            outcomes.check_room(agent)?;
        }
        let own = share(r, &halves.own, columns, outcomes);
        outcomes.check_room(agent)?;
        Ok(Self { of_set, own })
    }

    /// About how many bytes they take.
    pub(super) fn size(&self) -> usize {
        self.of_set.values().map(|share| share.len() * size_of::<(u32, u32)>() + 64).sum()
    }
}

/// From halves of one source.
fn share(r: &Resolved, halves: &[[u32; 3]], columns: &Columns, outcomes: &mut Outcomes) -> Share {
    let mut pairs: Share = Vec::new();
    let mut rules = Vec::new();
    for to in halves.chunk_by(|a, b| a[1] == b[1]) {
        rules.clear();
        rules.extend(to.iter().map(|h| h[2]));
        let outcome = outcomes.of_rules(r, &rules);
        pairs.extend(columns.of(to[0][1]).map(|column| (column, outcome)));
    }
    pairs.sort_unstable();
    let mut share: Share = Vec::with_capacity(pairs.len());
    for (column, outcome) in pairs {
        match share.last_mut() {
            Some(last) if last.0 == column => last.1 = outcomes.meet(last.1, outcome),
            _ => share.push((column, outcome)),
        }
    }
    share
}
