//! The TCP life of a flow: what a segment's flags do to its state. No sequence tracking.

use crate::flow::State;
use crate::packet::tcp::{ACK, FIN, RST, SYN};

/// What a segment does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It passes; the flow is in this state now.
    To(State),
    /// It passes and changes nothing.
    Stay,
    /// The initiator starts over with a SYN on a flow that is closing or reset: judge it as a new flow.
    Reopen,
    /// No connection sends this.
    Invalid,
}

/// Whether the flag combination can be sent by any TCP: not SYN with FIN or RST, not FIN with RST, not without any of
/// SYN, ACK and RST (a bare FIN or a null segment is a scan).
#[inline(always)]
pub const fn is_sane(flags: u8) -> bool {
    let exclusive = (flags & SYN != 0) as u8 + (flags & FIN != 0) as u8 + (flags & RST != 0) as u8;
    exclusive <= 1 && flags & (SYN | ACK | RST) != 0
}

/// Whether the segment opens a connection: SYN alone.
#[inline(always)]
pub const fn opens(flags: u8) -> bool {
    flags & (SYN | ACK | RST | FIN) == SYN
}

/// The step for a sane segment. `reply` is its direction; `fin_before` says whether the other direction has sent a FIN.
#[inline(always)]
pub const fn step(state: State, flags: u8, reply: bool, fin_before: bool) -> Step {
    let syn = flags & SYN != 0;
    let ack = flags & ACK != 0;
    if syn && !ack {
        return match (state, reply) {
            // A simultaneous open from the responder is not something a gateway's flow can be.
            (_, true) => Step::Invalid,
            (State::Closing | State::TimeWait | State::Reset, false) => Step::Reopen,
            // A retransmission, or a rebooted initiator whom the responder will challenge (RFC 5961 4).
            (_, false) => Step::Stay,
        };
    }
    if flags & RST != 0 {
        return match (state, reply) {
            // The initiator cannot reset what has not been answered; TIME-WAIT ignores resets (RFC 1337).
            (State::SynSent, false) | (State::TimeWait, _) => Step::Stay,
            _ => Step::To(State::Reset),
        };
    }
    match state {
        State::SynSent => match (reply, syn) {
            (true, true) => Step::To(State::SynReceived),
            // A challenge ACK from a responder that still remembers an older connection (RFC 5961 4).
            (true, false) => Step::Stay,
            (false, _) => Step::Invalid,
        },
        State::SynReceived if !reply && !syn => {
            if flags & FIN != 0 {
                Step::To(State::Closing)
            } else {
                Step::To(State::Established)
            }
        }
        State::Established if flags & FIN != 0 => Step::To(State::Closing),
        State::Closing if flags & FIN != 0 && fin_before => Step::To(State::TimeWait),
        _ => Step::Stay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Conformance cases T-1 and T-6: no SYN, no flow; impossible combinations are invalid in every state.
    #[test]
    fn only_a_bare_syn_opens_and_impossible_flags_are_invalid() {
        for flags in [SYN | ACK, SYN | FIN, RST, ACK, ACK | 8, 0, FIN] {
            assert!(!opens(flags), "{flags:#x}");
        }
        for flags in [SYN | FIN, SYN | RST, FIN | RST, 0, FIN, 8, 32 | 8 | FIN] {
            assert!(!is_sane(flags), "{flags:#x}");
        }
        assert!(opens(SYN) && is_sane(SYN) && is_sane(RST) && is_sane(FIN | ACK));
    }

    /// T-2, T-3: handshake and normal close.
    #[test]
    fn handshake_data_and_close() {
        assert_eq!(step(State::SynSent, SYN | ACK, true, false), Step::To(State::SynReceived));
        assert_eq!(step(State::SynReceived, ACK, false, false), Step::To(State::Established));
        assert_eq!(step(State::Established, ACK, true, false), Step::Stay);
        assert_eq!(step(State::Established, FIN | ACK, false, false), Step::To(State::Closing));
        assert_eq!(step(State::Closing, FIN | ACK, true, true), Step::To(State::TimeWait));
        assert_eq!(step(State::TimeWait, ACK, false, true), Step::Stay);
        assert_eq!(step(State::TimeWait, SYN, false, true), Step::Reopen);
        assert_eq!(step(State::TimeWait, SYN, true, true), Step::Invalid);
    }

    /// T-4, T-5: resets.
    #[test]
    fn resets() {
        assert_eq!(step(State::Established, RST | ACK, true, false), Step::To(State::Reset));
        assert_eq!(step(State::SynSent, RST | ACK, true, false), Step::To(State::Reset));
        assert_eq!(step(State::SynSent, RST, false, false), Step::Stay);
        assert_eq!(step(State::TimeWait, RST, true, true), Step::Stay);
        assert_eq!(step(State::Reset, SYN, false, false), Step::Reopen);
    }

    /// T-7, T-8: repeated FINs and own ACKs change nothing.
    #[test]
    fn repeats_change_nothing() {
        assert_eq!(step(State::Closing, FIN | ACK, false, false), Step::Stay);
        assert_eq!(step(State::Closing, ACK, false, false), Step::Stay);
        assert_eq!(step(State::SynSent, SYN, false, false), Step::Stay);
        assert_eq!(step(State::SynReceived, SYN | ACK, true, false), Step::Stay);
    }
}
