//! Endpoint-independent mapping (RFC 4787 REQ-1): a source address and port keep their port at one address of the
//! gateway, whatever the destination, and nobody else gets that port meanwhile (REQ-3).
//!
//! A mapping is two entries: its owner finds the port by the first, whoever looks for a port finds the owner by the second.
//! Both carry the tick of the mapping's last use, which is an opening, or a packet of one of its flows as far as the agent
//! noticed in its pass over the flows. Nothing is written for packets of flows.

/// Key of either entry: of the owner (`port` is its source port) or of the gateway's port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct MappingKey<A> {
    /// The owner's address; zero in the entry of the gateway's port.
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
        Self { owner: A::default(), gateway, port, protocol, padding: 0, reserved: 0 }
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
