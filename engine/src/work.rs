//! What is known of the packet in hand.

use crate::flow::{Exit, Flow, Hop, Key, REPLY, Side, TRANSLATED};
use crate::fragment::DatagramKey;
use crate::hop::NeighbourKey;
use crate::mapping::{Mapping, MappingKey};
use crate::packet::{Network, Transport};
use crate::tables::{Active, Config};
use crate::translate::Translated;

/// Everything the engine works out about one packet. The caller lends the memory: an IPv6 packet's keys and addresses are
/// more than the kernel's 512 bytes of stack hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work<A> {
    pub(crate) network: Network<A>,
    pub(crate) transport: Transport,
    /// Of an ICMP error: the network header it quotes; offsets count from the packet's own.
    pub(crate) quoted: Network<A>,
    /// Of a fragment: which datagram it is of.
    pub(crate) datagram: DatagramKey<A>,
    /// Key of the half this packet belongs to.
    pub(crate) key: Key<A>,
    /// Key of the other half.
    pub(crate) other: Key<A>,
    pub(crate) half: Half<A>,
    pub(crate) leaving: Leaving<A>,
    /// `Side` the packet came from.
    pub(crate) side: u8,
    /// The image in force.
    pub(crate) active: Active,
    pub(crate) opening: Opening<A>,
    /// By which a neighbour is looked for.
    pub(crate) neighbour: NeighbourKey<A>,
    /// By which an entry of a mapping is looked for.
    pub(crate) mapping_key: MappingKey<A>,
    /// An entry that is written.
    pub(crate) mapping: Mapping<A>,
    /// Of an answer: the gateway's address that it comes from.
    pub(crate) own: A,
    /// For a moment; see [`Work::scratch`].
    pub(crate) scratch: u32,
    /// Ticks.
    pub(crate) ticks: u64,
    /// Their low half, by which flows age.
    pub(crate) now: u32,
}

/// The flow that a first packet opens.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opening<A> {
    /// Source address after translation; with `masquerade` one of the gateway's own.
    pub(crate) source: A,
    /// Slot of the rule that admits it.
    pub(crate) rule: u32,
    /// Ticks until it is over without a reply.
    pub(crate) timeout: u32,
    /// Source port after translation.
    pub(crate) source_port: u16,
    pub(crate) route: u16,
    /// `State`.
    pub(crate) state: u8,
    pub(crate) masquerade: bool,
    /// `Exit` of the first half, and of the reply half.
    pub(crate) exits: [u8; 2],
    /// `Side` the replies come from.
    pub(crate) reply_side: u8,
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
    pub(crate) hop: Hop,
}

/// How a packet leaves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Leaving<A> {
    pub(crate) to: Translated<A>,
    pub(crate) hop: Hop,
    /// Index of the site device, for packets that leave there.
    pub(crate) device: u32,
    /// Slot + 1 of the rule by which it leaves, or by which it does not; 0 for none.
    pub(crate) rule: u32,
    /// MTU of the way out, for packets larger than that.
    pub(crate) mtu: u32,
    pub(crate) route: u16,
    /// `Exit`.
    pub(crate) exit: u8,
    /// `DropReason`, of a packet that does not leave.
    pub(crate) reason: u8,
    pub(crate) translated: bool,
}

/// Puts `value` into memory and reads it back. Map memory is where the kernel's verifier stops following what a value is: paths
/// that only differ in one become the same path to it, and are walked once instead of every time.
#[inline(always)]
pub(crate) fn settle<T: Copy>(place: &mut T, value: T) -> T {
    // SAFETY: a reference is good for both; volatile, so that neither is left out.
    unsafe {
        core::ptr::write_volatile(place, value);
        core::ptr::read_volatile(place)
    }
}

/// What [`settle`] has put there.
#[inline(always)]
pub(crate) fn settled<T: Copy>(place: &T) -> T {
    // SAFETY: a reference is good for reading; volatile, so that it is not left out.
    unsafe { core::ptr::read_volatile(place) }
}

impl<A> Work<A> {
    /// A word for whoever needs one for a moment.
    #[inline(always)]
    pub fn scratch(&mut self) -> &mut u32 {
        &mut self.scratch
    }

    /// Starts on another packet.
    #[inline(always)]
    pub(crate) fn begin(&mut self, side: Side, now: u64) {
        // One by one: the kernel's compiler makes one call of adjacent stores of zeros, which goes byte by byte.
        let transport = &mut self.transport;
        settle(&mut transport.source_port, 0);
        settle(&mut transport.destination_port, 0);
        settle(&mut transport.flags, 0);
        settle(&mut transport.opens, false);
        settle(&mut transport.quotes, false);
        settle(&mut transport.axis, 0);
        self.side = side as u8;
        self.leaving.rule = 0;
        self.now = now as u32;
        self.ticks = now;
    }

    /// Where the packet came from, as it stands in memory: see `settle`.
    #[inline(always)]
    pub fn side(&self) -> Side {
        let number = u32::from(settled(&self.side)) & 3;
        let number = number | number.wrapping_sub(1) >> 30;
        // SAFETY: 1 to 3, each of them a side: 0 became 3.
        unsafe { core::mem::transmute::<u8, Side>(number as u8) }
    }

    /// The neighbour that a packet which has been let go leaves by, where it is known and still good.
    #[inline(always)]
    pub fn hop(&self, config: &Config) -> Option<[u8; 6]> {
        let hop = &self.leaving.hop;
        hop.is_good(self.now, config.hop_lifetime, config.hops_since).then_some(hop.mac)
    }

    /// The neighbour of a packet that [`crate::express`] carries, which has looked whether it is good: by now another processor
    /// may want the next packet to ask again.
    #[inline(always)]
    pub fn carried_to(&self) -> [u8; 6] {
        self.leaving.hop.mac
    }

    /// What the network header of the packet says.
    #[inline(always)]
    pub fn network(&self) -> &Network<A> {
        &self.network
    }

    /// Slot + 1 of the rule by which the packet was let go or refused; 0 for none.
    #[inline(always)]
    pub fn rule(&self) -> u32 {
        self.leaving.rule
    }

    /// The image in force, as it was when the packet was read.
    #[inline(always)]
    pub fn active(&self) -> Active {
        self.active
    }

    /// Number of the route that a packet which has been let go to a site leaves by.
    #[inline(always)]
    pub fn route(&self) -> u16 {
        self.leaving.route
    }
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
        self.hop = flow.hop;
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
        self.hop = flow.hop;
        self.route = flow.route;
        self.rule = flow.rule + 1;
        self.exit = flow.exit;
        self.translated = flow.flags & TRANSLATED != 0;
    }

    /// The way out for a packet from `side`: what the host itself sends is already on its way into the overlay.
    #[inline(always)]
    pub(crate) fn way(&self, side: Side) -> Exit {
        match Exit::from_number(self.exit) {
            Exit::Overlay if matches!(side, Side::Local) => Exit::Host,
            exit => exit,
        }
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
