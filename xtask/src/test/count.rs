//! Reading the test runner's output.

/// What became of tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
    /// Names of tests that failed.
    pub(super) failures: Vec<String>,
}

impl Count {
    /// Takes one line of the output of `cargo test` into account.
    pub(super) fn line(&mut self, line: &str) {
        let line = without_machine(line);
        if let Some(result) = line.strip_prefix("test result: ") {
            for part in result.split(&['.', ';'][..]) {
                let mut words = part.split_ascii_whitespace();
                let Some(number) = words.next().and_then(|word| word.parse::<usize>().ok()) else { continue };
                match words.next() {
                    Some("passed") => self.passed += number,
                    Some("failed") => self.failed += number,
                    Some("ignored") => self.skipped += number,
                    _ => {}
                }
            }
        } else if let Some(name) = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED")) {
            self.failures.push(name.to_owned());
        }
    }

    /// These tests ended well for the runner, but only said that they can't run.
    pub(super) fn skip(&mut self, tests: usize) {
        self.passed = self.passed.saturating_sub(tests);
        self.skipped += tests;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures.iter().cloned());
    }
}

/// `cargo xtask vm` says before each line which machine it comes from, and when: `[6.1]  12 test a ... ok`.
fn without_machine(line: &str) -> &str {
    let rest = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    let rest = rest.and_then(|(_, rest)| rest.trim_start().split_once(' '));
    rest.filter(|(number, _)| number.bytes().all(|b| b.is_ascii_digit())).map_or(line, |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn lines_of_machines_are_counted() {
        let mut count = Count::default();
        for line in [
            "[6.1]   5 test a::b ... FAILED",
            "[6.12] 107 test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
            "[6.1] booting linux",
        ] {
            count.line(line);
        }
        assert_eq!((count.passed, count.failed), (3, 1));
        assert_eq!(count.failures, ["a::b"]);
    }

    #[test]
    fn lines_of_cargo_test_are_counted() {
        let mut count = Count::default();
        let output = "running 3 tests\n\
                      test a::b ... ok\n\
                      test a::c ... FAILED\n\
                      test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                      test result: ok. 20 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.50s\n";
        output.lines().for_each(|line| count.line(line));
        assert_eq!((count.passed, count.failed, count.skipped), (21, 1, 1));
        assert_eq!(count.failures, ["a::c"]);
        count.skip(2);
        assert_eq!((count.passed, count.skipped), (19, 3));
    }
}
