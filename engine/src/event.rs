//! What the engine tells about flows, as one fixed record for both families, and which of it is told when there is too
//! much: never is the first of a sort left out.

use crate::reason::DropReason;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EventKind {
    /// A rule admitted a flow.
    Start = 1,
    /// A packet was dropped.
    Drop = 3,
    /// A new image no longer admits a flow.
    Revoke = 4,
}

/// What an event is about: events that are alike in this are a sample of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// What happened.
    pub kind: EventKind,
    /// Why, for `Drop` and `Revoke`.
    pub reason: Option<DropReason>,
    /// Slot + 1 of the rule concerned, or 0.
    pub rule: u32,
}

impl About {
    /// Kind and reason in one word.
    #[inline(always)]
    pub const fn what(self) -> u32 {
        let reason = match self.reason {
            Some(reason) => reason as u32,
            None => 0,
        };
        (self.kind as u32) << 8 | reason
    }

    /// Fills in what it says.
    #[inline(always)]
    pub const fn fill(self, event: &mut Event) {
        event.kind = self.kind as u8;
        event.reason = self.what() as u8;
        event.rule = self.rule;
    }
}

/// When an event of one sort was last told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Seen {
    /// Which sort; 0 for none.
    tag: u32,
    /// When, ticks.
    tick: u32,
}

/// Some sorts of events that share a place in a table of [`SEEN_SETS`].
pub type SeenSet = [Seen; 4];

/// Sets in a table: 4,096 sorts, more than happen in one second but under attack.
pub const SEEN_SETS: u32 = 1024;

/// The tag of a sort of events, and the set it belongs to.
#[inline(always)]
pub const fn sort(what: u32, rule: u32) -> (u32, u32) {
    // Fibonacci hashing, twice, so that neighbouring rules do not share a set; the top bit keeps tags apart from none.
    let mixed = (rule ^ what.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0x9e37_79b1);
    ((mixed ^ mixed >> 15) | 1 << 31, mixed >> 22)
}

/// Whether no event of this sort was told in the last `second` ticks; if so, it counts as told now. A set that is full of
/// others told in that time says no.
#[inline(always)]
pub fn is_first(set: &mut SeenSet, tag: u32, now: u32, second: u32) -> bool {
    let old = |seen: &Seen| seen.tag == 0 || now.wrapping_sub(seen.tick) >= second;
    for seen in set.iter_mut() {
        if seen.tag == tag {
            let first = old(seen);
            if first {
                seen.tick = now;
            }
            return first;
        }
    }
    for seen in set.iter_mut() {
        if old(seen) {
            *seen = Seen { tag, tick: now };
            return true;
        }
    }
    false
}

/// One event. Addresses in network order, IPv4 mapped into IPv6; ports in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// Source on the wire (of the first packet of a flow).
    pub source: [u8; 16],
    /// Destination on the wire.
    pub destination: [u8; 16],
    /// Source after masquerade; zero when it did not change.
    pub translated: [u8; 16],
    /// Packets of both directions, for `Revoke`.
    pub packets: u64,
    /// Bytes of both directions, for `Revoke`.
    pub bytes: u64,
    /// Rule slot + 1, or 0 when no rule matched.
    pub rule: u32,
    /// Source port or ICMP id.
    pub source_port: u16,
    /// Destination port; for ICMP type << 8 | code.
    pub destination_port: u16,
    /// Source port after masquerade.
    pub translated_port: u16,
    /// `EventKind`.
    pub kind: u8,
    /// `Side` the packet came from.
    pub side: u8,
    /// IP protocol.
    pub protocol: u8,
    /// `DropReason`, for `Drop` and `Revoke`.
    pub reason: u8,
    /// Zero.
    pub padding: u16,
}

const _: () = assert!(size_of::<Event>() == 80);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_sort_in_each_second_is_told() {
        let mut set = SeenSet::default();
        let mut told = |tag, now| is_first(&mut set, tag, now, 100);
        // The clock may stand anywhere when the table is new.
        assert_eq!([told(7, 5), told(7, 6), told(7, 104)], [true, false, false]);
        assert!(told(7, 105));
        // Others do not push it out, and are told themselves.
        assert_eq!([told(8, 106), told(9, 106), told(10, 106)], [true; 3]);
        assert!(!told(11, 107), "no room among those of this second");
        assert!(!told(7, 200));
        assert!(told(11, 206), "the oldest gives way");
    }

    #[test]
    fn sorts_spread_over_the_sets() {
        let mut used = [false; SEEN_SETS as usize];
        let mut tags = [0; 2000];
        for rule in 0..1000 {
            for (i, kind) in [EventKind::Start, EventKind::Revoke].into_iter().enumerate() {
                let about = About { kind, reason: None, rule };
                let (tag, set) = sort(about.what(), rule);
                used[set as usize] = true;
                tags[rule as usize * 2 + i] = tag;
            }
        }
        assert!(used.iter().filter(|used| **used).count() > 700);
        tags.sort_unstable();
        assert!(tags.windows(2).all(|pair| pair[0] != pair[1]) && tags[0] != 0);
    }
}
