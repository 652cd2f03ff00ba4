//! What an agent tells of its machine for posture checks.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use sluicegate_api::agent::process::State;
use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{Facts, NetworkConfig};
use sluicegate_gateway::datapath::Choice;

use crate::{PATIENCE, World, with_agent};

impl World {
    /// Waits until control has been told facts like this; says the last ones.
    async fn told(&self, what: &str, wanted: impl Fn(&Facts) -> bool) -> Facts {
        let begun = Instant::now();
        loop {
            let last = self.control.facts();
            match last {
                Some(facts) if wanted(&facts) => return facts,
                last => assert!(begun.elapsed() < PATIENCE, "{what}: {last:#?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A process of the test's own, gone with it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ip(words: &[&str]) {
    assert!(Command::new("ip").args(words).status().unwrap().success(), "{words:?}");
}

fn has(facts: &Facts, address: &str) -> bool {
    facts.addresses.as_ref().is_some_and(|addresses| addresses.prefixes.iter().any(|known| known == address))
}

/// Neither a stream that is opened again nor a restart tells what has changed meanwhile: the agent looks all the time.
async fn looks_all_the_time(world: &World) {
    let program = world.settings.places.state_dir.join("watched");
    std::fs::copy("/bin/sleep", &program).unwrap();
    let (path, absent) = (program.to_str().unwrap().to_owned(), "/nowhere/at/all".to_owned());
    ip(&["address", "add", "192.0.2.7/24", "dev", "lo"]);
    let running = world.run();
    let first = world.told("the first word", |facts| has(facts, "192.0.2.7/24")).await;
    assert!(first.processes.is_empty(), "nothing was asked");

    world.control.tell(Update::Network(NetworkConfig {
        protocol: sluicegate_api::PROTOCOL,
        serial: 2,
        address_v4: "100.64.0.1/24".into(),
        address_v6: "fd64::1/64".into(),
        watched: vec![path.clone(), absent.clone()],
        ..NetworkConfig::default()
    }));
    let state = |facts: &Facts, of: &str| facts.processes.iter().find(|p| p.path == of).map(|p| p.state());
    let is = |wanted: State| {
        let path = path.clone();
        move |facts: &Facts| state(facts, &path) == Some(wanted)
    };
    let facts = world.told("what control asked about", is(State::Stopped)).await;
    assert_eq!(state(&facts, &absent), Some(State::Absent));
    // Where many commands are one program it goes by the name it is called by.
    let process = Process(Command::new(&program).arg0("sleep").arg("600").spawn().unwrap());
    world.told("it runs", is(State::Running)).await;
    drop(process);
    world.told("it has ended", is(State::Stopped)).await;

    ip(&["address", "add", "2001:db8::7/64", "dev", "lo", "nodad"]);
    world.told("an address that came", |facts| has(facts, "2001:db8::7/64")).await;
    ip(&["address", "del", "192.0.2.7/24", "dev", "lo"]);
    let facts = world.told("an address that went", |facts| !has(facts, "192.0.2.7/24")).await;
    let all = facts.addresses.unwrap().prefixes;
    assert!(
        all.iter().all(|address| !address.starts_with("100.64.") && !address.starts_with("fd64:")),
        "{all:?}"
    );
    assert!(all.iter().all(|address| !address.starts_with("127.") && !address.starts_with("::1")), "{all:?}");
    running.stop().await;
}

#[test]
fn control_is_told_of_addresses_and_executables_when_they_change() {
    with_agent(Choice::Userspace, |_| {}, looks_all_the_time);
}
