//! Whether XDP sees the VLAN tags of a device's frames. Many cards take them off and hand them over beside the frame, where
//! only the stack looks: to XDP such a frame is of no VLAN, and would be judged as one of the device itself.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd as _;

use socket2::{Domain, Socket, Type};

use super::netlink;

/// XDP does not see the tags of this device's frames.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} takes VLAN tags off before XDP sees the frame, which would be judged as one without; leave them in with `ethtool -K {0} \
     rxvlan off rx-vlan-stag-hw-parse off` (and, where {0} is one end of a veth pair, the same with `txvlan off \
     tx-vlan-stag-hw-insert off` at the other end), and XDP is used within a second"
)]
pub(super) struct Hidden(pub(super) String);

/// Whether XDP must not carry what arrives on `device`, which has this index. A veth device's tags are where its other end
/// puts them: in its case the offload is the operator's word, asked for only where there are VLANs to tell apart.
pub(super) fn are_hidden(device: &str, index: u32) -> bool {
    // What has no such switch has no such offload.
    if !takes_tags_off(device).unwrap_or(false) {
        return false;
    }
    let is_veth = netlink::link(index).is_ok_and(|link| link.kind.as_deref() == Some("veth"));
    !is_veth || netlink::has_vlans(index).unwrap_or(true)
}

/// include/uapi/linux/ethtool.h
const GSTRINGS: u32 = 0x1b;
const GFEATURES: u32 = 0x3a;
const SS_FEATURES: u32 = 4;
const STRING: usize = 32;
/// Features there can be; today's kernels have 64.
const FEATURES_MAX: usize = 256;
const NAMES: [&[u8]; 2] = [b"rx-vlan-hw-parse", b"rx-vlan-stag-hw-parse"];

/// Whether an offload is on that takes tags off what is received.
fn takes_tags_off(device: &str) -> io::Result<bool> {
    let mut names = vec![0u32; 3 + FEATURES_MAX * STRING / 4];
    (names[0], names[1]) = (GSTRINGS, SS_FEATURES);
    ask(device, &mut names)?;
    let count = (names[2] as usize).min(FEATURES_MAX);
    let text: Vec<u8> = names[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut features = vec![0u32; 2 + FEATURES_MAX / 32 * 4];
    (features[0], features[1]) = (GFEATURES, (FEATURES_MAX / 32) as u32);
    ask(device, &mut features)?;
    // Of each 32 features: available, requested, active, never changed.
    let is_active = |bit: usize| features[2 + bit / 32 * 4 + 2] >> (bit % 32) & 1 != 0;
    let name = |bit: usize| text[bit * STRING..][..STRING].split(|byte| *byte == 0).next();
    Ok((0..count).any(|bit| is_active(bit) && name(bit).is_some_and(|name| NAMES.contains(&name))))
}

/// One question by ioctl; the kernel answers in place.
fn ask(device: &str, question: &mut [u32]) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    let name = CString::new(device)?;
    // SAFETY: `ifreq` is plain old data for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes().iter().take(libc::IF_NAMESIZE - 1)) {
        *to = from.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_data = question.as_mut_ptr().cast();
    // SAFETY: `request` and the question live through the call; the question says, or is larger than, what the kernel writes.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_takes_no_tags_off_and_a_missing_one_is_an_error() {
        assert!(!takes_tags_off("lo").unwrap());
        assert!(takes_tags_off("no-such-device").is_err());
    }

    #[test]
    fn the_sentence_names_the_switch() {
        assert!(
            Hidden("eth2".into())
                .to_string()
                .contains("ethtool -K eth2 rxvlan off rx-vlan-stag-hw-parse off")
        );
    }
}
