//! The test programs: the gateway's integration tests, and the demo.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{demo, project};

/// One program whose exit code tells whether all is well.
#[derive(Clone, Debug)]
pub(super) struct Suite {
    /// In messages.
    pub(super) name: String,
    /// The executable, on this host.
    pub(super) program: PathBuf,
    /// Its arguments. The word [`PROGRAMS`] in them stands for the directory the program is in.
    pub(super) args: Vec<String>,
    /// Variables added to its environment.
    pub(super) env: Vec<(String, String)>,
    /// Other executables that are to be in its directory.
    pub(super) beside: Vec<PathBuf>,
    /// Other executables that it looks for where they are on this host.
    pub(super) in_place: Vec<PathBuf>,
}

/// Stands for the directory a suite's program is in: another one in a guest than here.
pub(super) const PROGRAMS: &str = "@programs";

/// The name of the demo among the suites.
pub(super) const DEMO: &str = "demo";
/// Those that tell whether the programs load and judge as they should; all others say less when these fail.
const FIRST: [&str; 2] = ["kernel_datapath", "differential"];

/// Builds the suites named in `wanted`, all tests when it is empty; the differential test is to send `cases` packets.
pub(super) fn build(wanted: &[&str], cases: u64) -> Result<Vec<Suite>> {
    let tests: Vec<&str> = wanted.iter().copied().filter(|name| *name != DEMO).collect();
    let mut suites = Vec::new();
    if wanted.is_empty() || !tests.is_empty() {
        let env = vec![
            ("SLUICEGATE_CASES".to_owned(), cases.to_string()),
            // An emulated start of an agent takes most of a minute: it is asked at each step, and killed at none here.
            ("SLUICEGATE_STEPS".to_owned(), "0".to_owned()),
            ("RUST_BACKTRACE".to_owned(), "0".to_owned()),
        ];
        // One test after another: a guest has few processors, slow ones, and the lines of two tests would mix.
        let args = ["--test-threads=1", "--show-output"].map(str::to_owned).to_vec();
        let (mut tests, programs) = integration_tests(&tests)?;
        let programs: Vec<PathBuf> = programs.into_iter().map(|(_, path)| path).collect();
        tests.sort_by_key(|(name, _)| {
            (FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()), name.clone())
        });
        for (name, program) in tests {
            suites.push(Suite {
                name,
                program,
                args: args.clone(),
                env: env.clone(),
                beside: Vec::new(),
                in_place: programs.clone(),
            });
        }
    }
    // Its time-outs are made for a machine, not for an emulated one: only when it is asked for.
    if wanted.contains(&DEMO) {
        suites.push(demo()?);
    }
    if let Some(unknown) = wanted.iter().find(|name| suites.iter().all(|suite| suite.name != **name)) {
        bail!("there is no test program {unknown}");
    }
    Ok(suites)
}

/// Names and paths.
type Executables = Vec<(String, PathBuf)>;

/// The test programs, and the package's own programs, which some of them start.
fn integration_tests(names: &[&str]) -> Result<(Executables, Executables)> {
    let mut command = project::cargo();
    command.args(["test", "--no-run", "--locked", "--message-format=json-render-diagnostics"]);
    command.args(["--package", "sluicegate-gateway"]);
    if names.is_empty() {
        command.args(["--test", "*"]);
    }
    for name in names {
        command.args(["--test", name]);
    }
    let output = command.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the test programs do not build; cargo's messages are above");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    Ok((executables(&messages, "test"), executables(&messages, "bin")))
}

/// Name and path of each program of `kind` among cargo's messages.
fn executables(messages: &str, kind: &str) -> Executables {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter(|message| message["target"]["kind"] == serde_json::json!([kind]))
        .filter_map(|message| {
            let path = message["executable"].as_str()?;
            Some((message["target"]["name"].as_str()?.to_owned(), path.into()))
        })
        .collect()
}

fn demo() -> Result<Suite> {
    let dir = project::build(&demo::PACKAGES)?;
    let beside = demo::PROGRAMS.map(|name| dir.join(name)).to_vec();
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let args = ["demo", "--once", "--programs", PROGRAMS].map(str::to_owned).to_vec();
    Ok(Suite { name: DEMO.to_owned(), program, args, env: Vec::new(), beside, in_place: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_found_among_the_messages_and_nothing_else_is() {
        let message = |kind: &str, name: &str, executable: &str| {
            format!(r#"{{"target":{{"kind":["{kind}"],"name":"{name}"}},"executable":{executable}}}"#)
        };
        let messages = [
            message("lib", "sluicegate_gateway", "null"),
            message("bin", "sluicegate-gateway", r#""/x/sluicegate-gateway""#),
            message("test", "netlink", r#""/x/netlink-1""#),
            "not a message".to_owned(),
        ];
        let found = |kind| executables(&messages.join("\n"), kind);
        assert_eq!(found("test"), [("netlink".to_owned(), "/x/netlink-1".into())]);
        assert_eq!(found("bin"), [("sluicegate-gateway".to_owned(), "/x/sluicegate-gateway".into())]);
    }
}
