//! What the engine is held against: a naive gateway, and the traffic that tests it.
//!
//! `model` is docs/packet-semantics.md said once more, slowly and plainly, over the names of the engine's things but none of
//! its code. `world` makes up accounts, `generator` the packets and changes of a case, `packets` and `spoil` their bytes,
//! and `tables` puts what an engine remembers into the model's terms. `duo` runs the model beside the engine (`user`) over
//! tables in this process: the gateway's own, or the `plain` ones here. Only tests, fuzz targets and benchmarks depend on
//! this crate; the programs never do.

#![expect(
    missing_docs,
    clippy::should_implement_trait,
    reason = "test support: the modules say what they are, and chance has no default"
)]

pub mod answer;
pub mod case;
pub mod classbench;
pub mod duo;
pub mod flow;
pub mod fragments;
pub mod fuzz;
pub mod generator;
pub mod mapping;
pub mod model;
pub mod mss;
pub mod packets;
pub mod parse;
pub mod pieces;
pub mod plain;
pub mod random;
pub mod rewrite;
pub mod spoil;
pub mod tables;
pub mod tcp;
pub mod user;
pub mod world;
