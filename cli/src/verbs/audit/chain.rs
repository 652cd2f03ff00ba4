//! `sluice audit verify` and `export`: every hash is computed here, and nothing is taken from control but the events.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sluicegate_audit::{Anchor, Broken, Head, Link, Report, Verifier};
use time::UtcDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::Client;
use crate::error::{Failure, Kind};
use crate::human::{count, date_time};
use crate::rest::AuditChain;
use crate::terminal::Terminal;

const PATH: &str = "/api/events/audit/chain";
/// What the first line of an export says it is.
const SCHEMA: &str = "sluicegate.audit-export/1";

/// The first line of an export.
#[derive(Serialize, Deserialize)]
struct First {
    schema: String,
    anchor: Anchor,
}

/// The last line of an export: without it the file was cut off.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Last {
    head: Head,
    events: u64,
}

/// Verifies the trail that control has.
pub(crate) async fn verify(
    client: &Client,
    terminal: &mut Terminal<'_>,
    noted: Option<Head>,
) -> Result<(), Failure> {
    let (verifier, head) = walk(client, noted, None).await?;
    conclude(terminal, verifier, &head)
}

/// Verifies an export.
pub(crate) fn verify_file(
    terminal: &mut Terminal<'_>,
    path: &Path,
    noted: Option<Head>,
) -> Result<(), Failure> {
    let cannot = |error| Failure::failed(format!("cannot read {}", path.display())).why(error);
    let open = || File::open(path).map(|file| BufReader::new(file).lines()).map_err(cannot);
    let cut = || broken(format!("{} ends without its last line: it was cut off", path.display()));
    let mut lines = open()?;
    let first = lines.next().transpose().map_err(cannot)?.unwrap_or_default();
    let first = serde_json::from_str::<First>(&first).ok().filter(|first| first.schema == SCHEMA);
    let Some(first) = first else {
        return Err(Failure::usage(format!("{} is no export of an audit trail", path.display()))
            .why(format!("its first line does not have the schema {SCHEMA}"))
            .next("make one: sluice audit export FILE"));
    };
    let last = open()?.last().transpose().map_err(cannot)?.ok_or_else(cut)?;
    let last: Last = serde_json::from_str(&last).map_err(|_| cut())?;
    let mut verifier = Verifier::new(first.anchor, noted);
    let mut lines = lines.zip(2..).peekable();
    while let Some((line, number)) = lines.next() {
        let line = line.map_err(cannot)?;
        if lines.peek().is_none() {
            break;
        }
        match serde_json::from_str::<Link>(&line) {
            Ok(link) => verifier.push(&link, &last.head),
            Err(error) => {
                let what = format!("line {number} of {} is no event", path.display());
                return Err(broken(what).why(error));
            }
        }
    }
    conclude(terminal, verifier, &last.head)
}

/// Writes what control has to a new file, one event in a line.
pub(crate) async fn export(client: &Client, terminal: &mut Terminal<'_>, path: &Path) -> Result<(), Failure> {
    let mut export = Export::create(path)?;
    let walked = walk(client, None, Some(&mut export)).await;
    let written = walked.and_then(|(verifier, head)| {
        export.line(&Last { head: head.clone(), events: verifier.events() })?;
        export.finish()?;
        Ok((verifier, head))
    });
    match written {
        Ok((verifier, head)) => {
            terminal.note(format!("Wrote {}.", path.display()));
            conclude(terminal, verifier, &head)
        }
        Err(failure) => {
            // Half a trail is no use to anybody; what is wrong is told already.
            let _ = std::fs::remove_file(path);
            Err(failure)
        }
    }
}

/// A file under way.
struct Export<'p> {
    path: &'p Path,
    out: BufWriter<File>,
}

impl<'p> Export<'p> {
    fn create(path: &'p Path) -> Result<Self, Failure> {
        // What events say of peers and people is for the owner's eyes.
        match File::options().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => Ok(Export { path, out: BufWriter::new(file) }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(Failure::usage(format!("{} is there already", path.display()))
                    .next("choose another name: an export is never overwritten"))
            }
            Err(error) => Err(Failure::failed(format!("cannot write {}", path.display())).why(error)),
        }
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let written = serde_json::to_writer(&mut self.out, value).map_err(std::io::Error::from);
        let written = written.and_then(|()| self.out.write_all(b"\n"));
        self.written(written)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let synced = self.out.flush().and_then(|()| self.out.get_ref().sync_all());
        self.written(synced)
    }

    fn written(&self, written: std::io::Result<()>) -> Result<(), Failure> {
        written.map_err(|error| Failure::failed(format!("cannot write {}", self.path.display())).why(error))
    }
}

/// Gives every event to a verifier, and to a file if there is one; what is left is to finish with the head.
async fn walk(
    client: &Client,
    noted: Option<Head>,
    mut export: Option<&mut Export<'_>>,
) -> Result<(Verifier, Head), Failure> {
    let mut page: AuditChain = client.get(PATH).await?;
    let anchor = page.anchor.clone();
    if let Some(export) = &mut export {
        export.line(&First { schema: SCHEMA.into(), anchor: anchor.clone() })?;
    }
    let mut verifier = Verifier::new(anchor.clone(), noted);
    while let Some(last) = page.events.last() {
        let after = last.event.id;
        for link in &page.events {
            if let Some(export) = &mut export {
                export.line(link)?;
            }
            verifier.push(link, &page.head);
        }
        page = client.query(PATH, &[("after", &after.to_string())]).await?;
        if page.anchor != anchor {
            return Err(Failure::failed("retention removed events while the trail was read")
                .next("run the command again"));
        }
        if page.events.first().is_some_and(|first| first.event.id <= after) {
            return Err(Failure::failed(format!("control gave events up to {after} twice"))
                .next("check that --url is the address of a Sluicegate control"));
        }
    }
    Ok((verifier, page.head))
}

/// Says how it ended.
fn conclude(terminal: &mut Terminal<'_>, verifier: Verifier, head: &Head) -> Result<(), Failure> {
    let (whole, tip) = (verifier.events(), verifier.tip().clone());
    match verifier.finish(head) {
        Ok(report) => say_whole(terminal, &report),
        Err(error) => {
            if terminal.is_json() {
                terminal.json(
                    "audit-verify",
                    json!({
                        "whole": false, "events": whole, "head": tip,
                        "broken": { "kind": error.kind(), "event": error.id(), "message": error.to_string() },
                    }),
                )?;
            }
            let failure = broken(format!("the audit trail is broken: {error}"));
            Err(match error {
                Broken::Changed { .. }
                | Broken::Missing { .. }
                | Broken::Reordered { .. }
                | Broken::Inserted { .. } => {
                    failure.why(format!("{} before it follow each other, up to {tip}", events(whole)))
                }
                _ => failure.why(format!("the chain itself is whole: {}, up to {tip}", events(whole))),
            })
        }
    }
}

fn say_whole(terminal: &mut Terminal<'_>, report: &Report) -> Result<(), Failure> {
    let Report { events: number, head, at, anchor } = report;
    let at = at.and_then(|at| UtcDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000_000).ok());
    let at = at.and_then(|at| at.format(&Rfc3339).ok());
    if terminal.is_json() {
        let fields = json!({ "whole": true, "events": number, "head": head, "time": at, "anchor": anchor, "broken": null });
        return terminal.json("audit-verify", fields);
    }
    terminal.line(format!("Whole    {}", events(*number)))?;
    terminal.line(format!("Head     {head}"))?;
    terminal.line(format!("Time     {} (UTC)", at.as_deref().map_or("-".into(), date_time)))?;
    if anchor.id > 0 {
        let removed = u64::try_from(anchor.removed).unwrap_or_default();
        terminal.line(format!("Removed  {} by retention, up to event {}", events(removed), anchor.id))?;
    }
    Ok(())
}

fn events(number: u64) -> String {
    format!("{} {}", count(number), if number == 1 { "event" } else { "events" })
}

fn broken(what: String) -> Failure {
    Failure::new(Kind::Broken, what)
        .next("keep the store as it is, and compare with an export or a backup from before")
}
