//! Measures compiler and classifier on rule sets as they are found in the field, one JSON object a line.
//!
//! `cargo run --release -p sluicegate-model --example classbench -- [--sizes 10,1000,100000] [--kinds acl,firewall,chains]
//! [--rounds 11] [--seed 1]`
//!
//! Per set: milliseconds to compile the gateway's image, its words, the peak of memory (which counts the state as well),
//! and what one changed rule costs control (`change_ms`: prepare, find who is affected, compile, make the delta) and the
//! gateway before the kernel is asked (`apply_ms`: decode, apply, hash, validate). Then nanoseconds a packet, best and median
//! of the rounds, of the classifier alone: each look-up's addresses depend on the result of the one before, so that nothing
//! overlaps. `hot64` and `hot1024` go around as many headers of the trace; `uniform` takes any peer and any address of a
//! resource.

use std::fs;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use sluicegate_api::image::{Delta, Image};
use sluicegate_engine::classify::{Judgement, Line, classify4, classify6};
use sluicegate_engine::image::{LINE, axis, header};
use sluicegate_engine::validate;
use sluicegate_model::classbench::{GATEWAY, Header, Kind, Size, Trace, state};
use sluicegate_model::random::Random;
use sluicegate_policy::Compiler;
use sluicegate_policy::model::{Service, State};

/// Look-ups of one round, at the least.
const LOOKUPS: usize = 200_000;
/// Headers of a uniform round: more than a cache holds of what they lead to.
const UNIFORM: usize = 1 << 18;

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
    let trace = headers(&state, args.seed);
    for six in [false, true] {
        let family: Vec<Header> = trace.iter().copied().filter(|h| h.source.is_ipv6() == six).collect();
        let uniform = uniform(&state, six, args.seed);
        for (pattern, headers) in
            [("hot64", &family[..64.min(family.len())]), ("hot1024", &family[..]), ("uniform", &uniform[..])]
        {
            let prepared: Vec<Packet> = headers.iter().map(Packet::new).collect();
            if prepared.is_empty() {
                continue;
            }
            let mut costs: Vec<f64> = (0..args.rounds).map(|_| round(lines, &prepared, six)).collect();
            costs.sort_by(f64::total_cmp);
            println!(
                "{{\"kind\": \"{}\", \"rules\": {}, \"family\": {}, \"pattern\": \"{pattern}\", \"headers\": {}, \
                 \"best_ns\": {:.1}, \"median_ns\": {:.1}}}",
                kind.name(),
                size.rules,
                if six { 6 } else { 4 },
                prepared.len(),
                costs[0],
                costs[costs.len() / 2]
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

/// Distinct headers of a trace, 1,024 of each family where there are so many.
fn headers(state: &State, seed: u64) -> Vec<Header> {
    let mut trace = Trace::new(state, seed);
    let mut seen = std::collections::HashSet::new();
    let mut kept = Vec::new();
    let mut missing = [1024, 1024];
    for _ in 0..200_000 {
        let header = trace.fresh();
        let left = &mut missing[usize::from(header.source.is_ipv6())];
        if *left > 0 && seen.insert(header) {
            *left -= 1;
            kept.push(header);
        }
        if missing == [0, 0] {
            break;
        }
    }
    kept
}

fn uniform(state: &State, six: bool, seed: u64) -> Vec<Header> {
    let mut r = Random::new(seed);
    let peers: Vec<IpAddr> =
        state.peers.values().map(|p| if six { p.v6.into() } else { p.v4.into() }).collect();
    let resources = state.networks.values().flat_map(|n| n.resources.values());
    let prefixes: Vec<ipnet::IpNet> =
        resources.flat_map(|r| r.prefixes.iter().copied()).filter(|p| p.addr().is_ipv6() == six).collect();
    if prefixes.is_empty() {
        return Vec::new();
    }
    let within = |r: &mut Random, prefix: &ipnet::IpNet| match prefix {
        ipnet::IpNet::V4(p) => {
            IpAddr::V4((p.network().to_bits() | r.next() as u32 & p.hostmask().to_bits()).into())
        }
        ipnet::IpNet::V6(p) => {
            IpAddr::V6((p.network().to_bits() | u128::from(r.next()) & p.hostmask().to_bits()).into())
        }
    };
    (0..UNIFORM)
        .map(|_| {
            let prefix = r.pick(&prefixes);
            let l4 = r.pick(&[axis::TCP, axis::UDP]) | r.pick(&[22, 53, 80, 443, 3389, 8080, 50_000]);
            Header { source: r.pick(&peers), destination: within(&mut r, &prefix), l4 }
        })
        .collect()
}

/// A header as the classifier takes it.
struct Packet {
    source: u128,
    destination: u128,
    l4: u32,
}

impl Packet {
    fn new(header: &Header) -> Self {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(a) => a.to_bits().into(),
            IpAddr::V6(a) => a.to_bits(),
        };
        Self { source: bits(header.source), destination: bits(header.destination), l4: header.l4 }
    }
}

/// Nanoseconds a look-up.
fn round(lines: &[Line], packets: &[Packet], six: bool) -> f64 {
    // Nothing, but the compiler does not know it: the next look-up waits for the one before.
    let zero = black_box(0u32);
    let times = LOOKUPS.div_ceil(packets.len());
    let mut last = 0;
    let start = Instant::now();
    for _ in 0..times {
        for packet in packets {
            let wait = last & zero;
            let judged: Judgement = if six {
                let wide = |x: u128| ((x >> 64) as u64, x as u64 ^ u64::from(wait));
                classify6(lines, wide(packet.source), wide(packet.destination), packet.l4)
            } else {
                classify4(lines, packet.source as u32 ^ wait, packet.destination as u32 ^ wait, packet.l4)
            };
            last = judged.decision.0 ^ judged.attributes.0;
        }
    }
    black_box(last);
    start.elapsed().as_secs_f64() * 1e9 / (times * packets.len()) as f64
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
