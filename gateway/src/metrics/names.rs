//! Names of resources in the metrics.

use prometheus::Registry;

use super::{counter_vec, gauge};
use crate::status::Status;

/// Registers all of them.
pub(super) fn describe(registry: &Registry, status: &Status) -> anyhow::Result<()> {
    gauge(
        registry,
        "names",
        "Names of resources that control wants looked up, wildcards too.",
        status.names.len() as u64,
    )?;
    let addresses = status.names.iter().map(|name| name.addresses.len() as u64).sum();
    gauge(registry, "name_addresses", "Addresses that they stand for.", addresses)?;
    let lookups =
        counter_vec(registry, "name_lookups_total", "Looks at names, by how they came out.", "result")?;
    for came in &status.counters.name_lookups {
        lookups.with_label_values(&[&came.result]).inc_by(came.count);
    }
    for (side, short, help) in [
        (
            "asked",
            "name_questions_asked_total",
            "Names asked of routers through the tunnel, by how that came out.",
        ),
        ("heard", "name_questions_heard_total", "Names that other agents asked, by how that came out."),
    ] {
        let questions = counter_vec(registry, short, help, "result")?;
        for came in status.counters.name_questions.iter().filter(|came| came.side == side) {
            questions.with_label_values(&[&came.result]).inc_by(came.count);
        }
    }
    Ok(())
}
