//! The differential test: naive model = user-space tables = kernel.
//!
//! Random packet sequences under random images and image changes go through a naive model of docs/packet-semantics.md,
//! through the engine with user-space tables, and through the real eBPF programs. Verdicts, bytes, events, counters and
//! flow states must be equal. Model and generator are in `model/`; here is what drives the kernel.
//!
//! `SLUICEGATE_CASES=N` sends at least N packets (default 100,000); `SLUICEGATE_SEED=S` runs one case alone.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test; the modules say what they are")]

mod answers;
mod bugs;
mod corpus;
mod fragments;
mod kernel;
mod masquerade;
mod protocols;
mod quotes;
mod routes;
mod trio;
mod tunnel;
mod user;

use std::collections::BTreeMap;
use std::env;

use sluicegate_engine::DropReason;
use sluicegate_engine::flow::State;
use sluicegate_engine::pipeline::Verdict;
use sluicegate_model::{case, generator, packets, parse, pieces, tables, world};

use crate::case::{FlowDump, Outcome, Setup, Step};
use crate::generator::Generator;
use crate::kernel::Kernel;
use crate::trio::Trio;

const PACKETS: u64 = 100_000;
/// Steps of one case; four in five are packets.
const STEPS: usize = 400;
/// Steps between comparisons of all that is remembered.
const COMPARE: usize = 16;
/// The first random seed: the same in every run, so that a run can be repeated.
const FIRST: u64 = 1;

/// A difference, and how it came about.
struct Failure {
    setup: Setup,
    trace: Vec<Step>,
    message: String,
}

#[test]
fn model_user_space_and_kernel_agree() {
    let mut kernel = Kernel::shared();
    if let Some(seed) = number("SLUICEGATE_SEED") {
        let mut seen = Seen::default();
        if let Err(failure) = run(seed, &mut kernel, &mut seen) {
            panic!("{}", report(seed, *failure, &mut kernel));
        }
        return;
    }
    let wanted = number("SLUICEGATE_CASES").unwrap_or(PACKETS);
    let committed = include_str!("seeds.txt").lines().filter_map(|line| line.split_whitespace().next());
    let committed: Vec<u64> =
        committed.filter(|word| !word.starts_with('#')).map(|s| numeral(s).unwrap()).collect();
    let mut seen = Seen::default();
    for seed in committed.into_iter().chain(FIRST..) {
        if let Err(failure) = run(seed, &mut kernel, &mut seen) {
            panic!("{}", report(seed, *failure, &mut kernel));
        }
        if seen.packets >= wanted {
            break;
        }
    }
    println!("{seen}");
    seen.check();
    let carried = kernel.carried;
    // In some cases no neighbour is ever good: a few of them say nothing.
    assert!(
        seen.packets < 5000 || carried * 30 > seen.packets,
        "XDP sent on {carried} packets of {}",
        seen.packets
    );
}

/// As an overlay of WireGuard has it: no link layer, and XDP at the site alone.
#[test]
fn so_they_do_with_an_overlay_without_link_layer() {
    let mut kernel = Kernel::tunnelled();
    let mut seen = Seen::default();
    let wanted = number("SLUICEGATE_CASES").unwrap_or(PACKETS) / 5;
    for seed in FIRST.. {
        if let Err(failure) = run(seed, &mut kernel, &mut seen) {
            panic!("{}", report(seed, *failure, &mut kernel));
        }
        if seen.packets >= wanted {
            break;
        }
    }
    println!("{seen}");
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(numeral(&value).unwrap_or_else(|| panic!("{variable} is a number, not {value}")))
}

fn numeral(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// One case, made up as it goes.
fn run(seed: u64, kernel: &mut Kernel, seen: &mut Seen) -> Result<(), Box<Failure>> {
    let mut generator = Generator::new(seed);
    let setup = generator.setup();
    let mut trace = Vec::new();
    let result = (|| {
        let mut trio = Trio::new(setup.clone(), kernel)?;
        for i in 0..STEPS {
            let step = generator.next();
            trace.push(step.clone());
            if let Some(outcome) = trio.step(&step)? {
                seen.note(&outcome);
                generator.learn(&outcome);
            }
            if i % COMPARE == 0 {
                trio.compare()?;
                seen.note_flows(&trio.flows());
            }
        }
        trio.compare()
    })();
    result.map_err(|message| Box::new(Failure { setup, trace, message }))
}

/// The same steps again, compared after each; the first difference.
fn replay(setup: &Setup, trace: &[Step], kernel: &mut Kernel) -> Option<(usize, String)> {
    let mut trio = match Trio::new(setup.clone(), kernel) {
        Ok(trio) => trio,
        Err(message) => return Some((0, message)),
    };
    trace.iter().enumerate().find_map(|(i, step)| {
        let result = trio.step(step).and_then(|_| trio.compare());
        result.err().map(|message| (i, message))
    })
}

/// Leaves out steps while what is left still fails, then tells the story.
fn report(seed: u64, failure: Failure, kernel: &mut Kernel) -> String {
    let Failure { setup, mut trace, mut message } = failure;
    if let Some((last, first)) = replay(&setup, &trace, kernel) {
        trace.truncate(last + 1);
        message = first;
    }
    let mut chunk = trace.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < trace.len() {
            let mut shorter = trace.clone();
            shorter.drain(at..(at + chunk).min(trace.len()));
            match replay(&setup, &shorter, kernel) {
                Some((last, found)) => {
                    shorter.truncate(last + 1);
                    (trace, message) = (shorter, found);
                }
                None => at += chunk,
            }
        }
        chunk /= 2;
    }
    let steps: Vec<String> = trace.iter().map(|step| format!("  {step:?}")).collect();
    format!(
        "seed {seed} differs; again: SLUICEGATE_SEED={seed} cargo test -p sluicegate-gateway --test differential\n\
         {setup:?}\nthe shortest trace that fails still:\n{}\n{message}",
        steps.join("\n")
    )
}

/// What happened over all cases: a test that never sees a masqueraded reply proves nothing about it.
#[derive(Default)]
struct Seen {
    packets: u64,
    verdicts: BTreeMap<String, u64>,
    /// Flows met when comparing: by state, family, and whether masqueraded.
    flows: BTreeMap<(&'static str, bool, bool), u64>,
}

impl Seen {
    fn note(&mut self, Outcome { verdict, bytes, events }: &Outcome) {
        self.packets += 1;
        let verdict = *verdict;
        if events.iter().any(|event| event.reason == DropReason::NotUnicast as u8 && event.rule != 0) {
            *self.verdicts.entry("broadcast refused although a rule admits it".into()).or_default() += 1;
        }
        let name = match verdict {
            Verdict::Drop(reason) => reason.name().to_owned(),
            Verdict::Site(_) => "to site".to_owned(),
            // The ICMP type, behind the header that is as long as the gateway makes it.
            Verdict::Answer if bytes[0] >> 4 == 4 => format!("answer {}", bytes[20]),
            Verdict::Answer => format!("answer {} in IPv6", bytes[40]),
            other => format!("{other:?}").to_lowercase(),
        };
        *self.verdicts.entry(name).or_default() += 1;
        if matches!(verdict, Verdict::Site(_) | Verdict::Overlay) {
            let six = bytes[0] >> 4 == 6;
            let (header, _) = parse::network(bytes, six).unwrap();
            let kind = match header.fragment {
                Some(fragment) if fragment.start != 0 => "later fragment",
                Some(_) => "first fragment",
                None => match parse::transport(bytes, &header) {
                    Ok(transport) if transport.kind == parse::Kind::Error => "quoted error",
                    _ => return,
                },
            };
            let family = if six { "IPv6" } else { "IPv4" };
            *self.verdicts.entry(format!("{kind} of {family} passed")).or_default() += 1;
        }
    }

    fn note_flows(&mut self, flows: &[FlowDump]) {
        for flow in flows {
            let masqueraded = flow.translated.0 != flow.source.0;
            let kind = (State::from_number(flow.state).name(), flow.source.0.is_ipv6(), masqueraded);
            *self.flows.entry(kind).or_default() += 1;
        }
    }

    /// Every verdict and reason that packets alone can bring about came up.
    fn check(&self) {
        let few: Vec<&str> = sluicegate_engine::DropReason::ALL
            .iter()
            .map(|reason| reason.name())
            .filter(|name| {
                !["flow_table_full", "fragment_table_full", "internal", "ttl_expired", "too_big"]
                    .contains(name)
            })
            .filter(|name| !name.starts_with("underlay_"))
            .chain(["pass", "host", "to site", "overlay", "broadcast refused although a rule admits it"])
            .chain(["answer 11", "answer 3", "answer 3 in IPv6", "answer 2 in IPv6"])
            .chain(["first fragment of IPv4 passed", "first fragment of IPv6 passed"])
            .chain(["later fragment of IPv4 passed", "later fragment of IPv6 passed"])
            .chain(["quoted error of IPv4 passed", "quoted error of IPv6 passed"])
            .filter(|name| self.verdicts.get(*name).is_none_or(|&count| count < 5))
            .collect();
        assert!(self.packets < PACKETS || few.is_empty(), "too rare to prove anything: {few:?}");
        for state in 1..=8 {
            let name = State::from_number(state).name();
            for kind in [(name, false, false), (name, false, true), (name, true, false), (name, true, true)] {
                let count = self.flows.get(&kind).copied().unwrap_or_default();
                assert!(self.packets < PACKETS || count >= 5, "flows too rare: {kind:?}, {count}");
            }
        }
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} packets:", self.packets)?;
        self.verdicts.iter().try_for_each(|(name, count)| write!(f, " {name} {count},"))?;
        let masqueraded: u64 = self.flows.iter().filter(|(kind, _)| kind.2).map(|(_, count)| count).sum();
        write!(f, " flows {}, {masqueraded} of them masqueraded", self.flows.values().sum::<u64>())
    }
}
