//! `sluice policy plan`, `apply` and `rollback`.

use serde_json::{Value, json};

use super::suggest::traffic;
use super::{file, tests};
use crate::args::{Apply, Change, Prune, Rollback};
use crate::client::Client;
use crate::error::Failure;
use crate::human::{bytes, count, plural};
use crate::rest::plan::{Applied, Asked, Gateway, Plan, Side, Turn, Turns};
use crate::terminal::{Terminal, Tone};
use crate::verbs::read;

/// What a file would do.
pub(super) async fn plan(
    client: &Client,
    terminal: &mut Terminal<'_>,
    change: &Change,
) -> Result<(), Failure> {
    let source = file::read(&change.file.file, terminal)?;
    let body = json!({ "file": source.text, "prune": change.prune.name() });
    let answer = client.ask::<Value>("/api/policy-file/plan", &body).await?;
    let answer = answer.map_err(|refused| file::refused(terminal, &source.name, refused))?;
    let plan: Plan = read(&answer, "a plan")?;
    if terminal.is_json() {
        terminal.json("policy-plan", json!({ "plan": answer }))?;
    } else {
        show(terminal, &plan)?;
        terminal.line(format!("Would be: {}. Nothing was written.", sum(&plan)))?;
        if writes(&plan) {
            let prune = match change.prune.prune {
                None => "",
                Some(Prune::Policies) => " --prune",
                Some(Prune::Everything) => " --prune=everything",
            };
            let (name, version) = (&source.name, &plan.version);
            terminal
                .line(format!("Exactly this: sluice policy apply -f {name}{prune} --expect {version}"))?;
        }
        remarks(terminal, &plan);
    }
    if plan.tests.iter().all(|test| test.holds) { Ok(()) } else { Err(Failure::test_fails()) }
}

/// Applies a file.
pub(super) async fn apply(
    client: &Client,
    terminal: &mut Terminal<'_>,
    options: &Apply,
) -> Result<(), Failure> {
    let source = file::read(&options.change.file.file, terminal)?;
    let body = json!({
        "file": source.text,
        "prune": options.change.prune.name(),
        "expected_version": options.expect,
        "message": options.message,
    });
    let answer = client.ask::<Value>("/api/policy-file/apply", &body).await?;
    match answer {
        Ok(answer) => done(terminal, &answer, "policy-apply"),
        Err(refused) => {
            tests::show_refused(terminal, &refused)?;
            Err(file::refused(terminal, &source.name, refused))
        }
    }
}

/// Brings a revision back.
pub(super) async fn rollback(
    client: &Client,
    terminal: &mut Terminal<'_>,
    options: &Rollback,
) -> Result<(), Failure> {
    let body = json!({
        "revision": options.revision,
        "expected_version": options.expect,
        "message": options.message,
        "dry_run": options.dry_run,
        "despite_tests": options.despite_tests,
    });
    let answer = client.ask::<Value>("/api/policy-file/rollback", &body).await?;
    match answer {
        Ok(answer) if options.dry_run && !terminal.is_json() => {
            let applied: Applied = read(&answer, "a plan")?;
            show(terminal, &applied.plan)?;
            terminal.line(format!("Would be: {}. Nothing was written.", sum(&applied.plan)))?;
            remarks(terminal, &applied.plan);
            Ok(())
        }
        Ok(answer) => done(terminal, &answer, "policy-rollback"),
        Err(refused) => {
            tests::show_refused(terminal, &refused)?;
            Err(file::refused(terminal, &format!("revision {}", options.revision), refused))
        }
    }
}

fn done(terminal: &mut Terminal<'_>, answer: &Value, schema: &str) -> Result<(), Failure> {
    if terminal.is_json() {
        return terminal.json(schema, json!({ "applied": answer }));
    }
    let applied: Applied = read(answer, "an applied file")?;
    show(terminal, &applied.plan)?;
    let kept = match applied.revision {
        Some(number) => format!("; kept as revision {number}"),
        None => "; nothing was written".to_owned(),
    };
    terminal.line(format!("{}{kept}.", sum(&applied.plan)))?;
    remarks(terminal, &applied.plan);
    Ok(())
}

fn writes(plan: &Plan) -> bool {
    !plan.changes.is_empty()
}

fn sum(plan: &Plan) -> String {
    let of = |action: &str| plan.changes.iter().filter(|change| change.action == action).count();
    format!(
        "{} created, {} updated, {} deleted, {} unchanged",
        of("create"),
        of("update"),
        of("delete"),
        plan.unchanged
    )
}

/// Everything but the sum.
fn show(terminal: &mut Terminal<'_>, plan: &Plan) -> Result<(), Failure> {
    changes(terminal, plan)?;
    if writes(plan) {
        terminal.line("")?;
        let (opened, closed) = (&plan.reach.opened, &plan.reach.closed);
        terminal.line(format!(
            "Reach: {} (source, destination, service) pairs open, {} close",
            count(opened.pairs),
            count(closed.pairs)
        ))?;
        pairs(terminal, opened, "+", Tone::Good)?;
        pairs(terminal, closed, "-", Tone::Bad)?;
        posture(terminal, &plan.posture)?;
        let peers = match plan.peers {
            0 => String::new(),
            peers => format!(", and {}", plural(peers, "other peer")),
        };
        terminal.line(format!("New images: {}{peers}", plural(plan.gateways.len(), "gateway")))?;
        for gateway in &plan.gateways {
            terminal.line(format!("  {}: {}", gateway.name, gets(gateway)))?;
        }
        let flows = &plan.flows;
        terminal.line(format!(
            "Live flows cut: {} of {} known ({} reported by gateways)",
            count(flows.cut),
            count(flows.known),
            count(flows.reported)
        ))?;
        for row in &flows.examples {
            terminal.line(format!("  {}", traffic(row)))?;
        }
        for gateway in &flows.asked {
            terminal.line(format!("  {}", asked(gateway)))?;
        }
        if let Some(note) = &flows.note {
            terminal.line(format!("  {note}"))?;
        }
    }
    if !plan.tests.is_empty() {
        tests::show(terminal, &plan.tests)?;
    }
    if writes(plan) || !plan.tests.is_empty() {
        terminal.line("")?;
    }
    Ok(())
}

/// What is written.
pub(super) fn changes(terminal: &mut Terminal<'_>, plan: &Plan) -> Result<(), Failure> {
    for change in &plan.changes {
        let tone = match change.action.as_str() {
            "create" => Tone::Good,
            "delete" => Tone::Bad,
            _ => Tone::Warn,
        };
        // Padded before it is painted: escape codes have no width.
        let word = terminal.paint(tone, &format!("{:<8}", change.action));
        let network = change.network.as_ref().map(|network| format!("{network}: ")).unwrap_or_default();
        terminal.line(format!("{word}  {:<8}  {network}{}", change.kind, change.name))?;
        for what in &change.changes {
            terminal.line(format!("{:22}{what}", ""))?;
        }
    }
    Ok(())
}

fn pairs(terminal: &mut Terminal<'_>, side: &Side, sign: &str, tone: Tone) -> Result<(), Failure> {
    for pair in &side.examples {
        let sign = terminal.paint(tone, sign);
        terminal.line(format!(
            "  {sign} {} -> {} ({}) {}",
            pair.source, pair.destination, pair.address, pair.service
        ))?;
    }
    match side.pairs.saturating_sub(side.examples.len() as u64) {
        0 => Ok(()),
        more => terminal.line(format!("    and {} more", count(more))),
    }
}

/// What a gateway answered, or that it did not.
fn asked(gateway: &Asked) -> String {
    let Asked { name, answer, live, listed, more, cut, cut_bytes } = gateway;
    match (answer.as_str(), more) {
        ("answered", 0) => {
            format!(
                "asked {name}: {} of its {} are cut, {}",
                count(*cut),
                plural_flows(*live),
                bytes(*cut_bytes)
            )
        }
        ("answered", more) => format!(
            "asked {name}: {} of the {} listed are cut, {}; and {} more were not looked at",
            count(*cut),
            plural_flows(*listed),
            bytes(*cut_bytes),
            count(*more)
        ),
        (why, _) => format!("asked {name}: {why}, so its flows are known by their events only"),
    }
}

fn plural_flows(flows: u64) -> String {
    format!("{} {}", count(flows), if flows == 1 { "flow" } else { "flows" })
}

/// Machines that turn; nothing where none does.
fn posture(terminal: &mut Terminal<'_>, turns: &Turns) -> Result<(), Failure> {
    if turns.failing + turns.passing == 0 {
        return Ok(());
    }
    terminal.line(format!(
        "Posture: {} (machine, check) pairs come to fail, {} fail no more",
        count(turns.failing),
        count(turns.passing)
    ))?;
    for (total, list, sign, word, tone) in [
        (turns.passing, &turns.passes, "+", "failed", Tone::Good),
        (turns.failing, &turns.fails, "-", "fails", Tone::Bad),
    ] {
        for Turn { peer, check, why } in list {
            let sign = terminal.paint(tone, sign);
            terminal.line(format!("  {sign} {peer} {word} {check}: {why}"))?;
        }
        match total.saturating_sub(list.len() as u64) {
            0 => {}
            more => terminal.line(format!("    and {} more", count(more)))?,
        }
    }
    Ok(())
}

fn gets(gateway: &Gateway) -> String {
    let mut parts = Vec::new();
    for (sign, kind, names) in [
        ("+", "rule", &gateway.rules_added),
        ("-", "rule", &gateway.rules_removed),
        ("+", "route", &gateway.routes_added),
        ("-", "route", &gateway.routes_removed),
    ] {
        parts.extend(names.iter().map(|name| format!("{sign}{kind} {name}")));
    }
    if gateway.members_change || parts.is_empty() {
        parts.push("the same rules and routes, for others".to_owned());
    }
    parts.join(", ")
}

/// What stands beside the results.
fn remarks(terminal: &mut Terminal<'_>, plan: &Plan) {
    if !plan.left_alone.is_empty() {
        let names: Vec<String> = plan.left_alone.iter().map(|name| format!("'{name}'")).collect();
        terminal.note(format!(
            "Left alone, because the file does not name them: {} (--prune deletes them).",
            names.join(", ")
        ));
    }
    for warning in &plan.warnings {
        terminal.note(format!("warning: {warning}"));
    }
}
