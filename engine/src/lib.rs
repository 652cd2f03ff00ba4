//! The packet engine: views, flows, NAT and verdicts.
//!
//! No I/O, no clock, no allocator: packets come through [`packet::Packet`], everything remembered is behind
//! [`tables::Tables`], and time is an argument in ticks of the caller's choice. [`pipeline::process`] is the only entrance.
#![no_std]

pub mod answer;
pub mod capture;
pub mod checksum;
pub mod classify;
pub mod event;
pub mod express;
pub mod family;
pub mod flow;
pub mod fragment;
pub mod guard;
pub mod hop;
pub mod host;
pub mod image;
pub mod judged;
pub mod limit;
mod live;
pub mod mapping;
pub mod mss;
pub mod nat;
pub mod network;
mod open;
pub mod packet;
pub mod pipeline;
pub mod quote;
pub mod reason;
pub mod stage;
pub mod tables;
pub mod tcp;
#[cfg(test)]
mod tests;
mod track;
pub mod translate;
pub mod validate;
pub mod work;

pub use classify::{Judgement, Lines, classify4, classify6};
pub use reason::DropReason;
pub use validate::{Claims, InvalidImage, revalidate, validate, validate_with};
