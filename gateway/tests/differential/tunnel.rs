//! The programs of an overlay without link layer, on devices: a test run of a program brings an Ethernet header along, whatever
//! the program is for.
//!
//! In a network namespace of its own there are a TUN device, which is the overlay, and two TAP devices, which are sites. What is
//! written to one has gone its whole way when the call returns, so that what comes out of the others can be read at once.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use aya::Ebpf;
use aya::programs::{SchedClassifier, TcAttachType, tc};
use sluicegate_engine::flow::Side;

use crate::case::{Arrival, OVERLAY_DEVICE};
use crate::kernel::{HOP, Said};

/// Requests of include/uapi/linux/if_tun.h.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETIFINDEX: libc::c_ulong = 0x4004_54da;
/// What a TUN device has in front of a packet: flags and the EtherType.
const INFORMATION: usize = 4;
const ETHERNET: usize = 14;
/// The sites' devices in cases.
const SITES: [(&str, u32); 2] = [("site11", 11), ("site12", 12)];
const OVERLAY: &str = "overlay";

/// The devices.
pub(crate) struct Tunnel {
    overlay: File,
    sites: [File; 2],
    /// Sends what the host sends into the overlay.
    host: OwnedFd,
    /// Get what reaches the host's stack, of either family.
    stack: [OwnedFd; 2],
}

impl Tunnel {
    /// Makes the devices and attaches the programs to them.
    pub(crate) fn new(ebpf: &mut Ebpf) -> Result<Self> {
        std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                // SAFETY: a plain system call; it concerns this thread alone, which ends here.
                let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) };
                ensure!(unshared == 0, "no network namespace: {}", last());
                Self::make(ebpf)
            });
            made.join().unwrap_or_else(|_| bail!("the thread that makes the devices panicked"))
        })
    }

    fn make(ebpf: &mut Ebpf) -> Result<Self> {
        let overlay = device(OVERLAY, OVERLAY_DEVICE, libc::IFF_TUN)?;
        let sites = [
            device(SITES[0].0, SITES[0].1, libc::IFF_TAP | libc::IFF_NO_PI)?,
            device(SITES[1].0, SITES[1].1, libc::IFF_TAP | libc::IFF_NO_PI)?,
        ];
        let mac = HOP.map(|byte| format!("{byte:02x}")).join(":");
        // With it come the tables that say what an address is.
        ip(&["link", "set", "lo", "up"])?;
        for (name, metric) in [(OVERLAY, 0), (SITES[0].0, 11), (SITES[1].0, 12)] {
            // Nothing but what the test sends: without an address of its own the stack has nothing to say.
            ip(&["link", "set", name, "mtu", "9216", "addrgenmode", "none"])?;
            ip(&["link", "set", name, "up"])?;
            if metric == 0 {
                continue;
            }
            let metric = metric.to_string();
            for (family, router) in [("-4", "192.0.2.1"), ("-6", "2001:db8::1")] {
                ip(&[
                    family, "route", "add", "default", "via", router, "dev", name, "onlink", "metric",
                    &metric,
                ])?;
                ip(&[
                    family,
                    "neighbour",
                    "replace",
                    router,
                    "lladdr",
                    &mac,
                    "dev",
                    name,
                    "nud",
                    "permanent",
                ])?;
            }
            for setting in
                ["ipv6/conf/*/accept_ra", "ipv6/conf/*/accept_redirects", "ipv4/conf/*/accept_redirects"]
            {
                fs::write(format!("/proc/sys/net/{}", setting.replace('*', name)), "0")?;
            }
        }
        // The programs name the device they send by; what the host itself would answer names none, and has no way.
        for family in ["-4", "-6"] {
            for (name, _) in SITES {
                ip(&[family, "rule", "add", "oif", name, "lookup", "main"])?;
            }
            ip(&[family, "rule", "del", "preference", "32766"])?;
        }
        for (program, on, way) in [
            ("overlay_in_l3", OVERLAY, TcAttachType::Ingress),
            ("overlay_out_l3", OVERLAY, TcAttachType::Egress),
            ("site_out", SITES[0].0, TcAttachType::Egress),
            ("site_out", SITES[1].0, TcAttachType::Egress),
        ] {
            // Needed before Linux 6.6; there it may be there already.
            let _ = tc::qdisc_add_clsact(on);
            let attached: &mut SchedClassifier =
                ebpf.program_mut(program).context("the object lacks a program")?.try_into()?;
            attached.attach(on, way).with_context(|| format!("{program} could not be attached to {on}"))?;
        }
        let ethertypes = [libc::ETH_P_IP, libc::ETH_P_IPV6];
        let stack = [packets(ethertypes[0])?, packets(ethertypes[1])?];
        Ok(Self { overlay, sites, host: packets(0)?, stack })
    }

    /// Sends a packet of the overlay or of the host, and reads what comes out.
    pub(crate) fn packet(&mut self, arrival: &Arrival) -> Result<Said> {
        let ethertype = if arrival.six { libc::ETH_P_IPV6 } else { libc::ETH_P_IP } as u16;
        if arrival.side == Side::Local {
            self.send(ethertype, &arrival.bytes)?;
            let out = read(&mut self.overlay)?;
            self.nothing_more("from the host")?;
            return Ok(out.map_or(Said::Shot, |out| Said::Next(out[INFORMATION..].to_vec())));
        }
        let information = [[0, 0], ethertype.to_be_bytes()].concat();
        self.overlay.write_all(&[&information, &arrival.bytes[..]].concat()).context("into the overlay")?;
        let mut said = Vec::new();
        for site in &mut self.sites {
            said.extend(read(site)?.map(|frame| Said::Redirect(frame[ETHERNET..].to_vec())));
        }
        said.extend(read(&mut self.overlay)?.map(|answer| Said::Back(answer[INFORMATION..].to_vec())));
        for stack in &self.stack {
            said.extend(receive(stack).map(Said::Next));
        }
        self.nothing_more("from the overlay")?;
        ensure!(said.len() <= 1, "one packet became {said:?}");
        Ok(said.pop().unwrap_or(Said::Shot))
    }

    fn nothing_more(&mut self, whence: &str) -> Result<()> {
        for file in self.sites.iter_mut().chain([&mut self.overlay]) {
            if let Some(more) = read(file)? {
                bail!("a packet {whence} became more than one; also {more:02x?}");
            }
        }
        Ok(())
    }

    fn send(&self, ethertype: u16, packet: &[u8]) -> Result<()> {
        // SAFETY: plain data, for which zeros are a value.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_protocol = ethertype.to_be();
        to.sll_ifindex = OVERLAY_DEVICE as i32;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: packet and address live through the call, with their lengths.
        let sent = unsafe {
            let to = (&raw const to).cast();
            libc::sendto(self.host.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0, to, length)
        };
        // What the program drops is told as a lack of buffers.
        let dropped = sent < 0 && last().raw_os_error() == Some(libc::ENOBUFS);
        ensure!(sent >= 0 || dropped, "the host could not send: {}", last());
        Ok(())
    }
}

fn last() -> std::io::Error {
    std::io::Error::last_os_error()
}

/// A new TUN or TAP device with this name and index, in the namespace of the calling thread.
fn device(name: &str, index: u32, flags: libc::c_int) -> Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: plain data, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the requests read an integer and an `ifreq`, which live through the calls.
    let made = unsafe {
        libc::ioctl(file.as_raw_fd(), TUNSETIFINDEX as _, &raw const index) == 0
            && libc::ioctl(file.as_raw_fd(), TUNSETIFF as _, &raw mut request) == 0
    };
    ensure!(made, "device {name} could not be made: {}", last());
    Ok(file)
}

fn ip(arguments: &[&str]) -> Result<()> {
    let done = Command::new("ip").args(arguments).output().context("ip could not be run")?;
    ensure!(done.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// A socket for packets of this EtherType without their link-layer headers; for none, it only sends.
fn packets(ethertype: libc::c_int) -> Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let protocol = i32::from((ethertype as u16).to_be());
    // SAFETY: a plain system call.
    let socket = unsafe { libc::socket(libc::AF_PACKET, kind, protocol) };
    ensure!(socket >= 0, "no packet socket: {}", last());
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// What waits there, if anything.
fn read(file: &mut File) -> Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 16_384];
    match file.read(&mut buffer) {
        Ok(length) => {
            buffer.truncate(length);
            Ok(Some(buffer))
        }
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn receive(socket: &OwnedFd) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 16_384];
    // SAFETY: the buffer lives through the call, with its length.
    let length = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    buffer.truncate(usize::try_from(length).ok()?);
    Some(buffer)
}
