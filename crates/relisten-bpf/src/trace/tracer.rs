use super::config::{CONFIG_SIZE, Config, LOST_SIZE, Lost};
use super::error::{ProbeError, TraceError};
use super::probe::{Place, Probe};
use super::record::{Malformed, Record};
use super::sighting::Sighting;
use super::{OBJECT, PACKETS_OBJECT};
use aya::maps::{Array, MapData, RingBuf};
use aya::programs::cgroup_skb::CgroupSkbLinkId;
use aya::programs::fentry::FEntryLinkId;
use aya::programs::fexit::FExitLinkId;
use aya::programs::raw_trace_point::RawTracePointLinkId;
use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, FEntry, FExit, ProgramError, RawTracePoint,
};
use aya::{Btf, Ebpf, EbpfLoader, VerifierLogLevel};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;

/// The programs, and what they tell.
pub struct Tracer {
    object: Ebpf,
    ring: RingBuf<MapData>,
    config: Array<MapData, [u8; CONFIG_SIZE]>,
    lost: Array<MapData, [u8; LOST_SIZE]>,
    attached: BTreeMap<Probe, (&'static str, Link)>,
}

enum Link {
    Tracepoint(RawTracePointLinkId),
    Function(FEntryLinkId),
    Return(FExitLinkId),
    Cgroup(CgroupSkbLinkId),
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("attached", &self.attached.keys()).finish_non_exhaustive()
    }
}

impl Tracer {
    /// Makes the maps. Takes some 100 ms: the kernel's type information is read.
    pub fn load(config: &Config) -> Result<Self, TraceError> {
        Self::load_object(OBJECT, config)
    }

    /// The same for [`Probe::PACKETS`]. What they tell is read with [`read_packets`](Self::read_packets).
    pub fn load_packets(config: &Config) -> Result<Self, TraceError> {
        Self::load_object(PACKETS_OBJECT, config)
    }

    fn load_object(object: &[u8], config: &Config) -> Result<Self, TraceError> {
        // Without it the loader would leave every offset as it was where the programs were built.
        let types = Btf::from_sys_fs().map_err(TraceError::Types)?;
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&types)).verifier_log_level(VerifierLogLevel::DISABLE);
        let mut object = loader.load(object).map_err(|e| TraceError::Maps(Box::new(e)))?;
        let ring = RingBuf::try_from(object.take_map("events").ok_or(TraceError::Object("events"))?)?;
        let settings = Array::try_from(object.take_map("config").ok_or(TraceError::Object("config"))?)?;
        let lost = Array::try_from(object.take_map("lost").ok_or(TraceError::Object("lost"))?)?;
        let mut tracer = Self { object, ring, config: settings, lost, attached: BTreeMap::new() };
        tracer.configure(config)?;
        Ok(tracer)
    }

    /// Says what is to be told from now on.
    pub fn configure(&mut self, config: &Config) -> Result<(), TraceError> {
        Ok(self.config.set(0, config.bytes(), 0)?)
    }

    /// Attaches a probe; nothing happens if it is.
    pub fn attach(&mut self, probe: Probe) -> Result<(), ProbeError> {
        if self.attached.contains_key(&probe) {
            return Ok(());
        }
        let attached = match probe.place() {
            Place::Tracepoint(name, programs) => self.attach_tracepoint(name, programs)?,
            Place::Function(name, program) => (program, Link::Function(self.attach_function(name, program)?)),
            Place::Return(name, program) => (program, Link::Return(self.attach_return(name, program)?)),
            Place::Cgroup(program, side) => (program, Link::Cgroup(self.attach_cgroup(program, side)?)),
        };
        self.attached.insert(probe, attached);
        Ok(())
    }

    /// Is it attached?
    pub fn is_attached(&self, probe: Probe) -> bool {
        self.attached.contains_key(&probe)
    }

    /// Do drops come with the socket that they happened at? Only where [`Probe::Drops`] is attached.
    pub fn tells_sockets_of_drops(&self) -> bool {
        self.attached.get(&Probe::Drops).is_some_and(|(program, _)| *program == "dropped_at_socket")
    }

    /// Detaches a probe; nothing happens if it is not attached.
    pub fn detach(&mut self, probe: Probe) -> Result<(), ProbeError> {
        let Some((program, link)) = self.attached.remove(&probe) else { return Ok(()) };
        let program = self.object.program_mut(program).ok_or(ProbeError::Object(program))?;
        match link {
            Link::Tracepoint(link) => <&mut RawTracePoint>::try_from(program)?.detach(link)?,
            Link::Function(link) => <&mut FEntry>::try_from(program)?.detach(link)?,
            Link::Return(link) => <&mut FExit>::try_from(program)?.detach(link)?,
            Link::Cgroup(link) => <&mut CgroupSkb>::try_from(program)?.detach(link)?,
        }
        Ok(())
    }

    /// Tells everything that is in the ring now, in the order in which it happened; returns how many.
    pub fn read(&mut self, mut tell: impl FnMut(Result<Record, Malformed>)) -> usize {
        self.each(|bytes| tell(Record::parse(bytes)))
    }

    /// The same where packets are told one by one.
    pub fn read_packets(&mut self, mut tell: impl FnMut(Result<Sighting, Malformed>)) -> usize {
        self.each(|bytes| tell(Sighting::parse(bytes)))
    }

    fn each(&mut self, mut tell: impl FnMut(&[u8])) -> usize {
        let mut count = 0;
        while let Some(item) = self.ring.next() {
            tell(&item);
            count += 1;
        }
        count
    }

    /// What was not told.
    pub fn lost(&self) -> Result<Lost, TraceError> {
        Ok(Lost::parse(self.lost.get(&0, 0)?))
    }

    fn attach_tracepoint(
        &mut self,
        name: &str,
        programs: &[&'static str],
    ) -> Result<(&'static str, Link), ProbeError> {
        let mut last = ProbeError::Object("");
        for program in programs {
            match self.attach_program(name, program) {
                Ok(link) => return Ok((program, Link::Tracepoint(link))),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn attach_program(
        &mut self,
        name: &str,
        program: &'static str,
    ) -> Result<RawTracePointLinkId, ProbeError> {
        let program = self.object.program_mut(program).ok_or(ProbeError::Object(program))?;
        let program = <&mut RawTracePoint>::try_from(program)?;
        loaded(program.load())?;
        Ok(program.attach(name)?)
    }

    fn attach_function(&mut self, name: &str, program: &'static str) -> Result<FEntryLinkId, ProbeError> {
        let types = Btf::from_sys_fs()?;
        let program = self.object.program_mut(program).ok_or(ProbeError::Object(program))?;
        let program = <&mut FEntry>::try_from(program)?;
        loaded(program.load(name, &types))?;
        Ok(program.attach()?)
    }

    fn attach_return(&mut self, name: &str, program: &'static str) -> Result<FExitLinkId, ProbeError> {
        let types = Btf::from_sys_fs()?;
        let program = self.object.program_mut(program).ok_or(ProbeError::Object(program))?;
        let program = <&mut FExit>::try_from(program)?;
        loaded(program.load(name, &types))?;
        Ok(program.attach()?)
    }

    fn attach_cgroup(
        &mut self,
        program: &'static str,
        side: CgroupSkbAttachType,
    ) -> Result<CgroupSkbLinkId, ProbeError> {
        let root = cgroup_root().map_err(ProbeError::Cgroup)?;
        let program = self.object.program_mut(program).ok_or(ProbeError::Object(program))?;
        let program = <&mut CgroupSkb>::try_from(program)?;
        loaded(program.load())?;
        // A link goes beside other programs anyway, and takes no flags.
        Ok(program.attach(root, side, CgroupAttachMode::Single)?)
    }
}

/// A program may be attached again after it was detached.
fn loaded(result: Result<(), ProgramError>) -> Result<(), ProbeError> {
    match result {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        // Without the verifier's words: there are none, or thousands.
        Err(ProgramError::LoadError { io_error, .. }) => Err(ProbeError::Load(io_error)),
        other => Ok(other?),
    }
}

/// The mounted root of the cgroups of version 2.
fn cgroup_root() -> io::Result<File> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let root = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let path = words.next()?;
        (words.next()? == "cgroup2").then_some(path)
    });
    File::open(root.ok_or(io::ErrorKind::NotFound)?)
}
