//! One log line for each thing that happened.

use crate::core::{ExitStatus, Record};

pub(super) fn record(record: &Record) {
    match record {
        Record::Ready { worker, slot, after_ms } => tracing::info!(%worker, %slot, after_ms, "ready"),
        Record::Leaving { worker, slot, why } => tracing::info!(%worker, %slot, why, "leaving"),
        // Said where it is known what is cut.
        Record::DrainExpired { .. } => {}
        Record::GraceExpired { worker, slot } => {
            tracing::warn!(%worker, %slot, "still there after --grace: SIGKILL");
        }
        Record::Exited { worker, slot, status, expected: true } => {
            tracing::info!(%worker, %slot, status = %words(*status), "ended");
        }
        Record::Exited { worker, slot, status, expected: false } => {
            tracing::error!(%worker, %slot, status = %words(*status), "lost");
        }
        Record::Failed { worker, slot, why, retry_ms } => {
            tracing::error!(%worker, %slot, why, retry_ms, "failed");
        }
        Record::ReloadStarted { generation } => tracing::info!(%generation, "reload started"),
        Record::ReloadDone { generation, after_ms } => tracing::info!(%generation, after_ms, "reload done"),
        Record::RolledBack { generation, why } => {
            tracing::error!(%generation, why, "reload rolled back: everything is as before");
        }
        Record::Scaled { from, to } => tracing::info!(from, to, "scaled"),
        Record::Stopping => tracing::info!("stopping"),
    }
}

/// As a person says it.
pub(super) fn words(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("exit code {code}"),
        ExitStatus::Signal(number) => format!("killed by signal {number}"),
        ExitStatus::Unknown => "unknown".into(),
    }
}
