//! Packets recorded in this process while somebody asks for it.

use std::collections::VecDeque;

use sluicegate_engine::capture::{BYTES, Captured, Fate, Filter};
use sluicegate_engine::family::Family;
use sluicegate_engine::packet::Packet;
use sluicegate_engine::pipeline::Verdict;
use sluicegate_engine::work::Work;

use crate::system;

/// Records that wait to be taken, which happens ten times a second.
const WAITING: usize = 16_384;

/// A capture that goes on.
pub(super) struct Capture {
    filter: Filter,
    waiting: VecDeque<Captured>,
    lost: u64,
}

impl Capture {
    /// Of packets that `filter` wants.
    pub(super) fn new(filter: Filter) -> Self {
        Self { filter, waiting: VecDeque::new(), lost: 0 }
    }

    /// Puts by the first bytes of a packet, before anything is done to it.
    pub(super) fn before(packet: &impl Packet) -> Captured {
        let length = packet.length();
        let mut record = Captured { length, ..Captured::default() };
        let wanted = BYTES.min(length as usize);
        for at in 0..wanted {
            let Some([byte]) = packet.read::<1>(at as u32) else { break };
            record.bytes[at] = byte;
            record.captured = at as u8 + 1;
        }
        record
    }

    /// Keeps the record, if the packet is wanted.
    pub(super) fn finish<F: Family>(
        &mut self,
        mut record: Captured,
        work: &Work<F::Address>,
        verdict: Verdict,
    ) {
        let (fate, device) = Fate::of(verdict);
        if !self.filter.wants::<F>(work, fate) {
            return;
        }
        if self.waiting.len() >= WAITING {
            self.lost += 1;
            return;
        }
        record.describe::<F>(work, fate, device);
        record.nanoseconds = system::monotonic_ns();
        self.waiting.push_back(record);
    }

    /// What was recorded since the last call, and how many wanted packets were not.
    pub(super) fn take(&mut self) -> (Vec<Captured>, u64) {
        (std::mem::take(&mut self.waiting).into(), std::mem::take(&mut self.lost))
    }
}
