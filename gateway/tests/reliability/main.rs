//! What must hold while things go wrong or change: images exchanged under traffic, floods, agents killed. Needs root.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod account;
mod agents;
#[path = "../agent/control.rs"]
#[expect(dead_code, reason = "these tests ask for less than those of the agent")]
mod control;
#[path = "../support/end.rs"]
mod end;
mod exchanges;
mod failures;
mod floods;
#[path = "../support/gateway.rs"]
mod gateway;
mod kills;
mod plaintext;
#[path = "../support/policy.rs"]
mod policy;
#[path = "../support/tun.rs"]
mod reopen;
mod routes;
mod steps;
mod tracer;
mod traffic;
mod world;
