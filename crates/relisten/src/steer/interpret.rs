//! Classic BPF as the kernel executes it, for the tests: enough to run the steering programs on made-up packets.

use relisten_sys::filter::Instruction;

/// What a program sees.
#[derive(Clone, Debug, Default)]
pub(super) struct Packet {
    /// From the IP header on.
    pub(super) network: Vec<u8>,
    pub(super) ethertype: u32,
    pub(super) cpu: u32,
    pub(super) random: u32,
}

/// The kernel's `bpf_check_classic`, as far as it matters here.
pub(super) fn check(program: &[Instruction]) {
    assert!(!program.is_empty() && program.len() <= relisten_sys::filter::MAX_INSTRUCTIONS);
    for (at, i) in program.iter().enumerate() {
        if i.code & 7 == 5 {
            let far = if i.code == 0x05 { i.k as usize } else { usize::from(i.jt.max(i.jf)) };
            assert!(at + 1 + far < program.len(), "the jump at {at} leaves the program");
        }
    }
    assert_eq!(program.last().unwrap().code & 7, 6, "it ends with a return");
}

/// The program's result, and how many instructions it took.
pub(super) fn run(program: &[Instruction], packet: &Packet) -> (u32, usize) {
    let (mut a, mut x, mut cells) = (0_u32, 0_u32, [None::<u32>; 16]);
    let (mut at, mut steps) = (0, 0);
    loop {
        let i = program[at];
        at += 1;
        steps += 1;
        match i.code {
            0x00 => a = i.k,
            0x20 => match i.k.wrapping_sub(0xffff_f000) {
                0 => a = packet.ethertype,
                36 => a = packet.cpu,
                56 => a = packet.random,
                _ => a = word(packet, i.k),
            },
            0x30 => a = packet.network[network(i.k)].into(),
            0x40 => a = word(packet, i.k.wrapping_add(x)),
            0x60 => a = cells[i.k as usize].expect("a cell is written before it is read"),
            0x61 => x = cells[i.k as usize].expect("a cell is written before it is read"),
            0x02 => cells[i.k as usize] = Some(a),
            0x07 => x = a,
            0x24 => a = a.wrapping_mul(i.k),
            0x54 => a &= i.k,
            0x64 => a <<= i.k,
            0x74 => a >>= i.k,
            0x94 => a %= i.k,
            0xa4 => a ^= i.k,
            0xac => a ^= x,
            0x05 => at += i.k as usize,
            0x15 => at += usize::from(if a == i.k { i.jt } else { i.jf }),
            0x35 => at += usize::from(if a >= i.k { i.jt } else { i.jf }),
            0x2d => at += usize::from(if a > x { i.jt } else { i.jf }),
            0x06 => return (i.k, steps),
            0x16 => return (a, steps),
            other => panic!("no instruction has the code {other:#x}"),
        }
    }
}

fn network(offset: u32) -> usize {
    offset.wrapping_sub(0xfff0_0000) as usize
}

fn word(packet: &Packet, offset: u32) -> u32 {
    let at = network(offset);
    u32::from_be_bytes(packet.network[at..at + 4].try_into().unwrap())
}
