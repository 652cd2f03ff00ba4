//! Facts about network devices of this process's network namespace.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd as _;

use socket2::{Domain, Socket, Type};

/// Name of the device with this index.
pub(crate) fn name(index: u32) -> io::Result<String> {
    let mut buffer = [0 as libc::c_char; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size the call asks for, and holds a C string when the call succeeds.
    unsafe {
        if libc::if_indextoname(index, buffer.as_mut_ptr()).is_null() {
            return Err(io::Error::last_os_error());
        }
        Ok(CStr::from_ptr(buffer.as_ptr()).to_string_lossy().into_owned())
    }
}

/// MTU of a device, bytes from the IP header on. By ioctl and not by /sys, which shows the network namespace it was
/// mounted in.
pub(crate) fn mtu(name: &str) -> io::Result<u32> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    // SAFETY: `ifreq` is plain old data for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IF_NAMESIZE - 1)) {
        *to = from as libc::c_char;
    }
    // SAFETY: SIOCGIFMTU reads the terminated name and writes the MTU of one `ifreq`, which `request` is.
    unsafe {
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(u32::try_from(request.ifr_ifru.ifru_mtu).unwrap_or(0))
    }
}
