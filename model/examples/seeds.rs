//! Writes cases of the generator as inputs of the fuzz target `engine`: `cargo run -p sluicegate-model --example seeds DIR`.

use std::path::PathBuf;
use std::{env, fs};

use sluicegate_model::fuzz::Tale;

/// Cases, and steps of each.
const CASES: u64 = 60;
const STEPS: usize = 150;

fn main() {
    let directory = PathBuf::from(env::args().nth(1).expect("the directory to write to"));
    fs::create_dir_all(&directory).expect("a directory");
    for seed in 0..CASES {
        let bytes = Tale::record(seed, STEPS);
        fs::write(directory.join(format!("seed{seed:03}")), &bytes).expect("a file");
        println!("seed {seed}: {} bytes", bytes.len());
    }
}
