/// The kernel's functions by address (`/proc/kallsyms`).
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    /// Address, and where in `names` the name begins; sorted.
    starts: Vec<(u64, u32)>,
    names: String,
}

impl Symbols {
    /// Reads the file's text. Without CAP_SYSLOG the kernel writes zeros for addresses; then nothing is known.
    pub fn parse(kallsyms: &str) -> Self {
        let mut symbols = Self::default();
        for line in kallsyms.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Ok(address) = u64::from_str_radix(address, 16) else { continue };
            // Functions only: text, and weak text.
            if address != 0 && matches!(kind, "t" | "T" | "w" | "W") {
                symbols.starts.push((address, symbols.names.len() as u32));
                symbols.names.push_str(name);
                symbols.names.push('\n');
            }
        }
        symbols.starts.sort_unstable();
        symbols
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The function that an address lies in, and how far behind its beginning.
    pub fn find(&self, address: u64) -> Option<(&str, u64)> {
        let at = self.starts.partition_point(|(start, _)| *start <= address).checked_sub(1)?;
        let (start, name) = *self.starts.get(at)?;
        let name = self.names.get(name as usize..)?.lines().next()?;
        Some((name, address - start))
    }

    /// The functions of a stack, without the offsets.
    pub fn names<'a>(&'a self, stack: &'a [u64]) -> impl Iterator<Item = &'a str> {
        stack.iter().filter_map(|address| self.find(*address)).map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "ffffffff81000200 T second\nffffffff81000100 t first\nffffffff81000180 d data\nnonsense\n";

    #[test]
    fn the_function_around_an_address() {
        let symbols = Symbols::parse(TEXT);
        assert_eq!(symbols.find(0xffff_ffff_8100_01ff), Some(("first", 0xff)));
        assert_eq!(symbols.find(0xffff_ffff_8100_0200), Some(("second", 0)));
        assert_eq!(symbols.find(1), None);
    }

    #[test]
    fn hidden_addresses_are_none() {
        assert!(Symbols::parse("0000000000000000 T first\n").is_empty());
    }
}
