//! The kernel half of a gateway: thin programs around the packet engine.
//!
//! | program | hook | judges |
//! |---|---|---|
//! | `overlay_in_l3`, `overlay_in_l2` | TC ingress of the overlay device (without, with an Ethernet header) | what the overlay sends |
//! | `overlay_out_l3`, `overlay_out_l2` | TC egress of the overlay device | what this host sends into the overlay |
//! | `site_in` | TC ingress of a site device | what answers flows |
//! | `site_screen` | XDP of a site device | drops the unsolicited before an skb exists |
//! | `underlay_guard` | XDP of an underlay device | drops what is no WireGuard message, and handshakes beyond the rate |
//! | `clock` | none: run once by the agent | tells the tick rate |
//!
//! Every program fails closed: whatever it cannot do is a drop, counted by reason.
#![no_std]
#![no_main]
// Inline assembly for this target.
#![feature(asm_experimental_arch)]

mod clock;
mod frame;
mod guard;
mod maps;
mod skb;
mod tc;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_neigh};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use sluicegate_engine::family::{V4, V6};
use sluicegate_engine::flow::Side;
use sluicegate_engine::pipeline::{self, Verdict, screen};
use sluicegate_engine::reason::DropReason;

use crate::frame::Frame;
use crate::maps::{Maps, PerFamily};
use crate::skb::ETHERNET;
use crate::tc::Tc;

/// In `tc_index` of a packet that a program here sends into the overlay, so that the egress program lets it by. The field
/// is the host's own scratch space: no packet brings a value along, and nothing but TC programs sets it.
const JUDGED: u32 = 0x5c47;

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

#[xdp]
pub fn site_screen(ctx: XdpContext) -> u32 {
    let frame = Frame::new(&ctx);
    let dropped = match frame.ethertype() {
        IPV4 => screen4(&ctx),
        IPV6 => screen6(&ctx),
        _ => false,
    };
    if dropped { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
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
    // SAFETY: the context of a TC program; `tc_index` may be read and written (net/core/filter.c, tc_cls_act_is_valid_access).
    unsafe {
        if (*skb).tc_index == JUDGED {
            (*skb).tc_index = 0;
            return NEXT;
        }
    }
    tc::<L2, LOCAL>(ctx)
}

#[inline(always)]
fn tc<const L2: u32, const SIDE: u8>(ctx: &TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context of a TC program; `protocol` may be read.
    match unsafe { (*skb).protocol } {
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
    let mut steps = Tc::<L2> { skb, maps };
    match pipeline::run::<F, _>(&mut steps, Side::from_number(SIDE), now, work) {
        Verdict::Pass | Verdict::Host => NEXT,
        Verdict::Site(device) => to_ethernet::<L2>(skb, device),
        Verdict::Overlay => into_overlay(skb, config.overlay_device),
        Verdict::Drop(_) => SHOT,
    }
}

/// Hands the packet to a site device, with the neighbour resolved by the kernel.
#[inline(always)]
fn to_ethernet<const L2: u32>(skb: *mut __sk_buff, device: u32) -> i32 {
    // The helper pulls an Ethernet header that a packet from a device without one does not have yet.
    if L2 == 0 && !skb::push_ethernet(skb) {
        maps::drop_uncounted_family(DropReason::Internal);
        return SHOT;
    }
    // SAFETY: no parameters: the route to the destination out of `device` names the neighbour.
    unsafe { bpf_redirect_neigh(device, core::ptr::null_mut(), 0, 0) as i32 }
}

#[inline(always)]
fn into_overlay(skb: *mut __sk_buff, device: u32) -> i32 {
    // SAFETY: as in `overlay_out`.
    unsafe { (*skb).tc_index = JUDGED };
    if maps::overlay_is_ethernet() {
        // SAFETY: as in `to_ethernet`; the packet has an Ethernet header, since it came from a site.
        unsafe { bpf_redirect_neigh(device, core::ptr::null_mut(), 0, 0) as i32 }
    } else {
        // SAFETY: a plain redirect; the kernel strips the Ethernet header for a device without one.
        unsafe { bpf_redirect(device, 0) as i32 }
    }
}

#[inline(never)]
fn screen4(ctx: &XdpContext) -> bool {
    screened::<V4>(ctx)
}

#[inline(never)]
fn screen6(ctx: &XdpContext) -> bool {
    screened::<V6>(ctx)
}

#[inline(always)]
fn screened<F: PerFamily>(ctx: &XdpContext) -> bool {
    let (Some(mut maps), Some(work)) = (Maps::new(), F::work()) else { return true };
    let now = clock::now(maps.config);
    matches!(screen::<F, _, _>(&Frame::new(ctx), &mut maps, now, work), Verdict::Drop(_))
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
