//! The engine with the user-space tables.

use sluicegate_engine::classify::Line;
use sluicegate_engine::family::{Address4, Address6, V4, V6};
use sluicegate_engine::image::header;
use sluicegate_engine::packet::{Packet, Slice};
use sluicegate_engine::pipeline::{Verdict, process, screen};
use sluicegate_engine::work::Work;
use sluicegate_gateway::datapath::userspace::{Limits, UserTables};

use crate::case::{Arrival, Counters, Exit, FlowDump, Outcome, SLOTS, Setup};
use crate::tables;

/// A gateway in this process.
pub(crate) struct User {
    setup: Setup,
    tables: UserTables,
    work4: Work<Address4>,
    work6: Work<Address6>,
}

impl User {
    /// Before a first image.
    pub(crate) fn new(setup: Setup) -> Self {
        let limits =
            Limits { confirmed: 1 << 16, half_open: 1 << 16, events: 1 << 16, ticks_per_second: 100 };
        Self { setup, tables: UserTables::new(limits), work4: Work::default(), work6: Work::default() }
    }

    pub(crate) fn set_image(&mut self, revision: u32, lines: &[Line]) {
        assert!(lines[header::RULE_SLOTS / 16][header::RULE_SLOTS % 16] <= SLOTS as u32);
        self.tables.set_image(lines.to_vec(), revision, SLOTS as u32);
    }

    pub(crate) fn set_egress(&mut self, exits: &[Exit]) {
        self.tables.set_egress(exits.iter().map(tables::egress).collect());
    }

    pub(crate) fn packet(
        &mut self,
        arrival: &Arrival,
        now: u64,
        deadline: Option<u64>,
    ) -> Result<Outcome, String> {
        *self.tables.config_mut() = tables::config(&self.setup, now, deadline);
        let mut bytes = arrival.bytes.clone();
        let mut verdict = Verdict::Pass;
        if arrival.screened {
            let packet = Slice(&mut bytes);
            verdict = if arrival.six {
                screen::<V6, _, _>(&packet, &mut self.tables, now, &mut self.work6)
            } else {
                screen::<V4, _, _>(&packet, &mut self.tables, now, &mut self.work4)
            };
            if !matches!(verdict, Verdict::Pass | Verdict::Drop(_)) {
                return Err(format!("the screen said {verdict:?}"));
            }
        }
        if verdict == Verdict::Pass {
            let mut packet = Offloaded { bytes: Slice(&mut bytes), segment: arrival.segment };
            let side = arrival.side;
            verdict = if arrival.six {
                process::<V6, _, _>(&mut packet, side, &mut self.tables, now, &mut self.work6)
            } else {
                process::<V4, _, _>(&mut packet, side, &mut self.tables, now, &mut self.work4)
            };
        }
        if matches!(verdict, Verdict::Drop(_)) {
            bytes.clear();
        }
        Ok(Outcome { verdict, bytes, events: self.tables.take_events() })
    }

    pub(crate) fn sweep(&mut self, now: u64) {
        self.tables.sweep(now as u32);
        self.tables.take_ended();
    }

    pub(crate) fn counters(&self) -> Counters {
        let totals = self.tables.totals();
        let mut counters = Counters { drops: totals.dropped, forwarded: totals.forwarded, ..Counters::new() };
        for (ours, theirs) in counters.rules.iter_mut().zip(&totals.rules) {
            *ours = [theirs.admitted, theirs.refused];
        }
        counters
    }

    pub(crate) fn flows(&self, now: u64) -> Result<Vec<FlowDump>, String> {
        let four = self.tables.halves::<V4>().map(|(stage, key, flow)| (stage, *key, *flow));
        let six = self.tables.halves::<V6>().map(|(stage, key, flow)| (stage, *key, *flow));
        let mut flows = tables::flows::<V4>(four, now)?;
        flows.extend(tables::flows::<V6>(six, now)?);
        flows.sort();
        Ok(flows)
    }
}

/// A packet that the device may yet cut up.
struct Offloaded<'a> {
    bytes: Slice<'a>,
    segment: u16,
}

impl Packet for Offloaded<'_> {
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.bytes.read(offset)
    }

    fn write<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> bool {
        self.bytes.write(offset, bytes)
    }

    fn length(&self) -> u32 {
        self.bytes.length()
    }

    fn segment_length(&self, headers: u32) -> u32 {
        if self.segment == 0 { self.length() } else { headers + u32::from(self.segment) }
    }
}
