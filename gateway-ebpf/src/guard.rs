//! The underlay guard: an XDP program for devices that carry WireGuard and lead to no site, and the first stage of the
//! site's XDP program where one device does both.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, HashMap, LruHashMap};
use aya_ebpf::programs::XdpContext;
use sluicegate_engine::guard::{Finding, Guard, Source, inspect4, inspect6};

use crate::frame::Frame;
use crate::{IPV4, IPV6, clock, maps};

/// Port and rate: one entry.
#[map]
static GUARD: Array<Guard> = Array::pinned(1, 0);
/// Indexes of the devices that are guarded: a site device need not be.
#[map]
static GUARD_DEVICES: HashMap<u32, u32> = HashMap::pinned(64, 0);
/// The host's own addresses, IPv4 in its mapped form.
#[map]
static GUARD_ADDRESSES: HashMap<[u8; 16], u32> = HashMap::pinned(4096, 0);
/// The bucket of each source prefix. Not pinned: a new agent's programs start with full ones.
#[map]
static GUARD_SOURCES: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// Not zero when the operator asked for the guard; constant after load, so that without it nothing of it is left in the
/// site's program.
#[unsafe(no_mangle)]
static GUARDED: u32 = 0;

#[xdp]
pub fn underlay_guard(ctx: XdpContext) -> u32 {
    if guard_refuses(ctx.ctx) != 0 { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

/// Whether the guard refuses a frame, which is then counted. For the first line of any XDP program; it changes nothing in
/// the frame, and pointers into it stay good.
#[inline(always)]
pub fn refuses(ctx: &XdpContext) -> bool {
    // SAFETY: a load from the program's read-only data, which the loader sets before the kernel freezes it.
    let guarded = unsafe { core::ptr::read_volatile(&GUARDED) };
    guarded != 0 && guard_refuses(ctx.ctx) != 0
}

/// Global, so that it is verified once and on a stack of its own, whatever program calls it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn guard_refuses(ctx: *mut xdp_md) -> u32 {
    let Some(guard) = GUARD.get(0) else { return 0 };
    if guard.port == 0 {
        return 0;
    }
    let Some(link) = Frame::link_layer(ctx) else { return 0 };
    let packet = Frame::new(ctx, link.length);
    let own = |address: &[u8; 16]| is_own(ctx, address);
    let finding = match link.ethertype {
        IPV4 => inspect4(&packet, guard.port, own),
        IPV6 => inspect6(&packet, guard.port, own),
        _ => Finding::Passes,
    };
    match finding.refusal(|source| admits(guard, source)) {
        None => 0,
        Some(reason) => {
            maps::drop_uncounted_family(reason);
            1
        }
    }
}

#[inline(always)]
fn is_own(ctx: *mut xdp_md, address: &[u8; 16]) -> bool {
    // SAFETY: the context of an XDP program; this field may be read.
    let device = unsafe { (*ctx).ingress_ifindex };
    // SAFETY: the entries are only looked for, never read.
    unsafe { GUARD_DEVICES.get(device).is_some() && GUARD_ADDRESSES.get(address).is_some() }
}

/// Takes a token. Two processors that do so for one source at the same time may spend one token twice, which is let be: it
/// costs one handshake for each processor, and a lock would cost every packet.
#[inline(always)]
fn admits(guard: &Guard, source: Source) -> bool {
    let now = clock::ticks();
    match GUARD_SOURCES.get_ptr_mut(source.0) {
        Some(due) => {
            // SAFETY: map memory stays valid for the whole run (RCU); one aligned 64-bit load and store.
            let state = unsafe { core::ptr::read_volatile(due) };
            let Some(next) = guard.limit.take(state, now) else { return false };
            // SAFETY: as above.
            unsafe { core::ptr::write_volatile(due, next) };
            true
        }
        None => guard.limit.take(0, now).is_some_and(|next| GUARD_SOURCES.insert(source.0, next, 0).is_ok()),
    }
}
