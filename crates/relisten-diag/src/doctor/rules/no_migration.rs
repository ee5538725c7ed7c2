use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::{Machine, Migration};
use crate::sock_diag::Protocol;

/// A group whose queues die with their listeners.
pub(super) struct NoMigration;

impl Rule for NoMigration {
    fn name(&self) -> &'static str {
        "no-migration"
    }

    fn about(&self) -> &'static str {
        "a reuseport group whose waiting connections are reset when a member closes"
    }

    fn explain(&self) -> &'static str {
        "The kernel ties a connection to one listener of a reuseport group when its SYN arrives. When that listener \
         is closed (its worker is stopped, restarted, or crashes), connections in its queue are reset and half-open \
         ones can't be completed, although the other members could serve them. No TcpExt counter moves. Since \
         Linux 5.14 they can be moved to another member instead: with net.ipv4.tcp_migrate_req=1 (per network \
         namespace, IPv6 included), or by a BPF program of type SK_REUSEPORT that is loaded for migration, which \
         can't be seen from outside.\n\n\
         Some kernels move them without waking who gets them: see the rule migration-wake-up.\n\n\
         relisten needs none of that: it closes a listener only when nothing is left on it. Its instances are not \
         reported."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        if machine.sysctls.migrate_req == Some(true) {
            return;
        }
        let is_wanted = |group: &&crate::machine::Group| {
            group.protocol == Protocol::Tcp
                && group.members.len() > 1
                && !group.members.iter().any(|member| machine.slot(member.inode).is_some())
        };
        for group in machine.groups.iter().filter(is_wanted) {
            let members = group.members.len();
            let mut finding = Finding::new(self.name(), Severity::Warning, group.name())
                .says(format!("when one of its {members} listeners closes, what waits on it is reset"))
                .shown_by(Evidence::number(format!("{members} listeners on one address"), members as f64))
                .shown_by(Evidence::of(match machine.sysctls.migrate_req {
                    Some(_) => "net.ipv4.tcp_migrate_req = 0",
                    None => "this kernel has no net.ipv4.tcp_migrate_req (Linux 5.14)",
                }));
            if group.waiting + group.half_open > 0 {
                let text = format!("{} waiting and {} half open now", group.waiting, group.half_open);
                finding = finding.shown_by(Evidence::number(text, (group.waiting + group.half_open) as f64));
            }
            finding = finding.effect("every reload, restart and crash of a worker resets some connections");
            if machine.sysctls.migrate_req.is_some() && machine.migration != Some(Migration::DoesNotWake) {
                finding = finding.fix("sysctl -w net.ipv4.tcp_migrate_req=1");
            }
            findings.push(finding.fix("run the server under `relisten run`, which needs no setting"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{check, listener, machine};
    use super::*;
    use crate::SocketInode;
    use crate::machine::{Instance, Slot, Sysctls};

    fn with(members: u64, migrate_req: Option<bool>) -> Machine {
        let sysctls = Sysctls { migrate_req, ..Sysctls::default() };
        Machine { sysctls, ..machine((0..members).map(listener).collect()) }
    }

    #[test]
    fn groups_without_it() {
        let off = check(&NoMigration, &with(2, Some(false)));
        assert!(off[0].fix[0].contains("tcp_migrate_req=1"));
        assert_eq!(check(&NoMigration, &with(2, None))[0].fix.len(), 1);
        let sleeps = Machine { migration: Some(Migration::DoesNotWake), ..with(2, Some(false)) };
        assert_eq!(check(&NoMigration, &sleeps)[0].fix.len(), 1, "the cure would be worse");
    }

    #[test]
    fn with_it_alone_or_under_relisten() {
        assert_eq!(check(&NoMigration, &with(2, Some(true))), []);
        assert_eq!(check(&NoMigration, &with(1, Some(false))), []);
        let mut ours = with(2, Some(false));
        let slots = [(SocketInode(1), Slot::default())].into();
        ours.instances = vec![Instance { slots, ..Instance::default() }];
        assert_eq!(check(&NoMigration, &ours), []);
    }
}
