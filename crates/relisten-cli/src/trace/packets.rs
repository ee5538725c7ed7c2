//! Packets one by one: the programs that tell them, and what is put together of it.

use super::levels;
use crate::say;
use relisten_bpf::trace::{Config, Lost, Probe, Record, Tracer};
use relisten_diag::trace::{Engine, Handshake, Handshakes, Level};

#[derive(Debug)]
pub(super) struct Packets {
    tracer: Option<Tracer>,
    handshakes: Handshakes,
}

impl Packets {
    /// Loads what may be loaded.
    pub(super) fn start(config: &Config) -> (Self, Vec<Level>) {
        let mut missing = Vec::new();
        let tracer = match Tracer::load_packets(config) {
            Ok(mut tracer) => {
                for probe in Probe::PACKETS {
                    if let Err(error) = tracer.attach(probe) {
                        missing.push((probe, say::chain(&error)));
                    }
                }
                Some(tracer)
            }
            Err(error) => {
                missing = Probe::PACKETS.map(|probe| (probe, say::chain(&error))).into();
                None
            }
        };
        (Self { tracer, handshakes: Handshakes::default() }, levels::packets(&missing))
    }

    /// What has been told since the last call.
    pub(super) fn read(&mut self, engine: &Engine) {
        let Some(tracer) = &mut self.tracer else { return };
        let handshakes = &mut self.handshakes;
        tracer.read_packets(|sighting| match sighting {
            Ok(sighting) => handshakes.take_in(&sighting, engine),
            // Only a bug can make one.
            Err(error) => say::note(&error.to_string()),
        });
    }

    /// A socket listens now.
    pub(super) fn opened(&mut self, record: &Record) {
        self.handshakes.opened(record);
    }

    /// Handshakes that are over.
    pub(super) fn take(&mut self, now_ns: u64, engine: &Engine) -> Vec<Handshake> {
        self.handshakes.take(now_ns, engine)
    }

    /// All handshakes.
    pub(super) fn finish(&mut self, engine: &Engine) -> Vec<Handshake> {
        self.handshakes.finish(engine)
    }

    /// What could not be told.
    pub(super) fn lost(&self) -> u64 {
        let lost = self.tracer.as_ref().and_then(|tracer| tracer.lost().ok());
        lost.map_or(0, |Lost { ring, queued }| ring + queued)
    }
}
