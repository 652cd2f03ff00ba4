//! The TUN device: persistent, so that the programs and addresses on it outlive the process that reads it.

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `_IOW('T', 202, int)`, include/uapi/linux/if_tun.h.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
/// `_IOW('T', 203, int)`.
const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;
const CLONE_DEVICE: &str = "/dev/net/tun";

/// A handle to a TUN device without packet information; clones share the queue. Needs a tokio runtime.
#[derive(Clone)]
pub struct Tun {
    queue: Arc<AsyncFd<OwnedFd>>,
    name: Arc<str>,
    index: u32,
}

/// Why a TUN device could not be had.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The device name is empty, too long, or holds bytes that no device name may hold.
    #[error("{0:?} is not a network device name (1 to 15 bytes, no slash, no white space)")]
    Name(String),
    /// There is no TUN driver, or it is not ours to open.
    #[error("{CLONE_DEVICE} cannot be opened: {0}; load the tun module or give this container the device")]
    Clone(io::Error),
    /// Another process reads this device.
    #[error(
        "network device {0} is in use by another process; stop the other gateway, or give this one another `--device`"
    )]
    Busy(String),
    /// A device of another type has this name.
    #[error(
        "network device {0} exists and is not a TUN device; rename it, or give the overlay another `--device`"
    )]
    Type(String),
    /// The kernel refused.
    #[error("TUN device {name} could not be set up: {cause}")]
    Kernel {
        /// Its name.
        name: String,
        /// What the kernel said.
        cause: io::Error,
    },
}

impl Tun {
    /// Creates the device, or takes over the one that an earlier process left.
    pub fn open(name: &str) -> Result<Self, TunError> {
        let fd = attach(name)?;
        set_persist(&fd, true).map_err(|cause| TunError::Kernel { name: name.into(), cause })?;
        let index = index_of(name).map_err(|cause| TunError::Kernel { name: name.into(), cause })?;
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::ERROR;
        // SAFETY: an `OwnedFd` keeps its one descriptor open and the same for as long as it lives.
        let queue = unsafe { AsyncFd::register_with_interest(fd, interest) }
            .map_err(|e| TunError::Kernel { name: name.into(), cause: e.into_parts().1 })?;
        Ok(Self { queue: Arc::new(queue), name: name.into(), index })
    }

    /// Deletes the device `name` that an earlier process left; nothing happens when there is none.
    pub fn delete(name: &str) -> Result<(), TunError> {
        if index_of(name).is_err() {
            return Ok(());
        }
        let fd = attach(name)?;
        set_persist(&fd, false).map_err(|cause| TunError::Kernel { name: name.into(), cause })
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device's index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Waits for the next packet the host sends into the device. `EBADFD` when the device was deleted.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // A deleted device reports an error and nothing to read.
        self.queue.async_io(Interest::READABLE | Interest::ERROR, |fd| read(fd, buffer)).await
    }

    /// The next packet if one is waiting, without waiting for it.
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        read(self.queue.get_ref(), buffer)
    }

    /// Gives a packet to the host. `EIO` when the device is down, `EBADFD` when it was deleted.
    pub async fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.queue.async_io(Interest::WRITABLE, |fd| write(fd, packet)).await
    }
}

/// Index of the network device `name`.
pub fn index_of(name: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: `name` is a NUL-terminated string that lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

fn attach(name: &str) -> Result<OwnedFd, TunError> {
    if name.is_empty()
        || name.len() >= libc::IFNAMSIZ
        || name.bytes().any(|b| b == b'/' || b == 0 || b.is_ascii_whitespace())
    {
        return Err(TunError::Name(name.into()));
    }
    let file = std::os::unix::fs::OpenOptionsExt::custom_flags(
        OpenOptions::new().read(true).write(true),
        libc::O_NONBLOCK | libc::O_CLOEXEC,
    )
    .open(CLONE_DEVICE)
    .map_err(TunError::Clone)?;
    let fd = OwnedFd::from(file);
    // SAFETY: `ifreq` is plain old data for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one `ifreq`, which `request` is.
    if unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETIFF as _, &mut request) } < 0 {
        let cause = io::Error::last_os_error();
        return Err(match cause.raw_os_error() {
            Some(libc::EBUSY) => TunError::Busy(name.into()),
            Some(libc::EINVAL) => TunError::Type(name.into()),
            _ => TunError::Kernel { name: name.into(), cause },
        });
    }
    // SAFETY: the kernel wrote a NUL-terminated name into `ifr_name`.
    let given = unsafe { CStr::from_ptr(request.ifr_name.as_ptr()) };
    if given.to_bytes() != name.as_bytes() {
        return Err(TunError::Name(name.into()));
    }
    Ok(fd)
}

fn set_persist(fd: &OwnedFd, on: bool) -> io::Result<()> {
    // SAFETY: the descriptor is an attached TUN queue, and TUNSETPERSIST takes an integer by value.
    match unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETPERSIST as _, libc::c_ulong::from(on)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn read(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is valid for writes of its length, and the descriptor is open.
    let n = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

fn write(fd: &OwnedFd, packet: &[u8]) -> io::Result<()> {
    // SAFETY: the packet is valid for reads of its length, and the descriptor is open.
    let n = unsafe { libc::write(fd.as_raw_fd(), packet.as_ptr().cast(), packet.len()) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_would_change_are_refused() {
        for name in ["", "a/b", "0123456789abcdef", "a b", "a\0b"] {
            assert!(matches!(attach(name), Err(TunError::Name(_))), "{name:?}");
        }
    }
}
