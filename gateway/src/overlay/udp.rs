//! The UDP socket of the embedded WireGuard, with room for what arrives while this process does something else.

use std::io;
use std::os::fd::AsRawFd as _;

use gotatun::udp::socket::{UdpSocket, UdpSocketFactory};
use gotatun::udp::{UdpTransportFactory, UdpTransportFactoryParams};

/// Bytes, which the kernel doubles for its bookkeeping. The default of Linux is full after some 90 datagrams of full size, about a millisecond
/// at 1 Gbit/s; this, after 3,600.
const RECEIVE_BUFFER: libc::c_int = 4 << 20;

/// Sockets as gotatun makes them, with [`RECEIVE_BUFFER`].
#[derive(Default)]
pub(super) struct RoomyUdp(UdpSocketFactory);

impl UdpTransportFactory for RoomyUdp {
    type Send = UdpSocket;
    type Recv = UdpSocket;

    async fn bind(&mut self, params: &UdpTransportFactoryParams) -> io::Result<(UdpSocket, UdpSocket)> {
        let (send, receive) = self.0.bind(params).await?;
        // Both are one socket. More than net.core.rmem_max allows, where we may; as much as that otherwise, which works.
        if set(&receive, libc::SO_RCVBUFFORCE).is_err() {
            set(&receive, libc::SO_RCVBUF)?;
        }
        Ok((send, receive))
    }
}

fn set(socket: &UdpSocket, option: libc::c_int) -> io::Result<()> {
    let (fd, size) = (socket.socket().as_raw_fd(), RECEIVE_BUFFER);
    let length = size_of_val(&size) as libc::socklen_t;
    // SAFETY: the socket is open, and the option takes an integer, which lives through the call.
    match unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const size).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn a_burst_waits_that_the_default_buffer_would_lose() {
        /// What a datagram takes of the buffer, at the most.
        const EACH: usize = 4096;
        let most = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
        let most = RECEIVE_BUFFER.min(most.trim().parse().unwrap()) as usize;
        for loopback in ["127.0.0.1", "::1"] {
            let addr = loopback.parse().unwrap();
            let params = UdpTransportFactoryParams { addr: Some(addr), port: 0, fwmark: None };
            let (_, receive) = RoomyUdp::default().bind(&params).await.unwrap();
            let room = SockRef::from(receive.socket()).recv_buffer_size().unwrap();
            assert!(room >= 2 * most, "{room}");
            let sender = std::net::UdpSocket::bind((addr, 0)).unwrap();
            let datagrams = room / EACH;
            for _ in 0..datagrams {
                sender.send_to(&[0; 1400], receive.local_addr().unwrap()).unwrap();
            }
            for number in 0..datagrams {
                let mut buffer = [0; 1500];
                let received =
                    tokio::time::timeout(Duration::from_secs(60), receive.socket().recv(&mut buffer));
                assert!(received.await.is_ok(), "{loopback}: {number} of {datagrams} came");
            }
        }
    }
}
