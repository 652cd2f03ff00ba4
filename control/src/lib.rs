//! The control service: the store of groups, policies, networks and peers; its REST API; and, beside them, the
//! compiler driver and the agents' gRPC service.

pub mod app;
pub mod ids;
pub mod secret;
pub mod store;
