//! Packets that the programs record while somebody asks for it.

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use sluicegate_engine::capture::{Captured, Filter};

use super::load;
use super::pod::Raw;

/// The maps of a capture. They are not pinned: it ends with this process.
pub(super) struct CaptureMaps {
    ring: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
    filter: Array<MapData, Raw<Filter>>,
    /// Lost when last looked.
    lost_before: u64,
}

impl CaptureMaps {
    /// Of the programs that are loaded.
    pub(super) fn new(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        Ok(Self {
            ring: load::take(ebpf, "CAPTURES")?,
            lost: load::take(ebpf, "CAPTURES_LOST")?,
            filter: load::take(ebpf, "CAPTURE_FILTER")?,
            lost_before: 0,
        })
    }

    /// Only packets that `filter` wants are recorded from now on; what was recorded before is thrown away.
    pub(super) fn begin(&mut self, filter: Filter) -> anyhow::Result<()> {
        self.filter.set(0, Raw(filter), 0).context("the filter of the capture could not be written")?;
        self.take();
        Ok(())
    }

    /// What was recorded since the last call, and how many wanted packets were not.
    pub(super) fn take(&mut self) -> (Vec<Captured>, u64) {
        let mut packets = Vec::new();
        while let Some(item) = self.ring.next() {
            let Some(bytes) = item.first_chunk::<{ size_of::<Captured>() }>() else { continue };
            // SAFETY: a record as the programs write it: plain integers and byte arrays, every bit pattern valid.
            packets.push(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast::<Captured>()) });
        }
        let total = self.lost.get(&0, 0).map_or(self.lost_before, |lost| lost.iter().sum());
        let lost = total.saturating_sub(std::mem::replace(&mut self.lost_before, total));
        // Two processors write into one ring, each in order.
        packets.sort_by_key(|packet| packet.nanoseconds);
        (packets, lost)
    }
}
