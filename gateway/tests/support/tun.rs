//! A TUN device opened again by a process that also starts others.

use std::time::{Duration, Instant};

use sluicegate_gateway::tun::{Tun, TunError};

/// Opens a device whose last reader was dropped just now. A child that another thread is starting holds a copy of every
/// descriptor between its fork and its exec, so the device may be busy for that moment.
///
/// # Panics
/// Where it is not free within ten seconds, and on every other error.
pub(crate) fn reopened(name: &str) -> Tun {
    let began = Instant::now();
    loop {
        match Tun::open(name) {
            Err(TunError::Busy(_)) if began.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened.unwrap(),
        }
    }
}
