//! Ports for masqueraded flows, held by sockets of our own: no program on the host can take one, and the host's stack,
//! which gets a copy of every reply, drops it without an answer, since the sockets' filters accept nothing.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// Ports held at the most: as many flows to one port of one destination. Two sockets each.
const WANTED: u16 = 1024;
/// Descriptors left to everything else in the process.
const SPARE: u64 = 512;
/// `BPF_RET | BPF_K` (include/uapi/linux/bpf_common.h).
const RETURN: u16 = 0x06;

/// Contiguous ports held for TCP and UDP in both families.
pub(super) struct PortPool {
    first: u16,
    sockets: Vec<Socket>,
}

impl PortPool {
    /// Holds the first run of ports in `range` that nobody uses: as many as is useful and the number of descriptors
    /// allows, or else the longest run there is.
    pub(super) fn reserve(range: &RangeInclusive<u16>) -> io::Result<Self> {
        let wanted = usize::from(WANTED.min(affordable()));
        let mut best = Self { first: *range.start(), sockets: Vec::new() };
        let mut run = Self { first: *range.start(), sockets: Vec::new() };
        let mut refusal = io::Error::from(io::ErrorKind::AddrInUse);
        for port in range.clone() {
            match hold(port) {
                Ok(pair) => run.sockets.extend(pair),
                Err(e) => {
                    let out_of_descriptors = e.raw_os_error() == Some(libc::EMFILE);
                    refusal = e;
                    if run.sockets.len() > best.sockets.len() {
                        std::mem::swap(&mut run, &mut best);
                    }
                    if out_of_descriptors {
                        break;
                    }
                    run = Self { first: port.wrapping_add(1), sockets: Vec::new() };
                }
            }
            if run.sockets.len() / 2 >= wanted {
                return Ok(run);
            }
        }
        if run.sockets.len() > best.sockets.len() {
            best = run;
        }
        if best.sockets.is_empty() { Err(refusal) } else { Ok(best) }
    }

    /// The first port.
    pub(super) fn first(&self) -> u16 {
        self.first
    }

    /// How many there are.
    pub(super) fn count(&self) -> u16 {
        (self.sockets.len() / 2) as u16
    }
}

/// A socket of each protocol on `port` that takes what comes for it and never answers.
fn hold(port: u16) -> io::Result<[Socket; 2]> {
    let tcp = bound(Type::STREAM, Protocol::TCP, port)?;
    // Only a listening socket is found by segments of connections it does not know.
    tcp.listen(0)?;
    Ok([tcp, bound(Type::DGRAM, Protocol::UDP, port)?])
}

fn bound(kind: Type, protocol: Protocol, port: u16) -> io::Result<Socket> {
    let open = |domain| -> io::Result<Socket> {
        let socket = Socket::new(domain, kind, Some(protocol))?;
        // Before it is bound: it must never take a packet.
        socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
        Ok(socket)
    };
    match open(Domain::IPV6) {
        Ok(socket) => {
            socket.set_only_v6(false)?;
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
            Ok(socket)
        }
        // A kernel without IPv6 has nothing to hold there.
        Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            let socket = open(Domain::IPV4)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
            Ok(socket)
        }
        Err(e) => Err(e),
    }
}

/// Ports for which there are descriptors, after the limit was raised as far as it goes.
fn affordable() -> u16 {
    let needed = u64::from(WANTED) * 2 + SPARE;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write one `rlimit`, which lives through them.
    let now = unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return 64;
        }
        let raised = libc::rlimit { rlim_cur: needed, rlim_max: limit.rlim_max.max(needed) };
        let within = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
        if limit.rlim_cur >= needed {
            limit.rlim_cur
        } else if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
            needed
        } else if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const within) == 0 {
            within.rlim_cur
        } else {
            limit.rlim_cur
        }
    };
    u16::try_from(now.saturating_sub(SPARE) / 2).unwrap_or(u16::MAX).max(16)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_port_in_use_is_stepped_over_and_held_ones_are_nobody_elses() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let range = port.saturating_sub(2)..=port.saturating_add(40);
        let pool = PortPool::reserve(&range).unwrap();
        let held = pool.first()..=pool.first() + (pool.count() - 1);
        assert!(pool.count() > 2 && !held.contains(&port) && range.contains(held.end()), "{held:?} {port}");
        for address in ["127.0.0.1", "::1", "0.0.0.0"] {
            let address = (address, pool.first());
            assert!(TcpListener::bind(address).is_err() && UdpSocket::bind(address).is_err());
        }
    }

    #[test]
    fn what_is_sent_to_a_held_port_is_not_answered() {
        let free = TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap().port();
        let pool = PortPool::reserve(&(free..=free)).unwrap();
        for address in ["127.0.0.1", "::1"] {
            let address: SocketAddr = (address.parse::<std::net::IpAddr>().unwrap(), pool.first()).into();
            // A closed port would refuse at once; this one lets the attempt time out.
            let refused = TcpStream::connect_timeout(&address, Duration::from_millis(50)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::TimedOut, "{address}");
        }
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(("127.0.0.1", pool.first())).unwrap();
        sender.send(b"x").unwrap();
        // A port unreachable message would be this socket's error by now: loopback delivers within the call.
        assert!(sender.take_error().unwrap().is_none());
    }
}
