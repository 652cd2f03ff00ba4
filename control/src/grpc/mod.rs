//! The agents' gRPC service: enrolment by setup key, the stream of what to enforce, and reports.
//!
//! Who calls is decided by the client certificate alone, which our authority signed at enrolment; nothing in a message can
//! name another peer. Setup keys are never logged.

mod bounds;
mod enroll;
mod facts;
mod intake;
mod learned;
mod limit;
mod logins;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::stream::{self, Stream};
use sluicegate_api::PROTOCOL;
use sluicegate_api::agent::agent_server::{Agent, AgentServer};
use sluicegate_api::agent::logins_server::LoginsServer;
use sluicegate_api::agent::{
    EnrollRequest, EnrollResponse, ReportRequest, ReportResponse, SyncRequest, SyncUpdate, SystemInfo,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::geo::Places;
use crate::hub::{Hub, Refused, UpdateStream};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::pki::tls::{ServerIdentity, TlsError};
use crate::pki::{self, Authority};
use crate::posture::Watch;
use crate::store::{PeerFacts, Store, StoreError};
pub(crate) use enroll::RESULTS as ENROLMENT_RESULTS;
use intake::Intake;
use limit::{LoginLimit, MoveLimit, NamesLimit, SourceLimit};
pub(crate) use logins::RESULTS as LOGIN_RESULTS;

/// A connection on which nothing moves is asked for a sign of life this often, and dropped when none comes in time.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams on one connection: an agent needs two.
const STREAMS_PER_CONNECTION: u32 = 32;
/// The most that is taken in at once. 16,384 flows at 101 bytes each, the largest, and as many names of rules at 50 are 2.5 MB; the
/// health of ten thousand links and rules 1.3 MB, and a thousand flow events 0.3 MB.
const REQUEST_MAX: usize = 4 << 20;

/// What the service works on.
#[derive(Clone)]
pub struct AgentService {
    store: Store,
    hub: Arc<Hub>,
    authority: Arc<Authority>,
    metrics: Metrics,
    limit: Arc<SourceLimit>,
    moves: Arc<MoveLimit>,
    turns: Arc<MoveLimit>,
    names: Arc<NamesLimit>,
    logins: Arc<LoginLimit>,
    identity: Identity,
    watch: Arc<Watch>,
    places: Places,
}

impl AgentService {
    /// A service over these parts.
    pub fn new(
        store: Store,
        hub: Arc<Hub>,
        authority: Arc<Authority>,
        metrics: Metrics,
        watch: Arc<Watch>,
        places: Places,
        identity: Identity,
    ) -> Self {
        let (limit, moves, turns, names, logins) = Default::default();
        Self { store, hub, authority, metrics, limit, moves, turns, names, logins, identity, watch, places }
    }

    /// Serves agents on `listener` until `shutdown` resolves and the last call has ended. Streams end when the hub is shut
    /// down. The certificate names control and `addresses`, and is renewed while this runs.
    pub async fn serve(
        self,
        listener: TcpListener,
        addresses: Vec<IpAddr>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let identity = ServerIdentity::issue(&self.authority, addresses)?;
        let config = pki::tls::server_config(&self.authority, identity.clone())?;
        let expiry = &self.metrics.certificate_expiry;
        expiry.with_label_values(&["authority"]).set(self.authority.expires().unix_timestamp() as f64);
        let renewal = identity.keep_fresh(self.authority.clone(), expiry.with_label_values(&["server"]));
        let incoming =
            ReceiverStream::new(pki::tls::accept(listener, config, pki::tls::Strangers::default()));
        let logins = LoginsServer::new(self.clone()).max_decoding_message_size(REQUEST_MAX);
        let service = AgentServer::new(self).max_decoding_message_size(REQUEST_MAX);
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .layer(Intake::new(REQUEST_MAX))
            .add_service(service)
            .add_service(logins)
            .serve_with_incoming_shutdown(incoming, shutdown);
        tokio::select! {
            served = server => Ok(served?),
            never = renewal => match never {},
        }
    }

    async fn sync_stream(
        &self,
        peer: &str,
        from: Option<IpAddr>,
        mut request: SyncRequest,
    ) -> Result<UpdateStream, Status> {
        same_protocol(&request)?;
        let endpoint = endpoint(&request.endpoint, from)?;
        let known = self.store.peer(peer).await.map_err(store_status)?;
        if known.endpoint != endpoint {
            self.moves.attempt(peer, Instant::now()).map_err(|wait| {
                let wait = wait.as_secs() + 1;
                Status::resource_exhausted(format!(
                    "the endpoint of this agent changes too often; wait {wait} s and connect again"
                ))
            })?;
            self.store.set_peer_endpoint(peer, endpoint).await.map_err(store_status)?;
        }
        // Before the revision is asked for: what is sent stands for the verdicts of now.
        let believed = self.hear_first(peer, from, request.system.as_ref(), request.facts.take()).await?;
        let revision = self.store.revision().await.map_err(store_status)?;
        let mut stream = self.hub.open(peer, &request, revision).map_err(refused_status)?;
        let (store, hub, id) = (self.store.clone(), self.hub.clone(), peer.to_owned());
        let runtime = tokio::runtime::Handle::current();
        stream.on_end(move || drop(runtime.spawn(note_end(store, hub, id))));
        // Checks judge by these too.
        let system = if believed { facts(request.system.as_ref(), from) } else { PeerFacts::default() };
        self.store.peer_seen(peer, &system).await.map_err(store_status)?;
        Ok(stream)
    }

    async fn exists(&self, peer: &str) -> Result<(), Status> {
        if self.hub.knows(peer) {
            return Ok(());
        }
        // Just enrolled, or control has just started: the hub will know it in a moment.
        self.store.peer(peer).await.map(drop).map_err(store_status)
    }
}

#[tonic::async_trait]
impl Agent for AgentService {
    type SyncStream = Pin<Box<dyn Stream<Item = Result<SyncUpdate, Status>> + Send>>;

    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let from = source(&request);
        let outcome = enroll::enroll(self, from, request.into_inner()).await;
        let result = outcome.as_ref().map_or_else(|refusal| refusal.result(), |_| enroll::OK);
        self.metrics.enrolments.with_label_values(&[result]).inc();
        let from = from.map(|ip| ip.to_string()).unwrap_or_default();
        match outcome {
            Ok(response) => {
                tracing::info!(peer = %response.peer_id, from, "agent joined");
                Ok(Response::new(response))
            }
            Err(refusal) => {
                tracing::info!(from, result, reason = %refusal, "enrolment refused");
                Err(refusal.into())
            }
        }
    }

    async fn sync(&self, request: Request<SyncRequest>) -> Result<Response<Self::SyncStream>, Status> {
        let (peer, from) = (caller(&request)?, source(&request));
        let updates = self.sync_stream(&peer, from, request.into_inner()).await?;
        tracing::info!(peer, "agent connected");
        Ok(Response::new(Box::pin(messages(updates))))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let (peer, from) = (caller(&request)?, source(&request));
        self.exists(&peer).await?;
        let mut report = request.into_inner();
        if let Some(facts) = report.facts.take() {
            self.hear_again(&peer, from, facts).await?;
        }
        if let Some(learned) = report.learned.take() {
            self.hear_names(&peer, learned).await?;
        }
        self.hub.report(&peer, report, now_ms()).map_err(refused_status)?;
        Ok(Response::new(ReportResponse {}))
    }
}

/// Why the service could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No certificate, or no usable one.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP/2 server failed.
    #[error("the agents' listener failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// An agent of another version would refuse every image, or worse, understand it otherwise.
fn same_protocol(request: &SyncRequest) -> Result<(), Status> {
    // Agents of the first version do not say.
    let theirs = request.protocol.max(1);
    if theirs == PROTOCOL {
        return Ok(());
    }
    let version = request.system.as_ref().map_or("unknown", |system| &system.agent_version);
    Err(Status::failed_precondition(format!(
        "this agent (version {}) speaks version {theirs} of the agents' protocol and control version {PROTOCOL}; install the \
         same release of sluicegate-gateway as of sluicegate-control; until then the image in force stands",
        crate::text::printable(version, 32)
    )))
}

/// The agent has gone. It may be back before this is written: then it is here.
async fn note_end(store: Store, hub: Arc<Hub>, peer: String) {
    let noted = async {
        store.peer_disconnected(&peer).await?;
        if hub.connected(&peer) {
            store.peer_seen(&peer, &PeerFacts::default()).await?;
        }
        Ok::<(), StoreError>(())
    };
    match noted.await {
        Ok(()) | Err(StoreError::NotFound { .. }) => {}
        Err(error) => tracing::warn!(peer, %error, "cannot note that an agent has gone"),
    }
}

/// One message at a time, made when the connection asks for it; an error is the last one.
fn messages(updates: UpdateStream) -> impl Stream<Item = Result<SyncUpdate, Status>> + Send {
    stream::unfold(Some(updates), |updates| async {
        let mut updates = updates?;
        match updates.next().await {
            Ok(update) => Some((Ok(update), Some(updates))),
            Err(refused) => Some((Err(refused_status(refused)), None)),
        }
    })
}

/// The peer that the verified client certificate names.
fn caller<T>(request: &Request<T>) -> Result<String, Status> {
    let certificates = request.peer_certs();
    let Some(leaf) = certificates.as_ref().and_then(|chain| chain.first()) else {
        return Err(stranger());
    };
    pki::peer_id(leaf).map_err(|error| Status::unauthenticated(error.to_string()))
}

/// What is said to whoever has no certificate.
fn stranger() -> Status {
    Status::unauthenticated("this call needs the client certificate that joining gives: join first")
}

fn source<T>(request: &Request<T>) -> Option<IpAddr> {
    request.remote_addr().map(|address| address.ip().to_canonical())
}

fn facts(system: Option<&SystemInfo>, connection_ip: Option<IpAddr>) -> PeerFacts {
    let text = |get: fn(&SystemInfo) -> &String| system.map(|system| clip(get(system))).unwrap_or_default();
    PeerFacts {
        connection_ip,
        os: text(|system| &system.os),
        kernel_version: text(|system| &system.kernel_version),
        version: text(|system| &system.agent_version),
    }
}

/// What an agent says of itself ends up in lists: printable and short.
fn clip(text: &str) -> String {
    crate::text::printable(text, 100)
}

/// Where the agent's WireGuard can be reached: an unspecified address means "where this connection comes from".
fn endpoint(text: &str, from: Option<IpAddr>) -> Result<Option<std::net::SocketAddr>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = || Status::invalid_argument(format!("endpoint {:?} is not IP:PORT", clip(text)));
    let mut endpoint: std::net::SocketAddr = text.parse().map_err(|_| bad())?;
    if endpoint.port() == 0 {
        return Err(bad());
    }
    if endpoint.ip().is_unspecified() {
        endpoint.set_ip(from.ok_or_else(bad)?);
    }
    Ok(Some(endpoint))
}

fn refused_status(refused: Refused) -> Status {
    let text = refused.to_string();
    match refused {
        Refused::Deleted => Status::permission_denied(text),
        Refused::Replaced => Status::aborted(text),
        Refused::Closing => Status::unavailable(text),
        Refused::Revision => Status::invalid_argument(text),
    }
}

fn store_status(error: StoreError) -> Status {
    match error {
        StoreError::NotFound { .. } => refused_status(Refused::Deleted),
        error => {
            tracing::error!(%error, "the store failed while serving an agent");
            Status::unavailable("control cannot reach its store; try again")
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_address_is_where_the_agent_calls_from() {
        let from = Some("192.0.2.7".parse().unwrap());
        let parsed = |text: &str| endpoint(text, from).unwrap().map(|at| at.to_string());
        assert_eq!(parsed(""), None);
        assert_eq!(parsed("0.0.0.0:51820").as_deref(), Some("192.0.2.7:51820"));
        assert_eq!(parsed("[2001:db8::1]:51820").as_deref(), Some("[2001:db8::1]:51820"));
        for bad in ["192.0.2.1", "192.0.2.1:0", "gateway.example:51820"] {
            assert_eq!(endpoint(bad, from).unwrap_err().code(), tonic::Code::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn what_agents_say_of_themselves_is_short_and_printable() {
        assert_eq!(clip("linux\u{1b}[31m\n"), "linux[31m");
        assert_eq!(clip(&"x".repeat(1000)).len(), 100);
    }
}
