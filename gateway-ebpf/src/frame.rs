//! A packet as XDP sees it, and access to packet memory.

use aya_ebpf::programs::XdpContext;
use sluicegate_engine::packet::Packet;

use crate::skb::ETHERNET;

/// Offsets are below this: keeps packet pointers bounded for the verifier. A power of two.
pub const OFFSET_MAX: u32 = 1024;

/// A frame without VLAN tags; tagged ones are left to TC, which sees them without their tag.
pub struct Frame<'a> {
    ctx: &'a XdpContext,
}

impl<'a> Frame<'a> {
    /// Wraps the context of an XDP program.
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// The EtherType as it lies in memory; 0 in a runt.
    #[inline(always)]
    pub fn ethertype(&self) -> u32 {
        let (start, end) = self.bounds();
        let at = start + 12;
        if at + 2 > end {
            return 0;
        }
        // SAFETY: the two bytes are inside the frame.
        u32::from(u16::from_ne_bytes(unsafe { load::<2>(at) }))
    }

    #[inline(always)]
    fn at<const N: usize>(&self, offset: u32) -> Option<usize> {
        if offset >= OFFSET_MAX {
            return None;
        }
        let (start, end) = self.bounds();
        let at = start + ETHERNET as usize + bounded(offset);
        if at + N > end { None } else { Some(at) }
    }

    /// Start and end of the frame; volatile for the reason given at `Skb::bounds`.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        let ctx = self.ctx.ctx;
        // SAFETY: the context of an XDP program; these fields may be read.
        unsafe {
            let start = core::ptr::read_volatile(&raw const (*ctx).data) as usize;
            let end = core::ptr::read_volatile(&raw const (*ctx).data_end) as usize;
            (start, end)
        }
    }
}

impl Packet for Frame<'_> {
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
        let (start, end) = self.bounds();
        (end.wrapping_sub(start) as u32).wrapping_sub(ETHERNET)
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
