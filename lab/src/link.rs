//! Cables, switches and addresses.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail};

use crate::lab::Lab;
use crate::namespace::{Namespace, ip};

impl Lab {
    /// Lays a cable between a device of one namespace and a device of another, both up.
    ///
    /// # Errors
    /// When a device of that name is there, or the kernel refuses.
    pub fn veth(&self, (a, a_device): (&Namespace, &str), (b, b_device): (&Namespace, &str)) -> Result<()> {
        // Made in place: neither end is ever in the host's namespace.
        let (a_name, b_name) = (a.full_name(), b.full_name());
        ip(&[
            "link", "add", "name", a_device, "netns", a_name, "type", "veth", "peer", "name", b_device,
            "netns", b_name,
        ])?;
        a.ip(&["link", "set", a_device, "up"])?;
        b.ip(&["link", "set", b_device, "up"])?;
        Ok(())
    }
}

impl Namespace {
    /// Makes a bridge, up.
    ///
    /// # Errors
    /// When a device of that name is there, or the kernel has no bridges.
    pub fn bridge(&self, name: &str) -> Result<()> {
        self.ip(&["link", "add", "name", name, "type", "bridge"])?;
        self.ip(&["link", "set", name, "up"])?;
        Ok(())
    }

    /// Plugs `device` into `bridge`.
    ///
    /// # Errors
    /// When either is not there.
    pub fn plug(&self, device: &str, bridge: &str) -> Result<()> {
        self.ip(&["link", "set", device, "master", bridge, "up"]).map(drop)
    }

    /// Gives `device` an address with its prefix length, such as `10.0.0.1/24`; usable at once.
    ///
    /// # Errors
    /// When the device is not there or has the address.
    pub fn address(&self, device: &str, address: &str) -> Result<()> {
        let mut args = vec!["address", "add", address, "dev", device];
        if address.contains(':') {
            args.push("nodad");
        }
        self.ip(&args).map(drop)
    }

    /// Adds the route `to` (a prefix or `default`) through the neighbour `via`.
    ///
    /// # Errors
    /// When `via` cannot be reached, or the route is there.
    pub fn route(&self, to: &str, via: &str) -> Result<()> {
        let family = if via.contains(':') { "-6" } else { "-4" };
        self.ip(&[family, "route", "add", to, "via", via]).map(drop)
    }

    /// The index of `device`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn index(&self, device: &str) -> Result<u32> {
        let name = CString::new(device)?;
        // SAFETY: a C string that lives through the call.
        let index = self.enter(|| unsafe { libc::if_nametoindex(name.as_ptr()) })?;
        if index == 0 {
            bail!("there is no {device} in namespace {}", self.name());
        }
        Ok(index)
    }

    /// The hardware address of `device`, an Ethernet.
    ///
    /// # Errors
    /// When it is not there or not an Ethernet.
    pub fn mac(&self, device: &str) -> Result<[u8; 6]> {
        let line = self.ip(&["-o", "link", "show", "dev", device])?;
        let text = line.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
        let text = text.with_context(|| format!("{device} has no hardware address: {line}"))?;
        let mut mac = [0; 6];
        for (byte, digits) in mac.iter_mut().zip(text.split(':')) {
            *byte = u8::from_str_radix(digits, 16)?;
        }
        Ok(mac)
    }

    /// Enters `addresses` as neighbours on `device` that `there`, a device of another namespace, has: nobody asks for them.
    ///
    /// # Errors
    /// When a device is not there.
    pub fn knows(&self, device: &str, addresses: &[&str], there: (&Self, &str)) -> Result<()> {
        let mac = there.0.mac(there.1)?.map(|byte| format!("{byte:02x}")).join(":");
        for address in addresses {
            let neighbour = ["neighbour", "replace", address, "lladdr", &mac, "dev", device];
            self.ip(&[&neighbour[..], &["nud", "permanent"]].concat())?;
        }
        Ok(())
    }

    /// Switches a feature of `device`, by the name `ethtool -k` calls it in full: `rx-gro`, `tx-vlan-hw-insert`.
    ///
    /// # Errors
    /// When the device is not there or has no such feature.
    pub fn feature(&self, device: &str, name: &str, on: bool) -> Result<()> {
        self.enter(|| set_feature(device, name, on))?
            .with_context(|| format!("cannot switch {name} of {device} in namespace {}", self.name()))
    }

    /// Turns off checksum and segmentation offload on `device`, so that every packet it sends looks as it would on a wire:
    /// whole checksums, no larger than the MTU. A packet between namespaces else carries neither.
    ///
    /// # Errors
    /// When the device is not there.
    pub fn offload_off(&self, device: &str) -> Result<()> {
        // linux/ethtool.h: transmit checksums, TCP segmentation, generic segmentation, generic receive
        const SWITCHES: [u32; 4] = [0x17, 0x1f, 0x24, 0x2c];
        self.enter(|| SWITCHES.iter().try_for_each(|&switch| ethtool_set(device, switch, 0)))?
            .with_context(|| format!("cannot turn off offloads of {device} in namespace {}", self.name()))
    }

    /// Has `device`, one end of a veth pair, take in packets by NAPI (it joins them, too): XDP programs can then send frames by
    /// the other end (drivers/net/veth.c, veth_xdp_xmit).
    ///
    /// # Errors
    /// When the device is not there.
    pub fn receive_by_napi(&self, device: &str) -> Result<()> {
        // linux/ethtool.h: ETHTOOL_SGRO
        self.enter(|| ethtool_set(device, 0x2c, 1))?
            .with_context(|| format!("cannot turn on GRO of {device} in namespace {}", self.name()))
    }
}

fn set_feature(device: &str, feature: &str, on: bool) -> Result<()> {
    // linux/ethtool.h: names of features, 32 bytes each, and a bit for each: which are meant, and which of those are on.
    const STRING: usize = 32;
    const MOST: usize = 256;
    let mut names = vec![0u32; 3 + MOST * STRING / 4];
    (names[0], names[1]) = (0x1b, 4);
    ethtool(device, names.as_mut_ptr().cast())?;
    let text: Vec<u8> = names[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let named = |string: &[u8]| string.split(|byte| *byte == 0).next() == Some(feature.as_bytes());
    let count = usize::try_from(names[2])?;
    let bit = text.chunks(STRING).take(count).position(named).context("no such feature")?;
    let blocks = count.div_ceil(32);
    let mut request = vec![0u32; 2 + blocks * 2];
    (request[0], request[1]) = (0x3b, u32::try_from(blocks)?);
    request[2 + bit / 32 * 2] = 1 << (bit % 32);
    request[2 + bit / 32 * 2 + 1] = u32::from(on) << (bit % 32);
    ethtool(device, request.as_mut_ptr().cast())
}

fn ethtool_set(device: &str, command: u32, value: u32) -> Result<()> {
    let mut argument = [command, value];
    ethtool(device, argument.as_mut_ptr().cast())
}

/// One request; `argument` points to what the request says it does.
fn ethtool(device: &str, argument: *mut libc::c_char) -> Result<()> {
    let name = CString::new(device)?;
    let bytes = name.as_bytes_with_nul();
    // SAFETY: ifreq is plain old data, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if bytes.len() > request.ifr_name.len() {
        bail!("{device:?} is too long for a device");
    }
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = argument;
    // SAFETY: plain system call; the descriptor is checked below.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: `fd` is open and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: `request` and the structure it points to live through the call and have the layout of linux/ethtool.h.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(())
}
