//! `sluice posture`.

use serde_json::{Value, json};

use super::read_all;
use crate::client::Client;
use crate::error::Failure;
use crate::rest::{Peer, Policy, PostureCheck};
use crate::terminal::{Terminal, text};

/// Prints all posture checks: what they ask, who asks for them, and who fails why.
pub(crate) async fn list(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let items: Vec<Value> = client.get("/api/posture-checks").await?;
    if terminal.is_json() {
        return terminal.json("posture-checks", json!({ "posture_checks": items }));
    }
    let mut checks: Vec<PostureCheck> = read_all(&items, "a posture check")?;
    checks.sort_by(|a, b| a.name.cmp(&b.name));
    let (policies, peers): (Vec<Policy>, Vec<Peer>) = match checks.is_empty() {
        true => Default::default(),
        false => (client.get("/api/policies").await?, client.get("/api/peers").await?),
    };
    let rows = checks.iter().map(|check| {
        vec![
            text(&check.name),
            text(asks(check)),
            text(asked_by(check, &policies)),
            text(failing(check, &peers)),
            text(&check.id),
        ]
    });
    terminal.table(&["NAME", "ASKS FOR", "POLICIES", "FAILING", "~ID"], rows.collect(), "No posture checks.")
}

fn asks(check: &PostureCheck) -> String {
    const PARTS: [(&str, &str); 5] = [
        ("nb_version_check", "agent version"),
        ("os_version_check", "system version"),
        ("geo_location_check", "place"),
        ("peer_network_range_check", "addresses"),
        ("process_check", "processes"),
    ];
    let asked = PARTS.iter().filter(|(part, _)| !check.checks[part].is_null()).map(|(_, words)| *words);
    asked.collect::<Vec<_>>().join(", ")
}

fn asked_by(check: &PostureCheck, policies: &[Policy]) -> String {
    let asks = policies.iter().filter(|policy| policy.source_posture_checks.contains(&check.id));
    let mut names: Vec<&str> = asks.map(|policy| policy.name.as_str()).collect();
    names.sort_unstable();
    names.join(", ")
}

/// One line for each peer.
fn failing(check: &PostureCheck, peers: &[Peer]) -> String {
    let fails = |peer: &Peer| {
        let failure = peer.posture_failures.iter().find(|failure| failure.id == check.id)?;
        Some(format!("{}: {}", peer.name, failure.reason))
    };
    let mut lines: Vec<String> = peers.iter().filter_map(fails).collect();
    lines.sort_unstable();
    lines.join("\n")
}
