//! `sluice policy apply`.

use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use crate::apply::write::{Stopped, carry_out};
use crate::apply::{Action, Current, Plan, Spec, Step};
use crate::args::Apply;
use crate::client::Client;
use crate::error::Failure;
use crate::terminal::{Terminal, Tone};

/// Largest policy file that is read, bytes.
const FILE_MAX: u64 = 64 << 20;

/// Reads the file, checks all of it, prints and takes the steps.
pub(crate) async fn run(
    client: &Client,
    terminal: &mut Terminal<'_>,
    options: &Apply,
) -> Result<(), Failure> {
    let name = if options.file.as_os_str() == "-" {
        "standard input".into()
    } else {
        options.file.display().to_string()
    };
    let text = read_file(&options.file, &name, terminal)?;
    let spec = Spec::read(&text).map_err(|why| {
        Failure::usage(format!("cannot use {name}")).why(why).next("correct the file; nothing was written")
    })?;
    let current = Current::fetch(client, &spec).await?;
    let plan = Plan::new(&spec, &current, options.prune).map_err(|faults| {
        Failure::usage(format!("{name} does not fit what control at {} has", client.url()))
            .why(faults.join("\n"))
            .next("correct the file; nothing was written")
    })?;

    let mut report = Report { json: terminal.is_json(), dry_run: options.dry_run, taken: Vec::new() };
    if options.dry_run {
        for step in plan.writes() {
            report.step(terminal, step)?;
        }
    } else if let Err(stopped) = carry_out(client, &plan, &current, |step| report.step(terminal, step)).await
    {
        return Err(failure(&plan, stopped, report.taken.len(), &name));
    }
    report.end(terminal, &plan)
}

fn read_file(path: &Path, name: &str, terminal: &mut Terminal<'_>) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        (&mut *terminal.input).take(FILE_MAX + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_string(&mut text))
    };
    match read {
        Ok(size) if size as u64 > FILE_MAX => {
            Err(Failure::usage(format!("cannot read {name}"))
                .why(format!("it is larger than {FILE_MAX} bytes")))
        }
        Ok(_) => Ok(text),
        Err(error) => {
            Err(Failure::usage(format!("cannot read {name}")).why(error).next("check the path given with -f"))
        }
    }
}

/// What was written before a step failed, so that nobody has to guess.
fn failure(plan: &Plan, stopped: Stopped, taken: usize, file: &str) -> Failure {
    let step = &plan.steps[stopped.at];
    let planned = plan.writes().count();
    let written = match taken {
        0 => "nothing was written".to_owned(),
        _ => {
            let done =
                plan.writes().take(taken).map(|step| format!("{} {} '{}'", word(step), step.kind, step.name));
            format!("{} of {planned} changes were written:\n{}", taken, done.collect::<Vec<_>>().join("\n"))
        }
    };
    let cause = match &stopped.cause.why {
        Some(why) => format!("{}: {why}", stopped.cause.what),
        None => stopped.cause.what.clone(),
    };
    Failure::new(stopped.cause.kind, format!("apply stopped at {} '{}'", step.kind, step.name))
        .why(format!("{cause}\n{written}"))
        .next(format!(
            "mend the cause and apply {file} again: what was written stays, and only the rest is left to do"
        ))
}

struct Report {
    json: bool,
    dry_run: bool,
    taken: Vec<Value>,
}

impl Report {
    /// Tells one step when it is taken (or would be).
    fn step(&mut self, terminal: &mut Terminal<'_>, step: &Step) -> Result<(), Failure> {
        self.taken.push(described(step));
        if self.json {
            return Ok(());
        }
        let tone = match step.action {
            Action::Create => Tone::Good,
            Action::Delete => Tone::Bad,
            Action::Update(_) | Action::Keep => Tone::Warn,
        };
        // Padded before it is painted: escape codes have no width.
        let word = terminal.paint(tone, &format!("{:<8}", word(step)));
        terminal.line(format!("{word}  {:<8}  {}", step.kind, step.name))?;
        if let Action::Update(changes) = &step.action {
            for change in changes {
                terminal.line(format!("{:22}{change}", ""))?;
            }
        }
        terminal.out.flush()?;
        Ok(())
    }

    /// The sum, and what stays although the file does not name it.
    fn end(self, terminal: &mut Terminal<'_>, plan: &Plan) -> Result<(), Failure> {
        let kept = plan.steps.len() - plan.writes().count();
        let of = |action: fn(&Action) -> bool| plan.steps.iter().filter(|step| action(&step.action)).count();
        let created = of(|action| *action == Action::Create);
        let updated = of(|action| matches!(action, Action::Update(_)));
        let deleted = of(|action| *action == Action::Delete);
        if self.json {
            return terminal.json(
                "policy-apply",
                json!({
                    "dry_run": self.dry_run,
                    "created": created,
                    "updated": updated,
                    "deleted": deleted,
                    "unchanged": kept,
                    "changes": self.taken,
                    "policies_left_alone": plan.left_alone.iter().map(|policy| &policy.name).collect::<Vec<_>>(),
                }),
            );
        }
        if !self.taken.is_empty() {
            terminal.line("")?;
        }
        let sum = format!("{created} created, {updated} updated, {deleted} deleted, {kept} unchanged");
        let sum =
            if self.dry_run { format!("Would be: {sum}. Nothing was written.") } else { format!("{sum}.") };
        terminal.line(sum)?;
        if !plan.left_alone.is_empty() {
            let names = plan.left_alone.iter().map(|policy| format!("'{}'", policy.name));
            let names = names.collect::<Vec<_>>().join(", ");
            terminal.note(format!(
                "Left alone, because the file does not name them: {names} (--prune deletes them)."
            ));
        }
        for policy in plan.left_alone.iter().filter(|policy| policy.opens_all) {
            let name = &policy.name;
            terminal.note(format!(
                "warning: policy '{name}', which is not in the file, lets every peer reach every peer"
            ));
        }
        Ok(())
    }
}

fn word(step: &Step) -> &'static str {
    match step.action {
        Action::Create => "create",
        Action::Update(_) => "update",
        Action::Delete => "delete",
        Action::Keep => "keep",
    }
}

fn described(step: &Step) -> Value {
    let changes: &[String] = if let Action::Update(changes) = &step.action { changes } else { &[] };
    json!({ "action": word(step), "kind": step.kind, "name": step.name, "changes": changes })
}
