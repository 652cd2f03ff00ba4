//! What is remembered beside flows: openings that nobody answered, who owns which port, neighbours, and the host's own ports and
//! addresses.
//!
//! Not pinned: a new agent's programs count openings anew, and the agent makes the mappings of the flows it finds, and looks
//! for the host's ports and addresses before the programs see a packet.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap};
use sluicegate_engine::answer::{Bucket, SENDERS};
use sluicegate_engine::family::{Address4, Address6, V4, V6};
use sluicegate_engine::flow::Hop;
use sluicegate_engine::hop::{NEIGHBOURS, NeighbourKey};
use sluicegate_engine::host::HostAddress;
use sluicegate_engine::limit::Openings;
use sluicegate_engine::mapping::{Mapping, MappingKey};
use sluicegate_engine::nat::NOTES;
use sluicegate_engine::tables::Egresses;

type A4 = Address4;
type A6 = Address6;

#[map]
static OPENINGS4: LruHashMap<A4, Openings> = LruHashMap::with_max_entries(1024, 0);
#[map]
static OPENINGS6: LruHashMap<A6, Openings> = LruHashMap::with_max_entries(1024, 0);
#[map]
static MAPPINGS4: LruHashMap<MappingKey<A4>, Mapping<A4>> = LruHashMap::with_max_entries(1024, 0);
#[map]
static MAPPINGS6: LruHashMap<MappingKey<A6>, Mapping<A6>> = LruHashMap::with_max_entries(1024, 0);

/// Neighbours by which packets between two addresses leave a device.
#[map]
static NEIGHBOURS4: LruHashMap<NeighbourKey<A4>, Hop> = LruHashMap::with_max_entries(NEIGHBOURS, 0);
#[map]
static NEIGHBOURS6: LruHashMap<NeighbourKey<A6>, Hop> = LruHashMap::with_max_entries(NEIGHBOURS, 0);

/// How many answers each sender may still get.
#[map]
static SENDERS4: LruHashMap<A4, Bucket> = LruHashMap::with_max_entries(SENDERS, 0);
#[map]
static SENDERS6: LruHashMap<A6, Bucket> = LruHashMap::with_max_entries(SENDERS, 0);

/// TCP and UDP ports that sockets of the host use, a bit each: written by the agent.
#[map]
static HOST_PORTS: Array<u64> = Array::with_max_entries(65_536 / 64, 0);

/// Searches for a port that found none, each in the place of its hash: processors share them, and write a word at once.
#[map]
static EXHAUSTED: Array<u64> = Array::with_max_entries(NOTES, 0);

/// What addresses of a site are to this host, as numbers of `HostAddress`: written by the agent.
#[map]
static HOST_ADDRESSES4: HashMap<A4, u32> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
static HOST_ADDRESSES6: HashMap<A6, u32> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Whether a socket of the host uses the port.
#[inline(always)]
pub fn is_hosts(port: u16) -> bool {
    HOST_PORTS.get(u32::from(port / 64)).is_some_and(|word| word >> (port % 64) & 1 != 0)
}

/// What is noted of searches for a port that found none.
#[inline(always)]
pub fn exhausted(place: u32) -> u64 {
    // SAFETY: one aligned 64-bit load.
    EXHAUSTED.get_ptr(place).map_or(0, |note| unsafe { core::ptr::read_volatile(note) })
}

/// Notes it.
#[inline(always)]
pub fn set_exhausted(place: u32, note: u64) {
    if let Some(there) = EXHAUSTED.get_ptr_mut(place) {
        // SAFETY: one aligned 64-bit store.
        unsafe { core::ptr::write_volatile(there, note) };
    }
}

/// The maps of one address family.
pub trait Sources: Egresses {
    /// What an address is to this host.
    fn host_address(address: &Self::Address) -> Option<HostAddress>;
    /// What a source opened lately.
    fn openings(source: &Self::Address) -> Option<*mut Openings>;
    /// Remembers what a source opened lately.
    fn set_openings(source: &Self::Address, openings: &Openings);
    /// An entry of a mapping.
    fn mapping(key: &MappingKey<Self::Address>) -> Option<Mapping<Self::Address>>;
    /// Remembers an entry of a mapping.
    fn set_mapping(key: &MappingKey<Self::Address>, mapping: &Mapping<Self::Address>);
    /// How many answers a sender may still get.
    fn bucket(sender: &Self::Address) -> Option<*mut Bucket>;
    /// Remembers how many answers a sender may still get.
    fn set_bucket(sender: &Self::Address, bucket: &Bucket);
    /// A neighbour.
    fn neighbour(key: &NeighbourKey<Self::Address>) -> Option<*mut Hop>;
    /// Remembers a neighbour.
    fn set_neighbour(key: &NeighbourKey<Self::Address>, hop: &Hop);
}

macro_rules! sources {
    ($family:ty, $host:ident, $openings:ident, $mappings:ident, $neighbours:ident, $senders:ident) => {
        impl Sources for $family {
            #[inline(always)]
            fn host_address(address: &Self::Address) -> Option<HostAddress> {
                // SAFETY: map memory stays valid for the whole run (RCU), and the value is one word.
                unsafe { $host.get(address) }.map(|number| HostAddress::from_number(*number))
            }

            #[inline(always)]
            fn openings(source: &Self::Address) -> Option<*mut Openings> {
                $openings.get_ptr_mut(source)
            }

            #[inline(always)]
            fn set_openings(source: &Self::Address, openings: &Openings) {
                // A full LRU map makes room; what it cannot take is not counted, and the flow is judged as any other.
                let _ = $openings.insert(source, openings, 0);
            }

            #[inline(always)]
            fn mapping(key: &MappingKey<Self::Address>) -> Option<Mapping<Self::Address>> {
                // SAFETY: map memory stays valid for the whole run (RCU); a torn copy is a port that is not free, or one
                // that the search skips.
                $mappings.get_ptr(key).map(|mapping| unsafe { *mapping })
            }

            #[inline(always)]
            fn set_mapping(key: &MappingKey<Self::Address>, mapping: &Mapping<Self::Address>) {
                // As above: a port without a mapping is kept apart by the flows that use it.
                let _ = $mappings.insert(key, mapping, 0);
            }

            #[inline(always)]
            fn bucket(sender: &Self::Address) -> Option<*mut Bucket> {
                $senders.get_ptr_mut(sender)
            }

            #[inline(always)]
            fn set_bucket(sender: &Self::Address, bucket: &Bucket) {
                // As above: whoever is not remembered has all of them.
                let _ = $senders.insert(sender, bucket, 0);
            }

            #[inline(always)]
            fn neighbour(key: &NeighbourKey<Self::Address>) -> Option<*mut Hop> {
                $neighbours.get_ptr_mut(key)
            }

            #[inline(always)]
            fn set_neighbour(key: &NeighbourKey<Self::Address>, hop: &Hop) {
                // As above: without one the kernel is asked.
                let _ = $neighbours.insert(key, hop, 0);
            }
        }
    };
}

sources!(V4, HOST_ADDRESSES4, OPENINGS4, MAPPINGS4, NEIGHBOURS4, SENDERS4);
sources!(V6, HOST_ADDRESSES6, OPENINGS6, MAPPINGS6, NEIGHBOURS6, SENDERS6);
