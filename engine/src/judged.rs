//! Judgements kept for a while: a first packet like one before it is not sought in the image again.
//!
//! The cost of a look-up in an image grows with how deeply its rules nest, and clients open flow after flow to the same
//! services. So what an image said of a source, a destination and a service is kept by these three and the image's epoch, in
//! buckets of [`WAYS`] places; another image finds none of it. Which bucket is no secret: who fills it with keys of his own
//! makes others' look-ups what they would be without it.

use crate::classify::{Judgement, Source};
use crate::family::Family;
use crate::image::{Attributes, Decision};
use crate::tables::Active;

/// Judgements in a bucket.
pub const WAYS: usize = 4;
/// Buckets of each family, on each processor: 128 KiB for IPv4, 256 KiB for IPv6.
pub const BUCKETS: u32 = 1 << BUCKETS_LOG;
const BUCKETS_LOG: u32 = 10;

/// One judgement, and what was judged; all zeros when there is none. Of IPv4 two are a cache line, of IPv6 one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct Judged<A> {
    source: A,
    destination: A,
    axis: u32,
    /// Of the image that judged; 0 for none.
    epoch: u32,
    decision: u32,
    attributes: u32,
    owner: u32,
}

const _: () = assert!(size_of::<Judged<[u8; 4]>>() == 32 && size_of::<Judged<[u64; 2]>>() == 64);

/// The judgements of which one has to go for another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Bucket<A>([Judged<A>; WAYS]);

/// Which bucket keeps the judgement of such packets: below [`BUCKETS`].
#[inline(always)]
pub fn bucket<F: Family>(source: F::Address, destination: F::Address, axis: u32) -> u32 {
    mixed::<F>(source, destination, axis) >> (u32::BITS - BUCKETS_LOG)
}

/// The key as one word, whose high bits are the bucket and the place that it takes there.
#[inline(always)]
fn mixed<F: Family>(source: F::Address, destination: F::Address, axis: u32) -> u32 {
    // Odd numbers without a pattern: those of xxHash32. The last product brings every bit into the highest.
    let sum = F::fold(source).wrapping_mul(0x9e37_79b1) ^ F::fold(destination).wrapping_mul(0x85eb_ca77);
    sum.wrapping_add(axis.wrapping_mul(0xc2b2_ae3d)).wrapping_mul(0x27d4_eb2f)
}

impl<A: Copy + Eq> Bucket<A> {
    /// What the image in force said of such a packet, if that was kept; else the place that is free for it now, in this bucket
    /// alone: one that an earlier image left, or that of another judgement.
    #[inline(always)]
    pub fn find<F: Family<Address = A>>(
        &mut self,
        active: Active,
        source: A,
        destination: A,
        axis: u32,
    ) -> Result<Judgement, usize> {
        let epoch = active.epoch();
        // Bits of the product below the bucket's: its lowest would be those of the port, and of what networks begin with.
        let mixed = mixed::<F>(source, destination, axis);
        let mut place = (mixed >> (u32::BITS - BUCKETS_LOG - 2)) as usize % WAYS;
        for (i, kept) in self.0.iter().enumerate() {
            if kept.epoch != epoch {
                place = i;
            } else if kept.axis == axis && kept.destination == destination && kept.source == source {
                return Ok(Judgement {
                    decision: Decision(kept.decision),
                    attributes: Attributes(kept.attributes),
                    source: Source(kept.owner as u8),
                });
            }
        }
        let free = &mut self.0[place % WAYS];
        (free.source, free.destination, free.axis, free.epoch) = (source, destination, axis, 0);
        Err(place)
    }

    /// Keeps what the image in force said in the place that [`Self::find`] made free for it; nothing where somebody has filled
    /// it since.
    #[inline(always)]
    pub fn keep(&mut self, place: usize, active: Active, judgement: Judgement) {
        let kept = &mut self.0[place % WAYS];
        if kept.epoch != 0 {
            return;
        }
        kept.decision = judgement.decision.0;
        kept.attributes = judgement.attributes.0;
        kept.owner = u32::from(judgement.source.0);
        kept.epoch = active.epoch();
    }
}

/// A judgement that was kept, or none, as one word: with bit 48 a judgement, whose attributes are in the high half and whose source
/// is in bits 28 and 29 of its decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Sought(pub u64);

const KEPT: u64 = 1 << 48;
/// Bits that a decision does not use.
const OWNER: u32 = 28;

impl From<Judgement> for Sought {
    #[inline(always)]
    fn from(judgement: Judgement) -> Self {
        let decision = judgement.decision.0 & !(3 << OWNER) | u32::from(judgement.source.0) << OWNER;
        Self(KEPT | u64::from(judgement.attributes.0) << 32 | u64::from(decision))
    }
}

impl Sought {
    /// None was kept.
    pub const NOTHING: Self = Self(0);

    /// Whether it is a judgement.
    #[inline(always)]
    pub const fn is_kept(self) -> bool {
        self.0 & KEPT != 0
    }

    /// The judgement; where none was kept, that of nobody's packet, which no rule decides.
    #[inline(always)]
    pub const fn judgement(self) -> Judgement {
        let decision = self.0 as u32;
        Judgement {
            decision: Decision(decision & !(3 << OWNER)),
            attributes: Attributes(((self.0 & !KEPT) >> 32) as u32),
            source: Source((decision >> OWNER) as u8 & 3),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::collections::BTreeMap;
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::family::{V4, V6};

    fn judgement(rule: u32) -> Judgement {
        Judgement {
            decision: if rule.is_multiple_of(3) { Decision::drop(rule) } else { Decision::accept(rule) },
            attributes: Attributes(Attributes::ROUTED | Attributes::MASQUERADE | rule & 0xffff),
            source: Source(rule as u8 % 4),
        }
    }

    impl Bucket<<V4 as Family>::Address> {
        /// Of the image of epoch 1, in every place.
        fn full() -> Self {
            Self([Judged { epoch: 1, axis: u32::MAX, ..Judged::default() }; WAYS])
        }
    }

    /// Addresses, a service and the rule that holds for them, all different.
    fn keys<F: Family>(address: impl Fn(u32) -> F::Address) -> Vec<(F::Address, F::Address, u32, u32)> {
        (0..3000u32).map(|i| (address(i % 50), address(1000 + i / 50 % 20), i / 1000, i)).collect()
    }

    fn v4(host: u32) -> <V4 as Family>::Address {
        Ipv4Addr::from(0x6440_0000 + host).into()
    }

    fn v6(host: u32) -> <V6 as Family>::Address {
        // Neighbours in the prefix and in the interface identifier.
        Ipv6Addr::from(0xfd00 << 112 | u128::from(host / 7) << 64 | u128::from(host)).into()
    }

    /// What is found was kept, for just that packet and that image; and what was kept last is found.
    fn finds_what_was_kept_and_nothing_else<F: Family>(address: impl Fn(u32) -> F::Address) {
        let mut buckets = vec![Bucket::<F::Address>::default(); BUCKETS as usize];
        let mut found = 0;
        for epoch in [1, 2, u32::MAX] {
            let active = Active::new(epoch % 2, epoch);
            let mut kept = 0;
            for (source, destination, axis, rule) in keys::<F>(&address) {
                let bucket = &mut buckets[bucket::<F>(source, destination, axis) as usize];
                let place = bucket.find::<F>(active, source, destination, axis).expect_err("never kept");
                bucket.keep(place, active, judgement(rule));
                let again = bucket.find::<F>(active, source, destination, axis);
                assert_eq!(again, Ok(judgement(rule)));
                kept += 1;
            }
            assert_eq!(kept, 3000);
            for (source, destination, axis, rule) in keys::<F>(&address) {
                let mut bucket = buckets[bucket::<F>(source, destination, axis) as usize];
                if let Ok(there) = bucket.find::<F>(active, source, destination, axis) {
                    assert_eq!(there, judgement(rule));
                    found += 1;
                }
            }
        }
        // 3,000 in 4,096 places: most are there yet.
        assert!(found > 3 * 2400, "{found}");
    }

    #[test]
    fn a_judgement_is_found_for_its_packet_and_its_image_alone() {
        finds_what_was_kept_and_nothing_else::<V4>(v4);
        finds_what_was_kept_and_nothing_else::<V6>(v6);
    }

    #[test]
    fn each_part_of_the_key_counts() {
        let active = Active::new(0, 5);
        let mut bucket = Bucket::default();
        let place = bucket.find::<V6>(active, v6(1), v6(2), 80).unwrap_err();
        bucket.keep(place, active, judgement(7));
        let mut ask =
            |active, source, destination, axis| bucket.find::<V6>(active, source, destination, axis);
        assert!(ask(Active::new(1, 6), v6(1), v6(2), 80).is_err());
        assert!(ask(active, v6(3), v6(2), 80).is_err());
        assert!(ask(active, v6(1), v6(3), 80).is_err());
        assert!(ask(active, v6(1), v6(2), 81).is_err());
        assert!(ask(active, v6(2), v6(1), 80).is_err());
    }

    #[test]
    fn a_place_that_was_made_free_and_not_filled_is_found_by_nobody() {
        let active = Active::new(0, 5);
        let mut bucket = Bucket::default();
        for axis in 0..9 {
            assert!(bucket.find::<V4>(active, v4(1), v4(2), axis).is_err());
        }
        assert!(bucket.find::<V4>(active, v4(1), v4(2), 8).is_err());
    }

    #[test]
    fn an_earlier_image_makes_room_first() {
        let (before, active) = (Active::new(0, 5), Active::new(1, 6));
        let mut bucket = Bucket::default();
        for (active, axes) in [(before, 0..4), (active, 10..14)] {
            for axis in axes {
                let place = bucket.find::<V4>(active, v4(1), v4(2), axis).unwrap_err();
                bucket.keep(place, active, judgement(axis));
            }
        }
        for axis in 10..14 {
            assert_eq!(bucket.find::<V4>(active, v4(1), v4(2), axis), Ok(judgement(axis)));
        }
    }

    /// Clients and servers that follow each other in address and port do not crowd.
    #[test]
    fn neighbours_spread_over_the_buckets() {
        fn most<F: Family>(address: impl Fn(u32) -> F::Address) -> usize {
            let mut loads = BTreeMap::<u32, usize>::new();
            for (source, destination, axis, _) in keys::<F>(address) {
                let at = bucket::<F>(source, destination, axis);
                assert!(at < BUCKETS);
                *loads.entry(at).or_default() += 1;
            }
            loads.values().copied().max().unwrap()
        }
        let mut ways = [0; WAYS];
        for (source, destination, axis, _) in keys::<V4>(v4) {
            ways[Bucket::full().find::<V4>(Active::new(0, 1), source, destination, axis).unwrap_err()] += 1;
        }
        assert!(ways.iter().all(|&times| times > 500), "of 3,000 in four: {ways:?}");
        // 3 in each on average; by chance alone one of 1,024 has 10 to 12.
        let (four, six) = (most::<V4>(v4), most::<V6>(v6));
        assert!(four <= 16 && six <= 16, "{four} {six}");
    }

    #[test]
    fn what_was_found_survives_its_encoding() {
        for rule in [0, 1, 2, 3, (1 << 28) - 1] {
            let sought = Sought::from(judgement(rule));
            assert!(sought.is_kept());
            assert_eq!(sought.judgement(), judgement(rule));
        }
        let nobodys = Sought::from(Judgement::default());
        assert!(nobodys.is_kept() && !Sought::NOTHING.is_kept());
        assert_eq!([nobodys, Sought::NOTHING].map(Sought::judgement), [Judgement::default(); 2]);
    }
}
