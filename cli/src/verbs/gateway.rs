//! `sluice gateway`.

use serde_json::{Value, json};

use super::{connected, read, read_all};
use crate::client::Client;
use crate::error::Failure;
use crate::human::{NONE, ago, bytes, count};
use crate::rest::gateway::{Gateway, ImageState, RuleTraffic};
use crate::terminal::{Terminal, Tone, cell, text};

/// Prints all gateways by name.
pub(crate) async fn list(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let items: Vec<Value> = client.get("/api/gateways").await?;
    if terminal.is_json() {
        return terminal.json("gateways", json!({ "gateways": items }));
    }
    let mut gateways: Vec<Gateway> = read_all(&items, "a gateway")?;
    gateways.sort_by(|a, b| a.name.cmp(&b.name));
    let rows = gateways.iter().map(|gateway| {
        let networks: Vec<String> =
            gateway.networks.iter().map(|n| format!("{} ({})", n.network_name, n.metric)).collect();
        let counters = gateway.counters.clone().unwrap_or_default();
        let (tone, image) = image_word(&gateway.image);
        vec![
            text(&gateway.name),
            connected(gateway.connected),
            text(networks.join(", ")),
            text(&gateway.datapath),
            cell(tone, image),
            text(gateway.image.apply_time_ms.map_or_else(|| NONE.to_owned(), milliseconds)),
            text(count(counters.flows)),
            text(bytes(counters.bytes_forwarded)),
            text(count(counters.packets_dropped)),
            text(&gateway.id),
        ]
    });
    let headers = [
        "NAME",
        "STATE",
        "NETWORKS (METRIC)",
        "~DATAPATH",
        "IMAGE",
        "~APPLIED IN",
        "~>FLOWS",
        "~>FORWARDED",
        "~>DROPPED",
        "~ID",
    ];
    terminal.table(
        &headers,
        rows.collect(),
        "No gateways yet. Make a key with `sluice setup-key create --name NAME`, then on the gateway:\n  \
         sluicegate-gateway join --role gateway --control URL --setup-key-file FILE",
    )
}

/// Prints one gateway, by id or name.
pub(crate) async fn show(client: &Client, terminal: &mut Terminal<'_>, wanted: &str) -> Result<(), Failure> {
    let items: Vec<Value> = client.get("/api/gateways").await?;
    let id = find(&items, wanted)?;
    let item: Value = client.get(&format!("/api/gateways/{id}")).await?;
    let rules: Vec<Value> = client.get(&format!("/api/gateways/{id}/rules")).await?;
    if terminal.is_json() {
        return terminal.json("gateway", json!({ "gateway": item, "rules": rules }));
    }
    let gateway: Gateway = read(&item, "a gateway")?;
    facts(terminal, &gateway)?;
    drops(terminal, &gateway)?;
    links(terminal, &gateway)?;
    traffic(terminal, &read_all(&rules, "a rule's counters")?)
}

/// The id of the gateway called `wanted`.
fn find(items: &[Value], wanted: &str) -> Result<String, Failure> {
    let gateways: Vec<Gateway> = read_all(items, "a gateway")?;
    if let Some(gateway) = gateways.iter().find(|gateway| gateway.id == wanted) {
        return Ok(gateway.id.clone());
    }
    let named: Vec<&Gateway> = gateways.iter().filter(|gateway| gateway.name == wanted).collect();
    match named[..] {
        [one] => Ok(one.id.clone()),
        [] => Err(Failure::failed(format!("there is no gateway '{wanted}'"))
            .why(match gateways.len() {
                0 => "no gateway has joined yet".to_owned(),
                _ => format!(
                    "known are {}",
                    gateways.iter().map(|g| g.name.as_str()).collect::<Vec<_>>().join(", ")
                ),
            })
            .next("sluice gateway list")),
        _ => Err(Failure::failed(format!("{} gateways are called '{wanted}'", named.len()))
            .next("give its id: sluice gateway list")),
    }
}

fn facts(terminal: &mut Terminal<'_>, gateway: &Gateway) -> Result<(), Failure> {
    let now = terminal.now;
    let state = if gateway.connected {
        terminal.paint(Tone::Good, "connected")
    } else {
        terminal.paint(Tone::Bad, "away")
    };
    let image = &gateway.image;
    let (tone, word) = image_word(image);
    let mut in_force = terminal.paint(tone, &word);
    if let Some(time) = image.apply_time_ms {
        in_force.push_str(&format!(", applied in {} {}", milliseconds(time), ago(&image.applied_at, now)));
    }
    let mut fact = |name: &str, value: String| terminal.line(format!("{name:<11} {value}"));
    fact("Gateway", format!("{} ({})", gateway.name, gateway.id))?;
    fact("State", format!("{state}, last report {}", ago(&gateway.last_report, now)))?;
    fact("Overlay", format!("{}, {}", gateway.ip, gateway.ipv6))?;
    fact("Underlay", if gateway.endpoint.is_empty() { NONE.to_owned() } else { gateway.endpoint.clone() })?;
    fact("System", format!("{} {}, agent {}", gateway.os, gateway.kernel_version, gateway.version))?;
    fact("Datapath", if gateway.datapath.is_empty() { NONE.to_owned() } else { gateway.datapath.clone() })?;
    fact("Image", in_force)?;
    if !image.hash_applied.is_empty() {
        fact("", format!("sha256 {}", image.hash_applied))?;
    }
    for (index, network) in gateway.networks.iter().enumerate() {
        let masquerade = if network.masquerade { "masquerade" } else { "no masquerade" };
        let off = if network.enabled { "" } else { ", switched off" };
        let value = format!("{}, metric {}, {masquerade}{off}", network.network_name, network.metric);
        fact(if index == 0 { "Networks" } else { "" }, value)?;
    }
    if let Some(counters) = &gateway.counters {
        fact("Flows", format!("{} now, {} started", count(counters.flows), count(counters.flows_started)))?;
        let forwarded =
            format!("{} packets, {}", count(counters.packets_forwarded), bytes(counters.bytes_forwarded));
        fact("Forwarded", forwarded)?;
        if counters.flow_events_lost > 0 {
            fact("Events lost", count(counters.flow_events_lost))?;
        }
    }
    for (index, problem) in gateway.problems().iter().enumerate() {
        let problem = terminal.paint(Tone::Warn, problem);
        terminal.line(format!("{:<11} {problem}", if index == 0 { "Problems" } else { "" }))?;
    }
    Ok(())
}

fn drops(terminal: &mut Terminal<'_>, gateway: &Gateway) -> Result<(), Failure> {
    let mut drops: Vec<_> = gateway.drops.iter().filter(|(_, packets)| **packets > 0).collect();
    if drops.is_empty() {
        return Ok(());
    }
    drops.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let rows = drops.into_iter().map(|(reason, packets)| vec![text(reason), text(count(*packets))]);
    terminal.line("")?;
    terminal.table(&["DROPPED FOR", ">PACKETS"], rows.collect(), "")
}

fn links(terminal: &mut Terminal<'_>, gateway: &Gateway) -> Result<(), Failure> {
    let now = terminal.now;
    let rows = gateway.links.iter().map(|link| {
        let peer = if link.peer_name.is_empty() { &link.peer_id } else { &link.peer_name };
        let live = if link.live { cell(Tone::Good, "live") } else { cell(Tone::Bad, "silent") };
        vec![text(peer), live, text(&link.endpoint), text(ago(&link.last_handshake, now))]
    });
    terminal.line("")?;
    terminal.table(&["TUNNEL TO", "STATE", "ENDPOINT", "HANDSHAKE"], rows.collect(), "No tunnels.")
}

fn traffic(terminal: &mut Terminal<'_>, rules: &[RuleTraffic]) -> Result<(), Failure> {
    let rows = rules.iter().map(|rule| {
        vec![
            text(&rule.policy_name),
            text(&rule.rule_name),
            cell(if rule.action == "drop" { Tone::Bad } else { Tone::Good }, &rule.action),
            text(count(rule.flows)),
            text(count(rule.packets)),
            text(bytes(rule.bytes)),
            text(count(rule.drops)),
        ]
    });
    terminal.line("")?;
    let headers = ["POLICY", "RULE", "ACTION", ">FLOWS", ">PACKETS", ">BYTES", ">REFUSED"];
    terminal.table(&headers, rows.collect(), "No rule concerns this gateway.")
}

/// `revision 7`, `revision 6, wants 7`, `none, wants 7`.
fn image_word(image: &ImageState) -> (Tone, String) {
    match (image.revision_applied, image.revision_wanted) {
        (Some(applied), Some(wanted)) if !image.in_sync => {
            (Tone::Warn, format!("revision {applied}, wants {wanted}"))
        }
        (Some(applied), Some(_)) => (Tone::Good, format!("revision {applied}")),
        (Some(applied), None) => (Tone::Plain, format!("revision {applied}")),
        (None, Some(wanted)) => (Tone::Warn, format!("none, wants {wanted}")),
        (None, None) => (Tone::Faint, NONE.to_owned()),
    }
}

fn milliseconds(ms: f64) -> String {
    crate::human::microseconds((ms * 1_000.0).round() as u64)
}
