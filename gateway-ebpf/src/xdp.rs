//! The XDP programs: the whole path between Ethernets, and the drop stage in front of TC elsewhere.
//!
//! Where the overlay is an Ethernet too, a packet is judged, translated and sent on without an skb ever being made. What XDP
//! cannot finish it hands to TC on the same device, with a note in the packet's metadata of what was decided: a packet
//! whose next hop is not known, or for a device that frames cannot be sent by, is sent by TC; one for the host goes up.
//! A packet whose checksum its sender left to a device is not touched at all: TC judges it.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_meta};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use sluicegate_engine::family::{V4, V6};
use sluicegate_engine::flow::Side;
use sluicegate_engine::hop::Link;
use sluicegate_engine::mss;
use sluicegate_engine::packet::is_left_to_device;
use sluicegate_engine::pipeline::{self, Steps, Verdict, screen};
use sluicegate_engine::reason::DropReason;
use sluicegate_engine::stage::Refusal;
use sluicegate_engine::tables::Tables;
use sluicegate_engine::work::Work;

use crate::frame::{Frame, bounds, store};
use crate::handover::{self, Handover};
use crate::maps::{self, Maps, PerFamily, in_work, lend};
use crate::quotation::{rewrite_framed4, rewrite_framed6};
use crate::skb::ETHERNET;
use crate::{IPV4, IPV6, capture, clock, guard};

/// On the overlay device, when that is an Ethernet.
#[xdp]
pub fn overlay_xdp(ctx: XdpContext) -> u32 {
    enter(ctx.ctx, Side::Overlay as u32)
}

/// On a site device.
#[xdp]
pub fn site_xdp(ctx: XdpContext) -> u32 {
    if guard::refuses(&ctx) {
        return XDP_DROP;
    }
    enter(ctx.ctx, Side::Site as u32)
}

/// On a device that carries overlay or site in VLANs and is neither itself.
#[xdp]
pub fn trunk_xdp(ctx: XdpContext) -> u32 {
    if guard::refuses(&ctx) {
        return XDP_DROP;
    }
    enter(ctx.ctx, NO_SIDE)
}

/// What comes without a tag is none of the gateway's business.
const NO_SIDE: u32 = 0;

#[inline(always)]
fn enter(ctx: *mut xdp_md, untagged: u32) -> u32 {
    let Some(link) = Frame::link_layer(ctx) else { return XDP_PASS };
    let side = if link.vlans == 0 { untagged } else { maps::side_of(ctx, link.vlans) };
    match link.ethertype {
        _ if side == NO_SIDE => XDP_PASS,
        IPV4 => frame4(ctx, side, link.length),
        IPV6 => frame6(ctx, side, link.length),
        _ => XDP_PASS,
    }
}

#[inline(never)]
fn frame4(ctx: *mut xdp_md, side: u32, l2: u32) -> u32 {
    carry::<V4>(ctx, side, l2)
}

#[inline(never)]
fn frame6(ctx: *mut xdp_md, side: u32, l2: u32) -> u32 {
    carry::<V6>(ctx, side, l2)
}

#[inline(always)]
fn carry<F: PerFamily>(ctx: *mut xdp_md, side: u32, l2: u32) -> u32 {
    let (Some(mut maps), Some(work)) = (Maps::new(), F::work()) else { return XDP_DROP };
    let config = maps.config;
    let now = clock::now(config);
    if !maps::overlay_is_ethernet() {
        let verdict = screen::<F, _, _>(&Frame::new(ctx, l2), &mut maps, now, work);
        if !matches!(verdict, Verdict::Drop(_)) {
            return XDP_PASS;
        }
        if capture::is_on(config) {
            capture::capture_frame(ctx, l2);
            capture::finish::<F>(verdict);
        }
        return XDP_DROP;
    }
    if maps::metadata_is_refused() {
        return XDP_PASS;
    }
    let mut steps = Xdp { ctx, l2, maps };
    if capture::is_on(config) {
        capture::capture_frame(ctx, l2);
    }
    let verdict = pipeline::run::<F, _>(&mut steps, Side::from_number(side as u8), now, work);
    // What passes by the gateway is recorded by TC, which judges it again.
    if !matches!(verdict, Verdict::Pass) && capture::is_on(config) {
        capture::finish::<F>(verdict);
    }
    match verdict {
        Verdict::Pass => XDP_PASS,
        Verdict::Host => hand_over(ctx, Handover::Host),
        Verdict::Site(device) => match <Maps as Tables<F>>::egress(&steps.maps, work.route()) {
            Some(egress) => send::<F>(ctx, l2, &egress.link, work.hop(config), Handover::Site(device)),
            None => XDP_DROP,
        },
        Verdict::Overlay => send::<F>(ctx, l2, &config.overlay_link, work.hop(config), Handover::Overlay),
        Verdict::Answer => {
            let device = match Side::from_number(side as u8) {
                Side::Overlay | Side::Local => config.overlay_link.device,
                Side::Site => {
                    <Maps as Tables<F>>::egress(&steps.maps, work.route()).map_or(0, |e| e.link.device)
                }
            };
            // A device that frames cannot be sent by, as a veth whose peer does not listen, drops what it is to send back.
            if device != 0 { XDP_TX } else { hand_over(ctx, Handover::Back) }
        }
        Verdict::Drop(_) => XDP_DROP,
    }
}

/// Sends a frame by `link` to `hop`, or hands it to TC.
#[inline(always)]
fn send<F: PerFamily>(
    ctx: *mut xdp_md,
    l2: u32,
    link: &Link,
    hop: Option<[u8; 6]>,
    otherwise: Handover,
) -> u32 {
    let Some(hop) = hop.filter(|_| link.device != 0) else { return hand_over(ctx, otherwise) };
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
    maps::redirect(link.device)
}

/// Gives a judged packet to the TC program of the same device, with a note of what is to become of it.
#[inline(always)]
fn hand_over(ctx: *mut xdp_md, what: Handover) -> u32 {
    // SAFETY: a plain helper call; pointers into the frame are taken anew after it.
    if unsafe { bpf_xdp_adjust_meta(ctx, -(handover::LENGTH as i32)) } != 0 {
        // A driver without room for metadata: from the next packet on TC judges by itself.
        maps::refuse_metadata();
        return failed();
    }
    // SAFETY: the context of an XDP program; these fields may be read.
    let (meta, start) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*ctx).data_meta) as usize,
            core::ptr::read_volatile(&raw const (*ctx).data) as usize,
        )
    };
    if meta + handover::LENGTH as usize > start {
        return failed();
    }
    // SAFETY: inside the metadata, as just checked.
    unsafe { store(meta, what.to_bytes()) };
    XDP_PASS
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
    fn identify(&mut self, side: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        let (ctx, side, l2) = (self.ctx, side as u32, self.l2);
        lend(work, || if F::VERSION == 4 { identify_x_4(ctx, side, l2) } else { identify_x_6(ctx, side, l2) })
    }

    #[inline(always)]
    fn rewrite_quotation(&mut self, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        let (ctx, l2) = (self.ctx, self.l2);
        lend(work, || if F::VERSION == 4 { rewrite_framed4(ctx, l2) } else { rewrite_framed6(ctx, l2) })
    }

    #[inline(always)]
    fn leave(&mut self, side: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        let (ctx, side, l2) = (self.ctx, side as u32, self.l2);
        lend(work, || if F::VERSION == 4 { leave_x_4(ctx, side, l2) } else { leave_x_6(ctx, side, l2) })
    }

    #[inline(always)]
    fn clamp(&mut self, transport: u32, largest: u16) {
        clamp_x(self.ctx, self.l2, transport, largest.into());
    }

    #[inline(always)]
    fn answer(
        &mut self,
        side: Side,
        reason: DropReason,
        work: &mut Work<F::Address>,
    ) -> Result<bool, Refusal> {
        let (ctx, side, l2, reason) = (self.ctx, side as u32, self.l2, reason as u32);
        lend(work, || {
            if F::VERSION == 4 {
                answer_x_4(ctx, side, l2, reason)
            } else {
                answer_x_6(ctx, side, l2, reason)
            }
        })
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
        /// [`pipeline::identify`], verified once, for any frame. A packet whose checksum is not whole is left to TC.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $identify(ctx: *mut xdp_md, side: u32, l2: u32) -> u64 {
            let frame = Frame::new(ctx, l2);
            let side = Side::from_number(side as u8);
            in_work::<$family>(|maps, work| {
                let known = pipeline::identify::<$family, _, _>(&frame, side, false, maps, work)?;
                Ok(known && !is_left_to_device::<$family>(&frame, work.network()))
            })
        }

        /// [`pipeline::leave`], verified once, for any frame.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $leave(ctx: *mut xdp_md, side: u32, l2: u32) -> u64 {
            let mut frame = Frame::new(ctx, l2);
            let side = Side::from_number(side as u8);
            in_work::<$family>(|maps, work| pipeline::leave::<$family, _, _>(&mut frame, side, maps, work))
        }

        /// [`pipeline::answer`], verified once, for any frame.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $answer(ctx: *mut xdp_md, side: u32, l2: u32, reason: u32) -> u64 {
            let mut frame = Frame::new(ctx, l2);
            let side = Side::from_number(side as u8);
            let Some(reason) = DropReason::from_number(reason as u8) else { return 0 };
            in_work::<$family>(|maps, work| {
                Ok(pipeline::answer::<$family, _, _>(&mut frame, maps, side, reason, work))
            })
        }
    };
}

steps!(V4, identify_x_4, leave_x_4, answer_x_4);
steps!(V6, identify_x_6, leave_x_6, answer_x_6);
