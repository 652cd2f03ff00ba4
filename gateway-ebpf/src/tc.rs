//! The steps that touch a packet in TC, as global functions: one for each family and kind of device.

use aya_ebpf::bindings::__sk_buff;
use sluicegate_engine::family::{V4, V6};
use sluicegate_engine::flow::Side;
use sluicegate_engine::hop;
use sluicegate_engine::mss;
use sluicegate_engine::packet::Packet as _;
use sluicegate_engine::pipeline::{self, Steps};
use sluicegate_engine::reason::DropReason;
use sluicegate_engine::stage::Refusal;
use sluicegate_engine::work::Work;

use crate::clock;
use crate::quotation::{rewrite_quotation4, rewrite_quotation6};
use crate::skb::{ETHERNET, Skb};
use crate::stages::{PerFamily, in_work, lend};
use crate::tables::Maps;

/// A packet in TC on a device whose link-layer header takes `L2` bytes: none or an Ethernet one.
pub struct Tc<const L2: u32> {
    pub skb: *mut __sk_buff,
    pub maps: Maps,
}

impl<F: PerFamily, const L2: u32> Steps<F> for Tc<L2> {
    type Tables = Maps;

    #[inline(always)]
    fn tables(&mut self) -> &mut Maps {
        &mut self.maps
    }

    #[inline(always)]
    fn identify(&mut self, _: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        let skb = self.skb;
        lend(work, || match (F::VERSION, L2) {
            (4, 0) => identify_l3_4(skb),
            (4, _) => identify_l2_4(skb),
            (_, 0) => identify_l3_6(skb),
            (_, _) => identify_l2_6(skb),
        })
    }

    #[inline(always)]
    fn rewrite_quotation(&mut self, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        let skb = self.skb;
        lend(work, || if F::VERSION == 4 { rewrite_quotation4(skb, L2) } else { rewrite_quotation6(skb, L2) })
    }

    #[inline(always)]
    fn leave(&mut self, _: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        let skb = self.skb;
        lend(work, || match (F::VERSION, L2) {
            (4, 0) => leave_l3_4(skb),
            (4, _) => leave_l2_4(skb),
            (_, 0) => leave_l3_6(skb),
            (_, _) => leave_l2_6(skb),
        })
    }

    #[inline(always)]
    fn clamp(&mut self, transport: u32, largest: u16) {
        match L2 {
            0 => clamp_l3(self.skb, transport, largest.into()),
            _ => clamp_l2(self.skb, transport, largest.into()),
        };
    }

    #[inline(always)]
    fn answer(&mut self, _: Side, reason: DropReason, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        let (skb, reason) = (self.skb, reason as u32);
        lend(work, || match (F::VERSION, L2) {
            (4, 0) => answer_l3_4(skb, reason),
            (4, _) => answer_l2_4(skb, reason),
            (_, 0) => answer_l3_6(skb, reason),
            (_, _) => answer_l2_6(skb, reason),
        })
    }
}

/// [`mss::clamp`], verified once, for any packet.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn clamp_l3(skb: *mut __sk_buff, transport: u32, largest: u32) -> u64 {
    let mut packet = Skb::<0>::new(skb);
    packet.linearise_options(transport);
    mss::clamp(&mut packet, transport, largest as u16);
    0
}

/// As above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn clamp_l2(skb: *mut __sk_buff, transport: u32, largest: u32) -> u64 {
    let mut packet = Skb::<ETHERNET>::new(skb);
    packet.linearise_options(transport);
    mss::clamp(&mut packet, transport, largest as u16);
    0
}

macro_rules! steps {
    ($family:ty, $l2:expr, $identify:ident, $leave:ident, $answer:ident) => {
        /// [`pipeline::identify`], verified once, for any packet.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $identify(skb: *mut __sk_buff) -> u64 {
            let packet = Skb::<{ $l2 }>::new(skb);
            packet.linearise_headers();
            in_work::<$family>(|maps, work| {
                pipeline::identify::<$family, _, _>(&packet, work.side(), false, maps, work)
            })
        }

        /// [`pipeline::leave`], verified once, for any packet.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $leave(skb: *mut __sk_buff) -> u64 {
            let mut packet = Skb::<{ $l2 }>::new(skb);
            in_work::<$family>(|maps, work| {
                pipeline::leave::<$family, _, _>(&mut packet, work.side(), maps, work)
            })
        }

        /// [`pipeline::answer`], verified once, for any packet.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $answer(skb: *mut __sk_buff, reason: u32) -> u64 {
            let mut packet = Skb::<{ $l2 }>::new(skb);
            let Some(reason) = DropReason::from_number(reason as u8) else { return 0 };
            in_work::<$family>(|maps, work| {
                Ok(pipeline::answer::<$family, _, _>(&mut packet, maps, work.side(), reason, work))
            })
        }
    };
}

macro_rules! learn {
    ($family:ty, $learn:ident) => {
        /// [`hop::learn`] from a frame on its way out of an Ethernet; `answers` is the side its flow's answers come from.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $learn(skb: *mut __sk_buff, answers: u32) -> u64 {
            let Some(mac) = Skb::<0>::new(skb).read::<6>(0) else { return 0 };
            let answers = Side::from_number(answers as u8);
            in_work::<$family>(|maps, work| {
                let now = clock::now(maps.config);
                let packet = Skb::<ETHERNET>::new(skb);
                packet.linearise_headers();
                // SAFETY: the context of a TC program, whose fields may be read.
                let device = unsafe { (*skb).ifindex };
                hop::learn::<$family, _, _>(&packet, device, answers, maps, now, mac, work);
                Ok(true)
            })
        }
    };
}

learn!(V4, learn_4);
learn!(V6, learn_6);

steps!(V4, 0, identify_l3_4, leave_l3_4, answer_l3_4);
steps!(V6, 0, identify_l3_6, leave_l3_6, answer_l3_6);
steps!(V4, ETHERNET, identify_l2_4, leave_l2_4, answer_l2_4);
steps!(V6, ETHERNET, identify_l2_6, leave_l2_6, answer_l2_6);
