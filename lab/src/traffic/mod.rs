//! Servers and clients whose traffic can be counted, run as processes by the program `lab-traffic`.
//!
//! Every client writes one JSON object per line to standard output: [`Progress`] every 50 ms, then one [`Report`]. It ends
//! after its time, when the other side ends, or when its standard input is closed, so it never outlives who started it.

mod download;
mod echo;
mod report;
mod stream;
mod web;

pub use download::download;
pub use echo::{tcp_echo, udp_echo};
pub use report::{Progress, Report, read_reports};
pub use stream::{tcp_stream, udp_stream};
pub use web::web;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

/// Becomes true when standard input ends.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Watches standard input in a thread of its own.
    #[must_use]
    pub fn at_end_of_stdin() -> Self {
        let flag = Arc::new(AtomicBool::new(false));
        let setter = Arc::clone(&flag);
        thread::spawn(move || {
            // Whatever comes is of no interest, its end is; an error is an end too.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            setter.store(true, Ordering::Relaxed);
        });
        Self(flag)
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Becomes true only through [`Stop::set`].
    #[must_use]
    pub fn by_hand() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    /// Makes it true.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Milliseconds since 1970, to be compared with another process's.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
