//! The stages of ICMP errors that need the packet, as global functions: rare packets, whose code is verified once for both
//! kinds of device, and which XDP leaves to TC. They find what is known of the packet in the work memory of this processor.

use aya_ebpf::bindings::__sk_buff;
use sluicegate_engine::family::{V4, V6};
use sluicegate_engine::network::Header;
use sluicegate_engine::quote;
use sluicegate_engine::work::Work;

use crate::skb::{ETHERNET, Skb};
use crate::stages::{in_work, lend};

/// Reads a quotation out of a packet in TC, whose link-layer header takes `l2` bytes.
#[inline(always)]
pub fn read_skb<F: Header>(skb: *mut __sk_buff, l2: u32, work: &mut Work<F::Address>) -> bool {
    let read =
        lend(work, || if F::VERSION == 4 { read_quotation4(skb, l2) } else { read_quotation6(skb, l2) });
    read == Ok(true)
}

macro_rules! per_family {
    ($family:ty, $read:ident, $rewrite:ident) => {
        /// [`quote::read`] in TC.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $read(skb: *mut __sk_buff, l2: u32) -> u64 {
            in_work::<$family>(|_, work| {
                Ok(if l2 == 0 {
                    let packet = Skb::<0>::new(skb);
                    packet.linearise(quote::REACH);
                    quote::read::<$family>(&packet, work)
                } else {
                    let packet = Skb::<ETHERNET>::new(skb);
                    packet.linearise(quote::REACH);
                    quote::read::<$family>(&packet, work)
                })
            })
        }

        /// [`quote::rewrite`] in TC.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $rewrite(skb: *mut __sk_buff, l2: u32) -> u64 {
            in_work::<$family>(|_, work| {
                Ok(if l2 == 0 {
                    quote::rewrite::<$family>(&mut Skb::<0>::new(skb), work)
                } else {
                    quote::rewrite::<$family>(&mut Skb::<ETHERNET>::new(skb), work)
                })
            })
        }
    };
}

per_family!(V4, read_quotation4, rewrite_quotation4);
per_family!(V6, read_quotation6, rewrite_quotation6);
