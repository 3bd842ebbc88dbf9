//! Workers come and go: processes that a launcher starts, streams that begin and end.

use super::{
    Command, Inventory, RetireReason, Verdict,
    state::{Core, Worker},
    timers::Timer,
};
use crate::{
    control::journal::Entry,
    launcher::{LaunchEvent, LaunchId},
};
use polestar_core::{Generation, WorkerId};
use polestar_run::failure::Trouble;
use std::time::Duration;

/// Worker processes that may fail in a row without one joining.
const MAX_FAILED_SPAWNS: u32 = 3;

impl Core {
    pub(super) fn joined(&mut self, worker: WorkerId, inventory: Inventory) {
        self.failed_spawns = 0;
        if let Some(launch) = &inventory.launch {
            self.launches.insert(launch.clone(), true);
            self.timers.clear(&Timer::Joining(launch.clone()));
        }
        self.publish(Entry::Joined {
            worker,
            inventory: inventory.clone(),
        });
        let entry = Worker {
            inventory,
            generation: None,
        };
        self.workers.insert(worker, entry);
        self.idle.insert(worker);
    }

    pub(super) fn left(&mut self, worker: WorkerId) {
        // One that was retired has been taken care of.
        if !self.workers.contains_key(&worker) {
            return;
        }
        self.publish(Entry::Left { worker });
        let generation = self.retire(worker, RetireReason::Left);
        if let Some(generation) = generation {
            self.trouble(worker, generation, Trouble::Lost);
        }
    }

    /// Takes a worker out of the pool. Returns its generation, which has to be told.
    pub(super) fn retire(&mut self, worker: WorkerId, reason: RetireReason) -> Option<Generation> {
        let entry = self.workers.remove(&worker)?;
        self.idle.remove(&worker);
        let launch = entry.inventory.launch;
        if reason != RetireReason::Left {
            self.publish(Entry::Retired {
                worker: Some(worker),
                launch: launch.clone(),
                reason,
            });
        }
        self.commands.push(Command::Retire {
            worker: Some(worker),
            launch,
            reason,
        });
        entry.generation
    }

    pub(super) fn launcher(&mut self, event: LaunchEvent) {
        match event {
            LaunchEvent::Started { launch } => {
                // It may have been quick to join.
                if !*self.launches.entry(launch.clone()).or_insert(false) {
                    let limit = Duration::from_secs(self.options.deadlines.joining_seconds);
                    self.timers
                        .set(Timer::Joining(launch), self.now.after(limit));
                }
            }
            LaunchEvent::Ended {
                launch,
                status,
                log_tail,
            } => {
                self.timers.clear(&Timer::Joining(launch.clone()));
                let joined = self.launches.remove(&launch).unwrap_or(false);
                self.publish(Entry::ProcessEnded {
                    launch,
                    status,
                    log_tail: log_tail.clone(),
                });
                if joined || !self.too_many_failed_spawns(log_tail) {
                    self.commands.push(Command::Scale(self.options.workers));
                }
            }
            LaunchEvent::Failed { message } => {
                self.publish(Entry::SpawnFailed {
                    message: message.clone(),
                });
                if !self.too_many_failed_spawns(message) {
                    let wait = Duration::from_secs(1 << self.failed_spawns.min(6));
                    self.timers.set(Timer::Scaling, self.now.after(wait));
                }
            }
        }
    }

    fn too_many_failed_spawns(&mut self, last: String) -> bool {
        self.failed_spawns += 1;
        let failed = self.failed_spawns;
        let too_many = failed > MAX_FAILED_SPAWNS;
        if too_many {
            self.conclude_with(Verdict::NoWorkers { failed, last });
        }
        too_many
    }

    /// A process was started and its worker never came.
    pub(super) fn never_joined(&mut self, launch: LaunchId) {
        let seconds = self.options.deadlines.joining_seconds;
        let reason = RetireReason::NeverJoined { seconds };
        self.publish(Entry::Retired {
            worker: None,
            launch: Some(launch.clone()),
            reason,
        });
        self.commands.push(Command::Retire {
            worker: None,
            launch: Some(launch),
            reason,
        });
    }
}
