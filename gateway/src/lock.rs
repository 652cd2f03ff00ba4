//! One agent for each state directory, each bpf directory and each site device.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Held as long as the agent runs; the kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _held: Vec<File>,
    _devices: Vec<Option<UnixListener>>,
}

/// Why the lock was not given.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent runs here.
    #[error(
        "a second gateway on the same host: {path} belongs to the one that runs{}; stop it, or give this one its own \
         --state-dir, --bpf-dir, --socket and --device", .pid.as_ref().map(|p| format!(" as process {p}")).unwrap_or_default()
    )]
    Held {
        /// What both want.
        path: PathBuf,
        /// The other's process id, when known.
        pid: Option<String>,
    },
    /// Another agent serves this device.
    #[error(
        "a second gateway on the same host: site device {0} is served by another one, and both would judge its packets; stop \
         it, or give this one other site devices"
    )]
    Device(String),
    /// The lock could not be tried.
    #[error("{path} cannot be locked: {cause}")]
    Io {
        /// What was to be locked.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl Lock {
    /// Locks `state_dir`, which exists, `bpf_dir`, where it is possible to make it, and the `devices` with these names, which
    /// need not be there, of this network namespace.
    pub fn acquire(state_dir: &Path, bpf_dir: &Path, devices: &[String]) -> Result<Self, LockError> {
        let mut held = vec![lock_file(&state_dir.join("lock"))?];
        // Without a bpffs there is nothing to share: the kernel datapath says so itself when it is opened.
        if std::fs::create_dir_all(bpf_dir).is_ok()
            && let Ok(dir) = File::open(bpf_dir)
        {
            flock(&dir, bpf_dir, || None)?;
            held.push(dir);
        }
        // A device that is named twice is locked once.
        let names: BTreeSet<&String> = devices.iter().collect();
        let devices = names.into_iter().map(|name| device(name)).collect::<Result<_, _>>()?;
        Ok(Self { _held: held, _devices: devices })
    }
}

/// Abstract socket names are a network namespace's own, as devices are, and go with the process.
fn device(name: &str) -> Result<Option<UnixListener>, LockError> {
    let io = |cause| LockError::Io { path: name.into(), cause };
    let address = SocketAddr::from_abstract_name(format!("sluicegate/site/{name}")).map_err(io)?;
    match UnixListener::bind_addr(&address) {
        Ok(listener) => Ok(Some(listener)),
        Err(e) if e.kind() != io::ErrorKind::AddrInUse => Err(io(e)),
        // Anybody may take a name: only who could be a gateway keeps one from starting.
        Err(_) => match UnixStream::connect_addr(&address).and_then(|holder| user(&holder)) {
            Ok(user) if user != own_user() => {
                tracing::warn!(
                    user,
                    "a process of another user holds the lock of site device {name}; it is ignored"
                );
                Ok(None)
            }
            _ => Err(LockError::Device(name.into())),
        },
    }
}

/// The user who listens at the other end.
fn user(stream: &UnixStream) -> io::Result<u32> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: SO_PEERCRED writes one `ucred`, whose size `length` gives.
    let got = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if got == 0 { Ok(credentials.uid) } else { Err(io::Error::last_os_error()) }
}

fn own_user() -> u32 {
    // SAFETY: the call takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

fn lock_file(path: &Path) -> Result<File, LockError> {
    let io = |cause| LockError::Io { path: path.into(), cause };
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(io)?;
    let mut pid = String::new();
    let _ = file.read_to_string(&mut pid);
    let pid = pid.trim().to_owned();
    flock(&file, path, || (!pid.is_empty()).then(|| pid.clone()))?;
    // For the sentence another agent writes; the lock holds without it.
    let _ = file.set_len(0).and_then(|()| io::Seek::rewind(&mut file));
    let _ = writeln!(file, "{}", std::process::id());
    Ok(file)
}

fn flock(file: &File, path: &Path, pid: impl FnOnce() -> Option<String>) -> Result<(), LockError> {
    // SAFETY: the descriptor is open for as long as `file` lives, and flock takes no pointers.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(());
    }
    let cause = io::Error::last_os_error();
    Err(match cause.kind() {
        io::ErrorKind::WouldBlock => LockError::Held { path: path.into(), pid: pid() },
        _ => LockError::Io { path: path.into(), cause },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_agent_is_told_who_was_first() {
        let (state, bpf) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Lock::acquire(state.path(), bpf.path(), &[]).unwrap();
        let error = Lock::acquire(state.path(), bpf.path(), &[]).unwrap_err().to_string();
        assert!(error.contains("a second gateway on the same host"), "{error}");
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(first);
        Lock::acquire(state.path(), bpf.path(), &[]).unwrap();
    }

    #[test]
    fn another_state_directory_does_not_help_with_the_same_bpf_directory() {
        let (one, two, bpf) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let _first = Lock::acquire(one.path(), bpf.path(), &[]).unwrap();
        assert!(matches!(Lock::acquire(two.path(), bpf.path(), &[]), Err(LockError::Held { .. })));
    }

    #[test]
    fn two_agents_do_not_serve_one_site_device() {
        let dirs: [_; 4] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
        let devices = |names: [&str; 2]| names.map(str::to_owned);
        let first = Lock::acquire(dirs[0].path(), dirs[1].path(), &devices(["test0", "test1"])).unwrap();
        let second = || Lock::acquire(dirs[2].path(), dirs[3].path(), &devices(["test2", "test1"]));
        let error = second().unwrap_err().to_string();
        assert!(error.contains("a second gateway on the same host") && error.contains("test1"), "{error}");
        drop(first);
        second().unwrap();
    }
}
