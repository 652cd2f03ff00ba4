//! Measures compiler and classifier on rule sets as they are found in the field, one JSON object a line.
//!
//! `cargo run --release -p sluicegate-model --example classbench -- [--sizes 10,1000,100000] [--kinds acl,firewall,chains]
//! [--rounds 11] [--seed 1]`
//!
//! Per set: milliseconds to compile the gateway's image, its words, the peak of memory (which counts the state as well),
//! and what one changed rule costs control (`change_ms`: prepare, find who is affected, compile, make the delta) and the
//! gateway before the kernel is asked (`apply_ms`: decode, apply, hash, validate). Then nanoseconds a packet, best and median
//! of the rounds, of the classifier alone: each look-up's addresses depend on the result of the one before, so that nothing
//! overlaps; first as the engine asks it, which keeps what was said of such a packet before, then each time anew. `hot64` and `hot1024` go around as many headers of the trace; `uniform` takes any peer and any address of a
//! resource.

use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use sluicegate_api::image::{Delta, Image};
use sluicegate_engine::image::{LINE, header};
use sluicegate_engine::validate;
use sluicegate_model::classbench::serial::{Asked, Pattern, Traffic};
use sluicegate_model::classbench::{GATEWAY, Kind, Size, state};
use sluicegate_policy::Compiler;
use sluicegate_policy::model::{Service, State};

fn main() {
    let args = Args::read();
    for &rules in &args.sizes {
        for &kind in &args.kinds {
            measure(kind, Size::of(rules), &args);
        }
    }
}

struct Args {
    sizes: Vec<usize>,
    kinds: Vec<Kind>,
    rounds: usize,
    seed: u64,
}

impl Args {
    fn read() -> Self {
        let mut args =
            Self { sizes: vec![10, 1000, 10_000, 100_000], kinds: Kind::ALL.to_vec(), rounds: 11, seed: 1 };
        let mut words = std::env::args().skip(1);
        while let Some(flag) = words.next() {
            let value = words.next().unwrap_or_else(|| panic!("{flag} needs a value"));
            let number =
                |text: &str| text.parse().unwrap_or_else(|_| panic!("{flag}: `{text}` is no number"));
            match flag.as_str() {
                "--sizes" => args.sizes = value.split(',').map(number).collect(),
                "--kinds" => args.kinds = value.split(',').map(kind).collect(),
                "--rounds" => args.rounds = number(&value),
                "--seed" => args.seed = number(&value) as u64,
                _ => panic!("{flag} is none of --sizes, --kinds, --rounds, --seed"),
            }
        }
        args
    }
}

fn kind(name: &str) -> Kind {
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    found.unwrap_or_else(|| panic!("`{name}` is none of acl, firewall, chains"))
}

fn measure(kind: Kind, size: Size, args: &Args) {
    let state = Arc::new(state(kind, size, args.seed));
    let before = peak_megabytes();
    let start = Instant::now();
    let compiler = Compiler::new(state.clone()).expect("a valid state");
    let prepared = ms(start);
    let compiled = compiler.compile(GATEWAY);
    let took = ms(start);
    let peak = peak_megabytes();
    let shape = format!(
        "\"kind\": \"{}\", \"rules\": {}, \"resources\": {}, \"peers\": {}, \"prepare_ms\": {prepared:.1}, \
         \"compile_ms\": {took:.1}, \"state_mb\": {before:.0}, \"peak_mb\": {peak:.0}",
        kind.name(),
        size.rules,
        size.resources,
        size.peers
    );
    let image = match compiled {
        Ok(image) => image,
        Err(refusal) => return println!("{{{shape}, \"refused\": \"{refusal}\"}}"),
    };
    let words = image.words.len();
    let (sources, destinations) = (image.words[header::ROWS_LEN], image.words[header::COLUMNS_LEN]);
    let [change, bytes, apply] = change(&state, &compiler, &image);
    println!(
        "{{{shape}, \"words\": {words}, \"source_classes\": {sources}, \"destination_classes\": {destinations}, \
         \"blocks\": {}, \"services\": {}, \"change_ms\": {change:.1}, \"delta_bytes\": {bytes}, \"apply_ms\": {apply:.1}}}",
        image.words[header::BLOCKS_LEN],
        image.words[header::SERVICES_LEN],
    );
    let (lines, _) = image.words.as_chunks::<LINE>();
    let traffic = Traffic::new(&state, args.seed);
    for six in [false, true] {
        for pattern in Pattern::ALL {
            let packets = traffic.packets(pattern, six);
            if packets.is_empty() {
                continue;
            }
            let mut costs = [Asked::AsForPackets, Asked::Anew].map(|asked| (asked, Vec::new()));
            for _ in 0..args.rounds {
                costs.iter_mut().for_each(|(asked, costs)| costs.push(packets.round(lines, *asked)));
            }
            let [(best, median), (best_anew, median_anew)] = costs.map(|(_, mut costs)| {
                costs.sort_by(f64::total_cmp);
                (costs[0], costs[costs.len() / 2])
            });
            println!(
                "{{\"kind\": \"{}\", \"rules\": {}, \"family\": {}, \"pattern\": \"{}\", \"headers\": {}, \
                 \"best_ns\": {best:.1}, \"median_ns\": {median:.1}, \"anew_best_ns\": {best_anew:.1}, \
                 \"anew_median_ns\": {median_anew:.1}}}",
                kind.name(),
                size.rules,
                if six { 6 } else { 4 },
                pattern.name(),
                packets.len(),
            );
        }
    }
}

/// Milliseconds in control, bytes of the delta, milliseconds in the gateway, when one rule in the middle changes its port.
fn change(state: &Arc<State>, compiler: &Compiler, image: &Image) -> [f64; 3] {
    let mut new = State::clone(state);
    let middle = new.policies.len() / 2;
    let policy = new.policies.values_mut().nth(middle).expect("a policy");
    policy.rules[0].service = Service::Tcp(vec![4444..=4445]);
    let new = Arc::new(new);
    let mut best = [f64::MAX, 0.0, f64::MAX];
    for _ in 0..5 {
        let start = Instant::now();
        let next = Compiler::new(new.clone()).expect("a valid state");
        black_box(next.affected(compiler));
        let changed = next.compile(GATEWAY).expect("an image");
        let delta = Delta::between(image, &changed).encode();
        best[0] = best[0].min(ms(start));
        best[1] = delta.len() as f64;
        let start = Instant::now();
        let applied = image.apply(&Delta::decode(&delta).expect("a delta")).expect("it fits");
        black_box(applied.hash());
        validate(applied.words.as_chunks::<LINE>().0).expect("valid");
        best[2] = best[2].min(ms(start));
    }
    best
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// The most memory this process has had, in megabytes; then starts to count anew (Linux: proc_pid_clear_refs(5)).
fn peak_megabytes() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
    // Where that cannot be written the peak is the whole run's.
    drop(fs::write("/proc/self/clear_refs", "5"));
    kilobytes.unwrap_or(f64::NAN) / 1024.0
}
