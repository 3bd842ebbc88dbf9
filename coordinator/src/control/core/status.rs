//! How far everything is, for people.

use super::{
    Moment, Verdict,
    state::{Core, Standing, Trial},
};
use crate::calendar::duration;
use polestar_core::{Generation, Step, TrialId, WorkerId};
use polestar_run::{Cause, failure::Stage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, ops::AddAssign, time::Duration};

/// A look at a pool and its trials.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// When.
    pub at: Moment,
    /// Workers in the pool.
    pub workers: usize,
    /// Workers that train nothing.
    pub idle: usize,
    /// Facts on their way to the store.
    pub unsaved: usize,
    /// Whether it was asked to end as soon as nothing is lost by it.
    pub draining: bool,
    /// What warm workers saved.
    pub warmth: Warmth,
    /// How long all that is left takes at least with these workers; `None` before anything was measured.
    pub left: Option<Duration>,
    /// The trials, in the order of the plan.
    pub trials: Vec<TrialStatus>,
}

/// What it is worth that workers stay between generations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Warmth {
    /// Ranks of all generations so far.
    pub ranks: u32,
    /// Processes that were started and joined.
    pub boots: u32,
    /// How long those took to join, all together.
    pub booting: Duration,
}

impl AddAssign for Warmth {
    fn add_assign(&mut self, other: Warmth) {
        self.ranks += other.ranks;
        self.boots += other.boots;
        self.booting += other.booting;
    }
}

impl fmt::Display for Warmth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Warmth {
            ranks,
            boots,
            booting,
        } = *self;
        let each = booting.as_secs_f64() / f64::from(boots.max(1));
        let saved = each * f64::from(ranks.saturating_sub(boots));
        write!(
            f,
            "{ranks} ranks in {boots} processes, which took {each:.2} s each to start: warm workers saved {saved:.1} s"
        )
    }
}

/// A trial and how far it is. Displayed, it is a sentence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrialStatus {
    /// Which.
    pub trial: TrialId,
    /// How far.
    pub state: TrialState,
    /// How long it will keep its workers; `None` before anything was measured, and when it is over.
    pub left: Option<Duration>,
}

/// How far a trial is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TrialState {
    /// Another one must be done first.
    WaitsForStart {
        /// Which.
        trial: TrialId,
    },
    /// There are not enough free workers.
    WaitsForWorkers {
        /// Workers it needs.
        needs: u32,
        /// Workers that are free.
        idle: usize,
        /// Workers there are.
        workers: usize,
        /// Whether those that get free are kept for it.
        next: bool,
    },
    /// It has its workers.
    Running {
        /// They.
        generation: Generation,
        /// The workers themselves, by rank.
        members: Vec<WorkerId>,
        /// How far they are.
        stage: Stage,
        /// Steps done.
        step: Step,
        /// All steps.
        steps: u64,
        /// Steps a second, validation and saving included, once they were measured.
        pace: Option<f64>,
    },
    /// It is trained; its result is not stored yet.
    Saving,
    /// It has its result.
    Done,
    /// It is not tried again.
    Abandoned {
        /// Why.
        cause: Cause,
    },
}

impl fmt::Display for TrialStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.trial)?;
        match &self.state {
            TrialState::WaitsForStart { trial } => {
                write!(f, "waits: {trial} must be done first")?;
            }
            TrialState::WaitsForWorkers {
                needs,
                idle,
                workers,
                next,
            } => {
                write!(
                    f,
                    "waits: it needs {needs} free workers; {idle} of {workers} are free"
                )?;
                if *next {
                    f.write_str(", and those that get free are kept for it")?;
                }
            }
            TrialState::Running {
                generation,
                stage: Stage::Running,
                step,
                steps,
                pace,
                members: _,
            } => {
                write!(f, "is at step {} of {steps} ({generation})", step.0)?;
                if let Some(pace) = pace {
                    write!(f, ", {pace:.3} steps/s")?;
                }
            }
            TrialState::Running {
                generation, stage, ..
            } => write!(f, "is {stage} ({generation})")?,
            TrialState::Saving => f.write_str("is trained; its result is being stored")?,
            TrialState::Done => f.write_str("is done")?,
            TrialState::Abandoned { cause } => write!(f, "is abandoned: {cause}")?,
        }
        let Some(left) = self.left.map(|left| duration(left.as_secs_f64())) else {
            return Ok(());
        };
        match self.state {
            TrialState::Running { .. } => write!(f, ", about {left} left"),
            _ => write!(f, "; it takes about {left}"),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |wanted: fn(&TrialState) -> bool| {
            self.trials.iter().filter(|t| wanted(&t.state)).count()
        };
        let running = count(|s| matches!(s, TrialState::Running { .. } | TrialState::Saving));
        let waiting = count(|s| {
            use TrialState as T;
            matches!(s, T::WaitsForStart { .. } | T::WaitsForWorkers { .. })
        });
        write!(
            f,
            "{} trials done, {running} running, {waiting} waiting, {} abandoned; {} of {} workers free",
            count(|s| matches!(s, TrialState::Done)),
            count(|s| matches!(s, TrialState::Abandoned { .. })),
            self.idle,
            self.workers
        )?;
        if let Some(left) = self.left {
            write!(f, "; at least {} left", duration(left.as_secs_f64()))?;
        }
        for trial in &self.trials {
            if trial.state != TrialState::Done {
                write!(f, "\n  {trial}")?;
            }
        }
        Ok(())
    }
}

impl Core {
    /// How far everything is.
    pub fn status(&self) -> Status {
        let trials = self.trials.iter().map(|trial| TrialStatus {
            trial: trial.job.trial.clone(),
            state: self.state_of(trial),
            left: self.time_left(trial),
        });
        Status {
            at: self.now,
            workers: self.workers.len(),
            idle: self.idle.len(),
            unsaved: self.pending.len(),
            draining: self.draining,
            warmth: self.warmth,
            left: self.all_time_left(),
            trials: trials.collect(),
        }
    }

    /// What warm workers saved so far.
    pub fn warmth(&self) -> Warmth {
        self.warmth
    }

    /// The index of a trial.
    pub(super) fn index_of(&self, trial: &TrialId) -> Option<usize> {
        self.names.get(trial).copied()
    }

    fn state_of(&self, trial: &Trial) -> TrialState {
        match &trial.standing {
            Standing::Waiting => self.why_waiting(trial),
            Standing::Running(generation) => TrialState::Running {
                generation: *generation,
                members: self.members_of(*generation),
                stage: self.stage_of(*generation),
                step: trial.step,
                steps: trial.job.work.steps.end,
                pace: self
                    .groups
                    .get(generation)
                    .and_then(|group| self.steps_per_second(group)),
            },
            Standing::Saving => TrialState::Saving,
            Standing::Done => TrialState::Done,
            Standing::Abandoned(cause) => TrialState::Abandoned {
                cause: cause.clone(),
            },
        }
    }

    /// The workers of a generation, by rank.
    fn members_of(&self, generation: Generation) -> Vec<WorkerId> {
        let members = self.groups.get(&generation).into_iter();
        let members = members.flat_map(|group| group.members());
        members.map(|member| member.worker).collect()
    }

    /// The stage of a generation that a trial runs in.
    fn stage_of(&self, generation: Generation) -> Stage {
        let group = self.groups.get(&generation);
        // Not all of its ranks are back yet.
        group.map_or(Stage::Rejoining, |group| group.stage)
    }

    fn why_waiting(&self, trial: &Trial) -> TrialState {
        if let Some(after) = trial.after
            && self.trials[after].standing != Standing::Done
        {
            return TrialState::WaitsForStart {
                trial: self.trials[after].job.trial.clone(),
            };
        }
        let patience = Duration::from_secs(self.options.deadlines.overtaking_seconds);
        let overtaken = trial.overtaken.map(|since| self.now.since(since));
        TrialState::WaitsForWorkers {
            needs: trial.job.world,
            idle: self.idle.len(),
            workers: self.workers.len(),
            next: overtaken.is_some_and(|time| time >= patience),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Complete => f.write_str("every trial is done or abandoned"),
            Verdict::Stopped => f.write_str("it was asked to stop"),
            Verdict::Fenced { leader } => write!(f, "another coordinator leads the run: {leader}"),
            Verdict::NoWorkers { failed, last } => write!(
                f,
                "{failed} times in a row worker processes ended before they joined; the last said:\n{last}"
            ),
        }
    }
}
