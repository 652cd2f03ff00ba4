//! The policy model, its compiler to packet images, and the evaluator behind `explain`: pure functions, no I/O.
//!
//! | module | idea |
//! |---|---|
//! | [`model`] | the state policies are written over |
//! | [`service`] | protocols and ports, as people write them and as the packet program reads them |
//! | [`compile`] | state -> packet image of one agent; which agents a change affects |
//! | [`network`] | state -> whom an agent talks to, what it reaches and what it routes |
//! | [`evaluate`] | why a flow is admitted, or what is missing |
//! | [`posture`] | what is asked of machines before rules count them as sources, and the verdict |
//! | [`reach`] | who reaches what, what a change opens and closes, and whether a file's tests hold |
//! | [`naive`] | the same decisions by linear scan: the oracle of the tests |
//! | [`mod@file`] | the policy file |
//!
//! Compiler, network view and evaluator read the rules through one resolution (`resolve`), so they cannot disagree on
//! who a rule names. [`naive`] shares nothing with them on purpose.
#![forbid(unsafe_code)]

pub mod compile;
pub mod evaluate;
pub mod file;
pub mod model;
pub mod naive;
pub mod network;
pub mod posture;
pub mod reach;
mod resolve;
pub mod service;

pub use compile::{CompileError, Compiler, Limits};
pub use network::NetworkView;
