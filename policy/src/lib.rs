//! The policy model, its compiler to packet images, and the evaluator behind `explain`: pure functions, no I/O.

pub mod model;
