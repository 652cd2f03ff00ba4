//! The UDP socket of the embedded WireGuard, with room for what arrives while this process does something else.

use std::io;
use std::os::fd::AsRawFd as _;

use gotatun::udp::socket::{UdpSocket, UdpSocketFactory};
use gotatun::udp::{UdpTransportFactory, UdpTransportFactoryParams};

/// Bytes, of which the kernel's bookkeeping for each datagram takes a part. The default of Linux, 208 KiB, is full after some
/// 90 datagrams of full size: less than a millisecond at 1 Gbit/s.
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
    use super::*;

    #[tokio::test]
    async fn a_burst_waits_that_the_default_buffer_would_lose() {
        const DATAGRAMS: usize = 1000;
        for loopback in ["127.0.0.1", "::1"] {
            let addr = loopback.parse().unwrap();
            let params = UdpTransportFactoryParams { addr: Some(addr), port: 0, fwmark: None };
            let (_, receive) = RoomyUdp::default().bind(&params).await.unwrap();
            let sender = std::net::UdpSocket::bind((addr, 0)).unwrap();
            for _ in 0..DATAGRAMS {
                sender.send_to(&[0; 1400], receive.local_addr().unwrap()).unwrap();
            }
            receive.socket().readable().await.unwrap();
            let received = std::iter::repeat_with(|| receive.socket().try_recv(&mut [0; 1500]))
                .take_while(Result::is_ok);
            assert_eq!(received.count(), DATAGRAMS, "{loopback}");
        }
    }
}
