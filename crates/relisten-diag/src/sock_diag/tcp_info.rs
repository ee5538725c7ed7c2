use super::wire::{u32_at, u64_at};

/// The fields of `struct tcp_info` (tcp(7), `TCP_INFO`) that are used here. Kernels append fields and never move
/// them; a field that the kernel does not have is `None`.
///
/// The times have the resolution of the kernel's tick (1 to 10 ms, 4 ms with `CONFIG_HZ=250`) and, on a
/// connection that was accepted and on which nothing has moved yet, start when the handshake was completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Segments sent and not acknowledged. On a listener: connections waiting to be accepted.
    pub unacked: u32,
    /// Segments selectively acknowledged. On a listener: the limit of its queue.
    pub sacked: u32,
    /// Since data was last sent, milliseconds.
    pub last_data_sent_ms: u32,
    /// Since data last arrived, milliseconds. A FIN alone does not count.
    pub last_data_recv_ms: u32,
    /// Since an acknowledgement last arrived, milliseconds.
    pub last_ack_recv_ms: u32,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
    /// Segments sent again, since the beginning.
    pub total_retrans: u32,
    /// Bytes sent and acknowledged; an acknowledged FIN counts as one (Linux 4.1).
    pub bytes_acked: Option<u64>,
    /// Bytes received in order; a FIN counts as one (Linux 4.1).
    pub bytes_received: Option<u64>,
    /// Segments sent (Linux 4.2).
    pub segs_out: Option<u32>,
    /// Segments received (Linux 4.2).
    pub segs_in: Option<u32>,
    /// Bytes the application has written that were not sent yet (Linux 4.6).
    pub notsent_bytes: Option<u32>,
    /// Segments with data received (Linux 4.6).
    pub data_segs_in: Option<u32>,
    /// Segments with data sent (Linux 4.6).
    pub data_segs_out: Option<u32>,
    /// Bytes of data sent, those sent again included (Linux 4.19).
    pub bytes_sent: Option<u64>,
}

impl TcpInfo {
    /// Reads the kernel's structure, as sock_diag's `INET_DIAG_INFO` and `getsockopt(TCP_INFO)` give it. `None`
    /// if it is shorter than any kernel's since 2.6.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            unacked: u32_at(bytes, 24)?,
            sacked: u32_at(bytes, 28)?,
            last_data_sent_ms: u32_at(bytes, 44)?,
            last_data_recv_ms: u32_at(bytes, 52)?,
            last_ack_recv_ms: u32_at(bytes, 56)?,
            rtt_us: u32_at(bytes, 68)?,
            total_retrans: u32_at(bytes, 100)?,
            bytes_acked: u64_at(bytes, 120),
            bytes_received: u64_at(bytes, 128),
            segs_out: u32_at(bytes, 136),
            segs_in: u32_at(bytes, 140),
            notsent_bytes: u32_at(bytes, 144),
            data_segs_in: u32_at(bytes, 152),
            data_segs_out: u32_at(bytes, 156),
            bytes_sent: u64_at(bytes, 200),
        })
    }
}
