//! What crosses the wire between control, agents and operators: the gRPC service and the compiled image.

pub mod image;
pub mod network;

/// The gRPC messages and service of `proto/agent.proto`.
#[expect(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated; documented in proto/agent.proto"
)]
pub mod agent {
    tonic::include_proto!("sluicegate.agent.v1");
}

/// Version of what control and agents say to each other on a Sync stream, and of how images are hashed and changed. Both say
/// theirs; with another one there is no stream. Those who said none are of version 1, which hashed an image's encoding.
pub const PROTOCOL: u32 = 2;

/// The name every control certificate carries and every agent verifies, whatever address it dials:
/// the authority is private to one control service and signs nothing else with this name.
pub const CONTROL_NAME: &str = "control.sluicegate.internal";

/// Prefix of the URI in an agent certificate's subject alternative name; the peer id follows.
pub const PEER_URI: &str = "sluicegate:peer:";
