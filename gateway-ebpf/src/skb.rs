//! A packet as TC sees it.

use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::generated::{
    bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_pull_data,
};
use sluicegate_engine::answer;
use sluicegate_engine::checksum::fold;
use sluicegate_engine::family::V4;
use sluicegate_engine::mss::HEADER_MAX;
use sluicegate_engine::network::{self, Header};
use sluicegate_engine::packet::Packet;
use sluicegate_engine::work::Work;

use crate::frame::{NO_SUM, OFFSET_MAX, bounded, load, store, sum_of};
use crate::quotation;
use crate::stages::in_work;

/// `pkt_type` of what came to more than one host (include/uapi/linux/if_packet.h).
const PACKET_BROADCAST: u32 = 1;
const PACKET_MULTICAST: u32 = 2;
/// Length of an Ethernet header, bytes.
pub const ETHERNET: u32 = 14;

/// Headers an engine decision needs: Ethernet, IPv6, some extensions, TCP without options.
const HEADERS: u32 = 128;

/// An skb whose IP header starts `L2` bytes into its data.
pub struct Skb<const L2: u32> {
    skb: *mut __sk_buff,
}

impl<const L2: u32> Skb<L2> {
    /// Wraps the context of a TC program.
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        Self { skb }
    }

    /// Makes the headers directly readable, where the driver left them in page fragments.
    #[inline(always)]
    pub fn linearise_headers(&self) {
        self.linearise_data(HEADERS);
    }

    /// Makes the first `bytes` from the IP header on directly readable, as far as there are as many.
    #[inline(always)]
    pub fn linearise(&self, bytes: u32) {
        self.linearise_data(L2 + bytes);
    }

    #[inline(always)]
    fn linearise_data(&self, bytes: u32) {
        let (start, end, length) = self.bounds();
        let wanted = if length < bytes { length } else { bytes };
        if end - start < wanted as usize {
            // SAFETY: `wanted` is within the packet. A failure shows as a short packet, which is dropped as malformed.
            unsafe { bpf_skb_pull_data(self.skb, wanted) };
        }
    }

    /// Makes all headers of a TCP packet directly readable, options included.
    #[inline(always)]
    pub fn linearise_options(&self, transport: u32) {
        let (start, end, length) = self.bounds();
        let wanted = L2.wrapping_add(transport).wrapping_add(HEADER_MAX);
        let wanted = if length < wanted { length } else { wanted };
        if end - start < wanted as usize {
            // SAFETY: as above; options that stay out of reach stay as they are.
            unsafe { bpf_skb_pull_data(self.skb, wanted) };
        }
    }

    /// Start and end of the directly readable bytes, and the length of the whole packet. Volatile, so that the pointers
    /// are loaded where they are used: kept across calls, the compiler spills them as the 32-bit fields they come from,
    /// and the verifier refuses half a pointer.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize, u32) {
        // SAFETY: the context of a TC program; these fields may be read.
        unsafe {
            let start = core::ptr::read_volatile(&raw const (*self.skb).data) as usize;
            let end = core::ptr::read_volatile(&raw const (*self.skb).data_end) as usize;
            (start, end, (*self.skb).len)
        }
    }

    #[inline(always)]
    fn at<const N: usize>(&self, offset: u32) -> Option<usize> {
        if offset >= OFFSET_MAX {
            return None;
        }
        let (start, end, _) = self.bounds();
        let at = start + L2 as usize + bounded(offset);
        if at + N > end { None } else { Some(at) }
    }
}

impl<const L2: u32> Packet for Skb<L2> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        // SAFETY: `at` has checked that the bytes are inside the packet.
        self.at::<N>(offset).map(|at| unsafe { load::<N>(at) })
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> bool {
        let Some(at) = self.at::<N>(offset) else { return false };
        // SAFETY: as in `read`; the kernel unshares the packet before a program that writes to it runs.
        unsafe { store::<N>(at, bytes) };
        true
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.bounds().2.wrapping_sub(L2)
    }

    #[inline(always)]
    fn segment_length(&self, headers: u32) -> u32 {
        // SAFETY: the context of a TC program; `gso_size` may be read.
        let payload = unsafe { (*self.skb).gso_size };
        if payload == 0 { self.length() } else { headers.wrapping_add(payload) }
    }

    /// Room is made between the link-layer and the network header, which moves the latter, as pushing another Ethernet header
    /// would not; cutting the tail off also makes one linear packet of what segmentation offload would have cut up.
    #[inline(always)]
    fn requote(&mut self, headers: u32, quoted: u32) -> bool {
        let kept = L2.wrapping_add(quoted);
        // SAFETY: the context of a TC program, whose fields may be read, and plain helper calls; pointers into the packet are
        // taken anew after them.
        unsafe {
            if matches!((*self.skb).pkt_type, PACKET_BROADCAST | PACKET_MULTICAST) {
                return false;
            }
            // A sum that the device took over the whole packet goes when the length changes; so let it.
            if (*self.skb).len == kept && bpf_skb_change_tail(self.skb, kept.wrapping_add(4), 0) != 0 {
                return false;
            }
            bpf_skb_change_tail(self.skb, kept, 0) == 0
                && bpf_skb_adjust_room(self.skb, headers as i32, BPF_ADJ_ROOM_MAC, 0) == 0
        }
    }

    #[inline(always)]
    fn has_plain_options(&self, end: u32) -> bool {
        let plain =
            if L2 == 0 { has_plain_options_l3(self.skb, end) } else { has_plain_options_l2(self.skb, end) };
        plain == 1
    }

    #[inline(always)]
    fn sum_block(&self, at: u32, end: u32) -> Option<u64> {
        sum_of(sum_block_skb(self.skb, L2.wrapping_add(at), L2.wrapping_add(end)))
    }

    /// Where the device is to compute the checksum, the kernel's helper leaves alone what is no pseudo-header: that tells.
    #[inline(always)]
    fn is_unfinished(&mut self, scratch: u32) -> bool {
        self.write(scratch, [0, 0]);
        // SAFETY: a plain helper call; pointers into the packet are taken anew after it.
        unsafe { bpf_l4_csum_replace(self.skb, L2.wrapping_add(scratch), 0, 1, 0) };
        let untouched = self.read::<2>(scratch) == Some([0, 0]);
        self.write(scratch, [0, 0]);
        untouched
    }

    /// By the kernel's helper: in a packet whose checksum the sender left to the device, the field holds only the
    /// pseudo-header's sum, and only the kernel knows which kind this packet is.
    #[inline(always)]
    fn adjust_checksum(&mut self, offset: u32, pseudo: u32, payload: u32, zero_is_none: bool) -> bool {
        let mangled = if zero_is_none { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        // SAFETY: a plain helper call; pointers into the packet are taken anew after it.
        let replace = |difference: u32, flags: u32| unsafe {
            bpf_l4_csum_replace(
                self.skb,
                L2 + offset,
                0,
                in_kernel_order(difference),
                mangled | u64::from(flags),
            ) == 0
        };
        (pseudo == 0 || replace(pseudo, BPF_F_PSEUDO_HDR)) && (payload == 0 || replace(payload, 0))
    }

    #[inline(always)]
    fn read_quotation<F: Header>(&self, work: &mut Work<F::Address>) -> bool {
        quotation::read_skb::<F>(self.skb, L2, work)
    }
}

/// [`network::has_plain_options`], verified once, for any packet.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn has_plain_options_l3(skb: *mut __sk_buff, end: u32) -> u64 {
    in_work::<V4>(|_, work| Ok(network::has_plain_options(&Skb::<0>::new(skb), end, work.scratch())))
}

/// As above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn has_plain_options_l2(skb: *mut __sk_buff, end: u32) -> u64 {
    in_work::<V4>(|_, work| Ok(network::has_plain_options(&Skb::<ETHERNET>::new(skb), end, work.scratch())))
}

/// [`answer::sum_block`], verified once, for any packet; offsets count from the first byte of its data.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sum_block_skb(skb: *mut __sk_buff, at: u32, end: u32) -> u64 {
    answer::sum_block(&Skb::<0>::new(skb), at, end).unwrap_or(NO_SUM)
}

/// One's complement sums are the same in either byte order but for a swap; the kernel sums words as they lie in memory.
#[inline(always)]
fn in_kernel_order(difference: u32) -> u64 {
    u64::from(fold(difference).to_be())
}

/// Gives a packet from a device without link-layer header an empty Ethernet one.
#[inline(always)]
pub fn push_ethernet(skb: *mut __sk_buff) -> bool {
    // SAFETY: a plain helper call; the packet is not looked into through older pointers.
    if unsafe { bpf_skb_change_head(skb, ETHERNET, 0) } != 0 {
        return false;
    }
    let header = Skb::<0>::new(skb);
    let mut header = header;
    // SAFETY: the context of a TC program; `protocol` may be read.
    let ethertype = unsafe { (*skb).protocol } as u16;
    header.write(0, [0u8; 12]) && header.write(12, ethertype.to_ne_bytes())
}

/// Writes a neighbour's address and the device's own into a frame.
#[inline(always)]
pub fn write_macs(skb: *mut __sk_buff, neighbour: [u8; 6], own: [u8; 6]) -> bool {
    let [a, b, c, d, e, f] = neighbour;
    let [g, h, i, j, k, l] = own;
    Skb::<0>::new(skb).write(0, [a, b, c, d, e, f, g, h, i, j, k, l])
}

/// Swaps the addresses of the Ethernet header.
#[inline(always)]
pub fn turn_round(skb: *mut __sk_buff) -> bool {
    let mut frame = Skb::<0>::new(skb);
    let Some([a, b, c, d, e, f, g, h, i, j, k, l]) = frame.read::<12>(0) else { return false };
    frame.write(0, [g, h, i, j, k, l, a, b, c, d, e, f])
}

/// Whether an IPv6 packet asks for a neighbour's link-layer address or tells one (RFC 4861 4.3 and 4.4). Its hop limit says
/// that no router has forwarded it.
#[inline(always)]
pub fn is_neighbour_discovery(packet: &impl Packet) -> bool {
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;

    packet.read::<2>(6) == Some([58, 255])
        && packet.read::<2>(40).is_some_and(|[kind, _]| kind == SOLICITATION || kind == ADVERTISEMENT)
}

/// Whether an IPv6 packet tells switches which multicast groups to send this way (RFC 3810 5.2), without which they may
/// keep questions about neighbours back.
#[inline(always)]
pub fn is_listener_report(packet: &impl Packet) -> bool {
    packet.read::<2>(6) == Some([0, 1])
        && packet.read::<16>(24) == Some([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 22])
}
