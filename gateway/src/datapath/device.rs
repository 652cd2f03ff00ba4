//! Facts about network devices of this process's network namespace. By ioctl and not by /sys, which shows the network
//! namespace it was mounted in.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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

/// An address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Assigned {
    /// It.
    pub(crate) address: IpAddr,
    /// Bits of its network's prefix.
    pub(crate) length: u8,
    /// The broadcast address that was set with it.
    pub(crate) broadcast: Option<Ipv4Addr>,
}

/// The addresses of every device.
pub(crate) fn addresses() -> io::Result<Vec<Assigned>> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the call allocates a list and stores its start, which is freed once below.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = Vec::new();
    let mut entry = first;
    while !entry.is_null() {
        // SAFETY: an entry of the list, whose pointers are null or to addresses.
        unsafe {
            if let Some(address) = address((*entry).ifa_addr) {
                let length = match (self::address((*entry).ifa_netmask), address) {
                    (Some(IpAddr::V4(mask)), _) => mask.to_bits().leading_ones(),
                    (Some(IpAddr::V6(mask)), _) => mask.to_bits().leading_ones(),
                    (None, IpAddr::V4(_)) => Ipv4Addr::BITS,
                    (None, IpAddr::V6(_)) => Ipv6Addr::BITS,
                };
                // The member is the broadcast address or else that of the far end, and does not say which.
                let broadcast = match (address, (*entry).ifa_ifu.is_null()) {
                    (IpAddr::V4(own), false) => broadcast_of(CStr::from_ptr((*entry).ifa_name), own),
                    _ => None,
                };
                addresses.push(Assigned { address, length: length as u8, broadcast });
            }
            entry = (*entry).ifa_next;
        }
    }
    // SAFETY: the list from above, not used afterwards.
    unsafe { libc::freeifaddrs(first) };
    Ok(addresses)
}

/// What `at` points to, where that is an address.
///
/// # Safety
///
/// `at` is null or points to an address with the structure of its family.
unsafe fn address(at: *const libc::sockaddr) -> Option<IpAddr> {
    if at.is_null() {
        return None;
    }
    // SAFETY: as the caller says.
    unsafe {
        match i32::from((*at).sa_family) {
            libc::AF_INET => {
                let v4 = (*at.cast::<libc::sockaddr_in>()).sin_addr.s_addr;
                Some(Ipv4Addr::from(v4.to_ne_bytes()).into())
            }
            libc::AF_INET6 => {
                Some(Ipv6Addr::from((*at.cast::<libc::sockaddr_in6>()).sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

/// The broadcast address that was set with `own` on a device; `label` is the device's name or an alias of it, as the address has it.
fn broadcast_of(label: &CStr, own: Ipv4Addr) -> Option<Ipv4Addr> {
    // SAFETY: plain old data for which all zeros is a valid value.
    let mut about: libc::ifreq = unsafe { std::mem::zeroed() };
    let asked = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: own.to_bits().to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: the union is larger than this structure of an address, and aligned for pointers.
    unsafe { (&raw mut about.ifr_ifru).cast::<libc::sockaddr_in>().write(asked) };
    let answer = ask(Domain::IPV4, about, &label.to_string_lossy(), libc::SIOCGIFBRDADDR).ok()?;
    // SAFETY: the call has filled in this member.
    match unsafe { address(&raw const answer.ifr_ifru.ifru_broadaddr) } {
        Some(IpAddr::V4(v4)) if !v4.is_unspecified() => Some(v4),
        _ => None,
    }
}

fn request(name: &str, what: libc::Ioctl) -> io::Result<libc::ifreq> {
    // SAFETY: plain old data for which all zeros is a valid value.
    ask(Domain::UNIX, unsafe { std::mem::zeroed() }, name, what)
}

/// Asks a socket of `domain` about the device called `name`; the question's other members are those of `request`.
fn ask(domain: Domain, mut request: libc::ifreq, name: &str, what: libc::Ioctl) -> io::Result<libc::ifreq> {
    let socket = Socket::new(domain, Type::DGRAM, None)?;
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
        let lo = addresses().unwrap().into_iter().find(|a| a.address == Ipv4Addr::LOCALHOST).unwrap();
        assert_eq!((lo.length, lo.broadcast), (8, None));
        assert!(mtu("no-such-device").is_err() && super::index("no-such-device").is_none());
    }
}
