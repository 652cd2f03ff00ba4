//! The REST API over HTTP, on a server in this process. Cases named `a_1…` to `a_15…` are those of NetBird's server.
#![expect(clippy::unwrap_used, reason = "every line of this crate is test code; a panic is how it fails")]

#[path = "../common/postgres.rs"]
mod postgres;
#[path = "../common/provider.rs"]
mod provider;
#[path = "../common/stores.rs"]
mod stores;

mod accounts;
mod auth;
mod clients;
mod conditions;
mod conformance;
mod dashboard;
mod device_login;
mod dns;
mod documents;
mod enroll;
mod events;
mod explain;
mod groups;
mod harness;
mod identity;
mod limits;
mod local_users;
mod networks;
mod openapi;
mod peers;
mod policies;
mod policy_file;
mod policy_posture;
mod posture;
mod restart;
mod roles;
mod routes;
mod setup_keys;
mod temporary;
mod users;
