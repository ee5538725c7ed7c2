use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::Machine;

/// The setting that broke clients behind NAT.
pub(super) struct TwRecycle;

const NAME: &str = "net.ipv4.tcp_tw_recycle";

impl Rule for TwRecycle {
    fn name(&self) -> &'static str {
        "tw-recycle"
    }

    fn about(&self) -> &'static str {
        "net.ipv4.tcp_tw_recycle is on, or still set in a configuration file"
    }

    fn explain(&self) -> &'static str {
        "net.ipv4.tcp_tw_recycle made a server remember the last timestamp of each *host* and drop SYNs with an older \
         one. Behind one address of a NAT there are many clients, each with a clock of its own: all but one of them \
         were refused at random, without a word. It was removed in Linux 4.12, after connections had got a random \
         offset for their timestamps, which made it wrong everywhere.\n\n\
         On a newer kernel the line in a configuration file only makes sysctl(8) complain; the danger is that the \
         file is carried to an old machine, and that somebody believes it helps."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        if machine.sysctls.tw_recycle == Some(true) {
            findings.push(
                Finding::new(self.name(), Severity::Serious, NAME)
                    .says("tcp_tw_recycle is on: clients behind a NAT are refused at random")
                    .shown_by(Evidence::number(format!("{NAME} = 1"), 1.0))
                    .effect("SYNs with a timestamp older than another client's behind the same address are dropped")
                    .fix(format!("sysctl -w {NAME}=0")),
            );
        }
        for setting in machine.settings.iter().filter(|setting| setting.name == NAME && setting.value != "0")
        {
            let place = format!("{}:{}", setting.file.display(), setting.line);
            findings.push(
                Finding::new(self.name(), Severity::Warning, place.clone())
                    .says("tcp_tw_recycle is still set in a configuration file")
                    .shown_by(Evidence::of(format!("{place}: {NAME} = {}", setting.value)))
                    .effect(
                        "nothing on Linux 4.12 and later; before, clients behind a NAT are refused at random",
                    )
                    .fix(format!("remove the line: sed -i '{}d' {}", setting.line, setting.file.display())),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::severities;
    use super::*;
    use crate::machine::{Setting, Sysctls};

    #[test]
    fn on_or_in_a_file() {
        let on = Sysctls { tw_recycle: Some(true), ..Sysctls::default() };
        assert_eq!(
            severities(&TwRecycle, &Machine { sysctls: on, ..Machine::default() }),
            [Severity::Serious]
        );
        let setting = |name: &str, value: &str| Setting {
            file: "/etc/sysctl.conf".into(),
            line: 3,
            name: name.into(),
            value: value.into(),
        };
        let with = |setting| Machine { settings: vec![setting], ..Machine::default() };
        assert_eq!(severities(&TwRecycle, &with(setting(NAME, "1"))), [Severity::Warning]);
        assert_eq!(severities(&TwRecycle, &with(setting(NAME, "0"))), []);
        assert_eq!(severities(&TwRecycle, &with(setting("net.ipv4.tcp_tw_reuse", "1"))), []);
    }
}
