//! The agent: one program that is a site gateway or a peer, by its role.
//!
//! It holds the identity, builds the overlay, keeps the image control compiled for it in force in a [`datapath`], and
//! says what happens. Packets are judged in the datapath, never here.

pub mod agent;
pub mod cli;
pub mod config;
pub mod control;
pub mod datapath;
pub mod facts;
pub mod failover;
pub mod files;
pub mod identity;
pub mod join;
pub mod local;
pub mod lock;
pub mod metrics;
pub mod names;
pub mod netlink;
pub mod overlay;
pub mod resolver;
pub mod serve;
pub mod status;
pub mod system;
pub mod tun;
