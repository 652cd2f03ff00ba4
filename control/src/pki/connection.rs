//! An agent's connection after the handshake; one without a certificate is there to join, and has a time for that.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// A connection that gRPC is spoken on.
pub struct AgentConnection {
    stream: TlsStream<TcpStream>,
    /// Of a client that showed no certificate.
    stranger: Option<Stranger>,
}

struct Stranger {
    end: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

impl AgentConnection {
    /// A client whose certificate our authority has signed: it stays for as long as it likes.
    pub(super) fn known(stream: TlsStream<TcpStream>) -> Self {
        AgentConnection { stream, stranger: None }
    }

    /// A client without a certificate: it gives back `slot`, and its connection, after `time`.
    pub(super) fn stranger(stream: TlsStream<TcpStream>, slot: OwnedSemaphorePermit, time: Duration) -> Self {
        let end = Box::pin(tokio::time::sleep(time));
        AgentConnection { stream, stranger: Some(Stranger { end, _slot: slot }) }
    }
}

impl Connected for AgentConnection {
    type ConnectInfo = <TlsStream<TcpStream> as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for AgentConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(stranger) = &mut self.stranger
            && stranger.end.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for AgentConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
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
