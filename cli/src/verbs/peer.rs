//! `sluice peer`.

use serde_json::{Value, json};

use super::object::{self, Kind};
use super::{connected, read, read_all};
use crate::client::Client;
use crate::error::Failure;
use crate::human::ago;
use crate::rest::Peer;
use crate::terminal::{Terminal, text};

const PEER: Kind = Kind { word: "peer", schema: "peer", names: &["name"], list: "sluice peer list" };

/// Prints all peers by name.
pub(crate) async fn list(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let items: Vec<Value> = client.get("/api/peers").await?;
    if terminal.is_json() {
        return terminal.json("peers", json!({ "peers": items }));
    }
    let mut peers: Vec<Peer> = read_all(&items, "a peer")?;
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    let now = terminal.now;
    let rows = peers.iter().map(|peer| {
        vec![
            text(&peer.name),
            connected(peer.connected),
            text(&peer.ip),
            text(&peer.ipv6),
            text(groups(peer)),
            text(ago(&peer.last_seen, now)),
            text(&peer.id),
        ]
    });
    let headers = ["NAME", "STATE", "IPV4", "~IPV6", "GROUPS", "~SEEN", "~ID"];
    terminal.table(
        &headers,
        rows.collect(),
        "No peers yet. Make a key with `sluice setup-key create --name NAME`, then join a machine with it:\n  \
         sluicegate-gateway join --role peer --control URL --setup-key-file FILE",
    )
}

/// Prints one peer, found by id or name.
pub(crate) async fn show(client: &Client, terminal: &mut Terminal<'_>, wanted: &str) -> Result<(), Failure> {
    let items: Vec<Value> = client.get("/api/peers").await?;
    let found = PEER.find(&items, wanted)?;
    let item: Value = client.get(&format!("/api/peers/{}", object::text(found, "id"))).await?;
    if terminal.is_json() {
        return terminal.json("peer", json!({ "peer": item }));
    }
    let peer: Peer = read(&item, "a peer")?;
    let failing: Vec<&str> = peer.posture_failures.iter().map(|failure| failure.reason.as_str()).collect();
    object::fields(
        terminal,
        &[
            ("Name", &peer.name),
            ("Id", &peer.id),
            ("State", if peer.connected { "connected" } else { "away" }),
            ("Seen", &ago(&peer.last_seen, terminal.now)),
            ("IPv4", &peer.ip),
            ("IPv6", &peer.ipv6),
            ("DNS name", &peer.dns_label),
            ("DNS labels", &peer.extra_dns_labels.join(", ")),
            ("Host name", &peer.hostname),
            ("System", &peer.os),
            ("Agent", &peer.version),
            ("Groups", &groups(&peer)),
            ("Failing", &failing.join("; ")),
        ],
    )
}

/// Prints a key for a machine of the user who asks, in the form that `sluicegate-gateway join` reads.
pub(crate) async fn key(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let answer: Value = client.post("/api/login/machine", &json!({})).await.map_err(other_way)?;
    if terminal.is_json() {
        return terminal.json("peer-key", json!({ "peer_key": answer }));
    }
    let field = |name: &str| answer.get(name).and_then(Value::as_str);
    let Some(key) = field("key") else {
        return Err(Failure::failed("control gave no key"));
    };
    match field("control_fingerprint") {
        Some(fingerprint) => {
            terminal.line(format!("{key}#sha256:{}", fingerprint.trim_start_matches("sha256:")))?
        }
        None => terminal.line(key)?,
    }
    terminal.note(
        "One machine joins with it, within ten minutes:\n  \
         sluicegate-gateway join --control https://HOST:PORT --role peer --setup-key-file FILE",
    );
    Ok(())
}

/// Lets in, or turns away, the machine that waits under a code for the user who asks.
pub(crate) async fn admit(
    client: &Client,
    terminal: &mut Terminal<'_>,
    code: &str,
    yes: bool,
    refuse: bool,
) -> Result<(), Failure> {
    let path = "/api/login/device";
    let decide = |decision: &str| json!({ "code": code, "decision": decision });
    let not_there = |failure: Failure| match refused(&failure, 404, "that waits under this code") {
        true => Failure::usage("no machine waits under this code")
            .why("a code is good once, for ten minutes")
            .next("look at what the machine shows, or begin anew there"),
        false => other_way(failure),
    };
    if !yes && !refuse {
        let found: Value = client.post(path, &json!({ "code": code })).await.map_err(not_there)?;
        machine(terminal, &found)?;
        let question = match found.get("peer_id") {
            Some(_) => "Is this your machine, and are you logging in on it again?",
            None => "Is this your machine, which is to join as yours?",
        };
        if !terminal.agrees(question, &format!("sluice peer admit {code} --yes"))? {
            return terminal.line("Nothing was done. To turn it away: --refuse.");
        }
    }
    let answer: Value =
        client.post(path, &decide(if refuse { "refuse" } else { "admit" })).await.map_err(not_there)?;
    if terminal.is_json() {
        return terminal.json("machine", json!({ "machine": answer }));
    }
    let field = |name: &str| object::text(&answer, name);
    let renewed = answer.get("peer_id").is_some();
    terminal.line(match (refuse, renewed) {
        (true, _) => format!("{} is turned away.", field("hostname")),
        (false, true) => format!("The login on {} is as of now.", field("hostname")),
        (false, false) => format!("{} ({}) may join as yours.", field("hostname"), field("fingerprint")),
    })
}

/// Shows a machine, so that it can be told from another's.
fn machine(terminal: &mut Terminal<'_>, machine: &Value) -> Result<(), Failure> {
    let field = |name: &str| object::text(machine, name);
    let shown = |name: &str| field(name).chars().filter(|char| !char.is_control()).collect::<String>();
    let rows = [
        ("Machine", shown("hostname")),
        ("System", shown("os")),
        ("Joins as", shown("role")),
        ("Address", shown("address")),
        ("Fingerprint", shown("fingerprint")),
    ];
    for (name, value) in rows {
        terminal.note(format!("{name:<12} {value}"));
    }
    Ok(())
}

/// Renews the login on a peer of the user who asks.
pub(crate) async fn renew(client: &Client, terminal: &mut Terminal<'_>, peer: &str) -> Result<(), Failure> {
    // Control finds it by id or name: the account's settings may keep users from seeing peers.
    let mut path =
        reqwest::Url::parse("http://control/api/peers").map_err(|e| Failure::failed(e.to_string()))?;
    if let Ok(mut segments) = path.path_segments_mut() {
        segments.extend([peer, "login"]);
    }
    let answer: Value =
        client.post(path.path(), &json!({})).await.map_err(|failure| not_own(failure, peer))?;
    if terminal.is_json() {
        return terminal.json("peer", json!({ "peer": answer }));
    }
    let renewed: Peer = read(&answer, "a peer")?;
    terminal.line(format!("The login on {} is as of now.", renewed.name))
}

/// A peer of others is as one that is not there.
fn not_own(failure: Failure, peer: &str) -> Failure {
    if refused(&failure, 404, "peer") {
        return Failure::usage(format!("there is no peer '{peer}' of yours")).next("see `sluice peer list`");
    }
    other_way(failure)
}

/// Whether control refused with this status, and a message that has these words.
fn refused(failure: &Failure, status: u16, words: &str) -> bool {
    failure.status == Some(status) && failure.why.as_ref().is_some_and(|why| why.contains(words))
}

/// Where it is the kind of token that is refused, no other role would help; else control's own words count.
fn other_way(mut failure: Failure) -> Failure {
    if failure.status != Some(403) {
        return failure;
    }
    if !refused(&failure, 403, "a personal access token cannot") {
        failure.what = failure.why.take().unwrap_or(failure.what);
        failure.next = None;
    } else {
        failure.what = "this needs a login".into();
        failure.next = Some("sluice login --url URL --sso, or --user EMAIL".into());
    }
    failure
}

/// Names of its groups but `All`, which says nothing.
fn groups(peer: &Peer) -> String {
    let names = peer.groups.iter().map(|group| group.name.as_str()).filter(|name| *name != "All");
    names.collect::<Vec<_>>().join(", ")
}
