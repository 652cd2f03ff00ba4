//! A site device as this process uses it: packets of the host's copy in, packets by raw socket out.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::offload::{self, Cut};

/// Largest frame: a packet of 65,535 bytes behind an IPv6 header, a link header and the kernel's header.
pub(super) const FRAME_MAX: usize = 65_535 + 40 + 18 + offload::HEADER;
const ETHERNET: usize = 14;
/// Room for what arrives while this process does something else, bytes.
const RECEIVE_BUFFER: libc::c_int = 4 << 20;

/// Packets the host sends out of one site device by our orders; the host's routes and neighbours say where to on it.
pub(super) struct SiteSender {
    v4: Socket,
    v6: Option<Socket>,
}

impl SiteSender {
    /// Sends by the device with this name.
    pub(super) fn open(device: &str) -> io::Result<Self> {
        let open = |domain| -> io::Result<Socket> {
            // IPPROTO_RAW: whole packets out, none in (raw(7)).
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
            socket.bind_device(Some(device.as_bytes()))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let v6 = match open(Domain::IPV6) {
            Ok(socket) => Some(socket),
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(e) => return Err(e),
        };
        Ok(Self { v4: open(Domain::IPV4)?, v6 })
    }

    /// Sends a whole IP packet; never waits.
    pub(super) fn send(&self, packet: &[u8]) -> io::Result<()> {
        let malformed = || io::Error::from(io::ErrorKind::InvalidInput);
        let (socket, destination) = match packet.first().ok_or_else(malformed)? >> 4 {
            4 => {
                let bytes: [u8; 4] = *packet.get(16..).and_then(<[u8]>::first_chunk).ok_or_else(malformed)?;
                (&self.v4, SocketAddr::from((Ipv4Addr::from(bytes), 0)))
            }
            _ => {
                let bytes: [u8; 16] =
                    *packet.get(24..).and_then(<[u8]>::first_chunk).ok_or_else(malformed)?;
                let socket = self.v6.as_ref().ok_or(io::ErrorKind::Unsupported)?;
                (socket, SocketAddr::from((Ipv6Addr::from(bytes), 0)))
            }
        };
        socket.send_to(packet, &destination.into()).map(drop)
    }
}

/// Copies of the packets of one family that arrive on a site device.
pub(super) struct SiteReceiver {
    socket: AsyncFd<OwnedFd>,
    buffer: Box<[u8; FRAME_MAX]>,
}

/// A packet that arrived.
pub(super) struct Arrived<'a> {
    /// From the IP header on.
    pub(super) packet: &'a mut [u8],
    /// Set when it must be cut up before it goes on.
    pub(super) cut: Option<Cut>,
}

impl SiteReceiver {
    /// Receives packets of `ethertype` on the device with this index. Needs a tokio runtime.
    pub(super) fn open(index: u32, ethertype: u16) -> io::Result<Self> {
        // No protocol yet: nothing is received before the socket is bound to the device.
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: a plain system call; the result is checked before it is owned.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is open and owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        set(&fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
        // More than net.core.rmem_max allows, where we may; the default is enough to work.
        let _ = set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER);
        let mut address = link_address();
        address.sll_protocol = ethertype.to_be();
        address.sll_ifindex = index as i32;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: `address` is a link-layer address of the length given.
        if unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is owned by the `AsyncFd`, and open as long as that is.
        let socket = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE | Interest::ERROR) }
            .map_err(io::Error::from)?;
        Ok(Self { socket, buffer: Box::new([0; FRAME_MAX]) })
    }

    /// Waits for the next packet that was addressed to this host on the link; what cannot be read as one is `None`.
    pub(super) async fn recv(&mut self) -> io::Result<Option<Arrived<'_>>> {
        let buffer = &mut self.buffer[..];
        let interest = Interest::READABLE | Interest::ERROR;
        let (length, from) = self.socket.async_io(interest, |fd| receive(fd, buffer)).await?;
        if from.sll_pkttype != libc::PACKET_HOST {
            return Ok(None);
        }
        let link = match from.sll_hatype {
            libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => ETHERNET,
            // Devices without a link-layer header: TUN, PPP, tunnels.
            _ => 0,
        };
        let frame = self.buffer.get_mut(..length).unwrap_or_default();
        let Some((header, frame)) = frame.split_first_chunk_mut() else { return Ok(None) };
        let Some(packet) = frame.get_mut(link..) else { return Ok(None) };
        let length = offload::declared_length(packet).unwrap_or(packet.len());
        let packet = &mut packet[..length];
        Ok(offload::settle(header, link, packet).map(|cut| Arrived { packet, cut }))
    }
}

fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<(usize, libc::sockaddr_ll)> {
    let mut from = link_address();
    let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // MSG_TRUNC: the real length, so that a packet that did not fit is seen to be cut off.
    // SAFETY: buffer and address are valid for writes of the lengths given.
    let n = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_TRUNC,
            (&raw mut from).cast(),
            &raw mut length,
        )
    };
    usize::try_from(n).map(|n| (n, from)).map_err(|_| io::Error::last_os_error())
}

fn link_address() -> libc::sockaddr_ll {
    // SAFETY: `sockaddr_ll` is plain old data for which all zeros is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address
}

fn set(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the option takes an integer, which lives through the call.
    match unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
