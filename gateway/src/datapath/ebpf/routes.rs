//! Counters by route number: what the programs count, and what flows carried.

use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray, PerCpuValues};

use super::pins::Pins;
use super::{load, sys};
use crate::datapath::totals::Totals;
use crate::datapath::{FlowRecord, RouteCounters};

/// Counters of the routes of the image in force.
pub(super) struct RouteCounts {
    /// Flows admitted, and first packets refused.
    counted: PerCpuArray<MapData, [u64; 2]>,
    /// The same map, for reading it in batches.
    raw: MapData,
    processors: usize,
    carried: Totals,
}

impl RouteCounts {
    /// Over the map pinned for it.
    pub(super) fn new(ebpf: &mut Ebpf, pins: &Pins, processors: usize) -> anyhow::Result<Self> {
        Ok(Self {
            counted: load::take(ebpf, "ROUTES")?,
            raw: pins.open("ROUTES")?,
            processors,
            carried: Totals::default(),
        })
    }

    /// A flow has ended or was revoked.
    pub(super) fn ended(&mut self, route: u16, packets: u64, bytes: u64) {
        self.carried.ended(route.into(), packets, bytes);
    }

    /// These flows live.
    pub(super) fn live(&mut self, flows: &[FlowRecord]) {
        self.carried.live(flows, |flow| flow.route.map(u32::from));
    }

    /// The number stands for another resource now: it starts at zero.
    pub(super) fn start_anew(&mut self, route: u32) -> anyhow::Result<()> {
        self.carried.forget(route);
        let zeros = PerCpuValues::try_from(vec![[0; 2]; self.processors])?;
        self.counted.set(route, zeros, 0).context("a route's counter could not be cleared")
    }

    /// The counters of routes below `routes` that counted anything.
    pub(super) fn read(&self, routes: u32) -> anyhow::Result<Vec<RouteCounters>> {
        let counted = sys::sums(self.raw.fd().as_fd(), routes, self.processors)
            .context("the routes' counters could not be read")?;
        let counters = (0u32..).zip(counted).filter_map(|(number, [flows, drops])| {
            let (packets, bytes) = self.carried.of(number);
            Some(RouteCounters { route: u16::try_from(number).ok()?, flows, drops, packets, bytes })
        });
        Ok(counters.filter(|c| c.flows + c.drops + c.packets > 0).collect())
    }
}
