//! Why a packet was dropped: the closed list behind every counter, event and page that names a reason.

/// Declares the enum, its names and its explanations together, so that none can be forgotten.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $name:literal;)+) => {
        /// Why a packet was dropped. The number is the index of its counter and never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant = $number,)+
        }

        impl DropReason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant),+];

            /// The name in metrics, events and tables.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }

            /// The reason with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(DropReason::$variant),)+ _ => None }
            }

            /// What it means, as a sentence.
            pub const fn explanation(self) -> &'static str {
                match self { $(DropReason::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

reasons! {
    /// No image has been applied yet.
    NoImage = 0, "no_image";
    /// The image outlived its permitted age without word from control.
    PolicyExpired = 1, "policy_expired";
    /// The packet ends before its headers do, or a length field contradicts it.
    Malformed = 2, "malformed";
    /// The IP version and the frame's EtherType disagree, or the version is neither 4 nor 6.
    BadVersion = 3, "bad_version";
    /// The source address belongs to no peer, or arrived on the wrong side.
    SpoofedSource = 4, "spoofed_source";
    /// Multicast, broadcast, loopback, link-local or unspecified addresses do not cross the gateway.
    NotUnicast = 5, "not_unicast";
    /// A later fragment whose first has not passed, or a fragment that has passed before.
    Fragment = 6, "fragment";
    /// An ICMP error that quotes no flow, or of a kind that does not cross a gateway.
    IcmpError = 7, "icmp_error";
    /// The TTL or hop limit would reach zero.
    TtlExpired = 8, "ttl_expired";
    /// Larger than the MTU of the device it would leave by.
    TooBig = 9, "too_big";
    /// No rule admits it.
    NoRule = 10, "no_rule";
    /// A drop rule matches it.
    RuleDrop = 11, "rule_drop";
    /// TCP flags that belong to no connection's life, or a first packet that is not a SYN.
    InvalidTcp = 12, "invalid_tcp";
    /// It answers a flow that is not there.
    NoFlow = 13, "no_flow";
    /// The image in force no longer admits its flow.
    Revoked = 14, "revoked";
    /// The flow table is full.
    FlowTableFull = 15, "flow_table_full";
    /// No port or ICMP id is free for masquerading towards this destination.
    NatExhausted = 16, "nat_exhausted";
    /// The route has no egress device or source address now.
    NoEgress = 17, "no_egress";
    /// An IPv6 extension header chain that cannot be walked, or that names routers still to be visited.
    BadExtension = 18, "bad_extension";
    /// An ICMP query or a first packet of a kind that cannot open a flow.
    NotOpening = 19, "not_opening";
    /// Rewriting the packet failed.
    Internal = 20, "internal";
    /// For WireGuard's port on the underlay, and no WireGuard message.
    UnderlayMalformed = 21, "underlay_malformed";
    /// A WireGuard handshake initiation beyond what one source prefix may send.
    UnderlayHandshakeRate = 22, "underlay_handshake_rate";
    /// Its source has opened as many flows lately as it may without an answer.
    SourceLimit = 23, "source_limit";
    /// It is for an address of this gateway's own on a site, or one it masquerades with: flows do not turn back there.
    Hairpin = 24, "hairpin";
    /// A fragment that overlaps one before it, or comes after one that did.
    FragmentOverlap = 25, "fragment_overlap";
    /// No room to remember the datagram of a first fragment.
    FragmentTableFull = 26, "fragment_table_full";
    /// IPv4 options that cannot be walked, or that name a source route.
    BadOption = 27, "bad_option";
}

impl DropReason {
    /// How many there are: the size of the counter array.
    pub const COUNT: usize = Self::ALL.len();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_in_the_documents() {
        for (name, page) in [
            ("packet-semantics.md", include_str!("../../docs/packet-semantics.md")),
            ("operations.md", include_str!("../../docs/operations.md")),
        ] {
            for reason in DropReason::ALL {
                let is_there = page.lines().any(|row| {
                    let name = row.strip_prefix("| `").and_then(|row| row.strip_prefix(reason.name()));
                    name.is_some_and(|rest| rest.starts_with("` |"))
                });
                assert!(is_there, "no row of docs/{name} begins with {}", reason.name());
            }
        }
    }

    #[test]
    fn numbers_are_dense_and_round_trip() {
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            assert_eq!(DropReason::from_number(i as u8), Some(*reason));
        }
        assert_eq!(DropReason::from_number(DropReason::COUNT as u8), None);
    }
}
