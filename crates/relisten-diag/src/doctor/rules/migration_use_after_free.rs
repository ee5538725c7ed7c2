use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::{Kernel, Machine};

/// CVE-2024-53206.
pub(super) struct MigrationUseAfterFree;

/// First version with the mistake, first version without, by series. From the CVE record: the mistake came with 6.12
/// and was taken back into older series. Series before 5.14 have the line, but not the migration that it needs.
/// <https://github.com/CVEProject/cvelistV5/blob/main/cves/2024/53xxx/CVE-2024-53206.json>
const AFFECTED: [((u32, u32), u32, u32); 5] =
    [((5, 15), 170, 174), ((6, 1), 115, 120), ((6, 6), 59, 64), ((6, 11), 6, 11), ((6, 12), 0, 2)];

impl Rule for MigrationUseAfterFree {
    fn name(&self) -> &'static str {
        "migration-use-after-free"
    }

    fn about(&self) -> &'static str {
        "a kernel with CVE-2024-53206: migration of a half-open request frees memory in use"
    }

    fn explain(&self) -> &'static str {
        "CVE-2024-53206: when the timer of a half-open request fires, the request is moved to another listener of its \
         reuseport group, and that fails afterwards, the kernel drops a reference to the wrong one: memory that is \
         still in use is freed. It needs migration to be on (net.ipv4.tcp_migrate_req, or a BPF program), and can be \
         set off by ordinary traffic; a local user who may make a network namespace can switch it on there.\n\n\
         Affected: 5.15.170 to 5.15.173, 6.1.115 to 6.1.119, 6.6.59 to 6.6.63, 6.11.6 to 6.11.10, 6.12 and 6.12.1. \
         Distributions that hide the patch level (6.12.0-55) can't be judged by their version; nothing is said about \
         those."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        let Some((fixed, version)) = affected(&machine.kernel) else { return };
        let on = machine.sysctls.migrate_req == Some(true);
        findings.push(
            Finding::new(self.name(), if on { Severity::Serious } else { Severity::Warning }, "kernel")
                .says("this kernel has CVE-2024-53206: migrating half-open requests can free memory in use")
                .shown_by(Evidence::of(format!("Linux {version}; fixed in {fixed}")))
                .shown_by(Evidence::of(format!(
                    "net.ipv4.tcp_migrate_req = {}",
                    machine.sysctls.migrate_req.map_or("?", |on| if on { "1" } else { "0" })
                )))
                .effect("the kernel may crash or be taken over when a listener of a reuseport group closes")
                .fix(format!("update the kernel to {fixed} or later"))
                .fix("until then: sysctl -w net.ipv4.tcp_migrate_req=0"),
        );
    }
}

/// The version with the fix, and the one that runs.
fn affected(kernel: &Kernel) -> Option<(String, String)> {
    let (major, minor, patch) = kernel.exact()?;
    // `6.12.0-55.el10` hides how far it has been patched.
    let hidden = kernel.stable.is_none() && patch == 0 && kernel.release.contains(".0-");
    let hit = |((a, b), first, fixed): &((u32, u32), u32, u32)| {
        (major, minor) == (*a, *b) && (*first..*fixed).contains(&patch) && !hidden
    };
    let ((a, b), _, fixed) = AFFECTED.iter().find(|series| hit(series))?;
    Some((format!("{a}.{b}.{fixed}"), format!("{major}.{minor}.{patch}")))
}

#[cfg(test)]
mod tests {
    use super::super::model::severities;
    use super::*;
    use crate::machine::Sysctls;

    fn with(release: &str, version: (u32, u32, u32), on: bool) -> Machine {
        Machine {
            kernel: Kernel { release: release.into(), version: Some(version), stable: None },
            sysctls: Sysctls { migrate_req: Some(on), ..Sysctls::default() },
            ..Machine::default()
        }
    }

    #[test]
    fn affected_versions() {
        for (release, version) in [
            ("5.15.173", (5, 15, 173)),
            ("6.1.115", (6, 1, 115)),
            ("6.6.63", (6, 6, 63)),
            ("6.11.10", (6, 11, 10)),
            ("6.12.1", (6, 12, 1)),
            ("6.12", (6, 12, 0)),
        ] {
            assert_eq!(
                severities(&MigrationUseAfterFree, &with(release, version, true)),
                [Severity::Serious]
            );
            assert_eq!(
                severities(&MigrationUseAfterFree, &with(release, version, false)),
                [Severity::Warning]
            );
        }
    }

    #[test]
    fn others() {
        for (release, version) in [
            ("5.10.240", (5, 10, 240)),
            ("5.15.169", (5, 15, 169)),
            ("5.15.174", (5, 15, 174)),
            ("6.1.120", (6, 1, 120)),
            ("6.6.58", (6, 6, 58)),
            ("6.8.0-50-generic", (6, 8, 0)),
            ("6.12.0-55.el10", (6, 12, 0)),
            ("6.12.2", (6, 12, 2)),
            ("6.18.4", (6, 18, 4)),
        ] {
            assert_eq!(severities(&MigrationUseAfterFree, &with(release, version, true)), [], "{release}");
        }
    }
}
