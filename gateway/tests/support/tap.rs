//! What the gateway makes skbs of: a packet that XDP sends or drops is never seen here.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use sluicegate_lab::Namespace;

/// Sees every packet that arrives on some devices, once XDP has let it pass.
pub(crate) struct Tap(Vec<OwnedFd>);

impl Tap {
    pub(crate) fn on(namespace: &Namespace, devices: &[&str]) -> Self {
        namespace.enter(|| Self(devices.iter().map(|device| open(device).unwrap()).collect())).unwrap()
    }

    /// Packets that arrived since the last call and hold `text`.
    pub(crate) fn seen(&self, text: &str) -> usize {
        self.frames().iter().filter(|frame| frame.windows(text.len()).any(|at| at == text.as_bytes())).count()
    }

    /// Frames that arrived since the last call.
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for socket in &self.0 {
            let mut buffer = vec![0u8; 70_000];
            loop {
                // SAFETY: zeros are valid for this plain structure, which the call fills.
                let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
                let mut length = size_of::<libc::sockaddr_ll>() as u32;
                // SAFETY: buffer and address live through the call, with their lengths.
                let got = unsafe {
                    libc::recvfrom(
                        socket.as_raw_fd(),
                        buffer.as_mut_ptr().cast(),
                        buffer.len(),
                        libc::MSG_DONTWAIT,
                        (&raw mut from).cast(),
                        &raw mut length,
                    )
                };
                if got < 0 {
                    break;
                }
                if from.sll_pkttype != libc::PACKET_OUTGOING {
                    frames.push(buffer[..got as usize].to_vec());
                }
            }
        }
        frames
    }
}

fn open(device: &str) -> io::Result<OwnedFd> {
    const ALL: u16 = 3;
    // SAFETY: a plain system call; the result is checked before it is owned.
    let fd =
        unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, ALL.to_be().into()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let name = std::ffi::CString::new(device)?;
    // SAFETY: plain old data for which all zeros is a valid value.
    let mut at: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    at.sll_family = libc::AF_PACKET as u16;
    at.sll_protocol = ALL.to_be();
    // SAFETY: a C string that lives through the call.
    at.sll_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) }.cast_signed();
    // SAFETY: an address that lives through the call, with its length.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const at).cast(), size_of::<libc::sockaddr_ll>() as u32)
    };
    if bound != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}
