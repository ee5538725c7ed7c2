//! `relisten steer` and `relisten weight`.

use super::reload::problem;
use super::{PATIENCE, complain, find};
use crate::cli::{Reach, SteerArgs, WeightArgs};
use crate::exit::Exit;
use crate::say;
use relisten::steer::Policy;
use std::collections::BTreeMap;

/// Asks for another policy.
pub(crate) fn steer(args: &SteerArgs) -> Exit {
    let target = match find(&args.reach) {
        Ok(target) => target,
        Err(error) => return complain(&error),
    };
    match target.client.timeout(PATIENCE).steer(args.policy) {
        Ok(steered) if args.json => {
            let text =
                serde_json::json!({ "policy": steered.policy, "backend": steered.backend }).to_string();
            say::out(format!("{text}\n").as_bytes())
        }
        Ok(steered) => {
            let exit =
                say::out(format!("{}: {} by {}\n", target.name, steered.policy, steered.backend).as_bytes());
            if args.policy != Policy::Auto && args.policy.as_str() != steered.policy {
                say::note(&format!(
                    "{} is not possible here, so {} stands in; `relisten status` says what is missing",
                    args.policy, steered.policy
                ));
            }
            exit
        }
        Err(error) if args.json => problem(&error),
        Err(error) => complain(&error),
    }
}

/// Asks for other weights.
pub(crate) fn weight(args: &WeightArgs) -> Exit {
    let reach = Reach { name: args.name.clone(), control: args.control.clone() };
    let target = match find(&reach) {
        Ok(target) => target,
        Err(error) => return complain(&error),
    };
    let weights: BTreeMap<u32, u32> = args.weights.iter().map(|w| (w.slot, w.weight)).collect();
    match target.client.timeout(PATIENCE).weight(&weights) {
        Ok(answer) if args.json => {
            say::out(format!("{}\n", serde_json::json!({ "weights": answer.weights })).as_bytes())
        }
        Ok(answer) => {
            let all: Vec<_> =
                answer.weights.iter().map(|(slot, weight)| format!("{slot}={weight}")).collect();
            say::out(format!("{}: weights {}\n", target.name, all.join(" ")).as_bytes())
        }
        Err(error) if args.json => problem(&error),
        Err(error) => complain(&error),
    }
}
