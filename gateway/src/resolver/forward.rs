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
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Edns, Message, ResponseCode};
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
        let came = match tokio::time::timeout(patience, self.find_out(asked, patience)).await {
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

    /// What it says in EDNS, or without where it does not know that (RFC 6891 7).
    async fn find_out(&self, asked: &Asked, patience: Duration) -> Result<Message, Failure> {
        use ResponseCode::{BADVERS, FormErr, NotImp};
        let answer = self.exchange(&request(asked, true), patience).await?;
        match answer.metadata.response_code {
            FormErr | NotImp | BADVERS => self.exchange(&request(asked, false), patience).await,
            _ => Ok(answer),
        }
    }

    async fn exchange(&self, message: &Message, patience: Duration) -> Result<Message, Failure> {
        let mut options = DnsRequestOptions::default();
        options.retry_interval = patience / u32::from(DATAGRAMS);
        let request = || DnsRequest::new(message.clone(), options);
        let provider = TokioRuntimeProvider::default();
        let mut by_udp = UdpClientStream::builder(self.address, provider.clone())
            .with_timeout(Some(patience))
            .with_max_retries(DATAGRAMS)
            .build();
        let mut answers = by_udp.send_message(request());
        let answer = answer_of(answers.next().await)?;
        if !answer.metadata.truncation {
            return Ok(answer);
        }
        let by_tcp = TcpClientStream::exchange(self.address, None, patience, None, provider).await;
        let exchange = by_tcp.map_err(|e| failure(&e))?;
        let mut answers = exchange.send(request());
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
fn request(asked: &Asked, in_edns: bool) -> Message {
    let mut message = Message::query();
    message.add_query(asked.question.clone());
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = asked.unchecked;
    message.metadata.authentic_data = asked.authentic;
    if in_edns {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM).set_dnssec_ok(asked.dnssec);
        message.set_edns(edns);
    }
    message
}

fn answer_of(came: Option<Result<DnsResponse, NetError>>) -> Result<Message, Failure> {
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

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::Query;
    use hickory_resolver::proto::rr::{Name, RecordType};
    use tokio::net::UdpSocket;

    use super::super::message::{self, Read};
    use super::*;

    /// What a server says to a question.
    type Says = fn(&Message) -> ResponseCode;

    fn asked(edns: Option<Edns>) -> Asked {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii("a.test.").unwrap(), RecordType::A));
        message.metadata.checking_disabled = true;
        message.edns = edns;
        match message::read(&message.to_vec().unwrap()) {
            Read::Asked(asked) => *asked,
            other => panic!("{other:?}"),
        }
    }

    /// A server that answers each question as `answer` says; the questions that it heard.
    async fn server(answer: Says) -> (SocketAddr, Arc<Mutex<Vec<Message>>>) {
        let socket = UdpSocket::bind("[::1]:0").await.unwrap();
        let (address, heard) = (socket.local_addr().unwrap(), Arc::<Mutex<Vec<Message>>>::default());
        let hears = heard.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            loop {
                let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let mut said = question.clone().into_response();
                said.metadata.response_code = answer(&question);
                said.edns = None;
                hears.lock().unwrap().push(question);
                socket.send_to(&said.to_vec().unwrap(), client).await.unwrap();
            }
        });
        (address, heard)
    }

    async fn ask(address: SocketAddr, asked: &Asked) -> (Option<ResponseCode>, ServerRow) {
        let forwarder = Forwarder::default();
        forwarder.keep(&[address].into());
        let answer = forwarder.ask(&[address], asked).await;
        (answer.map(|answer| answer.metadata.response_code), forwarder.row(&address).unwrap())
    }

    #[tokio::test]
    async fn what_the_client_wants_of_signatures_is_asked_for() {
        let (address, heard) = server(|_| ResponseCode::NoError).await;
        ask(address, &asked(None)).await;
        ask(address, &asked(Some(Edns::new().set_dnssec_ok(true).clone()))).await;
        let heard = heard.lock().unwrap();
        let wanted = heard.iter().map(|message| message.edns.as_ref().unwrap().flags().dnssec_ok);
        assert_eq!(wanted.collect::<Vec<_>>(), [false, true]);
        assert!(heard.iter().all(|message| {
            message.metadata.recursion_desired
                && message.metadata.checking_disabled
                && message.edns.as_ref().unwrap().max_payload() == DATAGRAM
        }));
    }

    #[tokio::test]
    async fn a_server_that_knows_no_edns_is_asked_without() {
        fn or(question: &Message, wrong: ResponseCode) -> ResponseCode {
            if question.edns.is_some() { wrong } else { ResponseCode::NXDomain }
        }
        let says: [Says; 2] =
            [|question| or(question, ResponseCode::FormErr), |question| or(question, ResponseCode::NotImp)];
        for wrong in says {
            let (address, heard) = server(wrong).await;
            let (code, row) = ask(address, &asked(None)).await;
            assert_eq!((code, heard.lock().unwrap().len()), (Some(ResponseCode::NXDomain), 2));
            assert_eq!((row.questions, row.silent), (1, false));
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_counted_by_why() {
        let says: [(Says, &str); 3] = [
            (|_| ResponseCode::ServFail, "servfail"),
            (|_| ResponseCode::Refused, "refused"),
            (|_| ResponseCode::NotAuth, "malformed"),
        ];
        for (code, reason) in says {
            let (address, _) = server(code).await;
            let (answer, row) = ask(address, &asked(None)).await;
            assert_eq!(answer, None, "{reason}");
            let failed: Vec<_> = row.failures.into_iter().filter(|(_, count)| *count > 0).collect();
            assert_eq!((failed, row.silent), (vec![(reason, 1)], false));
        }
    }
}
