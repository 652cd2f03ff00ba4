//! The `sluicegate-control` command.

fn main() {}
