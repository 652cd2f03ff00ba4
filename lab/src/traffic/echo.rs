//! Servers that send back what they get and tell each client which address they see.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

/// What a client may send to be told its address: the answer is the address as this side sees it, and a newline.
pub(super) const WHO: &[u8] = b"who\n";

/// Serves TCP: greets with the client's address and a newline, then sends back whatever comes.
///
/// # Errors
/// When the address cannot be listened on.
pub fn tcp_echo(listen: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept()?;
        let peer = canonical(peer);
        println!("connection from {peer}");
        thread::spawn(move || {
            // A client that leaves ends its connection only.
            let _ = echo(stream, peer);
        });
    }
}

fn echo(mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(format!("{peer}\n").as_bytes())?;
    let mut buffer = vec![0; 65536];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

/// Serves UDP: sends back each datagram, or the client's address to one that asks `who`.
///
/// # Errors
/// When the address cannot be listened on.
pub fn udp_echo(listen: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(listen)?;
    println!("listening on {}", socket.local_addr()?);
    let mut buffer = vec![0; 65536];
    loop {
        // An ICMP error for an earlier answer is reported here; it concerns that client only.
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
        let payload = &buffer[..length];
        let answered = if payload == WHO {
            println!("asked by {}", canonical(peer));
            socket.send_to(format!("{}\n", canonical(peer)).as_bytes(), peer)
        } else {
            socket.send_to(payload, peer)
        };
        drop(answered);
    }
}

/// An IPv4 client of an IPv6 socket, as the IPv4 address it is.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
