//! What is known of a run right now: a fold of its event journal over what its store had when the page began.
//! Pure; what brings news is in [`live`](super::live) and [`stored`](super::stored).

use super::{
    api::{
        CurvePoint, EventPage, EventView, Leadership, PoolView, RunStatus, StepsView, TrialPhase,
        TrialView, WorkerView,
    },
    curves::LiveCurve,
};
use crate::{
    control::{
        Entry,
        core::{Status, TrialState},
    },
    diagnose::{Diagnosis, diagnose},
    run::{EventHistory, Recorded, TrialResult},
};
use polestar_core::{Epoch, Step, TrialId, WorkerId};
use polestar_run::Event;
use std::collections::{BTreeMap, VecDeque};

/// Entries that are kept. Older ones are in the store.
const MOST_ENTRIES: usize = 10_000;
/// Entries that a page begins with.
const PAGE: usize = 500;
/// New points of a curve that are told at a time.
const MOST_POINTS: usize = 8;

/// The picture of a run.
#[derive(Debug)]
pub(super) struct Board {
    status: RunStatus,
    workers: BTreeMap<WorkerId, WorkerView>,
    curves: BTreeMap<TrialId, LiveCurve>,
    /// Steps that weren't told yet.
    news: BTreeMap<TrialId, StepsView>,
    entries: VecDeque<Recorded>,
    /// Entries that were dropped.
    earlier: usize,
    unreadable: Vec<String>,
}

impl Board {
    /// As the store has it.
    pub(super) fn new(status: RunStatus, history: EventHistory) -> Board {
        let mut board = Board {
            status,
            workers: BTreeMap::new(),
            curves: BTreeMap::new(),
            news: BTreeMap::new(),
            entries: VecDeque::new(),
            earlier: 0,
            unreadable: history.unreadable,
        };
        for recorded in history.entries {
            board.keep(recorded);
        }
        board
    }

    pub(super) fn status(&self) -> &RunStatus {
        &self.status
    }

    pub(super) fn set_status(&mut self, status: RunStatus) {
        self.status = status;
    }

    /// Whether nothing more will happen: every trial is done or abandoned, and nobody leads the run.
    pub(super) fn is_over(&self) -> bool {
        let ended =
            |view: &TrialView| matches!(view.phase, TrialPhase::Done | TrialPhase::Abandoned);
        self.status.leadership == Leadership::Nobody && self.status.trials.iter().all(ended)
    }

    /// This process leads the run.
    pub(super) fn lead(&mut self, epoch: Epoch) {
        let ending = false;
        self.status.leadership = Leadership::Here { epoch, ending };
    }

    /// The store is in trouble.
    pub(super) fn trouble(&mut self, sentence: String) {
        self.status.store.trouble = Some(sentence);
    }

    pub(super) fn trial(&self, name: &str) -> Option<&TrialView> {
        self.status.trials.iter().find(|view| view.trial.0 == name)
    }

    pub(super) fn live_curve(&self, trial: &TrialId) -> Option<&LiveCurve> {
        self.curves.get(trial)
    }

    /// The newest entries.
    pub(super) fn events(&self) -> EventPage {
        let skipped = self.entries.len().saturating_sub(PAGE);
        let newest = self.entries.iter().skip(skipped).cloned();
        EventPage {
            entries: newest.map(EventView::from).collect(),
            earlier: self.earlier + skipped,
            unreadable: self.unreadable.clone(),
        }
    }

    /// What went wrong.
    pub(super) fn diagnosis(&self) -> Diagnosis {
        diagnose(&EventHistory {
            entries: self.entries.iter().cloned().collect(),
            unreadable: self.unreadable.clone(),
        })
    }

    /// Entries that are known, dropped ones included.
    pub(super) fn known(&self) -> usize {
        self.earlier + self.entries.len()
    }

    /// Takes an entry in. Single steps only make curves.
    pub(super) fn learn(&mut self, recorded: Recorded) {
        self.fold(&recorded.entry.entry);
        if !recorded.entry.entry.is_superseded() {
            self.keep(recorded);
        }
    }

    fn keep(&mut self, recorded: Recorded) {
        self.entries.push_back(recorded);
        if self.entries.len() > MOST_ENTRIES {
            self.entries.pop_front();
            self.earlier += 1;
        }
    }

    fn fold(&mut self, entry: &Entry) {
        match entry {
            Entry::Progress { trial, event, .. } => self.progress(trial, event),
            Entry::Joined { worker, inventory } => {
                let view = WorkerView {
                    worker: *worker,
                    host: inventory.host.clone(),
                    pid: inventory.pid,
                    machine: inventory.machine.clone(),
                    trial: None,
                    leaving: false,
                };
                self.workers.insert(*worker, view);
            }
            Entry::Leaving { worker } | Entry::LetGo { worker } => {
                if let Some(view) = self.workers.get_mut(worker) {
                    view.leaving = true;
                }
            }
            Entry::Left { worker }
            | Entry::Retired {
                worker: Some(worker),
                ..
            } => {
                self.workers.remove(worker);
            }
            Entry::Done { trial, digest } => {
                if let Some(view) = self.trial_mut(trial) {
                    view.digest = Some(*digest);
                }
            }
            Entry::Paused => self.status.store.paused = true,
            Entry::Resumed => self.status.store.paused = false,
            Entry::NotStored { fact, message, .. } => {
                self.status.store.trouble = Some(format!("{fact} could not be stored: {message}"));
            }
            _ => {}
        }
    }

    fn progress(&mut self, trial: &TrialId, event: &Event) {
        match event {
            Event::Stepped {
                step,
                loss,
                accuracy,
                triplets_per_second,
            } => {
                let point = CurvePoint {
                    step: *step,
                    loss: *loss,
                    accuracy: *accuracy,
                };
                self.curves.entry(trial.clone()).or_default().add(point);
                let news = self.news.entry(trial.clone());
                let news = news.or_insert_with(|| StepsView {
                    trial: trial.clone(),
                    points: Vec::new(),
                    triplets_per_second: 0.0,
                });
                // Those in between are in the curve, for whoever asks for it.
                if news.points.len() == MOST_POINTS {
                    news.points.pop();
                }
                news.points.push(point);
                news.triplets_per_second = *triplets_per_second;
            }
            Event::Saved { step, digest, .. } => {
                if let Some(view) = self.trial_mut(trial) {
                    view.saved = view.saved.max(*step);
                    view.digest = Some(*digest);
                }
            }
            Event::Begun { .. }
            | Event::Validated { .. }
            | Event::Rows { .. }
            | Event::Measured(_)
            | Event::Underway { .. } => {}
        }
    }

    /// What a trial came to.
    pub(super) fn finish(&mut self, result: &TrialResult) {
        if let Some(view) = self.trial_mut(&result.outcome.trial) {
            view.scores = result.outcome.validation.clone();
            view.digest = Some(result.outcome.digest);
            view.saved = Step(view.steps);
        }
    }

    /// Steps since this was last asked.
    pub(super) fn take_steps(&mut self) -> Vec<StepsView> {
        std::mem::take(&mut self.news).into_values().collect()
    }

    fn trial_mut(&mut self, trial: &TrialId) -> Option<&mut TrialView> {
        let mut views = self.status.trials.iter_mut();
        views.find(|view| view.trial == *trial)
    }

    /// Takes in what the control loop says of itself.
    pub(super) fn overlay(&mut self, status: &Status) {
        for worker in self.workers.values_mut() {
            worker.trial = None;
        }
        // Both are in the order of the plan.
        for (view, now) in self.status.trials.iter_mut().zip(&status.trials) {
            let curve = self.curves.get(&view.trial);
            overlay(view, &now.state, curve);
            view.says = says(&now.to_string(), view);
            view.left_seconds = now.left.map(|left| left.as_secs_f64());
            for member in &view.members {
                if let Some(worker) = self.workers.get_mut(member) {
                    worker.trial = Some(view.trial.clone());
                }
            }
        }
        if let Leadership::Here { ending, .. } = &mut self.status.leadership {
            *ending = status.draining;
        }
        self.status.left_seconds = status.left.map(|left| left.as_secs_f64());
        self.status.store.unsaved = status.unsaved;
        if status.unsaved == 0 && !self.status.store.paused {
            self.status.store.trouble = None;
        }
        self.status.pool = Some(PoolView {
            idle: status.idle,
            warmth: status.warmth.to_string(),
            workers: self.workers.values().cloned().collect(),
        });
    }

    /// Nobody leads the run any more.
    pub(super) fn end(&mut self) {
        self.status.leadership = Leadership::Nobody;
        self.status.pool = None;
        for view in &mut self.status.trials {
            view.members.clear();
            if matches!(view.phase, TrialPhase::Running | TrialPhase::Waiting) {
                view.phase = match view.saved {
                    Step(0) => TrialPhase::Missing,
                    _ => TrialPhase::Begun,
                };
                view.says = None;
            }
        }
    }
}

/// A trial's sentence without its name, where it says more than its phase.
fn says(sentence: &str, view: &TrialView) -> Option<String> {
    let after = sentence.strip_prefix(&format!("{} ", view.trial))?;
    (view.phase != TrialPhase::Done).then(|| after.to_owned())
}

fn overlay(view: &mut TrialView, state: &TrialState, curve: Option<&LiveCurve>) {
    view.members = Vec::new();
    view.cause = None;
    view.phase = match state {
        TrialState::WaitsForStart { .. } | TrialState::WaitsForWorkers { .. } => {
            TrialPhase::Waiting
        }
        TrialState::Running {
            members,
            step,
            pace,
            ..
        } => {
            view.members = members.clone();
            view.step = *step;
            view.steps_per_second = pace.or(view.steps_per_second);
            TrialPhase::Running
        }
        TrialState::Saving => TrialPhase::Saving,
        TrialState::Done => {
            view.step = Step(view.steps);
            TrialPhase::Done
        }
        TrialState::Abandoned { cause } => {
            view.cause = Some(cause.clone());
            TrialPhase::Abandoned
        }
    };
    if let Some(last) = curve.and_then(LiveCurve::last) {
        view.loss = Some(last.loss);
    }
}

#[cfg(test)]
mod tests;
