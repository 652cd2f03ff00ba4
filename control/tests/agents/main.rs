//! Agents against the real service: store, driver, hub, TLS and gRPC in one process, over loopback.

#![expect(clippy::unwrap_used, reason = "every function here is part of a test")]

#[path = "../common/devices.rs"]
mod devices;
#[path = "../common/postgres.rs"]
mod postgres;
#[path = "../common/stores.rs"]
mod stores;

mod dns;
mod flow_log;
mod flows;
mod http;
mod join;
mod logins;
mod names;
mod posture;
mod replicas;
mod routes;
mod suggest;
mod support;
mod sync;
mod updates;
