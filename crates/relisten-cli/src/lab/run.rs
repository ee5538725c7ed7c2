//! `relisten lab run`.

use super::{RunArgs, progress::Bar, show};
use crate::exit::Exit;
use crate::render::Paint;
use crate::say;
use relisten_lab::experiment::{Experiment, Scale, Wishes};
use relisten_lab::experiments;
use relisten_lab::report::{Report, html};
use relisten_lab::run::{Event, run as run_all};
use std::io;
use std::path::Path;

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
    // The tables stand aside where the JSON goes to standard output.
    let silent = args.json.as_deref().is_some_and(is_standard_output);
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
    if let Err(why) = write(&report, args.html.as_deref(), args.json.as_deref()) {
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

pub(super) fn is_standard_output(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Into the files that are wished for.
pub(super) fn write(report: &Report, page: Option<&Path>, json: Option<&Path>) -> Result<(), String> {
    let failed = |path: &Path, error: io::Error| format!("'{}' can't be written: {error}", path.display());
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())? + "\n";
        if is_standard_output(path) {
            if say::out(text.as_bytes()) != Exit::Done {
                return Err("the report was not written".to_owned());
            }
        } else {
            std::fs::write(path, text).map_err(|error| failed(path, error))?;
        }
    }
    if let Some(path) = page {
        std::fs::write(path, html(report)).map_err(|error| failed(path, error))?;
    }
    Ok(())
}
