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

use rustc_hash::FxHashMap;
use sluicegate_engine::image::Places;

use super::columns::Columns;
use super::destinations::Destinations;
use super::outcomes::{Outcomes, Words};
use super::rows::{Placed, Rows};
use super::shares::{Halves, Shares};
use super::slots::{assign, mix, mix_words};
use super::sources::Sources;
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
    /// Page numbers by row, pages, blocks.
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
    pub(super) fn new(
        r: &Resolved,
        scope: &Scope,
        agent: &str,
        destinations: &Destinations,
        limits: &Limits,
    ) -> Result<Self, CompileError> {
        let halves = Halves::new(r, scope);
        let (columns, sources, price) = sides(r, scope, destinations, &halves, limits);
        let mut outcomes = Outcomes::new(r, agent, limits.steps);
        let shares = Shares::new(&halves, &columns, &mut outcomes)?;
        let mut rows = Rows::new(&columns.numbers, columns.count);
        let too_large = |words: usize| CompileError::Words {
            agent: agent.into(),
            words: words as u64,
            sources: sources.lanes.len() as u64 + 1,
            destinations: u64::from(columns.count),
            max: limits.words as u64,
        };
        let found = walk(&sources, &shares, &mut outcomes, &mut rows, (limits.words, &too_large))?;
        let numbered = Numbered::new(r, scope, &sources, &found, price);
        let row_words = u64::from(numbered.count) * u64::from(rows.width);
        if row_words + rows.words() as u64 > limits.words as u64 {
            return Err(too_large(row_words as usize + rows.words()));
        }
        let Words { cells, services, rules } = outcomes.words(&rows.outcomes())?;
        let placed = rows.place(&cells, &numbered.rows, numbered.count);
        let (of_peer, row_lists) = short::lists(&numbered.of_peer);
        let lists = !row_lists.is_empty() || !columns.lists.is_empty();
        let slots: Vec<u32> = rules.iter().map(|&rule| r.written.rules[rule as usize].slot).collect();
        Ok(Self {
            sources: of_peer,
            destinations: columns.of_class,
            rows: numbered.count,
            columns: columns.count,
            width: rows.width,
            placed,
            row_lists,
            column_lists: columns.lists,
            services,
            ranks: if lists { ranks::ranks(&slots) } else { Vec::new() },
            rules,
        })
    }
}

/// Tells both sides apart: in one lane each, if that is small enough, else in several; and at which price of a look-up.
fn sides(
    r: &Resolved,
    scope: &Scope,
    destinations: &Destinations,
    halves: &Halves,
    limits: &Limits,
) -> (Columns, Sources, Option<u64>) {
    let alone = halves.columns();
    let key = |set: u32| r.sets.key(set >> 1) ^ u64::from(set & 1);
    let columns = Columns::new(destinations, &alone, None, key);
    let sources = Sources::new(r, scope, &halves.rows(&columns), None, limits.together);
    if sources.lanes.weight() <= limits.together {
        return (columns, sources, None);
    }
    let price = Some(limits.look_up);
    let columns = Columns::new(destinations, &alone, price, key);
    let sources = Sources::new(r, scope, &halves.rows(&columns), price, u64::MAX);
    (columns, sources, price)
}

/// The distinct row of each kind of source, and the agent's own.
struct Found {
    of_kind: Vec<u32>,
    own: u32,
}

/// Works out every row.
fn walk(
    sources: &Sources,
    shares: &Shares,
    outcomes: &mut Outcomes<'_>,
    rows: &mut Rows<'_>,
    (most, too_large): (usize, &dyn Fn(usize) -> CompileError),
) -> Result<Found, CompileError> {
    enum Step {
        Down(u32),
        /// Back to the row of so many changes.
        Up(usize),
    }
    let lanes = &sources.lanes;
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
            if rows.words() > most {
                return Err(too_large(rows.words()));
            }
        }
        outcomes.check_room()?;
        steps.push(Step::Up(before));
        steps.extend(children[kind as usize].iter().map(|&child| Step::Down(child)));
    }
    Ok(Found { of_kind, own })
}

/// Where rows go.
struct Numbered {
    /// Rows of each peer, rising.
    of_peer: Vec<Vec<u32>>,
    /// (place, number among distinct rows).
    rows: Vec<(u32, u32)>,
    /// One more than the last place.
    count: u32,
}

/// Distinct row of peers that are known and have no right, and of the agent itself: each has a place of its own.
const KNOWN: u64 = u64::MAX;
const OWN: u64 = u64::MAX - 1;

impl Numbered {
    /// A row is placed by the address of the first peer that has it, and in one lane of several by the lane's first set:
    /// whatever rules come and go, it stays where it is.
    fn new(r: &Resolved, scope: &Scope, sources: &Sources, found: &Found, price: Option<u64>) -> Self {
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
                let key = match price {
                    None => u64::from(address),
                    Some(_) => {
                        let root: SetId = lanes.sets(kind).last().unwrap_or(0);
                        mix_words([address, r.sets.key(root) as u32, (r.sets.key(root) >> 32) as u32])
                    }
                };
                keys.entry(row).and_modify(|known| *known = key.min(*known)).or_insert(key);
                rows.push(row);
            }
            if rows.is_empty() {
                rows.push(KNOWN);
                keys.insert(KNOWN, mix(KNOWN));
            }
        }
        let mut distinct: Vec<(u64, u64)> = keys.into_iter().collect();
        distinct.sort_unstable();
        let (places, count) = assign(&distinct.iter().map(|row| row.1).collect::<Vec<_>>());
        let place_of: FxHashMap<u64, u32> =
            distinct.iter().zip(&places).map(|(row, &p)| (row.0, p)).collect();
        let number = |row: u64| match row {
            KNOWN => 0,
            OWN => found.own,
            row => row as u32,
        };
        let of_peer = rows_of.into_iter().map(|rows| {
            let mut places: Vec<u32> = rows.into_iter().map(|row| place_of[&row]).collect();
            places.sort_unstable();
            places.dedup();
            places
        });
        Self {
            of_peer: of_peer.collect(),
            rows: distinct.iter().zip(&places).map(|(row, &place)| (place, number(row.0))).collect(),
            count,
        }
    }
}
