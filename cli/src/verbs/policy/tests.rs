//! `sluice policy test`, and `validate` against control.

use std::path::Path;

use serde_json::{Value, json};
use sluicegate_policy::reach::{self, Checked};

use super::file;
use crate::client::{Client, Refused};
use crate::error::Failure;
use crate::rest::plan::{Test, TestReport};
use crate::terminal::{Terminal, Tone};
use crate::verbs::{read, read_all};

/// How many failures of each claim are shown.
const EXAMPLES: usize = 5;

/// Tests of a file with it applied, or those applied last.
pub(super) async fn run(
    client: &Client,
    terminal: &mut Terminal<'_>,
    path: Option<&Path>,
) -> Result<(), Failure> {
    let answer: Value = match path {
        None => client.get("/api/policy-file/test").await?,
        Some(path) => {
            let source = file::read(path, terminal)?;
            let answer = client.ask("/api/policy-file/test", &json!({ "file": source.text })).await?;
            answer.map_err(|refused| file::refused(terminal, &source.name, refused))?
        }
    };
    let report: TestReport = read(&answer, "a test report")?;
    tell(terminal, &report.tests, answer["tests"].clone())
}

/// Tests of a file as if it were all there is.
pub(super) fn offline(terminal: &mut Terminal<'_>, path: &Path) -> Result<(), Failure> {
    let source = file::read(path, terminal)?;
    let failed = |why: String| Failure::failed(format!("cannot judge {} alone", source.name)).why(why);
    let alone = source.file.alone().map_err(|error| failed(error.to_string()))?;
    let checked = reach::check(&alone.state, &source.file.tests, EXAMPLES)
        .map_err(|error| failed(error.to_string()))?;
    for remark in &alone.remarks {
        terminal.note(format!("remark: {remark}"));
    }
    let checked = json!(checked.iter().map(|test: &Checked| json!(test)).collect::<Vec<_>>());
    let tests: Vec<Test> = read_all(checked.as_array().map_or(&[], Vec::as_slice), "a test")?;
    tell(terminal, &tests, checked)
}

/// Whether a file fits control; its tests are told, and are no part of that.
pub(super) async fn validate(
    client: &Client,
    terminal: &mut Terminal<'_>,
    path: &Path,
) -> Result<(), Failure> {
    let source = file::read(path, terminal)?;
    let answer = client.ask::<TestReport>("/api/policy-file/test", &json!({ "file": source.text })).await?;
    let report = answer.map_err(|refused| file::refused(terminal, &source.name, refused))?;
    if terminal.is_json() {
        let fields = json!({ "valid": true, "file": source.name, "problems": [], "tests_hold": report.hold });
        return terminal.json("policy-validate", fields);
    }
    let held = report.tests.iter().filter(|test| test.holds).count();
    terminal.line(format!(
        "{} fits control at {}; {held} of {} tests hold.",
        source.name,
        client.url(),
        report.tests.len()
    ))
}

fn tell(terminal: &mut Terminal<'_>, tests: &[Test], answer: Value) -> Result<(), Failure> {
    let hold = tests.iter().all(|test| test.holds);
    if terminal.is_json() {
        terminal.json("policy-test", json!({ "hold": hold, "tests": answer }))?;
    } else if tests.is_empty() {
        terminal.line("There are no tests: write some under `tests` of a policy file.")?;
    } else {
        show(terminal, tests)?;
    }
    if hold { Ok(()) } else { Err(Failure::test_fails()) }
}

/// The tests of a refusal, if that is what it is about.
pub(super) fn show_refused(terminal: &mut Terminal<'_>, refused: &Refused) -> Result<(), Failure> {
    let Some(tests) = refused.body["tests"].as_array() else { return Ok(()) };
    if terminal.is_json() {
        return terminal.json("policy-test", json!({ "hold": false, "tests": tests }));
    }
    show(terminal, &read_all(tests, "a test")?)
}

/// Each test, and of those that fail why.
pub(super) fn show(terminal: &mut Terminal<'_>, tests: &[Test]) -> Result<(), Failure> {
    let held = tests.iter().filter(|test| test.holds).count();
    terminal.line(format!("Tests: {held} of {} hold", tests.len()))?;
    for test in tests {
        let (tone, word) = if test.holds { (Tone::Good, "holds") } else { (Tone::Bad, "FAILS") };
        let word = terminal.paint(tone, word);
        terminal.line(format!(
            "  {word}  {} ({} of {} pairs)",
            test.name,
            test.asked - test.wrong.min(test.asked),
            test.asked
        ))?;
        for failed in &test.failures {
            let address = failed.address.as_ref().map(|address| format!(" ({address})")).unwrap_or_default();
            let what = match (&failed.source, &failed.destination, &failed.service) {
                (Some(source), Some(to), Some(service)) => {
                    format!("{source} {} {to}{address} {service}", failed.wants)
                }
                _ => format!("{} {}", failed.wants, failed.claim),
            };
            terminal.line(format!("           {what}: {}", failed.why))?;
        }
        let more = test.wrong.saturating_sub(test.failures.len() as u64);
        if more > 0 {
            terminal.line(format!("           and {more} more"))?;
        }
    }
    Ok(())
}
