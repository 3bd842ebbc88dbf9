//! Which waiting trial gets which workers.
//!
//! The trial that keeps workers longest goes first, by what it costs and how fast such trials were so far. One that needs more workers than are free is overtaken by smaller ones, so
//! that no worker idles; but only for so long: then it is next, and what gets free is kept for it. One that needs more
//! than the whole pool has begins with fewer, after a while in which more might have come.

use super::{
    Command, Job, Order,
    group::Group,
    state::{Core, Standing},
    timers::Timer,
};
use polestar_core::{Generation, Rank, WorkerId};
use polestar_run::failure::{Member, Stage};
use std::{collections::BTreeSet, time::Duration};

impl Core {
    /// Groups idle workers around waiting trials.
    pub(super) fn schedule(&mut self) {
        if self.verdict().is_some() || self.lease.paused || self.settling || self.draining {
            return;
        }
        let patience = Duration::from_secs(self.options.deadlines.overtaking_seconds);
        let mut waiting: Vec<usize> = Vec::new();
        let mut from = 0;
        while !self.idle.is_empty()
            && let Some((&place, &index)) = self.ready.range(from..).next()
        {
            from = place + 1;
            let world = self.world_of(index);
            if self.idle.len() >= world {
                for &larger in &waiting {
                    self.trials[larger].overtaken.get_or_insert(self.now);
                }
                self.form(index, world);
                continue;
            }
            let overtaken = self.trials[index].overtaken;
            if overtaken.is_some_and(|since| self.now.since(since) >= patience) {
                return;
            }
            waiting.push(index);
        }
    }

    /// Workers that a trial begins with now: as many as it wants, or all that there are, when the pool has been
    /// smaller for long enough.
    fn world_of(&mut self, index: usize) -> usize {
        let Job {
            world,
            least_world,
            shares,
            ..
        } = self.trials[index].job;
        if shares {
            // Those before it have taken theirs.
            let others = self.ready.len().max(1);
            let part = u32::try_from(self.idle.len() / others).unwrap_or(u32::MAX);
            return part.clamp(least_world.min(world), world) as usize;
        }
        let pool = self.workers.len() - self.leaving;
        if pool >= world as usize {
            self.short_since = None;
            return world as usize;
        }
        let limit = Duration::from_secs(self.options.deadlines.shrinking_seconds);
        let since = *self.short_since.get_or_insert(self.now);
        if self.now.since(since) < limit {
            self.timers.set(Timer::Shrinking, since.after(limit));
            return world as usize;
        }
        pool.max(least_world as usize)
    }

    /// Has a trial that began with fewer workers than it wants regrouped, once there are more that nobody else needs.
    pub(super) fn grow(&mut self) {
        let is_calm = self.verdict().is_none() && !self.lease.paused && !self.draining;
        let spare = is_calm && !self.idle.is_empty() && self.ready.is_empty();
        let is_small = |group: &Group| {
            let members = group.members().count();
            group.stage == Stage::Running && members < self.trials[group.trial].job.world as usize
        };
        let mut small = self.groups.iter().filter(|_| spare);
        let Some((&generation, _)) = small.find(|(_, group)| is_small(group)) else {
            self.spare_since = None;
            return;
        };
        let limit = Duration::from_secs(self.options.deadlines.growing_seconds);
        let since = *self.spare_since.get_or_insert(self.now);
        match self.now.since(since) >= limit {
            true => self.drain_generation(generation),
            false => self.timers.set(Timer::Growing, since.after(limit)),
        }
    }

    /// Idle workers for a trial: first those that trained it last, which may have its state in memory.
    fn choose(&mut self, index: usize, world: usize) -> Vec<WorkerId> {
        let survivors = std::mem::take(&mut self.trials[index].survivors);
        let back = survivors.iter().filter(|worker| self.idle.contains(worker));
        let mut chosen: Vec<WorkerId> = back.copied().take(world).collect();
        let survivors: BTreeSet<WorkerId> = survivors.into_iter().collect();
        let others = self
            .idle
            .iter()
            .filter(|worker| !survivors.contains(worker));
        let missing = world - chosen.len();
        chosen.extend(others.take(missing));
        chosen
    }

    /// Makes a generation of idle workers.
    fn form(&mut self, index: usize, world: usize) {
        let generation = Generation {
            epoch: self.options.epoch,
            number: self.next_generation,
        };
        self.next_generation += 1;
        let chosen = self.choose(index, world);
        let mut members = Vec::with_capacity(world);
        for (rank, worker) in chosen.into_iter().enumerate() {
            self.idle.remove(&worker);
            let entry = self
                .workers
                .get_mut(&worker)
                .expect("idle workers are in the pool");
            entry.generation = Some(generation);
            members.push(Member {
                rank: Rank(rank as u32),
                worker,
                host: entry.inventory.host.clone(),
                pid: entry.inventory.pid,
            });
            let order = Order::Prepare { generation };
            self.commands.push(Command::Send(worker, order));
        }
        self.warmth.ranks += world as u32;
        self.trials[index].overtaken = None;
        self.stand(index, Standing::Running(generation));
        self.groups.insert(generation, Group::new(index, members));
        let limit = self.options.deadlines.of_stage(Stage::Preparing);
        self.timers
            .set(Timer::Generation(generation), self.now.after(limit));
    }
}
