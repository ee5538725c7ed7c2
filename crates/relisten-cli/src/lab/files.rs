//! Where a report goes.

use crate::exit::Exit;
use crate::say;
use clap::Args;
use relisten_lab::report::{Report, html, markdown};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub(super) struct Files {
    /// Write the report to this file: one HTML page that needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Write the report to this file as JSON (docs/schema/lab.json); `-` is standard output, instead of the tables
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the tables to this file as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

impl Files {
    /// The JSON goes to standard output, and the tables stand aside.
    pub(super) fn silence(&self) -> bool {
        self.json.as_deref().is_some_and(is_standard_output)
    }

    /// Writes those that are wished for.
    pub(super) fn write(&self, report: &Report) -> Result<(), String> {
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())? + "\n";
            if !is_standard_output(path) {
                save(path, &text)?;
            } else if say::out(text.as_bytes()) != Exit::Done {
                return Err("the report was not written".to_owned());
            }
        }
        if let Some(path) = &self.html {
            save(path, &html(report))?;
        }
        if let Some(path) = &self.markdown {
            save(path, &markdown(report))?;
        }
        Ok(())
    }
}

fn is_standard_output(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn save(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text)
        .map_err(|error: io::Error| format!("'{}' can't be written: {error}", path.display()))
}
