//! The three implementations side by side: every step goes through all of them, and they must agree.

use sluicegate_engine::DropReason;
use sluicegate_engine::packet::Slice;
use sluicegate_engine::pipeline::Verdict;
use sluicegate_gateway::datapath::userspace::LiveTables;
use sluicegate_gateway::local::trace;
use sluicegate_model::duo::{Duo, same, same_list};

use crate::case::{Arrival, Counters, FlowDump, Hex, Outcome, Setup, Step};
use crate::kernel::{Kernel, Said};
use crate::user::UserSpace;

/// Model, user space and kernel.
pub(crate) struct Trio<'k> {
    duo: Duo<UserSpace>,
    kernel: &'k mut Kernel,
    /// Counted by packets that the kernel takes for no test run.
    skipped: Counters,
}

impl<'k> Trio<'k> {
    /// All three before a first image.
    pub(crate) fn new(setup: Setup, kernel: &'k mut Kernel) -> Result<Self, String> {
        kernel.reset(setup.clone()).map_err(|e| format!("{e:#}"))?;
        Ok(Self { duo: Duo::new(setup, UserSpace::new()), kernel, skipped: Counters::new() })
    }

    /// Takes a step. The answer to a packet is what user space did with it.
    pub(crate) fn step(&mut self, step: &Step) -> Result<Option<Outcome>, String> {
        let kernel = |e: anyhow::Error| format!("kernel: {e:#}");
        match step {
            Step::Packet(arrival) => return self.packet(arrival).map(Some),
            Step::Image(state, exits) => {
                let lines = self.duo.image(state, exits.as_deref())?;
                self.kernel.set_image(&lines, &self.duo.ways()).map_err(kernel)?;
                return Ok(None);
            }
            Step::Egress(_) => {
                let answer = self.duo.step(step)?;
                self.kernel.set_egress(&self.duo.ways()).map_err(kernel)?;
                return Ok(answer);
            }
            Step::Addresses(addresses) => self.kernel.set_addresses(addresses).map_err(kernel)?,
            Step::Sweep => self.kernel.sweep(self.duo.model.now).map_err(kernel)?,
            Step::Timeouts(timeouts) => self.kernel.set_timeouts(*timeouts).map_err(kernel)?,
            Step::Advance(_) | Step::Deadline(_) => {}
        }
        self.duo.step(step)
    }

    /// What a trace says of the packet before it comes. It says nothing of fragments and of packets that are yet to be cut
    /// up, since nobody can ask for one; and to it an answer to the sender is a drop.
    fn foresee(&mut self, arrival: &Arrival, now: u64) -> Option<Verdict> {
        const EXTENSIONS: [u8; 6] = [0, 43, 44, 51, 59, 60];
        let whole = match (&arrival.bytes[..], arrival.six) {
            ([_, _, _, _, _, _, flags, offset, ..], false) => (flags & 0x3f, *offset) == (0, 0),
            ([_, _, _, _, _, _, next, ..], true) => !EXTENSIONS.contains(next),
            _ => false,
        };
        if !whole || arrival.segment != 0 {
            return None;
        }
        let deadline = self.duo.deadline;
        let live = LiveTables::new(&*self.duo.user.tables(now, deadline), now);
        let mut bytes = arrival.bytes.clone();
        let (verdict, _) = trace::judge(&live, arrival.side, arrival.six, &mut Slice(&mut bytes));
        let answerable = matches!(verdict, Verdict::Drop(DropReason::TtlExpired | DropReason::TooBig));
        (!answerable).then_some(verdict)
    }

    fn packet(&mut self, arrival: &Arrival) -> Result<Outcome, String> {
        let now = self.duo.model.now;
        let before = self.duo.model.counters.clone();
        let foreseen = self.foresee(arrival, now);
        let (model, user) = self.duo.packet(arrival)?;
        // A trace searches for a port as a whole, whatever else was found in the tick.
        let sought = user.verdict == Verdict::Drop(DropReason::NatExhausted);
        let foreseen = foreseen.filter(|verdict| !(sought && matches!(verdict, Verdict::Site(_))));
        same("verdict of a trace", &user.verdict, &foreseen.unwrap_or(user.verdict))?;

        let deadline = self.duo.deadline;
        let kernel = self.kernel.packet(arrival, now, deadline).map_err(|e| format!("kernel: {e:#}"))?;
        let events = self.kernel.take_events().map_err(|e| format!("kernel: {e:#}"))?;
        let Some(said) = kernel else {
            add(&mut self.skipped, &self.duo.model.counters, &before);
            return Ok(user);
        };
        let (verdict, bytes) = match &said {
            Said::Next(bytes) => ("next", bytes.as_slice()),
            Said::Redirect(bytes) => ("redirect", bytes.as_slice()),
            Said::Back(bytes) => ("back", bytes.as_slice()),
            Said::Shot => ("shot", [].as_slice()),
        };
        let expected = match model.verdict {
            Verdict::Pass | Verdict::Host => "next",
            Verdict::Site(_) | Verdict::Overlay => "redirect",
            Verdict::Answer => "back",
            Verdict::Drop(_) => "shot",
        };
        same("events of the kernel", &model.events, &events)?;
        same("verdict of the kernel", &expected, &verdict)?;
        same("bytes of the kernel", &Hex(&model.bytes), &Hex(bytes))?;
        Ok(user)
    }

    /// The kernel alone, and the time: what the others cannot be, it is put to the test for by itself. Nothing may be compared
    /// afterwards.
    pub(crate) fn alone(&mut self) -> (&mut Kernel, u64) {
        (self.kernel, self.duo.model.now)
    }

    /// What was counted, as the model has it.
    pub(crate) fn counters(&self) -> &Counters {
        &self.duo.model.counters
    }

    /// The live flows, as the model has them.
    pub(crate) fn flows(&self) -> Vec<FlowDump> {
        self.duo.flows()
    }

    /// Compares all that the implementations remember.
    pub(crate) fn compare(&self) -> Result<(), String> {
        let kernel = |e: anyhow::Error| format!("kernel: {e:#}");
        self.duo.compare()?;
        let model = &self.duo.model;
        let mut counters = self.kernel.counters().map_err(kernel)?;
        add(&mut counters, &self.skipped, &Counters::new());
        same("counters of the kernel", &model.counters, &counters)?;
        let flows = self.kernel.flows(model.now).map_err(kernel)?.map_err(|e| format!("kernel: {e}"))?;
        same_list("flows of the kernel", &model.flows(), &flows)
    }
}

fn add(to: &mut Counters, after: &Counters, before: &Counters) {
    for i in 0..to.drops.len() {
        to.drops[i] += after.drops[i] - before.drops[i];
    }
    for i in 0..to.answers.len() {
        to.answers[i] += after.answers[i] - before.answers[i];
    }
    for k in 0..2 {
        for i in 0..to.forwarded.len() {
            to.forwarded[i][k] += after.forwarded[i][k] - before.forwarded[i][k];
        }
        for i in 0..to.rules.len() {
            to.rules[i][k] += after.rules[i][k] - before.rules[i][k];
        }
    }
}
