use crate::abi;
use crate::descriptors::{COUNT_BY_LABELS, Descriptors, Kind};
use crate::error::{LoadError, OpenError};
use crate::steering::Steering;
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use std::os::fd::{AsFd, OwnedFd};

/// The object file. Built by `cargo xtask bpf`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/relisten.bpf.o");

/// Programs and maps are in the kernel, and held by this process only. Nothing is attached.
#[derive(Debug)]
pub struct Loaded(Descriptors);

impl Loaded {
    /// Loads the maps, the program that counts, and those of so many groups (1 to [`abi::GROUPS`]). Each
    /// takes the kernel some 50 ms to verify.
    ///
    /// Needs Linux 5.17; CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN).
    pub fn load(groups: usize) -> Result<Self, LoadError> {
        Self::take(&mut parse()?, groups)
    }

    fn take(object: &mut Ebpf, groups: usize) -> Result<Self, LoadError> {
        let fds = Kind::all(groups.clamp(1, abi::GROUPS)).map(|kind| match kind.map_name() {
            Some(name) => map(object, name),
            // Needs more than all the others.
            None if kind == Kind::Count => {
                program(object, COUNT_BY_LABELS.to_owned()).or_else(|_| program(object, kind.name()))
            }
            None => program(object, kind.name()),
        });
        let fds = fds.collect::<Result<Vec<_>, _>>()?;
        Descriptors::new(fds).map(Self).map_err(|_| LoadError::Object("all of its parts".to_owned()))
    }

    /// As [`load`](Self::load) for one group, with the two programs that the time of the others is measured against:
    /// one that does nothing, and one that chooses the listener of key 0 and does nothing else.
    pub fn load_with_yardsticks() -> Result<(Self, [OwnedFd; 2]), LoadError> {
        let mut object = parse()?;
        let loaded = Self::take(&mut object, 1)?;
        let yardsticks =
            [program(&mut object, "nothing".to_owned())?, program(&mut object, "first".to_owned())?];
        Ok((loaded, yardsticks))
    }

    /// To pass them on.
    pub fn into_descriptors(self) -> Descriptors {
        self.0
    }

    /// Maps the memory, in this process.
    pub fn open(self) -> Result<Steering, OpenError> {
        Steering::open(self.0)
    }
}

/// Makes the maps.
fn parse() -> Result<Ebpf, LoadError> {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::DISABLE);
    loader.load(OBJECT).map_err(|e| LoadError::Maps(Box::new(e)))
}

fn map(object: &Ebpf, name: &'static str) -> Result<OwnedFd, LoadError> {
    use aya::maps::Map::{Array, HashMap, ReusePortSockArray, SkStorage};
    let map = object.map(name).ok_or_else(|| LoadError::Object(name.to_owned()))?;
    let (Array(data) | HashMap(data) | ReusePortSockArray(data) | SkStorage(data)) = map else {
        return Err(LoadError::Object(name.to_owned()));
    };
    Ok(data.fd().as_fd().try_clone_to_owned()?)
}

fn program(object: &mut Ebpf, name: String) -> Result<OwnedFd, LoadError> {
    let program = match object.program_mut(&name) {
        None => return Err(LoadError::Object(name)),
        Some(program) => load(program),
    };
    program.map_err(|e| LoadError::Program { name, source: Box::new(e) })
}

fn load(program: &mut Program) -> Result<OwnedFd, ProgramError> {
    let fd = match program {
        Program::SkReuseport(program) => {
            program.load()?;
            program.fd()?
        }
        Program::SockOps(program) => {
            program.load()?;
            program.fd()?
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    };
    fd.as_fd().try_clone_to_owned().map_err(ProgramError::IOError)
}
