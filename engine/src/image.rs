//! The compiled image: flat arrays of host-order `u32` words that the packet program interprets.
//!
//! An image is a sequence of 64-byte lines of 16 words; its length is a whole number of lines. Lines 0 to 2 are the header.
//! A packet is judged in four steps, each a fixed number of loads whatever the number of policies:
//!
//! 1. source address -> rows: IPv4 overlay addresses by direct index into `hosts4`, every other address by branch-free search
//!    over interval boundaries;
//! 2. destination address -> destination class, by the same search; the class's two words, on one line, say how to get there
//!    and which columns are its own;
//! 3. (row, column) -> cell, through deduplicated pages of 16 blocks and deduplicated blocks of 16 cells;
//! 4. a cell is a decision, or names a service set: intervals over the folded protocol/port axis, searched in turn.
//!
//! Where the rules are few, a source has one row and a destination one column. Where one row for each combination of source
//! sets would be too many, a source has a list of up to 16 of them, and destinations have lists of columns alike. Steps 3 and
//! 4 are then done for each pair: drop beats accept, and among decisions of one action the one of the lowest rank holds.
//!
//! | header word | meaning |
//! |---|---|
//! | 0 | `MAGIC` |
//! | 1 | `LAYOUT` |
//! | 2 | length of the image in words, a multiple of 16 |
//! | 3, 4, 5 | `hosts4`: first address, number of addresses, offset (one [`Places`] of rows per address) |
//! | 6, 7, 8 | `src4`: number of intervals, offset of starts, offset of their `Places` of rows |
//! | 9, 10, 11 | `src6`: the same; a start is four words, most significant first |
//! | 12, 13, 14 | `dst4`: number of intervals, offset of starts, offset of destination classes |
//! | 15, 16, 17 | `dst6`: the same |
//! | 18 | offset of destination classes, two words each: [`Attributes`], `Places` of columns |
//! | 19 | pages in a row: columns / 256, rounded up |
//! | 20 | offset of rows: page number by `row * pages in a row + column / 256` |
//! | 21 | offset of pages (16 block numbers each) |
//! | 22 | offset of blocks (16 cells each) |
//! | 23 | offset of service entries (two words each: first value, decision) |
//! | 24, 25 | offset of lists of rows, of lists of columns: 16 numbers each; 0 ends a shorter one |
//! | 26 | offset of ranks, one word per rule slot: of two rules of one action the lower rank decides |
//! | 27 | `Places` of the agent itself, which no other source has; 0 when the image does not say |
//! | 28 to 31 | zero |
//! | 32, 33, 34 | number of destination classes, of rows, of columns |
//! | 35, 36, 37 | number of pages, of blocks, of service entries |
//! | 38, 39 | number of lists of rows, of lists of columns |
//! | 40 | number of ranks: 0 in an image without lists |
//! | 41 | rule slots: highest slot in use + 1 |
//! | 42 | routes: highest route number in use + 1 |
//! | 43 to 47 | zero |
//!
//! Every offset is in words and starts a line. Interval arrays have a power of two of entries, start with 0, rise, and are
//! padded with starts of all ones that repeat the last value. Row 0, column 0 and destination class 0 mean "nobody": the
//! compiler never gives them a decision. Page 0 and block 0 are empty: they stand for all that have no rule. What is judged reads lines 0 and 1 of the header alone. Source: `reference`
//! measurements in docs/architecture.md.

/// First word of an image: "SLG1".
pub const MAGIC: u32 = 0x534c_4731;
/// Version of this layout.
pub const LAYOUT: u32 = 2;
/// Words in a line: 64 bytes, one cache line.
pub const LINE: usize = 16;
/// Words in the header.
pub const HEADER: usize = 48;
/// Cells behind one page number of a row.
pub const PAGE: usize = LINE * LINE;
/// The most rows a source, and the most columns a destination, may have.
pub const LIST_MAX: usize = LINE;
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
    pub const CLASSES: usize = 18;
    pub const ROW_PAGES: usize = 19;
    pub const ROWS: usize = 20;
    pub const PAGES: usize = 21;
    pub const BLOCKS: usize = 22;
    pub const SERVICES: usize = 23;
    pub const ROW_LISTS: usize = 24;
    pub const COLUMN_LISTS: usize = 25;
    pub const RANKS: usize = 26;
    pub const OWN: usize = 27;
    pub const CLASSES_LEN: usize = 32;
    pub const ROWS_LEN: usize = 33;
    pub const COLUMNS_LEN: usize = 34;
    pub const PAGES_LEN: usize = 35;
    pub const BLOCKS_LEN: usize = 36;
    pub const SERVICES_LEN: usize = 37;
    pub const ROW_LISTS_LEN: usize = 38;
    pub const COLUMN_LISTS_LEN: usize = 39;
    pub const RANKS_LEN: usize = 40;
    pub const RULE_SLOTS: usize = 41;
    pub const ROUTES: usize = 42;
    /// Words that are zero in this layout.
    pub const RESERVED: [core::ops::Range<usize>; 2] = [OWN + 1..32, ROUTES + 1..super::HEADER];
}

/// Where in the matrix a source or a destination is: one row or column by its number, or a list of them.
///
/// 0 is "nobody". With bit 31 set the other bits number a list, otherwise a row or column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Places(pub u32);

impl Places {
    const LIST: u32 = 1 << 31;

    /// One row or column.
    pub const fn one(number: u32) -> Self {
        Self(number)
    }

    /// Those of a list.
    pub const fn listed(list: u32) -> Self {
        Self(Self::LIST | list)
    }

    /// The number of the list, if it is one.
    #[inline(always)]
    pub const fn list(self) -> Option<u32> {
        if self.0 & Self::LIST != 0 { Some(self.0 & !Self::LIST) } else { None }
    }
}

/// How a packet for a destination class leaves: the first word of a destination class.
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
