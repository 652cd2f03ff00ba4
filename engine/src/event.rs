//! What the engine tells about flows, as one fixed record for both families.

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
