//! Puts a program that passes everything in the place of the agent's, as anyone may who is root on a machine.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

// linux/bpf.h
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;

/// `r0 = TCX_PASS; exit`
const PASS: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];

/// Replaces the program of every link pinned below `bpf_dir`, which needs tcx: before Linux 6.6 filters have no links.
pub(crate) fn disarm(bpf_dir: &Path) -> Result<()> {
    let dir = bpf_dir.join("links");
    let links = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let links: Vec<_> = links.flatten().map(|entry| entry.path()).filter(|path| !path.is_dir()).collect();
    ensure!(!links.is_empty(), "there is no link in {}", dir.display());
    let pass = load_pass().context("cannot load a program that passes everything")?;
    for path in &links {
        open_pinned(path)
            .and_then(|link| update(&link, &pass))
            .with_context(|| format!("cannot replace the program at {}", path.display()))?;
    }
    Ok(())
}

fn load_pass() -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        kind: u32,
        instructions: u32,
        code: u64,
        license: u64,
    }
    let mut attributes = Attributes {
        kind: BPF_PROG_TYPE_SCHED_CLS,
        instructions: 2,
        code: PASS.as_ptr().expose_provenance() as u64,
        license: c"GPL".as_ptr().expose_provenance() as u64,
    };
    // SAFETY: the structure begins as `union bpf_attr` does for this command; what it points to is static.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attributes) }?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        path: u64,
        unused: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Attributes { path: path.as_ptr().expose_provenance() as u64, unused: 0, flags: 0 };
    // SAFETY: the structure begins as `union bpf_attr` does for this command; `path` lives through the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attributes) }?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn update(link: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        link: i32,
        program: i32,
        flags: u32,
        old: u32,
    }
    let mut attributes =
        Attributes { link: link.as_raw_fd(), program: program.as_raw_fd(), flags: 0, old: 0 };
    // SAFETY: the structure begins as `union bpf_attr` does for this command.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attributes) }.map(drop)
}

/// The system call.
///
/// # Safety
/// `attributes` must be laid out as the start of `union bpf_attr` for `command`, and its pointers valid.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: by this function's contract; the kernel reads no more than the size given.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    i32::try_from(result).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)
}
