//! The gateway's own tables in user space, for the engine to be driven over.

use std::collections::BTreeMap;

use sluicegate_engine::classify::Line;
use sluicegate_engine::event::Event;
use sluicegate_engine::family::{Address4, Address6, V4, V6};
use sluicegate_engine::host::HostAddress;
use sluicegate_engine::tables::{Config, Egress};
use sluicegate_gateway::datapath::userspace::{Limits, UserTables};
use sluicegate_model::user::{Half, Twin};

use crate::case::{Counters, SLOTS};

/// [`UserTables`] with room for every case.
pub(crate) struct UserSpace(UserTables);

impl UserSpace {
    /// Before a first image.
    pub(crate) fn new() -> Self {
        Self(UserTables::new(Limits {
            confirmed: 1 << 16,
            half_open: 1 << 16,
            events: 1 << 16,
            ticks_per_second: 100,
        }))
    }
}

impl Twin for UserSpace {
    type Tables = UserTables;

    fn tables(&mut self) -> &mut UserTables {
        &mut self.0
    }

    fn set_image(&mut self, lines: Vec<Line>, epoch: u32) {
        self.0.set_image(lines, epoch, SLOTS as u32);
    }

    fn set_egress(&mut self, egress: Vec<Egress>) {
        self.0.set_egress(egress);
    }

    fn set_host_addresses(&mut self, host: BTreeMap<[u8; 16], HostAddress>) {
        self.0.set_host_addresses(host);
    }

    fn set_config(&mut self, config: Config) {
        *self.0.config_mut() = config;
    }

    fn take_events(&mut self) -> Vec<Event> {
        self.0.take_events()
    }

    fn sweep(&mut self, now: u32) {
        self.0.sweep(now);
        self.0.take_ended();
    }

    fn counters(&self) -> Counters {
        let totals = self.0.totals();
        let mut counters = Counters {
            drops: totals.dropped,
            answers: totals.answers,
            forwarded: totals.forwarded,
            ..Counters::new()
        };
        for (ours, theirs) in counters.rules.iter_mut().zip(&totals.rules) {
            *ours = [theirs.admitted, theirs.refused];
        }
        counters
    }

    fn halves(&self) -> (Vec<Half<Address4>>, Vec<Half<Address6>>) {
        let four = self.0.halves::<V4>().map(|(stage, key, flow)| (stage, *key, *flow));
        let six = self.0.halves::<V6>().map(|(stage, key, flow)| (stage, *key, *flow));
        (four.collect(), six.collect())
    }
}
