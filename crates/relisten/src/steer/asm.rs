//! A small assembler for classic BPF: what the steering programs are built from.

use relisten_sys::filter::Instruction;

/// Where the network header starts (`SKF_NET_OFF`).
pub(super) const NET: u32 = (-0x10_0000_i32) as u32;
/// Where the kernel's own data about the packet starts (`SKF_AD_OFF`).
const AD: u32 = (-0x1000_i32) as u32;
/// The EtherType (`SKF_AD_PROTOCOL`), in host order.
pub(super) const PROTOCOL: u32 = AD;
/// The CPU that runs the program (`SKF_AD_CPU`).
pub(super) const CPU: u32 = AD.wrapping_add(36);
/// A random number of 32 bits (`SKF_AD_RANDOM`).
pub(super) const RANDOM: u32 = AD.wrapping_add(56);

// Classes, sizes and modes as in linux/bpf_common.h.
const LD: u16 = 0x00;
const LDX: u16 = 0x01;
const ST: u16 = 0x02;
const ALU: u16 = 0x04;
const JMP: u16 = 0x05;
const RET: u16 = 0x06;
const MISC: u16 = 0x07;
const B: u16 = 0x10;
const ABS: u16 = 0x20;
const IND: u16 = 0x40;
const MEM: u16 = 0x60;
const MUL: u16 = 0x20;
const AND: u16 = 0x50;
const LSH: u16 = 0x60;
const RSH: u16 = 0x70;
const MOD: u16 = 0x90;
const XOR: u16 = 0xa0;
const JEQ: u16 = 0x10;
const JGT: u16 = 0x20;
const JGE: u16 = 0x30;
const X: u16 = 0x08;
const A: u16 = 0x10;

/// A piece of program; falls through at its end unless it returns.
pub(super) type Code = Vec<Instruction>;

/// A = constant.
pub(super) const fn load(k: u32) -> Instruction {
    Instruction::new(LD, k)
}
/// A = the word at an offset of the packet, host order.
pub(super) const fn word(offset: u32) -> Instruction {
    Instruction::new(LD | ABS, offset)
}
/// A = the byte at an offset of the packet.
pub(super) const fn byte(offset: u32) -> Instruction {
    Instruction::new(LD | B | ABS, offset)
}
/// A = the word at offset + X.
pub(super) const fn word_at_x(offset: u32) -> Instruction {
    Instruction::new(LD | IND, offset)
}
/// A = scratch cell.
pub(super) const fn recall(cell: u32) -> Instruction {
    Instruction::new(LD | MEM, cell)
}
/// X = scratch cell.
pub(super) const fn recall_x(cell: u32) -> Instruction {
    Instruction::new(LDX | MEM, cell)
}
/// Scratch cell = A.
pub(super) const fn store(cell: u32) -> Instruction {
    Instruction::new(ST, cell)
}
/// X = A.
pub(super) const fn a_to_x() -> Instruction {
    Instruction::new(MISC, 0)
}
/// A *= constant.
pub(super) const fn mul(k: u32) -> Instruction {
    Instruction::new(ALU | MUL, k)
}
/// A &= constant.
pub(super) const fn and(k: u32) -> Instruction {
    Instruction::new(ALU | AND, k)
}
/// A %= constant, which must not be 0.
pub(super) const fn modulo(k: u32) -> Instruction {
    Instruction::new(ALU | MOD, k)
}
/// A <<= constant.
pub(super) const fn shift_left(k: u32) -> Instruction {
    Instruction::new(ALU | LSH, k)
}
/// A >>= constant.
pub(super) const fn shift_right(k: u32) -> Instruction {
    Instruction::new(ALU | RSH, k)
}
/// A ^= constant.
pub(super) const fn xor(k: u32) -> Instruction {
    Instruction::new(ALU | XOR, k)
}
/// A ^= X.
pub(super) const fn xor_x() -> Instruction {
    Instruction::new(ALU | XOR | X, 0)
}
/// Skip so many instructions if A is not above X.
pub(super) const fn skip_unless_above_x(count: u8) -> Instruction {
    Instruction::jump(JMP | JGT | X, 0, 0, count)
}
/// The program's result is a constant.
pub(super) const fn give(k: u32) -> Instruction {
    Instruction::new(RET, k)
}
/// The program's result is A.
pub(super) const fn give_a() -> Instruction {
    Instruction::new(RET | A, 0)
}

/// `yes` if A equals `k`, else `no`.
pub(super) fn if_equal(k: u32, yes: Code, no: Code) -> Code {
    branch(JMP | JEQ, k, yes, no)
}

/// `yes` if A is `k` or more, else `no`.
pub(super) fn if_at_least(k: u32, yes: Code, no: Code) -> Code {
    branch(JMP | JGE, k, yes, no)
}

/// Both arms must end the same way: by returning, or by falling through with the result in A.
fn branch(code: u16, k: u32, mut yes: Code, no: Code) -> Code {
    // `no` comes first; if it falls through it must jump over `yes`. Jumps have 8 bits, a far one goes over JA.
    let returns = no.last().is_some_and(|i| i.code & 0x07 == RET);
    let over = usize::from(!returns);
    let distance = no.len() + over;
    let mut out = Vec::with_capacity(no.len() + yes.len() + 3);
    match u8::try_from(distance) {
        Ok(near) => out.push(Instruction::jump(code, k, near, 0)),
        Err(_) => {
            out.push(Instruction::jump(code, k, 0, 1));
            out.push(Instruction::new(JMP, distance as u32));
        }
    }
    out.extend(no);
    if !returns {
        out.push(Instruction::new(JMP, yes.len() as u32));
    }
    out.append(&mut yes);
    out
}
