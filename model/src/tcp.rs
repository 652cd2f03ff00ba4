//! The life of a TCP connection as the model sees it: the table of docs/packet-semantics.md, row by row.

use sluicegate_engine::flow::State as Life;
use sluicegate_engine::image::axis;

use crate::packets::flag::{ACK, FIN, RST, SYN};

/// What a segment does to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// It passes, and the flow is in this state.
    To(Life),
    /// It does not pass, and nothing changes.
    Invalid,
    /// The flow ends here; the segment opens another, if the policy has it so.
    Anew,
}

/// What one segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment {
    Syn,
    SynAck,
    Reset,
    Fin,
    Other,
}

fn segment(flags: u8) -> Option<Segment> {
    match (flags & SYN != 0, flags & FIN != 0, flags & RST != 0, flags & ACK != 0) {
        (true, false, false, false) => Some(Segment::Syn),
        (true, false, false, true) => Some(Segment::SynAck),
        (false, false, true, _) => Some(Segment::Reset),
        (false, true, false, true) => Some(Segment::Fin),
        (false, false, false, true) => Some(Segment::Other),
        // Two of SYN, FIN and RST; a FIN without ACK; nothing at all.
        _ => None,
    }
}

/// Whether any TCP sends such flags.
pub fn is_sane(flags: u8) -> bool {
    segment(flags).is_some()
}

/// Whether a segment opens a connection.
pub fn opens(flags: u8) -> bool {
    segment(flags) == Some(Segment::Syn)
}

/// What a segment does. `fins` says who has sent a FIN: the opener, the other.
pub fn act(life: Life, flags: u8, reply: bool, fins: [bool; 2]) -> Move {
    let Some(segment) = segment(flags) else { return Move::Invalid };
    let other_fin = fins[usize::from(!reply)];
    match (life, segment, reply) {
        // A connection that ended may begin again with the same ports.
        (Life::Closing | Life::TimeWait | Life::Reset, Segment::Syn, false) => Move::Anew,
        // The responder does not open.
        (_, Segment::Syn, true) => Move::Invalid,
        (life, Segment::Syn, false) => Move::To(life),

        (Life::SynSent, Segment::Reset, false) | (Life::TimeWait, Segment::Reset, _) => Move::To(life),
        (_, Segment::Reset, _) => Move::To(Life::Reset),

        (Life::SynSent, _, false) => Move::Invalid,
        (Life::SynSent, Segment::SynAck, true) => Move::To(Life::SynReceived),
        (Life::SynSent, _, true) => Move::To(Life::SynSent),

        (Life::SynReceived, Segment::Other, false) => Move::To(Life::Established),
        (Life::SynReceived, Segment::Fin, false) => Move::To(Life::Closing),
        (Life::Established, Segment::Fin, _) => Move::To(Life::Closing),
        (Life::Closing, Segment::Fin, _) if other_fin => Move::To(Life::TimeWait),
        (life, _, _) => Move::To(life),
    }
}

/// Where the packet that opened a flow stood, as policies see it.
pub fn opening_axis(protocol: u8, echo: bool, six: bool, port: u16) -> u32 {
    match protocol {
        6 => axis::TCP | u32::from(port),
        17 => axis::UDP | u32::from(port),
        _ if echo && six => axis::ICMPV6 | 128 << 8,
        _ if echo => axis::ICMP | 8 << 8,
        other => axis::OTHER | u32::from(other),
    }
}
