//! The REST API over HTTP, on a server in this process. Cases named `a_1…` to `a_15…` are those of NetBird's server.

mod accounts;
mod auth;
mod enroll;
mod groups;
mod harness;
mod networks;
mod openapi;
mod peers;
mod policies;
mod restart;
mod roles;
mod setup_keys;
mod users;
