//! A laboratory of network namespaces on one Linux host: hosts, cables, processes and traffic, for the demo and for
//! tests that need real packets. Needs root and iproute2.
//!
//! A [`Lab`] owns everything it makes and removes it when it is dropped, also on a panic, SIGINT, SIGTERM or SIGHUP. What
//! a lab killed by SIGKILL left behind is removed by the next one, or by [`clean_dead_runs`]. Nothing a lab did not make is
//! touched: its things carry a random run id, and are written to a manifest before they are made.
//!
//! Processes enter the network namespace only, never another mount namespace: files, sockets and bpffs are shared.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use std::time::Duration;
//! use sluicegate_lab::{Lab, Program};
//!
//! let lab = Lab::new()?;
//! let (a, b) = (lab.namespace("a")?, lab.namespace("b")?);
//! lab.veth((&a, "eth0"), (&b, "eth0"))?;
//! a.address("eth0", "10.0.0.1/24")?;
//! b.address("eth0", "10.0.0.2/24")?;
//! let ping = a.run(&Program::new("ping").args(["-c", "1", "10.0.0.2"]), Duration::from_secs(5))?;
//! assert!(ping.success());
//! # Ok(())
//! # }
//! ```

pub mod feature;
mod forward;
pub mod http;
pub mod interrupt;
mod lab;
mod link;
mod manifest;
mod namespace;
mod proc;
mod process;
mod program;
mod reap;
mod socket;
pub mod traffic;
pub mod wait;

pub use feature::{Feature, can_run_with, kernel_version};
pub use forward::Forward;
pub use lab::Lab;
pub use namespace::Namespace;
pub use process::Process;
pub use program::{Finished, Program};
pub use reap::{Reaped, clean_dead_runs};
