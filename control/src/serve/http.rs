//! The REST listener: so many connections and no more, and none that only holds its place.
//!
//! Agents are served by the same process: clients of REST must not use up its file descriptors.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use crate::rest::limits::Remote;

/// After the system refused a connection (no file descriptors left), try again after this.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What clients may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once; more wait in the kernel's accept queue.
    pub(super) connections: usize,
    /// How long a connection may be without a byte in either direction. Streams send signs of life more often.
    pub(super) idle: Duration,
    /// How long a client may take from its connection, or the last byte of an answer, to the end of a request.
    pub(super) request: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connections: 512, idle: Duration::from_secs(60), request: Duration::from_secs(120) }
    }
}

/// A listener under [`Limits`].
pub(super) struct Bounded {
    listener: TcpListener,
    limits: Limits,
    slots: Arc<Semaphore>,
}

impl Bounded {
    /// Puts `listener` under `limits`.
    pub(super) fn new(listener: TcpListener, limits: Limits) -> Self {
        Bounded { listener, limits, slots: Arc::new(Semaphore::new(limits.connections)) }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let slot = match self.slots.clone().acquire_owned().await {
            Ok(slot) => slot,
            // Nobody closes the semaphore.
            Err(_) => std::future::pending().await,
        };
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => return (Connection::new(stream, self.limits, slot), from),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a REST connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Bounded>> for Remote {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        Remote(*stream.remote_addr())
    }
}

/// A client's connection, which fails once it has held its place for too long.
pub(super) struct Connection {
    stream: TcpStream,
    limits: Limits,
    moved: Instant,
    answered: Instant,
    deadline: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, limits: Limits, slot: OwnedSemaphorePermit) -> Self {
        let now = Instant::now();
        let deadline = Box::pin(tokio::time::sleep_until(now + limits.idle.min(limits.request)));
        Connection { stream, limits, moved: now, answered: now, deadline, _slot: slot }
    }

    /// What came of an attempt to move bytes: progress moves the deadline, and waiting ends at it.
    fn settle<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
        answered: bool,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.moved = Instant::now();
            if answered {
                self.answered = self.moved;
            }
            return outcome;
        }
        // Moved only here: between two waits it is looked at by nobody.
        let due = (self.moved + self.limits.idle).min(self.answered + self.limits.request);
        if self.deadline.deadline() != due {
            self.deadline.as_mut().reset(due);
        }
        match self.deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.settle(context, outcome, false)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.settle(context, outcome, true)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.settle(context, outcome, true)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(50);
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: control\r\n\r\n";

    async fn serve(limits: Limits) -> SocketAddr {
        let listener = Bounded::new(TcpListener::bind("127.0.0.1:0").await.unwrap(), limits);
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "hello" }));
        tokio::spawn(async { axum::serve(listener, router).await });
        address
    }

    async fn answer(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        while !text.ends_with("hello") {
            let mut bytes = [0; 1024];
            let read = stream.read(&mut bytes).await.unwrap();
            assert_ne!(read, 0, "{text}");
            text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
        text
    }

    /// Resolves when the other side has closed.
    async fn closed(stream: &mut (impl AsyncRead + Unpin)) {
        let mut bytes = [0; 1024];
        while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_loses_its_connection() {
        let address = serve(Limits { connections: 8, idle: SHORT, request: LONG }).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(&REQUEST[..10]).await.unwrap();
        let mut kept_alive = TcpStream::connect(address).await.unwrap();
        kept_alive.write_all(REQUEST).await.unwrap();
        assert!(answer(&mut kept_alive).await.starts_with("HTTP/1.1 200"));
        for stream in [&mut silent, &mut half, &mut kept_alive] {
            closed(stream).await;
        }
    }

    #[tokio::test]
    async fn a_request_that_comes_in_drops_has_an_end() {
        let address = serve(Limits { connections: 8, idle: LONG, request: SHORT }).await;
        let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
        write.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let drip = async {
            while write.write_all(b"A: b\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = closed(&mut read) => {}
            () = drip => {}
        }
    }

    #[tokio::test]
    async fn a_connection_above_the_limit_is_served_once_another_has_gone() {
        let address = serve(Limits { connections: 1, idle: LONG, request: LONG }).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(REQUEST).await.unwrap();
        answer(&mut first).await;
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(REQUEST).await.unwrap();
        // The first is served again while the second waits.
        first.write_all(REQUEST).await.unwrap();
        answer(&mut first).await;
        assert_eq!(second.try_read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        answer(&mut second).await;
    }
}
