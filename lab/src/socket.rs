//! Sockets at fixed ports of a host of the lab.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::namespace::Namespace;
use crate::wait;

/// A socket that was closed holds its port for as long as a process that another thread forked meanwhile has not become its
/// program: the copies of descriptors go with `execve`.
const FORKED: Duration = Duration::from_secs(5);

impl Namespace {
    /// A UDP socket bound to `address`; port 0 is any free one.
    ///
    /// # Errors
    /// When the address is not the namespace's, or its port stays taken.
    pub fn udp(&self, address: impl Into<SocketAddr>) -> Result<UdpSocket> {
        self.bind(address.into(), UdpSocket::bind)
    }

    /// A TCP socket that listens at `address`; port 0 is any free one.
    ///
    /// # Errors
    /// When the address is not the namespace's, or its port stays taken.
    pub fn listen(&self, address: impl Into<SocketAddr>) -> Result<TcpListener> {
        self.bind(address.into(), TcpListener::bind)
    }

    fn bind<S: Send>(&self, address: SocketAddr, bind: fn(SocketAddr) -> io::Result<S>) -> Result<S> {
        let attempt = || match bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
            bound => bound.map(Some),
        };
        let bound = self.enter(|| wait::until(FORKED, attempt))?;
        bound
            .and_then(|socket| socket.ok_or_else(|| ErrorKind::AddrInUse.into()))
            .with_context(|| format!("cannot bind {address} in namespace {}", self.name()))
    }
}
