use super::control::ControlRequest;
use super::dispatcher::Wanted;
use super::probe::Probed;
use crate::core::WorkerId;
use crate::loader::LoadError;
use crate::sockets::Resolved;
use relisten_bpf::Descriptors;

/// Whatever reaches the dispatcher, in one queue, so that there is one order of things.
#[derive(Debug)]
pub(super) enum Happening {
    /// A worker's `bind` or `listen` waits for its answer.
    Call(WorkerId),
    /// A process ended that is not our child (we took the instance over).
    Gone(WorkerId),
    /// Children may have ended.
    Children,
    /// A worker has shut down a listener of its own.
    Shutdown,
    /// A connection has arrived after a time in which none did.
    Arrived,
    /// No CPU uses the steering program or the filters any more that were in force when this was asked for.
    Barrier,
    /// A probe came back.
    Probed { worker: WorkerId, outcome: Probed },
    /// Somebody asks over the control socket.
    Control(ControlRequest),
    /// The names of a reload's addresses are resolved, or can't be.
    Resolved(Box<Wanted>, Result<Resolved, String>),
    /// Steering programs are loaded, or can't be.
    Loaded(Result<Descriptors, LoadError>),
    /// The supervisor was sent a signal.
    Signal(i32),
}
