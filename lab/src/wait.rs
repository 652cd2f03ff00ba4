//! Waiting for something to come true, with a bound.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::http;
use crate::namespace::Namespace;
use crate::process::Process;

/// How long to wait before looking again, where no event tells.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks `probe` until it gives a value; `None` after `timeout`. Asks at least once.
///
/// # Errors
/// As soon as `probe` gives one.
pub fn until<T, E>(
    timeout: Duration,
    mut probe: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = probe()? {
            return Ok(Some(value));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(PAUSE);
    }
}

/// Waits until something accepts TCP connections at `address`, as seen from `namespace`.
///
/// # Errors
/// When `process` ends, or after `timeout`.
pub fn tcp(namespace: &Namespace, address: SocketAddr, process: &Process, timeout: Duration) -> Result<()> {
    ready(namespace, process, timeout, &format!("accept connections at {address}"), || {
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
    })
}

/// Waits until `GET path` of the HTTP server at `address` answers 200, as seen from `namespace`.
///
/// # Errors
/// When `process` ends, or after `timeout`.
pub fn http(
    namespace: &Namespace,
    address: SocketAddr,
    path: &str,
    process: &Process,
    timeout: Duration,
) -> Result<()> {
    ready(namespace, process, timeout, &format!("answer 200 at http://{address}{path}"), || {
        http::get(address, path, Duration::from_secs(1)).is_ok_and(|response| response.status == 200)
    })
}

fn ready(
    namespace: &Namespace,
    process: &Process,
    timeout: Duration,
    what: &str,
    mut probe: impl FnMut() -> bool + Send,
) -> Result<()> {
    let outcome = namespace.enter(|| {
        until(timeout, || match (probe(), process.is_running()) {
            (true, _) => Ok(Some(())),
            (false, true) => Ok(None),
            (false, false) => Err(()),
        })
    })?;
    match outcome {
        Ok(Some(())) => Ok(()),
        Ok(None) => {
            bail!("{} did not {what} within {timeout:?}; its log ends:\n{}", process.name(), process.tail())
        }
        Err(()) => {
            bail!("{} ended before it could {what}; its log ends:\n{}", process.name(), process.tail())
        }
    }
}
