//! `relisten lab run`.

use super::{RunArgs, progress::Bar, show};
use crate::exit::Exit;
use crate::render::Paint;
use crate::say;
use relisten_lab::experiment::{Experiment, Scale, Wishes};
use relisten_lab::experiments;
use relisten_lab::run::{Event, run as run_all};

pub(super) fn run(args: &RunArgs) -> Exit {
    let chosen = match chosen(&args.experiments) {
        Ok(chosen) => chosen,
        Err(name) => {
            let tip = "relisten lab list names all experiments";
            say::error(&format!("there is no experiment '{name}'"), Some(tip));
            return Exit::Usage;
        }
    };
    let scale = match (args.quick, args.full) {
        (true, _) => Scale::Quick,
        (_, true) => Scale::Full,
        _ => Scale::Normal,
    };
    let wishes = Wishes { scale, seed: args.seed, hold: args.hold };
    let silent = args.files.silence();
    let (mut bar, paint) = (Bar::new(), Paint::stdout());
    let mut written = Exit::Done;
    let report = run_all(&chosen, &wishes, &mut |event| match event {
        Event::Begins(name, number, of) => bar.begin(name, number, of),
        Event::Progress(progress) => bar.show(progress),
        Event::Ended(run) => {
            bar.clear();
            if !silent && written == Exit::Done {
                written = say::out(show::run(run, paint).as_bytes());
            }
        }
    });
    bar.clear();
    if written != Exit::Done {
        return written;
    }
    if let Err(why) = args.files.write(&report) {
        return say::failed(&why);
    }
    if report.held() { Exit::Done } else { Exit::Failed }
}

/// Those named, each once, or all.
fn chosen(names: &[String]) -> Result<Vec<&'static dyn Experiment>, String> {
    if names.is_empty() {
        return Ok(experiments::ALL.to_vec());
    }
    let mut chosen: Vec<&'static dyn Experiment> = Vec::new();
    for name in names {
        let experiment = experiments::find(name).ok_or_else(|| name.clone())?;
        if !chosen.iter().any(|one| one.name() == experiment.name()) {
            chosen.push(experiment);
        }
    }
    Ok(chosen)
}
