//! Flow tables and masquerade in the metrics.

use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};
use prometheus::{IntGaugeVec, Opts, Registry};

use super::{counter, gauge, name};
use crate::status::Status;

/// Upper bounds of the buckets of port collisions; beyond the last, no port is free.
const COLLISIONS: [usize; 6] = [0, 1, 3, 7, 15, 31];

/// Registers all but the histogram.
pub(super) fn describe(registry: &Registry, status: &Status) -> anyhow::Result<()> {
    let tables = &status.datapath.tables;
    let by_table = ["stage", "family"];
    let entries = gauges(registry, "flow_table_entries", "Half-entries in a flow table.", &by_table)?;
    let most = gauges(registry, "flow_table_entries_max", "Half-entries a flow table can hold.", &by_table)?;
    let bytes = gauges(registry, "flow_table_bytes", "Memory of a flow table when it is full.", &by_table)?;
    for table in tables {
        let labels = [&table.stage[..], &table.family[..]];
        entries.with_label_values(&labels).set(signed(table.entries));
        most.with_label_values(&labels).set(signed(table.capacity));
        bytes.with_label_values(&labels).set(signed(table.bytes));
    }
    gauge(registry, "table_memory_bytes", "Memory of all maps or tables.", status.datapath.memory_bytes)?;
    counter(
        registry,
        "half_open_evictions_total",
        "Half-open half-entries that made room for others.",
        status.counters.half_open_evicted,
    )?;

    let by_address = ["address", "protocol"];
    let help = "Masqueraded flows, by the address they leave with.";
    let flows = gauges(registry, "masquerade_flows", help, &by_address)?;
    let help = "Distinct ports or ICMP ids in use at an address; one serves many destinations.";
    let ports = gauges(registry, "masquerade_ports_in_use", help, &by_address)?;
    for used in &status.masquerade.in_use {
        let protocol = protocol_name(used.protocol);
        let labels = [&used.address[..], &protocol];
        flows.with_label_values(&labels).set(signed(used.flows));
        ports.with_label_values(&labels).set(signed(used.ports));
    }
    let (first, last) = status.masquerade.ports;
    let range = if last == 0 { 0 } else { u64::from(last.saturating_sub(first)) + 1 };
    gauge(registry, "masquerade_ports", "Ports or ICMP ids of each address.", range)?;
    gauge(
        registry,
        "masquerade_exhausted_destinations",
        "Destinations that found no free port, 32 at the most; `status` lists them.",
        status.masquerade.exhausted.len() as u64,
    )
}

/// How many ports were taken before a free one was found, by flow.
pub(super) fn collisions(status: &Status) -> MetricFamily {
    let counted = &status.masquerade.collisions;
    let below = |bound: usize| counted.iter().take(bound + 1).sum::<u64>();
    let bucket = |bound: &usize| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64);
        bucket.set_cumulative_count(below(*bound));
        bucket
    };
    let mut histogram = Histogram::default();
    histogram.set_bucket(COLLISIONS.iter().map(bucket).collect());
    histogram.set_sample_count(counted.iter().sum());
    histogram.set_sample_sum((0u64..).zip(counted).map(|(taken, flows)| taken * flows).sum::<u64>() as f64);
    let mut metric = Metric::from_label(Vec::new());
    metric.set_histogram(histogram);
    let mut family = MetricFamily::default();
    family.set_name(name("masquerade_port_collisions"));
    family.set_help("Ports found taken before a masqueraded flow got its own.".into());
    family.set_field_type(MetricType::HISTOGRAM);
    family.set_metric(vec![metric]);
    family
}

/// The protocol's name where it has ports or ids, else its number.
pub(crate) fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "icmpv6".into(),
        other => other.to_string(),
    }
}

fn gauges(registry: &Registry, short: &str, help: &str, labels: &[&str]) -> anyhow::Result<IntGaugeVec> {
    let gauges = IntGaugeVec::new(Opts::new(name(short), help), labels)?;
    registry.register(Box::new(gauges.clone()))?;
    Ok(gauges)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::status::{FlowTable, PortsInUse};

    #[test]
    fn tables_ports_and_collisions_are_on_the_page() {
        let mut status = Status::default();
        let table = |stage: &str, entries| FlowTable {
            stage: stage.into(),
            family: "ipv4".into(),
            entries,
            capacity: 4096,
            bytes: 589_824,
        };
        status.datapath.tables = vec![table("confirmed", 6), table("half_open", 2)];
        status.masquerade.ports = (20_000, 32_767);
        status.masquerade.collisions = vec![5, 0, 2, 0, 1];
        let used =
            |address: &str, protocol| PortsInUse { address: address.into(), protocol, flows: 3, ports: 2 };
        status.masquerade.in_use = vec![used("10.0.0.1", 6), used("fd11::1", 58)];
        status.counters.half_open_evicted = 7;
        let page = Metrics::new().unwrap().render(&status).unwrap();
        for line in [
            "flow_table_entries{family=\"ipv4\",stage=\"confirmed\"} 6",
            "flow_table_entries_max{family=\"ipv4\",stage=\"half_open\"} 4096",
            "flow_table_bytes{family=\"ipv4\",stage=\"half_open\"} 589824",
            "half_open_evictions_total 7",
            "masquerade_ports 12768",
            "masquerade_flows{address=\"10.0.0.1\",protocol=\"tcp\"} 3",
            "masquerade_ports_in_use{address=\"fd11::1\",protocol=\"icmpv6\"} 2",
            "masquerade_port_collisions_bucket{le=\"0\"} 5",
            "masquerade_port_collisions_bucket{le=\"3\"} 7",
            "masquerade_port_collisions_bucket{le=\"7\"} 8",
            "masquerade_port_collisions_bucket{le=\"+Inf\"} 8",
            "masquerade_port_collisions_sum 8",
            "masquerade_port_collisions_count 8",
        ] {
            let line = format!("sluicegate_gateway_{line}\n");
            assert!(page.contains(&line), "{line} in\n{page}");
        }
    }
}
