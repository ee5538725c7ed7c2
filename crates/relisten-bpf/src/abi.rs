//! What programs and user space share: `bpf/abi.h` once more. `tests/abi.rs` compares both, name by name and byte by
//! byte. Nothing here is read or written through these structures; they say where things are.

/// Version of all that follows. Maps outlive the process that made them.
pub const VERSION: u32 = 4;
/// Reuseport groups of one instance.
pub const GROUPS: usize = 16;
/// Listeners of one instance.
pub const LISTENERS: usize = 1024;
/// Listeners of one group that a policy chooses from.
pub const LIVE: usize = 256;
/// Listeners of one group, those that are chosen only when nobody else is left included.
pub const MEMBERS: usize = 512;
/// CPUs that can have a listener of their own.
pub const CPUS: usize = 512;
/// Moved connections that are still open and counted where they are.
pub const MOVED: usize = 65536;
/// Places at which one of them may stand, from that of its cookie on.
pub const MOVED_PLACES: u64 = 8;
/// Ports of this machine that lead to a listener of their own, for each group.
pub const EXCEPTIONS: usize = 64;

/// `struct relisten_listener`
#[allow(missing_docs, reason = "documented in bpf/abi.h")]
#[repr(C)]
#[derive(Debug)]
pub struct ListenerEntry {
    pub state: u32,
    pub open: i32,
    pub chosen: u64,
    pub settled: u32,
    pub begun: u32,
    pub label: u32,
    pub reserved: u32,
}

/// `struct relisten_counters`
#[allow(missing_docs, reason = "documented in bpf/abi.h")]
#[repr(C, align(64))]
#[derive(Debug)]
pub struct CountersEntry {
    pub incarnation: u32,
    pub reserved0: u32,
    pub by_fallback: u64,
    pub by_last_resort: u64,
    pub established: u64,
    pub moved_in: u64,
    pub moved_out: u64,
    pub reserved1: [u64; 2],
}

/// `struct relisten_head`
#[allow(missing_docs, reason = "documented in bpf/abi.h")]
#[repr(C)]
#[derive(Debug)]
pub struct HeadEntry {
    pub policy: u32,
    pub live: u32,
    pub members: u32,
    pub total: u32,
}

/// `struct relisten_draw`
#[allow(missing_docs, reason = "documented in bpf/abi.h")]
#[repr(C)]
#[derive(Debug)]
pub struct DrawEntry {
    pub seed: u32,
    pub factor: u32,
}

/// `struct relisten_table`
#[allow(missing_docs, reason = "documented in bpf/abi.h")]
#[repr(C)]
#[derive(Debug)]
pub struct TableEntry {
    pub keys: [u16; MEMBERS],
    pub below: [u32; LIVE],
    pub draws: [DrawEntry; LIVE],
    pub cpus: [u16; CPUS],
}

/// `struct relisten_exception`
#[allow(missing_docs, reason = "documented in bpf/abi.h")]
#[repr(C)]
#[derive(Debug)]
pub struct ExceptionEntry {
    pub port: u16,
    pub key: u16,
}

/// `struct relisten_group`
#[allow(missing_docs, reason = "documented in bpf/abi.h")]
#[repr(C, align(64))]
#[derive(Debug)]
pub struct GroupEntry {
    pub active: u32,
    pub epoch_ticks: u32,
    pub heads: [HeadEntry; 2],
    pub epoch: u64,
    pub excepted: u32,
    pub reserved0: u32,
    pub tended_until: u64,
    pub turn: u64,
    pub by_kernel: u64,
    pub acks: u64,
    pub moved_requests: u64,
    pub move_failed: u64,
    pub move_uncounted: u64,
    pub by_exception: u64,
    pub reserved2: u64,
    pub tables: [TableEntry; 2],
    pub exceptions: [ExceptionEntry; EXCEPTIONS],
}

/// `struct relisten_instance`
#[allow(missing_docs, reason = "documented in bpf/abi.h")]
#[repr(C, align(64))]
#[derive(Debug)]
pub struct InstanceEntry {
    pub version: u32,
    pub counting: u32,
    pub moved: i64,
    pub reserved: [u64; 6],
}

/// `struct relisten_load`
#[allow(missing_docs, reason = "documented in bpf/abi.h")]
#[repr(C)]
#[derive(Debug)]
pub struct LoadEntry {
    pub load: u64,
    pub beat: u64,
}

/// `struct relisten_owner`
#[allow(missing_docs, reason = "documented in bpf/abi.h")]
#[repr(C)]
#[derive(Debug)]
pub struct OwnerEntry {
    pub key: u32,
    pub incarnation: u32,
}

/// `struct relisten_moved`
#[allow(missing_docs, reason = "documented in bpf/abi.h")]
#[repr(C)]
#[derive(Debug)]
pub struct MovedEntry {
    pub cookie: u64,
    pub owner: OwnerEntry,
}

impl OwnerEntry {
    /// As the kernel takes it.
    pub(crate) fn bytes(&self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        let words = [self.key, self.incarnation];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}
