//! The fuzz targets without a fuzzer: the seeds, and random changes of them, through the same checks. Included by
//! the tests of the crates that own the parsers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Feeds the target's seeds and `rounds` changes of them to the check. A failure prints the input and the seed of
/// the random numbers.
pub(crate) fn feed(target: &str, rounds: u32, check: fn(&[u8])) {
    let from_environment = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = from_environment("RELISTEN_FUZZ_SEED").unwrap_or(0x5eed);
    let rounds = from_environment("RELISTEN_FUZZ_ROUNDS").unwrap_or(u64::from(rounds));
    let seeds = read(target);
    assert!(seeds.len() >= 3, "{target} has too few seeds");
    for (name, input) in &seeds {
        attempt(check, input, &format!("{target}, seed {name}"));
    }
    let mut random = Random(seed | 1);
    for round in 0..rounds {
        let mut input = seeds[random.below(seeds.len())].1.clone();
        for _ in 0..=random.below(4) {
            change(&mut input, &seeds, &mut random);
        }
        attempt(check, &input, &format!("{target}, round {round}, RELISTEN_FUZZ_SEED={seed}"));
    }
}

fn read(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut seeds: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("a directory that can be read").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("a seed that can be read"))
        })
        .collect();
    seeds.sort();
    seeds
}

fn attempt(check: fn(&[u8]), input: &[u8], what: &str) {
    // What went wrong has been printed by then.
    let held = catch_unwind(AssertUnwindSafe(|| check(input))).is_ok();
    assert!(held, "{what}: failed with the input\n{}", input.escape_ascii());
}

/// One of the changes that fuzzers make.
fn change(input: &mut Vec<u8>, seeds: &[(String, Vec<u8>)], random: &mut Random) {
    const SPECIAL: &[u8] = b"\0\n\r\t \"'{}[]:=,./@%-+0919;#\\\x7f\x80\xff";
    let at = random.below(input.len() + 1);
    let end = at + random.below((input.len() - at).min(32) + 1);
    match random.below(8) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = SPECIAL[random.below(SPECIAL.len())],
        2 => input.insert(at, SPECIAL[random.below(SPECIAL.len())]),
        3 => input.insert(at, random.next() as u8),
        4 => drop(input.drain(at..end)),
        5 => {
            let piece = input[at..end].to_vec();
            for _ in 0..=random.below(8) {
                input.splice(at..at, piece.iter().copied());
            }
        }
        6 => input.truncate(at),
        _ => {
            let other = &seeds[random.below(seeds.len())].1;
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
    }
}

/// xorshift64*: any will do.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}
