//! What is known of the packet in hand.

use crate::flow::{Exit, Flow, Key, REPLY, TRANSLATED};
use crate::packet::{Network, Transport};
use crate::translate::Translated;

/// Everything the engine works out about one packet. The caller lends the memory: an IPv6 packet's keys and addresses are
/// more than the kernel's 512 bytes of stack hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work<A> {
    pub(crate) network: Network<A>,
    pub(crate) transport: Transport,
    /// Key of the half this packet belongs to.
    pub(crate) key: Key<A>,
    /// Key of the other half.
    pub(crate) other: Key<A>,
    pub(crate) half: Half<A>,
    pub(crate) leaving: Leaving<A>,
    /// `Side` the packet came from.
    pub(crate) side: u8,
    /// Epoch of the image in force.
    pub(crate) epoch: u32,
    /// Ticks.
    pub(crate) ticks: u64,
    /// Their low half, by which flows age.
    pub(crate) now: u32,
}

/// What is needed of a half-entry to advance its flow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Half<A> {
    pub(crate) to: Translated<A>,
    pub(crate) epoch: u32,
    pub(crate) rule: u32,
    pub(crate) route: u16,
    pub(crate) state: u8,
    pub(crate) flags: u8,
    pub(crate) other_side: u8,
    pub(crate) exit: u8,
    pub(crate) over: bool,
}

/// How a packet leaves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Leaving<A> {
    pub(crate) to: Translated<A>,
    pub(crate) route: u16,
    /// `Exit`.
    pub(crate) exit: u8,
    pub(crate) translated: bool,
}

impl<A: Copy> Half<A> {
    /// Copies it out of the table.
    #[inline(always)]
    pub(crate) fn set(&mut self, flow: &Flow<A>, now: u32) {
        self.to.set(flow);
        self.epoch = flow.epoch;
        self.rule = flow.rule;
        self.route = flow.route;
        self.state = flow.state;
        self.flags = flow.flags;
        self.other_side = flow.other_side;
        self.exit = flow.exit;
        self.over = flow.is_over(now);
    }

    #[inline(always)]
    pub(crate) fn is_reply(&self) -> bool {
        self.flags & REPLY != 0
    }
}

impl<A: Copy> Leaving<A> {
    /// As the flow says.
    #[inline(always)]
    pub(crate) fn set(&mut self, flow: &Flow<A>) {
        self.to.set(flow);
        self.route = flow.route;
        self.exit = flow.exit;
        self.translated = flow.flags & TRANSLATED != 0;
    }

    #[inline(always)]
    pub(crate) fn exit(&self) -> Exit {
        Exit::from_number(self.exit)
    }
}

impl<A: Copy> Translated<A> {
    #[inline(always)]
    fn set(&mut self, flow: &Flow<A>) {
        self.source = flow.source;
        self.destination = flow.destination;
        self.source_port = flow.source_port;
        self.destination_port = flow.destination_port;
    }
}

impl<A: Copy> Key<A> {
    /// Makes this the key of the half whose packets are the mirror image of `to`.
    #[inline(always)]
    pub(crate) fn set_mirror(&mut self, to: &Translated<A>, protocol: u8, side: u8) {
        self.source = to.destination;
        self.destination = to.source;
        self.source_port = to.destination_port;
        self.destination_port = to.source_port;
        self.protocol = protocol;
        self.side = side;
        self.padding = 0;
    }
}
