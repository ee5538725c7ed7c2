use std::io;
use thiserror::Error;

/// The programs could not be loaded. Classic BPF is left then.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The object was refused or its maps could not be made: no privilege, mostly.
    #[error("make the maps (needs CAP_BPF and CAP_NET_ADMIN, or root)")]
    Maps(#[source] Box<aya::EbpfError>),
    /// A program was refused: no privilege, or a kernel before 5.17.
    #[error("load the program '{name}' (needs Linux 5.17, CAP_BPF and CAP_NET_ADMIN, or root)")]
    Program {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The committed object is not what this code expects: a bug.
    #[error("the object has no '{0}'")]
    Object(String),
    /// Duplicating a descriptor.
    #[error("keep a descriptor")]
    Descriptor(#[from] io::Error),
}

/// Descriptors do not lead to what they should.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// What the kernel says.
    #[error("open the map '{name}'")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is a map of other sizes or another kind.
    #[error("the map '{0}' is of another version of relisten")]
    Shape(&'static str),
    /// The maps say that they are of another version.
    #[error("the maps have version {found}, this relisten understands {}", crate::abi::VERSION)]
    Version {
        /// Theirs.
        found: u32,
    },
}
