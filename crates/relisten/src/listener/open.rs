use super::{ListenError, ListenOptions};
use crate::address::{Endpoint, Protocol};
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

pub(super) fn open(endpoint: &Endpoint, options: &ListenOptions) -> Result<OwnedFd, ListenError> {
    let socket = bind(endpoint, options)?;
    if endpoint.protocol() != Protocol::Udp {
        let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
        rustix::net::listen(&socket, backlog)
            .map_err(|e| ListenError::classify(endpoint, "listen", e.into()))?;
    }
    Ok(socket)
}

pub(super) fn bind(endpoint: &Endpoint, options: &ListenOptions) -> Result<OwnedFd, ListenError> {
    if endpoint.port() != Some(0) {
        return bind_as_said(endpoint, options);
    }
    // A socket that was bound to port 0 loses its port when it is shut down and gets another one when it listens
    // again (SOCK_BINDPORT_LOCK is missing). So one socket finds the number, and another is bound to it.
    let finder = bind_as_said(endpoint, options)?;
    let settled = Endpoint::from_socket(&finder)
        .map_err(|source| ListenError::other(endpoint, "read back its address", source))?;
    bind_as_said(&settled, options)
}

fn bind_as_said(endpoint: &Endpoint, options: &ListenOptions) -> Result<OwnedFd, ListenError> {
    let (domain, kind, address) = match endpoint {
        Endpoint::Tcp { addr, .. } => (Domain::for_address(*addr), Type::STREAM, Ok((*addr).into())),
        Endpoint::Udp { addr, .. } => (Domain::for_address(*addr), Type::DGRAM, Ok((*addr).into())),
        Endpoint::Unix(path) => (Domain::UNIX, Type::STREAM, SockAddr::unix(path)),
        Endpoint::Abstract(name) => {
            let with_zero: Vec<u8> = [&[0], name.as_slice()].concat();
            (Domain::UNIX, Type::STREAM, SockAddr::unix(OsStr::from_bytes(&with_zero)))
        }
    };
    let address = address.map_err(|e| ListenError::classify(endpoint, "use the path", e))?;
    // socket2 sets close-on-exec.
    let socket =
        Socket::new(domain, kind, None).map_err(|e| ListenError::classify(endpoint, "open a socket", e))?;
    let set = Setter { endpoint };
    set.done("O_NONBLOCK", socket.set_nonblocking(options.nonblocking))?;
    if endpoint.has_group() {
        set.internet(&socket, options)?;
    }
    if matches!(endpoint, Endpoint::Tcp { .. }) {
        set.tcp(&socket, options)?;
    }
    if let Endpoint::Unix(path) = endpoint {
        if let Some(mode) = options.unix_mode {
            // Before bind, which makes the file with the socket's mode: so it is never there with another one.
            set.done("mode", rustix::fs::fchmod(&socket, mode.into()).map_err(Into::into))?;
        }
        remove_stale(path);
    }
    socket.bind(&address).map_err(|e| ListenError::classify(endpoint, "bind", e))?;
    Ok(socket.into())
}

/// Removes the file of a Unix socket that nobody listens on any more. What can't be removed shows up in `bind`.
fn remove_stale(path: &Path) {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if !is_socket {
        return;
    }
    let probe = std::os::unix::net::UnixStream::connect(path);
    if probe.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
        let _ = std::fs::remove_file(path);
    }
}

struct Setter<'a> {
    endpoint: &'a Endpoint,
}

impl Setter<'_> {
    fn done(&self, option: &'static str, result: io::Result<()>) -> Result<(), ListenError> {
        result.map_err(|source| ListenError::Option { endpoint: self.endpoint.clone(), option, source })
    }

    /// SO_REUSEPORT must come before bind, and the buffers before listen.
    fn internet(&self, socket: &Socket, options: &ListenOptions) -> Result<(), ListenError> {
        let (Endpoint::Tcp { addr, v6only } | Endpoint::Udp { addr, v6only }) = self.endpoint else {
            return Ok(());
        };
        self.done("SO_REUSEPORT", socket.set_reuse_port(true))?;
        if addr.is_ipv6() {
            self.done("IPV6_V6ONLY", socket.set_only_v6(options.v6only.unwrap_or(*v6only)))?;
        }
        if let Some(bytes) = options.rcvbuf {
            self.done("SO_RCVBUF", socket.set_recv_buffer_size(bytes as usize))?;
        }
        if let Some(bytes) = options.sndbuf {
            self.done("SO_SNDBUF", socket.set_send_buffer_size(bytes as usize))?;
        }
        if let Some(mark) = options.mark {
            self.done("SO_MARK", socket.set_mark(mark))?;
        }
        if let Some(device) = &options.bind_device {
            self.done("SO_BINDTODEVICE", socket.bind_device(Some(device.as_bytes())))?;
        }
        if let Some(cpu) = options.incoming_cpu {
            self.done("SO_INCOMING_CPU", socket.set_cpu_affinity(cpu as usize))?;
        }
        if options.freebind {
            let result =
                if addr.is_ipv6() { socket.set_freebind_v6(true) } else { socket.set_freebind_v4(true) };
            self.done("IP_FREEBIND", result)?;
        }
        if options.transparent {
            let result = if addr.is_ipv6() {
                relisten_sys::sockopt::set_transparent_v6(socket.as_fd(), true)
            } else {
                socket.set_ip_transparent_v4(true)
            };
            self.done("IP_TRANSPARENT", result)?;
        }
        Ok(())
    }

    fn tcp(&self, socket: &Socket, options: &ListenOptions) -> Result<(), ListenError> {
        // Not for UDP, where it would let others bind over us.
        self.done("SO_REUSEADDR", socket.set_reuse_address(true))?;
        if options.nodelay {
            self.done("TCP_NODELAY", socket.set_tcp_nodelay(true))?;
        }
        if let Some(keepalive) = &options.keepalive {
            let mut times = TcpKeepalive::new();
            if let Some(idle) = keepalive.idle {
                times = times.with_time(idle);
            }
            if let Some(interval) = keepalive.interval {
                times = times.with_interval(interval);
            }
            if let Some(probes) = keepalive.probes {
                times = times.with_retries(probes);
            }
            self.done("SO_KEEPALIVE", socket.set_tcp_keepalive(&times))?;
        }
        if let Some(time) = options.user_timeout {
            self.done("TCP_USER_TIMEOUT", socket.set_tcp_user_timeout(Some(time)))?;
        }
        if let Some(name) = &options.congestion {
            self.done("TCP_CONGESTION", socket.set_tcp_congestion(name.as_bytes()))?;
        }
        if let Some(time) = options.defer_accept {
            let result = relisten_sys::sockopt::set_defer_accept(socket.as_fd(), whole_seconds(time));
            self.done("TCP_DEFER_ACCEPT", result)?;
        }
        if let Some(queue) = options.fast_open {
            let queue = i32::try_from(queue).unwrap_or(i32::MAX);
            self.done("TCP_FASTOPEN", relisten_sys::sockopt::set_fast_open(socket.as_fd(), queue))?;
        }
        Ok(())
    }
}

/// Rounded up: less than a second must not become "off".
fn whole_seconds(time: Duration) -> i32 {
    i32::try_from(time.as_secs() + u64::from(time.subsec_nanos() > 0)).unwrap_or(i32::MAX)
}
