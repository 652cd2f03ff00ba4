//! How many half-open half-entries the kernel threw out for others: its LRU maps do not say.
//!
//! What came in is counted, and what was taken out, by programs and by the agent; what is neither taken out nor there was
//! evicted. Packets go on while this is worked out, so each look gives a number that is not too high, and the highest stands.

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray};

use super::load;

/// The counts of both families together.
pub(super) struct HalfOpenCounts {
    /// Inserted, and removed by programs.
    counts: PerCpuArray<MapData, [u64; 2]>,
    /// Removed by the agent, the ones before this one too.
    swept: Array<MapData, u64>,
    evicted: u64,
}

impl HalfOpenCounts {
    /// Over the pinned maps.
    pub(super) fn new(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        let (counts, swept) = (load::take(ebpf, "HALF_OPEN_COUNTS")?, load::take(ebpf, "HALF_OPEN_SWEPT")?);
        Ok(Self { counts, swept, evicted: 0 })
    }

    /// Inserted, and removed by programs, up to now.
    pub(super) fn read(&self) -> anyhow::Result<[u64; 2]> {
        let values = self.counts.get(&0, 0).context("map HALF_OPEN_COUNTS could not be read")?;
        Ok(values.iter().fold([0, 0], |sum, pair| [sum[0] + pair[0], sum[1] + pair[1]]))
    }

    /// A sweep that began when [`Self::read`] gave `before` has removed so many, and left so many.
    pub(super) fn note(&mut self, before: [u64; 2], removed: u64, present: u64) -> anyhow::Result<()> {
        let swept = self.swept.get(&0, 0).context("map HALF_OPEN_SWEPT could not be read")? + removed;
        self.swept.set(0, swept, 0).context("map HALF_OPEN_SWEPT could not be written")?;
        let gone = self.read()?[1] + swept + present;
        self.evicted = self.evicted.max(before[0].saturating_sub(gone));
        Ok(())
    }

    /// Evicted since the maps were made.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }
}
