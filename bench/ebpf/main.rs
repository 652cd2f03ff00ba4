//! Traffic for the benchmarks, made and counted where it costs least: in XDP.
//!
//! | program | hook | does |
//! |---|---|---|
//! | `generate4`, `generate6` | none: live-frame test runs | writes one 64-byte UDP packet of a random or next flow and redirects it |
//! | `sink` | XDP of the receiving device | counts and drops, or echoes |
//! | `route` | XDP of a forwarding device | routes by the kernel's table, and nothing else |
//! | `pass` | XDP of a forwarding device | nothing: makes veth run NAPI, so that redirected frames arrive at all |
#![no_std]
#![no_main]

use aya_ebpf::bindings::bpf_fib_lookup as Query;
use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_get_prandom_u32, bpf_redirect};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::XdpContext;

/// What to send: written by the benchmark, in the byte order of the wire where it is copied there.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Plan {
    /// Ethernet destination and source.
    pub ethernet: [u8; 12],
    /// Zero.
    pub padding: [u8; 4],
    /// First IPv4 source, host order; flow number / `ports` is added.
    pub source4: u32,
    /// First IPv4 destination, host order; flow number % `destinations` is added.
    pub destination4: u32,
    /// IPv6 source prefix and destination prefix, upper 12 bytes; the lower four are as for IPv4.
    pub source6: [u8; 12],
    /// As `source6`.
    pub destination6: [u8; 12],
    /// Number of flows.
    pub flows: u32,
    /// Source ports used per source address, from 1024 on.
    pub ports: u32,
    /// Number of destinations.
    pub destinations: u32,
    /// Destination port.
    pub port: u32,
    /// Device to send out of.
    pub device: u32,
    /// 0: flows in random order; 1: one after the other.
    pub sequential: u32,
    /// UDP payload, bytes, at least 18: with Ethernet, IPv4 and UDP headers a 60-byte frame, the smallest without its check
    /// sequence.
    pub payload: u32,
}

#[map]
static PLAN: Array<Plan> = Array::with_max_entries(1, 0);
/// The next flow, when they come in order.
#[map]
static NEXT: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);
/// What `sink` has seen.
#[map]
static SEEN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// Not zero: `sink` echoes.
#[map]
static ECHO: Array<u32> = Array::with_max_entries(1, 0);

const UDP: u8 = 17;
/// Bytes of headers, with as much payload as the smallest frame has.
const FRAME4: usize = 14 + 20 + 8 + 18;
const FRAME6: usize = 14 + 40 + 8 + 18;

#[xdp]
pub fn generate4(ctx: XdpContext) -> u32 {
    let Some((plan, flow)) = next() else { return XDP_ABORTED };
    let start = ctx.data();
    if start + FRAME4 > ctx.data_end() {
        return XDP_ABORTED;
    }
    let source = plan.source4 + flow.source;
    let destination = plan.destination4 + flow.destination;
    // Pages are recycled, so every frame is written whole.
    ethernet(start, plan, 0x0800);
    put32(start + 14, 0x4500_0000 | (20 + 8 + plan.payload));
    put32(start + 18, 0x4000);
    put32(start + 22, 64 << 24 | (UDP as u32) << 16);
    put32(start + 26, source);
    put32(start + 30, destination);
    let words =
        [0x4500, 20 + 8 + plan.payload, 0, 0x4000, 64 << 8 | UDP as u32, source >> 16, source & 0xffff];
    let sum = words.iter().fold((destination >> 16) + (destination & 0xffff), |sum, word| sum + word);
    put16(start + 24, checksum(sum));
    udp(start + 34, flow.port, plan);
    // Zero: no checksum (RFC 768). Rewriting one costs the contestants the same either way, but for nobody to be blamed
    // for a wrong one it must be right or absent.
    put16(start + 40, 0);
    redirect(plan)
}

#[xdp]
pub fn generate6(ctx: XdpContext) -> u32 {
    let Some((plan, flow)) = next() else { return XDP_ABORTED };
    let start = ctx.data();
    if start + FRAME6 > ctx.data_end() {
        return XDP_ABORTED;
    }
    let source = plan.source4 + flow.source;
    let destination = plan.destination4 + flow.destination;
    ethernet(start, plan, 0x86dd);
    put32(start + 14, 0x6000_0000);
    put32(start + 18, (8 + plan.payload) << 16 | (UDP as u32) << 8 | 64);
    let mut sum = UDP as u32 + 2 * (8 + plan.payload) + flow.port + plan.port;
    sum += address6(start + 22, &plan.source6, source);
    sum += address6(start + 38, &plan.destination6, destination);
    udp(start + 54, flow.port, plan);
    // The payload is zeros, which nobody on the way changes: headers and pseudo-header are all there is to sum.
    let sum = checksum(sum);
    put16(start + 60, if sum == 0 { 0xffff } else { sum });
    redirect(plan)
}

#[xdp]
pub fn sink(ctx: XdpContext) -> u32 {
    let start = ctx.data();
    if start + FRAME4 > ctx.data_end() {
        return XDP_PASS;
    }
    let (ip, addresses) = match get16(start + 12) {
        0x0800 => (get8(start + 23), 4),
        0x86dd => (get8(start + 20), 16),
        _ => return XDP_PASS,
    };
    if ip != UDP {
        return XDP_PASS;
    }
    if let Some(seen) = SEEN.get_ptr_mut(0) {
        // SAFETY: the entry of this processor.
        unsafe { *seen += 1 };
    }
    if ECHO.get(0).is_none_or(|echo| *echo == 0) {
        return XDP_DROP;
    }
    // Swapping both ends changes no checksum.
    swap(start, 6);
    if addresses == 4 {
        swap(start + 26, 4);
        swap(start + 34, 2);
    } else {
        if start + FRAME6 > ctx.data_end() {
            return XDP_PASS;
        }
        swap(start + 22, 16);
        swap(start + 54, 2);
    }
    XDP_TX
}

/// A router without any policy, the floor of what XDP can cost: looks the route up in the kernel's table, takes one from the
/// TTL, writes the neighbour's address and redirects.
#[xdp]
pub fn route(ctx: XdpContext) -> u32 {
    let start = ctx.data();
    if start + FRAME4 > ctx.data_end() {
        return XDP_PASS;
    }
    // SAFETY: plain integers, for which zero is a value.
    let mut query: Query = unsafe { core::mem::zeroed() };
    // SAFETY: the context of an XDP program; this field may be read.
    query.ifindex = unsafe { (*ctx.ctx).ingress_ifindex };
    let version = get16(start + 12);
    match version {
        0x0800 => {
            query.family = AF_INET;
            query.__bindgen_anon_3.ipv4_src = get32(start + 26).to_be();
            query.__bindgen_anon_4.ipv4_dst = get32(start + 30).to_be();
        }
        0x86dd => {
            if start + FRAME6 > ctx.data_end() {
                return XDP_PASS;
            }
            query.family = AF_INET6;
            query.__bindgen_anon_3.ipv6_src = [0, 4, 8, 12].map(|i| get32(start + 22 + i).to_be());
            query.__bindgen_anon_4.ipv6_dst = [0, 4, 8, 12].map(|i| get32(start + 38 + i).to_be());
        }
        _ => return XDP_PASS,
    }
    // SAFETY: the query lives until the helper returns.
    let found = unsafe { bpf_fib_lookup(ctx.ctx.cast(), &raw mut query, size_of::<Query>() as i32, 0) };
    if found != 0 {
        return XDP_PASS;
    }
    if version == 0x0800 {
        let sum = get16(start + 24) + 0x0100;
        put16(start + 24, (sum & 0xffff) + (sum >> 16));
        put8(start + 22, get8(start + 22) - 1);
    } else {
        put8(start + 21, get8(start + 21) - 1);
    }
    let mut i = 0;
    while i < 6 {
        put8(start + i, query.dmac[i]);
        put8(start + 6 + i, query.smac[i]);
        i += 1;
    }
    // SAFETY: a plain helper call.
    unsafe { bpf_redirect(query.ifindex, 0) as u32 }
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

#[xdp]
pub fn pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

struct Flow {
    source: u32,
    destination: u32,
    port: u32,
}

#[inline(always)]
fn next() -> Option<(&'static Plan, Flow)> {
    let plan = PLAN.get(0)?;
    let number = if plan.sequential != 0 {
        let counter = NEXT.get_ptr_mut(0)?;
        // SAFETY: the entry of this processor.
        unsafe {
            let number = if *counter < plan.flows { *counter } else { 0 };
            *counter = number + 1;
            number
        }
    } else {
        // SAFETY: a plain helper call.
        unsafe { bpf_get_prandom_u32() % plan.flows.max(1) }
    };
    let ports = plan.ports.max(1);
    let flow = Flow {
        source: number / ports,
        destination: number % plan.destinations.max(1),
        port: 1024 + number % ports,
    };
    Some((plan, flow))
}

#[inline(always)]
fn redirect(plan: &Plan) -> u32 {
    // SAFETY: a plain helper call.
    unsafe { bpf_redirect(plan.device, 0) as u32 }
}

#[inline(always)]
fn ethernet(start: usize, plan: &Plan, ethertype: u32) {
    let mut i = 0;
    while i < 12 {
        put8(start + i, plan.ethernet[i]);
        i += 1;
    }
    put16(start + 12, ethertype);
}

#[inline(always)]
fn address6(at: usize, prefix: &[u8; 12], low: u32) -> u32 {
    let mut sum = (low >> 16) + (low & 0xffff);
    let mut i = 0;
    while i < 12 {
        let word = (prefix[i] as u32) << 8 | prefix[i + 1] as u32;
        put16(at + i, word);
        sum += word;
        i += 2;
    }
    put32(at + 12, low);
    sum
}

#[inline(always)]
fn udp(at: usize, source: u32, plan: &Plan) {
    put32(at, source << 16 | plan.port);
    put16(at + 4, 8 + plan.payload);
}

#[inline(always)]
fn checksum(sum: u32) -> u32 {
    let sum = (sum >> 16) + (sum & 0xffff);
    !((sum >> 16) + (sum & 0xffff)) & 0xffff
}

#[inline(always)]
fn swap(at: usize, length: usize) {
    let mut i = 0;
    while i < length {
        let (a, b) = (get8(at + i), get8(at + length + i));
        put8(at + i, b);
        put8(at + length + i, a);
        i += 1;
    }
}

// The callers have checked that the frame holds what these touch.

#[inline(always)]
fn put8(at: usize, value: u8) {
    // SAFETY: inside the frame, see above.
    unsafe { core::ptr::write_volatile(at as *mut u8, value) }
}

#[inline(always)]
fn get8(at: usize) -> u8 {
    // SAFETY: inside the frame, see above.
    unsafe { core::ptr::read_volatile(at as *const u8) }
}

#[inline(always)]
fn get32(at: usize) -> u32 {
    get16(at) << 16 | get16(at + 2)
}

#[inline(always)]
fn put16(at: usize, value: u32) {
    put8(at, (value >> 8) as u8);
    put8(at + 1, value as u8);
}

#[inline(always)]
fn get16(at: usize) -> u32 {
    (get8(at) as u32) << 8 | get8(at + 1) as u32
}

#[inline(always)]
fn put32(at: usize, value: u32) {
    put16(at, value >> 16);
    put16(at + 2, value & 0xffff);
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Nothing here panics; the verifier would refuse this loop.
    loop {}
}
