//! What follows from a step but is no part of it: rows of metrics, progress events, timings.
//!
//! The trainer says what happened, on every rank; each observer makes of it what it is for.

mod reports;

pub(super) use reports::RowReports;

use super::Failure;
use polestar_core::Step;
use polestar_run::{
    Event, Measured, ResumedFrom, SetScore, StepParts, Trial,
    metrics::{self, Row},
};
use polestar_store::{Store, Traffic, traffic};
use std::{
    collections::BTreeMap,
    pin::Pin,
    time::{Duration, Instant},
};

/// Something that happened in training, the same on every rank.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moment<'a> {
    /// A part of the start is done.
    Prepared(&'static str),
    /// All of it is.
    Begun {
        /// Steps already done.
        step: Step,
        /// All steps.
        steps: u64,
        /// Where they are known from.
        from: ResumedFrom,
        /// Rows of steps already done that may not be in the store.
        rows: &'a [Row],
        /// Damaged checkpoints that were passed over, each a sentence.
        passed_over: &'a [String],
    },
    /// A batch has come.
    Loaded,
    /// A step is done.
    Stepped {
        /// Its figures; held-out scores are still to come.
        row: &'a Row,
        /// Triplets of its batch.
        triplets: u32,
        /// Whether it is the trial's last.
        is_last: bool,
        /// What it took.
        work: &'a StepWork,
    },
    /// The evaluation sets were scored after that step.
    Evaluated {
        step: Step,
        /// Of all of their triplets.
        scores: &'a BTreeMap<String, SetScore>,
        /// Of those that are scored at every evaluation: the points of a curve.
        along: &'a BTreeMap<String, SetScore>,
    },
    /// A checkpoint is committed.
    Saved(&'a Event),
}

/// What a step took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StepWork {
    /// Tokens of the plain layout, of all ranks.
    pub(super) tokens: u64,
    /// FLOPs of all ranks, convention `6ND`.
    pub(super) flops_6nd: f64,
    /// Where this rank's time went since the step before was done.
    pub(super) parts: StepParts,
    /// Ranks.
    pub(super) world: u32,
    /// Bytes that this rank has sent so far to ranks on its host, and on others.
    pub(super) sent: [u64; 2],
}

/// What is to be stored before a checkpoint is committed.
pub(super) type BeforeCommit = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Watches a trial. It can tell events, of which only rank 0's are heard, but change nothing.
pub(super) trait Observer {
    /// Something happened.
    fn on(&mut self, moment: &Moment<'_>, tell: &dyn Fn(Event));

    /// A checkpoint was begun: what it needs from here, if this rank is the one that commits it.
    fn before_commit(&mut self) -> Option<BeforeCommit> {
        None
    }
}

/// All observers of a trial, in order.
pub(super) struct Observers {
    observers: Vec<Box<dyn Observer>>,
    tell: Box<dyn Fn(Event) + Send>,
}

impl Observers {
    /// `tell` is what becomes of their events.
    pub(super) fn new(
        observers: Vec<Box<dyn Observer>>,
        tell: Box<dyn Fn(Event) + Send>,
    ) -> Observers {
        Observers { observers, tell }
    }

    pub(super) fn on(&mut self, moment: Moment<'_>) {
        for observer in &mut self.observers {
            observer.on(&moment, &*self.tell);
        }
    }

    pub(super) fn before_commit(&mut self) -> Vec<BeforeCommit> {
        let each = self.observers.iter_mut();
        each.filter_map(|observer| observer.before_commit())
            .collect()
    }
}

/// Rows of metrics, stored with each checkpoint.
pub(super) struct MetricsRows {
    store: Store,
    trial: Trial,
    /// Since the last checkpoint.
    rows: Vec<Row>,
}

impl MetricsRows {
    pub(super) fn new(store: Store, trial: Trial) -> MetricsRows {
        let rows = Vec::new();
        MetricsRows { store, trial, rows }
    }
}

impl Observer for MetricsRows {
    fn on(&mut self, moment: &Moment<'_>, _tell: &dyn Fn(Event)) {
        match *moment {
            Moment::Begun { rows, .. } => self.rows = rows.to_vec(),
            Moment::Stepped { row, .. } => self.rows.push(row.clone()),
            Moment::Evaluated { step, along, .. } => {
                // A generation that only repeats the end of a dead one has no row to add them to.
                if let Some(row) = self.rows.last_mut().filter(|row| row.step == step) {
                    row.validation.clone_from(along);
                }
            }
            _ => {}
        }
    }

    fn before_commit(&mut self) -> Option<BeforeCommit> {
        let (store, trial) = (self.store.clone(), self.trial.clone());
        let rows = std::mem::take(&mut self.rows);
        Some(Box::pin(async move {
            Ok(metrics::write(&store, &trial, &rows).await?)
        }))
    }
}

/// Seconds of what comes before the first step is done, told after it.
pub(super) struct StartupTimings {
    since: Instant,
    parts: Vec<(String, f64)>,
    told: bool,
}

impl StartupTimings {
    pub(super) fn new() -> StartupTimings {
        StartupTimings {
            since: Instant::now(),
            parts: Vec::new(),
            told: false,
        }
    }

    /// Ends a part, which took the time since the one before; parts of one name are added up.
    fn end(&mut self, name: &str) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        match self.parts.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += seconds,
            None => self.parts.push((name.to_owned(), seconds)),
        }
    }
}

impl Observer for StartupTimings {
    fn on(&mut self, moment: &Moment<'_>, tell: &dyn Fn(Event)) {
        if self.told {
            return;
        }
        match moment {
            Moment::Prepared(name) => self.end(name),
            Moment::Loaded => self.end("data"),
            Moment::Stepped { .. } => {
                self.end("step");
                self.told = true;
                let parts = std::mem::take(&mut self.parts);
                tell(Event::Underway { parts });
            }
            _ => {}
        }
    }
}

/// Events for those who wait for the trial.
pub(super) struct Progress {
    started: Instant,
    /// When a step was last told, and the triplets since; none before the first step.
    told: Option<Instant>,
    triplets: u64,
}

/// Steps are told about five times a second, and always the first and the last.
const PACE: Duration = Duration::from_millis(200);

impl Progress {
    pub(super) fn new() -> Progress {
        Progress {
            started: Instant::now(),
            told: None,
            triplets: 0,
        }
    }
}

impl Observer for Progress {
    fn on(&mut self, moment: &Moment<'_>, tell: &dyn Fn(Event)) {
        match *moment {
            Moment::Begun {
                step,
                steps,
                from,
                passed_over,
                ..
            } => {
                tell(Event::Begun {
                    step,
                    steps,
                    from,
                    seconds: self.started.elapsed().as_secs_f64(),
                    passed_over: passed_over.to_vec(),
                });
                self.started = Instant::now();
            }
            Moment::Stepped {
                row,
                triplets,
                is_last,
                ..
            } => {
                self.triplets += u64::from(triplets);
                let since = self.told.unwrap_or(self.started).elapsed();
                if since < PACE && self.told.is_some() && !is_last {
                    return;
                }
                tell(Event::Stepped {
                    step: row.step,
                    loss: row.loss,
                    accuracy: row.accuracy,
                    triplets_per_second: self.triplets as f64 / since.as_secs_f64().max(1e-9),
                });
                self.told = Some(Instant::now());
                self.triplets = 0;
            }
            Moment::Evaluated { step, scores, .. } => tell(Event::Validated {
                step,
                scores: scores.clone(),
            }),
            Moment::Saved(event) => tell(event.clone()),
            Moment::Prepared(_) | Moment::Loaded => {}
        }
    }
}

/// Where the time of steps went, for those who watch: about once a second, and with the last step.
pub(super) struct Meter {
    since: Instant,
    sum: Measured,
    /// What had been sent and asked of stores when it was last told.
    sent: [u64; 2],
    asked: Traffic,
}

/// Seconds between two reports.
const METER_PACE: Duration = Duration::from_secs(1);

impl Meter {
    pub(super) fn new() -> Meter {
        Meter {
            since: Instant::now(),
            sum: Measured::default(),
            sent: [0; 2],
            asked: traffic(),
        }
    }
}

impl Observer for Meter {
    fn on(&mut self, moment: &Moment<'_>, tell: &dyn Fn(Event)) {
        match *moment {
            Moment::Begun { .. } => self.since = Instant::now(),
            Moment::Stepped {
                row, is_last, work, ..
            } => {
                let sum = &mut self.sum;
                sum.until = row.step;
                sum.steps += 1;
                sum.parts += work.parts;
                sum.tokens += work.tokens;
                sum.flops_6nd += work.flops_6nd;
                let seconds = self.since.elapsed();
                if seconds < METER_PACE && !is_last {
                    return;
                }
                let asked = traffic();
                let [here, away] = work.sent;
                tell(Event::Measured(Measured {
                    seconds: seconds.as_secs_f64(),
                    world: work.world,
                    sent_here: here.saturating_sub(self.sent[0]),
                    sent_away: away.saturating_sub(self.sent[1]),
                    store: asked - self.asked,
                    ..std::mem::take(sum)
                }));
                (self.since, self.sent, self.asked) = (Instant::now(), work.sent, asked);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::trial;
    use polestar_dataset::Layout;
    use std::cell::RefCell;

    #[test]
    fn scores_go_into_the_row_of_their_step_and_rows_into_the_next_checkpoint() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let store = Store::open("memory://metrics-rows").expect("a store");
        let trial = trial(Layout::Shared);
        let mut rows = MetricsRows::new(store.clone(), trial.clone());
        let tell = |event| panic!("metrics are not told: {event:?}");
        let scores = |loss, triplets| {
            let score = SetScore {
                loss,
                accuracy: Some(0.75),
                triplets,
                ..SetScore::default()
            };
            BTreeMap::from([("heldout_prompts".to_owned(), score)])
        };
        let (all, along) = (scores(0.6, 32), scores(0.5, 8));
        for step in [1, 2, 3].map(Step) {
            let row = Row {
                step,
                ..Row::default()
            };
            let (triplets, is_last) = (8, step.0 == 3);
            let moment = Moment::Stepped {
                row: &row,
                triplets,
                is_last,
                work: &StepWork::default(),
            };
            rows.on(&moment, &tell);
            if step.0 == 2 {
                let (scores, along) = (&all, &along);
                let moment = Moment::Evaluated {
                    step,
                    scores,
                    along,
                };
                rows.on(&moment, &tell);
                let stored = rows.before_commit().expect("rows to store");
                runtime.block_on(stored).expect("a store");
            }
        }
        let read = runtime.block_on(metrics::read(&store, &trial));
        let read = read.expect("metrics");
        let steps: Vec<u64> = read.iter().map(|row| row.step.0).collect();
        assert_eq!(steps, [1, 2], "the third waits for its checkpoint");
        assert!(read[0].validation.is_empty());
        assert_eq!(read[1].validation, along, "a curve is of the same triplets");
    }

    #[test]
    fn the_first_and_the_last_step_are_always_told() {
        let told = RefCell::new(Vec::new());
        let tell = |event| match event {
            Event::Stepped { step, .. } => told.borrow_mut().push(step.0),
            other => panic!("{other:?}"),
        };
        let mut progress = Progress::new();
        for step in 1..=1000 {
            let row = Row {
                step: Step(step),
                ..Row::default()
            };
            let moment = Moment::Stepped {
                row: &row,
                triplets: 8,
                is_last: step == 1000,
                work: &StepWork::default(),
            };
            progress.on(&moment, &tell);
        }
        let told = told.into_inner();
        assert_eq!((told[0], *told.last().expect("a step")), (1, 1000));
        assert!(told.len() < 1000, "not every step is told");
    }
}
