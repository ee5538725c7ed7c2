//! Numbers of the system calls in which a server waits for connections, for reading `/proc/PID/task/TID/syscall`.

/// A kind of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// accept(2), or, on a UDP socket, recvfrom(2), recvmsg(2), recvmmsg(2): the descriptor is the first argument.
    Accept,
    /// epoll_wait(2): the instance is the first argument.
    Epoll,
    /// poll(2): address and number of `pollfd`s are the first two.
    Poll,
    /// io_uring_enter(2): a ring, whatever it waits for.
    Ring,
    /// select(2): the number of descriptors and the address of the set to read from are the first two.
    Select,
}

/// What the native system call `number` waits for.
pub fn waits(number: i64) -> Option<Waits> {
    match number {
        libc::SYS_accept
        | libc::SYS_accept4
        | libc::SYS_recvfrom
        | libc::SYS_recvmsg
        | libc::SYS_recvmmsg => Some(Waits::Accept),
        libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => Some(Waits::Epoll),
        libc::SYS_ppoll => Some(Waits::Poll),
        libc::SYS_io_uring_enter => Some(Waits::Ring),
        libc::SYS_pselect6 => Some(Waits::Select),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait => Some(Waits::Epoll),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll => Some(Waits::Poll),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_select => Some(Waits::Select),
        _ => None,
    }
}
