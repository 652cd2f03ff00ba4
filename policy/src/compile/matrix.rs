//! What is decided between sources and destinations: cells, in shared blocks and pages, in rows.
//!
//! A row is never worked out rule by rule. Each source set has a *share*: what the rules that start there decide in each
//! column. Kinds of sources are the leaves of trees whose every step down adds one source set (`lanes`), so one row
//! goes down a tree, meets the share of each step, and takes it back on the way up. The cost is that of the shares along
//! the tree, whatever the number of rules that overlap in a cell.
//!
//! What keeps a large matrix small, step by step:
//!
//! 1. addresses that the same rules lead to share a column, sources whose rows came out equal share a row; equal blocks of 16
//!    cells, pages of 16 blocks and outcomes are kept once;
//! 2. where one row for each combination of source sets, and one column for each combination of destination sets, would
//!    take more than [`Limits::together`], both sides are told apart in several lanes: sources have lists of
//!    rows and destinations lists of columns, and a packet is judged by every pair of them.

use std::mem;

use rustc_hash::FxHashMap;
use sluicegate_engine::image::Places;

use super::columns::Columns;
use super::destinations::Destinations;
use super::kept::Kept;
use super::lanes::Lanes;
use super::outcomes::{Outcomes, Words};
use super::rows::{Placed, Rows, Used};
use super::shares::{Halves, Shares};
use super::slots::{assign, mix, mix_words};
use super::sources::{self, Sources};
use super::{CompileError, Limits, ranks, short};
use crate::resolve::{Resolved, Scope, SetId};

/// The class matrix of one agent's image, as words.
#[derive(Debug)]
pub(super) struct Matrix {
    /// Rows of each peer.
    pub(super) sources: Vec<Places>,
    /// Columns of each of `Destinations::classes`.
    pub(super) destinations: Vec<Places>,
    /// How many rows and columns there are, those of nobody included.
    pub(super) rows: u32,
    /// See `rows`.
    pub(super) columns: u32,
    /// Pages in a row.
    pub(super) width: u32,
    /// Page numbers by row.
    pub(super) row_words: Vec<u32>,
    /// Pages and blocks.
    pub(super) placed: Placed,
    /// Lists of rows.
    pub(super) row_lists: Vec<u32>,
    /// Lists of columns.
    pub(super) column_lists: Vec<u32>,
    /// Service entries, two words each.
    pub(super) services: Vec<u32>,
    /// Rules that decide anything, rising.
    pub(super) rules: Vec<u32>,
    /// The rank of each of `rules`, where there are lists.
    pub(super) ranks: Vec<u32>,
}

impl Matrix {
    /// `kept` is what was kept of an agent's matrix, of whatever state; it makes this cheaper, and never another.
    pub(super) fn new(
        r: &Resolved,
        scope: &Scope,
        agent: &str,
        destinations: &Destinations,
        limits: &Limits,
        kept: Option<Kept>,
    ) -> Result<(Self, Option<Kept>), CompileError> {
        let halves = Halves::new(r, scope);
        let alone = halves.columns();
        let columns = Columns::new(destinations, &alone, None, |set| key(r, set));
        let rows = halves.rows(&columns);
        // Where each source might have a row of its own, sources are surely told apart in one lane.
        let apart: u64 = rows.iter().map(|(&set, row)| r.sets.peers(set).len() as u64 * row.words).sum();
        if apart <= limits.together
            && let Some(kept) = kept
            && let Some(kept) = kept.follow(r, scope, agent, &halves, &columns)
        {
            let known = sources::known(r, scope, rows.keys().copied());
            if let Ok(done) = Self::in_one_lane(r, scope, agent, &columns, &known, limits, kept) {
                return Ok(done);
            }
        }
        let sources = Sources::new(r, scope, &rows, None, limits.together);
        let too_large = |words: usize| too_large(agent, words, &sources, &columns, limits);
        if sources.lanes.weight() > limits.together {
            return Self::in_lanes(r, scope, agent, destinations, limits, &halves)
                .map(|matrix| (matrix, None));
        }
        let most: Most<'_> = Some((limits.words, &too_large));
        let kept = Kept::new(r, agent, &halves, &columns, &sources, limits.steps, most)?;
        Self::in_one_lane(r, scope, agent, &columns, &sources.known, limits, kept)
            .map_err(|error| error.unwrap_or_else(too_large))
    }

    /// From the rows of sources that are told apart in one lane. Where the error is how many words rows, pages and blocks take,
    /// these are too many.
    fn in_one_lane(
        r: &Resolved,
        scope: &Scope,
        agent: &str,
        columns: &Columns,
        known: &[bool],
        limits: &Limits,
        mut kept: Kept,
    ) -> Result<(Self, Option<Kept>), NoMatrix> {
        let (of_peer, numbered) = Numbered::in_one_lane(r, scope, known, &mut kept);
        let used = kept.used(&numbered.rows);
        let words = numbered.count as usize * kept.rows.width as usize + used.words();
        if words > limits.words {
            return Err(NoMatrix::TooLarge(words));
        }
        let outcomes = kept.rows.outcomes(&used, kept.outcomes.len());
        let words = kept.outcomes.words(r, agent, &outcomes).map_err(NoMatrix::Error)?;
        let matrix =
            Self::put_together(r, columns, &mut kept.rows, &used, &numbered, words, (of_peer, Vec::new()));
        Ok((matrix, kept.worth_keeping(numbered.rows.len(), outcomes.len())))
    }

    /// Sources and destinations in several lanes.
    fn in_lanes(
        r: &Resolved,
        scope: &Scope,
        agent: &str,
        destinations: &Destinations,
        limits: &Limits,
        halves: &Halves,
    ) -> Result<Self, CompileError> {
        let price = Some(limits.look_up);
        let columns = Columns::new(destinations, &halves.columns(), price, |set| key(r, set));
        let sources = Sources::new(r, scope, &halves.rows(&columns), price, u64::MAX);
        let too_large = |words: usize| too_large(agent, words, &sources, &columns, limits);
        let mut outcomes = Outcomes::new(limits.steps);
        let shares = Shares::new(r, agent, halves, &columns, &mut outcomes)?;
        let mut rows = Rows::new(columns.numbers.clone(), columns.count);
        let most: Most<'_> = Some((limits.words, &too_large));
        let found = walk(agent, &sources.lanes, &shares, &mut outcomes, &mut rows, most)?;
        let (of_peer, numbered) = Numbered::in_lanes(r, scope, &sources, &found);
        let used = rows.used(numbered.rows.iter().map(|row| row.1));
        let words = numbered.count as usize * rows.width as usize + used.words();
        if words > limits.words {
            return Err(too_large(words));
        }
        let words = outcomes.words(r, agent, &rows.outcomes(&used, outcomes.len()))?;
        Ok(Self::put_together(r, &columns, &mut rows, &used, &numbered, words, short::lists(&of_peer)))
    }

    fn put_together(
        r: &Resolved,
        columns: &Columns,
        rows: &mut Rows,
        used: &Used,
        numbered: &Numbered,
        Words { cells, services, rules }: Words,
        (sources, row_lists): (Vec<Places>, Vec<u32>),
    ) -> Self {
        let lists = !row_lists.is_empty() || !columns.lists.is_empty();
        let slot = |&rule: &u32| r.written.rules[rule as usize].slot;
        Self {
            sources,
            destinations: columns.of_class.clone(),
            rows: numbered.count,
            columns: columns.count,
            width: rows.width,
            row_words: rows.place(used, cells, &numbered.rows, numbered.count),
            placed: mem::take(&mut rows.placed),
            row_lists,
            column_lists: columns.lists.clone(),
            services,
            ranks: if lists { ranks::ranks(&rules.iter().map(slot).collect::<Vec<_>>()) } else { Vec::new() },
            rules,
        }
    }
}

/// Why there is no matrix.
enum NoMatrix {
    /// Rows, pages and blocks would take so many words.
    TooLarge(usize),
    Error(CompileError),
}

impl NoMatrix {
    fn unwrap_or_else(self, too_large: impl Fn(usize) -> CompileError) -> CompileError {
        match self {
            Self::TooLarge(words) => too_large(words),
            Self::Error(error) => error,
        }
    }
}

fn too_large(
    agent: &str,
    words: usize,
    sources: &Sources,
    columns: &Columns,
    limits: &Limits,
) -> CompileError {
    CompileError::Words {
        agent: agent.into(),
        words: words as u64,
        sources: sources.lanes.len() as u64 + 1,
        destinations: u64::from(columns.count),
        max: limits.words as u64,
    }
}

/// Tells destination sets apart, as in `DestinationClass::sets`, whatever their numbers.
fn key(r: &Resolved, set: u32) -> u64 {
    r.sets.key(set >> 1) ^ u64::from(set & 1)
}

/// The distinct row of each kind of source, and the agent's own.
pub(super) struct Found {
    pub(super) of_kind: Vec<u32>,
    pub(super) own: u32,
}

/// The most words of rows that are worked out, and what is said above.
pub(super) type Most<'a> = Option<(usize, &'a dyn Fn(usize) -> CompileError)>;

/// Works out the rows of every kind in use, and the agent's own.
pub(super) fn walk(
    agent: &str,
    lanes: &Lanes,
    shares: &Shares,
    outcomes: &mut Outcomes,
    rows: &mut Rows,
    most: Most<'_>,
) -> Result<Found, CompileError> {
    enum Step {
        Down(u32),
        /// Back to the row of so many changes.
        Up(usize),
    }
    let mut of_kind = vec![0; lanes.len()];
    let changes = rows.meet(&shares.own, outcomes);
    let own = rows.keep();
    rows.take_back(changes);
    let (roots, children) = lanes.trees();
    let mut steps: Vec<Step> = roots.into_iter().map(Step::Down).collect();
    while let Some(step) = steps.pop() {
        let kind = match step {
            Step::Up(changes) => {
                rows.take_back(changes);
                continue;
            }
            Step::Down(kind) => kind,
        };
        let before = match shares.of_set.get(&lanes.set(kind)) {
            Some(share) => rows.meet(share, outcomes),
            None => continue,
        };
        if lanes.in_use(kind) {
            of_kind[kind as usize] = rows.keep();
            if let Some((_, too_large)) = most.filter(|(most, _)| rows.words() > *most) {
                return Err(too_large(rows.words()));
            }
        }
        outcomes.check_room(agent)?;
        steps.push(Step::Up(before));
        steps.extend(children[kind as usize].iter().map(|&child| Step::Down(child)));
    }
    Ok(Found { of_kind, own })
}

/// Where rows go.
struct Numbered {
    /// (place, number among distinct rows).
    rows: Vec<(u32, u32)>,
    /// One more than the last place.
    count: u32,
}

/// Distinct row of peers that are known and have no right, and of the agent itself: each has a place of its own.
const KNOWN: u64 = u64::MAX;
const OWN: u64 = u64::MAX - 1;

impl Numbered {
    /// From key and name of each distinct row.
    fn new(rows: &[(u64, u64)], own: u32) -> Self {
        let (places, count) = assign(&rows.iter().map(|row| row.0).collect::<Vec<_>>());
        Self::at(rows, &places, count, own)
    }

    /// The same, given the place of each key and how many places there are.
    fn at(rows: &[(u64, u64)], places: &[u32], count: u32, own: u32) -> Self {
        let number = |row: u64| match row {
            KNOWN => 0,
            OWN => own,
            row => row as u32,
        };
        Self { rows: rows.iter().zip(places).map(|(row, &place)| (place, number(row.1))).collect(), count }
    }

    /// A row is placed by the address of the first peer that has it: whatever rules come and go, it stays where it is.
    fn in_one_lane(r: &Resolved, scope: &Scope, known: &[bool], kept: &mut Kept) -> (Vec<Places>, Self) {
        let mut seen = vec![false; kept.rows.len()];
        let mut keys: Vec<(u64, u64)> = Vec::new();
        for (peer, v4) in r.peers.iter_v4() {
            let row = kept.of_peer[peer as usize];
            if row != 0 && !mem::replace(&mut seen[row as usize], true) {
                keys.push((u64::from(v4), u64::from(row)));
            }
        }
        let others = known.iter().zip(&kept.of_peer).zip(0..).filter(|(_, peer)| Some(*peer) != scope.me);
        if others.into_iter().any(|((&known, &row), _)| known && row == 0) {
            keys.push((mix(KNOWN), KNOWN));
        }
        keys.extend(scope.me.map(|me| (u64::from(r.peers[me as usize].v4), OWN)));
        let own_row = kept.own;
        let (at, count) = kept.assign(keys.iter().map(|row| row.0).collect());
        let numbered = Self::at(&keys, at, count, own_row);
        let (mut places, mut own) = (vec![0; kept.rows.len()], 0);
        for (&(_, row), &(place, _)) in keys.iter().zip(&numbered.rows) {
            match row {
                KNOWN => places[0] = place,
                OWN => own = place,
                row => places[row as usize] = place,
            }
        }
        let place = |(&known, &row): (&bool, &u32)| Places::one(if known { places[row as usize] } else { 0 });
        let mut of_peer: Vec<Places> = known.iter().zip(&kept.of_peer).map(place).collect();
        scope.me.into_iter().for_each(|me| of_peer[me as usize] = Places::one(own));
        (of_peer, numbered)
    }

    /// Rows of each peer, rising. A row is placed by the address of the first peer that has it and by its lane's first set.
    fn in_lanes(r: &Resolved, scope: &Scope, sources: &Sources, found: &Found) -> (Vec<Vec<u32>>, Self) {
        let lanes = &sources.lanes;
        // The key of each distinct row: the lowest of whoever has it.
        let mut keys: FxHashMap<u64, u64> = FxHashMap::default();
        let mut rows_of: Vec<Vec<u64>> = vec![Vec::new(); r.peers.len()];
        for (peer, rows) in rows_of.iter_mut().enumerate().filter(|(peer, _)| sources.known[*peer]) {
            let address = r.peers[peer].v4;
            if Some(peer as u32) == scope.me {
                rows.push(OWN);
                keys.insert(OWN, u64::from(address));
                continue;
            }
            for kind in lanes.of(peer as u32).filter(|&kind| found.of_kind[kind as usize] != 0) {
                let row = u64::from(found.of_kind[kind as usize]);
                let root: SetId = lanes.sets(kind).last().unwrap_or(0);
                let key = mix_words([address, r.sets.key(root) as u32, (r.sets.key(root) >> 32) as u32]);
                keys.entry(row).and_modify(|known| *known = key.min(*known)).or_insert(key);
                rows.push(row);
            }
            if rows.is_empty() {
                rows.push(KNOWN);
                keys.insert(KNOWN, mix(KNOWN));
            }
        }
        let mut keys: Vec<(u64, u64)> = keys.into_iter().map(|(row, key)| (key, row)).collect();
        keys.sort_unstable();
        let numbered = Self::new(&keys, found.own);
        let place_of: FxHashMap<u64, u32> =
            keys.iter().zip(&numbered.rows).map(|(row, &(place, _))| (row.1, place)).collect();
        let of_peer = rows_of.into_iter().map(|rows| {
            let mut places: Vec<u32> = rows.into_iter().map(|row| place_of[&row]).collect();
            places.sort_unstable();
            places.dedup();
            places
        });
        (of_peer.collect(), numbered)
    }
}
