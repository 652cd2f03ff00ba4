//! A status for people.

use std::fmt::Write as _;
use std::mem::take;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use crate::metrics::protocol_name;
use crate::status::{DnsRouted, DnsServer, Status};
use crate::system;

/// The status as text.
pub(super) fn render(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_head(&mut text, status);
    section(&mut text, "Peers", peers(status));
    section(&mut text, "Routes", routes(status));
    section(&mut text, "Routed here", routed(status));
    section(&mut text, "Names", names(status));
    section(&mut text, "Names of this host", dns(status));
    section(&mut text, "Name servers", name_servers(status));
    section(&mut text, "Flow tables", tables(status));
    section(&mut text, "Masquerade", masquerade(status));
    section(&mut text, "No free port towards", exhausted(status));
    section(&mut text, "Forwarded", forwarded(status));
    section(&mut text, "Dropped", drops(status));
    if !status.degraded.is_empty() {
        text.push_str("\nDegraded\n");
        for sentence in &status.degraded {
            let _ = writeln!(text, "  {sentence}");
        }
    }
    text
}

fn write_head(text: &mut String, status: &Status) -> std::fmt::Result {
    let (identity, control, policy) = (&status.identity, &status.control, &status.policy);
    let none = || "none yet".to_owned();
    writeln!(
        text,
        "{} {} (peer {}), version {}",
        identity.role, identity.name, identity.peer_id, status.version
    )?;
    let addresses = [&identity.address_v4, &identity.address_v6].map(|a| a.clone().unwrap_or_else(none));
    writeln!(text, "Addresses  {} {} on {}", addresses[0], addresses[1], identity.device)?;
    let endpoint = identity.endpoint.as_ref().map(|e| format!(", reached at {e}")).unwrap_or_default();
    writeln!(text, "WireGuard  {} port {}{endpoint}", identity.public_key, identity.listen_port)?;
    let heard =
        control.last_contact_ms.map_or("never heard of".into(), |at| format!("heard {} ago", ago(at)));
    let connected = if control.connected { "connected" } else { "not connected" };
    writeln!(text, "Control    {} {connected}, {heard}", control.url)?;
    if let Some(error) = &control.error {
        writeln!(text, "           {error}")?;
    }
    if control.login_expired {
        writeln!(text, "Login      expired: log in again with `sluicegate-gateway login`")?;
    }
    let sites = match status.datapath.site_devices.is_empty() {
        true => String::new(),
        false => format!(", site {}", status.datapath.site_devices.join(" ")),
    };
    let memory = mebibytes(status.datapath.memory_bytes);
    writeln!(text, "Datapath   {}{sites}, tables of {memory}", status.datapath.kind)?;
    let xdp = &status.datapath.xdp;
    if !xdp.is_empty() {
        let modes: Vec<String> = xdp
            .iter()
            .map(|x| format!("{} {}{}", x.device, x.mode, if x.sends { " (sends)" } else { "" }))
            .collect();
        writeln!(text, "XDP        {}", modes.join(", "))?;
    }
    if let Some(guard) = &status.datapath.guard {
        writeln!(
            text,
            "Guard      port {} on {}, {} handshakes a second and {} at once for each source prefix",
            guard.port,
            guard.devices.join(" "),
            guard.handshakes_per_second,
            guard.burst
        )?;
    }
    if let Some(dns) = &status.dns {
        let at = match dns.listening.is_empty() {
            true => "nowhere".to_owned(),
            false => dns.listening.join(" "),
        };
        let host = match (dns.host_asks, &*dns.host) {
            (true, mode) => format!("this host asks there ({mode})"),
            (false, "off") => "this host is not made to ask there".into(),
            (false, mode) => format!("this host does not ask there ({mode})"),
        };
        let asked: u64 = dns.questions.iter().map(|asked| asked.count).sum();
        writeln!(text, "Names      answered at {at}, {host}; {asked} questions")?;
    }
    match (policy.revision, &policy.hash) {
        (Some(revision), Some(hash)) => {
            let applied =
                policy.applied_ms.map_or("by an earlier run".into(), |at| format!("{} ago", ago(at)));
            writeln!(
                text,
                "Policy     revision {revision} ({}), put in force {applied}",
                hash.get(..12).unwrap_or(hash)
            )?;
            match policy.ends_ms {
                Some(at) => writeln!(
                    text,
                    "Ends       the next grant at {} (in {}), {} in all",
                    system::time(at),
                    span(at.saturating_sub(system::unix_ms()) / 1000),
                    policy.ends
                ),
                None => Ok(()),
            }
        }
        _ => writeln!(text, "Policy     none yet: nothing is forwarded"),
    }
}

fn section(text: &mut String, title: &str, rows: Vec<Vec<String>>) {
    if rows.len() < 2 {
        return;
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    let mut rows = rows.into_iter();
    table.set_header(rows.next().unwrap_or_default());
    table.add_rows(rows);
    let _ = write!(text, "\n{title}\n{table}\n");
}

fn header(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn peers(status: &Status) -> Vec<Vec<String>> {
    let mut rows =
        vec![header(&["name", "id", "endpoint", "live", "handshake", "round trip", "received", "sent"])];
    let dash = || "-".to_owned();
    rows.extend(status.peers.iter().map(|p| {
        vec![
            p.name.clone(),
            p.id.clone(),
            p.endpoint.clone().unwrap_or_else(dash),
            yes(p.live),
            p.handshake_seconds.map_or_else(dash, |s| format!("{s:.0} s ago")),
            p.round_trip_ms.map_or_else(dash, |ms| format!("{ms:.1} ms")),
            p.received.to_string(),
            p.sent.to_string(),
        ]
    }));
    rows
}

fn routes(status: &Status) -> Vec<Vec<String>> {
    let mut rows = vec![header(&["prefix", "network", "router", "metric", "live", "others"])];
    rows.extend(status.routes.iter().map(|route| {
        let active = route.routers.iter().find(|r| Some(&r.peer_id) == route.active.as_ref());
        let others = route.routers.iter().filter(|r| Some(&r.peer_id) != route.active.as_ref());
        let other = |r: &crate::status::Router| {
            format!("{} {}{}", r.name, r.metric, if r.live { "" } else { " (dead)" })
        };
        vec![
            route.prefix.clone(),
            route.network_id.clone(),
            active.map_or_else(|| "-".into(), |r| r.name.clone()),
            route.metric.map_or_else(|| "-".into(), |m| m.to_string()),
            yes(active.is_some_and(|r| r.live)),
            others.map(other).collect::<Vec<_>>().join(", "),
        ]
    }));
    rows
}

fn routed(status: &Status) -> Vec<Vec<String>> {
    let mut rows = vec![header(&["prefix", "network", "device", "masquerade", "metric"])];
    rows.extend(status.routed.iter().map(|r| {
        let device = r.device.clone().unwrap_or_else(|| "unreachable".into());
        vec![r.prefix.clone(), r.network_id.clone(), device, yes(r.masquerade), r.metric.to_string()]
    }));
    rows
}

/// A line for each address, and for each name that has none; the reason stands on the first of a name.
fn names(status: &Status) -> Vec<Vec<String>> {
    let mut rows = vec![header(&["name", "resource", "address", "age", "reason"])];
    for name in &status.names {
        let mut reason = name.reason.clone().unwrap_or_default();
        let mut row = |address: &str, age: String| {
            vec![name.name.clone(), name.resource_id.clone(), address.to_owned(), age, take(&mut reason)]
        };
        if name.addresses.is_empty() {
            rows.push(row("-", "-".into()));
        }
        rows.extend(name.addresses.iter().map(|a| row(&a.address, span(a.age_seconds))));
    }
    rows
}

/// Who answers which names; the last line is for all that nothing else holds.
fn dns(status: &Status) -> Vec<Vec<String>> {
    let mut rows = vec![header(&["domain", "answered by", "names"])];
    let Some(dns) = &status.dns else { return rows };
    rows.extend(dns.zones.iter().map(|zone| {
        vec![zone.domain.clone(), format!("this agent ({})", zone.kind), zone.names.to_string()]
    }));
    let routed = |routed: &DnsRouted| {
        vec![routed.name.clone(), format!("a router of {}", routed.resource_id), "-".into()]
    };
    rows.extend(dns.routed.iter().map(routed));
    for forward in &dns.forwards {
        let by = format!("name servers of {}", forward.name);
        let row = |domain: &str| vec![domain.to_owned(), by.clone(), "-".into()];
        rows.extend(forward.domains.iter().map(|domain| row(domain)));
        if forward.domains.is_empty() {
            rows.push(row("."));
        }
    }
    if dns.forwards.iter().all(|forward| !forward.domains.is_empty()) {
        rows.push(vec![".".into(), "this host's name servers".into(), "-".into()]);
    }
    rows
}

fn name_servers(status: &Status) -> Vec<Vec<String>> {
    let mut rows = vec![header(&["server", "of", "silent", "asked", "in vain"])];
    let Some(dns) = &status.dns else { return rows };
    let row = |server: &DnsServer, of: &str| {
        let failures: u64 = server.failures.iter().map(|failure| failure.count).sum();
        let silent = yes(server.silent);
        vec![
            server.address.clone(),
            of.to_owned(),
            silent,
            server.questions.to_string(),
            failures.to_string(),
        ]
    };
    for forward in &dns.forwards {
        rows.extend(forward.servers.iter().map(|server| row(server, &forward.name)));
    }
    rows.extend(dns.upstreams.iter().map(|server| row(server, "this host")));
    rows
}

fn tables(status: &Status) -> Vec<Vec<String>> {
    let mut rows = vec![header(&["table", "family", "entries", "of", "memory"])];
    rows.extend(status.datapath.tables.iter().map(|t| {
        let memory = mebibytes(t.bytes);
        vec![t.stage.clone(), t.family.clone(), t.entries.to_string(), t.capacity.to_string(), memory]
    }));
    if status.counters.half_open_evicted > 0 {
        let evicted = status.counters.half_open_evicted.to_string();
        rows.push(vec!["half_open".into(), "evicted".into(), evicted, String::new(), String::new()]);
    }
    rows
}

fn masquerade(status: &Status) -> Vec<Vec<String>> {
    let mut rows = vec![header(&["address", "protocol", "flows", "ports in use", "of"])];
    let (first, last) = status.masquerade.ports;
    rows.extend(status.masquerade.in_use.iter().map(|used| {
        vec![
            used.address.clone(),
            protocol_name(used.protocol),
            used.flows.to_string(),
            used.ports.to_string(),
            (u32::from(last.saturating_sub(first)) + 1).to_string(),
        ]
    }));
    rows
}

fn exhausted(status: &Status) -> Vec<Vec<String>> {
    let mut rows = vec![header(&["destination", "port", "protocol", "events", "last"])];
    rows.extend(status.masquerade.exhausted.iter().map(|e| {
        vec![
            e.destination.clone(),
            e.port.to_string(),
            protocol_name(e.protocol),
            e.events.to_string(),
            format!("{} ago", ago(e.last_ms)),
        ]
    }));
    rows
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn forwarded(status: &Status) -> Vec<Vec<String>> {
    let mut rows = vec![header(&["from", "packets", "bytes"])];
    let counters = &status.counters;
    rows.extend(
        counters
            .forwarded
            .iter()
            .map(|f| vec![f.direction.clone(), f.packets.to_string(), f.bytes.to_string()]),
    );
    rows.push(vec![
        "flows".into(),
        counters.flows.to_string(),
        format!("of {} started", counters.flows_started),
    ]);
    rows
}

fn drops(status: &Status) -> Vec<Vec<String>> {
    let mut rows = vec![header(&["reason", "packets"])];
    let happened = status.counters.drops.iter().filter(|d| d.packets > 0);
    rows.extend(happened.map(|d| vec![d.reason.clone(), d.packets.to_string()]));
    rows
}

fn yes(is: bool) -> String {
    if is { "yes".into() } else { "no".into() }
}

fn ago(unix_ms: u64) -> String {
    span(system::unix_ms().saturating_sub(unix_ms) / 1000)
}

fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Address, Dns, DnsForward, DnsZone, Drops, Name, Peer, Policy, Route, Router};

    #[test]
    fn a_status_shows_what_matters() {
        let empty = render(&Status::default());
        assert!(empty.contains("nothing is forwarded"), "{empty}");
        let router = |id: &str, live| Router { peer_id: id.into(), name: id.into(), metric: 100, live };
        let status = Status {
            policy: Policy { revision: Some(7), hash: Some("ab".repeat(32)), ..Policy::default() },
            peers: vec![Peer { name: "gw1".into(), live: true, ..Peer::default() }],
            routes: vec![Route {
                prefix: "10.1.0.0/24".into(),
                active: Some("gw1".into()),
                routers: vec![router("gw1", true), router("gw2", false)],
                ..Route::default()
            }],
            names: vec![
                Name {
                    name: "db.example.org".into(),
                    addresses: vec![Address { address: "2001:db8::7".into(), age_seconds: 42 }],
                    ..Name::default()
                },
                Name { name: "*.example.org".into(), reason: Some("why not".into()), ..Name::default() },
            ],
            degraded: vec!["a sentence".into()],
            ..Status::default()
        };
        let mut status = status;
        assert!(!render(&status).contains("Login"));
        status.control.login_expired = true;
        status.counters.drops = vec![Drops { reason: "no_rule".into(), packets: 3 }, Drops::default()];
        let text = render(&status);
        for shown in [
            "revision 7 (abababababab)",
            "gw1",
            "10.1.0.0/24",
            "gw2 100 (dead)",
            "no_rule",
            "a sentence",
            "gateway login",
        ] {
            assert!(text.contains(shown), "{shown} in\n{text}");
        }
        let words = |of: &str| {
            let line = text.lines().find(|line| line.contains(of)).unwrap_or_default();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words("db.example.org"), "db.example.org 2001:db8::7 42 s");
        assert_eq!(words("*.example.org"), "*.example.org - - why not");
    }

    #[test]
    fn who_answers_the_names_of_this_host_is_shown() {
        let server =
            |address: &str| DnsServer { address: address.into(), questions: 9, ..DnsServer::default() };
        let group = DnsForward {
            name: "corp".into(),
            domains: vec!["corp.test".into()],
            servers: vec![server("192.0.2.53:53")],
            ..DnsForward::default()
        };
        let mut dns = Dns {
            listening: vec!["100.90.0.7:53".into()],
            host: "resolv.conf".into(),
            host_asks: true,
            zones: vec![DnsZone { domain: "peers.test".into(), kind: "peers".into(), names: 3 }],
            routed: vec![DnsRouted { name: "*.db.test".into(), resource_id: "r1".into() }],
            forwards: vec![group],
            upstreams: vec![server("[2001:db8::53]:53")],
            ..Dns::default()
        };
        let render = |dns: &Dns| render(&Status { dns: Some(dns.clone()), ..Status::default() });
        let shows = |text: &str, line: &str| {
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.lines().any(|there| words(there) == line), "{line} in\n{text}");
        };
        let text = render(&dns);
        for line in [
            "Names answered at 100.90.0.7:53, this host asks there (resolv.conf); 0 questions",
            "peers.test this agent (peers) 3",
            "*.db.test a router of r1 -",
            "corp.test name servers of corp -",
            ". this host's name servers -",
            "192.0.2.53:53 corp no 9 0",
            "[2001:db8::53]:53 this host no 9 0",
        ] {
            shows(&text, line);
        }
        (dns.host_asks, dns.forwards[0].domains) = (false, Vec::new());
        dns.listening.clear();
        let text = render(&dns);
        shows(&text, "Names answered at nowhere, this host does not ask there (resolv.conf); 0 questions");
        shows(&text, ". name servers of corp -");
        assert!(!text.contains("this host's name servers"), "{text}");
    }
}
