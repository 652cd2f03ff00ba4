//! `sluice audit`.

mod chain;

use serde_json::{Value, json};
use time::UtcDateTime;
use time::format_description::well_known::Rfc3339;

use super::read_all;
use crate::args::{AuditList, Moment};
use crate::client::Client;
use crate::error::Failure;
use crate::human::date_time;
use crate::rest::AuditEvent;
use crate::terminal::{Terminal, text};

pub(crate) use chain::{export, verify, verify_file};

const PATH: &str = "/api/events/audit";
/// Events asked for at once.
const PAGE: usize = 1_000;

/// Prints the newest events that the filters take, newest first.
pub(crate) async fn list(
    client: &Client,
    terminal: &mut Terminal<'_>,
    options: &AuditList,
) -> Result<(), Failure> {
    let items = fetch(client, terminal.now, options).await?;
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
            text(&event.id),
        ]
    });
    let nothing = if is_filtered(options) { "No such event." } else { "Nothing was changed yet." };
    terminal.table(&["TIME (UTC)", "WHO", "WHAT", "TARGET", "~CODE", "~>ID"], rows.collect(), nothing)
}

/// The events, page by page until there are as many as wanted.
async fn fetch(client: &Client, now: UtcDateTime, options: &AuditList) -> Result<Vec<Value>, Failure> {
    let mut filters: Vec<(&str, String)> = Vec::new();
    if !options.code.is_empty() {
        filters.push(("code", options.code.join(",")));
    }
    let texts = [("initiator", &options.who), ("target", &options.target), ("search", &options.search)];
    for (name, value) in texts {
        filters.extend(value.clone().map(|value| (name, value)));
    }
    for (name, moment) in [("from", options.since), ("until", options.until)] {
        let Some(moment) = moment else { continue };
        filters.push((name, rfc3339(moment, now)?));
    }
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let (mut items, mut before): (Vec<Value>, _) = (Vec::new(), options.before);
    while items.len() < limit {
        let mut query = filters.clone();
        query.push(("limit", PAGE.min(limit - items.len()).to_string()));
        query.extend(before.map(|id| ("before", id.to_string())));
        let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let page: Vec<Value> = client.query(PATH, &query).await?;
        let ids = page.iter().filter_map(|item| item["id"].as_str()?.parse::<i64>().ok());
        // A control that does not page would answer the same again.
        let Some(oldest) = ids.min().filter(|id| before.is_none_or(|before| *id < before)) else { break };
        before = Some(oldest);
        items.extend(page);
    }
    items.truncate(limit);
    Ok(items)
}

fn rfc3339(moment: Moment, now: UtcDateTime) -> Result<String, Failure> {
    let at = match moment {
        Moment::At(at) => Some(at),
        Moment::Ago(age) => time::Duration::try_from(age).ok().and_then(|age| now.checked_sub(age)),
    };
    at.and_then(|at| at.format(&Rfc3339).ok()).ok_or_else(|| {
        Failure::usage("the time is beyond the calendar").next("name a shorter age, or a date")
    })
}

fn is_filtered(options: &AuditList) -> bool {
    let AuditList { limit: _, code, who, target, since, until, search, before } = options;
    !code.is_empty()
        || [who, target, search].iter().any(|text| text.is_some())
        || since.is_some()
        || until.is_some()
        || before.is_some()
}
