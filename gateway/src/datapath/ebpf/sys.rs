//! The kernel interface that aya does not have: batched map reads, memory-mapped arrays, a grace period, pins.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use sluicegate_engine::classify::Line;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

/// `struct { ... } batch` of `union bpf_attr` (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The start of the anonymous map-creation struct of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct CreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

/// The element struct of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// One `bpf(2)` call.
pub(super) fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is a prefix of `union bpf_attr` of the given size, and its pointers are to live buffers of the sizes
    // the map has; the kernel checks everything else.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Every entry of a hash map, read in batches: two system calls per entry would take seconds for a large flow table.
/// Entries inserted or removed meanwhile may be missing.
pub(super) fn entries<K: Copy + Default, V: Copy + Default>(
    map: BorrowedFd<'_>,
    expected: usize,
) -> io::Result<Vec<(K, V)>> {
    // A batch holds whole hash buckets; one bucket may hold many entries, and ENOSPC asks for a larger batch.
    let mut size = expected.clamp(256, 16_384);
    let mut found = Vec::new();
    let mut position = [0u64; 2];
    let mut first = true;
    loop {
        let (mut keys, mut values) = (vec![K::default(); size], vec![V::default(); size]);
        let mut attr = BatchAttr {
            in_batch: if first { 0 } else { position.as_ptr() as u64 },
            out_batch: position.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: size as u32,
            map_fd: map.as_raw_fd() as u32,
            ..BatchAttr::default()
        };
        let more = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => true,
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => false,
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && size < 1 << 22 => {
                size *= 2;
                continue;
            }
            Err(e) => return Err(e),
        };
        first = false;
        let count = attr.count as usize;
        found.extend(keys.into_iter().zip(values).take(count));
        if !more {
            return Ok(found);
        }
    }
}

/// The first `count` values of a per-CPU array of pairs of `u64`, summed over processors.
pub(super) fn sums(map: BorrowedFd<'_>, count: u32, processors: usize) -> io::Result<Vec<[u64; 2]>> {
    const CHUNK: u32 = 4096;
    let mut sums = Vec::with_capacity(count as usize);
    let mut position = 0u32;
    let mut first = true;
    while (sums.len() as u32) < count {
        let chunk = CHUNK.min(count - sums.len() as u32);
        let mut keys = vec![0u32; chunk as usize];
        let mut values = vec![[0u64; 2]; chunk as usize * processors];
        let from = position;
        let mut attr = BatchAttr {
            in_batch: if first { 0 } else { &raw const from as u64 },
            out_batch: &raw mut position as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: chunk,
            map_fd: map.as_raw_fd() as u32,
            ..BatchAttr::default()
        };
        let more = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => true,
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => false,
            Err(e) => return Err(e),
        };
        first = false;
        let read = values.chunks(processors).take(attr.count as usize);
        sums.extend(
            read.map(|per| per.iter().fold([0, 0], |sum, pair| [sum[0] + pair[0], sum[1] + pair[1]])),
        );
        if !more {
            break;
        }
    }
    Ok(sums)
}

/// An array map in this process's memory.
pub(super) struct Mapped {
    address: *mut u8,
    length: usize,
}

// SAFETY: the mapping is not tied to a thread, and all access goes through `&mut self` or volatile stores.
unsafe impl Send for Mapped {}

impl Mapped {
    /// Maps the first `length` bytes of an array made with `BPF_F_MMAPABLE`.
    pub(super) fn new(map: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        // SAFETY: a fresh shared mapping; nothing else refers to it.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { address: address.cast(), length })
    }

    /// Stores one aligned 64-bit word at once: packets see the old one or the new one.
    pub(super) fn store(&mut self, index: usize, word: u64) {
        assert!((index + 1) * 8 <= self.length);
        // SAFETY: inside the mapping, which starts on a page; programs read the word while it is written.
        unsafe { std::sync::atomic::AtomicU64::from_ptr(self.address.cast::<u64>().add(index)) }
            .store(word, std::sync::atomic::Ordering::Release);
    }

    /// Reads one 64-bit word.
    pub(super) fn load(&self, index: usize) -> u64 {
        assert!((index + 1) * 8 <= self.length);
        // SAFETY: as in `store`.
        unsafe { std::sync::atomic::AtomicU64::from_ptr(self.address.cast::<u64>().add(index)) }
            .load(std::sync::atomic::Ordering::Acquire)
    }

    /// The image lines of a part: `start` and `length` in bytes, on whole lines.
    pub(super) fn lines(&self, start: usize, length: usize) -> &[Line] {
        assert!(start.is_multiple_of(size_of::<Line>()));
        assert!(start.checked_add(length).is_some_and(|end| end <= self.length));
        // SAFETY: inside the mapping, aligned since it starts on a page; programs only read it, and this process writes to it
        // through `&mut self` alone.
        unsafe {
            std::slice::from_raw_parts(self.address.add(start).cast::<Line>(), length / size_of::<Line>())
        }
    }

    /// The bytes of a part no program reads now.
    pub(super) fn bytes(&mut self, start: usize, length: usize) -> &mut [u8] {
        assert!(start.checked_add(length).is_some_and(|end| end <= self.length));
        // SAFETY: inside the mapping; the caller has seen to it that no program reads this part.
        unsafe { std::slice::from_raw_parts_mut(self.address.add(start), length) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`.
        unsafe { libc::munmap(self.address.cast(), self.length) };
    }
}

/// Waits until every program that was running has finished.
pub(super) struct GracePeriod {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl GracePeriod {
    /// Makes the two tiny maps that it takes.
    pub(super) fn new() -> io::Result<Self> {
        let create = |map_type, value_size, inner: Option<&OwnedFd>| {
            let mut attr = CreateAttr {
                map_type,
                key_size: 4,
                value_size,
                max_entries: 1,
                inner_map_fd: inner.map_or(0, |fd| fd.as_raw_fd() as u32),
                ..CreateAttr::default()
            };
            // SAFETY: a file descriptor the kernel has just given to us.
            bpf(BPF_MAP_CREATE, &mut attr).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
        };
        let inner = create(BPF_MAP_TYPE_ARRAY, 8, None)?;
        let outer = create(BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, Some(&inner))?;
        Ok(Self { outer, inner })
    }

    /// After an update of a map of maps the kernel waits for an RCU grace period, so that user space may rely on no program
    /// seeing the old inner map (kernel/bpf/syscall.c, `maybe_wait_bpf_programs`): 8 to 16 ms.
    pub(super) fn wait(&self) -> io::Result<()> {
        let (key, value) = (0u32, self.inner.as_raw_fd() as u32);
        let mut attr = ElementAttr {
            map_fd: self.outer.as_raw_fd() as u32,
            key: &raw const key as u64,
            value: &raw const value as u64,
            ..ElementAttr::default()
        };
        bpf(BPF_MAP_UPDATE_ELEM, &mut attr).map(|_| ())
    }
}

/// Opens what is pinned at `path`.
pub(super) fn open_pinned(path: &std::path::Path) -> io::Result<OwnedFd> {
    const BPF_OBJ_GET: libc::c_long = 7;

    #[repr(C)]
    struct ObjectAttr {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &mut attr)?;
    // SAFETY: a file descriptor the kernel has just given to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
