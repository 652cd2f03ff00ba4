//! Frames as they are, from a device of a namespace.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use sluicegate_lab::Namespace;

/// Sends whole frames by one device, headers and all.
pub(crate) struct Frames {
    socket: OwnedFd,
    device: i32,
}

impl Frames {
    /// By `device` of `namespace`.
    pub(crate) fn by(namespace: &Namespace, device: &str) -> Self {
        namespace.enter(|| Self::open(device)).unwrap().unwrap()
    }

    fn open(device: &str) -> io::Result<Self> {
        // SAFETY: a plain system call; the result is checked before it is owned.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let name = std::ffi::CString::new(device)?;
        // SAFETY: a C string that lives through the call.
        let device = unsafe { libc::if_nametoindex(name.as_ptr()) }.cast_signed();
        Ok(Self { socket, device })
    }

    /// Sends one.
    pub(crate) fn send(&self, frame: &[u8]) {
        // SAFETY: plain old data for which all zeros is a valid value.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = self.device;
        // SAFETY: a buffer and an address that live through the call, with their lengths.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }
}
