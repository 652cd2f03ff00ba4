//! The control service: the store of groups, policies, networks and peers; its REST API; and, beside them, the
//! compiler driver and the agents' gRPC service.

pub mod agents;
pub mod app;
mod buckets;
pub mod driver;
pub mod flows;
pub mod gateways;
pub mod geo;
pub mod grpc;
pub mod health;
pub mod hub;
pub mod identity;
pub mod ids;
pub mod maintain;
pub mod metrics;
pub mod openapi;
pub mod passwords;
pub mod pki;
pub mod policy_file;
pub mod posture;
pub mod rest;
mod sealed;
pub mod secret;
pub mod serve;
pub mod store;
mod text;
