//! The figures of [`Status`] as OpenMetrics.
//!
//! What is not known is left out, never guessed.

use crate::status::{Listener, Slot, Status, Worker};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;

/// What to say in `Content-Type`.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text of `GET /metrics`.
pub fn render(status: &Status) -> String {
    let mut registry =
        Registry::with_labels([("instance_name".into(), status.name.clone().into())].into_iter());
    registry.register_collector(Box::new(Snapshot(status.clone())));
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = text::encode(&mut out, &registry);
    out
}

#[derive(Debug)]
struct Snapshot(Status);

/// Names and values. `EncodeLabelSet` is implemented for vectors of pairs.
pub type Labels = Vec<(&'static str, String)>;

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = &self.0;
        let mut out = Out::new(&mut encoder);
        let none = Labels::new;
        let version = vec![("version", status.version.clone())];
        out.info("relisten_build", "The version that runs", [version])?;
        let uptime = status.uptime_ms as f64 / 1000.0;
        out.seconds("relisten_uptime", "Time since the instance was first started", uptime)?;
        let generation = [(none(), Some(status.generation.into()))];
        out.gauge("relisten_generation", "The generation in force", None, generation)?;
        let state = vec![("state", status.state.clone())];
        out.info("relisten_state", "The state the instance is in", [state])?;
        let steering =
            vec![("policy", status.steering.policy.clone()), ("backend", status.steering.backend.clone())];
        out.info("relisten_steering", "Who decides about new connections", [steering])?;
        let migration = [(none(), Some(status.steering.migration.into()))];
        out.gauge(
            "relisten_migration",
            "1 if waiting connections can move to another listener",
            None,
            migration,
        )?;
        self.listeners(&mut out)?;
        self.workers(&mut out)?;
        self.totals(&mut out)
    }
}

fn of_slot(listener: &Listener, slot: &Slot) -> Labels {
    vec![
        ("listener", listener.name.clone()),
        ("slot", slot.slot.to_string()),
        ("inode", slot.inode.to_string()),
    ]
}

/// Not known unless each slot's connections are; nothing where there are none.
fn share(listener: &Listener, slot: &Slot) -> Option<f64> {
    let all: u64 = listener.slots.iter().map(|slot| slot.active).sum::<Option<u64>>()?;
    (all > 0).then(|| slot.active.map(|active| active as f64 / all as f64))?
}

/// Who is not in service has none.
fn fair_share(listener: &Listener, slot: &Slot) -> Option<f64> {
    let weight = |slot: &Slot| if slot.state == "serving" { f64::from(slot.weight) } else { 0.0 };
    let all: f64 = listener.slots.iter().map(weight).sum();
    (all > 0.0).then(|| weight(slot) / all)
}

impl Snapshot {
    fn listeners(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let each = |figure: fn(&Slot) -> Option<u64>| {
            self.0.listeners.iter().flat_map(move |listener| {
                listener.slots.iter().map(move |slot| (of_slot(listener, slot), figure(slot)))
            })
        };
        let of = |figure: fn(&Listener) -> Option<u64>| {
            self.0.listeners.iter().map(move |l| (vec![("listener", l.name.clone())], figure(l)))
        };
        let connections = Some("connections");
        let help = "Limit of each accept queue, somaxconn considered";
        out.gauge("relisten_listener_backlog", help, connections, of(|l| l.backlog.map(u64::from)))?;
        let help = "Sockets of others on the address";
        out.gauge("relisten_listener_foreign", help, Some("sockets"), of(|l| Some(l.foreign.len() as u64)))?;
        let help = "How long the oldest connection that waits on the address has waited";
        out.gauge("relisten_listener_waiting", help, Some("milliseconds"), of(|l| l.oldest_ms))?;
        let shares = |share: fn(&Listener, &Slot) -> Option<f64>| {
            self.0.listeners.iter().flat_map(move |listener| {
                listener.slots.iter().map(move |slot| (of_slot(listener, slot), share(listener, slot)))
            })
        };
        let help = "The slot's part of the open connections of its address, from 0 to 1";
        out.ratio("relisten_listener_share", help, shares(share))?;
        let help = "The part that would be fair, by weight and among those in service, from 0 to 1";
        out.ratio("relisten_listener_fair_share", help, shares(fair_share))?;
        let help = "Share of new connections, relative to the other slots";
        out.gauge("relisten_listener_weight", help, None, each(|s| Some(s.weight.into())))?;
        let help = "Connections that wait for accept";
        out.gauge("relisten_listener_queue", help, connections, each(|s| s.queue))?;
        let help = "Open connections of the slot's worker";
        out.gauge("relisten_listener_active", help, connections, each(|s| s.active))?;
        let help = "SYNs and datagrams dropped on the listener";
        out.counter("relisten_listener_drops", help, None, each(|s| s.drops))?;
        let help = "Connections accepted from the listener";
        out.counter("relisten_listener_accepted", help, connections, each(|s| s.accepted_total))?;
        let help = "Connections moved away from the listener while its worker hung";
        out.counter("relisten_listener_rescued", help, connections, each(|s| s.rescued_total))
    }

    fn workers(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let each = |figure: fn(&Worker) -> Option<u64>| {
            self.0.workers.iter().map(move |worker| {
                let labels = vec![
                    ("slot", worker.slot.to_string()),
                    ("generation", worker.generation.to_string()),
                    ("pid", worker.pid.map_or_else(String::new, |pid| pid.to_string())),
                    ("state", worker.state.clone()),
                ];
                (labels, figure(worker))
            })
        };
        out.info("relisten_worker", "A process and its state", each(|_| None).map(|(labels, _)| labels))?;
        let help = "How often the worker's slot was restarted after a loss";
        out.counter("relisten_worker_slot_restarts", help, None, each(|w| Some(w.restarts.into())))?;
        let help = "Open connections";
        out.gauge("relisten_worker_active", help, Some("connections"), each(|w| w.active))?;
        out.gauge("relisten_worker_resident", "Resident memory", Some("bytes"), each(|w| w.rss_bytes))
    }

    fn totals(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let totals = &self.0.totals;
        let connections = Some("connections");
        for (name, help, unit, value) in [
            ("reloads", "Reloads that were carried through", None, Some(totals.reloads)),
            ("rollbacks", "Reloads that were rolled back", None, Some(totals.rollbacks)),
            ("restarts", "Workers started because another was lost", None, Some(totals.restarts)),
            ("hangs", "Workers found hung", None, Some(totals.hangs)),
            ("rescues", "Queues moved away from a hung worker", None, Some(totals.rescues)),
            ("rescued", "Connections moved away from a hung worker", connections, Some(totals.rescued)),
            (
                "programs_restored",
                "Times that somebody had taken the steering program off a group and it was put back",
                None,
                Some(totals.programs_restored),
            ),
            (
                "migrated",
                "Connections the kernel moved to another listener, in the whole network namespace",
                connections,
                totals.migrated,
            ),
            (
                "migrate_failed",
                "Connections the kernel could not move, in the whole network namespace",
                connections,
                totals.migrate_failed,
            ),
            ("cut", "Connections cut because the drain time was over", connections, Some(totals.cut)),
            (
                "output_dropped",
                "Lines of output that had to be dropped",
                Some("lines"),
                Some(totals.output_dropped),
            ),
        ] {
            out.counter(&format!("relisten_{name}"), help, unit, [(Labels::new(), value)])?;
        }
        Ok(())
    }
}

/// Writes families of metrics, each with its help. Values that are `None` are left out.
#[derive(Debug)]
pub struct Out<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl<'a, 'b> Out<'a, 'b> {
    /// Writes there.
    pub fn new(encoder: &'a mut DescriptorEncoder<'b>) -> Self {
        Self(encoder)
    }

    /// Something that is so, told by its labels; the name gets `_info`.
    pub fn info(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = Labels>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Info)?;
        for labels in values {
            family.encode_info(&labels)?;
        }
        Ok(())
    }

    /// What goes up and down; the name gets the unit.
    pub fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&str>,
        values: impl IntoIterator<Item = (Labels, Option<u64>)>,
    ) -> fmt::Result {
        let unit = unit.map(|u| Unit::Other(u.to_owned()));
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in values {
            let Some(value) = value else { continue };
            ConstGauge::new(value as i64).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// What only grows; the name gets the unit and `_total`.
    pub fn counter(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&str>,
        values: impl IntoIterator<Item = (Labels, Option<u64>)>,
    ) -> fmt::Result {
        let unit = unit.map(|u| Unit::Other(u.to_owned()));
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in values {
            let Some(value) = value else { continue };
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A part of a whole, from 0 to 1; the name gets `_ratio`.
    pub fn ratio(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, Option<f64>)>,
    ) -> fmt::Result {
        let unit = Unit::Other("ratio".to_owned());
        let mut family = self.0.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
        for (labels, value) in values {
            let Some(value) = value else { continue };
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A time; the name gets `_seconds`.
    pub fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(value).encode(family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::control::example_status;

    #[test]
    fn every_figure_has_its_line_and_unknown_ones_have_none() {
        let text = render(&example_status());
        for line in [
            "# TYPE relisten_uptime_seconds gauge",
            "relisten_uptime_seconds{instance_name=\"web\"} 1.5",
            "relisten_build_info{instance_name=\"web\",version=\"0.1.0\"} 1",
            "relisten_generation{instance_name=\"web\"} 2",
            "relisten_restarts_total{instance_name=\"web\"} 4",
            "# UNIT relisten_worker_resident_bytes bytes",
        ] {
            assert!(text.lines().any(|l| l == line), "{line:?} is missing in\n{text}");
        }
        let queues: Vec<_> =
            text.lines().filter(|l| l.starts_with("relisten_listener_queue_connections{")).collect();
        let [queue] = queues[..] else { panic!("one queue is known: {queues:?}") };
        assert!(queue.contains("slot=\"0\"") && queue.ends_with(" 7"), "{queue}");
        assert!(queue.contains(r#"listener="ev\"il\n""#), "{queue}");
        assert!(!text.contains("\nrelisten_listener_drops_total"), "{text}");
        assert!(text.ends_with("# EOF\n"));
        let waiting = "relisten_listener_waiting_milliseconds{";
        assert!(text.lines().any(|l| l.starts_with(waiting) && l.ends_with(" 250")), "{text}");
    }

    #[test]
    fn shares_are_of_those_in_service() {
        let mut status = example_status();
        let slots = &mut status.listeners[0].slots;
        (slots[0].active, slots[0].weight) = (Some(9), 3);
        let text = |status: &Status| -> Vec<String> {
            let text = render(status);
            let share = |line: &&str| line.starts_with("relisten_listener_") && line.contains("share_ratio{");
            text.lines().filter(share).map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
        };
        assert_eq!(text(&status), ["0.75", "0.25", "0.75", "0.25"]);
        status.listeners[0].slots[1].state = "draining".into();
        assert_eq!(text(&status), ["0.75", "0.25", "1.0", "0.0"]);
        // What one slot has is not known: so nobody's share is.
        status.listeners[0].slots[1].active = None;
        assert_eq!(text(&status), ["1.0", "0.0"]);
    }
}
