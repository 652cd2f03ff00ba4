//! Fragments: the first of a datagram decides, the later ones follow it.
//!
//! The first fragment holds the whole transport header, or it is no first fragment: it is judged like a packet that is
//! whole, and where a flow lets it pass, the datagram is remembered with its ports. Later fragments take those ports and pass
//! through the flow like any packet of it, so that revocation, counters and the way out are the flow's. Nothing is put
//! together here and nothing waits: a later fragment that comes before its first is dropped.
//!
//! What passes never overlaps (RFC 1858, 3128, 5722): of each datagram the parts that have passed are remembered. A fragment
//! whose bytes have all passed is dropped alone, as a repetition; one that overlaps in any other way, reaches into the
//! first fragment, contradicts the end or leaves too many gaps poisons its datagram: nothing more of it passes.

use crate::family::{Address4, Address6};
use crate::reason::DropReason;
use crate::stage::Refusal;
use crate::tables::{Egresses, Refused, Tables};
use crate::work::{Work, settle};

/// Parts of a datagram remembered apart: as many gaps as reordering on real paths leaves open, and few enough to look at
/// each for every fragment.
pub const PARTS: usize = 4;

/// Datagrams remembered at once, of each family. A table of 112 bytes an entry in IPv4; whoever is allowed to send may fill it
/// in the time that as many first fragments take, and then ends those datagrams that take longer.
pub const DATAGRAMS: u32 = 8192;

/// Most bytes a datagram has (RFC 791 3.1, RFC 8200 4.5).
const DATAGRAM_MAX: u32 = 65_535;
/// Fragments start at multiples of this many bytes.
const UNIT: u32 = 8;

/// What the fragmentation fields of a packet say. All zero for a packet that is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Identification; 16 bits in IPv4.
    pub id: u32,
    /// Where its data starts in the datagram, in units of eight bytes.
    pub start: u16,
    /// Where it ends, rounded up; 0 for a packet that is whole.
    pub end: u16,
    /// The protocol that the fragmentation fields name; in IPv6 it may be another extension header's number.
    pub protocol: u8,
    /// Whether no more fragments follow.
    pub last: bool,
}

impl Piece {
    /// Notes what the fields say of a packet with `bytes` behind its headers; `start` in units of eight bytes. A datagram in
    /// one fragment is whole (RFC 6946). Returns what is wrong with it.
    #[inline(always)]
    pub(crate) fn set(
        &mut self,
        id: u32,
        protocol: u8,
        start: u16,
        more: bool,
        bytes: u32,
    ) -> Option<DropReason> {
        if start == 0 && !more {
            return None;
        }
        let end = u32::from(start) * UNIT + bytes;
        if bytes == 0 || more && !bytes.is_multiple_of(UNIT) || end > DATAGRAM_MAX {
            return Some(DropReason::Malformed);
        }
        *self = Self { id, start, end: end.div_ceil(UNIT) as u16, protocol, last: !more };
        None
    }

    /// Makes it the piece of a packet that is whole. The other fields mean nothing then, and the compiler would clear all of
    /// them byte by byte in the kernel.
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Whether the packet is a fragment.
    #[inline(always)]
    pub const fn is_set(&self) -> bool {
        self.end != 0
    }

    /// Whether it is the fragment with the transport header.
    #[inline(always)]
    pub const fn is_first(&self) -> bool {
        self.end != 0 && self.start == 0
    }

    /// Whether it is a fragment without the transport header.
    #[inline(always)]
    pub const fn is_later(&self) -> bool {
        self.start != 0
    }
}

/// Which datagram a fragment is of (RFC 791 3.2, RFC 8200 4.5), and where it came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct DatagramKey<A> {
    /// Source on the wire.
    pub source: A,
    /// Destination on the wire.
    pub destination: A,
    /// Identification, host order.
    pub id: u32,
    /// The protocol that the fragments name.
    pub protocol: u8,
    /// `Side` they come from.
    pub side: u8,
    /// Zero.
    pub padding: u16,
}

/// Part of a datagram in units of eight bytes, `start..end`; empty when `end` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Part {
    /// First unit.
    pub start: u16,
    /// One past the last.
    pub end: u16,
}

/// A datagram whose first fragment has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Datagram {
    /// Last tick in which fragments follow.
    pub deadline: u64,
    /// The table's own, for keeping two processors apart.
    pub busy: u64,
    /// Ports of the flow on this side, as in its key.
    pub source_port: u16,
    /// See `source_port`.
    pub destination_port: u16,
    /// What has passed; apart from each other.
    pub parts: [Part; PARTS],
    /// Where the first fragment ends, units.
    pub first: u16,
    /// Where the datagram ends, units; 0 until its last fragment has passed.
    pub end: u16,
    /// The flow's protocol.
    pub protocol: u8,
    /// Not zero when nothing more passes.
    pub poisoned: u8,
    /// What was found about the fragment that came last.
    pub found: Found,
    /// Zero.
    pub padding: u16,
}

/// Numbers of the part that a fragment continues, of the one that continues it, and of an empty one; 4 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Found {
    before: u8,
    behind: u8,
    empty: u8,
    /// Not zero when the datagram would end before a part that has passed.
    ends_early: u8,
}

const NONE: u8 = PARTS as u8;

const _: () = assert!(size_of::<DatagramKey<Address4>>() == 16 && size_of::<DatagramKey<Address6>>() == 40);
const _: () = assert!(size_of::<Datagram>() == 48);

/// What a fragment is to its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Its bytes are new.
    New,
    /// Its bytes have all passed.
    Again,
    /// It poisons the datagram, or came after one that did.
    Poison,
}

impl Datagram {
    /// Whether it may still be followed at `now`.
    #[inline(always)]
    pub const fn is_live(&self, now: u64) -> bool {
        now <= self.deadline
    }

    /// Whether all of it has passed: the receiver has put it together, and the id may be used again.
    #[inline(always)]
    fn is_complete(&self) -> bool {
        let whole = |part: &Part| part.start == 0 && part.end == self.end;
        self.end != 0
            && (whole(&self.parts[0])
                || whole(&self.parts[1])
                || whole(&self.parts[2])
                || whole(&self.parts[3]))
    }

    /// Finds the place of a fragment, and takes it.
    #[inline(always)]
    fn place(&mut self, piece: &Piece) -> Place {
        let place = if self.poisoned != 0 { Place::Poison } else { self.fit(piece) };
        if matches!(place, Place::Poison) {
            self.poisoned = 1;
        }
        place
    }

    #[inline(always)]
    fn fit(&mut self, piece: &Piece) -> Place {
        let Piece { start, end, last, .. } = *piece;
        if start < self.first {
            let same = start == 0 && end == self.first && !last;
            return if same { Place::Again } else { Place::Poison };
        }
        if self.end != 0 && (end > self.end || last && end != self.end) {
            return Place::Poison;
        }
        // Kept in the entry itself: `settle` tells why.
        let Found { before, behind, empty, ends_early } = &mut self.found;
        settle(before, NONE);
        settle(behind, NONE);
        settle(empty, NONE);
        settle(ends_early, 0);
        let mut i = 0;
        while i < PARTS {
            let part = self.parts[i];
            if part.end == 0 {
                settle(empty, i as u8);
            } else if start >= part.start && end <= part.end {
                return Place::Again;
            } else if start < part.end && part.start < end {
                return Place::Poison;
            } else if part.end == start {
                settle(before, i as u8);
            } else if part.start == end {
                settle(behind, i as u8);
            }
            if last && part.end > end {
                settle(ends_early, 1);
            }
            i += 1;
        }
        let Found { before, behind, empty, ends_early } = self.found;
        let part = |number: u8| usize::from(number) % PARTS;
        if ends_early != 0 {
            return Place::Poison;
        }
        if before != NONE {
            self.parts[part(before)].end = end;
            if behind != NONE {
                self.parts[part(before)].end = self.parts[part(behind)].end;
                self.parts[part(behind)] = Part::default();
            }
        } else if behind != NONE {
            self.parts[part(behind)].start = start;
        } else if empty != NONE {
            self.parts[part(empty)] = Part { start, end };
        } else {
            return Place::Poison;
        }
        if last {
            self.end = end;
        }
        Place::New
    }
}

/// The stage for a fragment that has arrived. `Ok(true)`: it is a later one, of a datagram whose first has passed, and
/// `work` now has the ports of that. `Ok(false)`: nothing of its datagram has passed, so that a first fragment is judged as a
/// packet and a later one belongs nowhere. Only `looking`, the table stays as it is, and `Ok(true)` says that something of
/// its datagram has passed.
#[inline(always)]
pub fn follow<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    looking: bool,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    let Work { network, transport, ticks, side, datagram: key, .. } = work;
    let piece = &network.piece;
    *key = DatagramKey {
        source: network.source,
        destination: network.destination,
        id: piece.id,
        protocol: piece.protocol,
        side: *side,
        padding: 0,
    };
    let (now, later) = (*ticks, piece.is_later());
    let place = tables.with_datagram(key, |datagram| {
        if !datagram.is_live(now) || !later && datagram.is_complete() {
            return None;
        }
        if later {
            transport.source_port = datagram.source_port;
            transport.destination_port = datagram.destination_port;
            network.protocol = datagram.protocol;
        }
        Some(if looking { Place::New } else { datagram.place(&network.piece) })
    });
    match place.flatten() {
        None => Ok(false),
        Some(Place::New) => Ok(true),
        Some(Place::Again) => Err(DropReason::Fragment.into()),
        Some(Place::Poison) => Err(DropReason::FragmentOverlap.into()),
    }
}

/// The stage for a first fragment that its flow lets pass: later ones may follow it.
#[inline(always)]
pub fn remember<F: Egresses, T: Tables<F>>(tables: &mut T, work: &Work<F::Address>) -> Result<bool, Refusal> {
    let Work { network, transport, .. } = work;
    let now = work.ticks;
    let deadline = now + u64::from(tables.config().timeouts.fragment);
    let begin = |datagram: &mut Datagram| {
        datagram.deadline = deadline;
        datagram.source_port = transport.source_port;
        datagram.destination_port = transport.destination_port;
        datagram.parts =
            [Part { start: 0, end: network.piece.end }, Part::default(), Part::default(), Part::default()];
        datagram.first = network.piece.end;
        datagram.end = 0;
        datagram.protocol = network.protocol;
        datagram.poisoned = 0;
    };
    // An older datagram with its id is complete or late: `follow` has looked. Where one is there that is neither, another
    // processor has placed a first fragment since; both may not pass.
    let begun = tables.with_datagram(&work.datagram, |datagram| {
        let free = !datagram.is_live(now) || datagram.is_complete();
        if free {
            begin(datagram);
        }
        free
    });
    match begun {
        Some(true) => Ok(true),
        Some(false) => Err(DropReason::Fragment.into()),
        None => match tables.insert_datagram(&work.datagram, begin) {
            Ok(()) => Ok(true),
            Err(Refused::Exists) => Err(DropReason::Fragment.into()),
            Err(Refused::Full) => Err(DropReason::FragmentTableFull.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u16, end: u16, last: bool) -> Piece {
        Piece { id: 7, start, end, protocol: 17, last }
    }

    /// A datagram whose first fragment has `first` units.
    fn begun(first: u16) -> Datagram {
        let mut datagram = Datagram { first, ..Datagram::default() };
        datagram.parts[0] = Part { start: 0, end: first };
        datagram
    }

    #[test]
    fn fields_are_read_and_impossible_ones_refused() {
        let mut read = Piece::default();
        assert_eq!(read.set(1, 17, 0, false, 100), None);
        assert!(!read.is_set());
        assert_eq!(read.set(1, 17, 0, true, 1480), None);
        assert!(read.is_first() && !read.is_later() && read.end == 185);
        assert_eq!(read.set(1, 17, 185, false, 13), None);
        assert!(read.is_later() && read.last && (read.start, read.end) == (185, 187));
        for (start, more, bytes) in
            [(0, true, 0), (0, true, 1481), (9, true, 15), (9, false, 0), (8191, false, 8)]
        {
            assert_eq!(
                read.set(1, 17, start, more, bytes),
                Some(DropReason::Malformed),
                "{start} {more} {bytes}"
            );
        }
    }

    #[test]
    fn later_fragments_follow_in_any_order() {
        let mut datagram = begun(10);
        for (start, end, last) in [(40, 45, true), (20, 30, false), (30, 40, false), (10, 20, false)] {
            assert!(!datagram.is_complete());
            assert_eq!(datagram.place(&piece(start, end, last)), Place::New, "{start}");
        }
        assert!(datagram.is_complete());
        assert_eq!(datagram.place(&piece(20, 30, false)), Place::Again);
        assert_eq!(datagram.poisoned, 0);
    }

    /// RFC 1858 (tiny fragments, overlapping ones), RFC 3128 (offset 1), RFC 5722, and the end told twice.
    #[test]
    fn overlaps_and_contradictions_poison() {
        let spoils: [&[(u16, u16, bool)]; 9] = [
            &[(1, 2, false)],
            &[(0, 1, false)],
            &[(0, 10, true)],
            &[(9, 11, false)],
            &[(20, 30, false), (25, 35, false)],
            &[(20, 30, false), (15, 40, false)],
            &[(20, 30, true), (30, 31, false)],
            &[(20, 30, true), (10, 20, true)],
            &[(20, 30, false), (15, 20, true)],
        ];
        for spoil in spoils {
            let mut datagram = begun(10);
            let (bad, good) = spoil.split_last().unwrap();
            good.iter().for_each(|&(s, e, l)| assert_eq!(datagram.place(&piece(s, e, l)), Place::New));
            assert_eq!(datagram.place(&piece(bad.0, bad.1, bad.2)), Place::Poison, "{spoil:?}");
            assert_eq!(datagram.place(&piece(50, 51, false)), Place::Poison, "after {spoil:?}");
        }
    }

    #[test]
    fn repetitions_are_dropped_alone() {
        let mut datagram = begun(10);
        assert_eq!(datagram.place(&piece(0, 10, false)), Place::Again);
        assert_eq!(datagram.place(&piece(10, 20, false)), Place::New);
        assert_eq!(datagram.place(&piece(10, 20, false)), Place::Again);
        assert_eq!(datagram.place(&piece(12, 14, false)), Place::Again);
        assert_eq!(datagram.place(&piece(20, 22, true)), Place::New);
    }

    #[test]
    fn too_many_gaps_poison() {
        let mut datagram = begun(2);
        for start in [10, 20, 30] {
            assert_eq!(datagram.place(&piece(start, start + 5, false)), Place::New);
        }
        // Next to one that is there is no gap.
        assert_eq!(datagram.place(&piece(25, 30, false)), Place::New);
        assert_eq!(datagram.place(&piece(40, 45, false)), Place::New);
        assert_eq!(datagram.place(&piece(50, 55, false)), Place::Poison);
    }

    /// Against a bitmap: what passes is new, every unit once, and a whole datagram is complete.
    #[test]
    fn no_unit_passes_twice() {
        let mut seed = 1u32;
        let mut below = |n: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((seed >> 16) % n) as u16
        };
        let (mut whole, mut poisoned) = (0, 0);
        for _ in 0..20_000 {
            let mut datagram = begun(4);
            let mut passed = 0b1111u64;
            let mut end = None;
            for _ in 0..12 {
                let (start, length) = (below(12) * 2, below(3) * 2 + 2);
                let last = start + length >= 20 || below(40) == 0;
                let units = ((1u64 << length) - 1) << start;
                match datagram.place(&piece(start, start + length, last)) {
                    Place::New => {
                        assert_eq!(passed & units, 0);
                        passed |= units;
                        end = end.or(last.then_some(start + length));
                    }
                    Place::Again => assert_eq!(passed & units, units),
                    Place::Poison => assert!(datagram.poisoned != 0),
                }
                assert_eq!(datagram.is_complete(), end.is_some_and(|end| passed == (1 << end) - 1));
            }
            whole += u32::from(datagram.is_complete());
            poisoned += u32::from(datagram.poisoned != 0);
        }
        assert!(whole > 100 && poisoned > 1000, "{whole} {poisoned}");
    }
}
