//! What the process that is attached is asked and told over its control socket, the same as an instance's.

use super::all::{All, policy_name};
use super::error::AttachError;
use crate::runtime::chain;
use crate::runtime::control::{Answer, Problem, ProblemKind, RequestKind};
use relisten::steer::Policy;
use std::collections::{BTreeMap, BTreeSet};

impl All {
    /// All but the end, which is not for here.
    pub(super) fn answer(&mut self, name: &str, request: &RequestKind) -> Result<Answer, Problem> {
        match request {
            RequestKind::Status => Ok(Answer::Status(Box::new(self.status(name)))),
            RequestKind::Steer { policy } => self.steer_by(*policy),
            RequestKind::Weight { weights } => self.weigh(weights),
            RequestKind::Stop { .. }
            | RequestKind::Reload { .. }
            | RequestKind::Scale { .. }
            | RequestKind::Replace { .. } => {
                let cure = "use its own way; relisten follows";
                Err(Problem::new(
                    ProblemKind::State,
                    "relisten only steers this server, and did not start it",
                    cure,
                ))
            }
        }
    }

    fn steer_by(&mut self, policy: Policy) -> Result<Answer, Problem> {
        self.choose(self.carried_out(policy)).map_err(|error| problem(&error))?;
        let policy = policy_name(self.choosing.policy);
        tracing::info!(port = self.port, policy, "steering changed");
        Ok(Answer::Steering { policy: policy.into(), backend: "ebpf".into() })
    }

    fn weigh(&mut self, weights: &[(u32, u32)]) -> Result<Answer, Problem> {
        let slots: BTreeSet<u32> =
            self.groups.values().flat_map(|group| group.members.values()).map(|member| member.slot).collect();
        if let Some((slot, _)) = weights.iter().find(|(slot, _)| !slots.contains(slot)) {
            let cure = "`relisten status` shows which there are";
            return Err(Problem::new(ProblemKind::NotFound, format!("there is no slot {slot}"), cure));
        }
        let before = self.choosing.weights.clone();
        self.choosing.weights.extend(weights.iter().copied());
        let all: BTreeMap<u32, u32> = slots.iter().map(|slot| (*slot, self.choosing.weight(*slot))).collect();
        let published = if all.values().all(|weight| *weight == 0) {
            Err("nobody would be left to serve".to_owned())
        } else {
            self.publish().map_err(|error| chain(&error))
        };
        if let Err(error) = published {
            self.choosing.weights = before;
            let _ = self.publish();
            return Err(Problem::new(ProblemKind::Request, error, "only their ratios matter"));
        }
        tracing::info!(port = self.port, ?weights, "weights changed");
        Ok(Answer::Weights(all))
    }
}

fn problem(error: &AttachError) -> Problem {
    Problem::new(ProblemKind::State, chain(error), error.cure().unwrap_or_default())
}
