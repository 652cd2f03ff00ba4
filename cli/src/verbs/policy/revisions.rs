//! `sluice policy export` and `history`.

use std::path::Path;

use serde_json::{Value, json};

use super::file;
use crate::client::Client;
use crate::error::Failure;
use crate::human::date_time;
use crate::rest::plan::{Export, Revision};
use crate::terminal::{Terminal, text};
use crate::verbs::{read, read_all};

/// Writes what control has as a file.
pub(super) async fn export(
    client: &Client,
    terminal: &mut Terminal<'_>,
    path: Option<&Path>,
) -> Result<(), Failure> {
    let answer: Value = client.get("/api/policy-file").await?;
    let export: Export = read(&answer, "an export")?;
    if let Some(path) = path {
        let name = path.display();
        file::replace(path, &export.file)
            .map_err(|error| Failure::failed(format!("cannot write {name}")).why(error))?;
        if !terminal.is_json() {
            return terminal.line(format!("{name} is control's state of version {}", export.version));
        }
    }
    if terminal.is_json() {
        return terminal.json("policy-export", json!({ "version": export.version, "file": export.file }));
    }
    terminal.out.write_all(export.file.as_bytes()).map_err(Failure::from)
}

/// Lists revisions, the newest first.
pub(super) async fn history(client: &Client, terminal: &mut Terminal<'_>, limit: u32) -> Result<(), Failure> {
    let items: Vec<Value> =
        client.query("/api/policy-file/revisions", &[("limit", &limit.to_string())]).await?;
    if terminal.is_json() {
        return terminal.json("policy-history", json!({ "revisions": items }));
    }
    let revisions: Vec<Revision> = read_all(&items, "a revision")?;
    let rows = revisions.iter().map(|revision| {
        vec![
            text(revision.number.to_string()),
            text(date_time(&revision.timestamp)),
            text(&revision.kind),
            text(&revision.actor),
            text(&revision.message),
        ]
    });
    terminal.table(
        &[">REVISION", "WHEN", "HOW", "BY", "MESSAGE"],
        rows.collect(),
        "No revisions: nothing was applied yet. Write a file with `sluice policy export`.",
    )
}
