//! What XDP decided about a packet, for the TC program on the same device: eight bytes of metadata in front of the frame.
//!
//! Metadata is written by the XDP program of the device alone, and comes with no packet from outside.

use aya_ebpf::bindings::__sk_buff;

use crate::frame::load;

/// Bytes.
pub const LENGTH: u32 = 8;

/// Says that the metadata is ours.
const MAGIC: u32 = 0x5c47_0000;
const HOST: u32 = 1;
const SITE: u32 = 2;
const OVERLAY: u32 = 3;
const BACK: u32 = 4;

/// A packet that was judged, counted and translated, and where it goes.
#[derive(Clone, Copy)]
pub enum Handover {
    /// To the host's own stack.
    Host,
    /// Out of the site device with this index.
    Site(u32),
    /// Into the overlay.
    Overlay,
    /// Out of the device it came from: the answer to a dropped packet, whose Ethernet addresses are right already.
    Back,
}

impl Handover {
    /// As metadata.
    #[inline(always)]
    pub fn to_bytes(self) -> [u8; LENGTH as usize] {
        let (what, device) = match self {
            Handover::Host => (HOST, 0),
            Handover::Site(device) => (SITE, device),
            Handover::Overlay => (OVERLAY, 0),
            Handover::Back => (BACK, 0),
        };
        let [a, b, c, d] = (MAGIC | what).to_ne_bytes();
        let [e, f, g, h] = device.to_ne_bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// What XDP decided about `skb`, if it did.
    #[inline(always)]
    pub fn of(skb: *mut __sk_buff) -> Option<Self> {
        // SAFETY: the context of a TC program; these fields may be read.
        let (meta, start) = unsafe {
            (
                core::ptr::read_volatile(&raw const (*skb).data_meta) as usize,
                core::ptr::read_volatile(&raw const (*skb).data) as usize,
            )
        };
        if meta + LENGTH as usize > start {
            return None;
        }
        // SAFETY: inside the metadata, as just checked.
        let [a, b, c, d, e, f, g, h] = unsafe { load::<{ LENGTH as usize }>(meta) };
        let device = u32::from_ne_bytes([e, f, g, h]);
        match u32::from_ne_bytes([a, b, c, d]) ^ MAGIC {
            HOST => Some(Handover::Host),
            SITE => Some(Handover::Site(device)),
            OVERLAY => Some(Handover::Overlay),
            BACK => Some(Handover::Back),
            _ => None,
        }
    }
}
