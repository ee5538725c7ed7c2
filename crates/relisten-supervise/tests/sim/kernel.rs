//! The listeners of one address as the kernel keeps them: an array that a program indexes.

use super::rng::Rng;
use std::collections::VecDeque;

#[derive(Default)]
pub(crate) struct Listener {
    /// The process (an index) whose duplicate it is.
    pub(crate) owner: usize,
    /// A filter drops each SYN.
    pub(crate) deaf: bool,
    /// Connections whose handshake is done.
    pub(crate) queue: VecDeque<usize>,
    /// Connections whose last ACK is on its way.
    pub(crate) half_open: Vec<usize>,
}

#[derive(Default)]
pub(crate) struct Kernel {
    /// Every listener that ever was.
    pub(crate) listeners: Vec<Listener>,
    /// The reuseport group: who listens, in the order of joining; a gap is filled by the last one.
    pub(crate) group: Vec<usize>,
    /// The program in force: places in the group. Without one, or when it points nowhere, the hash decides.
    pub(crate) program: Vec<usize>,
    /// A program being attached: some CPUs use it already.
    pub(crate) pending: Option<Vec<usize>>,
}

impl Kernel {
    pub(crate) fn listen(&mut self, owner: usize, deaf: bool) -> usize {
        let listener = self.listeners.len();
        self.listeners.push(Listener { owner, deaf, ..Listener::default() });
        self.group.push(listener);
        listener
    }

    /// Closes a listener and says what was still in it.
    pub(crate) fn close(&mut self, listener: usize) -> (Vec<usize>, Vec<usize>) {
        self.group.iter().position(|&l| l == listener).map(|place| self.group.swap_remove(place));
        let closed = &mut self.listeners[listener];
        (closed.queue.drain(..).collect(), std::mem::take(&mut closed.half_open))
    }

    /// The places in the group of these processes' listeners.
    pub(crate) fn places(&self, mut of: impl FnMut(usize) -> bool) -> Vec<usize> {
        let owners = self.group.iter().map(|&l| self.listeners[l].owner);
        owners.enumerate().filter(|&(_, owner)| of(owner)).map(|(place, _)| place).collect()
    }

    /// Which listener gets a SYN?
    pub(crate) fn select(&self, rng: &mut Rng) -> Option<usize> {
        if self.group.is_empty() {
            return None;
        }
        let program = match &self.pending {
            Some(pending) if rng.percent(50) => pending,
            _ => &self.program,
        };
        let place = if program.is_empty() { usize::MAX } else { program[rng.below(program.len())] };
        Some(*self.group.get(place).unwrap_or(&self.group[rng.below(self.group.len())]))
    }

    pub(crate) fn half_open_ended(&mut self, listener: usize, conn: usize) {
        let half_open = &mut self.listeners[listener].half_open;
        half_open.iter().position(|&c| c == conn).map(|at| half_open.swap_remove(at));
    }

    pub(crate) fn waits_in(&self, listener: usize) -> bool {
        let listener = &self.listeners[listener];
        !listener.queue.is_empty() || !listener.half_open.is_empty()
    }
}
