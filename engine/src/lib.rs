//! The packet engine: views, flows, NAT and verdicts. No I/O, no clock, no allocator; generic over tables.
#![no_std]
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod image;
