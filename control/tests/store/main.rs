//! The store over both of its databases: that they do the same, that changes are whole, that several replicas agree.
#![expect(clippy::unwrap_used, reason = "every line of this crate is test code; a panic is how it fails")]

#[path = "../common/postgres.rs"]
mod postgres;

mod attempts;
mod audit;
mod backup;
mod conformance;
mod first_codes;
mod flow_sums;
mod following;
mod identity;
mod kills;
mod local_users;
mod open;
mod replicas;
mod reset;
mod schemas;
mod states;
mod tls;
mod world;
