#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluicegate_model::fuzz::image(bytes));
