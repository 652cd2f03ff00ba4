//! Facts about network devices of this process's network namespace. By ioctl and not by /sys, which shows the network
//! namespace it was mounted in.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;

use socket2::{Domain, Socket, Type};

/// Index of the device called `name`; `None` when it is not there.
pub(crate) fn index(name: &str) -> Option<u32> {
    crate::tun::index_of(name).ok()
}

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

/// MTU of a device, bytes from the IP header on.
pub(crate) fn mtu(name: &str) -> io::Result<u32> {
    let request = request(name, libc::SIOCGIFMTU)?;
    // SAFETY: the call has filled in this member.
    Ok(u32::try_from(unsafe { request.ifr_ifru.ifru_mtu }).unwrap_or(0))
}

/// Whether a device's packets have an Ethernet header.
pub(crate) fn is_ethernet(name: &str) -> io::Result<bool> {
    let request = request(name, libc::SIOCGIFHWADDR)?;
    // SAFETY: the call has filled in this member.
    Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family } == libc::ARPHRD_ETHER)
}

/// Names of all devices.
pub(crate) fn names() -> Vec<String> {
    // SAFETY: the call returns an array that ends with a zero index, freed once below.
    unsafe {
        let list = libc::if_nameindex();
        let mut names = Vec::new();
        let mut entry = list;
        while !entry.is_null() && (*entry).if_index != 0 {
            names.push(CStr::from_ptr((*entry).if_name).to_string_lossy().into_owned());
            entry = entry.add(1);
        }
        if !list.is_null() {
            libc::if_freenameindex(list);
        }
        names
    }
}

/// Every address at which this host hears what is sent: those of every device, and the broadcast addresses of their IPv4
/// networks. IPv4 in its mapped form.
pub(crate) fn addresses() -> io::Result<BTreeSet<[u8; 16]>> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the call allocates a list and stores its start, which is freed once below.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = BTreeSet::new();
    let mut entry = first;
    while !entry.is_null() {
        // SAFETY: an entry of the list. A device without an address has none; one with an address of a family has the
        // structure of that family.
        unsafe {
            let address = (*entry).ifa_addr;
            match (!address.is_null()).then(|| i32::from((*address).sa_family)) {
                Some(libc::AF_INET) => {
                    let v4 = (*address.cast::<libc::sockaddr_in>()).sin_addr.s_addr;
                    addresses.insert(Ipv4Addr::from(v4.to_ne_bytes()).to_ipv6_mapped().octets());
                    // The member is the peer's address on a device without broadcasts.
                    let broadcast = (*entry).ifa_ifu;
                    if (*entry).ifa_flags & libc::IFF_BROADCAST as u32 != 0 && !broadcast.is_null() {
                        let v4 = (*broadcast.cast::<libc::sockaddr_in>()).sin_addr.s_addr;
                        addresses.insert(Ipv4Addr::from(v4.to_ne_bytes()).to_ipv6_mapped().octets());
                    }
                }
                Some(libc::AF_INET6) => {
                    let v6 = (*address.cast::<libc::sockaddr_in6>()).sin6_addr.s6_addr;
                    addresses.insert(Ipv6Addr::from(v6).octets());
                }
                _ => {}
            }
            entry = (*entry).ifa_next;
        }
    }
    // SAFETY: the list from above, not used afterwards.
    unsafe { libc::freeifaddrs(first) };
    Ok(addresses)
}

fn request(name: &str, what: libc::Ioctl) -> io::Result<libc::ifreq> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    // SAFETY: `ifreq` is plain old data for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IF_NAMESIZE - 1)) {
        *to = from as libc::c_char;
    }
    // SAFETY: a question about a device reads the terminated name and writes one `ifreq`, which `request` is.
    match unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut request) } {
        0.. => Ok(request),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_known_by_name_and_index() {
        let index = index("lo").unwrap();
        assert_eq!(name(index).unwrap(), "lo");
        assert!(names().contains(&"lo".to_owned()) && !is_ethernet("lo").unwrap());
        assert!(mtu("lo").unwrap() >= 1280);
        assert!(addresses().unwrap().contains(&Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets()));
        assert!(mtu("no-such-device").is_err() && super::index("no-such-device").is_none());
    }
}
