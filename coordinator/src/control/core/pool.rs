//! Workers come and go: processes that a launcher starts, streams that begin and end.

use super::{
    Command, Inventory, RetireReason, Verdict,
    state::{Core, Launched, Worker},
    timers::Timer,
};
use crate::{
    control::journal::Entry,
    launcher::{Ending, LaunchEvent, LaunchId},
};
use polestar_core::{Generation, WorkerId};
use polestar_run::failure::Trouble;
use std::time::Duration;

/// Times that worker processes may fail in a row without one joining.
const MAX_FAILED_SPAWNS: u32 = 3;

impl Core {
    /// A worker joined. One whose process this launcher hasn't spoken of is an earlier coordinator's, whether or not
    /// it brings work: it is nobody's to replace. If it was only quicker than its launcher, it becomes this one's when that
    /// says so, and so do jobs of a batch system that are there for the next coordinator, too.
    pub(super) fn joined(&mut self, worker: WorkerId, inventory: Inventory) {
        self.failed_spawns = 0;
        self.failed_spawn = None;
        let is_known = |launch| self.launches.contains_key(launch);
        let is_ours = inventory.launch.as_ref().is_some_and(is_known);
        if let Some(launch) = &inventory.launch
            && is_ours
        {
            if let Some(Launched::Since(started)) = self
                .launches
                .insert(launch.clone(), Launched::Joined(worker))
            {
                self.warmth.boots += 1;
                self.warmth.booting += self.now.since(started);
            }
            self.timers.clear(&Timer::Joining(launch.clone()));
        }
        self.publish(Entry::Joined {
            worker,
            inventory: inventory.clone(),
        });
        let entry = Worker {
            inventory,
            generation: None,
            is_ours,
            leaving: false,
        };
        self.workers.insert(worker, entry);
        self.idle.insert(worker);
    }

    /// Processes that a launcher is to have: what is wanted, without those that join by themselves.
    fn wanted_launches(&mut self) -> u32 {
        let wanted = self.wanted_workers();
        self.asked_for = Some(wanted);
        let others = self.workers.values().filter(|w| !w.is_ours && !w.leaving);
        let others = u32::try_from(others.count()).unwrap_or(u32::MAX);
        wanted.saturating_sub(others)
    }

    /// Has as many processes as are wanted.
    pub(super) fn scale(&mut self) {
        if self.has_work() && !self.draining && !self.settling {
            let wanted = self.wanted_launches();
            self.commands.push(Command::Scale(wanted));
        }
    }

    /// A worker has nothing to do any more.
    pub(super) fn free(&mut self, worker: WorkerId) {
        match self.workers.get(&worker) {
            Some(entry) if entry.leaving => self.dismiss(worker),
            Some(_) => {
                self.idle.insert(worker);
            }
            None => {}
        }
    }

    pub(super) fn left(&mut self, worker: WorkerId) {
        // One that was retired has been taken care of.
        if !self.workers.contains_key(&worker) {
            return;
        }
        let launch = self.workers[&worker].inventory.launch.as_ref();
        let was_let_go = launch.is_some_and(|l| self.launches.get(l) == Some(&Launched::LetGo));
        if !was_let_go {
            self.publish(Entry::Left { worker });
        }
        let generation = self.retire(worker, RetireReason::Left);
        if let Some(generation) = generation {
            if self.rejoining.contains_key(&generation) {
                self.give_up_rejoining(generation);
            }
            self.trouble(worker, generation, Trouble::Lost);
        }
    }

    /// Takes a worker out of the pool. Returns its generation, which has to be told.
    pub(super) fn retire(&mut self, worker: WorkerId, reason: RetireReason) -> Option<Generation> {
        let entry = self.workers.remove(&worker)?;
        self.timers.clear(&Timer::LetGo(worker));
        self.leaving -= usize::from(entry.leaving);
        self.idle.remove(&worker);
        // Its process may be back as another worker before the end of its old stream is noticed.
        let is_back = |launch: &LaunchId| match self.launches.get(launch) {
            Some(Launched::Joined(last)) => *last != worker,
            _ => false,
        };
        let launch = entry.inventory.launch.filter(|launch| !is_back(launch));
        if reason != RetireReason::Left {
            self.publish(Entry::Retired {
                worker: Some(worker),
                launch: launch.clone(),
                reason,
            });
        }
        // Who was asked to go, and went, is trusted to end.
        let ending = match reason {
            RetireReason::Left if entry.leaving => Ending::Asked,
            _ => Ending::Forced,
        };
        self.commands.push(Command::Retire {
            worker: Some(worker),
            launch,
            reason,
            ending,
        });
        if !entry.is_ours {
            // No launcher will say that its process ended.
            self.scale();
        }
        entry.generation
    }

    pub(super) fn launcher(&mut self, event: LaunchEvent) {
        match event {
            LaunchEvent::Started { launch } => {
                self.take_over_launch(&launch);
                // It may have been quick to join.
                let since = Launched::Since(self.now);
                if matches!(
                    self.launches.entry(launch.clone()).or_insert(since),
                    Launched::Since(_)
                ) {
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
                let known = self.launches.remove(&launch);
                if known != Some(Launched::LetGo) {
                    self.publish(Entry::ProcessEnded {
                        launch,
                        status,
                        log_tail: log_tail.clone(),
                    });
                }
                let failed = match known {
                    // What was started before the last failure came out fails for the same reason: a node that
                    // broke takes all along that was to start there.
                    Some(Launched::Since(started)) => {
                        self.failed_spawn.is_none_or(|failed| started >= failed)
                    }
                    Some(Launched::Joined(_) | Launched::LetGo) => false,
                    None => true,
                };
                if !failed || !self.too_many_failed_spawns(log_tail) {
                    self.scale();
                }
            }
            LaunchEvent::Failed { message } => {
                self.publish(Entry::SpawnFailed {
                    message: message.clone(),
                });
                // Until it is tried again, it is the same failure.
                let is_same = self.timers.is_set(&Timer::Scaling);
                if !is_same && !self.too_many_failed_spawns(message) {
                    let wait = Duration::from_secs(1 << self.failed_spawns.min(6));
                    self.timers.set(Timer::Scaling, self.now.after(wait));
                }
            }
        }
    }

    /// A worker that joined before this launcher spoke of its process is its own from now on.
    fn take_over_launch(&mut self, launch: &LaunchId) {
        let mut workers = self.workers.iter_mut();
        if let Some((worker, back)) =
            workers.find(|(_, w)| w.inventory.launch.as_ref() == Some(launch))
        {
            back.is_ours = true;
            self.launches
                .insert(launch.clone(), Launched::Joined(*worker));
            // It was counted as one that takes the place of a process.
            self.scale();
        }
    }

    fn too_many_failed_spawns(&mut self, last: String) -> bool {
        self.failed_spawns += 1;
        self.failed_spawn = Some(self.now);
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
            ending: Ending::Forced,
        });
    }
}
