//! The pool as SLURM has it: a pure account of which tasks wait and which run, from one look at the queue to the next.
//!
//! ```text
//!             ┌───────────── requeued: this start has ended, the next one waits ─────────────┐
//!             ▼                                                                              │
//!  submitted ─▶ waiting ──▶ running (Started) ──▶ between ──▶ over (Ended) ──▶ forgotten     │
//!                 │              └──────────────────────────────────────────────────────────▶┘
//!                 └─ cancelled by somebody: told as a whole, it never was a worker
//! ```
//! A task is one place for workers. Each start of it is workers of its own, whose names end with the number of times
//! that it was put back into the queue.

use super::{
    super::LaunchId,
    state::{Phase, Row, TaskId},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long a worker that is let go may take to end by itself, and SLURM to notice that its job is over. Cancelling
/// at once would keep a job that is preempted from being put back into the queue.
pub(super) const RETIRE_PATIENCE: Duration = Duration::from_secs(20);
/// Looks at the queue that a task may be missing from before it is taken for gone.
const MISSING: u32 = 2;

/// One start of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Start {
    pub(super) task: TaskId,
    /// How often the task had been put back into the queue before.
    pub(super) restarts: u32,
}

impl Start {
    /// The name of one of its workers. The batch script gives itself the same ([`render`](super::render)).
    pub(super) fn launch(self, process: u32) -> LaunchId {
        LaunchId(format!("slurm-{}.{}.{process}", self.task, self.restarts))
    }

    /// The start that a worker belongs to, by its name.
    pub(super) fn of(launch: &LaunchId) -> Option<Start> {
        let mut parts = launch.0.strip_prefix("slurm-")?.split('.');
        let (job, task) = parts.next()?.split_once('_')?;
        let restarts = parts.next()?.parse().ok()?;
        let process: Option<u32> = parts.next()?.parse().ok();
        process.filter(|_| parts.next().is_none())?;
        Some(Start {
            task: TaskId {
                job: job.parse().ok()?,
                task: Some(task.parse().ok()?),
            },
            restarts,
        })
    }
}

/// What became of tasks between two looks at the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// Its processes run.
    Started(Start),
    /// Its processes ended, with what SLURM says of it.
    Ended(Start, String),
    /// Tasks were cancelled, or could not be started, before they ran.
    NeverRan(Vec<TaskId>, String),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Submit so many tasks.
    Submit(u32),
    /// Take tasks that wait out of the queue.
    Withdraw(Vec<TaskId>),
    /// End tasks that run.
    End(Vec<TaskId>),
}

#[derive(Clone, Debug)]
struct Task {
    /// What runs, if something does: told as [`Happened::Started`].
    running: Option<Start>,
    phase: Phase,
    /// Its start is to end, since then.
    retired: Option<Duration>,
    /// Looks at the queue that it was missing from.
    missing: u32,
    /// It was withdrawn by us.
    withdrawn: bool,
    /// Its last start ran, however briefly.
    has_run: bool,
}

/// The tasks of a pool.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    /// Workers to have; none before somebody has said.
    wanted: Option<u32>,
    /// Workers of one task.
    each: u32,
    tasks: BTreeMap<TaskId, Task>,
}

impl Pool {
    /// One without tasks, each to be of so many workers.
    pub(super) fn new(each: u32) -> Pool {
        Pool {
            wanted: None,
            each: each.max(1),
            tasks: BTreeMap::new(),
        }
    }

    /// Workers of one task.
    pub(super) fn each(&self) -> u32 {
        self.each
    }

    /// Has so many workers from now on.
    pub(super) fn scale(&mut self, workers: u32) {
        self.wanted = Some(workers);
    }

    /// Has a start's processes end, if it is still that start that runs.
    pub(super) fn retire(&mut self, start: Start, now: Duration) {
        if let Some(task) = self.tasks.get_mut(&start.task)
            && task.running == Some(start)
        {
            task.retired.get_or_insert(now);
        }
    }

    /// Takes note of an array that was submitted.
    pub(super) fn submitted(&mut self, job: u64, tasks: u32) {
        for task in 0..tasks {
            let id = TaskId {
                job,
                task: Some(task),
            };
            self.tasks
                .entry(id)
                .or_insert_with(|| Task::new(Phase::Waiting));
        }
    }

    /// Whether anything waits or runs.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// What runs.
    pub(super) fn running(&self) -> Vec<TaskId> {
        let running = self.tasks.iter().filter(|(_, task)| task.running.is_some());
        running.map(|(&id, _)| id).collect()
    }

    /// Takes a look at the queue in: tasks that are new to it are taken over, whoever submitted them.
    pub(super) fn observe(&mut self, rows: &[Row]) -> Vec<Happened> {
        let mut happened = Vec::new();
        let mut never_ran: BTreeMap<String, Vec<TaskId>> = BTreeMap::new();
        let rows = self.by_task(rows);
        for row in &rows {
            let phase = row.state.phase();
            if phase == Phase::Over && !self.tasks.contains_key(&row.id) {
                // Of an earlier launch, or told of already.
                continue;
            }
            let task = self.tasks.entry(row.id).or_insert_with(|| Task::new(phase));
            happened.extend(task.observe(row));
            if phase == Phase::Over {
                if !task.has_run && !task.withdrawn {
                    never_ran.entry(row.outcome()).or_default().push(row.id);
                }
                self.tasks.remove(&row.id);
            }
        }
        happened.extend(
            never_ran
                .into_iter()
                .map(|(outcome, tasks)| Happened::NeverRan(tasks, outcome)),
        );
        let listed: BTreeSet<TaskId> = rows.iter().map(|row| row.id).collect();
        for (id, task) in &mut self.tasks {
            match listed.contains(id) {
                true => task.missing = 0,
                false => task.missing += 1,
            }
        }
        happened
    }

    /// A row for each task. An array that was cancelled before any of it ran is one row without a task.
    fn by_task(&self, rows: &[Row]) -> Vec<Row> {
        let (arrays, mut tasks): (Vec<Row>, Vec<Row>) =
            rows.iter().cloned().partition(|row| row.id.task.is_none());
        let listed: BTreeSet<TaskId> = tasks.iter().map(|row| row.id).collect();
        for array in arrays {
            let of_array = self.tasks.keys().filter(|id| id.job == array.id.job);
            let unlisted = of_array.filter(|id| !listed.contains(id));
            tasks.extend(unlisted.map(|&id| Row {
                id,
                ..array.clone()
            }));
        }
        tasks
    }

    /// Tasks that the queue has forgotten.
    pub(super) fn forgotten(&self) -> BTreeSet<TaskId> {
        let missing = self
            .tasks
            .iter()
            .filter(|(_, task)| task.missing >= MISSING);
        missing.map(|(&id, _)| id).collect()
    }

    /// Lets go of a task that the queue has forgotten, with what the accounts know of it: all of its starts.
    pub(super) fn forget(&mut self, id: TaskId, accounts: &[Row]) -> Vec<Happened> {
        let Some(task) = self.tasks.remove(&id) else {
            return Vec::new();
        };
        let of_task = || accounts.iter().filter(|row| row.id == id);
        match task.running {
            Some(start) => {
                let row = of_task().find(|row| row.restarts == start.restarts);
                let outcome = row.map_or_else(unknown, Row::outcome);
                vec![Happened::Ended(start, outcome)]
            }
            None if task.withdrawn => Vec::new(),
            None => {
                let outcome = of_task().next_back().map_or_else(unknown, Row::outcome);
                vec![Happened::NeverRan(vec![id], outcome)]
            }
        }
    }

    /// What there is to do now, withdrawals before submissions.
    pub(super) fn plan(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        let due: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|(_, task)| {
                let over = |since: Duration| now.saturating_sub(since) >= RETIRE_PATIENCE;
                task.phase == Phase::Running && task.retired.is_some_and(over)
            })
            .map(|(&id, _)| id)
            .collect();
        for id in &due {
            // Asked again after as long again, if it is still there then.
            if let Some(task) = self.tasks.get_mut(id) {
                task.retired = Some(now);
            }
        }
        if !due.is_empty() {
            actions.push(Action::End(due));
        }
        let Some(wanted) = self.wanted.map(|workers| workers.div_ceil(self.each)) else {
            // What an earlier coordinator left may be wanted.
            return actions;
        };
        let there = self.tasks.values().filter(|task| task.counts()).count() as u32;
        if there < wanted {
            actions.push(Action::Submit(wanted - there));
        } else if there > wanted {
            let withdrawn = self.withdraw((there - wanted) as usize);
            if !withdrawn.is_empty() {
                actions.push(Action::Withdraw(withdrawn));
            }
        }
        actions
    }

    /// Chooses tasks that wait, the youngest first.
    fn withdraw(&mut self, most: usize) -> Vec<TaskId> {
        let waiting = self
            .tasks
            .iter_mut()
            .rev()
            .filter(|(_, task)| task.phase == Phase::Waiting && task.counts());
        waiting
            .take(most)
            .map(|(&id, task)| {
                task.withdrawn = true;
                id
            })
            .collect()
    }
}

impl Task {
    fn new(phase: Phase) -> Task {
        Task {
            running: None,
            phase,
            retired: None,
            missing: 0,
            withdrawn: false,
            has_run: false,
        }
    }

    /// Whether workers are to be had from it.
    fn counts(&self) -> bool {
        !self.withdrawn && self.retired.is_none()
    }

    /// Takes its row in: an end of the start before comes before a start.
    fn observe(&mut self, row: &Row) -> Vec<Happened> {
        let mut happened = Vec::new();
        let start = Start {
            task: row.id,
            restarts: row.restarts,
        };
        self.phase = row.state.phase();
        let goes_on =
            self.running == Some(start) && matches!(self.phase, Phase::Running | Phase::Between);
        let is_over = self.phase == Phase::Over;
        // One that has had nodes ran between two looks.
        let was_quick = is_over && self.running.is_none() && !row.nodes.is_empty();
        self.has_run = self.running.is_some() || was_quick;
        if was_quick {
            happened.push(Happened::Started(start));
            self.running = Some(start);
        }
        if let Some(before) = self.running
            && !goes_on
        {
            let outcome = match before == start && is_over {
                true => row.outcome(),
                false => format!("put back into the queue, {} ({})", row.state.0, row.reason),
            };
            happened.push(Happened::Ended(before, outcome));
            self.running = None;
            self.retired = None;
        }
        if self.phase == Phase::Running && self.running.is_none() {
            // One that was withdrawn has been quicker.
            self.withdrawn = false;
            self.running = Some(start);
            happened.push(Happened::Started(start));
        }
        happened
    }
}

fn unknown() -> String {
    "SLURM doesn't know its end any more".to_owned()
}

#[cfg(test)]
mod tests;
