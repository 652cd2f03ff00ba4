//! Joining: a setup key becomes a peer and a certificate.

use std::net::IpAddr;
use std::time::Instant;

use sluicegate_api::agent::{EnrollRequest, EnrollResponse, Role as WireRole};
use tonic::Status;

use super::{AgentService, clip, facts};
use crate::pki::{AgentRequest, PkiError};
use crate::store::{EnrollError, Enrollment, Role};

/// Label values of `enrolments_total`.
pub(crate) const RESULTS: [&str; 12] = [
    OK,
    "rate_limited",
    "unknown_key",
    "expired_key",
    "revoked_key",
    "used_up_key",
    "refused_user",
    "known_wireguard_key",
    "refused_labels",
    "bad_request",
    "no_address",
    "internal",
];
pub(super) const OK: &str = "ok";

/// Longer than any setup key; more is not looked at.
const SETUP_KEY_MAX: usize = 256;

/// Why a machine may not join.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("too many attempts to join from this address; wait {0} s and try again")]
    RateLimited(u64),
    #[error("{0}")]
    BadRequest(String),
    #[error(transparent)]
    Store(#[from] EnrollError),
    #[error(transparent)]
    Certificate(#[from] PkiError),
}

pub(super) async fn enroll(
    service: &AgentService,
    from: Option<IpAddr>,
    request: EnrollRequest,
) -> Result<EnrollResponse, Refusal> {
    if let Some(from) = from {
        service
            .limit
            .attempt(from, Instant::now())
            .map_err(|wait| Refusal::RateLimited(wait.as_secs() + 1))?;
    }
    let (csr, enrollment) = check(from, request)?;
    let peer = service.store.enroll(&enrollment).await?;
    let certificate_pem = service.authority.sign_agent(&csr, &peer.id)?;
    Ok(EnrollResponse {
        peer_id: peer.id,
        certificate_pem,
        authority_pem: service.authority.pem().to_owned(),
    })
}

/// Everything that can be wrong with the request itself, before a use of the key is counted.
fn check(from: Option<IpAddr>, request: EnrollRequest) -> Result<(AgentRequest, Enrollment), Refusal> {
    let bad = |text: &str| Refusal::BadRequest(text.to_owned());
    let wireguard_public_key = wireguard(&request.wireguard_public_key)?;
    if request.setup_key.is_empty() || request.setup_key.len() > SETUP_KEY_MAX {
        return Err(bad(
            "the setup key is empty or too long: give the text that control showed when it was created",
        ));
    }
    let role = role(request.role())?;
    let csr =
        AgentRequest::from_pem(&request.csr_pem).map_err(|error| Refusal::BadRequest(error.to_string()))?;
    let facts = facts(request.system.as_ref(), from);
    let enrollment = Enrollment {
        wireguard_public_key,
        identity_key: csr.key_hash(),
        role,
        hostname: clip(&request.hostname),
        os: facts.os,
        kernel_version: facts.kernel_version,
        version: facts.version,
        connection_ip: from,
        dns_labels: request.dns_labels,
        setup_key: request.setup_key,
    };
    Ok((csr, enrollment))
}

/// A WireGuard public key.
pub(super) fn wireguard(key: &[u8]) -> Result<[u8; 32], Refusal> {
    let wrong = || {
        let text = format!("the WireGuard public key has {} bytes instead of 32", key.len());
        Refusal::BadRequest(text)
    };
    key.try_into().map_err(|_| wrong())
}

/// What a machine wants to be.
pub(super) fn role(role: WireRole) -> Result<Role, Refusal> {
    match role {
        WireRole::Peer => Ok(Role::Peer),
        WireRole::Gateway => Ok(Role::Gateway),
        WireRole::Unspecified => Err(Refusal::BadRequest("the role must be peer or gateway".into())),
    }
}

impl Refusal {
    /// The label in `enrolments_total`.
    pub(super) fn result(&self) -> &'static str {
        match self {
            Self::RateLimited(_) => "rate_limited",
            Self::BadRequest(_) | Self::Store(EnrollError::EmptyWireguardKey) => "bad_request",
            Self::Store(EnrollError::UnknownKey) => "unknown_key",
            Self::Store(EnrollError::Revoked(_)) => "revoked_key",
            Self::Store(EnrollError::Expired(_)) => "expired_key",
            Self::Store(EnrollError::Overused(_)) => "used_up_key",
            Self::Store(EnrollError::KnownWireguardKey(_)) => "known_wireguard_key",
            Self::Store(EnrollError::User(_)) => "refused_user",
            Self::Store(EnrollError::DnsLabels(_)) => "refused_labels",
            Self::Store(EnrollError::NoAddress(_)) => "no_address",
            Self::Store(EnrollError::Store(_)) | Self::Certificate(_) => "internal",
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal.result() {
            "rate_limited" => Self::resource_exhausted(text),
            "bad_request" => Self::invalid_argument(text),
            "unknown_key" => Self::unauthenticated(text),
            "revoked_key" | "expired_key" | "refused_user" => Self::permission_denied(text),
            "used_up_key" | "no_address" | "refused_labels" => Self::failed_precondition(text),
            "known_wireguard_key" => Self::already_exists(text),
            _ => {
                tracing::error!(error = %text, "enrolment failed");
                Self::unavailable("control could not complete the enrolment; try again")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_is_a_published_label() {
        let all = [
            Refusal::RateLimited(1),
            Refusal::BadRequest(String::new()),
            Refusal::Store(EnrollError::UnknownKey),
            Refusal::Store(EnrollError::Revoked(String::new())),
            Refusal::Store(EnrollError::Expired(String::new())),
            Refusal::Store(EnrollError::Overused(String::new())),
            Refusal::Store(EnrollError::KnownWireguardKey(String::new())),
            Refusal::Store(EnrollError::User(String::new())),
            Refusal::Store(EnrollError::NoAddress(String::new())),
            Refusal::Store(EnrollError::DnsLabels(String::new())),
            Refusal::Certificate(PkiError::Request(String::new())),
        ];
        assert!(all.iter().all(|refusal| RESULTS.contains(&refusal.result())));
    }

    #[test]
    fn what_is_wrong_with_a_request_is_said_before_the_store_is_asked() {
        let good = || EnrollRequest {
            setup_key: "k".into(),
            wireguard_public_key: vec![1; 32],
            role: WireRole::Peer.into(),
            ..EnrollRequest::default()
        };
        let cases = [
            (EnrollRequest { wireguard_public_key: vec![1; 31], ..good() }, "31 bytes"),
            (EnrollRequest { setup_key: String::new(), ..good() }, "setup key"),
            (EnrollRequest { setup_key: "x".repeat(257), ..good() }, "setup key"),
            (EnrollRequest { role: 0, ..good() }, "role"),
            (good(), "certificate request"),
        ];
        for (request, word) in cases {
            let message = check(None, request).err().unwrap().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
