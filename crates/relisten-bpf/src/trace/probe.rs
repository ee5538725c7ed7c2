/// A place in the kernel that is listened at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Probe {
    /// Raw tracepoint `tcp_send_reset`. Before about 6.10 without reason, and not for packets without a socket.
    ResetSent,
    /// Raw tracepoint `tcp_receive_reset`.
    ResetReceived,
    /// Raw tracepoint `inet_sock_set_state`: listeners that open and close, connects without a port.
    States,
    /// Raw tracepoint `kfree_skb`. The reason is there since 5.17, the socket since 6.11.
    Drops,
    /// Raw tracepoint `udp_fail_queue_rcv_skb`.
    Datagrams,
    /// The end of `tcp_timewait_state_process`, for kernels before 6.11 whose tracepoints don't tell whom a packet in
    /// TIME_WAIT hit. Many machines refuse that.
    TimeWait,
    /// Raw tracepoint `tcp_destroy_sock`: who took over the queue of a listener that was closed.
    MovedByClose,
    /// Raw tracepoint `inet_sk_error_report`: the same of one that was shut down.
    MovedByShutdown,
    /// Every incoming packet, for SYNs at listeners.
    Syns,
    /// Every incoming packet, for UDP flows.
    Flows,
    /// Every incoming packet, for handshakes. This and the following ones are of [`load_packets`](super::Tracer::load_packets).
    PacketsIn,
    /// Every outgoing packet, for handshakes.
    PacketsOut,
    /// Raw tracepoint `consume_skb`: SYNs that were handled.
    PacketsHandled,
    /// Raw tracepoint `inet_sock_set_state`: handshakes that are done.
    PacketsEstablished,
    /// Raw tracepoint `tcp_send_reset`.
    PacketsReset,
    /// The beginning of `tcp_conn_request`. Many machines refuse that.
    PacketsRequested,
    /// The beginning of `tcp_check_req`. Many machines refuse that.
    PacketsChecked,
}

/// How a probe is attached.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// By the first of these programs that fits the number of arguments that this kernel's tracepoint has.
    Tracepoint(&'static str, &'static [&'static str]),
    /// To the beginning of a kernel function.
    Function(&'static str, &'static str),
    /// To the end of a kernel function.
    Return(&'static str, &'static str),
    /// To the root cgroup.
    Cgroup(&'static str, aya::programs::CgroupSkbAttachType),
}

impl Probe {
    /// What costs nothing while nothing happens.
    pub const RARE: [Self; 5] =
        [Self::ResetSent, Self::ResetReceived, Self::States, Self::Drops, Self::Datagrams];

    /// What tells packets, one by one.
    pub const PACKETS: [Self; 7] = [
        Self::PacketsIn,
        Self::PacketsOut,
        Self::PacketsHandled,
        Self::PacketsEstablished,
        Self::PacketsReset,
        Self::PacketsRequested,
        Self::PacketsChecked,
    ];

    /// What people may know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResetSent | Self::PacketsReset => "raw tracepoint tcp_send_reset",
            Self::ResetReceived => "raw tracepoint tcp_receive_reset",
            Self::States | Self::PacketsEstablished => "raw tracepoint inet_sock_set_state",
            Self::Drops => "raw tracepoint kfree_skb",
            Self::Datagrams => "raw tracepoint udp_fail_queue_rcv_skb",
            Self::TimeWait => "fexit tcp_timewait_state_process",
            Self::MovedByClose => "raw tracepoint tcp_destroy_sock",
            Self::MovedByShutdown => "raw tracepoint inet_sk_error_report",
            Self::Syns => "cgroup program for SYNs at listeners",
            Self::Flows => "cgroup program for UDP flows",
            Self::PacketsIn => "cgroup program for incoming packets",
            Self::PacketsOut => "cgroup program for outgoing packets",
            Self::PacketsHandled => "raw tracepoint consume_skb",
            Self::PacketsRequested => "fentry tcp_conn_request",
            Self::PacketsChecked => "fentry tcp_check_req",
        }
    }

    pub(super) fn place(self) -> Place {
        use aya::programs::CgroupSkbAttachType::{Egress, Ingress};
        match self {
            Self::ResetSent => {
                Place::Tracepoint("tcp_send_reset", &["reset_with_reason", "reset_without_reason"])
            }
            Self::ResetReceived => Place::Tracepoint("tcp_receive_reset", &["reset_received"]),
            Self::States => Place::Tracepoint("inet_sock_set_state", &["state_changed"]),
            Self::Drops => Place::Tracepoint("kfree_skb", &["dropped_at_socket", "dropped_somewhere"]),
            Self::Datagrams => Place::Tracepoint("udp_fail_queue_rcv_skb", &["datagram_dropped"]),
            Self::TimeWait => Place::Return("tcp_timewait_state_process", "time_wait_met"),
            Self::MovedByClose => Place::Tracepoint("tcp_destroy_sock", &["listener_destroyed"]),
            Self::MovedByShutdown => Place::Tracepoint("inet_sk_error_report", &["listener_shut_down"]),
            Self::Syns => Place::Cgroup("syn_at_listener", Ingress),
            Self::Flows => Place::Cgroup("flow_moved", Ingress),
            Self::PacketsIn => Place::Cgroup("packet_in", Ingress),
            Self::PacketsOut => Place::Cgroup("packet_out", Egress),
            Self::PacketsHandled => Place::Tracepoint("consume_skb", &["packet_handled"]),
            Self::PacketsEstablished => Place::Tracepoint("inet_sock_set_state", &["packet_established"]),
            Self::PacketsReset => Place::Tracepoint(
                "tcp_send_reset",
                &["packet_reset_with_reason", "packet_reset_without_reason"],
            ),
            Self::PacketsRequested => Place::Function("tcp_conn_request", "packet_requested"),
            Self::PacketsChecked => Place::Function("tcp_check_req", "packet_checked"),
        }
    }
}
