use crate::sock_diag::{Protocol, Socket, State, TcpInfo};

/// For how long nothing may have moved on a connection before it counts as idle. Milliseconds.
///
/// These bound what is lost by guessing wrong, against how long a worker with keep-alive clients takes to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleRules {
    /// Where the server spoke last: it has answered, and the next request would be here by now.
    pub after_answer_ms: u32,
    /// Where the client never said anything. It has just connected and its first request is on its way, or it
    /// connected ahead of time.
    pub silent_ms: u32,
    /// Where last request and last answer fall into the same tick of the kernel's clock (1 to 10 ms), so that
    /// nobody can tell which came last. Usually a fast answer; but it might be a request right after one, so
    /// longer than most requests take.
    pub unsure_ms: u32,
}

impl Default for IdleRules {
    fn default() -> Self {
        Self { after_answer_ms: 2_000, silent_ms: 5_000, unsure_ms: 10_000 }
    }
}

/// What a connection is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activity {
    /// Nothing is lost if it ends now.
    Idle,
    /// The server has not read all that the client sent.
    Unread,
    /// The client has not acknowledged all that the server wrote.
    Undelivered,
    /// The client spoke last and waits for an answer.
    Unanswered,
    /// It could be idle, but moved too short a while ago.
    Recent,
    /// The kernel tells too little.
    Untold,
}

/// Judges one accepted socket; [`Extensions::INFO`](crate::sock_diag::Extensions::INFO) is needed for TCP.
pub fn judge(protocol: Protocol, socket: &Socket, rules: &IdleRules) -> Activity {
    match protocol {
        Protocol::Tcp => judge_tcp(socket, rules),
        Protocol::Udp if socket.rqueue > 0 => Activity::Unread,
        Protocol::Udp if socket.wqueue > 0 => Activity::Undelivered,
        Protocol::Udp => Activity::Idle,
    }
}

fn judge_tcp(socket: &Socket, rules: &IdleRules) -> Activity {
    match socket.state {
        State::Listen | State::Close | State::TimeWait | State::SynSent => return Activity::Idle,
        // Accepted before its handshake was completed: TCP Fast Open.
        State::SynRecv => return Activity::Recent,
        _ => {}
    }
    // A FIN of the other side takes one number in rqueue until the server notices it. That is nothing to answer.
    let client_finished = matches!(socket.state, State::CloseWait | State::LastAck | State::Closing);
    if socket.rqueue > u32::from(client_finished) {
        return Activity::Unread;
    }
    if socket.wqueue > 0 {
        return Activity::Undelivered;
    }
    let Some(info) = socket.info else { return Activity::Untold };
    let still_ms = info.last_data_sent_ms.min(info.last_data_recv_ms);
    let after = |limit_ms| if still_ms >= limit_ms { Activity::Idle } else { Activity::Recent };
    if !matches!(socket.state, State::Established | State::CloseWait) {
        // The server can't send any more and has delivered everything. It may be reading what the client still
        // sends, so that closing does not reset the connection before the client has read its answer.
        return after(rules.after_answer_ms);
    }
    match last_speaker(&info, client_finished) {
        Speaker::Client => Activity::Unanswered,
        Speaker::Server => after(rules.after_answer_ms),
        Speaker::Nobody => after(rules.silent_ms),
        Speaker::Unsure => after(rules.unsure_ms),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    Client,
    Server,
    /// Not the client, at least: it has never said anything.
    Nobody,
    Unsure,
}

/// A half-closed connection (the client has sent its FIN) is no different: it may well wait for its answer.
fn last_speaker(info: &TcpInfo, client_finished: bool) -> Speaker {
    // Both byte counts take a FIN for a byte. Ours is not sent yet in the states that get here.
    let received = info.bytes_received.map(|bytes| bytes - u64::from(client_finished).min(bytes));
    match (received, info.bytes_acked) {
        (Some(0), _) => return Speaker::Nobody,
        // The times begin with the connection, so a request in the same tick would look like an exchange.
        (Some(_), Some(0)) => return Speaker::Client,
        _ => {}
    }
    let (sent, received) = (info.last_data_sent_ms, info.last_data_recv_ms);
    if received < sent {
        Speaker::Client
    } else if sent < received {
        Speaker::Server
    } else if info.last_ack_recv_ms < received && !client_finished {
        // Request and answer in one tick. An acknowledgement that came alone, later than the last data, can only
        // be for the answer. (A FIN acknowledges too, so it proves nothing.)
        Speaker::Server
    } else {
        Speaker::Unsure
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relisten::{SocketCookie, SocketInode};

    const RULES: IdleRules = IdleRules { after_answer_ms: 2_000, silent_ms: 5_000, unsure_ms: 10_000 };

    fn socket(state: State, rqueue: u32, wqueue: u32, info: TcpInfo) -> Socket {
        Socket {
            ipv6: false,
            state,
            local: "127.0.0.1:80".parse().unwrap(),
            remote: "127.0.0.1:50000".parse().unwrap(),
            interface: None,
            inode: Some(SocketInode(1)),
            cookie: SocketCookie(1),
            uid: 0,
            rqueue,
            wqueue,
            timer: None,
            shutdown: None,
            v6only: None,
            drops: None,
            memory: None,
            info: Some(info),
            mark: None,
            cgroup: None,
            attributes: Vec::new(),
        }
    }

    /// Bytes received and acknowledged; how long ago data was sent, received, acknowledged.
    fn info(received: u64, acked: u64, sent_ms: u32, received_ms: u32, ack_ms: u32) -> TcpInfo {
        TcpInfo {
            bytes_received: Some(received),
            bytes_acked: Some(acked),
            last_data_sent_ms: sent_ms,
            last_data_recv_ms: received_ms,
            last_ack_recv_ms: ack_ms,
            ..TcpInfo::default()
        }
    }

    #[track_caller]
    fn check(state: State, (rqueue, wqueue): (u32, u32), info: TcpInfo, expected: Activity) {
        assert_eq!(judge(Protocol::Tcp, &socket(state, rqueue, wqueue, info), &RULES), expected);
    }

    #[test]
    fn established() {
        use Activity::{Idle, Recent, Unanswered, Undelivered, Unread};
        use State::Established as E;
        let hour = 3_600_000;
        check(E, (1, 0), info(9, 9, hour, hour, hour), Unread);
        check(E, (0, 1), info(9, 9, hour, hour, hour), Undelivered);
        check(E, (0, 0), info(9, 0, hour, hour, hour), Unanswered);
        check(E, (0, 0), info(9, 9, hour, hour - 4, hour), Unanswered);
        check(E, (0, 0), info(9, 9, 2_000, 2_004, 2_000), Idle);
        check(E, (0, 0), info(9, 9, 1_999, 2_004, 1_999), Recent);
        // Never a word from the client, with and without a greeting from the server.
        check(E, (0, 0), info(0, 0, 4_999, 4_999, 4_999), Recent);
        check(E, (0, 0), info(0, 0, 5_000, 5_000, 5_000), Idle);
        check(E, (0, 0), info(0, 20, 4_999, 5_000, 4_999), Recent);
        check(E, (0, 0), info(0, 20, 5_000, 5_004, 5_000), Idle);
        // Request and answer in one tick.
        check(E, (0, 0), info(9, 9, 2_000, 2_000, 1_960), Idle);
        check(E, (0, 0), info(9, 9, 9_999, 9_999, 9_999), Recent);
        check(E, (0, 0), info(9, 9, 10_000, 10_000, 10_000), Idle);
    }

    #[test]
    fn the_client_has_finished() {
        use Activity::{Idle, Recent, Unanswered, Undelivered, Unread};
        use State::CloseWait as C;
        let hour = 3_600_000;
        check(C, (2, 0), info(10, 9, hour, hour, hour), Unread);
        check(C, (1, 1), info(10, 9, hour, hour, hour), Undelivered);
        // A half-closed client that waits for its answer, whether or not the server has noticed.
        check(C, (1, 0), info(10, 0, hour, hour, hour), Unanswered);
        check(C, (0, 0), info(10, 9, hour, hour - 4, hour - 4), Unanswered);
        // All is answered; the server only has to close.
        check(C, (1, 0), info(10, 9, 2_000, 2_004, 5), Idle);
        check(C, (0, 0), info(10, 9, 1_000, 2_004, 5), Recent);
        // The FIN's acknowledgement proves nothing about who spoke last.
        check(C, (0, 0), info(10, 9, 3_000, 3_000, 5), Recent);
        // It connected and finished without a word.
        check(C, (1, 0), info(1, 0, 5_000, 5_000, 5), Idle);
        check(C, (1, 0), info(1, 0, 4_000, 4_000, 5), Recent);
    }

    #[test]
    fn the_server_has_finished() {
        use Activity::{Idle, Recent, Undelivered, Unread};
        check(State::FinWait1, (0, 1), info(9, 9, 9_000, 9_000, 9_000), Undelivered);
        check(State::FinWait2, (1, 0), info(9, 9, 9_000, 9_000, 9_000), Unread);
        check(State::FinWait2, (0, 0), info(9, 9, 9_000, 1_000, 9_000), Recent);
        // The client spoke last, but there is no way to answer it.
        check(State::FinWait2, (0, 0), info(9, 9, 9_000, 2_000, 9_000), Idle);
        check(State::Closing, (1, 0), info(9, 9, 9_000, 9_000, 9_000), Idle);
        check(State::LastAck, (0, 1), info(9, 9, 9_000, 9_000, 9_000), Undelivered);
    }

    #[test]
    fn what_is_not_told_is_not_idle() {
        let mut silent = socket(State::Established, 0, 0, TcpInfo::default());
        silent.info = None;
        assert_eq!(judge(Protocol::Tcp, &silent, &RULES), Activity::Untold);
        // An old kernel without byte counts: the times alone.
        let times = TcpInfo { last_data_sent_ms: 9_000, last_data_recv_ms: 9_004, ..TcpInfo::default() };
        check(State::Established, (0, 0), times, Activity::Idle);
    }

    #[test]
    fn udp_has_its_buffers_only() {
        let mut socket = socket(State::Close, 0, 0, TcpInfo::default());
        socket.info = None;
        assert_eq!(judge(Protocol::Udp, &socket, &RULES), Activity::Idle);
        socket.rqueue = 768;
        assert_eq!(judge(Protocol::Udp, &socket, &RULES), Activity::Unread);
    }
}
