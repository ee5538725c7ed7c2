//! `timewait`: what TIME_WAIT costs, what helps, and what SO_REUSEADDR has to do with it.

mod binding;
mod cures;
mod lingering;
mod memory;
mod network;
mod takeover;

use crate::experiment::{Context, Experiment, Failure};
use crate::outcome::Outcome;

/// See the module.
#[derive(Debug)]
pub(super) struct TimeWait;

impl Experiment for TimeWait {
    fn name(&self) -> &'static str {
        "timewait"
    }

    fn shows(&self) -> &'static str {
        "Connections to one destination end where the ports of the range do, because those just closed wait for a minute; \
         what lifts that limit, what the entries cost, and who holds them."
    }

    fn run(&self, context: &mut Context<'_>) -> Result<Outcome, Failure> {
        if let Some(why) = &context.shared_network {
            return Err(Failure::Skip(format!(
                "the range of local ports would be changed for everybody: {why}"
            )));
        }
        let mut outcome = Outcome::new();
        let parts: [(&str, Part); 5] = [
            ("ports and cures", cures::run),
            ("who closes first, and how long close takes", lingering::run),
            ("taking over in LAST-ACK", takeover::run),
            ("binding again", binding::run),
            ("memory", memory::run),
        ];
        for (number, (what, part)) in parts.iter().enumerate() {
            context.step(number, parts.len(), *what);
            match part(context, &mut outcome) {
                Err(Failure::Skip(why)) => outcome.skip(*what, why),
                result => result?,
            }
        }
        Ok(outcome)
    }
}

type Part = fn(&mut Context<'_>, &mut Outcome) -> Result<(), Failure>;
