//! The kernel half of a gateway: thin programs around the packet engine.
//!
//! | program | hook | judges |
//! |---|---|---|
//! | `overlay_in_l3`, `overlay_in_l2` | TC ingress of the overlay device (without, with an Ethernet header) | what the overlay sends |
//! | `overlay_out_l3`, `overlay_out_l2` | TC egress of the overlay device | what this host sends into the overlay |
//! | `site_in` | TC ingress of a site device | what answers flows |
//! | `site_out` | TC egress of a site device | nothing: it learns neighbours |
//! | `overlay_xdp`, `site_xdp`, `trunk_xdp` | XDP of an Ethernet overlay, a site device, a device with VLANs | the whole path, or the drop stage in front of TC |
//! | `underlay_guard` | XDP of an underlay device | drops what is no WireGuard message, and handshakes beyond the rate |
//! | `clock` | none: run once by the agent | tells the tick rate |
//!
//! Every program fails closed: whatever it cannot do is a drop, counted by reason.
#![no_std]
#![no_main]
// Inline assembly for this target.
#![feature(asm_experimental_arch)]

mod capture;
mod clock;
mod events;
mod frame;
mod guard;
mod judged;
mod lines;
mod maps;
mod memory;
mod quotation;
mod skb;
mod sources;
mod stages;
mod tables;
mod tc;
mod xdp;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_neigh, bpf_skb_vlan_pop};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use sluicegate_engine::family::{V4, V6};
use sluicegate_engine::flow::Side;
use sluicegate_engine::pipeline::{self, Verdict};
use sluicegate_engine::reason::DropReason;
use sluicegate_engine::tables::Tables;

use crate::skb::{ETHERNET, Skb, is_neighbour_discovery};
use crate::stages::PerFamily;
use crate::tables::Maps;
use crate::tc::Tc;

/// In `tc_index` of a packet that a program here sends into the overlay, so that the egress program lets it by. The field
/// is the host's own scratch space: no packet brings a value along, and nothing but TC programs sets it.
const JUDGED: u32 = 0x5c47;
/// The same, of a packet whose neighbour the kernel resolves and the egress program learns.
const LEARN: u32 = 0x5c48;

/// Goes on to the next program, or to the stack.
const NEXT: i32 = TC_ACT_UNSPEC;
const SHOT: i32 = TC_ACT_SHOT;

const IPV4: u32 = 0x0800u16.to_be() as u32;
const IPV6: u32 = 0x86ddu16.to_be() as u32;

#[classifier]
pub fn overlay_in_l3(ctx: TcContext) -> i32 {
    tc::<0, OVERLAY>(&ctx)
}

#[classifier]
pub fn overlay_in_l2(ctx: TcContext) -> i32 {
    tc::<ETHERNET, OVERLAY>(&ctx)
}

#[classifier]
pub fn overlay_out_l3(ctx: TcContext) -> i32 {
    overlay_out::<0>(&ctx)
}

#[classifier]
pub fn overlay_out_l2(ctx: TcContext) -> i32 {
    overlay_out::<ETHERNET>(&ctx)
}

#[classifier]
pub fn site_in(ctx: TcContext) -> i32 {
    tc::<ETHERNET, SITE>(&ctx)
}

/// On the way out of a site device: learns the neighbours that the kernel has resolved.
#[classifier]
pub fn site_out(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    if mark(skb) == LEARN {
        set_mark(skb, 0);
        learn(skb, SITE);
    }
    NEXT
}

/// Writes the tick counter to a map: two runs a known time apart give the tick rate.
#[classifier]
pub fn clock(_ctx: TcContext) -> i32 {
    maps::tell_ticks(clock::ticks())
}

const OVERLAY: u8 = Side::Overlay as u8;
const SITE: u8 = Side::Site as u8;
const LOCAL: u8 = Side::Local as u8;

#[inline(always)]
fn overlay_out<const L2: u32>(ctx: &TcContext) -> i32 {
    let skb = ctx.skb.skb;
    if L2 != 0 && is_tagged(skb) {
        return NEXT;
    }
    let mark = mark(skb);
    if mark == JUDGED || mark == LEARN {
        set_mark(skb, 0);
        if L2 != 0 && mark == LEARN {
            learn(skb, OVERLAY);
        }
        return NEXT;
    }
    tc::<L2, LOCAL>(ctx)
}

#[inline(always)]
fn mark(skb: *mut __sk_buff) -> u32 {
    // SAFETY: the context of a TC program; `tc_index` may be read (net/core/filter.c, tc_cls_act_is_valid_access).
    unsafe { (*skb).tc_index }
}

#[inline(always)]
fn set_mark(skb: *mut __sk_buff, mark: u32) {
    // SAFETY: the context of a TC program; `tc_index` may be written.
    unsafe { (*skb).tc_index = mark };
}

#[inline(always)]
fn tc<const L2: u32, const SIDE: u8>(ctx: &TcContext) -> i32 {
    let skb = ctx.skb.skb;
    if L2 != 0 && SIDE != LOCAL && is_anothers(skb) {
        return NEXT;
    }
    // SAFETY: the context of a TC program; `protocol` may be read.
    match unsafe { (*skb).protocol } {
        IPV6 if L2 != 0 && SIDE != SITE && may_discover(skb, SIDE == LOCAL) => NEXT,
        IPV4 => tc4::<L2, SIDE>(skb),
        IPV6 => tc6::<L2, SIDE>(skb),
        // ARP and whatever else an Ethernet needs; a device without Ethernet carries IP or nothing.
        _ if L2 != 0 => NEXT,
        _ => {
            maps::drop_uncounted_family(DropReason::BadVersion);
            SHOT
        }
    }
}

/// Whether a frame that arrives is another's: of a VLAN, or for another host.
#[inline(always)]
fn is_anothers(skb: *mut __sk_buff) -> bool {
    /// `pkt_type` of what is for another host (include/uapi/linux/if_packet.h).
    const PACKET_OTHERHOST: u32 = 3;

    if is_tagged(skb) {
        return true;
    }
    // SAFETY: the context of a TC program, whose fields may be read, and a plain helper call: pointers into the packet are
    // taken after it.
    unsafe {
        if (*skb).vlan_present != 0 {
            // A tag with a priority alone stays behind; one behind it comes to light, and may be of a VLAN.
            bpf_skb_vlan_pop(skb);
        }
        (*skb).pkt_type == PACKET_OTHERHOST || is_tagged(skb)
    }
}

/// Whether a frame is of a VLAN, whose own device has programs if it is ours.
#[inline(always)]
fn is_tagged(skb: *mut __sk_buff) -> bool {
    const VLAN_ID: u32 = 0x0fff;

    // SAFETY: the context of a TC program, whose fields may be read.
    unsafe { (*skb).vlan_present != 0 && (*skb).vlan_tci & VLAN_ID != 0 }
}

/// Whether an IPv6 packet is what an Ethernet needs to resolve neighbours.
#[inline(always)]
fn may_discover(skb: *mut __sk_buff, own: bool) -> bool {
    let packet = Skb::<ETHERNET>::new(skb);
    is_neighbour_discovery(&packet) || own && skb::is_listener_report(&packet)
}

/// One function per family: each is verified with a stack of its own.
#[inline(never)]
fn tc4<const L2: u32, const SIDE: u8>(skb: *mut __sk_buff) -> i32 {
    run::<V4, L2, SIDE>(skb)
}

#[inline(never)]
fn tc6<const L2: u32, const SIDE: u8>(skb: *mut __sk_buff) -> i32 {
    run::<V6, L2, SIDE>(skb)
}

#[inline(always)]
fn run<F: PerFamily, const L2: u32, const SIDE: u8>(skb: *mut __sk_buff) -> i32 {
    let (Some(maps), Some(work)) = (Maps::new(), F::work()) else { return SHOT };
    let config = maps.config;
    let now = clock::now(config);
    if capture::is_on(config) {
        capture::capture_skb(skb, L2);
    }
    let mut steps = Tc::<L2> { skb, maps };
    let verdict = pipeline::run::<F, _>(&mut steps, Side::from_number(SIDE), now, work);
    if capture::is_on(config) {
        capture::finish::<F>(verdict);
    }
    match verdict {
        Verdict::Pass | Verdict::Host => NEXT,
        Verdict::Site(device) => {
            let egress = <Maps as Tables<F>>::egress(&steps.maps, work.active(), work.route());
            let hop = work.hop(config).zip(egress.map(|egress| egress.link.mac));
            to_site::<L2>(skb, device, hop)
        }
        Verdict::Overlay => into_overlay(skb, work.hop(config).map(|hop| (hop, config.overlay_link.mac))),
        Verdict::Answer if L2 != 0 && !skb::turn_round(skb) => failed(),
        Verdict::Answer => back::<SIDE>(skb),
        Verdict::Drop(_) => SHOT,
    }
}

/// A neighbour's address and the device's own.
type Macs = ([u8; 6], [u8; 6]);

/// Hands the packet to a site device: to the neighbour its flow knows, or to the one the kernel finds.
#[inline(always)]
fn to_site<const L2: u32>(skb: *mut __sk_buff, device: u32, macs: Option<Macs>) -> i32 {
    // The helpers want an Ethernet header that a packet from a device without one does not have yet.
    if L2 == 0 && !skb::push_ethernet(skb) {
        return failed();
    }
    match macs {
        Some((hop, own)) if skb::write_macs(skb, hop, own) => {
            // SAFETY: a plain redirect of a frame that is complete.
            unsafe { bpf_redirect(device, 0) as i32 }
        }
        Some(_) => failed(),
        None => to_neighbour(skb, device),
    }
}

/// Hands the packet to `device`, with the neighbour resolved by the kernel: the program on its way out learns it.
#[inline(always)]
fn to_neighbour(skb: *mut __sk_buff, device: u32) -> i32 {
    set_mark(skb, LEARN);
    // SAFETY: no parameters: the route to the destination out of `device` names the neighbour.
    unsafe { bpf_redirect_neigh(device, core::ptr::null_mut(), 0, 0) as i32 }
}

#[inline(always)]
fn into_overlay(skb: *mut __sk_buff, macs: Option<Macs>) -> i32 {
    let Some(maps) = Maps::new() else { return SHOT };
    let device = maps.config.overlay_device;
    if maps::overlay_is_ethernet() && macs.is_none() {
        return to_neighbour(skb, device);
    }
    set_mark(skb, JUDGED);
    match macs {
        Some((hop, own)) if maps::overlay_is_ethernet() && !skb::write_macs(skb, hop, own) => failed(),
        // SAFETY: a plain redirect; the kernel strips the Ethernet header for a device without one.
        _ => unsafe { bpf_redirect(device, 0) as i32 },
    }
}

/// Sends the packet back out of the device that it came from.
#[inline(always)]
fn back<const SIDE: u8>(skb: *mut __sk_buff) -> i32 {
    if SIDE == OVERLAY {
        set_mark(skb, JUDGED);
    }
    // SAFETY: the context of a TC program, whose fields may be read, and a plain redirect.
    unsafe { bpf_redirect((*skb).ifindex, 0) as i32 }
}

#[inline(always)]
fn learn(skb: *mut __sk_buff, answers: u8) {
    // SAFETY: the context of a TC program; `protocol` may be read.
    match unsafe { (*skb).protocol } {
        IPV4 => tc::learn_4(skb, answers.into()),
        IPV6 => tc::learn_6(skb, answers.into()),
        _ => 0,
    };
}

#[inline(always)]
fn failed() -> i32 {
    maps::drop_uncounted_family(DropReason::Internal);
    SHOT
}

/// The kernel's helpers for GPL programs are used: the object is dual licensed.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Nothing here panics: indexes are masked and arithmetic wraps. The verifier would refuse this loop.
    loop {}
}
