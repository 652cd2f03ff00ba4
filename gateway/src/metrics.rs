//! The gateway's metrics: the whole list, and how they are written.

mod dns;
mod flows;
mod names;
mod traffic;

use prometheus::{
    Encoder as _, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::agent::REFUSALS;
use crate::status::Status;

pub(crate) use flows::protocol_name;

/// What is counted by the agent itself; everything else is read from the status when it is asked for.
pub struct Metrics {
    registry: Registry,
    apply_seconds: Histogram,
    apply_failures: IntCounterVec,
}

impl Metrics {
    /// All zero.
    pub fn new() -> anyhow::Result<Self> {
        let registry = Registry::new();
        // From a delta of one rule to a whole image of 100,000 policies.
        let buckets = vec![0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
        let apply_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "sluicegate_gateway_policy_apply_seconds",
                "Time from an image's receipt to the first packet judged by it.",
            )
            .buckets(buckets),
        )?;
        let apply_failures = IntCounterVec::new(
            Opts::new(
                "sluicegate_gateway_policy_apply_failures_total",
                "Images refused, by reason; the one before stayed in force.",
            ),
            &["reason"],
        )?;
        for reason in REFUSALS {
            apply_failures.with_label_values(&[reason]);
        }
        registry.register(Box::new(apply_seconds.clone()))?;
        registry.register(Box::new(apply_failures.clone()))?;
        Ok(Self { registry, apply_seconds, apply_failures })
    }

    /// An image came into force.
    pub fn applied(&self, microseconds: u64) {
        self.apply_seconds.observe(microseconds as f64 / 1e6);
    }

    /// An image was refused.
    pub fn refused(&self, reason: &str) {
        self.apply_failures.with_label_values(&[reason]).inc();
    }

    /// Everything, in Prometheus' text format.
    pub fn render(&self, status: &Status) -> anyhow::Result<String> {
        let now = Registry::new();
        describe(&now, status)?;
        let mut families = self.registry.gather();
        families.extend(now.gather());
        families.push(flows::collisions(status));
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(String::from_utf8(text)?)
    }
}

fn describe(registry: &Registry, status: &Status) -> anyhow::Result<()> {
    let counters = &status.counters;
    let packets = counter_vec(
        registry,
        "forwarded_packets_total",
        "Packets forwarded or delivered, by where they came from.",
        "direction",
    )?;
    let bytes = counter_vec(
        registry,
        "forwarded_bytes_total",
        "Bytes forwarded or delivered, from the IP header on.",
        "direction",
    )?;
    for forwarded in &counters.forwarded {
        packets.with_label_values(&[&forwarded.direction]).inc_by(forwarded.packets);
        bytes.with_label_values(&[&forwarded.direction]).inc_by(forwarded.bytes);
    }
    let drops = counter_vec(registry, "dropped_packets_total", "Packets dropped, by reason.", "reason")?;
    for drop in &counters.drops {
        drops.with_label_values(&[&drop.reason]).inc_by(drop.packets);
    }
    let answers = counter_vec(
        registry,
        "icmp_answers_total",
        "Dropped packets that were to be answered by an ICMP error of the gateway's own, by what became of it.",
        "kind",
    )?;
    for answer in &counters.icmp_answers {
        answers.with_label_values(&[&answer.kind]).inc_by(answer.packets);
    }
    counter(registry, "flows_started_total", "Flows that a rule admitted.", counters.flows_started)?;
    counter(
        registry,
        "events_lost_total",
        "Flow and drop events lost, from all causes.",
        counters.events_lost,
    )?;
    counter(
        registry,
        "events_suppressed_total",
        "Flow and drop events left out by sampling: one alike was told in the same second.",
        counters.events_suppressed,
    )?;
    counter(
        registry,
        "failover_transitions_total",
        "Prefixes that moved to another router.",
        counters.failovers,
    )?;
    gauge(registry, "flows", "Live flows.", counters.flows)?;
    gauge(
        registry,
        "flow_entries",
        "Entries of the flow table in use, two for each flow.",
        counters.flow_entries,
    )?;
    gauge(registry, "flow_entries_max", "Entries the flow table can hold.", counters.flow_entries_max)?;
    gauge(
        registry,
        "policy_revision",
        "Revision of the image in force; 0 before the first.",
        status.policy.revision.unwrap_or(0),
    )?;
    gauge(
        registry,
        "policy_refused",
        "Whether what control sent last was refused; the image before it is in force.",
        u64::from(status.policy.refused),
    )?;
    seconds(
        registry,
        "policy_applied_timestamp_seconds",
        "When this run put the image in force; 0 when an earlier run did.",
        status.policy.applied_ms,
    )?;
    seconds(
        registry,
        "policy_next_end_timestamp_seconds",
        "When the next grant of the image in force ends; 0 when none does.",
        status.policy.ends_ms,
    )?;
    gauge(
        registry,
        "policy_shut",
        "Whether nothing is forwarded because a grant ended that could not be taken from the image in force.",
        u64::from(status.policy.shut),
    )?;
    gauge(
        registry,
        "control_connected",
        "1 while the stream from control is open.",
        u64::from(status.control.connected),
    )?;
    seconds(
        registry,
        "control_last_contact_timestamp_seconds",
        "When control last said anything; 0 when it never did.",
        status.control.last_contact_ms,
    )?;
    gauge(registry, "overlay_peers", "Other agents this one may talk to.", status.peers.len() as u64)?;
    gauge(
        registry,
        "overlay_peers_live",
        "Other agents heard of lately.",
        status.peers.iter().filter(|p| p.live).count() as u64,
    )?;
    gauge(
        registry,
        "degraded_conditions",
        "Conditions a person should know of; `status` lists them.",
        status.degraded.len() as u64,
    )?;
    routes(registry, status)?;
    xdp(registry, status)?;
    flows::describe(registry, status)?;
    names::describe(registry, status)?;
    dns::describe(registry, status)?;
    traffic::describe(registry, status)?;
    info(registry, "build_info", "The agent's version.", "version", &status.version)?;
    info(registry, "datapath_info", "Which datapath judges.", "kind", &status.datapath.kind)
}

fn xdp(registry: &Registry, status: &Status) -> anyhow::Result<()> {
    let opts = Opts::new(
        name("xdp_mode"),
        "How XDP is attached to a device: native, generic, off (not wanted) or refused. Always 1.",
    );
    let modes = IntGaugeVec::new(opts, &["device", "mode"])?;
    for attached in &status.datapath.xdp {
        modes.with_label_values(&[&attached.device, &attached.mode]).set(1);
    }
    registry.register(Box::new(modes))?;
    let opts = Opts::new(name("xdp_sends"), "1 when XDP sends frames by a device, 0 when TC does.");
    let sends = IntGaugeVec::new(opts, &["device"])?;
    for attached in &status.datapath.xdp {
        sends.with_label_values(&[&attached.device]).set(attached.sends.into());
    }
    registry.register(Box::new(sends))?;
    let guarded = status.datapath.guard.as_ref().is_some_and(|guard| guard.port != 0);
    gauge(registry, "underlay_guard", "1 while WireGuard's port is guarded.", u64::from(guarded))
}

fn routes(registry: &Registry, status: &Status) -> anyhow::Result<()> {
    let opts = Opts::new(
        name("route_active"),
        "1 for the metric of the router that carries a network's traffic, 0 for the others.",
    );
    let active = IntGaugeVec::new(opts, &["network", "metric"])?;
    for route in &status.routes {
        for router in &route.routers {
            let gauge = active.with_label_values(&[&route.network_id, &router.metric.to_string()]);
            // Several prefixes of a network may be with several routers: each that carries one is active.
            gauge.set(gauge.get().max(i64::from(route.active.as_ref() == Some(&router.peer_id))));
        }
    }
    registry.register(Box::new(active))?;
    Ok(())
}

fn name(short: &str) -> String {
    format!("sluicegate_gateway_{short}")
}

fn counter_vec(registry: &Registry, short: &str, help: &str, label: &str) -> anyhow::Result<IntCounterVec> {
    let counters = IntCounterVec::new(Opts::new(name(short), help), &[label])?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

fn counter(registry: &Registry, short: &str, help: &str, value: u64) -> anyhow::Result<()> {
    let counter = IntCounter::new(name(short), help)?;
    counter.inc_by(value);
    Ok(registry.register(Box::new(counter))?)
}

fn gauge(registry: &Registry, short: &str, help: &str, value: u64) -> anyhow::Result<()> {
    let gauge = IntGauge::new(name(short), help)?;
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    Ok(registry.register(Box::new(gauge))?)
}

fn seconds(registry: &Registry, short: &str, help: &str, unix_ms: Option<u64>) -> anyhow::Result<()> {
    let gauge = prometheus::Gauge::new(name(short), help)?;
    gauge.set(unix_ms.unwrap_or(0) as f64 / 1e3);
    Ok(registry.register(Box::new(gauge))?)
}

fn info(registry: &Registry, short: &str, help: &str, label: &str, value: &str) -> anyhow::Result<()> {
    let gauge = GaugeVec::new(Opts::new(name(short), help), &[label])?;
    gauge.with_label_values(&[value]).set(1.0);
    Ok(registry.register(Box::new(gauge))?)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use sluicegate_engine::answer::Answer;
    use sluicegate_engine::reason::DropReason;

    use super::*;
    use crate::status::{Drops, Forwarded, IcmpAnswers, Route, Router};

    fn page() -> String {
        let metrics = Metrics::new().unwrap();
        metrics.applied(1500);
        metrics.refused("hash");
        let mut status = Status { version: "1.2.3".into(), ..Status::default() };
        status.datapath.kind = "ebpf".into();
        status.datapath.xdp =
            vec![crate::status::Xdp { device: "eth1".into(), mode: "generic".into(), sends: false }];
        status.datapath.guard = Some(crate::status::Guard { port: 51_820, ..Default::default() });
        status.counters.forwarded = vec![Forwarded { direction: "overlay".into(), packets: 3, bytes: 300 }];
        let drop = |r: &DropReason| Drops { reason: r.name().into(), packets: 0 };
        status.counters.drops = DropReason::ALL.iter().map(drop).collect();
        let answer = |a: &Answer| IcmpAnswers { kind: a.name().into(), packets: 0 };
        status.counters.icmp_answers = Answer::ALL.iter().map(answer).collect();
        let router = |id: &str, metric| Router { peer_id: id.into(), metric, ..Router::default() };
        status.routes = vec![Route {
            network_id: "net".into(),
            active: Some("b".into()),
            routers: vec![router("a", 100), router("b", 200)],
            ..Route::default()
        }];
        status.datapath.tables = vec![crate::status::FlowTable::default()];
        status.counters.rules = vec![crate::status::Traffic::default()];
        status.counters.resources = vec![crate::status::Traffic::default()];
        status.masquerade.in_use = vec![crate::status::PortsInUse::default()];
        let address = |text: &str| crate::status::Address { address: text.into(), age_seconds: 1 };
        let named = crate::status::Name { name: "db.example.org".into(), ..Default::default() };
        let addresses = vec![address("192.0.2.7"), address("2001:db8::7")];
        status.names = vec![crate::status::Name { addresses, ..named.clone() }, named];
        let came = |result: &str, count| crate::status::NameLookups { result: result.into(), count };
        status.counters.name_lookups = vec![came("ok", 3), came("none", 0), came("failed", 2)];
        let came = |side: &str, result: &str, count| crate::status::NameQuestions {
            side: side.into(),
            result: result.into(),
            count,
        };
        status.counters.name_questions =
            vec![came("asked", "answered", 4), came("heard", "answered", 5), came("heard", "refused", 0)];
        let failures = |count| vec![crate::status::DnsFailures { reason: "timeout".into(), count }];
        let server = crate::status::DnsServer {
            address: "192.0.2.53:53".into(),
            silent: true,
            questions: 7,
            failures: failures(2),
        };
        let group = crate::status::DnsForward { servers: vec![server.clone()], ..Default::default() };
        status.dns = Some(crate::status::Dns {
            listening: vec!["100.90.0.7:53".into()],
            host_asks: true,
            forwards: vec![group.clone(), group],
            upstreams: vec![server],
            questions: vec![crate::status::DnsQuestions {
                by: "zone".into(),
                result: "answered".into(),
                count: 5,
            }],
            refused: failures(1),
            ..Default::default()
        });
        metrics.render(&status).unwrap()
    }

    #[test]
    fn every_reason_is_there_even_when_zero() {
        let page = page();
        for reason in DropReason::ALL {
            let line = format!("sluicegate_gateway_dropped_packets_total{{reason=\"{}\"}} 0", reason.name());
            assert!(page.contains(&line), "{line}");
        }
        for answer in Answer::ALL {
            let line = format!("sluicegate_gateway_icmp_answers_total{{kind=\"{}\"}} 0", answer.name());
            assert!(page.contains(&line), "{line}");
        }
    }

    #[test]
    fn the_active_router_is_named_by_its_metric() {
        let page = page();
        assert!(page.contains("sluicegate_gateway_route_active{metric=\"200\",network=\"net\"} 1"), "{page}");
        assert!(page.contains("sluicegate_gateway_route_active{metric=\"100\",network=\"net\"} 0"), "{page}");
    }

    #[test]
    fn the_mode_of_xdp_is_shown() {
        let page = page();
        assert!(page.contains("sluicegate_gateway_xdp_mode{device=\"eth1\",mode=\"generic\"} 1"), "{page}");
        assert!(page.contains("sluicegate_gateway_underlay_guard 1"), "{page}");
    }

    #[test]
    fn names_and_how_they_were_looked_up_are_counted() {
        let page = page();
        for line in [
            "sluicegate_gateway_names 2",
            "sluicegate_gateway_name_addresses 2",
            "sluicegate_gateway_name_lookups_total{result=\"ok\"} 3",
            "sluicegate_gateway_name_lookups_total{result=\"none\"} 0",
            "sluicegate_gateway_name_lookups_total{result=\"failed\"} 2",
            "sluicegate_gateway_name_questions_asked_total{result=\"answered\"} 4",
            "sluicegate_gateway_name_questions_heard_total{result=\"answered\"} 5",
            "sluicegate_gateway_name_questions_heard_total{result=\"refused\"} 0",
        ] {
            assert!(page.lines().any(|there| there == line), "{line}");
        }
    }

    #[test]
    fn questions_for_names_are_counted_and_a_server_of_several_groups_once() {
        let page = page();
        for line in [
            "sluicegate_gateway_dns_listening 1",
            "sluicegate_gateway_dns_host_asks 1",
            "sluicegate_gateway_dns_questions_total{by=\"zone\",result=\"answered\"} 5",
            "sluicegate_gateway_dns_refused_total{reason=\"timeout\"} 1",
            "sluicegate_gateway_dns_server_questions_total{server=\"192.0.2.53:53\"} 7",
            "sluicegate_gateway_dns_server_failures_total{reason=\"timeout\",server=\"192.0.2.53:53\"} 2",
            "sluicegate_gateway_dns_server_silent{server=\"192.0.2.53:53\"} 1",
        ] {
            assert!(page.lines().any(|there| there == line), "{line}\n{page}");
        }
    }

    /// The list of metrics is an interface: a change here is a change for everybody's dashboards.
    #[test]
    fn the_list_of_metrics_is_the_documented_one() {
        let page = page();
        let mut types: Vec<&str> =
            page.lines().filter_map(|l| l.strip_prefix("# TYPE sluicegate_gateway_")).collect();
        types.sort_unstable();
        assert_eq!(
            types,
            [
                "build_info gauge",
                "control_connected gauge",
                "control_last_contact_timestamp_seconds gauge",
                "datapath_info gauge",
                "degraded_conditions gauge",
                "dns_host_asks gauge",
                "dns_listening gauge",
                "dns_questions_total counter",
                "dns_refused_total counter",
                "dns_server_failures_total counter",
                "dns_server_questions_total counter",
                "dns_server_silent gauge",
                "dropped_packets_total counter",
                "events_lost_total counter",
                "events_suppressed_total counter",
                "failover_transitions_total counter",
                "flow_entries gauge",
                "flow_entries_max gauge",
                "flow_table_bytes gauge",
                "flow_table_entries gauge",
                "flow_table_entries_max gauge",
                "flows gauge",
                "flows_started_total counter",
                "forwarded_bytes_total counter",
                "forwarded_packets_total counter",
                "half_open_evictions_total counter",
                "icmp_answers_total counter",
                "masquerade_exhausted_destinations gauge",
                "masquerade_flows gauge",
                "masquerade_port_collisions histogram",
                "masquerade_ports gauge",
                "masquerade_ports_in_use gauge",
                "name_addresses gauge",
                "name_lookups_total counter",
                "name_questions_asked_total counter",
                "name_questions_heard_total counter",
                "names gauge",
                "overlay_peers gauge",
                "overlay_peers_live gauge",
                "policy_applied_timestamp_seconds gauge",
                "policy_apply_failures_total counter",
                "policy_apply_seconds histogram",
                "policy_next_end_timestamp_seconds gauge",
                "policy_refused gauge",
                "policy_revision gauge",
                "policy_shut gauge",
                "resource_bytes_total counter",
                "resource_flows_total counter",
                "resource_packets_total counter",
                "resource_refused_packets_total counter",
                "route_active gauge",
                "rule_bytes_total counter",
                "rule_flows_total counter",
                "rule_packets_total counter",
                "rule_refused_packets_total counter",
                "table_memory_bytes gauge",
                "underlay_guard gauge",
                "xdp_mode gauge",
                "xdp_sends gauge",
            ]
        );
    }

    #[test]
    fn promtool_finds_nothing_wrong() {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool cannot be started: run `cargo xtask setup`, which installs it");
        promtool.stdin.take().unwrap().write_all(page().as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.trim().is_empty(), "{said}");
    }
}
