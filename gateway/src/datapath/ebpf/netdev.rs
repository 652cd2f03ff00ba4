//! What a device's driver can do for XDP, by the kernel's `netdev` family of generic netlink (Linux 6.3,
//! Documentation/netlink/specs/netdev.yaml).

use std::io;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

/// Whether the device with `index` sends frames that XDP redirects to it. `Unsupported` where the kernel does not tell.
pub(super) fn sends_frames(index: u32) -> io::Result<bool> {
    const DEV_GET: u8 = 1;
    const IFINDEX: u16 = 1;
    const XDP_FEATURES: u16 = 3;
    /// NETDEV_XDP_ACT_NDO_XMIT.
    const XMIT: u64 = 1 << 2;

    let socket = Socket::new(NETLINK_GENERIC)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let family = family(&socket)?;
    let answer = ask(&socket, family, DEV_GET, IFINDEX, &index.to_ne_bytes())?;
    let features = attribute(&answer, XDP_FEATURES).and_then(|value| value.first_chunk().copied());
    let features = features.map(u64::from_ne_bytes).ok_or_else(|| malformed("no XDP features"))?;
    Ok(features & XMIT != 0)
}

/// Number of the family: generic netlink gives numbers out as families register (include/uapi/linux/genetlink.h).
fn family(socket: &Socket) -> io::Result<u16> {
    const CONTROL: u16 = 16;
    const GET_FAMILY: u8 = 3;
    const FAMILY_ID: u16 = 1;
    const FAMILY_NAME: u16 = 2;

    let answer = ask(socket, CONTROL, GET_FAMILY, FAMILY_NAME, b"netdev\0").map_err(|e| {
        if e.raw_os_error() == Some(libc::ENOENT) { io::ErrorKind::Unsupported.into() } else { e }
    })?;
    let id = attribute(&answer, FAMILY_ID).and_then(|value| value.first_chunk().copied());
    id.map(u16::from_ne_bytes).ok_or_else(|| malformed("no family"))
}

/// Sends one command with one attribute; returns the attributes of the answer.
fn ask(socket: &Socket, family: u16, command: u8, kind: u16, value: &[u8]) -> io::Result<Vec<u8>> {
    const HEADERS: usize = 16 + 4;
    const ERROR: u16 = 2;

    let length = 4 + value.len();
    let total = HEADERS + length.next_multiple_of(4);
    let mut packet = Vec::with_capacity(total);
    packet.extend((total as u32).to_ne_bytes());
    packet.extend(family.to_ne_bytes());
    packet.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // Sequence and port: the socket has one question under way at a time.
    packet.extend([0; 8]);
    packet.extend([command, 1, 0, 0]);
    packet.extend((length as u16).to_ne_bytes());
    packet.extend(kind.to_ne_bytes());
    packet.extend(value);
    packet.resize(total, 0);
    socket.send(&packet, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let field = |at: usize| answer.get(at..at + 2).and_then(|bytes| bytes.first_chunk().copied());
    if field(4).map(u16::from_ne_bytes) == Some(ERROR) {
        let code =
            answer.get(16..20).and_then(|bytes| bytes.first_chunk().copied()).map_or(0, i32::from_ne_bytes);
        return Err(io::Error::from_raw_os_error(-code));
    }
    answer.get(HEADERS..).map(<[u8]>::to_vec).ok_or_else(|| malformed("a short answer"))
}

/// The value of the first attribute of `kind`.
fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let [a, b, c, d] = *attributes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        if u16::from_ne_bytes([c, d]) & 0x3fff == kind {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.next_multiple_of(4).max(4)..)?;
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} in the kernel's answer about XDP features"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_sends_no_frames_and_a_missing_one_is_an_error() {
        let lo = crate::datapath::device::index("lo").unwrap();
        match sends_frames(lo) {
            Ok(sends) => assert!(!sends),
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::Unsupported, "{e}"),
        }
        assert!(sends_frames(i32::MAX as u32).is_err());
    }

    #[test]
    fn attributes_are_found_behind_others() {
        let bytes = [6, 0, 1, 0, 9, 9, 0, 0, 8, 0, 3, 0, 1, 2, 3, 4];
        assert_eq!(attribute(&bytes, 3), Some(&[1u8, 2, 3, 4][..]));
        assert_eq!((attribute(&bytes, 1), attribute(&bytes, 2)), (Some(&[9u8, 9][..]), None));
    }
}
