//! A lab leaves nothing behind, however it ends, and touches nothing else. Needs root.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sluicegate_lab::{Lab, Namespace, Program, clean_dead_runs, wait};

const PATIENCE: Duration = Duration::from_secs(10);

/// What a run is made of, to be looked for after its end.
struct Traces {
    namespace: PathBuf,
    dir: PathBuf,
    /// A background process, and a grandchild that left its group and session.
    pids: [u32; 2],
}

impl Traces {
    fn left(&self) -> Vec<String> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let dir = self.dir.to_str().unwrap();
        let mut left = Vec::new();
        left.extend(
            [&self.namespace, &self.dir]
                .iter()
                .filter(|path| path.exists())
                .map(|path| path.display().to_string()),
        );
        left.extend(self.pids.iter().filter(|pid| alive(**pid)).map(ToString::to_string));
        left.extend(mounts.lines().filter(|line| line.contains(dir)).map(str::to_owned));
        left
    }

    fn gone_soon(&self) {
        let gone = wait::until(PATIENCE, || Ok::<_, ()>(self.left().is_empty().then_some(()))).unwrap();
        assert!(gone.is_some(), "left behind: {:?}", self.left());
    }
}

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn inhabited() -> (Lab, Namespace, Traces) {
    let lab = Lab::new().unwrap();
    let host = lab.namespace("host").unwrap();
    let bpffs = lab.bpffs().unwrap();
    std::fs::create_dir(bpffs.join("pins")).unwrap();
    let script = "setsid sleep 1000 & echo grandchild $!; wait";
    let process = host.spawn("sleeper", &Program::new("sh").args(["-c", script])).unwrap();
    let line = process.wait_for_line("grandchild", PATIENCE).unwrap();
    let grandchild = line.split(' ').nth(1).unwrap().parse().unwrap();
    let traces =
        Traces { namespace: host.path(), dir: lab.dir().to_owned(), pids: [process.pid(), grandchild] };
    assert_eq!(traces.left().len(), 5, "{:?}", traces.left());
    (lab, host, traces)
}

#[test]
fn nothing_is_left_after_a_drop() {
    let (lab, host, traces) = inhabited();
    drop(lab);
    traces.gone_soon();
    assert!(host.spawn("late", &Program::new("true")).is_err(), "the namespace outlived its lab");
}

#[test]
fn nothing_is_left_after_a_panic() {
    let outcome = std::thread::spawn(|| {
        let (_lab, _host, traces) = inhabited();
        std::panic::panic_any(traces);
    })
    .join();
    outcome.unwrap_err().downcast::<Traces>().unwrap().gone_soon();
}

/// Not a test by itself: the body of the process that the tests below kill.
#[test]
#[ignore = "started by other tests"]
fn a_lab_to_be_killed() {
    let (_lab, _host, traces) = inhabited();
    if let Ok(code) = std::env::var(EXIT_CODE) {
        sluicegate_lab::interrupt::set_exit_code(code.parse().unwrap());
    }
    let [a, b] = traces.pids;
    println!("\nREADY {} {} {a} {b}", traces.namespace.display(), traces.dir.display());
    sluicegate_lab::interrupt::wait();
}

/// The exit code that the process is to set for its end.
const EXIT_CODE: &str = "LAB_TEST_EXIT_CODE";

fn victim(exit_code: Option<i32>) -> (Child, Traces) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .envs(exit_code.map(|code| (EXIT_CODE, code.to_string())))
        .args(["--ignored", "--exact", "a_lab_to_be_killed", "--nocapture"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.starts_with("READY ")).expect("the other lab did not start");
    let words: Vec<_> = line.split(' ').collect();
    let pids = [words[3].parse().unwrap(), words[4].parse().unwrap()];
    (child, Traces { namespace: words[1].into(), dir: words[2].into(), pids })
}

#[test]
fn a_killed_lab_is_removed_by_the_next_and_a_living_one_is_not() {
    let (mut child, traces) = victim(None);
    clean_dead_runs().unwrap();
    assert_eq!(traces.left().len(), 5, "a living lab was touched");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(Lab::new().unwrap());
    traces.gone_soon();
}

#[test]
fn signals_remove_the_lab_before_the_process_ends() {
    for (name, set, code) in
        [("-TERM", None, 143), ("-INT", None, 130), ("-HUP", None, 129), ("-INT", Some(0), 0)]
    {
        let (mut child, traces) = victim(set);
        assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(code), None));
        assert!(traces.left().is_empty(), "left behind: {:?}", traces.left());
    }
}

/// A namespace named like the lab's own, and processes inside it, are somebody else's.
#[test]
fn a_foreign_namespace_is_not_touched() {
    let lab = Lab::new().unwrap();
    let name = format!("sluicegate-{}-foreign", lab.run_id());
    let ip = |args: &[&str]| assert!(Command::new("ip").args(args).status().unwrap().success(), "{args:?}");
    ip(&["netns", "add", &name]);
    assert!(lab.namespace("foreign").is_err(), "took over what it did not make");
    let mut sleeper = Command::new("ip").args(["netns", "exec", &name, "sleep", "1000"]).spawn().unwrap();
    drop(lab);
    clean_dead_runs().unwrap();
    let (exists, runs) =
        (Path::new("/run/netns").join(&name).exists(), sleeper.try_wait().unwrap().is_none());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    ip(&["netns", "delete", &name]);
    assert!(exists && runs, "namespace is there: {exists}, its process runs: {runs}");
}
