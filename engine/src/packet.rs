//! Packet views: where the bytes are, and what the headers say.

use crate::answer;
use crate::family::Family;
use crate::fragment::Piece;
use crate::image::axis;
use crate::network::{self, Header};
use crate::quote;
use crate::reason::DropReason;
use crate::work::Work;

/// IP protocol numbers the engine knows by name.
pub mod protocol {
    #![expect(missing_docs, reason = "IANA protocol numbers")]
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
}

/// TCP flag bits (RFC 9293 3.1).
pub mod tcp {
    #![expect(missing_docs, reason = "the RFC's names")]
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;
}

/// Bits in [`Transport::flags`] that tell echo messages apart; TCP has none of them.
pub mod echo {
    #![expect(missing_docs, reason = "the names say it")]
    pub const REQUEST: u8 = 0x40;
    pub const REPLY: u8 = 0x80;
}

/// The bytes of one packet from its IP header on. Offsets count from the IP header.
pub trait Packet {
    /// `N` bytes at `offset`, or `None` where the packet ends before.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// Replaces `N` bytes at `offset`; false where the packet ends before.
    fn write<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> bool;

    /// Length from the IP header on, link-layer padding included.
    fn length(&self) -> u32;

    /// Length from the IP header on of the largest packet this becomes on the wire, where headers take `headers` bytes:
    /// less than `length` for one that segmentation offload will cut up.
    fn segment_length(&self, headers: u32) -> u32 {
        let _ = headers;
        self.length()
    }

    /// Makes this a packet of `headers` bytes that are yet to be written, followed by its own first `quoted` bytes. False where
    /// that cannot be done, and for a packet that came to more than one host on its link, which nobody answers; it may be
    /// spoiled then.
    fn requote(&mut self, headers: u32, quoted: u32) -> bool {
        let _ = (headers, quoted);
        false
    }

    /// Whether its sender left the transport checksum to the device. May change the two bytes at `scratch`.
    fn is_unfinished(&mut self, scratch: u32) -> bool {
        let _ = scratch;
        false
    }

    /// Whether the options of its IPv4 header are harmless; see [`network::has_plain_options`].
    #[inline(always)]
    fn has_plain_options(&self, end: u32) -> bool
    where
        Self: Sized,
    {
        network::has_plain_options(self, end, &mut 0)
    }

    /// Part of the sum of a packet; see [`answer::sum_block`].
    #[inline(always)]
    fn sum_block(&self, at: u32, end: u32) -> Option<u64>
    where
        Self: Sized,
    {
        answer::sum_block(self, at, end)
    }

    /// Adjusts the transport checksum at `offset` by one's complement differences: `pseudo` of the pseudo-header,
    /// `payload` of what the checksum covers itself. With `zero_is_none` (UDP), a zero checksum stays zero and a computed
    /// zero becomes all ones (RFC 768). RFC 1624, equation 3.
    fn adjust_checksum(&mut self, offset: u32, pseudo: u32, payload: u32, zero_is_none: bool) -> bool {
        let Some(old) = self.read::<2>(offset).map(u16::from_be_bytes) else { return false };
        if zero_is_none && old == 0 {
            return true;
        }
        let new = crate::checksum::adjust(old, fold32(pseudo, payload));
        self.write(offset, (if zero_is_none && new == 0 { 0xffff } else { new }).to_be_bytes())
    }

    /// The stage that reads what an ICMP error quotes; see [`quote::read`]. A stage of the packet, since it needs its bytes.
    #[inline(always)]
    fn read_quotation<F: Header>(&self, work: &mut Work<F::Address>) -> bool
    where
        Self: Sized,
    {
        quote::read::<F>(self, work)
    }
}

#[inline(always)]
const fn fold32(a: u32, b: u32) -> u32 {
    (a >> 16) + (a & 0xffff) + (b >> 16) + (b & 0xffff)
}

/// A packet in a plain buffer.
#[derive(Debug)]
pub struct Slice<'a>(pub &'a mut [u8]);

impl Packet for Slice<'_> {
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.0.get(offset as usize..)?.first_chunk().copied()
    }

    fn write<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> bool {
        let target = self.0.get_mut(offset as usize..).and_then(<[u8]>::first_chunk_mut);
        target.map(|target| *target = bytes).is_some()
    }

    fn length(&self) -> u32 {
        self.0.len() as u32
    }
}

/// What the network header says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Network<A> {
    /// Source, network order.
    pub source: A,
    /// Destination, network order.
    pub destination: A,
    /// IPv4 TTL or IPv6 hop limit.
    pub ttl: u8,
    /// The transport protocol: in IPv6, the one behind the extension headers.
    pub protocol: u8,
    /// Offset of the transport header.
    pub transport: u32,
    /// Length the header declares, from the IP header on.
    pub length: u32,
    /// Which part of a datagram it is, when it is a fragment.
    pub piece: Piece,
    /// Set when the packet cannot be judged by its transport header; the addresses are still good.
    pub problem: Option<DropReason>,
}

/// What the transport header says, as far as judging needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// Source port in host order; the id of an ICMP echo request; else 0.
    pub source_port: u16,
    /// Destination port in host order; the id of an ICMP echo reply; else 0.
    pub destination_port: u16,
    /// TCP flags; for ICMP one of [`echo`]; else 0.
    pub flags: u8,
    /// Whether a packet of this kind can open a flow, TCP aside: an ICMP echo request, UDP, other protocols.
    pub opens: bool,
    /// Whether it is an ICMP error about a packet that it quotes.
    pub quotes: bool,
    /// Position on the folded protocol/port axis.
    pub axis: u32,
}

/// Reads the transport header of a packet that is whole, or of a first fragment, which must hold all of it: what a later
/// one could bring would overlap it (RFC 1858 3, RFC 3128).
#[inline(always)]
pub fn transport<F: Family>(
    packet: &impl Packet,
    network: &Network<F::Address>,
) -> Result<Transport, DropReason> {
    let at = network.transport;
    let fits = |len: u32| at + len <= network.length;
    match network.protocol {
        protocol::TCP => {
            let Some(header) = packet.read::<14>(at).filter(|_| fits(20)) else {
                return Err(DropReason::Malformed);
            };
            let data_offset = u32::from(header[12] >> 4) * 4;
            if data_offset < 20 || !fits(data_offset) {
                return Err(DropReason::Malformed);
            }
            let (source_port, destination_port) = ports(&header);
            let axis = axis::TCP | u32::from(destination_port);
            Ok(Transport {
                source_port,
                destination_port,
                flags: header[13] & 0x3f,
                axis,
                ..Transport::default()
            })
        }
        protocol::UDP => {
            let Some(header) = packet.read::<8>(at).filter(|_| fits(8)) else {
                return Err(DropReason::Malformed);
            };
            // RFC 8200 8.1: IPv6 receivers discard UDP without a checksum; nothing legitimate is lost here.
            if F::VERSION == 6 && header[6] == 0 && header[7] == 0 {
                return Err(DropReason::Malformed);
            }
            let (source_port, destination_port) = ports(&header);
            let axis = axis::UDP | u32::from(destination_port);
            Ok(Transport { source_port, destination_port, opens: true, axis, ..Transport::default() })
        }
        p if p == F::ICMP => {
            let Some(header) = packet.read::<8>(at).filter(|_| fits(8)) else {
                return Err(DropReason::Malformed);
            };
            let id = u16::from_be_bytes([header[4], header[5]]);
            let class = if F::VERSION == 4 { axis::ICMP } else { axis::ICMPV6 };
            let axis = class | u32::from(header[0]) << 8 | u32::from(header[1]);
            let base = Transport { axis, ..Transport::default() };
            if F::is_icmp_error(header[0]) {
                // The quotation of a fragmented error is elsewhere.
                return if F::quotes_flow(header[0]) && !network.piece.is_set() {
                    Ok(Transport { quotes: true, ..base })
                } else {
                    Err(DropReason::IcmpError)
                };
            }
            if header[0] == F::ECHO_REQUEST {
                Ok(Transport { source_port: id, opens: true, flags: echo::REQUEST, ..base })
            } else if header[0] == F::ECHO_REPLY {
                Ok(Transport { destination_port: id, flags: echo::REPLY, ..base })
            } else {
                Err(DropReason::NotOpening)
            }
        }
        other => Ok(Transport { opens: true, axis: axis::OTHER | u32::from(other), ..Transport::default() }),
    }
}

#[inline(always)]
fn ports<const N: usize>(header: &[u8; N]) -> (u16, u16) {
    (u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]]))
}
