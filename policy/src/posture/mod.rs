//! Posture checks: what is asked of a machine before rules count it among their sources, and what it is judged by.
//!
//! | module | idea |
//! |---|---|
//! | `checks` | the checks, in the shapes of NetBird's API, and what is refused |
//! | `facts` | what is known of a machine |
//! | `judge` | a verdict: every check that fails, with the reason |
//! | `version` | versions as they are compared |
//!
//! Pure, as everything in this crate. A fact that is missing, and one that cannot be read, fails the check that needs it:
//! nothing here passes because it could not be looked at.

mod checks;
mod facts;
mod judge;
mod version;

pub use checks::{
    Action, Checks, GeoLocation, Invalid, Location, MinKernelVersion, MinVersion, NetworkRange, OsVersion,
    Process, ProcessCheck,
};
pub use facts::{Facts, Live, Place, Platform, ProcessState};
pub use judge::{Failure, Kind, Verdict};
pub use version::Version;

#[cfg(test)]
mod tests;
