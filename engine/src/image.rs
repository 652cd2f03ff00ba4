//! The compiled image: flat arrays of host-order `u32` words that the packet program interprets.
//!
//! An image is a sequence of 64-byte lines of 16 words; its length is a whole number of lines. Line 0 and 1 are the header.
//! A packet is judged in four steps, each a fixed number of loads whatever the number of policies:
//!
//! 1. source address -> source class: IPv4 overlay addresses by direct index into `hosts4`, every other address by
//!    branch-free search over interval boundaries;
//! 2. destination address -> destination class, by the same search; the class's attribute word says how to get there;
//! 3. (source class, destination class) -> cell, through rows of deduplicated 16-cell blocks;
//! 4. a cell is a decision, or names a service set: intervals over the folded protocol/port axis, searched in turn.
//!
//! | header word | meaning |
//! |---|---|
//! | 0 | `MAGIC` |
//! | 1 | `LAYOUT` |
//! | 2 | length of the image in words, a multiple of 16 |
//! | 3, 4, 5 | `hosts4`: first address, number of addresses, offset (one source class per address) |
//! | 6, 7, 8 | `src4`: number of intervals, offset of starts, offset of classes |
//! | 9, 10, 11 | `src6`: the same; a start is four words, most significant first |
//! | 12, 13, 14 | `dst4` |
//! | 15, 16, 17 | `dst6` |
//! | 18, 19 | number of source classes, of destination classes |
//! | 20 | blocks in a row: destination classes / 16, rounded up |
//! | 21 | offset of rows: block number by `source class * blocks in a row + destination class / 16` |
//! | 22, 23 | offset of blocks (16 cells each), number of blocks |
//! | 24, 25 | offset of service entries (two words each: first value, decision), number of entries |
//! | 26 | offset of attributes, one word per destination class |
//! | 27 | rule slots: highest slot in use + 1 |
//! | 28 | routes: highest route number in use + 1 |
//! | 29 | source class of the agent itself; 0 when the image does not say |
//! | 30, 31 | zero |
//!
//! Every offset is in words and starts a line. Interval arrays have a power of two of entries, start with 0, rise, and are
//! padded with starts of all ones that repeat the last value. Source class 0 and destination class 0 mean "nobody": the
//! compiler never gives them a decision. Source: `reference` measurements in docs/architecture.md.

/// First word of an image: "SLG1".
pub const MAGIC: u32 = 0x534c_4731;
/// Version of this layout.
pub const LAYOUT: u32 = 1;
/// Words in a line: 64 bytes, one cache line.
pub const LINE: usize = 16;
/// Words in the header.
pub const HEADER: usize = 32;
/// Log2 of the most entries a service set may have.
pub const SERVICE_LOG_MAX: u32 = 12;
/// Log2 of the most intervals a search array may have.
pub const INTERVALS_LOG_MAX: u32 = 18;
/// Rule slots are below this.
pub const SLOTS_MAX: u32 = 1 << 28;
/// Route numbers are below this.
pub const ROUTES_MAX: u32 = 1 << 16;

/// Header word indices; see the module's table.
pub mod header {
    #![expect(missing_docs, reason = "the module's table documents each word")]
    pub const MAGIC: usize = 0;
    pub const LAYOUT: usize = 1;
    pub const WORDS: usize = 2;
    pub const HOSTS4_BASE: usize = 3;
    pub const HOSTS4_LEN: usize = 4;
    pub const HOSTS4: usize = 5;
    pub const SRC4_LEN: usize = 6;
    pub const SRC4: usize = 7;
    pub const SRC4_CLASS: usize = 8;
    pub const SRC6_LEN: usize = 9;
    pub const SRC6: usize = 10;
    pub const SRC6_CLASS: usize = 11;
    pub const DST4_LEN: usize = 12;
    pub const DST4: usize = 13;
    pub const DST4_CLASS: usize = 14;
    pub const DST6_LEN: usize = 15;
    pub const DST6: usize = 16;
    pub const DST6_CLASS: usize = 17;
    pub const SRC_CLASSES: usize = 18;
    pub const DST_CLASSES: usize = 19;
    pub const ROW_BLOCKS: usize = 20;
    pub const ROWS: usize = 21;
    pub const BLOCKS: usize = 22;
    pub const BLOCKS_LEN: usize = 23;
    pub const SERVICES: usize = 24;
    pub const SERVICES_LEN: usize = 25;
    pub const ATTRIBUTES: usize = 26;
    pub const RULE_SLOTS: usize = 27;
    pub const ROUTES: usize = 28;
    pub const OWN: usize = 29;
}

/// How a packet for a destination class leaves: one word, in `ATTRIBUTES`.
///
/// Bits 0..16 are the route number, valid with `ROUTED`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub u32);

impl Attributes {
    /// The agent's own overlay address: to the host's stack.
    pub const LOCAL: u32 = 1 << 31;
    /// A prefix this agent routes: to the site, by the route's egress.
    pub const ROUTED: u32 = 1 << 30;
    /// With `ROUTED`: the source becomes the egress address.
    pub const MASQUERADE: u32 = 1 << 29;
    /// Reached through the overlay, for flows this agent's own host opens.
    pub const REMOTE: u32 = 1 << 28;

    /// Whether the destination is this agent's own address.
    #[inline(always)]
    pub const fn local(self) -> bool {
        self.0 & Self::LOCAL != 0
    }

    /// The route towards the destination, where this agent is a router of it.
    #[inline(always)]
    pub const fn route(self) -> Option<u16> {
        if self.0 & Self::ROUTED != 0 { Some(self.0 as u16) } else { None }
    }

    /// Whether flows to the destination are masqueraded.
    #[inline(always)]
    pub const fn masquerade(self) -> bool {
        self.0 & Self::MASQUERADE != 0
    }

    /// Whether the destination is reached through the overlay.
    #[inline(always)]
    pub const fn remote(self) -> bool {
        self.0 & Self::REMOTE != 0
    }
}

/// What the rules say, as one word: in service entries, and in cells that need no ports.
///
/// 0 is "no rule". Otherwise bit 31 is set, bit 30 is accept, and bits 0..28 are the rule slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision(pub u32);

impl Decision {
    /// No rule matches: default deny.
    pub const NONE: Self = Self(0);
    const SET: u32 = 1 << 31;
    const ACCEPT: u32 = 1 << 30;

    /// An accept rule decides.
    pub const fn accept(slot: u32) -> Self {
        Self(Self::SET | Self::ACCEPT | slot)
    }

    /// A drop rule decides.
    pub const fn drop(slot: u32) -> Self {
        Self(Self::SET | slot)
    }

    /// Whether any rule decided.
    #[inline(always)]
    pub const fn is_set(self) -> bool {
        self.0 & Self::SET != 0
    }

    /// Whether the deciding rule accepts.
    #[inline(always)]
    pub const fn accepts(self) -> bool {
        self.0 & (Self::SET | Self::ACCEPT) == Self::SET | Self::ACCEPT
    }

    /// The deciding rule's slot; 0 when none.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        self.0 & (SLOTS_MAX - 1)
    }
}

/// One cell of the class matrix.
///
/// A word with bit 31 set is a [`Decision`] for every packet; 0 is "no rule"; anything else names a service set:
/// bits 0..4 are log2 of its entries, bits 4..31 its first entry divided by 8 (a set starts a line).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell(pub u32);

impl Cell {
    /// A cell that names a service set. `first` is a multiple of 8; `log` is at least 3.
    pub const fn services(first: u32, log: u32) -> Self {
        Self((first / 8) << 4 | log)
    }

    /// A cell decided without looking at protocol and ports.
    pub const fn decided(decision: Decision) -> Self {
        Self(decision.0)
    }
}

/// The folded protocol/port axis: `class << 16 | value`.
pub mod axis {
    /// Any protocol without a class of its own; the value is the IP protocol number.
    pub const OTHER: u32 = 0;
    /// TCP; the value is the destination port.
    pub const TCP: u32 = 1 << 16;
    /// UDP; the value is the destination port.
    pub const UDP: u32 = 2 << 16;
    /// ICMP; the value is type << 8 | code.
    pub const ICMP: u32 = 3 << 16;
    /// ICMPv6; the value is type << 8 | code.
    pub const ICMPV6: u32 = 4 << 16;
    /// One past the last value.
    pub const END: u32 = 5 << 16;
}
