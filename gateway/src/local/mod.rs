//! What an agent shows to those beside it: flows, events, counters, traces and captures, with names instead of numbers.
//!
//! Everything here looks; nothing changes what the datapath does, but for a capture's filter.

pub mod capture;
pub mod events;
pub mod flows;
pub mod http;
pub mod names;
pub mod top;
pub mod trace;
