//! `policy apply`: make control's groups, networks and policies match a file.
//!
//! Four steps, each pure but the last: read what control has ([`current`]), say what the file wants in the same words
//! ([`spec`]), work out the writes and everything that is wrong with the file ([`plan`]), write ([`mod@write`]). Objects are
//! matched by name. Nothing is written unless the whole file makes sense.

pub mod current;
mod ids;
pub mod plan;
pub mod spec;
pub mod write;

pub use current::Current;
pub use plan::{Action, Plan, Step};
pub use spec::Spec;
