//! `relisten steer`, of an instance or of any other server, and `relisten weight`.

use super::reload::problem;
use super::{PATIENCE, complain, find};
use crate::cli::{LogFormat, Reach, SteerArgs, WeightArgs};
use crate::exit::Exit;
use crate::{log, say};
use relisten::steer::Policy;
use relisten_supervise::attach;
use relisten_supervise::runtime::output::{Format, Output};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// Asks for another policy, or steers a server that is no instance.
pub(crate) fn steer(args: &SteerArgs) -> Exit {
    match (args.policy, args.attach, args.detach) {
        (_, _, Some(port)) => match attach::detach(port) {
            Ok(()) => say::out(format!("detached: port {port} is as it was\n").as_bytes()),
            Err(error) => refused(&error),
        },
        (policy, Some(target), _) => steer_from_outside(args, policy.unwrap_or_default(), target),
        (Some(policy), None, None) => change(args, policy),
        (None, None, None) => unreachable!("clap asks for one of them"),
    }
}

/// Until a signal or `--detach`.
fn steer_from_outside(args: &SteerArgs, policy: Policy, target: u32) -> Exit {
    let hang_after = args.hang_after.map_or(Some(Duration::from_millis(200)), |span| span.0);
    let options = attach::Options { target, policy, hang_after };
    if let Ok(output) = Output::standard(Format::Text)
        && let Err(problem) = log::init(LogFormat::Text, &output)
    {
        say::note(&problem);
    }
    let attached = |steered: &attach::Steered| {
        let attach::Steered { port, listeners, policy, name } = steered;
        let noun = if *listeners == 1 { "listener" } else { "listeners" };
        let text = format!(
            "attached: port {port}, {listeners} {noun}, {policy}; 'relisten status {name}' shows it\n"
        );
        let _ = say::out(text.as_bytes());
        if *listeners == 1 {
            say::note("with one listener there is nobody to steer to; others are taken in when they come");
        }
    };
    match attach::run(&options, Path::new("/proc/self/exe"), attached) {
        Ok(()) => Exit::Done,
        Err(error) => refused(&error),
    }
}

fn refused(error: &attach::AttachError) -> Exit {
    say::error(&say::chain(error), error.cure());
    Exit::Failed
}

fn change(args: &SteerArgs, policy: Policy) -> Exit {
    let target = match find(&args.reach) {
        Ok(target) => target,
        Err(error) => return complain(&error),
    };
    match target.client.timeout(PATIENCE).steer(policy) {
        Ok(steered) if args.json => {
            let text =
                serde_json::json!({ "policy": steered.policy, "backend": steered.backend }).to_string();
            say::out(format!("{text}\n").as_bytes())
        }
        Ok(steered) => {
            let exit =
                say::out(format!("{}: {} by {}\n", target.name, steered.policy, steered.backend).as_bytes());
            if policy != Policy::Auto && policy.as_str() != steered.policy {
                say::note(&format!(
                    "{} is not possible here, so {} stands in; `relisten status` says what is missing",
                    policy, steered.policy
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
    let mut weights = BTreeMap::new();
    for given in &args.weights {
        if weights.insert(given.slot, given.weight).is_some() {
            say::error(&format!("slot {} is given twice", given.slot), None);
            return Exit::Usage;
        }
    }
    let reach = Reach { name: args.name.clone(), control: args.control.clone() };
    let target = match find(&reach) {
        Ok(target) => target,
        Err(error) => return complain(&error),
    };
    let client = target.client.timeout(PATIENCE);
    match client.weight(&weights) {
        Ok(answer) if args.json => {
            say::out(format!("{}\n", serde_json::json!({ "weights": answer.weights })).as_bytes())
        }
        Ok(answer) => {
            let all: Vec<_> =
                answer.weights.iter().map(|(slot, weight)| format!("{slot}={weight}")).collect();
            let exit = say::out(format!("{}: weights {}\n", target.name, all.join(" ")).as_bytes());
            let different: BTreeSet<_> = answer.weights.values().filter(|weight| **weight > 0).collect();
            if different.len() > 1
                && let Ok(policy) = client.status().map(|status| status.steering.policy)
                && policy != Policy::Weighted.as_str()
            {
                say::note(&format!(
                    "with {policy} a weight above 0 means nothing; `relisten steer weighted` goes by it"
                ));
            }
            exit
        }
        Err(error) if args.json => problem(&error),
        Err(error) => complain(&error),
    }
}
