//! `sluice audit`.

use serde_json::{Value, json};

use super::read_all;
use crate::client::Client;
use crate::error::Failure;
use crate::human::{date_time, parse_time};
use crate::rest::AuditEvent;
use crate::terminal::{Terminal, text};

/// Prints the newest `limit` events, newest first; 0 is all.
pub(crate) async fn list(client: &Client, terminal: &mut Terminal<'_>, limit: usize) -> Result<(), Failure> {
    let mut items: Vec<Value> = client.get("/api/events/audit").await?;
    // Newest first whatever the server's order; sort_by is stable, so events of one instant keep theirs.
    items.sort_by_key(|item| std::cmp::Reverse(item["timestamp"].as_str().and_then(parse_time)));
    if limit > 0 {
        items.truncate(limit);
    }
    if terminal.is_json() {
        return terminal.json("audit-events", json!({ "events": items }));
    }
    let events: Vec<AuditEvent> = read_all(&items, "an audit event")?;
    let rows = events.iter().map(|event| {
        let who = if event.initiator_name.is_empty() { &event.initiator_id } else { &event.initiator_name };
        let named = |key| event.meta.get(key).and_then(Value::as_str);
        let target = match (named("name"), named("network_name")) {
            (Some(name), _) => name.to_owned(),
            (None, Some(network)) => format!("of network {network}"),
            (None, None) => event.target_id.clone(),
        };
        vec![
            text(date_time(&event.timestamp)),
            text(who),
            text(&event.activity),
            text(target),
            text(&event.activity_code),
        ]
    });
    terminal.table(
        &["TIME (UTC)", "WHO", "WHAT", "TARGET", "~CODE"],
        rows.collect(),
        "Nothing was changed yet.",
    )
}
