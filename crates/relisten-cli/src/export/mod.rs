//! `relisten export`.

mod http;
mod metrics;

use crate::cli::ExportArgs;
use crate::doctor::{complain, which};
use crate::exit::Exit;
use crate::{instances, say};
use metrics::Seen;
use relisten_diag::DiagError;
use relisten_diag::machine::{Machine, Options};
use std::time::Duration;

/// Between the first figures and the last of a look.
const WINDOW: Duration = Duration::from_millis(100);

/// Serves the metrics, or prints them once.
pub(crate) fn run(args: &ExportArgs) -> Exit {
    let mut exporter = Exporter::new(args);
    if args.once {
        return match exporter.scrape() {
            Ok(text) => say::out(text.as_bytes()),
            Err(error) => complain(&error),
        };
    }
    http::serve(args.listen, exporter)
}

/// Looks at each request; between them it does nothing.
#[derive(Debug)]
struct Exporter {
    options: Options,
    seen: Seen,
    before: Option<Machine>,
}

impl Exporter {
    fn new(args: &ExportArgs) -> Self {
        let options = Options {
            namespace: which(&args.place),
            window: WINDOW,
            instances: Vec::new(),
            peers: !args.once,
        };
        Self { options, seen: Seen::default(), before: None }
    }

    fn scrape(&mut self) -> Result<String, DiagError> {
        self.options.instances = instances::all();
        let machine = Machine::look(&self.options)?;
        if let Some(before) = &self.before {
            self.seen.add(&machine, before);
        }
        let text = metrics::render(&machine, &self.seen);
        self.before = Some(machine);
        Ok(text)
    }
}
