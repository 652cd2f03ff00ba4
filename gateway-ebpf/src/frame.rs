//! A packet as XDP sees it, and access to packet memory.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use sluicegate_engine::answer;
use sluicegate_engine::family::V4;
use sluicegate_engine::hop::SERVICE;
use sluicegate_engine::network;
use sluicegate_engine::packet::Packet;

use crate::skb::ETHERNET;
use crate::stages::in_work;

/// Offsets are below this: keeps packet pointers bounded for the verifier. A power of two.
pub const OFFSET_MAX: u32 = 2048;

/// A frame whose IP header starts `l2` bytes into it: behind an Ethernet header and up to two VLAN tags.
pub struct Frame {
    ctx: *mut xdp_md,
    l2: u32,
}

/// What lies in front of the IP header.
pub struct LinkLayer {
    /// EtherType behind all tags, as it lies in memory.
    pub ethertype: u32,
    /// Bytes up to the IP header: 14, 18 or 22.
    pub length: u32,
    /// VLAN ids, host order: the outer one in the upper half when there are two, else in the lower; 0 without tags. With
    /// [`SERVICE`] where the tag is a service tag.
    pub vlans: u32,
    /// The address the frame is for.
    pub destination: [u8; 6],
}

/// Bits of a tag that are the VLAN id (IEEE 802.1Q 9.6).
const VLAN_ID: u32 = 0x0fff;
const TAG: u16 = 0x8100u16.to_be();
const SERVICE_TAG: u16 = 0x88a8u16.to_be();

impl Frame {
    /// A frame with `l2` bytes in front of its IP header, 14 to 22.
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md, l2: u32) -> Self {
        Self { ctx, l2: l2 & 31 }
    }

    /// Reads what lies in front of the IP header; `None` in a runt.
    #[inline(always)]
    pub fn link_layer(ctx: *mut xdp_md) -> Option<LinkLayer> {
        let (start, end) = bounds(ctx);
        if start + ETHERNET as usize > end {
            return None;
        }
        // SAFETY: inside the frame, as just checked.
        let (destination, first) = unsafe { (load::<6>(start), load::<2>(start + 12)) };
        let mut ethertype = u16::from_ne_bytes(first);
        let (mut length, mut vlans) = (ETHERNET, 0);
        for at in [14, 18] {
            if ethertype != TAG && ethertype != SERVICE_TAG {
                break;
            }
            if start + at + 4 > end {
                return None;
            }
            // SAFETY: inside the frame, as just checked.
            let [tag, next] = unsafe { [load::<2>(start + at), load::<2>(start + at + 2)] };
            let service = if ethertype == SERVICE_TAG { SERVICE } else { 0 };
            vlans = vlans << 16 | u32::from(u16::from_be_bytes(tag)) & VLAN_ID | service;
            ethertype = u16::from_ne_bytes(next);
            length += 4;
        }
        Some(LinkLayer { ethertype: ethertype.into(), length, vlans, destination })
    }

    #[inline(always)]
    fn at<const N: usize>(&self, offset: u32) -> Option<usize> {
        // A link-layer header more stays below the mask.
        if offset >= OFFSET_MAX - 32 {
            return None;
        }
        let (start, end) = bounds(self.ctx);
        let at = start + bounded(self.l2 + offset);
        if at + N > end { None } else { Some(at) }
    }
}

/// What [`sum_block_x`] and its twin return where a packet ends too early: no sum of a block.
pub const NO_SUM: u64 = u64::MAX;

/// What such a function returned.
#[inline(always)]
pub fn sum_of(returned: u64) -> Option<u64> {
    if returned == NO_SUM { None } else { Some(returned) }
}

/// [`answer::sum_block`], verified once, for any frame; offsets count from the frame's first byte.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sum_block_x(ctx: *mut xdp_md, at: u32, end: u32) -> u64 {
    answer::sum_block(&Frame::new(ctx, 0), at, end).unwrap_or(NO_SUM)
}

/// [`network::has_plain_options`], verified once, for any frame.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn has_plain_options_x(ctx: *mut xdp_md, l2: u32, end: u32) -> u64 {
    in_work::<V4>(|_, work| Ok(network::has_plain_options(&Frame::new(ctx, l2), end, work.scratch())))
}

/// Start and end of the frame; volatile for the reason given at `Skb::bounds`.
#[inline(always)]
pub fn bounds(ctx: *mut xdp_md) -> (usize, usize) {
    // SAFETY: the context of an XDP program; these fields may be read.
    unsafe {
        let start = core::ptr::read_volatile(&raw const (*ctx).data) as usize;
        let end = core::ptr::read_volatile(&raw const (*ctx).data_end) as usize;
        (start, end)
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        // SAFETY: `at` has checked that the bytes are inside the frame.
        self.at::<N>(offset).map(|at| unsafe { load::<N>(at) })
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> bool {
        let Some(at) = self.at::<N>(offset) else { return false };
        // SAFETY: as in `read`; XDP frames are writable.
        unsafe { store::<N>(at, bytes) };
        true
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        let (start, end) = bounds(self.ctx);
        let mut length = end as u64;
        // The compiler would otherwise fold `l2` into a 32-bit difference of pointers, which the verifier refuses.
        // SAFETY: one instruction on two registers.
        unsafe {
            core::arch::asm!("{0} -= {1}", inout(reg) length, in(reg) start as u64, options(pure, nomem, nostack));
        }
        (length as u32).wrapping_sub(self.l2)
    }

    #[inline(always)]
    fn has_plain_options(&self, end: u32) -> bool {
        has_plain_options_x(self.ctx, self.l2, end) == 1
    }

    #[inline(always)]
    fn sum_block(&self, at: u32, end: u32) -> Option<u64> {
        sum_of(sum_block_x(self.ctx, self.l2 + at, self.l2 + end))
    }

    /// The link-layer header moves to the front, with its addresses swapped.
    #[inline(always)]
    fn requote(&mut self, headers: u32, quoted: u32) -> bool {
        let beyond = self.length().wrapping_sub(quoted);
        // SAFETY: plain helper calls; pointers into the frame are taken anew after them.
        let moved = unsafe {
            bpf_xdp_adjust_tail(self.ctx, 0i32.wrapping_sub(beyond as i32)) == 0
                && bpf_xdp_adjust_head(self.ctx, 0i32.wrapping_sub(headers as i32)) == 0
        };
        let (start, end) = bounds(self.ctx);
        let old = start + bounded(headers);
        if !moved || old + ETHERNET as usize + 8 > end || start + ETHERNET as usize + 8 > end {
            return false;
        }
        // SAFETY: inside the frame, as just checked: the longest link-layer header takes eight bytes more than an Ethernet one.
        unsafe {
            let [a, b, c, d, e, f, g, h, i, j, k, l] = load::<12>(old);
            // What came to more than one host is answered by nobody.
            if a & 1 != 0 {
                return false;
            }
            let rest = load::<10>(old + 12);
            store::<12>(start, [g, h, i, j, k, l, a, b, c, d, e, f]);
            store::<10>(start + 12, rest);
        }
        true
    }
}

/// An offset known to be below [`OFFSET_MAX`], in a form that every verifier knows to be. The compiler keeps offsets on the
/// stack and checks one copy, then adds another; the verifiers of 6.1 and 6.12 do not see that both are the same. It cannot see
/// through this instruction, so the register that is added is the one that is bounded.
#[inline(always)]
pub fn bounded(offset: u32) -> usize {
    let mut bounded = u64::from(offset);
    // SAFETY: one instruction on one register.
    unsafe {
        core::arch::asm!("{0} &= {1}", inout(reg) bounded, const OFFSET_MAX - 1, options(pure, nomem, nostack));
    }
    bounded as usize
}

/// Loads `N` bytes in words as wide as they come. The compiler would load bytes one by one, since it must assume that
/// `at` is not aligned; the BPF machine on the architectures built for does not mind.
///
/// # Safety
/// `at..at + N` is packet memory whose bounds were checked.
#[inline(always)]
pub unsafe fn load<const N: usize>(at: usize) -> [u8; N] {
    let mut bytes = [0u8; N];
    let mut i = 0;
    while i + 4 <= N {
        // SAFETY: inside the checked range; alignment as above.
        let word = unsafe { core::ptr::read_volatile((at + i) as *const u32) }.to_ne_bytes();
        bytes[i] = word[0];
        bytes[i + 1] = word[1];
        bytes[i + 2] = word[2];
        bytes[i + 3] = word[3];
        i += 4;
    }
    if i + 2 <= N {
        // SAFETY: as above.
        let half = unsafe { core::ptr::read_volatile((at + i) as *const u16) }.to_ne_bytes();
        bytes[i] = half[0];
        bytes[i + 1] = half[1];
        i += 2;
    }
    if i < N {
        // SAFETY: as above.
        bytes[i] = unsafe { core::ptr::read_volatile((at + i) as *const u8) };
    }
    bytes
}

/// Stores `N` bytes; the twin of [`load`].
///
/// # Safety
/// As for [`load`].
#[inline(always)]
pub unsafe fn store<const N: usize>(at: usize, bytes: [u8; N]) {
    let mut i = 0;
    while i + 4 <= N {
        let word = u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        // SAFETY: inside the checked range; alignment as in `load`.
        unsafe { core::ptr::write_volatile((at + i) as *mut u32, word) };
        i += 4;
    }
    if i + 2 <= N {
        // SAFETY: as above.
        unsafe {
            core::ptr::write_volatile((at + i) as *mut u16, u16::from_ne_bytes([bytes[i], bytes[i + 1]]))
        };
        i += 2;
    }
    if i < N {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile((at + i) as *mut u8, bytes[i]) };
    }
}
