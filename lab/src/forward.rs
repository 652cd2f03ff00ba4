//! A port on the host's loopback that leads into a namespace, for a person's browser and shell.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::namespace::Namespace;

/// Connections to [`Forward::address`] are carried to an address in a namespace as long as the process lives.
#[derive(Debug)]
pub struct Forward {
    address: SocketAddr,
}

impl Forward {
    /// Listens on a free port of 127.0.0.1 and carries what comes to `target` in `namespace`.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(namespace: &Namespace, target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
        let address = listener.local_addr()?;
        let namespace = namespace.clone();
        thread::Builder::new().name(format!("forward to {target}")).spawn(move || {
            for client in listener.incoming().flatten() {
                let namespace = namespace.clone();
                thread::spawn(move || carry(&client, &namespace, target));
            }
        })?;
        Ok(Self { address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn carry(client: &TcpStream, namespace: &Namespace, target: SocketAddr) {
    // A socket stays in the namespace it was made in, so only connecting has to happen there.
    let Ok(Ok(server)) = namespace.enter(|| TcpStream::connect_timeout(&target, Duration::from_secs(5)))
    else {
        return;
    };
    thread::scope(|scope| {
        scope.spawn(|| one_way(client, &server));
        one_way(&server, client);
    });
}

fn one_way(mut from: &TcpStream, mut to: &TcpStream) {
    // An error ends the direction as the end of the stream does.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
