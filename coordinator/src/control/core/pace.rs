//! How long trials take: predicted from what they cost, and corrected by what was measured.
//!
//! What is measured is how much of its cost a generation has done, and the time since it told so before. Trials of one
//! kind go at one pace on as many workers; of another number of workers, or of another kind, the nearest that is known
//! is taken.

use super::{
    Moment,
    group::Group,
    state::{Core, Standing, Trial},
};
use polestar_core::{Generation, Step};
use std::{collections::BTreeMap, ops::Range, time::Duration};

/// What a trial has to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Trials of one kind go at one pace, such as those of one size.
    pub kind: String,
    /// What a step costs, in any unit that is the same for all.
    pub of_step: f64,
    /// The steps that are its own: its trunk does those before.
    pub steps: Range<u64>,
}

impl Work {
    /// What all of it costs.
    pub fn cost(&self) -> f64 {
        self.left_after(Step(0))
    }

    /// What is left when so many steps are done.
    fn left_after(&self, done: Step) -> f64 {
        let from = done.0.max(self.steps.start);
        self.of_step * self.steps.end.saturating_sub(from) as f64
    }
}

/// Less than this is no measurement.
const SHORTEST: Duration = Duration::from_secs(1);
/// A pace that differs from what the order of trials rests on by less than this factor changes no order.
const NOTABLE: f64 = 1.25;

/// A sum of what was done, and the time that it took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Measured {
    cost: f64,
    time: Duration,
}

impl Measured {
    fn add(&mut self, cost: f64, time: Duration) {
        self.cost += cost;
        self.time += time;
    }

    /// Cost a second.
    fn pace(self) -> Option<f64> {
        let known = self.time >= SHORTEST && self.cost > 0.0;
        known.then(|| self.cost / self.time.as_secs_f64())
    }
}

/// How far a generation is and since when, from its first report on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    began: (Moment, Step),
    last: (Moment, Step),
}

impl Course {
    fn new(at: Moment, step: Step) -> Course {
        Course {
            began: (at, step),
            last: (at, step),
        }
    }

    /// Steps a second since the beginning.
    fn steps_per_second(&self) -> Option<f64> {
        let time = self.last.0.since(self.began.0);
        let steps = self.last.1.0.saturating_sub(self.began.1.0);
        let known = time >= SHORTEST && steps > 0;
        known.then(|| steps as f64 / time.as_secs_f64())
    }
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Paces {
    /// By kind and number of workers: the sum, and the pace that the order of trials rests on.
    measured: BTreeMap<String, BTreeMap<u32, (Measured, Option<f64>)>>,
}

impl Paces {
    /// Adds a measurement. Whether the order of trials may be another one by that.
    fn add(&mut self, kind: &str, world: u32, cost: f64, time: Duration) -> bool {
        if !self.measured.contains_key(kind) {
            self.measured.insert(kind.to_owned(), BTreeMap::new());
        }
        let worlds = self
            .measured
            .get_mut(kind)
            .expect("it has just been put there");
        let (measured, ordered) = worlds.entry(world).or_default();
        measured.add(cost, time);
        let Some(pace) = measured.pace() else {
            return false;
        };
        let factor = ordered.map_or(f64::INFINITY, |before| (pace / before).max(before / pace));
        let is_news = factor >= NOTABLE;
        if is_news {
            *ordered = Some(pace);
        }
        is_news
    }

    /// Cost a second of so many workers on a trial of a kind; `None` before anything was measured.
    fn of(&self, kind: &str, world: u32) -> Option<f64> {
        let of_world = |(&measured_with, (measured, _)): (&u32, &(Measured, _))| {
            let pace = measured.pace()?;
            // Twice the workers are taken to be twice as fast.
            Some((
                measured_with.abs_diff(world),
                pace * f64::from(world) / f64::from(measured_with),
            ))
        };
        let of_kind = self
            .measured
            .get(kind)
            .into_iter()
            .flatten()
            .filter_map(of_world);
        if let Some((_, pace)) = of_kind.min_by_key(|(distance, _)| *distance) {
            return Some(pace);
        }
        let all = self
            .measured
            .values()
            .flatten()
            .map(|(&with, (measured, _))| (with, measured));
        let (cost, time) = all.fold((0.0, 0.0), |(cost, time), (with, measured)| {
            let workers = f64::from(with) * measured.time.as_secs_f64();
            (cost + measured.cost, time + workers)
        });
        (cost > 0.0 && time > 0.0).then(|| cost / time * f64::from(world))
    }
}

impl Core {
    /// A generation's engine tells how far it is.
    pub(super) fn note_pace(&mut self, generation: Generation, step: Step) {
        let Some(group) = self.groups.get_mut(&generation) else {
            return;
        };
        let course = group
            .course
            .get_or_insert_with(|| Course::new(self.now, step));
        // What doesn't come further, such as a validation, belongs to the next step.
        let Some(steps) = step
            .0
            .checked_sub(course.last.1.0)
            .filter(|&steps| steps > 0)
        else {
            return;
        };
        let time = self.now.since(course.last.0);
        course.last = (self.now, step);
        let (index, world) = (group.trial, group.world());
        let work = &self.trials[index].job.work;
        let cost = work.of_step * steps as f64;
        if self.paces.add(&work.kind, world, cost, time) {
            self.order();
        }
    }

    /// A generation has finished: what it did after its last report belongs to its pace, too.
    pub(super) fn note_end(&mut self, group: &Group) {
        let Some(course) = group.course else {
            return;
        };
        let work = &self.trials[group.trial].job.work;
        let time = self.now.since(course.last.0);
        if self.paces.add(&work.kind, group.world(), 0.0, time) {
            self.order();
        }
    }

    /// Puts the trials in order: what keeps workers longest goes first.
    pub(super) fn order(&mut self) {
        let weight = |trial: &Trial| {
            let (work, world) = (&trial.job.work, trial.job.world);
            let pace = self.paces.of(&work.kind, world);
            work.cost() * f64::from(world) / pace.unwrap_or_else(|| f64::from(world))
        };
        let mut order: Vec<(f64, usize)> = self.trials.iter().map(weight).zip(0..).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for (place, (_, index)) in order.into_iter().enumerate() {
            self.trials[index].place = place;
        }
        let ready = std::mem::take(&mut self.ready);
        self.ready = ready
            .into_values()
            .map(|index| (self.trials[index].place, index))
            .collect();
    }

    /// Steps a second of a generation, as far as it was measured.
    pub(super) fn steps_per_second(&self, group: &Group) -> Option<f64> {
        group.course?.steps_per_second()
    }

    /// Workers that a trial has, or would have if it began now.
    fn likely_world(&self, trial: &Trial) -> u32 {
        if let Standing::Running(generation) = &trial.standing
            && let Some(group) = self.groups.get(generation)
        {
            return group.world();
        }
        let job = &trial.job;
        let pool = u32::try_from(self.workers.len()).unwrap_or(u32::MAX);
        let part = match job.shares {
            true => pool / u32::try_from(self.ready.len()).unwrap_or(u32::MAX).max(1),
            false => pool,
        };
        part.clamp(job.least_world.min(job.world), job.world)
    }

    /// How long a trial that isn't done will keep its workers; `None` before anything was measured.
    pub(super) fn time_left(&self, trial: &Trial) -> Option<Duration> {
        let work = &trial.job.work;
        let left = work.left_after(trial.step);
        let own = match &trial.standing {
            Standing::Running(generation) => self.groups.get(generation),
            Standing::Waiting => None,
            Standing::Saving | Standing::Done | Standing::Abandoned(_) => return None,
        };
        let own = own.and_then(|group| self.steps_per_second(group));
        let pace = own.map(|steps| steps * work.of_step);
        let pace = pace.or_else(|| self.paces.of(&work.kind, self.likely_world(trial)))?;
        Duration::try_from_secs_f64(left / pace).ok()
    }

    /// How long all that is left takes at least, with the workers that there are: as long as the work of all, shared
    /// evenly, and as long as the longest row of trials that start from each other.
    pub(super) fn all_time_left(&self) -> Option<Duration> {
        let workers = self.workers.len().saturating_sub(self.leaving).max(1);
        let mut all = Duration::ZERO;
        let mut longest = Duration::ZERO;
        let mut until = vec![Duration::ZERO; self.trials.len()];
        for &index in &self.starts_first {
            let trial = &self.trials[index];
            let before = trial.after.map_or(Duration::ZERO, |after| until[after]);
            let left = match &trial.standing {
                Standing::Waiting | Standing::Running(_) => self.time_left(trial)?,
                _ => Duration::ZERO,
            };
            all = all.saturating_add(left.saturating_mul(self.likely_world(trial)));
            until[index] = before.saturating_add(left);
            longest = longest.max(until[index]);
        }
        let shared = all / u32::try_from(workers).unwrap_or(u32::MAX);
        (!longest.is_zero()).then(|| shared.max(longest))
    }
}
