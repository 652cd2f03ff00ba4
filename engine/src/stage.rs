//! The slow stages of a packet's way, and how they tell what they came to.
//!
//! A packet of a quiet flow passes through code that is one straight line. Everything else (opening a flow, moving its
//! state, finding a port) is a stage: a method of [`Tables`](crate::tables::Tables) that needs nothing but the tables and
//! the packet's [`Work`](crate::work::Work). In user space a stage is a call. In the kernel it is a global function, which the
//! verifier walks once instead of along every path that leads to it; such a function takes and returns plain numbers, so
//! what a stage comes to is one 64-bit word.

pub use crate::fragment::{follow, remember};
pub use crate::hop::meet;
pub use crate::limit::count_opening;
pub use crate::live::{advance, renew};
pub use crate::nat::{claim, reserve};
pub use crate::open::{admit, insert, join};
pub use crate::quote::relate;

use crate::reason::DropReason;

/// Why a packet does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) reason: DropReason,
    /// Slot + 1 of the rule concerned, or 0.
    pub(crate) rule: u32,
    /// Whether an event about it was written already.
    pub(crate) told: bool,
}

impl Refusal {
    /// A rule matched, and yet the packet does not pass; or a drop rule did.
    #[inline(always)]
    pub fn by_rule(reason: DropReason, rule: u32) -> Self {
        Self { reason, rule: rule + 1, told: false }
    }

    /// An event has been written.
    #[inline(always)]
    pub fn told(reason: DropReason) -> Self {
        Self { reason, rule: 0, told: true }
    }
}

impl From<DropReason> for Refusal {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self { reason, rule: 0, told: false }
    }
}

/// What a stage came to, as one word: 0 is `Ok(false)`, 1 is `Ok(true)`; with bit 1 it is a refusal, whose reason is in bits
/// 8..16, whether it was told in bit 2, and whose rule is in bits 32..64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Outcome(pub u64);

const REFUSED: u64 = 2;
const TOLD: u64 = 4;

impl From<Result<bool, Refusal>> for Outcome {
    #[inline(always)]
    fn from(result: Result<bool, Refusal>) -> Self {
        Self(match result {
            Ok(yes) => yes as u64,
            Err(refusal) => {
                let told = if refusal.told { TOLD } else { 0 };
                REFUSED | told | (refusal.reason as u64) << 8 | u64::from(refusal.rule) << 32
            }
        })
    }
}

impl From<Outcome> for Result<bool, Refusal> {
    #[inline(always)]
    fn from(outcome: Outcome) -> Self {
        if outcome.0 & REFUSED == 0 {
            return Ok(outcome.0 != 0);
        }
        Err(Refusal {
            reason: DropReason::from_number((outcome.0 >> 8) as u8).unwrap_or(DropReason::Internal),
            rule: (outcome.0 >> 32) as u32,
            told: outcome.0 & TOLD != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_survives_its_encoding() {
        let refusals = DropReason::ALL.iter().flat_map(|reason| {
            [Refusal::from(*reason), Refusal::by_rule(*reason, (1 << 28) - 1), Refusal::told(*reason)]
        });
        for result in [Ok(false), Ok(true)].into_iter().chain(refusals.map(Err)) {
            assert_eq!(Result::from(Outcome::from(result)), result);
        }
    }
}
