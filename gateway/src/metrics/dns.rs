//! Answers to this host's questions for names in the metrics.

use std::collections::BTreeMap;

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::{counter_vec, gauge, name};
use crate::status::{DnsServer, Status};

/// Registers all of them. Where control says nothing of names, there are no questions.
pub(super) fn describe(registry: &Registry, status: &Status) -> anyhow::Result<()> {
    let none = crate::status::Dns::default();
    let dns = status.dns.as_ref().unwrap_or(&none);
    gauge(
        registry,
        "dns_listening",
        "Addresses at which questions for names are answered.",
        dns.listening.len() as u64,
    )?;
    gauge(
        registry,
        "dns_host_asks",
        "1 while this host was made to ask this agent for names.",
        dns.host_asks.into(),
    )?;
    let questions = IntCounterVec::new(
        Opts::new(name("dns_questions_total"), "Questions for names, by who answered them and how."),
        &["by", "result"],
    )?;
    registry.register(Box::new(questions.clone()))?;
    for asked in &dns.questions {
        questions.with_label_values(&[&asked.by, &asked.result]).inc_by(asked.count);
    }
    let refused =
        counter_vec(registry, "dns_refused_total", "Questions that were not considered, by why.", "reason")?;
    for why in &dns.refused {
        refused.with_label_values(&[&why.reason]).inc_by(why.count);
    }
    let asked = counter_vec(
        registry,
        "dns_server_questions_total",
        "Questions that a name server was asked.",
        "server",
    )?;
    let failures = IntCounterVec::new(
        Opts::new(name("dns_server_failures_total"), "Questions that a name server did not answer, by why."),
        &["server", "reason"],
    )?;
    registry.register(Box::new(failures.clone()))?;
    let silent = IntGaugeVec::new(
        Opts::new(
            name("dns_server_silent"),
            "1 while a name server is asked after the others, for it gave no answer lately.",
        ),
        &["server"],
    )?;
    registry.register(Box::new(silent.clone()))?;
    // One server may be of several groups, and has one count.
    let servers = dns.forwards.iter().flat_map(|forward| &forward.servers).chain(&dns.upstreams);
    let servers: BTreeMap<&str, &DnsServer> = servers.map(|server| (&*server.address, server)).collect();
    for (address, server) in servers {
        asked.with_label_values(&[address]).inc_by(server.questions);
        silent.with_label_values(&[address]).set(server.silent.into());
        for why in &server.failures {
            failures.with_label_values(&[address, &why.reason]).inc_by(why.count);
        }
    }
    Ok(())
}
