use super::btf;
use std::collections::BTreeMap;

/// The kernel's names of its reasons, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    reset: BTreeMap<i32, String>,
    drop: BTreeMap<i32, String>,
}

impl Names {
    /// From the kernel's type information (`/sys/kernel/btf/vmlinux`). Names of what this kernel does not have are
    /// not there: no reasons of resets before 6.10, none of drops before 5.17.
    pub fn from_types(btf: &[u8]) -> Self {
        let read = |name: &str, prefix: &str| -> BTreeMap<i32, String> {
            let values = btf::values(btf, name).unwrap_or_default();
            let name = |name: &str| name.strip_prefix(prefix).unwrap_or(name).to_owned();
            values.into_iter().map(|(text, number)| (number, name(&text))).collect()
        };
        Self {
            reset: read("sk_rst_reason", "SK_RST_REASON_"),
            drop: read("skb_drop_reason", "SKB_DROP_REASON_"),
        }
    }

    /// From the format files of the events `tcp:tcp_send_reset` and `skb:kfree_skb`.
    pub fn from_formats(reset: &str, drop: &str) -> Self {
        Self { reset: symbols(reset, "REC->reason"), drop: symbols(drop, "REC->reason") }
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        self.reset.is_empty() && self.drop.is_empty()
    }

    /// Why a reset was sent.
    pub fn reset(&self, number: i32) -> Option<&str> {
        self.reset.get(&number).map(String::as_str)
    }

    /// The number of this reason of a reset.
    pub fn reset_number(&self, name: &str) -> Option<i32> {
        self.reset.iter().find_map(|(number, known)| (known == name).then_some(*number))
    }

    /// Why a packet was dropped.
    pub fn drop(&self, number: i32) -> Option<&str> {
        self.drop.get(&number).map(String::as_str)
    }

    /// The numbers of these reasons of drops, as far as this kernel has them.
    pub fn drops(&self, names: &[&str]) -> Vec<u16> {
        let wanted = self.drop.iter().filter(|(_, name)| names.contains(&name.as_str()));
        wanted.filter_map(|(number, _)| u16::try_from(*number).ok()).collect()
    }
}

/// The pairs of `__print_symbolic(FIELD, { 1, "ONE" }, …)` in a format file.
fn symbols(format: &str, field: &str) -> BTreeMap<i32, String> {
    let mut found = BTreeMap::new();
    let start = format!("__print_symbolic({field},");
    let Some((_, list)) = format.split_once(&start) else { return found };
    for pair in list.split('{').skip(1) {
        let Some((pair, rest)) = pair.split_once('}') else { break };
        if let Some((number, name)) = pair.split_once(',')
            && let Ok(number) = number.trim().parse()
        {
            found.insert(number, name.trim().trim_matches('"').to_owned());
        }
        // The bracket behind the last pair.
        if rest.trim_start().starts_with(')') {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESET: &str = "name: tcp_send_reset\nprint fmt: \"state=%s reason=%s\", REC->state ? \
        __print_symbolic(REC->state, { TCP_ESTABLISHED, \"TCP_ESTABLISHED\" }) : \"UNKNOWN\", \
        __print_symbolic(REC->reason, { 0, \"NOT_SPECIFIED\" }, { 1, \"NO_SOCKET\" }), { 7, \"OTHER\" }";

    #[test]
    fn names_of_a_format_file() {
        let names = Names::from_formats(RESET, "");
        assert_eq!((names.reset(1), names.reset(7)), (Some("NO_SOCKET"), None));
        assert_eq!(names.reset.len(), 2);
    }

    #[test]
    fn an_old_format_has_none() {
        assert!(Names::from_formats("print fmt: \"skbaddr=%p\", REC->skbaddr", "").is_empty());
    }

    #[test]
    fn this_kernel_names_them() {
        let Ok(btf) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
        let names = Names::from_types(&btf);
        assert_eq!(names.drops(&["NO_SOCKET", "nonsense"]).len(), 1);
    }
}
