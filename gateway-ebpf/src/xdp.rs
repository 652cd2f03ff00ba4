//! The XDP programs: the whole path between Ethernets, and the drop stage in front of TC elsewhere.
//!
//! Where the overlay is an Ethernet too, a packet is judged, translated and sent on without an skb ever being made. XDP either
//! finishes a packet, sent or dropped, or passes it on as it came, for TC to judge: first packets of flows, those whose
//! neighbour is to be asked for again, those for the host, and whatever is not plain (see [`sluicegate_engine::express`]).

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use sluicegate_engine::express::{express, is_unfinished};
use sluicegate_engine::family::{V4, V6};
use sluicegate_engine::flow::Side;
use sluicegate_engine::hop::{Link, Wire};
use sluicegate_engine::mss;
use sluicegate_engine::pipeline::{self, Steps, Verdict};
use sluicegate_engine::reason::DropReason;
use sluicegate_engine::stage::Refusal;
use sluicegate_engine::tables::Tables;
use sluicegate_engine::work::Work;

use crate::frame::{Frame, bounds, store};
use crate::maps;
use crate::skb::{ETHERNET, is_neighbour_discovery};
use crate::stages::{PerFamily, in_work, lend};
use crate::tables::Maps;
use crate::{IPV4, IPV6, OVERLAY, SITE, capture, clock, guard};

/// On the overlay device, when that is an Ethernet.
#[xdp]
pub fn overlay_xdp(ctx: XdpContext) -> u32 {
    enter::<OVERLAY>(ctx.ctx)
}

/// On a site device.
#[xdp]
pub fn site_xdp(ctx: XdpContext) -> u32 {
    if guard::refuses(&ctx) {
        return XDP_DROP;
    }
    enter::<SITE>(ctx.ctx)
}

/// On a device that carries overlay or site in VLANs and is neither itself: what comes without a tag is none of the
/// gateway's business.
#[xdp]
pub fn trunk_xdp(ctx: XdpContext) -> u32 {
    if guard::refuses(&ctx) {
        return XDP_DROP;
    }
    enter::<0>(ctx.ctx)
}

#[inline(always)]
fn enter<const UNTAGGED: u8>(ctx: *mut xdp_md) -> u32 {
    let Some(link) = Frame::link_layer(ctx) else { return XDP_PASS };
    if link.ethertype != IPV4 && link.ethertype != IPV6 {
        return XDP_PASS;
    }
    let wire = match (UNTAGGED, link.vlans) {
        (OVERLAY, 0) => match Maps::new() {
            Some(maps) => {
                let Link { sends, mac, .. } = maps.config.overlay_link;
                Wire { side: OVERLAY.into(), sends: sends.into(), mac, padding: 0 }
            }
            None => return XDP_DROP,
        },
        (SITE, 0) => maps::wire(ctx, 0).unwrap_or(unknown(link.destination)),
        _ => match maps::wire(ctx, link.vlans) {
            Some(wire) => wire,
            None => return XDP_PASS,
        },
    };
    if wire.mac != link.destination {
        return XDP_PASS;
    }
    let whole = u32::from(wire.sends != 0 && maps::overlay_is_ethernet());
    if link.ethertype == IPV4 {
        frame4(ctx, wire.side.into(), whole, link.length)
    } else {
        frame6(ctx, wire.side.into(), whole, link.length)
    }
}

/// A site device that the agent has not looked at yet: nothing that could be the gateway's passes.
#[inline(always)]
fn unknown(mac: [u8; 6]) -> Wire {
    Wire { side: SITE.into(), mac, ..Wire::default() }
}

/// A frame of either family: verified once, for any side and link layer.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn frame4(ctx: *mut xdp_md, side: u32, whole: u32, l2: u32) -> u32 {
    carry::<V4>(ctx, side, whole, l2)
}

/// As above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn frame6(ctx: *mut xdp_md, side: u32, whole: u32, l2: u32) -> u32 {
    carry::<V6>(ctx, side, whole, l2)
}

#[inline(always)]
fn carry<F: PerFamily>(ctx: *mut xdp_md, side: u32, whole: u32, l2: u32) -> u32 {
    let (Some(maps), Some(work)) = (Maps::new(), F::work()) else { return XDP_DROP };
    let config = maps.config;
    let now = clock::now(config);
    if !maps::overlay_is_ethernet() && side != u32::from(SITE) {
        return XDP_PASS;
    }
    if F::VERSION == 6 && side == u32::from(OVERLAY) && is_neighbour_discovery(&Frame::new(ctx, l2)) {
        return XDP_PASS;
    }
    let mut steps = Xdp { ctx, l2, maps };
    if capture::is_on(config) {
        capture::capture_frame(ctx, l2);
    }
    let verdict = express::<F, _>(&mut steps, Side::from_number(side as u8), whole != 0, now, work);
    // What is left to TC is recorded there.
    if let Some(verdict) = verdict
        && capture::is_on(config)
    {
        capture::finish::<F>(verdict);
    }
    match verdict {
        None | Some(Verdict::Pass | Verdict::Host) => XDP_PASS,
        Some(Verdict::Site(_)) => match <Maps as Tables<F>>::egress(&steps.maps, work.active(), work.route())
        {
            Some(egress) => send::<F>(ctx, l2, &egress.link, work.carried_to()),
            None => failed(),
        },
        Some(Verdict::Overlay) => send::<F>(ctx, l2, &config.overlay_link, work.carried_to()),
        // Not `XDP_TX`: with that, a veth device leaves the frame lying about unless the other end runs XDP itself.
        Some(Verdict::Answer) if maps::redirect(maps::arrived_on(ctx)) => XDP_REDIRECT,
        Some(Verdict::Answer) => failed(),
        Some(Verdict::Drop(_)) => XDP_DROP,
    }
}

/// Sends a frame by `link` to `hop`.
#[inline(always)]
fn send<F: PerFamily>(ctx: *mut xdp_md, l2: u32, link: &Link, hop: [u8; 6]) -> u32 {
    // It was there when the flow was looked at: it went away within a microsecond.
    if !maps::redirect(link.device) {
        return failed();
    }
    let tags = u32::from(link.tags_length) & 12;
    let header = ETHERNET + tags;
    if header != l2 {
        // SAFETY: a plain helper call; pointers into the frame are taken anew after it.
        if unsafe { bpf_xdp_adjust_head(ctx, l2 as i32 - header as i32) } != 0 {
            return failed();
        }
    }
    let (start, end) = bounds(ctx);
    if start + ETHERNET as usize + 8 > end {
        return failed();
    }
    let [a, b, c, d, e, f] = hop;
    let [g, h, i, j, k, l] = link.mac;
    // SAFETY: inside the frame, as just checked; an IP header follows what is written.
    unsafe {
        store::<12>(start, [a, b, c, d, e, f, g, h, i, j, k, l]);
        if header != l2 || tags != 0 {
            if tags >= 4 {
                store::<4>(start + 12, *link.tags.first_chunk().unwrap_unchecked());
            }
            if tags >= 8 {
                store::<4>(start + 16, *link.tags.last_chunk().unwrap_unchecked());
            }
            let ethertype = if F::VERSION == 4 { IPV4 } else { IPV6 } as u16;
            match tags {
                0 => store::<2>(start + 12, ethertype.to_ne_bytes()),
                4 => store::<2>(start + 16, ethertype.to_ne_bytes()),
                _ => store::<2>(start + 20, ethertype.to_ne_bytes()),
            }
        }
    }
    XDP_REDIRECT
}

#[inline(always)]
fn failed() -> u32 {
    maps::drop_uncounted_family(DropReason::Internal);
    XDP_DROP
}

/// A frame and the maps.
struct Xdp {
    ctx: *mut xdp_md,
    l2: u32,
    maps: Maps,
}

impl<F: PerFamily> Steps<F> for Xdp {
    type Tables = Maps;

    #[inline(always)]
    fn tables(&mut self) -> &mut Maps {
        &mut self.maps
    }

    #[inline(always)]
    fn identify(&mut self, _: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        let (ctx, l2) = (self.ctx, self.l2);
        lend(work, || if F::VERSION == 4 { identify_x_4(ctx, l2) } else { identify_x_6(ctx, l2) })
    }

    #[inline(always)]
    fn leave(&mut self, _: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        let (ctx, l2) = (self.ctx, self.l2);
        lend(work, || if F::VERSION == 4 { leave_x_4(ctx, l2) } else { leave_x_6(ctx, l2) })
    }

    #[inline(always)]
    fn clamp(&mut self, transport: u32, largest: u16) {
        clamp_x(self.ctx, self.l2, transport, largest.into());
    }

    #[inline(always)]
    fn answer(&mut self, _: Side, reason: DropReason, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        let (ctx, l2, reason) = (self.ctx, self.l2, reason as u32);
        lend(work, || if F::VERSION == 4 { answer_x_4(ctx, l2, reason) } else { answer_x_6(ctx, l2, reason) })
    }
}

/// [`mss::clamp`], verified once, for any frame.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn clamp_x(ctx: *mut xdp_md, l2: u32, transport: u32, largest: u32) -> u64 {
    mss::clamp(&mut Frame::new(ctx, l2), transport, largest as u16);
    0
}

macro_rules! steps {
    ($family:ty, $identify:ident, $leave:ident, $answer:ident) => {
        /// [`pipeline::identify`], verified once, for any frame. What takes more than a look is left to TC.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $identify(ctx: *mut xdp_md, l2: u32) -> u64 {
            let frame = Frame::new(ctx, l2);
            in_work::<$family>(|maps, work| {
                let known = pipeline::identify::<$family, _, _>(&frame, work.side(), true, maps, work)?;
                Ok(known && !is_unfinished::<$family>(&frame, work))
            })
        }

        /// [`pipeline::leave`], verified once, for any frame.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $leave(ctx: *mut xdp_md, l2: u32) -> u64 {
            let mut frame = Frame::new(ctx, l2);
            in_work::<$family>(|maps, work| {
                pipeline::leave::<$family, _, _>(&mut frame, work.side(), maps, work)
            })
        }

        /// [`pipeline::answer`], verified once, for any frame.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $answer(ctx: *mut xdp_md, l2: u32, reason: u32) -> u64 {
            let mut frame = Frame::new(ctx, l2);
            let Some(reason) = DropReason::from_number(reason as u8) else { return 0 };
            in_work::<$family>(|maps, work| {
                Ok(pipeline::answer::<$family, _, _>(&mut frame, maps, work.side(), reason, work))
            })
        }
    };
}

steps!(V4, identify_x_4, leave_x_4, answer_x_4);
steps!(V6, identify_x_6, leave_x_6, answer_x_6);
