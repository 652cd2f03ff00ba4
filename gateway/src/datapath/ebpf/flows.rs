//! One pass over the flow tables: what lives, what has ended.

use std::collections::HashMap;
use std::hash::Hash;
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::Context as _;
use aya::maps::{HashMap as BpfMap, MapData};
use sluicegate_engine::family::Family;
use sluicegate_engine::flow::{Flow, Key};
use sluicegate_engine::tables::Stage;

use super::pins::Pins;
use super::pod::Raw;
use crate::datapath::{Event, FlowRecord, records};

/// A flow table of one family: confirmed and half-open flows.
pub(super) struct FlowMaps<F: Family> {
    confirmed: Table<F>,
    half_open: Table<F>,
    /// Confirmed half-entries, as of the last sweep.
    swept: u64,
    /// Half-open ones.
    swept_half_open: u64,
}

type HalfEntries<F> = BpfMap<MapData, Raw<KeyOf<F>>, Raw<FlowOf<F>>>;
type KeyOf<F> = Key<<F as Family>::Address>;
type FlowOf<F> = Flow<<F as Family>::Address>;

struct Table<F: Family> {
    entries: HalfEntries<F>,
    raw: MapData,
    /// Half-entries removed so far.
    removed: u64,
}

/// What a pass found.
#[derive(Default)]
pub(super) struct Sweep {
    pub(super) live: Vec<FlowRecord>,
    pub(super) ended: Vec<Event>,
    /// Confirmed half-entries.
    pub(super) entries: u64,
    /// Half-open half-entries removed.
    pub(super) half_open_removed: u64,
}

impl<F: Family> FlowMaps<F>
where
    F::Address: Hash,
{
    /// Over the maps pinned with these names.
    pub(super) fn new(pins: &Pins, confirmed: &str, half_open: &str) -> anyhow::Result<Self> {
        let table = |name: &str| -> anyhow::Result<Table<F>> {
            let map = aya::maps::Map::from_map_data(pins.open(name)?)?;
            Ok(Table { entries: BpfMap::try_from(map)?, raw: pins.open(name)?, removed: 0 })
        };
        Ok(Self { confirmed: table(confirmed)?, half_open: table(half_open)?, swept: 0, swept_half_open: 0 })
    }

    /// The half-entry of `key`; looking does not make it more recently used.
    pub(super) fn get(&self, stage: Stage, key: &KeyOf<F>) -> Option<FlowOf<F>> {
        let table = match stage {
            Stage::Confirmed => &self.confirmed,
            Stage::HalfOpen => &self.half_open,
        };
        table.entries.get(&Raw(*key), 0).ok().map(|flow| flow.0)
    }

    /// Confirmed half-entries, as of the last sweep.
    pub(super) fn entries(&self) -> u64 {
        self.swept
    }

    /// Half-open half-entries, as of the last sweep.
    pub(super) fn half_open_entries(&self) -> u64 {
        self.swept_half_open
    }

    /// Ends what has timed out and adds what lives to `sweep`.
    pub(super) fn sweep(&mut self, now: u32, hz: u32, sweep: &mut Sweep) -> anyhow::Result<()> {
        self.swept = self.confirmed.sweep(now, hz, true, sweep)? as u64;
        sweep.entries += self.swept;
        let removed = self.half_open.removed;
        let found = self.half_open.sweep(now, hz, false, sweep)? as u64;
        let removed = self.half_open.removed - removed;
        sweep.half_open_removed += removed;
        self.swept_half_open = found.saturating_sub(removed);
        Ok(())
    }
}

impl<F: Family> Table<F>
where
    F::Address: Hash,
{
    fn sweep(&mut self, now: u32, hz: u32, confirmed: bool, sweep: &mut Sweep) -> anyhow::Result<usize> {
        let entries: Vec<(KeyOf<F>, FlowOf<F>)> =
            super::sys::entries(self.raw.fd().as_fd(), 4096).context("the flow table could not be read")?;
        let count = entries.len();
        let halves: HashMap<KeyOf<F>, FlowOf<F>> = entries.into_iter().collect();
        for (key, flow) in &halves {
            let other_key = flow.other_key(key.protocol);
            let other = halves.get(&other_key);
            // Every flow is looked at from its first half; a reply half is looked at only when that is gone.
            if flow.is_reply() && other.is_some() {
                continue;
            }
            if is_over(flow, other, now) {
                if self.still_over(key, &other_key, now) {
                    self.remove(key, &other_key);
                    if !flow.is_reply() {
                        sweep.ended.push(ended::<F>(key, flow, other));
                    }
                }
            } else if !flow.is_reply() {
                sweep.live.push(FlowRecord { confirmed, ..record::<F>(key, flow, other, now, hz) });
            }
        }
        Ok(count)
    }

    /// Looks again right before removing: a packet may have come since the table was read.
    fn still_over(&self, key: &KeyOf<F>, other_key: &KeyOf<F>, now: u32) -> bool {
        let get = |key: &KeyOf<F>| self.entries.get(&Raw(*key), 0).ok().map(|flow| flow.0);
        let over = |flow: Option<FlowOf<F>>| flow.is_none_or(|flow| flow.is_over(now));
        over(get(key)) && over(get(other_key))
    }

    fn remove(&mut self, key: &KeyOf<F>, other_key: &KeyOf<F>) {
        for key in [key, other_key] {
            // Gone already is what is wanted.
            self.removed += u64::from(self.entries.remove(&Raw(*key)).is_ok());
        }
    }
}

fn is_over<A: Copy>(flow: &Flow<A>, other: Option<&Flow<A>>, now: u32) -> bool {
    flow.is_over(now) && other.is_none_or(|other| other.is_over(now))
}

fn record<F: Family>(
    key: &KeyOf<F>,
    flow: &FlowOf<F>,
    other: Option<&FlowOf<F>>,
    now: u32,
    hz: u32,
) -> FlowRecord {
    let last_seen = other.map_or(flow.last_seen, |other| {
        if (other.last_seen.wrapping_sub(flow.last_seen) as i32) > 0 {
            other.last_seen
        } else {
            flow.last_seen
        }
    });
    let idle = (now.wrapping_sub(last_seen) as i32).max(0) as u64;
    let first = records::flow::<F>(key, flow);
    let replies = other.map_or((0, 0), |other| (other.packets, other.bytes));
    FlowRecord {
        packets: first.packets + replies.0,
        bytes: first.bytes + replies.1,
        replies,
        idle: Duration::from_millis(idle * 1000 / u64::from(hz)),
        ..first
    }
}

fn ended<F: Family>(key: &KeyOf<F>, flow: &FlowOf<F>, other: Option<&FlowOf<F>>) -> Event {
    let first = records::end::<F>(key, flow);
    Event {
        packets: first.packets + other.map_or(0, |other| other.packets),
        bytes: first.bytes + other.map_or(0, |other| other.bytes),
        ..first
    }
}
