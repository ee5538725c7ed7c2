use super::map::{Map, map_type};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

const BPF_F_MMAPABLE: u32 = 1 << 10;

/// The memory of an array that was made with `BPF_F_MMAPABLE` (Linux 5.5), shared with the programs that use it:
/// a store is seen by them without a system call.
///
/// Everything in it can change at any time, so it is handed out as atomics only. Stays while this lives, whoever
/// else closes the map.
#[derive(Debug)]
pub struct SharedArray {
    start: NonNull<u8>,
    /// Bytes.
    length: usize,
    stride: usize,
}

// SAFETY: the memory is mapped until drop and reached through atomics only.
unsafe impl Send for SharedArray {}
// SAFETY: as above.
unsafe impl Sync for SharedArray {}

impl SharedArray {
    /// Maps it, to read and write.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] when the map is of another kind; `EPERM` when it is frozen or read-only;
    /// `ENOMEM`.
    pub fn map(map: &Map) -> io::Result<Self> {
        let info = map.info();
        if info.kind != map_type::ARRAY || info.flags & BPF_F_MMAPABLE == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Self::map_known(map.as_fd(), info.value_size as usize, info.max_entries as usize)
    }

    /// The same where the kernel does not say what it is, but somebody who knows does: the size of a value, bytes, and how
    /// many there are. Needs no right to use bpf(2).
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map); `EINVAL` when it is smaller.
    pub fn map_known(map: BorrowedFd<'_>, value_size: usize, entries: usize) -> io::Result<Self> {
        // The kernel rounds each value up to 8 bytes (`array_map_alloc`).
        let stride = value_size.next_multiple_of(8);
        let length = stride * entries;
        let length = length.next_multiple_of(rustix::param::page_size());
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses; it touches no other memory.
        let start = unsafe { mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, map, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length, stride })
    }

    /// A 32-bit field, `offset` bytes into entry `index`.
    ///
    /// # Panics
    ///
    /// When it is not within the entry or not aligned.
    pub fn u32(&self, index: usize, offset: usize) -> &AtomicU32 {
        let at = self.at(index, offset, size_of::<u32>());
        // SAFETY: `at` is aligned and within the mapping, which outlives the reference; all access to it in this
        // process is atomic, and that of programs is outside the language like that of another process.
        unsafe { AtomicU32::from_ptr(at.cast().as_ptr()) }
    }

    /// A 64-bit field, `offset` bytes into entry `index`.
    ///
    /// # Panics
    ///
    /// When it is not within the entry or not aligned.
    pub fn u64(&self, index: usize, offset: usize) -> &AtomicU64 {
        let at = self.at(index, offset, size_of::<u64>());
        // SAFETY: as in `u32`.
        unsafe { AtomicU64::from_ptr(at.cast().as_ptr()) }
    }

    fn at(&self, index: usize, offset: usize, size: usize) -> NonNull<u8> {
        assert!(
            offset.is_multiple_of(size) && offset + size <= self.stride,
            "field at {offset} in {} bytes",
            self.stride
        );
        let at = index.checked_mul(self.stride).map(|start| start + offset);
        let at = at.filter(|at| at + size <= self.length).expect("an entry of the map");
        // SAFETY: within the mapping.
        unsafe { self.start.add(at) }
    }
}

impl Drop for SharedArray {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` mapped; no reference outlives `self`. An error would mean that it was not
        // mapped, and there is nothing to be done.
        let _ = unsafe { rustix::mm::munmap(self.start.cast().as_ptr(), self.length) };
    }
}
