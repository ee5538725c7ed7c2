//! What the running instances of relisten say of themselves, for those who look at the whole machine.

use relisten_diag::SocketInode;
use relisten_diag::machine::{Instance, Slot, Worker};
use relisten_supervise::runtime::control::{Client, InstanceState, list_instances};
use relisten_supervise::status::Status;
use std::time::Duration;

/// An instance that does not answer at once is left out: its sockets are seen all the same.
const PATIENCE: Duration = Duration::from_millis(500);

/// All that can be found and asked.
pub(crate) fn all() -> Vec<Instance> {
    list_instances()
        .into_iter()
        .filter(|instance| matches!(instance.state, InstanceState::Runs(_)))
        .filter_map(|instance| Client::new(instance.control).timeout(PATIENCE).status().ok())
        .map(|status| from_status(&status))
        .collect()
}

fn from_status(status: &Status) -> Instance {
    let mut instance = Instance {
        name: status.name.clone(),
        pid: status.pid,
        generation: status.generation,
        state: status.state.clone(),
        policy: status.steering.policy.clone(),
        backend: status.steering.backend.clone(),
        ..Instance::default()
    };
    for listener in &status.listeners {
        for slot in &listener.slots {
            let place = Slot {
                slot: slot.slot,
                state: slot.state.clone(),
                weight: slot.weight,
                accepted_total: slot.accepted_total,
                rescued_total: slot.rescued_total,
            };
            instance.slots.insert(SocketInode(slot.inode), place);
        }
        instance.foreign.extend(listener.foreign.iter().map(|foreign| SocketInode(foreign.inode)));
    }
    for worker in &status.workers {
        if let Some(pid) = worker.pid {
            let (slot, generation) = (worker.slot, worker.generation);
            instance.workers.insert(pid, Worker { slot, generation, state: worker.state.clone() });
        }
    }
    instance
}
