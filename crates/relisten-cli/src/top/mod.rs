//! `relisten top`.

mod draw;
mod live;
mod rows;
mod text;
mod view;

use crate::cli::TopArgs;
use crate::doctor::{complain, which};
use crate::exit::Exit;
use crate::render::Paint;
use crate::{instance, instances, say};
use relisten_diag::DiagError;
use relisten_diag::machine::{Machine, Options};
use relisten_diag::top::Top;
use relisten_supervise::runtime::control::instance_of;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use view::View;

/// Between the first figures and the last of the only look.
const ONCE: Duration = Duration::from_millis(250);

/// Shows it once, again and again, or as a screen.
pub(crate) fn run(args: &TopArgs) -> Exit {
    let view = View::new(args);
    if let Some(name) = &args.name
        && let Err(error) = instance_of(Some(name))
    {
        return instance::complain(&error);
    }
    if args.once {
        return match Watcher::new(args).look(ONCE) {
            Ok(top) => say::out(printed(args, &view, &top, None).as_bytes()),
            Err(error) => complain(&error),
        };
    }
    if args.batch || args.json || !std::io::stdout().is_terminal() {
        return batch(args, &view);
    }
    live::run(args, view)
}

fn batch(args: &TopArgs, view: &View) -> Exit {
    let mut watcher = Watcher::new(args);
    let mut looks = 0;
    loop {
        let begin = Instant::now();
        let top = match watcher.look(ONCE.min(args.interval.0)) {
            Ok(top) => top,
            Err(error) => return complain(&error),
        };
        let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        let exit = say::out(printed(args, view, &top, Some(&now)).as_bytes());
        looks += 1;
        if exit != Exit::Done || args.looks.is_some_and(|most| looks >= most) {
            return exit;
        }
        std::thread::sleep(args.interval.0.saturating_sub(begin.elapsed()));
    }
}

fn printed(args: &TopArgs, view: &View, top: &Top, time: Option<&str>) -> String {
    if args.json {
        // A structure of numbers and texts can always be written.
        return serde_json::to_string(&view.chosen(top)).map_or_else(|_| String::new(), |line| line + "\n");
    }
    text::render(view, top, time, Paint::stdout())
}

/// Looks, and remembers the look before.
struct Watcher {
    options: Options,
    before: Option<(Machine, Instant)>,
}

impl Watcher {
    fn new(args: &TopArgs) -> Self {
        let options = Options {
            namespace: which(&args.place),
            window: Duration::ZERO,
            instances: Vec::new(),
            peers: !args.once,
        };
        Self { options, before: None }
    }

    /// The window counts for the first look only: later ones have the one before.
    fn look(&mut self, window: Duration) -> Result<Top, DiagError> {
        self.options.window = if self.before.is_some() { Duration::ZERO } else { window };
        self.options.instances = instances::all();
        let machine = Machine::look(&self.options)?;
        let now = Instant::now();
        let before = self.before.as_ref().map(|(before, then)| (before, now - *then));
        let top = Top::of(&machine, before);
        self.before = Some((machine, now));
        Ok(top)
    }
}
