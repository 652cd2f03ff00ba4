//! Asks name servers, one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::{DnsHandle as _, DnsRequestSender as _};
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, Edns, Message, ResponseCode};
use tokio::time::Instant;

use super::message::Asked;

/// How long a server is waited for while there is another one to ask.
const SERVER: Duration = Duration::from_millis(1500);
/// How long a question may take over all servers: less than the C library waits for this agent (5 s).
pub(super) const QUESTION: Duration = Duration::from_millis(4500);
/// How long a server that gave no answer is asked after the others.
const PAUSE: Duration = Duration::from_secs(30);
/// Datagrams to a server for one question, should they get lost.
const DATAGRAMS: u8 = 3;
/// Bytes of a datagram that is not fragmented on the way (RFC 9715).
const DATAGRAM: u16 = 1232;

/// Name servers, and how they have answered.
#[derive(Debug)]
pub(super) struct Forwarder {
    servers: Mutex<BTreeMap<SocketAddr, Arc<Server>>>,
    pause: Duration,
}

/// A name server.
#[derive(Debug)]
struct Server {
    address: SocketAddr,
    /// When it was last asked in vain, unless it answered since.
    silent: Mutex<Option<Instant>>,
    questions: AtomicU64,
    failures: [AtomicU64; Failure::ALL.len()],
}

/// Why a server's answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// None came in time.
    Timeout,
    /// It cannot be reached.
    Unreachable,
    /// It could not find out (SERVFAIL).
    ServFail,
    /// It does not answer such questions (REFUSED).
    Refused,
    /// What it said cannot be read, or is no answer.
    Malformed,
}

/// A name server as others read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerRow {
    /// Whether it gave no answer lately.
    pub(super) silent: bool,
    /// Questions it was asked.
    pub(super) questions: u64,
    /// Answers that were none, by why; zeros too.
    pub(super) failures: Vec<(&'static str, u64)>,
}

impl Failure {
    const ALL: [Self; 5] = [Self::Timeout, Self::Unreachable, Self::ServFail, Self::Refused, Self::Malformed];

    const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::ServFail => "servfail",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
        }
    }
}

impl Default for Forwarder {
    fn default() -> Self {
        Self { servers: Mutex::default(), pause: PAUSE }
    }
}

impl Forwarder {
    /// From now on there are no others than these. What is known of those that stay, stays.
    pub(super) fn keep(&self, wanted: &BTreeSet<SocketAddr>) {
        let mut servers = self.servers();
        servers.retain(|address, _| wanted.contains(address));
        for address in wanted {
            servers.entry(*address).or_insert_with(|| Arc::new(Server::new(*address)));
        }
    }

    /// Asks the servers at `addresses` in this order until one answers; those that were silent lately come last.
    pub(super) async fn ask(&self, addresses: &[SocketAddr], asked: &Asked) -> Option<Message> {
        let mut in_turn: Vec<Arc<Server>> = {
            let servers = self.servers();
            addresses.iter().filter_map(|address| servers.get(address).cloned()).collect()
        };
        in_turn.sort_by_cached_key(|server| server.was_silent(self.pause));
        let until = Instant::now() + QUESTION;
        let last = in_turn.len().saturating_sub(1);
        for (place, server) in in_turn.iter().enumerate() {
            let left = until.saturating_duration_since(Instant::now());
            let patience = if place == last { left } else { left.min(SERVER) };
            if patience.is_zero() {
                return None;
            }
            if let Ok(answer) = server.ask(asked, patience).await {
                return Some(answer);
            }
        }
        None
    }

    /// How the server at `address` has answered, where it is one.
    pub(super) fn row(&self, address: &SocketAddr) -> Option<ServerRow> {
        let server = self.servers().get(address).cloned()?;
        let count = |why: Failure| (why.name(), server.failures[why as usize].load(Ordering::Relaxed));
        Some(ServerRow {
            silent: server.was_silent(self.pause),
            questions: server.questions.load(Ordering::Relaxed),
            failures: Failure::ALL.into_iter().map(count).collect(),
        })
    }

    fn servers(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Arc<Server>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    fn new(address: SocketAddr) -> Self {
        Self { address, silent: Mutex::default(), questions: AtomicU64::new(0), failures: Default::default() }
    }

    /// Asks by UDP, and by TCP for what does not fit.
    async fn ask(&self, asked: &Asked, patience: Duration) -> Result<Message, Failure> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        let came = match tokio::time::timeout(patience, self.exchange(asked, patience)).await {
            Ok(came) => came,
            Err(_) => Err(Failure::Timeout),
        };
        let came = came.and_then(|answer| match answer.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(answer),
            ResponseCode::ServFail => Err(Failure::ServFail),
            ResponseCode::Refused => Err(Failure::Refused),
            _ => Err(Failure::Malformed),
        });
        match came {
            Ok(_) => *self.silent() = None,
            Err(why) => {
                self.failures[why as usize].fetch_add(1, Ordering::Relaxed);
                let mut silent = self.silent();
                *silent = matches!(why, Failure::Timeout | Failure::Unreachable).then(Instant::now);
            }
        }
        came
    }

    async fn exchange(&self, asked: &Asked, patience: Duration) -> Result<Message, Failure> {
        let provider = TokioRuntimeProvider::default();
        let mut by_udp = UdpClientStream::builder(self.address, provider.clone())
            .with_timeout(Some(patience))
            .with_max_retries(DATAGRAMS)
            .build();
        let mut answers = by_udp.send_message(request(asked, patience));
        let answer = answer_of(answers.next().await)?;
        if !answer.metadata.truncation {
            return Ok(answer);
        }
        let by_tcp = TcpClientStream::exchange(self.address, None, patience, None, provider).await;
        let exchange = by_tcp.map_err(|e| failure(&e))?;
        let mut answers = exchange.send(request(asked, patience));
        answer_of(answers.next().await)
    }

    /// Whether it gave no answer within the last `pause`.
    fn was_silent(&self, pause: Duration) -> bool {
        self.silent().is_some_and(|since| since.elapsed() < pause)
    }

    fn silent(&self) -> MutexGuard<'_, Option<Instant>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same question, in this agent's own words.
fn request(asked: &Asked, patience: Duration) -> DnsRequest {
    let mut message = Message::query();
    message.add_query(asked.question.clone());
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = asked.unchecked;
    message.metadata.authentic_data = asked.authentic;
    let mut edns = Edns::new();
    edns.set_max_payload(DATAGRAM).set_dnssec_ok(asked.dnssec);
    message.set_edns(edns);
    let mut options = DnsRequestOptions::default();
    options.retry_interval = patience / u32::from(DATAGRAMS);
    DnsRequest::new(message, options)
}

fn answer_of(
    came: Option<Result<hickory_resolver::proto::op::DnsResponse, NetError>>,
) -> Result<Message, Failure> {
    match came {
        Some(Ok(response)) => Ok(response.into_message()),
        Some(Err(e)) => Err(failure(&e)),
        None => Err(Failure::Timeout),
    }
}

fn failure(error: &NetError) -> Failure {
    match error {
        NetError::Timeout => Failure::Timeout,
        NetError::Io(_) => Failure::Unreachable,
        _ => Failure::Malformed,
    }
}
