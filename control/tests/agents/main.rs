//! Agents against the real service: store, driver, hub, TLS and gRPC in one process, over loopback.

mod http;
mod join;
mod support;
mod sync;
