use relisten_sys::filter::Instruction;

// Codes of linux/bpf_common.h.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const TO_X: u16 = 0x07;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_EQUAL_X: u16 = 0x1d;
const RETURN: u16 = 0x06;
/// `SKF_NET_OFF`: what follows counts from the network header.
const NETWORK: u32 = 0xfff0_0000;

/// `program` with one exception: a packet from local port `port` of the very address that it is sent to goes to the
/// member at `index`. That is how a process of this machine reaches one certain listener, whatever the policy says;
/// connections from elsewhere can't be meant, because their source address is another.
pub fn with_exception(port: u16, index: usize, program: Vec<Instruction>) -> Vec<Instruction> {
    let op = Instruction::new;
    let jump = Instruction::jump;
    let mut with = vec![
        /* 0 */ op(LOAD_BYTE, NETWORK),
        /* 1 */ op(AND, 0xf0),
        /* 2: IPv6 at 9 */ jump(JUMP_EQUAL, 0x40, 0, 6),
        // IPv4 without options; loopback has none.
        /* 3 */ op(LOAD_WORD, NETWORK + 12),
        /* 4 */ op(TO_X, 0),
        /* 5 */ op(LOAD_WORD, NETWORK + 16),
        /* 6: else on at 16 */ jump(JUMP_EQUAL_X, 0, 0, 9),
        /* 7 */ op(LOAD_HALF, NETWORK + 20),
        /* 8: hit at 15, else on at 16 */ jump(JUMP_EQUAL, port.into(), 6, 7),
        // IPv6: the last quarter of the addresses tells enough.
        /* 9 */
        op(LOAD_WORD, NETWORK + 20),
        /* 10 */ op(TO_X, 0),
        /* 11 */ op(LOAD_WORD, NETWORK + 36),
        /* 12: else on at 16 */ jump(JUMP_EQUAL_X, 0, 0, 3),
        /* 13 */ op(LOAD_HALF, NETWORK + 40),
        /* 14: hit at 15, else on at 16 */ jump(JUMP_EQUAL, port.into(), 0, 1),
        /* 15 */ op(RETURN, index as u32),
    ];
    with.extend(program);
    with
}

#[cfg(test)]
mod tests {
    use crate::address::Endpoint;
    use crate::group;
    use crate::listener::{ListenOptions, Listener};
    use crate::steer::{Policy, Target, program, with_exception};
    use std::net::{IpAddr, SocketAddr};

    /// Two listeners; all is steered to the first, one local port excepted.
    fn reaches_the_second(ip: &str) {
        let ip: IpAddr = ip.parse().unwrap();
        let endpoint = Endpoint::Tcp { addr: SocketAddr::new(ip, 0), v6only: ip.is_ipv6() };
        let first = Listener::open(&endpoint, &ListenOptions::default()).unwrap();
        let second = Listener::open(first.endpoint(), &ListenOptions::default()).unwrap();
        let to = first.endpoint().addr().unwrap();
        let socket =
            socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        let only_first = program(Policy::Hash, 2, &[Target { index: 0, id: 0, weight: 1 }]).unwrap();
        group::attach(&first, &with_exception(port, 1, only_first)).unwrap();
        socket.connect(&to.into()).unwrap();
        let others: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(to).unwrap()).collect();
        assert_eq!((first.queue().unwrap().waiting, second.queue().unwrap().waiting), (20, 1));
        drop(others);
    }

    #[test]
    fn one_port_goes_elsewhere() {
        reaches_the_second("127.0.0.1");
        reaches_the_second("::1");
    }
}
