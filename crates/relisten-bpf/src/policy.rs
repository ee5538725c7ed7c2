/// What decides who gets a new connection. The number is what the programs know it by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Policy {
    /// The kernel's hash of the four-tuple, over those who may be chosen.
    #[default]
    Hash = 0,
    /// By chance.
    Random = 1,
    /// One after the other. One count for all CPUs.
    RoundRobin = 2,
    /// Fewest open connections, those that were chosen in the last second and are not open yet included. Of up to
    /// 8 listeners the fewest of all, of more the better one of two that are picked by chance. Needs
    /// [`Counting`](crate::Counting), or listeners that [publish their load](crate::Listener::set_publishes).
    LeastConnections = 3,
    /// The listener that has the CPU which handles the packet; for CPUs that nobody has, the CPU's number modulo
    /// the number of listeners.
    Cpu = 4,
    /// By the client's address, highest random weight: a listener that goes moves only its own clients.
    ClientIp = 5,
    /// By weight, then by the kernel's hash.
    Weighted = 6,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Hash,
        Self::Random,
        Self::RoundRobin,
        Self::LeastConnections,
        Self::Cpu,
        Self::ClientIp,
        Self::Weighted,
    ];
}
