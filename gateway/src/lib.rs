//! The agent: one program that is a site gateway or a peer, by its role.
//!
//! It holds the identity, builds the overlay, keeps the image control compiled for it in force in a [`datapath`], and
//! says what happens. Packets are judged in the datapath, never here.

pub mod datapath;
pub mod overlay;
pub mod tun;
