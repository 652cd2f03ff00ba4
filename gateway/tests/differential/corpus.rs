//! What the fuzzer found worth keeping, through the kernel's programs as well.

use std::fs;
use std::path::Path;

use sluicegate_model::fuzz::Tale;

use crate::case::Step;
use crate::kernel::Kernel;
use crate::trio::Trio;

/// A test run of a program takes no frame without an IP header behind the Ethernet header.
const SHORTEST: usize = 40;

#[test]
fn the_fuzzers_cases_hold_in_the_kernel() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/engine");
    let files = fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path());
    let mut kernel = Kernel::shared();
    let mut packets = 0;
    for file in files {
        let mut tale = Tale::new(&fs::read(&file).unwrap());
        let mut trio = Trio::new(tale.setup(), &mut kernel).unwrap();
        while let Some(step) = tale.next() {
            if matches!(&step, Step::Packet(arrival) if arrival.bytes.len() < SHORTEST) {
                continue;
            }
            let outcome = trio.step(&step).unwrap_or_else(|e| panic!("{}: {step:?}\n{e}", file.display()));
            if let Some(outcome) = outcome {
                packets += 1;
                tale.learn(&outcome);
            }
        }
        trio.compare().unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
    assert!(packets > 5000, "only {packets} packets");
}
