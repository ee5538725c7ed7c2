use thiserror::Error;

/// The programs can't be used at all.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The object was refused or its maps could not be made: no privilege, mostly.
    #[error("load the programs (needs CAP_BPF and CAP_PERFMON, or root)")]
    Maps(#[source] Box<aya::EbpfError>),
    /// Where the kernel's structures have their fields is not told.
    #[error("the kernel's type information (/sys/kernel/btf/vmlinux)")]
    Types(#[source] aya::BtfError),
    /// The committed object is not what this code expects: a bug.
    #[error("the object has no '{0}'")]
    Object(&'static str),
    /// A map can't be read or written.
    #[error("use a map")]
    Map(#[from] aya::maps::MapError),
}

/// One probe can't be used; others may.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The committed object is not what this code expects: a bug.
    #[error("the object has no program '{0}'")]
    Object(&'static str),
    /// The kernel does not load the program.
    #[error("the kernel does not load it")]
    Load(#[source] std::io::Error),
    /// The kernel refused it.
    #[error("the kernel refuses it")]
    Refused(#[from] aya::programs::ProgramError),
    /// The kernel's type information can't be read.
    #[error("read the kernel's type information")]
    Types(#[from] aya::BtfError),
    /// There is no cgroup file system of version 2, or it can't be opened.
    #[error("open the root of the cgroups of version 2")]
    Cgroup(#[source] std::io::Error),
}
