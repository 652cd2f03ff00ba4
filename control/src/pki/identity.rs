//! What certificates say: the peer behind a client certificate, and the facts of a stored authority.

use rustls::pki_types::CertificateDer;
use sluicegate_api::PEER_URI;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Why a client certificate names no peer. TLS has already checked that our authority signed it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not X.509.
    #[error("the client certificate cannot be read")]
    Malformed,
    /// No URI of ours, or several.
    #[error("the client certificate names {0} peers instead of one")]
    Names(usize),
}

/// The peer id in the certificate's one `sluicegate:peer:` URI. Subject and other names say nothing.
pub fn peer_id(certificate: &CertificateDer<'_>) -> Result<String, IdentityError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| IdentityError::Malformed)?;
    let names = parsed.subject_alternative_name().map_err(|_| IdentityError::Malformed)?;
    let uris =
        names.iter().flat_map(|extension| &extension.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(PEER_URI).filter(|id| !id.is_empty()),
            _ => None,
        });
    let ids: Vec<&str> = uris.collect();
    match ids.as_slice() {
        [id] => Ok((*id).to_owned()),
        _ => Err(IdentityError::Names(ids.len())),
    }
}

pub(super) struct AuthorityFacts {
    /// The bits of the subject's public key.
    pub(super) public_key: Vec<u8>,
    pub(super) expires: OffsetDateTime,
}

pub(super) fn authority_facts(certificate: &CertificateDer<'_>) -> Result<AuthorityFacts, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| e.to_string())?;
    if !parsed.is_ca() {
        return Err("it is not a certificate authority".into());
    }
    Ok(AuthorityFacts {
        public_key: parsed.public_key().subject_public_key.data.to_vec(),
        expires: parsed.validity().not_after.to_datetime(),
    })
}
