//! The rules, one file each.

mod abort_on_overflow;
mod backlog;
mod descriptors;
mod exclusive_skew;
mod foreign_members;
mod linger_zero;
mod migration_use_after_free;
mod migration_wake_up;
mod mixed_programs;
#[cfg(test)]
mod model;
mod no_migration;
mod not_accepting;
mod port_overlap;
mod syn_cookies;
mod thundering_herd;
mod time_wait_memory;
mod time_wait_ports;
mod timestamps;
mod tw_buckets;
mod tw_recycle;
mod tw_reuse;
mod tw_reuse_delay;
mod udp_drops;

use super::Rule;

/// All of them: those about listeners first, then memory of past connections, then settings.
pub(super) const ALL: &[&dyn Rule] = &[
    &not_accepting::NotAccepting,
    &backlog::Backlog,
    &abort_on_overflow::AbortOnOverflow,
    &syn_cookies::SynCookies,
    &udp_drops::UdpDrops,
    &descriptors::Descriptors,
    &mixed_programs::MixedPrograms,
    &foreign_members::ForeignMembers,
    &no_migration::NoMigration,
    &migration_wake_up::MigrationWakeUp,
    &migration_use_after_free::MigrationUseAfterFree,
    &thundering_herd::ThunderingHerd,
    &exclusive_skew::ExclusiveSkew,
    &linger_zero::LingerZero,
    &time_wait_ports::TimeWaitPorts,
    &time_wait_memory::TimeWaitMemory,
    &tw_buckets::TwBuckets,
    &tw_reuse::TwReuse,
    &tw_reuse_delay::TwReuseDelay,
    &timestamps::Timestamps,
    &tw_recycle::TwRecycle,
    &port_overlap::PortOverlap,
];

/// `1 connection`, `2 connections`.
fn count(number: u64, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// Some names, and how many more there are.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{shown} and {more} more"),
        _ => shown,
    }
}
