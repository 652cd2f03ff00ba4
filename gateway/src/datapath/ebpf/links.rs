//! Links and programs by the kernel's account: what is attached where, whose it is, and taking it off at once.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::sys::bpf;

/// A link to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// Id of the program behind it.
    pub(super) program: u32,
    /// Index of the device; 0 when the device is gone.
    pub(super) device: u32,
}

/// What a tcx or XDP link is attached to.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    /// The head of `struct bpf_link_info`, up to what all device links have in common.
    #[repr(C)]
    #[derive(Default)]
    struct Head {
        kind: u32,
        id: u32,
        program: u32,
        padding: u32,
        device: u32,
        attach_type: u32,
        rest: [u64; 16],
    }
    let mut head = Head::default();
    describe(link, &mut head)?;
    Ok(LinkInfo { program: head.program, device: head.device })
}

/// The kernel's id of the program that `program` is open on.
pub(super) fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    // `type` and `id` of `struct bpf_prog_info`.
    let mut head = [0u32; 2];
    describe(program, &mut head)?;
    Ok(head[1])
}

/// Takes a link off its device now, whoever still holds it: removing the pin alone would do so some time later.
pub(super) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    const BPF_LINK_DETACH: libc::c_long = 34;

    let mut attr = [link.as_raw_fd() as u32];
    bpf(BPF_LINK_DETACH, &mut attr).map(drop)
}

/// Somebody else's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// The kernel's id of it.
    pub(super) id: u32,
    /// Its name, of which the kernel keeps 15 bytes; empty when it has none or has just gone.
    pub(super) name: String,
}

impl Neighbour {
    /// The program with this id.
    pub(super) fn of(id: u32) -> Self {
        Self { id, name: program_name(id).unwrap_or_default() }
    }

    /// Whether it is the dispatcher by which libxdp (xdp-tools, bpfman) runs several programs on one device.
    pub(super) fn is_dispatcher(&self) -> bool {
        self.name == "xdp_dispatcher"
    }
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.name {
            "" => write!(f, "an unnamed program (id {})", self.id),
            name => write!(f, "program {name} (id {})", self.id),
        }
    }
}

fn program_name(id: u32) -> io::Result<String> {
    const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;

    /// The head of `struct bpf_prog_info`.
    #[repr(C)]
    #[derive(Default)]
    struct Head {
        before: [u64; 8],
        name: [u8; 16],
    }
    let mut attr = [id, 0, 0];
    let fd = bpf(BPF_PROG_GET_FD_BY_ID, &mut attr)?;
    // SAFETY: a file descriptor the kernel has just given to us.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut head = Head::default();
    describe(std::os::fd::AsFd::as_fd(&program), &mut head)?;
    Ok(CStr::from_bytes_until_nul(&head.name)
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default())
}

/// Asks for the start of the information about what `fd` is; `T` is zeroed plain data with the kernel's layout.
fn describe<T>(fd: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

    #[repr(C)]
    struct InfoAttr {
        fd: u32,
        length: u32,
        info: u64,
    }
    let mut attr = InfoAttr {
        fd: fd.as_raw_fd() as u32,
        length: size_of::<T>() as u32,
        info: std::ptr::from_mut(info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_has_no_name() {
        let gone = Neighbour::of(u32::MAX);
        assert_eq!(gone.to_string(), format!("an unnamed program (id {})", u32::MAX));
        let dispatcher = Neighbour { id: 7, name: "xdp_dispatcher".into() };
        assert!(dispatcher.is_dispatcher() && !gone.is_dispatcher());
        assert_eq!(dispatcher.to_string(), "program xdp_dispatcher (id 7)");
    }
}
