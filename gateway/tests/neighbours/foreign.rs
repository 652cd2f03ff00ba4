//! Other people's programs: a few instructions each, that count a packet and answer what they were made to.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use sluicegate_lab::Namespace;

use crate::world::World;

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// tcx ingress, before all or after all that are there now.
    IngressFirst,
    IngressLast,
    /// tcx egress, after all.
    EgressLast,
    /// XDP by the driver.
    Xdp,
    /// XDP by the stack.
    XdpGeneric,
}

/// A program attached to a device by a link, until it is dropped.
pub(crate) struct Foreign {
    link: OwnedFd,
    program: Loaded,
    /// The kernel's id of the program.
    pub(crate) id: u32,
}

/// A program run by a filter below a clsact qdisc, as `tc` makes it. It stays when this is dropped.
pub(crate) struct Filter {
    program: Loaded,
    device: &'static str,
    side: &'static str,
}

/// A program and what it counts.
struct Loaded {
    program: OwnedFd,
    count: OwnedFd,
}

/// `enum bpf_cmd`.
mod command {
    pub(crate) const MAP_CREATE: i64 = 0;
    pub(crate) const MAP_LOOKUP: i64 = 1;
    pub(crate) const PROG_LOAD: i64 = 5;
    pub(crate) const OBJ_PIN: i64 = 6;
    pub(crate) const OBJ_GET_INFO: i64 = 15;
    pub(crate) const LINK_CREATE: i64 = 28;
    pub(crate) const LINK_DETACH: i64 = 34;
}

/// `BPF_PROG_TYPE_SCHED_CLS`
const SCHED_CLS: u32 = 3;

/// What TC and XDP programs answer to let a packet go on: to the next program, and up.
const TCX_NEXT: i32 = -1;
const XDP_PASS: i32 = 2;

impl Foreign {
    /// Attaches a program called `name` to `device` of `namespace`.
    pub(crate) fn attach(namespace: &Namespace, device: &str, place: Place, name: &str) -> Self {
        let attached = namespace.enter(|| Self::try_attach(device, place, name));
        attached.unwrap().unwrap_or_else(|e| panic!("{name} could not be attached: {e}"))
    }

    fn try_attach(device: &str, place: Place, name: &str) -> io::Result<Self> {
        const XDP: u32 = 6;
        const FIRST: u32 = 1 << 3; // BPF_F_BEFORE, of nothing: before all
        const LAST: u32 = 1 << 4; // BPF_F_AFTER
        const GENERIC: u32 = 1 << 1; // XDP_FLAGS_SKB_MODE
        const DRIVER: u32 = 1 << 2; // XDP_FLAGS_DRV_MODE
        let (kind, attach_type, flags, answer) = match place {
            Place::IngressFirst => (SCHED_CLS, 46, FIRST, TCX_NEXT),
            Place::IngressLast => (SCHED_CLS, 46, LAST, TCX_NEXT),
            Place::EgressLast => (SCHED_CLS, 47, LAST, TCX_NEXT),
            Place::Xdp => (XDP, 37, DRIVER, XDP_PASS),
            Place::XdpGeneric => (XDP, 37, GENERIC, XDP_PASS),
        };
        let loaded = Loaded::new(kind, name, answer)?;
        let device = CString::new(device)?;
        // SAFETY: a C string that lives through the call.
        let index = unsafe { libc::if_nametoindex(device.as_ptr()) };
        let mut link = [loaded.program.as_raw_fd() as u32, index, attach_type, flags, 0, 0, 0, 0];
        let link = owned(command::LINK_CREATE, &mut link)?;
        let id = id(&loaded.program)?;
        Ok(Self { link, program: loaded, id })
    }

    /// Packets it has seen.
    pub(crate) fn seen(&self) -> u64 {
        self.program.counts()[0]
    }

    /// Of those, the ones of [`LARGE`] bytes and more, which nobody sends unasked; in TC only.
    pub(crate) fn seen_large(&self) -> u64 {
        self.program.counts()[1]
    }
}

impl Filter {
    /// The priority of every such filter: behind what judges first.
    pub(crate) const PRIORITY: &str = "10";

    /// Adds one to `side` of `device` in `world`'s gateway, and the qdisc unless it is there.
    pub(crate) fn add(world: &World, device: &'static str, side: &'static str) -> Self {
        let program = Loaded::new(SCHED_CLS, "their_filter", TCX_NEXT).unwrap();
        let pin = world.lab.bpffs().unwrap().join(format!("theirs-{device}-{side}"));
        program.pin(&pin).unwrap();
        // Somebody else may have added it.
        let _ = world.tc(&["qdisc", "add", "dev", device, "clsact"]);
        let pin = pin.to_str().unwrap();
        let filter = ["filter", "add", "dev", device, side, "pref", Self::PRIORITY, "protocol", "all"];
        let runs = ["bpf", "direct-action", "object-pinned", pin];
        world.tc(&[&filter[..], &runs].concat()).unwrap();
        std::fs::remove_file(pin).unwrap();
        Self { program, device, side }
    }

    /// What `tc` says of it, without what is counted.
    pub(crate) fn told(&self, world: &World) -> String {
        world.tc(&["filter", "show", "dev", self.device, self.side, "pref", Self::PRIORITY]).unwrap()
    }

    /// Packets it has seen, and of those the ones of [`LARGE`] bytes and more.
    pub(crate) fn counts(&self) -> [u64; 2] {
        self.program.counts()
    }
}

impl Loaded {
    fn new(kind: u32, name: &str, answer: i32) -> io::Result<Self> {
        const ARRAY: u32 = 2;
        let count = owned(command::MAP_CREATE, &mut [ARRAY, 4, 16, 1])?;
        let program = load(kind, name, &count, answer)?;
        Ok(Self { program, count })
    }

    fn pin(&self, path: &Path) -> io::Result<()> {
        #[repr(C)]
        struct Attr {
            path: u64,
            fd: u32,
            flags: u32,
        }
        let path = CString::new(path.as_os_str().as_encoded_bytes())?;
        let mut attr = Attr { path: path.as_ptr() as u64, fd: self.program.as_raw_fd() as u32, flags: 0 };
        bpf(command::OBJ_PIN, &mut attr).map(drop)
    }

    fn counts(&self) -> [u64; 2] {
        #[repr(C)]
        struct Attr {
            map: u32,
            padding: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let (key, mut value) = (0u32, [0u64; 2]);
        let mut attr = Attr {
            map: self.count.as_raw_fd() as u32,
            padding: 0,
            key: &raw const key as u64,
            value: &raw mut value as u64,
            flags: 0,
        };
        bpf(command::MAP_LOOKUP, &mut attr).unwrap();
        value
    }
}

impl Drop for Foreign {
    /// Detached in so many words: closing alone does it with the last descriptor, and a process that another test is just
    /// starting has them all until its program runs.
    fn drop(&mut self) {
        let mut attr = [self.link.as_raw_fd() as u32];
        // An error here is a device that is gone, and the program with it.
        let _ = bpf(command::LINK_DETACH, &mut attr);
    }
}

/// From this many bytes on a packet is large.
pub(crate) const LARGE: usize = 400;

/// Counts a packet in the only entry of `count` and returns `answer`.
fn load(kind: u32, name: &str, count: &OwnedFd, answer: i32) -> io::Result<OwnedFd> {
    /// `struct bpf_insn`: opcode, registers (source << 4 | destination), offset, immediate.
    const fn instruction(opcode: u8, registers: u8, offset: u8, immediate: i32) -> u64 {
        opcode as u64 | (registers as u64) << 8 | (offset as u64) << 16 | (immediate as u32 as u64) << 32
    }
    const PSEUDO_MAP_VALUE: u8 = 2;
    // r6 = skb->len, the first field of a TC program's context; 0 in XDP
    let length =
        if kind == SCHED_CLS { instruction(0x61, 1 << 4 | 6, 0, 0) } else { instruction(0xb7, 6, 0, 0) };
    let instructions = [
        length,
        instruction(0x18, PSEUDO_MAP_VALUE << 4 | 1, 0, count.as_raw_fd()), // r1 = &count[0]
        instruction(0, 0, 0, 0),
        instruction(0xb7, 2, 0, 1),            // r2 = 1
        instruction(0xdb, 2 << 4 | 1, 0, 0),   // lock *(u64 *)r1 += r2
        instruction(0xa5, 6, 1, LARGE as i32), // if r6 < LARGE, skip one
        instruction(0xdb, 2 << 4 | 1, 8, 0),   // lock *(u64 *)(r1 + 8) += r2
        instruction(0xb7, 0, 0, answer),       // r0 = answer
        instruction(0x95, 0, 0, 0),            // exit
    ];
    #[repr(C)]
    struct Attr {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log: [u64; 2],
        kernel: u32,
        flags: u32,
        name: [u8; 16],
    }
    let license = c"GPL";
    let mut attr = Attr {
        kind,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log: [0; 2],
        kernel: 0,
        flags: 0,
        name: [0; 16],
    };
    attr.name[..name.len()].copy_from_slice(name.as_bytes());
    owned(command::PROG_LOAD, &mut attr)
}

fn id(program: &OwnedFd) -> io::Result<u32> {
    let mut info = [0u32; 2]; // struct bpf_prog_info: type, id
    #[repr(C)]
    struct Attr {
        fd: u32,
        length: u32,
        info: u64,
    }
    let mut attr = Attr { fd: program.as_raw_fd() as u32, length: 8, info: info.as_mut_ptr() as u64 };
    bpf(command::OBJ_GET_INFO, &mut attr)?;
    Ok(info[1])
}

fn owned<T>(command: i64, attr: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: a file descriptor the kernel has just given to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: i64, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is the start of `union bpf_attr` for this command, and its pointers are to live buffers.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
