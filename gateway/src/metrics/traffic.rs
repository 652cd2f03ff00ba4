//! Traffic by rule and by resource in the metrics: the busiest of them, and all others as one.

use prometheus::{IntCounterVec, Opts, Registry};

use super::name;
use crate::status::{Status, Traffic};

/// Registers the counters of both.
pub(super) fn describe(registry: &Registry, status: &Status) -> anyhow::Result<()> {
    let counters = &status.counters;
    by(registry, "rule", "a rule", ["policy", "rule"], &counters.rules)?;
    by(registry, "resource", "a resource", ["network", "resource"], &counters.resources)
}

fn by(
    registry: &Registry,
    what: &str,
    whose: &str,
    labels: [&str; 2],
    totals: &[Traffic],
) -> anyhow::Result<()> {
    let counters = |short: &str, help: String| -> anyhow::Result<IntCounterVec> {
        let counters = IntCounterVec::new(Opts::new(name(&format!("{what}_{short}")), help), &labels)?;
        registry.register(Box::new(counters.clone()))?;
        Ok(counters)
    };
    let flows = counters("flows_total", format!("Flows admitted for {whose}."))?;
    let packets = counters("packets_total", format!("Packets of the flows of {whose}, both directions."))?;
    let bytes = counters("bytes_total", format!("Bytes of the flows of {whose}, both directions."))?;
    let refused = counters("refused_packets_total", format!("Packets refused by {whose}, or for it."))?;
    for total in totals {
        let labels = [&total.group[..], &total.name[..]];
        flows.with_label_values(&labels).inc_by(total.flows);
        packets.with_label_values(&labels).inc_by(total.packets);
        bytes.with_label_values(&labels).inc_by(total.bytes);
        refused.with_label_values(&labels).inc_by(total.refused);
    }
    Ok(())
}
