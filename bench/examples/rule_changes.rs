//! Prints, as a table, what one changed rule costs a gateway by the size of its image: processor time of the agent, with the
//! kernel's maps and the disk.
//!
//! Needs root and a kernel with eBPF. Run with optimisation: `cargo run --release -p sluicegate-bench --example rule_changes
//! [RULES ...]`. Several rules are changed and changed back in turn. The same image as a whole, in the last columns, is what each of
//! these cost when they covered all of it.

#[path = "../src/change.rs"]
mod change;

use std::time::Duration;

use change::Changes;

/// Rules that are changed in turn, and how often.
const RULES: usize = 3;
const ROUNDS: usize = 10;

fn main() -> anyhow::Result<()> {
    let asked: Vec<usize> = std::env::args().skip(1).map(|n| n.parse().expect("a number of rules")).collect();
    let sizes = if asked.is_empty() { vec![1_000, 10_000, 100_000] } else { asked };
    println!(
        "| rules | image, words | changes | delta, bytes | agent's CPU, ms: median, worst | to in force, ms: median, worst | \
         whole image: agent's CPU, ms | to in force, ms |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for rules in sizes {
        let Changes { words, bytes, first, costs, whole } = change::measure(rules, RULES, ROUNDS)?;
        let cpu = spread(costs.iter().map(|cost| cost.cpu));
        let took = spread(costs.iter().map(|cost| cost.took));
        println!(
            "| {rules} | {words} | {} | {} to {} | {:.2}, {:.2} (the first: {:.1}) | {:.2}, {:.2} | {:.1} | {:.1} |",
            costs.len(),
            bytes.iter().min().unwrap_or(&0),
            bytes.iter().max().unwrap_or(&0),
            cpu.0,
            cpu.1,
            ms(first.cpu),
            took.0,
            took.1,
            ms(whole.cpu),
            ms(whole.took),
        );
    }
    Ok(())
}

/// Median and worst, in milliseconds.
fn spread(all: impl Iterator<Item = Duration>) -> (f64, f64) {
    let mut all: Vec<f64> = all.map(ms).collect();
    all.sort_by(f64::total_cmp);
    (all[all.len() / 2], all[all.len() - 1])
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
