//! What of it is to be shown, and in which order.

use crate::cli::{Sort, TopArgs};
use relisten_diag::top::{Top, TopGroup};
use std::cmp::Reverse;

/// The user's choices.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) instance: Option<String>,
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    pub(super) filter: String,
    pub(super) workers: bool,
    pub(super) udp: bool,
}

impl View {
    pub(super) fn new(args: &TopArgs) -> Self {
        Self {
            instance: args.name.clone(),
            sort: args.sort,
            reversed: false,
            filter: args.filter.clone().unwrap_or_default(),
            workers: true,
            udp: true,
        }
    }

    /// Only what is wanted, in the order that is wanted.
    pub(super) fn chosen(&self, top: &Top) -> Top {
        let mut top = top.clone();
        top.groups.retain(|group| self.wants(group));
        top.groups.sort_by_key(|group| (group.protocol.clone(), group.address.port(), group.address));
        match self.sort {
            Sort::Address => {}
            Sort::Queue => top.groups.sort_by_key(|group| Reverse(group.queue)),
            Sort::Waiting => top.groups.sort_by_key(|group| Reverse(group.oldest_ms)),
            Sort::Accepts => top.groups.sort_by(|a, b| accepts(b).total_cmp(&accepts(a))),
            Sort::Active => top.groups.sort_by_key(|group| Reverse(group.active)),
            Sort::Drops => top.groups.sort_by(|a, b| {
                let rate = |group: &TopGroup| group.drops_per_s.unwrap_or(0.0);
                rate(b).total_cmp(&rate(a)).then(b.drops.cmp(&a.drops))
            }),
        }
        if self.reversed {
            top.groups.reverse();
        }
        top
    }

    fn wants(&self, group: &TopGroup) -> bool {
        let of_instance = |name: &String| group.instance.as_ref().is_some_and(|i| i.name == *name);
        let contains = |text: &str| text.contains(&self.filter);
        let matches = || {
            contains(&format!("{} {}", group.protocol, group.address))
                || group.instance.as_ref().is_some_and(|instance| contains(&instance.name))
                || group.listeners.iter().flat_map(|listener| &listener.workers).any(|worker| {
                    contains(&worker.command)
                        || contains(&worker.pid.to_string())
                        || worker.container.as_deref().is_some_and(contains)
                })
        };
        self.instance.as_ref().is_none_or(of_instance)
            && (self.udp || group.protocol != "udp")
            && (self.filter.is_empty() || matches())
    }
}

fn accepts(group: &TopGroup) -> f64 {
    group.accepted.map_or(-1.0, |accepted| accepted.at_least_per_s)
}
