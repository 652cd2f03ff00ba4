//! The process that starts, attaches and applies is killed at any moment of it, under traffic. The host of the gateway
//! forwards by itself here, so a hook without its program would show: what no rule admits would pass.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use sluicegate_gateway::datapath::{Datapath as _, Settings, XdpChoice};
use sluicegate_lab::traffic::Stop;
use sluicegate_lab::{Process, Program};
use sluicegate_model::random::Random;

use crate::account::{self, EGRESS, SERVER, USER};
use crate::gateway;
use crate::traffic::{self, Shared};
use crate::world::{World, chosen, sending, settings, socket, start, way};

/// How often it is killed, for XDP and without it; `SLUICEGATE_KILLS=100` for the long run.
const KILLS: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(240);
/// Where the process that is killed finds its pins, its device and how it is to attach.
const BPF_DIR: &str = "RELIABILITY_TEST_BPF_DIR";
const DEVICE: &str = "RELIABILITY_TEST_DEVICE";
const XDP: &str = "RELIABILITY_TEST_XDP";
/// How many words its images may have.
const WORDS: &str = "RELIABILITY_TEST_IMAGE_WORDS";
/// Each start after a start with the other one is the succession of another version: the maps of images are others.
const SIZES: [u32; 2] = [1 << 17, 1 << 18];
const ENTRIES: u32 = 4096;
/// Where unasked datagrams of the server go.
const UNASKED: u16 = 7000;

#[test]
fn a_gateway_killed_while_it_starts_attaches_or_applies_leaves_the_gate_neither_open_nor_cut() {
    for (xdp, name) in [(XdpChoice::Off, "off"), (sending(), "on")] {
        kill_again_and_again(xdp, name, [SIZES[0]; 2]);
    }
}

#[test]
fn a_gateway_killed_while_it_succeeds_one_of_another_version_leaves_the_gate_neither_open_nor_cut() {
    for (xdp, name) in [(XdpChoice::Off, "off"), (sending(), "on")] {
        kill_again_and_again(xdp, name, SIZES);
    }
}

fn kill_again_and_again(xdp: XdpChoice, name: &str, sizes: [u32; 2]) {
    let world = World::new();
    for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        world.gateway.sysctl(path, "1").unwrap();
    }
    for (to, via) in [("100.64.0.0/16", EGRESS[0]), ("fd64::/64", EGRESS[1])] {
        world.server.route(to, via).unwrap();
    }
    drop(world.open(xdp, ENTRIES, &account::image(0, true).1));
    kill_under_traffic(&world, name, sizes);
    let groups = std::fs::read_dir(&world.bpf_dir).unwrap().count();
    assert_eq!(groups, 3, "links, flows and the rest: maps of another version were left");
}

fn kill_under_traffic(world: &World, xdp: &str, sizes: [u32; 2]) {
    let shared = Shared::new();
    let program = Program::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "kills::a_gateway_to_be_killed", "--nocapture"])
        .env(BPF_DIR, &world.bpf_dir)
        .env(DEVICE, world.site_device().to_string())
        .env(XDP, xdp);
    let run = |name: &str, number: u32| {
        let words = sizes[number as usize % 2].to_string();
        world.gateway.spawn(name, &program.clone().env(WORDS, words)).unwrap()
    };
    let over = AtomicBool::new(false);
    let (outcomes, unasked) = std::thread::scope(|scope| {
        let traffic = traffic::run(scope, world, &shared);
        let unasked = [0, 1].map(|family| {
            scope.spawn({
                let over = &over;
                move || knock(world, family, over)
            })
        });
        let stopper = (shared.stopper(), Over(&over));
        shared.wait_for_round();
        let whole = start_whole(&run("whole", 1));
        let mut random = Random::new(u64::from(std::process::id()));
        let mut seen = [0; 3];
        for number in 0..chosen("SLUICEGATE_KILLS", KILLS) {
            let process = run(&format!("killed{number}"), number);
            // Anywhere from its first instruction to a while into its images.
            std::thread::sleep(whole * random.below(1500) as u32 / 1000);
            assert!(process.is_running(), "it ended by itself: {}", process.tail());
            process.kill();
            let log = process.log();
            seen[usize::from(log.contains("OPENED")) + usize::from(log.contains("APPLIED"))] += 1;
            shared.wait_for_round();
        }
        println!(
            "XDP {xdp}: killed {} times before it was attached, {} before its first image, {} after",
            seen[0], seen[1], seen[2]
        );
        start_whole(&run("last", 0));
        drop(stopper);
        (traffic.map(|family| family.join().unwrap()), unasked.map(|family| family.join().unwrap()))
    });
    for (family, outcome) in outcomes.iter().enumerate() {
        println!("{} permitted sent, {} lost", outcome.sent, outcome.lost.len());
        assert_eq!(outcome.lost, [0; 0], "XDP {xdp}, family {family}: an established flow was cut");
        assert_eq!(outcome.leaked, [0; 0], "XDP {xdp}, family {family}: the gate was open");
        assert_eq!(outcome.ports.len(), 1, "XDP {xdp}: the flow changed its port: {:?}", outcome.ports);
        let (sent, arrived) = unasked[family];
        assert!(
            sent > 0 && arrived == 0,
            "XDP {xdp}: {arrived} of {sent} unasked datagrams came from the site"
        );
    }
}

/// Waits until `process` has put an image in force, and stops it; returns how long that took.
fn start_whole(process: &Process) -> Duration {
    let begun = Instant::now();
    process.wait_for_line("APPLIED", PATIENCE).unwrap();
    let took = begun.elapsed();
    process.kill();
    took
}

/// Has the server send to the user what nobody asked for; returns how many were sent and how many arrived.
fn knock(world: &World, family: usize, over: &AtomicBool) -> (u64, u64) {
    let [server, user] = [SERVER, USER].map(|addresses| addresses[family].parse::<IpAddr>().unwrap());
    let from = socket(&world.server, SocketAddr::new(server, 0), PATIENCE);
    let to = socket(&world.peer, SocketAddr::new(user, UNASKED), Duration::from_millis(1));
    let (mut sent, mut arrived) = (0, 0);
    while !over.load(SeqCst) {
        from.send_to(b"unasked", SocketAddr::new(user, UNASKED)).unwrap();
        sent += 1;
        // Waiting for what must not come is what keeps this from filling a processor.
        arrived += u64::from(to.recv(&mut [0; 16]).is_ok());
    }
    (sent, arrived)
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Not a test by itself: the process that the test above kills.
#[test]
#[ignore = "started by another test"]
fn a_gateway_to_be_killed() {
    let stop = Stop::at_end_of_stdin();
    let variable = |name: &str| std::env::var(name).unwrap();
    let xdp = if variable(XDP) == "off" { XdpChoice::Off } else { sending() };
    let images = [0, 1].map(|variant| account::image(variant, true));
    let settings = Settings {
        image_words: variable(WORDS).parse().unwrap(),
        ..settings(&PathBuf::from(variable(BPF_DIR)), xdp, ENTRIES)
    };
    let way = way(variable(DEVICE).parse().unwrap());
    let mut datapath = start(&settings, way.device, &images[0].1).unwrap();
    println!("\nOPENED");
    let first = datapath.in_force().map_or(0, |now| now.revision) + 1;
    for revision in first.. {
        if stop.is_set() {
            return;
        }
        let (hash, image) = &images[revision as usize % 2];
        datapath.put(revision, *hash, image, &gateway::ways(image, &way)).unwrap();
        if revision == first {
            println!("\nAPPLIED");
        }
        datapath.sweep().unwrap();
    }
}
