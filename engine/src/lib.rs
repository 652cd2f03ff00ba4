//! The packet engine: views, flows, NAT and verdicts. No I/O, no clock, no allocator; generic over its tables.
#![no_std]

pub mod classify;
pub mod image;
pub mod reason;
pub mod validate;

pub use classify::{Judgement, Lines, classify4, classify6};
pub use reason::DropReason;
pub use validate::{InvalidImage, validate};
