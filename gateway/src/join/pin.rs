//! Finds the authority behind control's certificate by its fingerprint, before anything is trusted or sent.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::setup_key::Fingerprint;
use crate::control::Url;

const PATIENCE: Duration = Duration::from_secs(10);

/// The certificate with fingerprint `wanted` from the chain that control presents, as PEM.
///
/// The handshake is broken off as soon as the chain is read: nothing is believed here. Whoever presents the authority's
/// certificate without its key fails in the verified connection that follows.
pub(super) async fn authority(control: &Url, wanted: Fingerprint) -> anyhow::Result<String> {
    let chain = match tokio::time::timeout(PATIENCE, chain(control)).await {
        Ok(chain) => chain?,
        Err(_) => bail!(
            "control at {control} did not answer within {} s; check the address and the way there",
            PATIENCE.as_secs()
        ),
    };
    let Some(authority) = chain.iter().find(|der| Fingerprint::of(der) == wanted) else {
        bail!(
            "control at {control} does not have the identity the setup key names (authority {wanted}); it is another \
             control or somebody in between: get a new setup key from the control you mean"
        );
    };
    Ok(pem(authority))
}

async fn chain(control: &Url) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let reader = Arc::new(ChainReader { chain: Mutex::default(), provider: provider.clone() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS could not be set up")?
        .dangerous()
        .with_custom_certificate_verifier(reader.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect((control.host(), control.port())).await;
    let tcp = tcp.with_context(|| format!("control at {control} cannot be reached"))?;
    let name =
        ServerName::try_from(sluicegate_api::CONTROL_NAME).context("control's name is not a DNS name")?;
    let failed = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.err();
    let chain = std::mem::take(&mut *reader.chain.lock().unwrap_or_else(PoisonError::into_inner));
    if chain.is_empty() {
        let why = failed.unwrap_or_else(|| io::ErrorKind::InvalidData.into());
        return Err(why)
            .with_context(|| format!("what answers at {control} does not speak TLS as control does"));
    }
    Ok(chain)
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Notes what is presented and accepts nothing.
#[derive(Debug)]
struct ChainReader {
    chain: Mutex<Vec<CertificateDer<'static>>>,
    provider: Arc<CryptoProvider>,
}

impl ChainReader {
    fn refusal() -> Error {
        Error::General("the chain has been read".into())
    }
}

impl ServerCertVerifier for ChainReader {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let presented = std::iter::once(leaf).chain(others).map(|der| der.clone().into_owned()).collect();
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = presented;
        Err(Self::refusal())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Self::refusal())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Self::refusal())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
