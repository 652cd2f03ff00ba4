//! What is kept of an agent's matrix, so that the next one costs what has changed.
//!
//! The row of a source follows from the shares of the sets it is in, and from nothing else. Where neither these shares nor who
//! is in these sets is other than before, the row is what it was; all other rows are worked out anew, as all are the first time.
//! Nothing is taken over for what a change was said to be: shares and members are compared. Where rows, pages, blocks and
//! services go in the image is found anew each time, from those in use, since it depends on all of them; pages and blocks are
//! written only where that is another place (`lines`), and of the image only what came out otherwise (`laid`).

use std::collections::BTreeMap;
use std::ptr;
use std::sync::{Arc, Weak};

use rustc_hash::FxHashMap;

use super::CompileError;
use super::columns::Columns;
use super::laid::Laid;
use super::lanes::Lanes;
use super::matrix::{Most, walk};
use super::outcomes::Outcomes;
use super::rows::{Rows, Used};
use super::shares::{Halves, Shares};
use super::slots::assign;
use super::sources::Sources;
use crate::resolve::{Bits, Numbering, Resolved, Scope, SetId, Written};

/// Rows and outcomes that are not in use any more are kept up to as many as are, and these.
const LEFT: usize = 4096;

/// For so many peers it is asked in which sets they are, for more of all sets who is in them.
const FEW: usize = 64;

/// The rows of an agent whose sources are told apart in one lane, with what they follow from.
#[derive(Debug)]
pub(super) struct Kept {
    /// By which peers are numbered here.
    peers: Numbering,
    members: FxHashMap<SetId, Box<[u32]>>,
    /// What the shares follow from.
    from: From,
    shares: Shares,
    pub(super) outcomes: Outcomes,
    pub(super) rows: Rows,
    /// The distinct row of each peer; 0 for whoever has none.
    pub(super) of_peer: Vec<u32>,
    /// That of the agent itself.
    pub(super) own: u32,
    /// Keys of rows, where these went, and how many places there were.
    placed: (Vec<u64>, Vec<u32>, u32),
    /// The image that was made of these rows, where somebody has it encoded.
    pub(super) laid: Option<Laid>,
}

/// What shares follow from: where it is the same, so are they.
#[derive(Debug)]
struct From {
    /// Compared by where they are; not kept alive.
    written: Weak<Written>,
    halves: Halves,
    /// Columns of each set.
    columns: Vec<(u32, u32)>,
}

impl From {
    fn new(r: &Resolved, halves: &Halves, columns: &Columns) -> Self {
        let (written, columns) = (Arc::downgrade(&r.written), columns.by_set.clone());
        Self { written, halves: halves.clone(), columns }
    }

    fn is(&self, r: &Resolved, halves: &Halves, columns: &Columns) -> bool {
        ptr::eq(self.written.as_ptr(), Arc::as_ptr(&r.written))
            && self.halves == *halves
            && self.columns == columns.by_set
    }

    fn size(&self) -> usize {
        self.halves.size() + self.columns.len() * size_of::<(u32, u32)>()
    }
}

impl Kept {
    /// Works out every row.
    pub(super) fn new(
        r: &Resolved,
        agent: &str,
        halves: &Halves,
        columns: &Columns,
        sources: &Sources,
        steps: usize,
        most: Most<'_>,
    ) -> Result<Self, CompileError> {
        let mut outcomes = Outcomes::new(steps);
        let shares = Shares::new(r, agent, halves, columns, &mut outcomes)?;
        let mut rows = Rows::new(columns.numbers.clone(), columns.count);
        let found = walk(agent, &sources.lanes, &shares, &mut outcomes, &mut rows, most)?;
        let row = |peer: u32| sources.lanes.of(peer).next().map_or(0, |kind| found.of_kind[kind as usize]);
        Ok(Self {
            peers: r.peers.numbering.clone(),
            members: shares.of_set.keys().map(|&set| (set, r.sets.peers(set).into())).collect(),
            from: From::new(r, halves, columns),
            shares,
            outcomes,
            rows,
            of_peer: (0..r.peers.len() as u32).map(row).collect(),
            own: found.own,
            placed: Default::default(),
            laid: None,
        })
    }

    /// Brings the rows up to another state, of which `halves` and `columns` are. `None` when that would be no less than to work
    /// out all of them, or when there is no room: then whoever does that says why.
    pub(super) fn follow(
        mut self,
        r: &Resolved,
        scope: &Scope,
        agent: &str,
        halves: &Halves,
        columns: &Columns,
    ) -> Option<Self> {
        if !Arc::ptr_eq(&self.peers, &r.peers.numbering) || self.rows.columns() != columns.numbers {
            return None;
        }
        // Who is there no more is in no set, and numbers that this state does not know are nobody's.
        self.of_peer.resize(r.peers.len(), 0);
        let shares = match self.from.is(r, halves, columns) {
            true => None,
            false => Some(Shares::new(r, agent, halves, columns, &mut self.outcomes).ok()?),
        };
        let mut changed = self.changed(r, shares.as_ref());
        if let Some(shares) = shares {
            (self.shares, self.from) = (shares, From::new(r, halves, columns));
        }
        scope.me.into_iter().for_each(|me| changed.remove(me));
        let changed: Vec<u32> = changed.iter().collect();
        let lanes = lanes(r, &self.shares, &changed);
        let found = walk(agent, &lanes, &self.shares, &mut self.outcomes, &mut self.rows, None).ok()?;
        for (&peer, i) in changed.iter().zip(0..) {
            let kind = lanes.of(i).next();
            self.of_peer[peer as usize] = kind.map_or(0, |kind| found.of_kind[kind as usize]);
        }
        self.own = found.own;
        Some(self)
    }

    /// Who may have another row: members of sets with another share, where there are others, and whoever entered or left one. Notes
    /// who is a member now.
    fn changed(&mut self, r: &Resolved, others: Option<&Shares>) -> Bits {
        let mut changed = Bits::new(r.peers.len());
        let known = |peer: &&u32| (**peer as usize) < r.peers.len();
        let shares = others.unwrap_or(&self.shares);
        for (&set, share) in &shares.of_set {
            let now = r.sets.peers(set);
            let before = self.members.get(&set).map_or(&[][..], |members| members);
            if others.is_some() && self.shares.of_set.get(&set) != Some(share) {
                before.iter().chain(now).filter(known).for_each(|&peer| changed.insert(peer));
            } else if before != now {
                let left = before.iter().filter(|peer| now.binary_search(peer).is_err());
                let entered = now.iter().filter(|peer| before.binary_search(peer).is_err());
                left.chain(entered).filter(known).for_each(|&peer| changed.insert(peer));
            }
            if before != now {
                self.members.insert(set, now.into());
            }
        }
        self.members.retain(|set, members| {
            let stays = shares.of_set.contains_key(set);
            if !stays {
                members.iter().filter(known).for_each(|&peer| changed.insert(peer));
            }
            stays
        });
        changed
    }

    /// This, for the next time, unless most of it is of no use any more. `rows` and `outcomes` are how many are in use.
    pub(super) fn worth_keeping(self, rows: usize, outcomes: usize) -> Option<Self> {
        let kept = |all: usize, used: usize| all <= 2 * used + LEFT;
        (kept(self.rows.len(), rows) && kept(self.outcomes.len(), outcomes)).then_some(self)
    }

    /// A place for each of these keys of rows, and how many places there are.
    pub(super) fn assign(&mut self, keys: Vec<u64>) -> (&[u32], u32) {
        if self.placed.0 != keys || keys.is_empty() {
            let (places, count) = assign(&keys);
            self.placed = (keys, places, count);
        }
        (&self.placed.1, self.placed.2)
    }

    /// What the rows in use are made of.
    pub(super) fn used(&self, rows: &[(u32, u32)]) -> Used {
        self.rows.used(rows.iter().map(|row| row.1))
    }

    /// About how many bytes this takes.
    pub(super) fn size(&self) -> usize {
        let members: usize = self.members.values().map(|members| members.len() * 4 + 64).sum();
        let laid = self.laid.as_ref().map_or(0, Laid::size);
        let placed = self.placed.0.len() * (size_of::<u64>() + size_of::<u32>());
        let from = self.from.size() + placed;
        self.of_peer.len() * 4
            + members
            + from
            + self.shares.size()
            + self.outcomes.size()
            + self.rows.size()
            + laid
    }
}

/// Tells some peers apart, by the sets they are in; members are numbered in their order.
fn lanes(r: &Resolved, shares: &Shares, peers: &[u32]) -> Lanes {
    let mut lanes = Lanes::new(peers.len(), None);
    let mut of_set: BTreeMap<SetId, Vec<u32>> = BTreeMap::new();
    if peers.len() <= FEW {
        for (&peer, number) in peers.iter().zip(0..) {
            let sets = r.sets.of_peer(peer).into_iter().filter(|set| shares.of_set.contains_key(set));
            sets.for_each(|set| of_set.entry(set).or_default().push(number));
        }
    } else {
        const OTHERS: u32 = u32::MAX;
        let mut numbers = vec![OTHERS; r.peers.len()];
        peers.iter().zip(0..).for_each(|(&peer, number)| numbers[peer as usize] = number);
        let number = |&peer: &u32| Some(numbers[peer as usize]).filter(|&number| number != OTHERS);
        of_set.extend(
            shares.of_set.keys().map(|&set| (set, r.sets.peers(set).iter().filter_map(number).collect())),
        );
    }
    of_set.iter().for_each(|(&set, members)| lanes.add(set, members, 0));
    lanes
}
