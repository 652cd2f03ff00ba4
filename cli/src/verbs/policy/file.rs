//! Policy files on this machine: read, checked and formatted.

use std::io::{Read, Write};
use std::path::Path;

use serde_json::{Value, json};
use sluicegate_policy::file::{self, FileError, FormatError, PolicyFile, Problem};

use crate::client::Refused;
use crate::error::{Failure, Kind};
use crate::terminal::Terminal;

/// Largest policy file that is read, bytes: as large as control takes.
const FILE_MAX: u64 = 15 << 20;

/// A file that was read, and makes sense by itself.
pub(crate) struct Source {
    /// For messages.
    pub(crate) name: String,
    /// What it holds.
    pub(crate) text: String,
    /// What that says.
    pub(crate) file: PolicyFile,
}

/// Reads a file and checks it by itself.
pub(crate) fn read(path: &Path, terminal: &mut Terminal<'_>) -> Result<Source, Failure> {
    let name = name(path);
    let text = text(path, &name, terminal)?;
    let file = file::parse(&text).map_err(|error| unusable(terminal, &name, &error))?;
    Ok(Source { name, text, file })
}

/// `validate --offline`.
pub(super) fn validate(terminal: &mut Terminal<'_>, path: &Path) -> Result<(), Failure> {
    let source = read(path, terminal)?;
    file::unserved(&source.text, &source.file, &PolicyFile::default())
        .map_err(|error| unusable(terminal, &source.name, &error))?;
    let PolicyFile { groups, posture_checks, networks, policies, tests } = &source.file;
    if terminal.is_json() {
        return terminal
            .json("policy-validate", json!({ "valid": true, "file": source.name, "problems": [] }));
    }
    terminal.line(format!(
        "{} makes sense: {} groups, {} posture checks, {} networks, {} policies, {} tests. Whether its names stand for something was not asked.",
        source.name,
        groups.len(),
        posture_checks.iter().flatten().count(),
        networks.len(),
        policies.len(),
        tests.len()
    ))
}

/// `fmt`.
pub(super) fn fmt(terminal: &mut Terminal<'_>, path: &Path, check: bool) -> Result<(), Failure> {
    let name = name(path);
    let text = text(path, &name, terminal)?;
    let formatted = match file::format(&text) {
        Ok(formatted) => formatted,
        Err(FormatError::File(error)) => return Err(unusable(terminal, &name, &error)),
        Err(error @ FormatError::Differs) => {
            return Err(Failure::failed(format!("cannot format {name}")).why(error));
        }
    };
    let same = formatted == text;
    if check {
        if terminal.is_json() {
            terminal.json("policy-fmt", json!({ "file": name, "canonical": same }))?;
        } else if !same {
            terminal
                .line(format!("{name} is not in its canonical form; `sluice policy fmt` writes it so"))?;
        }
        return if same { Ok(()) } else { Err(Failure::differs()) };
    }
    if path.as_os_str() == "-" {
        return terminal.out.write_all(formatted.as_bytes()).map_err(Failure::from);
    }
    if !same {
        replace(path, &formatted)
            .map_err(|error| Failure::failed(format!("cannot write {name}")).why(error))?;
    }
    if terminal.is_json() {
        return terminal.json("policy-fmt", json!({ "file": name, "canonical": true, "written": !same }));
    }
    terminal.line(format!("{name}: {}", if same { "was canonical" } else { "written" }))
}

/// Puts `text` in the file's place at once: whoever reads it gets one or the other.
pub(super) fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let new = directory.join(format!(
        ".{}.{}",
        path.file_name().unwrap_or_default().to_string_lossy(),
        std::process::id()
    ));
    let written = (|| {
        let mut file = std::fs::File::create(&new)?;
        if let Ok(before) = std::fs::metadata(path) {
            file.set_permissions(before.permissions())?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    })();
    if written.is_err() {
        // What is left of it is of no use; the error that is told is the first one.
        let _ = std::fs::remove_file(&new);
    }
    written
}

/// A file that makes no sense: exit code 2, each mistake with its place.
pub(super) fn unusable(terminal: &mut Terminal<'_>, name: &str, error: &FileError) -> Failure {
    if terminal.is_json() {
        let problem = |p: &Problem| json!({ "line": p.line, "column": p.column, "message": p.message });
        let problems: Vec<Value> = error.problems.iter().map(problem).collect();
        // The failure is told after it; a reader that is gone hears neither.
        let _ =
            terminal.json("policy-validate", json!({ "valid": false, "file": name, "problems": problems }));
    }
    Failure::usage(format!("cannot use {name}")).why(error).next("correct the file; nothing was written")
}

/// What control found wrong in a file, as [`unusable`] where it has places.
pub(super) fn refused(terminal: &mut Terminal<'_>, name: &str, refused: Refused) -> Failure {
    let problems = refused.body["problems"].as_array().map(|problems| {
        let number = |problem: &Value, field: &str| problem[field].as_u64().unwrap_or_default();
        let problem = |p: &Value| Problem {
            line: number(p, "line"),
            column: number(p, "column"),
            message: p["message"].as_str().unwrap_or_default().to_owned(),
        };
        problems.iter().map(problem).collect::<Vec<_>>()
    });
    if let Some(problems) = problems {
        return unusable(terminal, name, &FileError { problems });
    }
    match refused.status {
        412 => Failure::failed(format!("{name} was not applied"))
            .why(refused.message)
            .next("run `sluice policy plan` again"),
        _ if refused.body["tests"].is_array() => {
            Failure::new(Kind::TestFails, format!("{name} was not applied")).why(refused.message)
        }
        _ => Failure::usage(format!("{name} does not fit what control has"))
            .why(refused.message)
            .next("correct the file; nothing was written"),
    }
}

fn name(path: &Path) -> String {
    if path.as_os_str() == "-" { "standard input".into() } else { path.display().to_string() }
}

fn text(path: &Path, name: &str, terminal: &mut Terminal<'_>) -> Result<String, Failure> {
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
