//! The sockets at which the host asks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;

use super::answer::Answers;
use super::bounds::{Bounds, CONNECTIONS, STRANGERS};
use super::counts::Refused;
use super::message::{self, LONGEST, LONGEST_DATAGRAM, Read};
use super::own::Own;

/// Bytes of questions that wait to be read.
const RECEIVED: usize = 1 << 20;
/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// How long a client may take to read an answer.
const WRITE: Duration = Duration::from_secs(5);

/// What every socket works with.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) answers: Arc<Answers>,
    pub(super) own: Arc<Own>,
    bounds: Bounds,
    connections: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

/// Who asks, and where.
#[derive(Clone, Copy)]
struct Ends {
    client: SocketAddr,
    here: IpAddr,
}

/// The sockets that are open.
pub(super) struct Listening {
    server: Server,
    open: BTreeMap<SocketAddr, [JoinHandle<()>; 2]>,
}

impl Server {
    pub(super) fn new(answers: Arc<Answers>, own: Arc<Own>) -> Self {
        let [connections, strangers] = [CONNECTIONS, STRANGERS].map(|most| Arc::new(Semaphore::new(most)));
        Self { answers, own, bounds: Bounds::default(), connections, strangers }
    }

    /// What is said to `bytes`: over TCP all of it, else as much as the client takes.
    async fn reply(&self, bytes: &[u8], ends: Ends, over_tcp: bool) -> Option<Vec<u8>> {
        let own = self.is_own(ends).await;
        let (message, most) = match message::read(bytes) {
            Read::Nothing => {
                self.answers.counts.refused(Refused::Malformed);
                return None;
            }
            Read::Wrong(message) if own => {
                self.answers.counts.refused(Refused::Malformed);
                (*message, LONGEST_DATAGRAM)
            }
            Read::Wrong(message) => (self.stranger(*message), LONGEST_DATAGRAM),
            Read::Asked(asked) if own => (self.answers.answer(&asked).await, asked.datagram()),
            Read::Asked(asked) => (self.stranger(asked.response(ResponseCode::Refused)), asked.datagram()),
        };
        match message::write(&message, if over_tcp { LONGEST } else { most }) {
            Ok(bytes) => Some(bytes),
            Err(e) => {
                tracing::debug!("an answer cannot be written: {e}");
                None
            }
        }
    }

    async fn is_own(&self, ends: Ends) -> bool {
        let source = ends.client.ip().to_canonical();
        // The host asks itself from where it is asked, mostly.
        source == ends.here || self.own.is_own(source).await
    }

    fn stranger(&self, mut message: Message) -> Message {
        self.answers.counts.refused(Refused::Stranger);
        message.metadata.response_code = ResponseCode::Refused;
        message
    }
}

impl Listening {
    pub(super) fn new(server: Server) -> Self {
        Self { server, open: BTreeMap::new() }
    }

    /// Listens at `wanted` and nowhere else; why where that was not possible. Questions in flight are answered all the same.
    pub(super) async fn at(&mut self, wanted: &BTreeSet<SocketAddr>) -> Vec<(SocketAddr, io::Error)> {
        let goes = |address: &SocketAddr, tasks: &mut [JoinHandle<()>; 2]| {
            !wanted.contains(address) || tasks.iter().any(JoinHandle::is_finished)
        };
        for task in self.open.extract_if(.., goes).flat_map(|(_, tasks)| tasks).collect::<Vec<_>>() {
            task.abort();
            // The port is free afterwards, unless a question is still in flight.
            let _ = task.await;
        }
        let mut failed = Vec::new();
        for address in wanted {
            if self.open.contains_key(address) {
                continue;
            }
            match open(*address, &self.server).await {
                Ok(tasks) => {
                    tracing::info!("questions for names are answered at {address}");
                    self.open.insert(*address, tasks);
                }
                Err(e) => failed.push((*address, e)),
            }
        }
        failed
    }

    /// Where it listens.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.open.keys().copied()
    }
}

async fn open(address: SocketAddr, server: &Server) -> io::Result<[JoinHandle<()>; 2]> {
    let by_udp = UdpSocket::bind(address).await?;
    // A host that starts asks much at once; less room is what the kernel grants.
    let _ = SockRef::from(&by_udp).set_recv_buffer_size(RECEIVED);
    let by_tcp = TcpListener::bind(address).await?;
    Ok([
        tokio::spawn(serve_udp(Arc::new(by_udp), address.ip(), server.clone())),
        tokio::spawn(serve_tcp(by_tcp, address.ip(), server.clone())),
    ])
}

async fn serve_udp(socket: Arc<UdpSocket>, here: IpAddr, server: Server) {
    let mut buffer = vec![0; usize::from(LONGEST_DATAGRAM)];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(e) => {
                // What a client's kernel says of an earlier answer, mostly; the pause is for all else.
                tracing::debug!("a question cannot be received: {e}");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let Some(room) = server.bounds.admit(client) else {
            server.answers.counts.refused(Refused::Busy);
            continue;
        };
        let (socket, server, question) = (socket.clone(), server.clone(), buffer[..length].to_vec());
        tokio::spawn(async move {
            let _room = room;
            if let Some(answer) = server.reply(&question, Ends { client, here }, false).await
                && let Err(e) = socket.send_to(&answer, client).await
            {
                tracing::debug!("{client} cannot be answered: {e}");
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, here: IpAddr, server: Server) {
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::debug!("a connection cannot be accepted: {e}");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let ends = Ends { client, here };
        let room = if server.is_own(ends).await { &server.connections } else { &server.strangers };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            server.answers.counts.refused(Refused::Busy);
            continue;
        };
        let server = server.clone();
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(e) = serve_connection(stream, ends, server).await {
                tracing::debug!("the connection of {client} ends: {e}");
            }
        });
    }
}

/// Questions of one connection, each after its length (RFC 1035 4.2.2); answers come in the order in which they are found.
async fn serve_connection(stream: TcpStream, ends: Ends, server: Server) -> io::Result<()> {
    let (mut reading, writing) = stream.into_split();
    let writing = Arc::new(Mutex::new(writing));
    loop {
        let mut question = Vec::new();
        let read = async {
            let length = reading.read_u16().await?;
            question.resize(usize::from(length), 0);
            reading.read_exact(&mut question).await
        };
        match tokio::time::timeout(IDLE, read).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(e)) => return Err(e),
            Err(_) => return Ok(()),
        }
        let Some(room) = server.bounds.admit(ends.client) else {
            server.answers.counts.refused(Refused::Busy);
            return Ok(());
        };
        let (writing, server) = (writing.clone(), server.clone());
        tokio::spawn(async move {
            let _room = room;
            let Some(answer) = server.reply(&question, ends, true).await else { return };
            let Ok(length) = u16::try_from(answer.len()) else { return };
            let whole = [&length.to_be_bytes()[..], &answer].concat();
            let mut writing = writing.lock().await;
            // Who does not read is waited for no longer than this, with all that comes behind.
            let written = tokio::time::timeout(WRITE, writing.write_all(&whole)).await;
            if !matches!(written, Ok(Ok(()))) {
                let _ = writing.shutdown().await;
            }
        });
    }
}

/// Where this agent may listen: nobody but the host itself reaches loopback, and what reaches an overlay address is refused by
/// where it comes from.
pub(super) fn may_listen(address: IpAddr, overlay: [IpAddr; 2]) -> bool {
    address.is_loopback() || overlay.contains(&address)
}
