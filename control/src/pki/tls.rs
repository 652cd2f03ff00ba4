//! TLS of the agents' listener: control's certificate, renewed while serving, and optional client certificates.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::AgentConnection;
use super::{Authority, PkiError};

/// A handshake that takes longer is given up: it holds a slot.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way at once; more wait in the kernel's accept queue.
const HANDSHAKES: usize = 512;
/// Clients without a certificate at once: joining takes milliseconds.
const STRANGERS: usize = 1024;
/// How long such a client may stay.
const STRANGER_TIME: Duration = Duration::from_secs(60);
/// How often the certificate's age is looked at. Its life is counted in months.
const RENEWAL_CHECK: Duration = Duration::from_secs(3600);
/// After the system refused a connection (no file descriptors left), try again after this.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Control's server certificate, replaced as it ages.
#[derive(Debug)]
pub struct ServerIdentity {
    addresses: Vec<IpAddr>,
    current: RwLock<Current>,
}

#[derive(Clone, Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    expires: OffsetDateTime,
    renew_at: OffsetDateTime,
}

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authority would not sign.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The certificate or key is not usable for TLS.
    #[error("the agents' listener cannot use its certificate: {0}")]
    Rustls(#[from] rustls::Error),
    /// The client verifier could not be built.
    #[error("agents' certificates cannot be verified: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

impl ServerIdentity {
    /// Issues the first certificate. `addresses` become IP names beside control's own name.
    pub fn issue(authority: &Authority, addresses: Vec<IpAddr>) -> Result<Arc<Self>, TlsError> {
        let current = RwLock::new(issue(authority, &addresses)?);
        Ok(Arc::new(Self { addresses, current }))
    }

    /// End of validity of the certificate in use.
    pub fn expires(&self) -> OffsetDateTime {
        self.read().expires
    }

    /// Replaces the certificate when it is due at `now`; connections that are up keep theirs. True when it was replaced.
    pub fn renew(&self, authority: &Authority, now: OffsetDateTime) -> Result<bool, TlsError> {
        if now < self.read().renew_at {
            return Ok(false);
        }
        let next = issue(authority, &self.addresses)?;
        *self.current.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = next;
        Ok(true)
    }

    /// Keeps the certificate fresh, and `expiry` (Unix seconds) with it; never returns.
    pub async fn keep_fresh(
        self: Arc<Self>,
        authority: Arc<Authority>,
        expiry: prometheus::Gauge,
    ) -> Infallible {
        loop {
            expiry.set(self.expires().unix_timestamp() as f64);
            tokio::time::sleep(RENEWAL_CHECK).await;
            match self.renew(&authority, OffsetDateTime::now_utc()) {
                Ok(true) => {
                    tracing::info!(expires = %self.expires(), "renewed the certificate of the agents' listener")
                }
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "cannot renew the certificate of the agents' listener"),
            }
        }
    }

    fn read(&self) -> Current {
        self.current.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

impl ResolvesServerCert for ServerIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.read().key)
    }
}

/// TLS 1.2 and 1.3 with `identity`; a client certificate is optional but, if there is one, must be our authority's.
pub fn server_config(authority: &Authority, identity: Arc<ServerIdentity>) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// What clients without a certificate may hold.
#[derive(Clone, Copy, Debug)]
pub struct Strangers {
    /// Connections at once; those above are closed.
    pub connections: usize,
    /// How long each may stay.
    pub time: Duration,
}

impl Default for Strangers {
    fn default() -> Self {
        Strangers { connections: STRANGERS, time: STRANGER_TIME }
    }
}

/// Accepts and shakes hands, each handshake on its own task, until the receiver is dropped. One client's failure, or
/// the system running out of descriptors, never ends the listener; strangers do not use them up.
pub fn accept(
    listener: TcpListener,
    config: ServerConfig,
    strangers: Strangers,
) -> mpsc::Receiver<std::io::Result<AgentConnection>> {
    let (sender, receiver) = mpsc::channel(64);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    let places = Arc::new(Semaphore::new(strangers.connections));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an agent's connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let (acceptor, sender, places) = (acceptor.clone(), sender.clone(), places.clone());
            tokio::spawn(async move {
                let Some(stream) = shake_hands(&acceptor, stream, from).await else { return };
                let connection = if stream.get_ref().1.peer_certificates().is_some() {
                    AgentConnection::known(stream)
                } else {
                    // Not waited for: agents' handshakes would wait behind it.
                    let Ok(place) = places.try_acquire_owned() else {
                        tracing::info!(%from, "too many clients without a certificate; one was turned away");
                        return;
                    };
                    AgentConnection::stranger(stream, place, strangers.time)
                };
                // The receiver is gone when the server is shutting down: nothing is lost then.
                let _ = sender.send(Ok(connection)).await;
                drop(slot);
            });
        }
    });
    receiver
}

async fn shake_hands(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    from: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    // Small updates must not wait for acknowledgements; a socket that refuses the option is dead already.
    stream.set_nodelay(true).ok()?;
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::info!(%from, %error, "TLS handshake with an agent failed");
            None
        }
        Err(_) => {
            tracing::info!(%from, "TLS handshake with an agent timed out");
            None
        }
    }
}

fn issue(authority: &Authority, addresses: &[IpAddr]) -> Result<Current, TlsError> {
    let certificate = authority.server_certificate(addresses)?;
    let key = CertifiedKey::from_der(certificate.chain, certificate.key, &aws_lc_rs::default_provider())?;
    Ok(Current { key: Arc::new(key), expires: certificate.expires, renew_at: certificate.renew_at })
}
