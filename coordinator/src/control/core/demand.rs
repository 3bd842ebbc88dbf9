//! How many workers what is left can use. When trials run out, those are fewer than there are: processes that wait in
//! a queue are withdrawn, and workers that nobody needs any more are let go, while the last trials run.
//!
//! A pool that was made larger than its plan can ever use has spares, which stay to the end.

use super::{
    RetireReason,
    state::{Core, Launched, Standing, Trial},
    timers::Timer,
};
use crate::{control::journal::Entry, launcher::LaunchId};
use polestar_core::WorkerId;
use polestar_run::failure::Stage;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

impl Core {
    /// The most workers that trials can use at one time, now or later, when each uses as many as this says. A trial and
    /// those that start from it never run together.
    fn most_at_once(&self, uses: impl Fn(&Trial) -> u32) -> u32 {
        let mut later = vec![0_u32; self.trials.len()];
        let mut most = 0_u32;
        for &index in self.starts_first.iter().rev() {
            let trial = &self.trials[index];
            let of_it = uses(trial).max(later[index]);
            let sum = match trial.after {
                Some(after) => &mut later[after],
                None => &mut most,
            };
            *sum = sum.saturating_add(of_it);
        }
        most
    }

    /// Workers beyond what the whole plan can use.
    pub(super) fn spares_of_plan(&self) -> u32 {
        let of_plan = self.most_at_once(|trial| trial.job.world);
        self.options.workers.saturating_sub(of_plan)
    }

    /// Workers to have from now on: what is left can't use more.
    pub(super) fn wanted_workers(&mut self) -> u32 {
        if !std::mem::replace(&mut self.demand_is_known, true) {
            let least = self.ready.len() + self.groups.len();
            self.demand = match least >= self.options.workers as usize {
                // Each of them uses one at least.
                true => self.options.workers,
                false => self.most_at_once(|trial| match trial.standing {
                    Standing::Waiting | Standing::Running(_) => trial.job.world,
                    Standing::Saving | Standing::Done | Standing::Abandoned(_) => 0,
                }),
            };
        }
        let wanted = self.demand.saturating_add(self.spares);
        wanted.min(self.options.workers)
    }

    /// Lets go what nothing can use any more.
    pub(super) fn give_back(&mut self) {
        let is_calm = self.verdict().is_none() && !self.lease.paused && !self.draining;
        if !is_calm || self.settling || !self.has_work() {
            return;
        }
        let wanted = self.wanted_workers();
        if self.asked_for.is_some_and(|asked| wanted < asked) {
            self.scale();
        }
        let most = self.workers.len() - self.leaving;
        if most > wanted as usize && !self.idle.is_empty() {
            let surplus = self.processes().saturating_sub(wanted as usize);
            for worker in self.dispensable(surplus) {
                self.let_go(worker);
            }
        }
    }

    /// Processes that stay. One whose stream broke may be back before that is noticed here: then it is two workers.
    fn processes(&self) -> usize {
        let staying = self.workers.values().filter(|entry| !entry.leaving);
        let names = staying.map(|entry| entry.inventory.launch.as_ref());
        let known: BTreeSet<&LaunchId> = names.clone().flatten().collect();
        known.len() + names.filter(Option::is_none).count()
    }

    /// Idle workers of this launcher, at most so many: those that live and end together only all together, and those
    /// that may have a waiting trial's state in memory last.
    fn dispensable(&self, most: usize) -> Vec<WorkerId> {
        let mut units: BTreeMap<&str, BTreeMap<&LaunchId, WorkerId>> = BTreeMap::new();
        let mut doubted = BTreeSet::new();
        for (&worker, entry) in &self.workers {
            let Some(launch) = &entry.inventory.launch else {
                continue;
            };
            let unit = units.entry(launch.unit()).or_default();
            let is_alone = unit.insert(launch, worker).is_none();
            if !is_alone || !self.idle.contains(&worker) || !entry.is_ours {
                doubted.insert(launch.unit());
            }
        }
        let waiting = self
            .trials
            .iter()
            .filter(|trial| trial.standing == Standing::Waiting);
        let remember: BTreeSet<WorkerId> =
            waiting.flat_map(|t| t.survivors.iter().copied()).collect();
        let mut idle: Vec<Vec<WorkerId>> = units
            .into_iter()
            .filter(|(unit, _)| !doubted.contains(unit))
            .map(|(_, workers)| workers.into_values().collect())
            .collect();
        idle.sort_by_key(|unit| unit.iter().any(|worker| remember.contains(worker)));
        let mut chosen = Vec::new();
        for unit in idle {
            if chosen.len() + unit.len() <= most {
                chosen.extend(unit);
            }
        }
        chosen
    }

    fn let_go(&mut self, worker: WorkerId) {
        let entry = self
            .workers
            .get_mut(&worker)
            .expect("idle workers are in the pool");
        entry.leaving = true;
        self.leaving += 1;
        if let Some(launch) = &entry.inventory.launch {
            self.launches.insert(launch.clone(), Launched::LetGo);
        }
        let limit = Duration::from_secs(self.options.deadlines.stopping_seconds);
        self.timers.set(Timer::LetGo(worker), self.now.after(limit));
        self.publish(Entry::LetGo { worker });
        self.dismiss(worker);
    }

    /// A worker that was let go is deaf: its process would count as one that can be used.
    pub(super) fn never_left(&mut self, worker: WorkerId) {
        let (stage, seconds) = (Stage::Stopping, self.options.deadlines.stopping_seconds);
        self.retire(worker, RetireReason::Stuck { stage, seconds });
    }
}
