//! `/api/peers/{peerId}/temporary-access`.

use axum::Json;
use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use sluicegate_policy::model::Service;
use sluicegate_policy::service;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::body::Body;
use super::error::{ApiError, ApiResult};
use crate::app::App;
use crate::store::{NewTemporaryAccess, PortRange, Protocol, TemporaryAccess, TemporaryService};

/// Who is to be let to a peer for a while.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct PeerTemporaryAccessRequest {
    /// The new peer's name.
    pub name: String,
    /// Its WireGuard public key, base64.
    pub wg_pub_key: String,
    /// What it may open: `tcp/443`, `tcp/8000-8999`, `udp/53`, `icmp`, `all`, `netbird-ssh/22`.
    pub rules: Vec<String>,
}

/// A peer that is let to another one for a while.
#[derive(Debug, Serialize, ToSchema)]
pub struct PeerTemporaryAccessResponse {
    /// The new peer's name.
    pub name: String,
    /// The new peer's id, which is that of its policy as well.
    pub id: String,
    /// What it may open.
    pub rules: Vec<String>,
    /// Ours: its overlay addresses, as a WireGuard client's configuration names them.
    pub addresses: Vec<String>,
    /// Ours: whom it is let to.
    pub remote: TemporaryRemote,
}

/// The peer at the other end, as a WireGuard client's configuration names it.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemporaryRemote {
    /// Its WireGuard public key, base64.
    pub public_key: String,
    /// Its overlay addresses.
    pub allowed_ips: Vec<String>,
    /// Where it is reached on the underlay, when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(grant))
}

/// Makes a peer that may open services of this one. It is gone some ten minutes after it was last heard of.
#[utoipa::path(post, path = "/api/peers/{peerId}/temporary-access", tag = "Peers", params(("peerId" = String, Path)),
    request_body = PeerTemporaryAccessRequest, responses((status = 200, body = PeerTemporaryAccessResponse)))]
async fn grant(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<PeerTemporaryAccessRequest>,
) -> ApiResult<PeerTemporaryAccessResponse> {
    let key = BASE64.decode(request.wg_pub_key.trim()).ok().and_then(|key| <[u8; 32]>::try_from(key).ok());
    let Some(key) = key else {
        let message = "wg_pub_key is no WireGuard key: 32 bytes in base64, as `wg pubkey` prints it";
        return Err(ApiError::invalid(message));
    };
    let services = request.rules.iter().map(|text| parsed(text.trim())).collect::<Result<Vec<_>, _>>()?;
    let rules = services.iter().map(|service| service.text.clone()).collect();
    let new = NewTemporaryAccess { name: request.name, wireguard_public_key: key, services };
    let TemporaryAccess { peer, target, target_key } =
        app.store.grant_temporary_access(&caller.actor(), &id, new).await?;
    Ok(Json(PeerTemporaryAccessResponse {
        name: peer.name,
        id: peer.id,
        rules,
        addresses: vec![format!("{}/32", peer.ip), format!("{}/128", peer.ipv6)],
        remote: TemporaryRemote {
            public_key: BASE64.encode(target_key),
            allowed_ips: vec![format!("{}/32", target.ip), format!("{}/128", target.ipv6)],
            endpoint: target.endpoint.map(|endpoint| endpoint.to_string()),
        },
    }))
}

fn parsed(text: &str) -> Result<TemporaryService, ApiError> {
    let service = service::parse(text).map_err(|error| ApiError::invalid(format!("rules: {error}")))?;
    let (protocol, ranges) = match service {
        Service::All => (Protocol::All, Vec::new()),
        Service::Icmp => (Protocol::Icmp, Vec::new()),
        Service::Tcp(ranges) if text.starts_with("netbird-ssh") => (Protocol::NetbirdSsh, ranges),
        Service::Tcp(ranges) => (Protocol::Tcp, ranges),
        Service::Udp(ranges) => (Protocol::Udp, ranges),
    };
    let range =
        |range: &std::ops::RangeInclusive<u16>| PortRange { start: *range.start(), end: *range.end() };
    Ok(TemporaryService { text: text.to_owned(), protocol, ports: ranges.iter().map(range).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_as_people_write_them() {
        let one = |port| PortRange { start: port, end: port };
        for (text, protocol, ports) in [
            ("all", Protocol::All, vec![]),
            ("icmp", Protocol::Icmp, vec![]),
            ("tcp", Protocol::Tcp, vec![]),
            ("tcp/80", Protocol::Tcp, vec![one(80)]),
            ("udp/100-200", Protocol::Udp, vec![PortRange { start: 100, end: 200 }]),
            ("netbird-ssh/22", Protocol::NetbirdSsh, vec![one(22)]),
        ] {
            let service = parsed(text).unwrap();
            assert_eq!((service.protocol, service.ports, service.text.as_str()), (protocol, ports, text));
        }
        for text in
            ["", "tcp/0", "tcp/65536", "tcp/90-80", "icmp/8", "all/1", "quic/443", "netbird-ssh", "tcp/"]
        {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
