//! SIGINT, SIGTERM and SIGHUP remove the labs of this process before it ends.

use std::io::{self, Read};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::process;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread;

use anyhow::{Context, Result};

use crate::lab::Inner;

static LABS: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());
static STARTED: OnceLock<()> = OnceLock::new();
/// Write end of the pipe between handler and thread.
static WAKE: AtomicI32 = AtomicI32::new(-1);
const UNSET: i32 = -1;
static EXIT_CODE: AtomicI32 = AtomicI32::new(UNSET);

/// The process's exit code when a signal ends it from now on, instead of 128 + the signal's number.
pub fn set_exit_code(code: u8) {
    EXIT_CODE.store(code.into(), Ordering::Relaxed);
}

/// Waits for the signal that ends this process. Never returns: the labs are removed and the process exits.
pub fn wait() -> ! {
    loop {
        thread::park();
    }
}

/// Removes `lab` when a signal comes.
pub(crate) fn watch(lab: &Arc<Inner>) -> Result<()> {
    let mut labs = LABS.lock().unwrap_or_else(PoisonError::into_inner);
    labs.retain(|lab| lab.strong_count() > 0);
    labs.push(Arc::downgrade(lab));
    if STARTED.set(()).is_ok() {
        start()?;
    }
    Ok(())
}

fn start() -> Result<()> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors the call writes.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot make a pipe for signals");
    }
    // SAFETY: both are open descriptors that nobody else owns.
    let (read, write) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    WAKE.store(write.into_raw_fd(), Ordering::Release);
    thread::Builder::new().name("lab signals".into()).spawn(move || clean_and_exit(read.into()))?;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler is async-signal-safe: it loads an atomic and writes to a pipe.
        unsafe { libc::signal(signal, on_signal as *const () as libc::sighandler_t) };
    }
    Ok(())
}

extern "C" fn on_signal(signal: libc::c_int) {
    let byte = u8::try_from(signal).unwrap_or_default();
    // SAFETY: write(2) is async-signal-safe; one byte is read from the stack; the descriptor is never closed.
    unsafe { libc::write(WAKE.load(Ordering::Acquire), (&raw const byte).cast(), 1) };
}

fn clean_and_exit(mut wake: std::fs::File) {
    let mut signal = [0];
    if wake.read_exact(&mut signal).is_err() {
        return;
    }
    let labs: Vec<_> =
        LABS.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
    for lab in labs {
        if let Err(error) = lab.clean() {
            eprintln!("lab: {error:#}");
        }
    }
    let code = EXIT_CODE.load(Ordering::Relaxed);
    process::exit(if code == UNSET { 128 + i32::from(signal[0]) } else { code });
}
