//! Where routes leave, in two halves as images are: a route number means what the image of its half says, and both come into
//! force with one store.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::{Array, MapData};
use sluicegate_engine::hop::Link;
use sluicegate_engine::image::ROUTES_MAX;
use sluicegate_engine::tables;

use super::pins::Pins;
use super::pod::Raw;
use super::{load, sys};
use crate::datapath::{Egress, device};

/// Rows of the map: 64 bytes each, 8 MiB in all.
pub(super) const ROWS: u32 = 2 * ROUTES_MAX;

/// The map of the ways out, and what is in it.
pub(super) struct Ways {
    map: Array<MapData, Raw<tables::Egress>>,
    /// The rows of each half that are not empty.
    halves: [BTreeMap<u16, tables::Egress>; 2],
    /// The ways out of the image in force.
    named: Vec<Egress>,
    /// Halves whose rows may be others than those that `named` comes to.
    stale: [bool; 2],
}

impl Ways {
    /// Over the pinned map: what an earlier agent left in the half that is `active` stays, since flows leave by it.
    pub(super) fn new(ebpf: &mut Ebpf, pins: &Pins, active: u32) -> anyhow::Result<Self> {
        const BATCH: usize = 16_384;
        let rows: Vec<(u32, tables::Egress)> =
            sys::entries(pins.open("EGRESS")?.fd().as_fd(), BATCH).context("map EGRESS could not be read")?;
        let mut halves = [BTreeMap::new(), BTreeMap::new()];
        for (index, row) in rows.into_iter().filter(|(_, row)| *row != tables::Egress::default()) {
            halves[usize::from(index >= ROUTES_MAX)].insert(index as u16, row);
        }
        let named = halves[active as usize].iter().map(|(route, row)| Egress {
            route: *route,
            device: row.device,
            source_v4: Some(row.source4.0.into()),
            source_v6: Some(row.source6.0.into()),
            pool: row.pool,
        });
        let named = named.collect();
        Ok(Self { map: load::take(ebpf, "EGRESS")?, halves, named, stale: [true; 2] })
    }

    /// The ways out of the image in force, as they were named.
    pub(super) fn named(&self) -> &[Egress] {
        &self.named
    }

    /// Where a route leaves by the image of a half.
    pub(super) fn get(&self, half: u32, route: u16) -> Option<tables::Egress> {
        self.halves[half as usize].get(&route).copied()
    }

    /// Writes the ways out of the next image into the half that nobody reads. `link` says how frames leave by a device.
    pub(super) fn prepare(
        &mut self,
        idle: u32,
        ways: &[Egress],
        link: impl Fn(u32) -> Link,
    ) -> anyhow::Result<()> {
        if self.stale[idle as usize] || self.named != ways {
            self.stale[idle as usize] = true;
            self.write(idle, ways, link)?;
        }
        Ok(())
    }

    /// The image whose ways were prepared in `half` is in force.
    pub(super) fn publish(&mut self, half: u32, ways: &[Egress]) {
        if self.named != ways {
            self.named = ways.to_vec();
            self.stale[1 - half as usize] = true;
        }
        self.stale[half as usize] = false;
    }

    /// Changes the ways out of the image in force. The other half has nobody to read it, and is brought up to these before it
    /// has.
    pub(super) fn set(
        &mut self,
        active: u32,
        ways: &[Egress],
        link: impl Fn(u32) -> Link,
    ) -> anyhow::Result<()> {
        self.stale = [true; 2];
        self.write(active, ways, link)?;
        self.named = ways.to_vec();
        self.stale[active as usize] = false;
        Ok(())
    }

    /// Writes the ways out of the image in force again: frames leave by their devices otherwise than before.
    pub(super) fn refresh(&mut self, active: u32, link: impl Fn(u32) -> Link) -> anyhow::Result<()> {
        let ways = self.named.clone();
        self.set(active, &ways, link)
    }

    /// Makes the rows of a half those of `ways`, and writes those that differ.
    fn write(&mut self, half: u32, ways: &[Egress], link: impl Fn(u32) -> Link) -> anyhow::Result<()> {
        let mut devices: BTreeMap<u32, (u32, Link)> = BTreeMap::new();
        let mut rows: BTreeMap<u16, tables::Egress> = BTreeMap::new();
        for way in ways {
            let (mtu, link) = *devices.entry(way.device).or_insert_with(|| {
                let mtu = device::name(way.device).and_then(|name| device::mtu(&name));
                // A device that has just gone: the route is resolved anew when the agent hears of it.
                (mtu.unwrap_or(0), link(way.device))
            });
            rows.insert(way.route, row(way, mtu, link));
        }
        let there = &mut self.halves[half as usize];
        let gone = there.keys().filter(|route| !rows.contains_key(route));
        let gone: Vec<(u16, tables::Egress)> =
            gone.map(|route| (*route, tables::Egress::default())).collect();
        for (route, row) in gone.into_iter().chain(rows) {
            if there.get(&route).copied().unwrap_or_default() == row {
                continue;
            }
            self.map
                .set(half * ROUTES_MAX + u32::from(route), Raw(row), 0)
                .with_context(|| format!("where route {route} leaves could not be written"))?;
            match row == tables::Egress::default() {
                true => there.remove(&route),
                false => there.insert(route, row),
            };
        }
        Ok(())
    }
}

/// A way out as the programs read it.
fn row(way: &Egress, mtu: u32, link: Link) -> tables::Egress {
    tables::Egress {
        device: way.device,
        mtu,
        source4: way.source_v4.map(Into::into).unwrap_or_default(),
        source6: way.source_v6.map(Into::into).unwrap_or_default(),
        pool: way.pool,
        link,
        ..tables::Egress::default()
    }
}
