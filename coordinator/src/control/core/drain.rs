//! Ends that lose nothing: a generation saves a checkpoint after the step that is under way, and its trial waits.
//!
//! The whole loop drains when somebody asks for it. One generation drains when a worker of it will be gone soon, or
//! when there are more workers for it now.

use super::{Command, Order, Verdict, state::Core};
use crate::control::journal::Entry;
use polestar_core::{Generation, WorkerId};
use polestar_run::failure::Stage;

impl Core {
    /// Ends as soon as nothing is lost by it.
    pub(super) fn drain(&mut self) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        let generations: Vec<Generation> = self.groups.keys().copied().collect();
        for generation in generations {
            self.drain_generation(generation);
        }
    }

    pub(super) fn conclude_if_drained(&mut self) {
        if self.draining && self.groups.is_empty() && self.pending.is_empty() {
            self.conclude_with(Verdict::Stopped);
        }
    }

    /// Has a generation save a checkpoint and stop. One that has nothing to save yet only stops.
    pub(super) fn drain_generation(&mut self, generation: Generation) {
        let Some(group) = self.groups.get(&generation) else {
            return;
        };
        let (stage, busy) = (group.stage, group.busy());
        match stage {
            Stage::Running => {
                self.enter(generation, Stage::Draining);
                for worker in busy {
                    let order = Order::Drain { generation };
                    self.commands.push(Command::Send(worker, order));
                }
            }
            Stage::Preparing | Stage::Connecting => self.release(generation),
            Stage::Rejoining | Stage::Draining | Stage::Stopping => {}
        }
    }

    /// A worker says that it will be gone soon.
    pub(super) fn leaving(&mut self, worker: WorkerId) {
        let Some(entry) = self.workers.get_mut(&worker) else {
            return;
        };
        if std::mem::replace(&mut entry.leaving, true) {
            return;
        }
        self.leaving += 1;
        let generation = entry.generation;
        self.publish(Entry::Leaving { worker });
        match generation {
            Some(generation) => self.drain_generation(generation),
            None => self.dismiss(worker),
        }
    }

    /// Lets a worker go that is at no work and wants to.
    pub(super) fn dismiss(&mut self, worker: WorkerId) {
        self.idle.remove(&worker);
        self.commands.push(Command::Dismiss(worker));
    }
}
