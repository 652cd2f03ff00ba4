//! Control's private certificate authority: it vouches for control to agents and for agents to control, and for nobody else.
//!
//! `DIR/ca.pem` and `DIR/ca.key` are made on first start and kept: agents pin the certificate's SHA-256. Server
//! certificates live in memory only (see [`tls`]); agent certificates are handed out at enrolment and not kept.

pub mod connection;
mod files;
mod identity;
pub mod tls;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
    SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use sluicegate_api::{CONTROL_NAME, PEER_URI};
use time::{Duration, OffsetDateTime};

pub use identity::{IdentityError, peer_id};

/// How long an authority lives. Replacing it means enrolling every agent again, so it outlives the hardware.
const AUTHORITY_LIFE: Duration = Duration::days(20 * 365);
/// How long a server certificate lives; renewed in memory when a third of it is left.
const SERVER_LIFE: Duration = Duration::days(90);
/// How long an agent's certificate lives. There is no renewal yet: the agent enrols again before it ends.
const AGENT_LIFE: Duration = Duration::days(365);
/// Certificates begin this long ago, so that an agent whose clock is slow can use them.
const BACKDATE: Duration = Duration::hours(1);
/// A request with an RSA-16384 key is below this; anything longer is not a request.
const CSR_MAX: usize = 16 * 1024;

/// The authority of one control service.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    expires: OffsetDateTime,
}

/// Why the authority could not be opened, or would not sign.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// One of the two files is there without the other.
    #[error(
        "{found} exists but {missing} does not: the authority that agents have pinned is incomplete; restore {missing} \
         from a backup, or remove {found} to make a new authority, with which every agent has to join again"
    )]
    Incomplete {
        /// The file that is there.
        found: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// The stored authority is not one.
    #[error("{path} does not hold the authority of this control service: {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The agent's request is not a signed request for a usable key.
    #[error("the certificate request is not usable: {0}")]
    Request(String),
    /// The crypto library failed.
    #[error("a certificate could not be made: {0}")]
    Sign(#[from] rcgen::Error),
}

/// A server certificate with its key: leaf first, then the authority, so that an agent that knows only the authority's
/// fingerprint can find it in the chain.
pub struct ServerCertificate {
    /// Leaf, then authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key, made for this certificate.
    pub key: PrivateKeyDer<'static>,
    /// End of validity.
    pub expires: OffsetDateTime,
    /// When to make the next one.
    pub renew_at: OffsetDateTime,
}

/// A certificate request, of which only the key counts.
pub struct AgentRequest {
    key: rcgen::PublicKey,
}

impl AgentRequest {
    /// Reads a PKCS#10 request and checks the signature that shows that the agent has the private half of its key.
    pub fn from_pem(csr_pem: &str) -> Result<Self, PkiError> {
        if csr_pem.len() > CSR_MAX {
            return Err(PkiError::Request(format!("it has {} bytes, more than {CSR_MAX}", csr_pem.len())));
        }
        let request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|e| PkiError::Request(e.to_string()))?;
        let algorithms =
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
        if !algorithms.iter().any(|known| *known == request.public_key.algorithm()) {
            return Err(PkiError::Request("its key must be ECDSA P-256, ECDSA P-384 or Ed25519".into()));
        }
        Ok(Self { key: request.public_key })
    }

    /// SHA-256 of the key's SubjectPublicKeyInfo, DER: what tells one agent's tries from another's.
    pub fn key_hash(&self) -> [u8; 32] {
        Sha256::digest(self.key.subject_public_key_info()).into()
    }
}

impl Authority {
    /// Opens the authority in `dir`, making one if there is none. `dir` exists; the key file is readable by its owner only.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        match (files::read(&certificate)?, files::read(&key)?) {
            (Some(pem), Some(key_pem)) => Self::load(&certificate, pem, &key, &key_pem),
            (None, None) => Self::create(&certificate, &key),
            (Some(_), None) => Err(PkiError::Incomplete { found: certificate, missing: key }),
            (None, Some(_)) => Err(PkiError::Incomplete { found: key, missing: certificate }),
        }
    }

    /// The fingerprint of the authority in `dir`; `None` when there is none.
    pub fn stored_fingerprint(dir: &Path) -> Result<Option<String>, PkiError> {
        let path = dir.join("ca.pem");
        let Some(pem) = files::read(&path)? else { return Ok(None) };
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| PkiError::Unusable { path, reason: error.to_string() })?;
        Ok(Some(fingerprint(&certificate)))
    }

    /// The authority's certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of the certificate's DER, lower-case hex: what a setup key carries as `#sha256:...`.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.certificate)
    }

    /// End of the authority's validity.
    pub fn expires(&self) -> OffsetDateTime {
        self.expires
    }

    /// A certificate for an agent's own key: subject, names and uses are ours. Returns PEM.
    pub fn sign_agent(&self, request: &AgentRequest, peer_id: &str) -> Result<String, PkiError> {
        let mut params = leaf(peer_id, AGENT_LIFE, ExtendedKeyUsagePurpose::ClientAuth);
        params.subject_alt_names = vec![SanType::URI(Ia5String::from_str(&format!("{PEER_URI}{peer_id}"))?)];
        Ok(params.signed_by(&request.key, &self.issuer)?.pem())
    }

    /// A fresh certificate for control itself: the name every agent verifies, and `addresses` for other gRPC clients.
    pub fn server_certificate(&self, addresses: &[IpAddr]) -> Result<ServerCertificate, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = leaf(CONTROL_NAME, SERVER_LIFE, ExtendedKeyUsagePurpose::ServerAuth);
        let name = SanType::DnsName(Ia5String::from_str(CONTROL_NAME)?);
        params.subject_alt_names =
            [name].into_iter().chain(addresses.iter().map(|a| SanType::IpAddress(*a))).collect();
        let expires = params.not_after;
        let leaf = params.signed_by(&key, &self.issuer)?;
        Ok(ServerCertificate {
            chain: vec![leaf.der().clone(), self.certificate.clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            expires,
            renew_at: expires - SERVER_LIFE / 3,
        })
    }

    fn create(certificate_path: &Path, key_path: &Path) -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let certificate = authority_certificate(&key)?;
        files::write(key_path, key.serialize_pem().as_bytes(), 0o600)?;
        files::write(certificate_path, certificate.pem().as_bytes(), 0o644)?;
        tracing::info!(path = %certificate_path.display(), "made a certificate authority for agents");
        Self::load(certificate_path, certificate.pem(), key_path, &key.serialize_pem())
    }

    fn load(path: &Path, pem: String, key_path: &Path, key_pem: &str) -> Result<Self, PkiError> {
        let unusable = |path: &Path, reason: String| PkiError::Unusable { path: path.to_owned(), reason };
        let key = KeyPair::from_pem(key_pem).map_err(|e| unusable(key_path, e.to_string()))?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| unusable(path, e.to_string()))?
            .into_owned();
        let facts = identity::authority_facts(&certificate).map_err(|reason| unusable(path, reason))?;
        if facts.public_key != key.public_key_raw() {
            return Err(unusable(key_path, format!("it is not the key of {}", path.display())));
        }
        if facts.expires <= OffsetDateTime::now_utc() {
            return Err(unusable(path, format!("it expired at {}; check this host's clock", facts.expires)));
        }
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key).map_err(|e| unusable(path, e.to_string()))?;
        Ok(Self { issuer, certificate, pem, expires: facts.expires })
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn authority_certificate(key: &KeyPair) -> Result<Certificate, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject("Sluicegate control authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, AUTHORITY_LIFE);
    params.self_signed(key)
}

fn leaf(name: &str, life: Duration, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, life);
    params
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// Validity from a little before now, and a random positive serial of 16 bytes (RFC 5280 4.1.2.2 allows 20).
fn validity(params: &mut CertificateParams, life: Duration) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATE;
    params.not_after = now + life;
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
}

#[cfg(test)]
mod tests;
