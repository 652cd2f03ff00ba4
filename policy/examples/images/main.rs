//! Prints, as a table, what one gateway's image costs by size: compiling it, holding it, and changing one rule of it.
//!
//! Run with optimisation: `cargo run --release -p sluicegate-policy --example images [RULES ...]`.
//!
//! Two accounts. In *teams*, peers belong to a team, its department, its location and All, resources to a service and a site, as
//! people write them; sites nest: /16, /20, /24, hosts, and the same in IPv6. In *random*, every peer is in 5 of 1,000 groups
//! by chance, so that no two peers are alike: the worst that groups can do.

mod account;

use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use sluicegate_api::image::{Delta, Hashes, Image};
use sluicegate_engine::image::{LINE, header};
use sluicegate_engine::{Claims, revalidate, validate_with};
use sluicegate_policy::Compiler;
use sluicegate_policy::model::State;

use account::GATEWAY;

fn main() {
    let asked: Vec<usize> = std::env::args().skip(1).map(|n| n.parse().expect("a number of rules")).collect();
    let sizes = if asked.is_empty() { vec![1_000, 10_000, 100_000] } else { asked };
    println!(
        "| account | rules | resources | peers | prepare and compile, ms | peak, MB | rows x columns | \
         image, words | maps, both halves, MB | one rule: control, ms | delta, bytes | changed words in runs | decode and change + hash + check, ms | the same of the whole \
         image, ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for rules in sizes {
        measure("teams", rules, &Arc::new(account::of_size(rules, false)));
        measure("random", rules, &Arc::new(account::of_size(rules, true)));
    }
}

fn measure(name: &str, rules: usize, state: &Arc<State>) {
    let resources: usize = state.networks.values().map(|network| network.resources.len()).sum();
    let peers = state.peers.len() - 1;
    let before = peak_megabytes();
    let start = Instant::now();
    let compiler = Compiler::new(state.clone()).expect("a valid state");
    let prepared = ms(start);
    let compiled = compiler.compile(GATEWAY);
    let took = ms(start) - prepared;
    let peak = peak_megabytes() - before;
    print!("| {name} | {rules} | {resources} | {peers} | {prepared:.0} + {took:.0} | {peak:.0} | ");
    let image = match compiled {
        Ok(image) => image,
        Err(refusal) => return println!("refused: {refusal} |"),
    };
    let words = image.words.len();
    let new = Arc::new(account::with_a_changed_rule(state, rules / 2));
    // As a gateway holds it: its hashes, and which service sets its cells name. What that takes is what a whole image takes.
    let encoded = image.encode();
    let start = Instant::now();
    let mut held = Image::decode(&encoded).expect("an image");
    let decoded = ms(start);
    let mut hashes = Hashes::of(&held);
    let hashed = ms(start) - decoded;
    let mut claims = Claims::new(vec![0; words / LINE]);
    validate_with(held.words.as_chunks::<LINE>().0, &mut claims).expect("valid");
    let whole = [decoded, hashed, ms(start) - decoded - hashed];
    let mut best = [f64::MAX; 4];
    let (mut bytes, mut runs, mut changed_words) = (0, 0, 0);
    for _ in 0..5 {
        let start = Instant::now();
        let next = Compiler::new(new.clone()).expect("a valid state");
        black_box(next.affected(&compiler));
        let changed = next.compile(GATEWAY).expect("an image");
        let delta = Delta::between(&image, &changed).encode();
        best[0] = best[0].min(ms(start));
        bytes = delta.len();
        let start = Instant::now();
        let delta = Delta::decode(&delta).expect("a delta");
        let undo = held.change(&delta).expect("it fits");
        best[1] = best[1].min(ms(start));
        let start = Instant::now();
        hashes.update(&held, &undo);
        let root = hashes.root();
        best[2] = best[2].min(ms(start));
        assert!(root == changed.hash(), "the hash follows");
        let start = Instant::now();
        revalidate(held.words.as_chunks::<LINE>().0, &undo.runs, &mut claims).expect("valid");
        best[3] = best[3].min(ms(start));
        (runs, changed_words) = (delta.runs.len(), delta.runs.iter().map(|(_, run)| run.len()).sum());
        // Back again, for the next round.
        let redo = held.change(&undo).expect("it fits");
        hashes.update(&held, &redo);
        revalidate(held.words.as_chunks::<LINE>().0, &redo.runs, &mut claims).expect("valid");
    }
    println!(
        "{} x {} | {words} | {:.1} | {:.0} | {bytes} | {changed_words} in {runs} | {:.2} + {:.2} + {:.2} | \
         {:.1} + {:.1} + {:.1} |",
        image.words[header::ROWS_LEN],
        image.words[header::COLUMNS_LEN],
        (words * 8) as f64 / 1e6,
        best[0],
        best[1],
        best[2],
        best[3],
        whole[0],
        whole[1],
        whole[2]
    );
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// The most memory this process has had since the last call, in megabytes (Linux: proc_pid_clear_refs(5)).
fn peak_megabytes() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
    // Where that cannot be written, the peak is the whole run's.
    drop(fs::write("/proc/self/clear_refs", "5"));
    kilobytes.unwrap_or(f64::NAN) / 1024.0
}
