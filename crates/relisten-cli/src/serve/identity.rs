//! `/.relisten`: which worker answers.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use relisten::worker::Worker;
use serde::Serialize;

/// What the worker says about itself. `null` where it is not run by relisten.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Identity {
    slot: Option<u32>,
    generation: Option<u32>,
    pid: u32,
    name: Option<String>,
    version: &'static str,
}

impl Identity {
    pub(super) fn of(worker: &Worker) -> Identity {
        Identity {
            slot: worker.slot().map(|slot| slot.0),
            generation: worker.generation().map(|generation| generation.0),
            pid: std::process::id(),
            name: worker.name().map(str::to_owned),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    pub(super) fn json(&self) -> Bytes {
        let mut json = serde_json::to_vec(self).expect("numbers and texts always make JSON");
        json.push(b'\n');
        json.into()
    }

    /// The numbers once more as headers, so that a load client need not read the body.
    pub(super) fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let numbers = [
            ("relisten-slot", self.slot),
            ("relisten-generation", self.generation),
            ("relisten-pid", Some(self.pid)),
        ];
        numbers
            .into_iter()
            .filter_map(|(name, number)| Some((HeaderName::from_static(name), HeaderValue::from(number?))))
            .collect()
    }

    #[cfg(test)]
    pub(super) fn for_tests() -> Identity {
        Identity { slot: Some(3), generation: Some(7), pid: 42, name: Some("web".into()), version: "0.0.0" }
    }
}
