//! A real reuseport group, steered, whose members come and go.

use crate::experiment::Failure;
use relisten::address::Endpoint;
use relisten::group::{self, Group};
use relisten::listener::{ListenOptions, Listener};
use relisten::steer;
use relisten_bpf::{Avoid, Choice, Loaded, Steering, Table};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::SocketAddr;
use std::time::Duration;

/// What steers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    /// Nothing: the kernel's hash.
    Kernel,
    /// Classic BPF.
    Classic,
    /// eBPF.
    Ebpf,
}

impl Backend {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Classic => "classic BPF",
            Self::Ebpf => "eBPF",
        }
    }
}

/// One socket of the group.
struct Member {
    slot: u32,
    listener: Listener,
    /// Its place in the maps of the eBPF programs.
    place: Option<relisten_bpf::Listener>,
}

/// The program in force.
enum Program {
    None,
    Classic(steer::Policy),
    Ebpf {
        steering: Box<Steering>,
        group: relisten_bpf::Group<relisten_bpf::group::Attached>,
        policy: relisten_bpf::Policy,
    },
}

/// The group. Its programs name the slots in the order of their numbers.
pub(super) struct Steered {
    endpoint: Endpoint,
    members: Vec<Member>,
    /// The kernel's order.
    order: Group<u32>,
    program: Program,
}

/// Nobody answers for so long: something is wrong.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

impl Steered {
    /// Slots 0 to `count`.
    pub(super) fn open(
        endpoint: &Endpoint,
        count: u32,
        backend: Backend,
        policy: steer::Policy,
    ) -> Result<Self, Failure> {
        let mut all = Self {
            endpoint: endpoint.clone(),
            members: Vec::new(),
            order: Group::new(),
            program: Program::None,
        };
        match backend {
            Backend::Kernel => (0..count).try_for_each(|slot| all.join(slot))?,
            Backend::Classic => {
                all.program = Program::Classic(policy);
                (0..count).try_for_each(|slot| all.join(slot))?;
            }
            Backend::Ebpf => all.open_steered(count, in_ebpf(policy))?,
        }
        Ok(all)
    }

    fn open_steered(&mut self, count: u32, policy: relisten_bpf::Policy) -> Result<(), Failure> {
        let loaded = Loaded::load(1).map_err(|error| Failure::Skip(format!("eBPF: {error}")))?;
        let mut steering = loaded.open().map_err(|error| Failure::Skip(format!("eBPF: {error}")))?;
        for slot in 0..count {
            let member = open_member(&mut self.endpoint, slot, Some(&mut steering))?;
            self.order.joined(slot);
            self.members.push(member);
        }
        let table = table(policy, &self.members);
        let nothing = || Failure::Unexpected("the table of an eBPF program is full".to_owned());
        let group = steering.group().ok_or_else(nothing)?.publish(&table).map_err(|_| nothing())?;
        let group = group.attach(&self.members[0].listener).map_err(|(_, error)| error)?;
        self.program = Program::Ebpf { steering: Box::new(steering), group, policy };
        Ok(())
    }

    /// Another slot, behind all others.
    pub(super) fn join(&mut self, slot: u32) -> Result<(), Failure> {
        let steering = match &mut self.program {
            Program::Ebpf { steering, .. } => Some(&mut **steering),
            _ => None,
        };
        let member = open_member(&mut self.endpoint, slot, steering)?;
        self.order.joined(slot);
        self.members.push(member);
        self.steer()
    }

    /// A slot's socket is closed.
    pub(super) fn leave(&mut self, slot: u32) -> Result<(), Failure> {
        let Some(at) = self.members.iter().position(|member| member.slot == slot) else { return Ok(()) };
        let gone = self.members.remove(at);
        // With eBPF the table comes first, as the supervisor does it; here nothing comes in between.
        self.steer()?;
        if let (Program::Ebpf { steering, .. }, Some(place)) = (&mut self.program, &gone.place) {
            steering.release(place, None)?;
        }
        drop(gone);
        self.order.left(slot);
        if matches!(self.program, Program::Classic(_)) {
            self.steer()?;
        }
        Ok(())
    }

    fn steer(&mut self) -> Result<(), Failure> {
        match &mut self.program {
            Program::None => Ok(()),
            Program::Classic(policy) => {
                let serve = self.members.iter().map(|member| (member.slot, member.slot, 1));
                let targets = self.order.targets(serve);
                let program = steer::program(*policy, self.order.len(), &targets)
                    .map_err(|error| Failure::Unexpected(error.to_string()))?;
                Ok(group::attach(&self.members[0].listener, &program)?)
            }
            Program::Ebpf { group, policy, .. } => group
                .publish(&table(*policy, &self.members))
                .map_err(|error| Failure::Unexpected(error.to_string())),
        }
    }

    /// The slot that a client at this address gets: by one connection, reset at once, or by one datagram.
    pub(super) fn who_gets(&self, client: SocketAddr) -> Result<u32, Failure> {
        let Some(to) = self.endpoint.addr() else { return Err(Failure::Unexpected("no address".to_owned())) };
        let tcp = matches!(self.endpoint, Endpoint::Tcp { .. });
        let (kind, protocol) = if tcp { (Type::STREAM, Protocol::TCP) } else { (Type::DGRAM, Protocol::UDP) };
        let socket = Socket::new(Domain::for_address(to), kind, Some(protocol))?;
        socket.set_reuse_address(true)?;
        socket.bind(&client.into()).map_err(Failure::kernel("bind a client"))?;
        if tcp {
            // A reset leaves no TIME_WAIT, so the port can be used again.
            socket.set_linger(Some(Duration::ZERO))?;
            socket.connect(&to.into()).map_err(Failure::kernel("connect"))?;
        } else {
            socket.send_to(b"?", &to.into()).map_err(Failure::kernel("send"))?;
        }
        let mut fds: Vec<PollFd<'_>> =
            self.members.iter().map(|member| PollFd::new(&member.listener, PollFlags::IN)).collect();
        poll(&mut fds, Some(&PATIENCE))?;
        let ready: Vec<usize> = (0..fds.len()).filter(|at| !fds[*at].revents().is_empty()).collect();
        let [at] = ready[..] else {
            return Err(Failure::Unexpected(format!("{} members have what one client sent", ready.len())));
        };
        let member = &self.members[at];
        if tcp {
            drop(rustix::net::accept(&member.listener)?);
        } else {
            rustix::net::recv(&member.listener, &mut [0_u8; 8], RecvFlags::empty())?;
        }
        Ok(member.slot)
    }
}

/// Opens a listener; the endpoint is the settled one afterwards.
fn open_member(
    endpoint: &mut Endpoint,
    slot: u32,
    steering: Option<&mut Steering>,
) -> Result<Member, Failure> {
    let options = ListenOptions { nonblocking: true, ..ListenOptions::default() };
    let listener = Listener::open(endpoint, &options)?;
    *endpoint = listener.endpoint().clone();
    let mut place = None;
    if let Some(steering) = steering {
        let claimed = steering.claim();
        let claimed =
            claimed.ok_or_else(|| Failure::Unexpected("no place in the socket array".to_owned()))?;
        claimed.enlist(&listener)?;
        claimed.set(Avoid::NOTHING);
        place = Some(claimed);
    }
    Ok(Member { slot, listener, place })
}

fn table(policy: relisten_bpf::Policy, members: &[Member]) -> Table {
    let choice =
        |member: &Member| Some(Choice { key: member.place.as_ref()?.key(), id: member.slot, weight: 1 });
    Table { policy, live: members.iter().filter_map(choice).collect(), ..Table::default() }
}

fn in_ebpf(policy: steer::Policy) -> relisten_bpf::Policy {
    match policy {
        steer::Policy::Auto | steer::Policy::LeastConnections => relisten_bpf::Policy::LeastConnections,
        steer::Policy::Hash => relisten_bpf::Policy::Hash,
        steer::Policy::Random => relisten_bpf::Policy::Random,
        steer::Policy::RoundRobin => relisten_bpf::Policy::RoundRobin,
        steer::Policy::Cpu => relisten_bpf::Policy::Cpu,
        steer::Policy::ClientIp => relisten_bpf::Policy::ClientIp,
        steer::Policy::Weighted => relisten_bpf::Policy::Weighted,
    }
}
