//! Which kernel runs.

use std::fmt;

/// The kernel's release. A version says little about fixes that were taken back into older series; behaviour is tried
/// where it can be ([`migration`](crate::machine::migration)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// As uname(2) says it, such as `6.1.0-18-cloud-amd64`.
    pub release: String,
    /// Major, minor, and the patch level. `None` where the release does not begin with numbers. Distributions keep
    /// the patch level at 0 and put their own numbers behind.
    pub version: Option<(u32, u32, u32)>,
    /// The patch level of the stable series that a distribution names elsewhere (Debian: `#1 SMP Debian 6.1.76-1`).
    pub stable: Option<(u32, u32, u32)>,
}

impl Kernel {
    /// Asks the kernel.
    pub fn read() -> Self {
        let uname = rustix::system::uname();
        Self::parse(&uname.release().to_string_lossy(), &uname.version().to_string_lossy())
    }

    pub(super) fn parse(release: &str, build: &str) -> Self {
        let debian = build.split_ascii_whitespace().skip_while(|word| *word != "Debian").nth(1);
        Self { release: release.to_owned(), version: numbers(release), stable: debian.and_then(numbers) }
    }

    /// Its version, as exactly as it is known.
    pub fn exact(&self) -> Option<(u32, u32, u32)> {
        self.stable.or(self.version)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.release)
    }
}

/// `6.1.76-1` is 6, 1, 76.
fn numbers(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
    let (major, minor) = (parts.next()??, parts.next()??);
    Some((major, minor, parts.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let debian =
            Kernel::parse("6.1.0-18-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)");
        assert_eq!((debian.version, debian.exact()), (Some((6, 1, 0)), Some((6, 1, 76))));
        assert_eq!(Kernel::parse("6.12", "#1 SMP").exact(), Some((6, 12, 0)));
        assert_eq!(Kernel::parse("strange", "").exact(), None);
        assert!(Kernel::read().exact() > Some((4, 0, 0)));
    }
}
