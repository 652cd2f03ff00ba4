//! Endpoint-independent mapping (RFC 4787 REQ-1): a source address and port keep their port at one address of the
//! gateway, whatever the destination, and nobody else gets that port meanwhile (REQ-3).
//!
//! A mapping is two entries: its owner finds the port by the first, whoever looks for a port finds the owner by the second.
//! Both carry the tick of the mapping's last use, which is an opening, or a packet of one of its flows as far as the agent
//! noticed in its pass over the flows. Nothing is written for packets of flows.

use crate::flow::Key;
use crate::tables::{Egresses, Tables};
use crate::work::Work;

/// Key of either entry: of the owner (`port` is its source port) or of the gateway's port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct MappingKey<A> {
    /// The owner's address, which is never the gateway's; in the entry of the gateway's port it is.
    pub owner: A,
    /// The gateway's address.
    pub gateway: A,
    /// The owner's source port, or the gateway's port; host order.
    pub port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// Zero.
    pub padding: u8,
    /// Zero: what follows is aligned to eight bytes.
    pub reserved: u32,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Mapping<A> {
    /// The owner's address.
    pub owner: A,
    /// Tick of the last use.
    pub last_used: u32,
    /// The owner's source port.
    pub source_port: u16,
    /// The gateway's port.
    pub port: u16,
}

impl<A: Copy + Default + Eq> MappingKey<A> {
    /// The owner's entry.
    #[inline(always)]
    pub fn of_owner(owner: A, source_port: u16, gateway: A, protocol: u8) -> Self {
        Self { owner, gateway, port: source_port, protocol, padding: 0, reserved: 0 }
    }

    /// The entry of the gateway's port.
    #[inline(always)]
    pub fn of_port(gateway: A, port: u16, protocol: u8) -> Self {
        // Not zeros, which the kernel's compiler makes by a call: on 6.1 there is no stack left for one.
        Self { owner: gateway, gateway, port, protocol, padding: 0, reserved: 0 }
    }
}

impl<A: Copy + Default + Eq> Mapping<A> {
    /// Whether somebody else than (`owner`, `source_port`) holds the port at `now`: one that was not used for longer than
    /// `lifetime` is free.
    #[inline(always)]
    pub fn is_anothers(&self, owner: A, source_port: u16, now: u32, lifetime: u32) -> bool {
        let age = now.wrapping_sub(self.last_used) as i32;
        let fresh = age <= 0 || age as u32 <= lifetime;
        fresh && (self.owner != owner || self.source_port != source_port)
    }
}

/// The port that the opener in hand had last at the address it leaves with.
#[inline(always)]
pub(crate) fn port<F: Egresses, T: Tables<F>>(tables: &mut T, work: &mut Work<F::Address>) -> Option<u16> {
    let Work { key, opening, mapping_key, .. } = work;
    *mapping_key = MappingKey::of_owner(key.source, key.source_port, opening.source, key.protocol);
    tables.mapping(mapping_key).map(|mapping| mapping.port)
}

/// Whether the opener in hand may have `port`.
#[inline(always)]
pub(crate) fn is_free<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    work: &mut Work<F::Address>,
    port: u16,
) -> bool {
    let Work { key, opening, now, mapping_key, .. } = work;
    let udp = tables.config().timeouts.udp;
    // A quarter longer than a flow, by which the agent may be late in noting its last packet.
    let lifetime = udp.saturating_add(udp / 4);
    *mapping_key = MappingKey::of_port(opening.source, port, key.protocol);
    let there = tables.mapping(mapping_key);
    !there.is_some_and(|mapping| mapping.is_anothers(key.source, key.source_port, *now, lifetime))
}

/// Makes the opener in hand the owner of `port`. Of two processors that take the same free port at the same time the later
/// one has it; the flows of both are kept apart by their reply halves.
#[inline(always)]
pub(crate) fn take<F: Egresses, T: Tables<F>>(tables: &mut T, work: &mut Work<F::Address>, port: u16) {
    let Work { key, opening, now, mapping_key, mapping, .. } = work;
    *mapping = Mapping { owner: key.source, last_used: *now, source_port: key.source_port, port };
    *mapping_key = MappingKey::of_port(opening.source, port, key.protocol);
    tables.set_mapping(mapping_key, mapping);
    *mapping_key = MappingKey::of_owner(key.source, key.source_port, opening.source, key.protocol);
    tables.set_mapping(mapping_key, mapping);
}

/// Keys of the entries that a masqueraded flow uses, by the key of its first half, and the address and port it leaves with.
#[inline(always)]
pub fn keys_of<A: Copy + Default + Eq>(key: &Key<A>, gateway: A, port: u16) -> [MappingKey<A>; 2] {
    [
        MappingKey::of_owner(key.source, key.source_port, gateway, key.protocol),
        MappingKey::of_port(gateway, port, key.protocol),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{Address4, Address6};

    #[test]
    fn records_have_no_padding() {
        assert_eq!((size_of::<MappingKey<Address4>>(), size_of::<Mapping<Address4>>()), (16, 12));
        assert_eq!((size_of::<MappingKey<Address6>>(), size_of::<Mapping<Address6>>()), (40, 24));
    }

    #[test]
    fn a_port_is_its_owners_until_it_was_unused_for_long() {
        let (me, other) = (Address4([100, 64, 0, 5]), Address4([100, 64, 0, 6]));
        let mapping = Mapping { owner: me, last_used: u32::MAX - 9, source_port: 4000, port: 20_000 };
        assert!(!mapping.is_anothers(me, 4000, 0, 120));
        assert!(mapping.is_anothers(me, 4001, 0, 120) && mapping.is_anothers(other, 4000, 110, 120));
        assert!(!mapping.is_anothers(other, 4000, 111, 120));
        // A later tick on another processor.
        assert!(mapping.is_anothers(other, 4000, u32::MAX - 10, 120));
    }
}
