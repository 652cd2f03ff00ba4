//! What the engine needs of its surroundings: the image, flows, egress and counters.

use crate::answer::Answer;
use crate::classify::Judgement;
use crate::event::{About, Event};
use crate::family::{Address4, Address6};
use crate::flow::{Flow, Hop, Key, Side, Timeouts};
use crate::fragment::{Datagram, DatagramKey};
use crate::hop::{Link, NeighbourKey};
use crate::host::HostAddress;
use crate::limit::Openings;
use crate::mapping::{Mapping, MappingKey};
use crate::network::Header;
use crate::reason::DropReason;
use crate::stage::Refusal;
use crate::work::Work;

/// Which image is in force: one 64-bit word, read once per packet.
///
/// Bit 63 is the half of the double buffer, bits 0..32 the epoch (the revision's low 32 bits; 0 when there is no image); the others
/// are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Active(pub u64);

impl Active {
    /// The image of `epoch` in `half` (0 or 1).
    pub const fn new(half: u32, epoch: u32) -> Self {
        Self((half as u64) << 63 | epoch as u64)
    }

    /// 0 or 1.
    #[inline(always)]
    pub const fn half(self) -> u32 {
        (self.0 >> 63) as u32
    }

    /// Low 32 bits of the revision; 0 before a first image.
    #[inline(always)]
    pub const fn epoch(self) -> u32 {
        self.0 as u32
    }
}

/// What an operator sets, as the packet program reads it. Times in ticks; addresses in network order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// Overlay IPv4 network and mask; an unset mask contains nothing.
    pub overlay4: [Address4; 2],
    /// Overlay IPv6 network and mask.
    pub overlay6: [Address6; 2],
    /// First tick at which the image may no longer be enforced; meaningful with `HAS_DEADLINE`. 64 bits: it holds for as long
    /// as nobody renews it, and a counter that wraps would open the gate again.
    pub deadline: u64,
    /// The agent's own overlay address, from which it answers into the overlay; zero when there is none.
    pub own6: Address6,
    /// The same for IPv4.
    pub own4: Address4,
    /// Ticks in a second.
    pub ticks_per_second: u32,
    /// `HAS_DEADLINE`, `ENDPOINT_INDEPENDENT`, `CAPTURE`.
    pub flags: u32,
    /// Index of the overlay device.
    pub overlay_device: u32,
    /// MTU of the overlay device, bytes from the IP header on; 0 for no limit.
    pub overlay_mtu: u32,
    /// First port or ICMP id for masquerading.
    pub nat_first: u16,
    /// Number of them; a power of two is not needed.
    pub nat_count: u16,
    /// Tick after which a neighbour must have been learned to be used: the agent sets it when neighbours change.
    pub hops_since: u32,
    /// Ticks for which a learned neighbour is used before the kernel is asked again; 0 for never.
    pub hop_lifetime: u32,
    /// How frames leave by the overlay device, when that is an Ethernet.
    pub overlay_link: Link,
    /// Flows one source of the overlay may have opened lately that nobody answered; 0 for any number.
    pub half_open_per_source: u32,
    /// The clock, when the program runs in a test.
    pub test_clock: u64,
    /// How long flows live.
    pub timeouts: Timeouts,
}

const _: () = assert!(size_of::<Config>() == 168 && size_of::<Egress>() == 64);

/// `deadline` counts.
pub const HAS_DEADLINE: u32 = 1;
/// A UDP source port keeps its masquerade port towards every destination; see [`crate::mapping`].
pub const ENDPOINT_INDEPENDENT: u32 = 2;

/// Packets are recorded; see [`crate::capture`].
pub const CAPTURE: u32 = 4;

impl Config {
    /// Whether the image in force may still be enforced.
    #[inline(always)]
    pub fn is_expired(&self, now: u64) -> bool {
        // Not before the next tick would be 4 ms in which whoever was cut off still sends.
        self.flags & HAS_DEADLINE != 0 && now >= self.deadline
    }
}

/// Where a route leaves: written by the agent, one entry per route number in each half of the double buffer, so that an image and
/// the ways out that its route numbers name come into force with one store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Egress {
    /// Index of the site device; 0 when there is none now.
    pub device: u32,
    /// Its MTU, bytes from the IP header on; 0 for no limit.
    pub mtu: u32,
    /// First source of masqueraded IPv4 packets; zero when there is none.
    pub source4: Address4,
    /// How many IPv4 and IPv6 sources there are, from the first on; 0 counts as 1.
    pub pool: [u16; 2],
    /// First source of masqueraded IPv6 packets; zero when there is none.
    pub source6: Address6,
    /// How frames leave by the device.
    pub link: Link,
    /// Zero: an entry is a cache line.
    pub reserved: [u32; 3],
}

impl Egress {
    /// The masquerade address for what `opener` opens: of a pool always the same one, whatever the destination (RFC 4787
    /// REQ-2). Zero when there is none.
    #[inline(always)]
    pub fn source<F: Egresses>(&self, opener: F::Address) -> F::Address {
        let (first, count) = F::pool(self);
        if count <= 1 || first == F::Address::default() {
            return first;
        }
        // Fibonacci hashing: of neighbours, each gets another one. The high half of the product spreads best.
        let share = F::sum(opener).wrapping_mul(0x9e37_79b1) >> 16;
        F::plus(first, ((share * u32::from(count)) >> 16) as u16)
    }

    /// Whether `address` is one to masquerade with.
    #[inline(always)]
    pub fn has<F: Egresses>(&self, address: F::Address) -> bool {
        let (first, count) = F::pool(self);
        first != F::Address::default() && F::steps(first, address) < u32::from(count.max(1))
    }
}

/// Picks the family's address out of an [`Egress`] and the family's prefix out of a [`Config`].
pub trait Egresses: Header {
    /// The first masquerade address, and how many there are.
    fn pool(egress: &Egress) -> (Self::Address, u16);
    /// Overlay network and mask.
    fn overlay(config: &Config) -> [Self::Address; 2];
    /// The agent's own overlay address.
    fn own(config: &Config) -> Self::Address;
}

impl Egresses for crate::family::V4 {
    #[inline(always)]
    fn pool(egress: &Egress) -> (Address4, u16) {
        (egress.source4, egress.pool[0])
    }
    #[inline(always)]
    fn overlay(config: &Config) -> [Address4; 2] {
        config.overlay4
    }
    #[inline(always)]
    fn own(config: &Config) -> Address4 {
        config.own4
    }
}

impl Egresses for crate::family::V6 {
    #[inline(always)]
    fn pool(egress: &Egress) -> (Address6, u16) {
        (egress.source6, egress.pool[1])
    }
    #[inline(always)]
    fn overlay(config: &Config) -> [Address6; 2] {
        config.overlay6
    }
    #[inline(always)]
    fn own(config: &Config) -> Address6 {
        config.own6
    }
}

/// The two flow tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Flows that were answered. Never evicts; refuses when full.
    Confirmed,
    /// Half-open flows. Evicts the least recently used when full, so that a flood only hurts itself.
    HalfOpen,
}

/// Why a half-entry was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The key is there.
    Exists,
    /// No room.
    Full,
}

/// Why a half-entry was not copied into the confirmed table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotConfirmed {
    /// It is not in the half-open table.
    Missing,
    /// No room.
    Full,
}

/// The engine's surroundings, for one family.
pub trait Tables<F: Egresses> {
    /// What the operator set.
    fn config(&self) -> &Config;

    /// The image in force. Called once per packet.
    fn active(&self) -> Active;

    /// Judges a packet between the addresses of `key` by the image in force, or by what it said of such a packet before; see
    /// [`crate::judged`].
    fn judge(&mut self, active: Active, key: &Key<F::Address>, axis: u32) -> Judgement;

    /// Where a route leaves, of those that came into force with the image.
    fn egress(&self, active: Active, route: u16) -> Option<&Egress>;

    /// Calls `f` with the half-entry of `key`, in place.
    fn with_flow<R>(
        &mut self,
        stage: Stage,
        key: &Key<F::Address>,
        f: impl FnOnce(&mut Flow<F::Address>) -> R,
    ) -> Option<R>;

    /// Inserts a half-entry; with `replace`, over one that is there. `init` gets an all-zero half to fill in: in the
    /// kernel it lies outside the 512 bytes of stack, which two halves and their keys would overflow.
    fn insert_flow(
        &mut self,
        stage: Stage,
        key: &Key<F::Address>,
        replace: bool,
        init: impl FnOnce(&mut Flow<F::Address>),
    ) -> Result<(), Refused>;

    /// Copies a half-entry from the half-open table into the confirmed one, changed by `update`.
    fn confirm_flow(
        &mut self,
        key: &Key<F::Address>,
        update: impl FnOnce(&mut Flow<F::Address>),
    ) -> Result<(), NotConfirmed>;

    /// Removes a half-entry.
    fn remove_flow(&mut self, stage: Stage, key: &Key<F::Address>);

    /// Removes a half-entry of a flow of whose end the engine itself tells: where the tables tell of ends, not of this one.
    #[inline(always)]
    fn remove_revoked(&mut self, stage: Stage, key: &Key<F::Address>) {
        self.remove_flow(stage, key);
    }

    /// Calls `f` with what `source` opened lately, which begins at `now` if nothing is known of it; `None` where nothing is
    /// remembered of sources, and none is limited.
    #[inline(always)]
    fn with_openings<R>(
        &mut self,
        source: &F::Address,
        now: u32,
        f: impl FnOnce(&mut Openings) -> R,
    ) -> Option<R> {
        let _ = (source, now, f);
        None
    }

    /// What `address` is to this host; `None` also where nothing is known of its devices. Asked when a flow is opened to a site.
    #[inline(always)]
    fn host_address(&self, address: &F::Address) -> Option<HostAddress> {
        let _ = address;
        None
    }

    /// Whether a socket of the host uses this TCP or UDP port, so that no masqueraded flow may have it.
    #[inline(always)]
    fn is_hosts(&mut self, port: u16) -> bool {
        let _ = port;
        false
    }

    /// What is noted at one of [`NOTES`](crate::nat::NOTES) places of a search for a port that found none; 0 for nothing.
    #[inline(always)]
    fn exhausted(&self, place: u32) -> u64 {
        let _ = place;
        0
    }

    /// Notes it.
    #[inline(always)]
    fn set_exhausted(&mut self, place: u32, note: u64) {
        let _ = (place, note);
    }

    /// An entry of a mapping; `None` also where none is remembered.
    #[inline(always)]
    fn mapping(&mut self, key: &MappingKey<F::Address>) -> Option<Mapping<F::Address>> {
        let _ = key;
        None
    }

    /// Remembers an entry of a mapping. Where there is no room, the one used longest ago makes some.
    #[inline(always)]
    fn set_mapping(&mut self, key: &MappingKey<F::Address>, mapping: &Mapping<F::Address>) {
        let _ = (key, mapping);
    }

    /// The neighbour that was learned for packets of this key; `None` also where none is remembered.
    #[inline(always)]
    fn neighbour(&mut self, key: &NeighbourKey<F::Address>) -> Option<Hop> {
        let _ = key;
        None
    }

    /// Remembers a neighbour. Where there is no room, the one used longest ago makes some.
    #[inline(always)]
    fn set_neighbour(&mut self, key: &NeighbourKey<F::Address>, hop: &Hop) {
        let _ = (key, hop);
    }

    /// Counts a masqueraded flow by the number of ports that were taken before it found its own.
    #[inline(always)]
    fn count_collisions(&mut self, taken: u32) {
        let _ = taken;
    }

    /// Calls `f` with the datagram of `key`, in place, while nobody else does. `None` where there is none, or somebody does.
    #[inline(always)]
    fn with_datagram<R>(
        &mut self,
        key: &DatagramKey<F::Address>,
        f: impl FnOnce(&mut Datagram) -> R,
    ) -> Option<R> {
        let _ = (key, f);
        None
    }

    /// Inserts a datagram unless there is one, in a full table in place of the least recently used. `init` gets an all-zero one
    /// to fill in. `Full` also where nothing is remembered.
    #[inline(always)]
    fn insert_datagram(
        &mut self,
        key: &DatagramKey<F::Address>,
        init: impl FnOnce(&mut Datagram),
    ) -> Result<(), Refused> {
        let _ = (key, init);
        Err(Refused::Full)
    }

    /// Counts a packet that goes on.
    fn count_forwarded(&mut self, side: Side, bytes: u32);

    /// Counts a dropped packet.
    fn count_dropped(&mut self, reason: DropReason);

    /// Counts what became of the wish to answer a dropped packet.
    fn count_answer(&mut self, answer: Answer) {
        let _ = answer;
    }

    /// Whether one more answer may be sent to `sender` now: [`Bucket::take`](crate::answer::Bucket::take), first from the
    /// sender's own and then from everyone's. Where packets are only looked at, none may.
    fn may_answer(&mut self, sender: &F::Address, now: u64) -> bool {
        let _ = (sender, now);
        false
    }

    /// Counts a flow for a route's prefix, or with `refused` a packet that would have opened one.
    #[inline(always)]
    fn count_route(&mut self, route: u16, refused: bool) {
        let _ = (route, refused);
    }

    /// Counts a flow that a rule admitted.
    fn count_admitted(&mut self, rule: u32);

    /// Counts a packet that a drop rule refused, or whose flow lost its rule.
    fn count_refused(&mut self, rule: u32);

    /// Tells of an event, which `fill` completes in a record that has `about` already; never blocks, may leave it out when an
    /// event alike was told lately, losses are counted by the table.
    fn emit(&mut self, about: About, fill: impl FnOnce(&mut Event));

    /// The stage for a packet whose flow may be over or may have lost its rule; see [`crate::stage`]. `Ok(false)`: it is
    /// over, and there is none.
    #[inline(always)]
    fn renew(&mut self, stage: Stage, side: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal>
    where
        Self: Sized,
    {
        crate::live::renew::<F, Self>(self, side, stage, work)
    }

    /// The stage that finds a neighbour for a flow that has no good one; see [`crate::hop::meet`].
    #[inline(always)]
    fn meet(&mut self, stage: Stage, work: &mut Work<F::Address>) -> Result<bool, Refusal>
    where
        Self: Sized,
    {
        crate::hop::meet::<F, Self>(self, stage, work)
    }

    /// The stage for a packet that may change its flow. `Ok(false)`: there is no flow after all.
    #[inline(always)]
    fn advance(&mut self, stage: Stage, work: &mut Work<F::Address>) -> Result<bool, Refusal>
    where
        Self: Sized,
    {
        crate::live::advance::<F, Self>(self, stage, work)
    }

    /// The stage for a packet without a flow: judges it. `Ok` is always `true`, here and below.
    #[inline(always)]
    fn admit(&mut self, side: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal>
    where
        Self: Sized,
    {
        crate::open::admit::<F, Self>(self, side, work)
    }

    /// The stage that inserts the flow of an admitted packet. `Ok(false)`: another packet has, since.
    #[inline(always)]
    fn insert(&mut self, side: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal>
    where
        Self: Sized,
    {
        crate::open::insert::<F, Self>(self, side, work)
    }

    /// The stage for a packet whose flow another has inserted since it was looked for.
    #[inline(always)]
    fn join(&mut self, work: &mut Work<F::Address>) -> Result<bool, Refusal>
    where
        Self: Sized,
    {
        crate::open::join::<F, Self>(self, work)
    }

    /// The stage that counts openings, where they are limited; see [`crate::limit`].
    #[inline(always)]
    fn count_opening(&mut self, answered: bool, work: &mut Work<F::Address>) -> Result<bool, Refusal>
    where
        Self: Sized,
    {
        crate::limit::count_opening::<F, Self>(self, answered, work)
    }

    /// The stage that takes a key for the reply half of a flow, after so many that were `taken`. `Ok(false)`: somebody has it.
    #[inline(always)]
    fn claim(&mut self, taken: u32, work: &mut Work<F::Address>) -> Result<bool, Refusal>
    where
        Self: Sized,
    {
        crate::nat::claim::<F, Self>(self, taken, work)
    }

    /// The stage that finds a port for a masqueraded flow and reserves it by inserting its reply half.
    #[inline(always)]
    fn reserve(&mut self, work: &mut Work<F::Address>) -> Result<bool, Refusal>
    where
        Self: Sized,
    {
        crate::nat::reserve::<F, Self>(self, work)
    }

    /// The stage for an ICMP error. `Ok(false)`: no flow is known to which what it quotes belongs.
    #[inline(always)]
    fn relate(&mut self, side: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal>
    where
        Self: Sized,
    {
        crate::quote::relate::<F, Self>(self, side, work)
    }

    /// The stage for a fragment that has arrived. `Ok(false)`: no first fragment of its datagram has passed.
    #[inline(always)]
    fn follow(&mut self, looking: bool, work: &mut Work<F::Address>) -> Result<bool, Refusal>
    where
        Self: Sized,
    {
        crate::fragment::follow::<F, Self>(self, looking, work)
    }

    /// The stage for a first fragment that its flow lets pass. `Ok` is always `true`.
    #[inline(always)]
    fn remember(&mut self, work: &mut Work<F::Address>) -> Result<bool, Refusal>
    where
        Self: Sized,
    {
        crate::fragment::remember::<F, Self>(self, work)
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::family::{Family as _, V4, V6};

    fn pool(count: u16) -> Egress {
        Egress {
            source4: Ipv4Addr::new(203, 0, 113, 250).into(),
            source6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100).into(),
            pool: [count; 2],
            ..Egress::default()
        }
    }

    #[test]
    fn a_pool_is_shared_evenly_and_each_opener_keeps_its_address() {
        let egress = pool(16);
        let (mut four, mut six) = ([0; 16], [0; 16]);
        for i in 0..1024u32 {
            let opener = Address4((0x6440_0000 + i).to_be_bytes());
            let source = egress.source::<V4>(opener);
            assert!(egress.has::<V4>(source) && source == egress.source::<V4>(opener));
            four[V4::steps(egress.source4, source) as usize] += 1;
            let opener = Address6(((0xfd64_u128 << 112) | (0x6440_0000 + u128::from(i))).to_be_bytes());
            let source = egress.source::<V6>(opener);
            assert!(egress.has::<V6>(source));
            six[V6::steps(egress.source6, source) as usize] += 1;
        }
        for share in four.into_iter().chain(six) {
            assert!((32..=128).contains(&share), "{four:?} {six:?}");
        }
    }

    #[test]
    fn a_pool_ends_where_it_says_and_an_unset_one_has_nothing() {
        let egress = pool(16);
        let inside = V4::plus(egress.source4, 15);
        assert!(egress.has::<V4>(inside) && !egress.has::<V4>(V4::plus(inside, 1)));
        assert!(!egress.has::<V4>(Ipv4Addr::new(203, 0, 113, 249).into()));
        for count in [0, 1] {
            let one = pool(count);
            assert_eq!(one.source::<V4>(Ipv4Addr::new(100, 64, 0, 9).into()), one.source4);
            assert!(one.has::<V6>(one.source6) && !one.has::<V6>(V6::plus(one.source6, 1)));
        }
        let none = Egress { pool: [16; 2], ..Egress::default() };
        assert_eq!(none.source::<V4>(Ipv4Addr::new(100, 64, 0, 9).into()), Address4::default());
        assert!(!none.has::<V4>(Address4::default()));
    }
}
