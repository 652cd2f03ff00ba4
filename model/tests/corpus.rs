//! Everything the fuzzers found worth keeping, once more.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use sluicegate_model::fuzz::TARGETS;

#[test]
fn the_corpora_hold() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in TARGETS {
        let directory = corpora.join(name);
        let files = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
        let mut count = 0;
        for file in files.map(|file| file.unwrap().path()) {
            let bytes = fs::read(&file).unwrap();
            let held = catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_ok();
            assert!(held, "{} does not hold; see above", file.display());
            count += 1;
        }
        assert!(count >= 20, "only {count} files in {}", directory.display());
    }
}
