use std::fmt;
use std::ops::BitOr;

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// The state of a TCP socket, numbered as in `linux/tcp_states.h`. UDP uses two of them:
        /// [`Established`](State::Established) for a connected socket, [`Close`](State::Close) for any other.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum State {
            $($(#[$doc])* $name,)*
            /// A number that this version does not know.
            Other(u8),
        }

        impl State {
            /// From the kernel's number.
            pub fn from_number(number: u8) -> Self {
                match number { $($number => Self::$name,)* other => Self::Other(other) }
            }

            /// The kernel's number.
            pub fn number(self) -> u8 {
                match self { $(Self::$name => $number,)* Self::Other(other) => other }
            }
        }

        impl fmt::Display for State {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name => f.write_str($text),)*
                    Self::Other(number) => write!(f, "state {number}"),
                }
            }
        }
    };
}

states! {
    /// Both sides may send.
    Established = 1, "ESTABLISHED";
    /// An outgoing connection waits for the answer to its SYN.
    SynSent = 2, "SYN_SENT";
    /// Half open: the SYN is answered, the final ACK (or with `TCP_DEFER_ACCEPT` the first data) is not here
    /// yet. Such a request has a cookie, which its connection keeps, but neither inode nor TCP_INFO.
    SynRecv = 3, "SYN_RECV";
    /// We have sent a FIN, which is not acknowledged yet.
    FinWait1 = 4, "FIN_WAIT1";
    /// Our FIN is acknowledged, the other side may still send.
    FinWait2 = 5, "FIN_WAIT2";
    /// Over; it lingers for 60 s.
    TimeWait = 6, "TIME_WAIT";
    /// Not connected.
    Close = 7, "CLOSE";
    /// The other side has sent its FIN, we have not.
    CloseWait = 8, "CLOSE_WAIT";
    /// The other side's FIN came first, ours is not acknowledged yet.
    LastAck = 9, "LAST_ACK";
    /// A listener.
    Listen = 10, "LISTEN";
    /// Both have sent a FIN, ours is not acknowledged yet.
    Closing = 11, "CLOSING";
    /// The kernel's inner name for a half-open request; sock_diag reports it as [`SynRecv`](State::SynRecv).
    NewSynRecv = 12, "NEW_SYN_RECV";
    /// Bound but neither connected nor listening; must be asked for by name (Linux 6.8).
    BoundInactive = 13, "BOUND_INACTIVE";
}

/// A set of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct States(u32);

impl States {
    /// None.
    pub const NONE: Self = Self(0);
    /// All that a socket can be in without being asked for by name.
    pub const ALL: Self = Self(0xfff);
    /// Half-open requests. The kernel adds `NEW_SYN_RECV` by itself; saying it does no harm.
    pub const HALF_OPEN: Self = Self(1 << 3 | 1 << 12);
    /// Listeners.
    pub const LISTEN: Self = Self(1 << 10);
    /// Connections that a process may hold or that wait to be accepted: all that are neither half open nor
    /// listeners nor in TIME_WAIT nor on their way out.
    pub const CONNECTIONS: Self = Self(1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11);

    /// Is it in the set?
    pub fn contains(self, state: State) -> bool {
        state.number() < 32 && self.0 & (1 << state.number()) != 0
    }

    /// The mask as the kernel takes it.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl From<State> for States {
    fn from(state: State) -> Self {
        Self(1u32.checked_shl(u32::from(state.number())).unwrap_or(0))
    }
}

impl BitOr for States {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
