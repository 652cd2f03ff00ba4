//! Flows: two half-entries each, one per direction, keyed by the tuple as it is on the wire in that direction.
//!
//! A packet needs one look-up and writes only its own half: no sorted tuples, no second probe for replies, and no cache
//! line that two processors write when each serves one direction. The key of the other half follows from the addresses
//! after translation, so halves need no pointers to each other.

use crate::family::{Address4, Address6};

/// Version of what the words of a key and a half-entry mean. Raise it with every change that programs of before would
/// misread: entries of another version are never looked at.
pub const LAYOUT: u32 = 1;

/// Where a packet came from: the hook that sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Side {
    /// Decrypted from the overlay.
    Overlay = 1,
    /// A site device.
    Site = 2,
    /// The agent's own host, into the overlay.
    Local = 3,
}

impl Side {
    /// Every side.
    pub const ALL: [Side; 3] = [Side::Overlay, Side::Site, Side::Local];

    /// The name in events and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Side::Overlay => "overlay",
            Side::Site => "site",
            Side::Local => "local",
        }
    }

    /// The side with this number; anything unknown is `Local`, the side with the fewest rights.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Side::Overlay,
            2 => Side::Site,
            _ => Side::Local,
        }
    }
}

/// Key of a half-entry: the tuple on the wire, ports in host order, addresses in network order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Key<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port, or the id of an ICMP echo request.
    pub source_port: u16,
    /// Destination port, or the id of an ICMP echo reply.
    pub destination_port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// `Side` the packet comes from.
    pub side: u8,
    /// Zero.
    pub padding: u16,
}

/// One direction of a flow: 64 bytes for IPv4, one cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow<A> {
    /// Packets of this direction.
    pub packets: u64,
    /// Bytes of this direction, from the IP header on.
    pub bytes: u64,
    /// When the last packet of this direction passed, in ticks.
    pub last_seen: u32,
    /// Ticks without a packet after which this direction is over.
    pub timeout: u32,
    /// Epoch of the image that last admitted the flow.
    pub epoch: u32,
    /// Slot of the rule that admitted it.
    pub rule: u32,
    /// Source after translation.
    pub source: A,
    /// Destination after translation.
    pub destination: A,
    /// Source port after translation, host order.
    pub source_port: u16,
    /// Destination port after translation, host order.
    pub destination_port: u16,
    /// Route number of the flow, where it leaves to the site: in both halves.
    pub route: u16,
    /// `State`.
    pub state: u8,
    /// `REPLY`, `TRANSLATED`, `FIN`.
    pub flags: u8,
    /// `Side` of the other half's key.
    pub other_side: u8,
    /// `Exit` of this direction.
    pub exit: u8,
    /// Zero.
    pub padding: u16,
    /// The neighbour this direction was last sent to.
    pub hop: Hop,
}

/// A neighbour's link-layer address, as the kernel resolved it: learned from a packet it sent, good for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Hop {
    /// Tick in which it was learned.
    pub learned: u32,
    /// The address, as it is on the wire.
    pub mac: [u8; 6],
    /// 0, or [`KNOWN`], with [`SENDS`] or without.
    pub known: u16,
}

/// There is a neighbour.
pub const KNOWN: u16 = 1;
/// XDP can send by the device that leads to it.
pub const SENDS: u16 = 2;

impl Hop {
    /// Whether it may still be used: younger than `lifetime` ticks, and than `since`, the tick in which neighbours last
    /// changed.
    #[inline(always)]
    pub fn is_good(&self, now: u32, lifetime: u32, since: u32) -> bool {
        let (age, changed) = (age(now, self.learned), age(now, since));
        self.known != 0 && age < lifetime && age < changed
    }
}

/// Ticks since `then`, modulo 2^32; none where another processor's clock was one ahead.
#[inline(always)]
const fn age(now: u32, then: u32) -> u32 {
    let age = now.wrapping_sub(then);
    if age as i32 == -1 { 0 } else { age }
}

/// This half carries replies.
pub const REPLY: u8 = 1;
/// Addresses or ports change in this direction.
pub const TRANSLATED: u8 = 2;
/// A FIN was seen in this direction.
pub const FIN: u8 = 4;

const _: () = assert!(size_of::<Key<Address4>>() == 16 && size_of::<Flow<Address4>>() == 64);
const _: () = assert!(size_of::<Key<Address6>>() == 40 && size_of::<Flow<Address6>>() == 88);

/// How a direction leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// To the host's own stack.
    Host = 1,
    /// Out of a site device.
    Site = 2,
    /// Into the overlay.
    Overlay = 3,
}

impl Exit {
    /// The exit with this number; anything unknown stays on the host.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            2 => Exit::Site,
            3 => Exit::Overlay,
            _ => Exit::Host,
        }
    }
}

/// Life of a flow, the same in both halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Not TCP: no reply seen.
    Unreplied = 1,
    /// Not TCP: the opener has sent again after a reply.
    Replied = 2,
    /// SYN seen.
    SynSent = 3,
    /// SYN and SYN-ACK seen.
    SynReceived = 4,
    /// The handshake is complete.
    Established = 5,
    /// One FIN seen.
    Closing = 6,
    /// Both FINs seen.
    TimeWait = 7,
    /// A RST was seen. What still passes keeps it alive, so that a forged RST ends nothing (RFC 5961 1).
    Reset = 8,
    /// Not TCP: a reply was seen, and nothing of the opener since.
    Answered = 9,
}

impl State {
    /// The name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            State::Unreplied => "unreplied",
            State::Replied => "replied",
            State::SynSent => "syn_sent",
            State::SynReceived => "syn_received",
            State::Established => "established",
            State::Closing => "closing",
            State::TimeWait => "time_wait",
            State::Reset => "reset",
            State::Answered => "answered",
        }
    }

    /// The state with this number; anything unknown is `Reset`, the shortest-lived.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => State::Unreplied,
            2 => State::Replied,
            3 => State::SynSent,
            4 => State::SynReceived,
            5 => State::Established,
            6 => State::Closing,
            7 => State::TimeWait,
            9 => State::Answered,
            _ => State::Reset,
        }
    }

    /// Whether a flow that comes to this state moves to the table that never evicts: its opener has sent again after an
    /// answer, so that it means to talk. One answer alone, or a RST, would let whoever may open flows fill that table with
    /// one packet a flow. A flow that is there stays there.
    #[inline(always)]
    pub const fn is_confirmed(self) -> bool {
        matches!(self, State::Replied | State::Established | State::Closing | State::TimeWait)
    }

    /// Whether the opening still counts against its source: nobody answered, or nobody finished a TCP handshake.
    #[inline(always)]
    pub const fn is_waiting(self) -> bool {
        matches!(self, State::Unreplied | State::SynSent | State::SynReceived)
    }
}

/// Ticks without a packet after which a flow is over, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Timeouts {
    /// `SynSent` and `SynReceived`.
    pub tcp_handshake: u32,
    /// `Established`.
    pub tcp_established: u32,
    /// `Closing`.
    pub tcp_closing: u32,
    /// `TimeWait`.
    pub tcp_time_wait: u32,
    /// `Reset`.
    pub tcp_reset: u32,
    /// UDP without a reply, or with one after which its opener was silent.
    pub udp_unreplied: u32,
    /// UDP with replies.
    pub udp: u32,
    /// ICMP, all states.
    pub icmp: u32,
    /// Other protocols, all states.
    pub other: u32,
    /// A datagram in fragments, from its first on.
    pub fragment: u32,
}

impl Timeouts {
    /// The defaults, for `hz` ticks a second. TCP established 3 h and handshake 60 s, closing 60 s and time-wait 4 min are
    /// NetBird's; UDP 2 min replied is RFC 4787 REQ-5, 30 s unreplied is nf_conntrack's; ICMP 60 s is RFC 5508 REQ-2;
    /// fragments 30 s is Linux's (ip_fragment.c), of the 15 s to 120 s that RFC 1122 3.3.2 and RFC 8200 4.5 name.
    pub const fn defaults(hz: u32) -> Self {
        Self {
            tcp_handshake: 60 * hz,
            tcp_established: 3 * 3600 * hz,
            tcp_closing: 60 * hz,
            tcp_time_wait: 240 * hz,
            tcp_reset: 10 * hz,
            udp_unreplied: 30 * hz,
            udp: 120 * hz,
            icmp: 60 * hz,
            other: 120 * hz,
            fragment: 30 * hz,
        }
    }

    /// The time-out of the states in which a flow spends its life: of an established TCP connection, of anything else that
    /// was answered.
    #[inline(always)]
    pub const fn quiet(&self, protocol: u8, icmp: u8) -> u32 {
        let tcp = protocol == crate::packet::protocol::TCP;
        self.of(if tcp { State::Established } else { State::Replied }, protocol, icmp)
    }

    /// The time-out of `state` for `protocol`.
    #[inline(always)]
    pub const fn of(&self, state: State, protocol: u8, icmp: u8) -> u32 {
        match state {
            State::SynSent | State::SynReceived => self.tcp_handshake,
            State::Established => self.tcp_established,
            State::Closing => self.tcp_closing,
            State::TimeWait => self.tcp_time_wait,
            State::Reset => self.tcp_reset,
            State::Unreplied | State::Answered | State::Replied if protocol == icmp => self.icmp,
            State::Replied if protocol == crate::packet::protocol::UDP => self.udp,
            State::Unreplied | State::Answered if protocol == crate::packet::protocol::UDP => {
                self.udp_unreplied
            }
            State::Unreplied | State::Answered | State::Replied => self.other,
        }
    }

    /// The longest that a flow may live while nobody answers.
    #[inline(always)]
    pub const fn longest_waiting(&self) -> u32 {
        let longer =
            if self.udp_unreplied > self.tcp_handshake { self.udp_unreplied } else { self.tcp_handshake };
        let other = if self.icmp > self.other { self.icmp } else { self.other };
        if other > longer { other } else { longer }
    }
}

impl<A: Copy> Flow<A> {
    /// Key of the other half, for a half of `protocol`.
    #[inline(always)]
    pub fn other_key(&self, protocol: u8) -> Key<A> {
        Key {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol,
            side: self.other_side,
            padding: 0,
        }
    }

    /// Whether this direction has been silent for longer than it may.
    #[inline(always)]
    pub fn is_over(&self, now: u32) -> bool {
        // A packet on another processor may have stamped a later tick: that is not an age of 2^32.
        let age = now.wrapping_sub(self.last_seen) as i32;
        age > 0 && age as u32 > self.timeout
    }

    /// Whether this half carries replies.
    #[inline(always)]
    pub fn is_reply(&self) -> bool {
        self.flags & REPLY != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_is_good_until_it_is_old_or_neighbours_changed_since() {
        for start in [0u32, 5_000, 0x7fff_ff00, 0x8000_1000, u32::MAX - 20] {
            let hop = Hop { learned: start.wrapping_add(10), mac: [2; 6], known: KNOWN };
            let good = |after: u32, since: u32| {
                hop.is_good(start.wrapping_add(after), 100, start.wrapping_add(since))
            };
            assert!(good(10, 9) && good(9, 8) && good(109, 0), "{start}");
            assert!(!good(110, 0) && !good(20, 10) && !good(20, 15), "{start}");
        }
        // Neighbours that never changed are no news after 25 days.
        let hop = Hop { learned: 0x8000_0000, mac: [2; 6], known: KNOWN };
        assert!(hop.is_good(0x8000_0005, 100, 0));
        assert!(!Hop::default().is_good(0, 100, 0));
    }
}
