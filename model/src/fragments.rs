//! What the model remembers of datagrams in fragments: which of their bytes have passed, one by one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sluicegate_engine::DropReason;
use sluicegate_engine::flow::Side;

use crate::parse::{Fragment, Header};

/// Which datagram a fragment is of.
type Name = (Side, IpAddr, IpAddr, u32, u8);

/// A datagram whose first fragment has passed.
#[derive(Clone, Debug)]
pub struct Datagram {
    name: Name,
    /// The last tick in which fragments follow.
    deadline: u64,
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
    /// Eight-byte units that have passed.
    passed: BTreeSet<usize>,
    /// Units of the first fragment.
    first: usize,
    /// Units of all, once the last fragment has passed.
    end: Option<usize>,
    poisoned: bool,
}

fn name(side: Side, header: &Header, fragment: &Fragment) -> Name {
    (side, header.source, header.destination, fragment.id, fragment.protocol)
}

fn units(fragment: &Fragment) -> std::ops::Range<usize> {
    fragment.start / 8..fragment.end.div_ceil(8)
}

impl Datagram {
    /// The datagram of a first fragment that passes.
    pub fn new(side: Side, header: &Header, fragment: &Fragment, ports: (u16, u16), deadline: u64) -> Self {
        Self {
            name: name(side, header, fragment),
            deadline,
            protocol: header.protocol,
            source_port: ports.0,
            destination_port: ports.1,
            passed: units(fragment).collect(),
            first: units(fragment).end,
            end: None,
            poisoned: false,
        }
    }

    /// Whether the fragment is of this datagram, and in time.
    pub fn is_of(&self, side: Side, header: &Header, fragment: &Fragment, now: u64) -> bool {
        self.name == name(side, header, fragment) && now <= self.deadline
    }

    /// Whether both are of the same datagram, whenever.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name
    }

    /// Whether all of it has passed.
    pub fn is_complete(&self) -> bool {
        self.end.is_some_and(|end| self.passed.len() == end)
    }

    /// Takes a fragment in, or says why not.
    pub fn take(&mut self, fragment: &Fragment) -> Result<(), DropReason> {
        let units = units(fragment);
        let again = units.clone().all(|unit| self.passed.contains(&unit));
        let overlaps = units.clone().any(|unit| self.passed.contains(&unit));
        let in_first = units.start < self.first;
        let repeats_first = units == (0..self.first) && fragment.more;
        let beyond = self.end.is_some_and(|end| units.end > end || !fragment.more && units.end != end);
        let poison = if self.poisoned || beyond {
            true
        } else if in_first {
            !repeats_first
        } else if again {
            false
        } else {
            let ends_early = !fragment.more && self.passed.last().is_some_and(|&last| last >= units.end);
            let mut after = self.passed.clone();
            after.extend(units.clone());
            let runs = after.iter().filter(|&&unit| unit == 0 || !after.contains(&(unit - 1))).count();
            overlaps || ends_early || runs > 4
        };
        if poison {
            self.poisoned = true;
            return Err(DropReason::FragmentOverlap);
        }
        if again {
            return Err(DropReason::Fragment);
        }
        if !fragment.more {
            self.end = Some(units.end);
        }
        self.passed.extend(units);
        Ok(())
    }
}
