use std::os::unix::fs::PermissionsExt;

use rcgen::{CertificateParams, KeyPair};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::*;

fn request(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    CertificateParams::new(names)
        .unwrap()
        .serialize_request(&KeyPair::generate().unwrap())
        .unwrap()
        .pem()
        .unwrap()
}

fn sign(authority: &Authority, csr: &str, peer: &str) -> Result<String, PkiError> {
    authority.sign_agent(&AgentRequest::from_pem(csr)?, peer)
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().into_owned()
}

#[test]
fn the_authority_is_made_once_and_its_key_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let first = Authority::open(dir.path()).unwrap();
    let mode = std::fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = Authority::open(dir.path()).unwrap();
    assert_eq!((first.pem(), first.fingerprint()), (again.pem(), again.fingerprint()));
    assert_eq!(first.fingerprint().len(), 64);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing but the two files stays");
}

#[test]
fn half_an_authority_is_refused_instead_of_replaced() {
    for lost in ["ca.pem", "ca.key"] {
        let dir = tempfile::tempdir().unwrap();
        Authority::open(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join(lost)).unwrap();
        assert!(matches!(Authority::open(dir.path()), Err(PkiError::Incomplete { .. })), "{lost}");
        assert!(!dir.path().join(lost).exists());
    }
}

#[test]
fn a_foreign_key_or_a_damaged_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Authority::open(dir.path()).unwrap();
    std::fs::write(dir.path().join("ca.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let error = Authority::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("is not the key of"), "{error}");
    std::fs::write(dir.path().join("ca.pem"), "-----BEGIN").unwrap();
    assert!(matches!(Authority::open(dir.path()), Err(PkiError::Unusable { .. })));
}

#[test]
fn an_agent_certificate_carries_our_names_and_only_the_requests_key() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut wishes = CertificateParams::new(vec![CONTROL_NAME.to_owned()]).unwrap();
    wishes.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wishes.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let csr = wishes.serialize_request(&key).unwrap().pem().unwrap();
    let leaf = der(&sign(&authority, &csr, "peer-7").unwrap());
    assert_eq!(peer_id(&leaf).unwrap(), "peer-7");
    let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
    assert!(!parsed.is_ca());
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert!(matches!(names.as_slice(), [GeneralName::URI("sluicegate:peer:peer-7")]));
    assert_eq!(parsed.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
    let (_, root) = X509Certificate::from_der(authority.certificate()).unwrap();
    parsed.verify_signature(Some(root.public_key())).unwrap();
}

#[test]
fn a_request_that_is_not_signed_by_its_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let good = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let mut bytes = good.der().to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let forged = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        base64(&bytes)
    );
    for bad in [forged.as_str(), "", "not a request", &"x".repeat(CSR_MAX + 1)] {
        assert!(matches!(sign(&authority, bad, "p"), Err(PkiError::Request(_))));
    }
}

#[test]
fn certificates_without_exactly_one_peer_name_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let server =
        authority.server_certificate(&["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]).unwrap();
    assert_eq!(peer_id(&server.chain[0]), Err(IdentityError::Names(0)));
    assert_eq!(&server.chain[1], authority.certificate());
    assert_eq!(peer_id(&CertificateDer::from(vec![1, 2, 3])), Err(IdentityError::Malformed));
    let empty = der(&sign(&authority, &request(&[]), "").unwrap());
    assert_eq!(peer_id(&empty), Err(IdentityError::Names(0)));
}

#[test]
fn the_server_certificate_is_renewed_when_a_third_of_its_life_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let identity = tls::ServerIdentity::issue(&authority, Vec::new()).unwrap();
    let expires = identity.expires();
    assert!(!identity.renew(&authority, OffsetDateTime::now_utc()).unwrap());
    assert!(!identity.renew(&authority, expires - Duration::days(31)).unwrap());
    assert!(identity.renew(&authority, expires - Duration::days(29)).unwrap());
    assert!(identity.expires() >= expires);
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A client's side of a handshake with `address`.
async fn client(
    address: std::net::SocketAddr,
    authority: &Authority,
    identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.unwrap().with_root_certificates(roots);
    let mut config = match identity {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    connector.connect(CONTROL_NAME.try_into().unwrap(), stream).await.unwrap()
}

#[tokio::test]
async fn a_client_without_a_certificate_has_a_place_for_a_time_and_an_agent_stays() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let identity = tls::ServerIdentity::issue(&authority, Vec::new()).unwrap();
    let config = tls::server_config(&authority, identity).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let time = std::time::Duration::from_millis(50);
    let mut accepted = tls::accept(listener, config, tls::Strangers { connections: 1, time });

    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::new(vec![]).unwrap().serialize_request(&key).unwrap().pem().unwrap();
    let certificate = der(&sign(&authority, &csr, "p1").unwrap());
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let mut agent = client(address, &authority, Some((certificate, key))).await;
    let mut served = accepted.recv().await.unwrap().unwrap();

    let _stranger = client(address, &authority, None).await;
    let mut first = accepted.recv().await.unwrap().unwrap();
    // No second place while the first is taken.
    let mut second = client(address, &authority, None).await;
    let read = second.read(&mut [0; 1]).await;
    assert!(!read.is_ok_and(|read| read > 0), "closed, with or without a farewell");
    let error = first.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    drop(first);

    agent.write_all(b"x").await.unwrap();
    agent.flush().await.unwrap();
    let mut byte = [0];
    served.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"x");
    let _third = client(address, &authority, None).await;
    accepted.recv().await.unwrap().unwrap();
}
