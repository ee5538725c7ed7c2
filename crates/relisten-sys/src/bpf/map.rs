use super::call::{Attributes, bpf, info};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Types of maps, as the kernel numbers them (`enum bpf_map_type`).
pub mod map_type {
    /// Hash table.
    pub const HASH: u32 = 1;
    /// Array.
    pub const ARRAY: u32 = 2;
    /// Sockets of reuseport groups. Linux 4.19.
    pub const REUSEPORT_SOCKARRAY: u32 = 20;
    /// Storage with each socket. Linux 5.2.
    pub const SK_STORAGE: u32 = 24;
}

/// What the kernel says of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// One of [`map_type`].
    pub kind: u32,
    /// The kernel's number of it; never given twice in one boot.
    pub id: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// How many entries it has room for.
    pub max_entries: u32,
    /// `BPF_F_*` it was made with.
    pub flags: u32,
}

/// A map. Sizes are asked once, so that no call can reach beyond a buffer.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    info: MapInfo,
}

#[repr(C)]
struct Element {
    fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

// SAFETY: the part of `union bpf_attr` for BPF_MAP_*_ELEM. `Map` makes them from slices of the map's sizes only.
unsafe impl Attributes for Element {}

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;

impl Map {
    /// Takes a map's descriptor.
    ///
    /// # Errors
    ///
    /// `EBADF`, `EINVAL` when it is no eBPF object; [`io::ErrorKind::InvalidInput`] when it is no map.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        // Programs and links have descriptors and infos too, laid out otherwise; only the file's name tells.
        let name = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new());
        if name.is_ok_and(|n| n.as_bytes() != b"anon_inode:bpf-map") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // struct bpf_map_info: type, id, key_size, value_size, max_entries, map_flags, 32 bits each.
        let words: [u64; 3] = info(fd.as_fd())?;
        let (low, high) = (|w: u64| w as u32, |w: u64| (w >> 32) as u32);
        let (kind, id) = halves(words[0], low, high);
        let (key_size, value_size) = halves(words[1], low, high);
        let (max_entries, flags) = halves(words[2], low, high);
        Ok(Self { fd, info: MapInfo { kind, id, key_size, value_size, max_entries, flags } })
    }

    /// What the kernel says of it.
    pub fn info(&self) -> &MapInfo {
        &self.info
    }

    /// `BPF_MAP_UPDATE_ELEM`, for maps whose values are not per CPU. For sockets the value is the descriptor's
    /// number: see [`set_fd`](Self::set_fd).
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] when a length is not the map's. `E2BIG` when it is full or the key is too
    /// large. For [`REUSEPORT_SOCKARRAY`](map_type::REUSEPORT_SOCKARRAY): `EINVAL` when the socket has no
    /// SO_REUSEPORT or does not listen (TCP), `ENOTSUPP` (524) for other kinds, MPTCP among them, `EBUSY` when the
    /// socket is in a map of this kind already.
    pub fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key, value.len())?;
        let element = self.element(key, value.as_ptr().addr() as u64);
        // SAFETY: attributes of the command; both slices have the map's lengths and are only read.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &element) }.map(drop)
    }

    /// [`set`](Self::set) for a map whose values are sockets.
    pub fn set_fd(&self, key: &[u8], value: BorrowedFd<'_>) -> io::Result<()> {
        let number = value.as_raw_fd();
        match self.info.value_size {
            4 => self.set(key, &number.to_ne_bytes()),
            _ => self.set(key, &(number as u64).to_ne_bytes()),
        }
    }

    /// `BPF_MAP_LOOKUP_ELEM`, for maps whose values are not per CPU: fills `value`, or `false` when there is no
    /// such entry.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub fn get(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.check(key, value.len())?;
        let element = self.element(key, value.as_mut_ptr().addr() as u64);
        // SAFETY: attributes of the command; the kernel writes `value_size` bytes, which is the slice's length.
        found(unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &element) })
    }

    /// `BPF_MAP_DELETE_ELEM`; `false` when there is no such entry.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] when the length is not the map's.
    pub fn remove(&self, key: &[u8]) -> io::Result<bool> {
        self.check(key, self.info.value_size as usize)?;
        let element = self.element(key, 0);
        // SAFETY: attributes of the command; the key has the map's length and is only read.
        found(unsafe { bpf(BPF_MAP_DELETE_ELEM, &element) })
    }

    fn check(&self, key: &[u8], value: usize) -> io::Result<()> {
        let fits = key.len() == self.info.key_size as usize && value == self.info.value_size as usize;
        if fits { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    fn element(&self, key: &[u8], value: u64) -> Element {
        let fd = self.fd.as_raw_fd() as u32;
        Element { fd, reserved: 0, key: key.as_ptr().addr() as u64, value, flags: 0 }
    }
}

/// The first and the second 32 bits in memory.
fn halves(word: u64, low: fn(u64) -> u32, high: fn(u64) -> u32) -> (u32, u32) {
    if cfg!(target_endian = "little") { (low(word), high(word)) } else { (high(word), low(word)) }
}

fn found(result: io::Result<i32>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Map> for OwnedFd {
    fn from(map: Map) -> Self {
        map.fd
    }
}
