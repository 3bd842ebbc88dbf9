//! What people's tools read of a run: TensorBoard's event files, CSV and Parquet, trial by trial.
//!
//! ```text
//! <run>/metrics/<trial>/events.out.tfevents.…   grows while the trial trains; another one for each coordinator
//!                       metrics.csv             likewise in folders; in object stores when the trial is done
//!                       metrics.parquet         when the trial is done
//!                       pairs.csv               likewise: accuracy by pair of policies
//!                       hparams.json
//! ```
//! All of it is a copy: rank 0 stores a trial's rows of metrics with each checkpoint, before that is committed, and
//! tells them about once a second in between. Here the coordinator writes what it is told, and what it was not told
//! it reads in the store when the checkpoint is there. A step that is taken again after a crash has the same numbers,
//! so a step that is in a file stays as it is, and files have every step once and in order, whoever wrote them.
//!
//! Nothing waits for this: a listener that is slow is told less, and one that can't write says so and tries again.

mod files;
mod hparams;
mod tables;
mod target;
pub(crate) mod tensorboard;

#[cfg(test)]
mod tests;

pub use files::{FilesError, write_anew};
pub use target::TargetError;

use crate::{
    control::{Entry, Subscription},
    run::Run,
    sweep::PlannedTrial,
};
use files::TrialFiles;
use polestar_core::{Step, TrialId, chain};
use polestar_run::{Event, metrics::Row};
use polestar_store::Store;
use std::{
    collections::{BTreeMap, VecDeque, btree_map},
    time::{Duration, Instant},
};
use tokio_stream::StreamExt;

/// The folder of all of it in a run's.
pub const FOLDER: &str = "metrics";
/// Rows that are kept of a trial whose files can't take them now; the store has the older ones soon.
const MOST_PENDING: usize = 4096;
/// How long after trouble until the next attempt.
const AGAIN: Duration = Duration::from_secs(10);

/// Writes a run's files until its journal ends.
pub(crate) async fn follow(mut journal: Subscription, run: Run) {
    let mut trials = BTreeMap::new();
    while let Some(happened) = journal.next().await {
        handle(&mut trials, &run, &happened.entry).await;
    }
    for (_, mut trial) in trials {
        trial.end().await;
    }
}

/// Writes the files of trials that were done before anybody followed them, as those that another run of the store
/// has trained.
pub(crate) async fn fill(run: Run) {
    if let Err(error) = fill_missing(&run).await {
        tracing::warn!("metrics of finished trials: {}", chain(error.as_ref()));
    }
}

async fn fill_missing(run: &Run) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let results = run.results().await?;
    let objects = run.folder.list(FOLDER).await?;
    let into = run.folder.child(FOLDER);
    for planned in &run.record.plan.trials {
        let id = &planned.config.id;
        let table = format!("{FOLDER}/{id}/metrics.parquet");
        if results.contains_key(id) && objects.iter().all(|object| object.key != table) {
            write_anew(run, &into, planned, true).await?;
        }
    }
    Ok(())
}

async fn handle(trials: &mut BTreeMap<TrialId, Followed>, run: &Run, entry: &Entry) {
    let (trial, event) = match entry {
        Entry::Progress { trial, event, .. } => (trial, Some(event)),
        Entry::Done { trial, .. } => (trial, None),
        _ => return,
    };
    let followed = match trials.entry(trial.clone()) {
        btree_map::Entry::Occupied(known) => known.into_mut(),
        btree_map::Entry::Vacant(new) => {
            let mut planned = run.record.plan.trials.iter();
            let Some(planned) = planned.find(|p| p.config.id == *trial) else {
                return;
            };
            let folder = run.folder.child(&format!("{FOLDER}/{trial}"));
            new.insert(Followed::new(run.store.clone(), folder, planned.clone()))
        }
    };
    match event {
        Some(Event::Begun { .. }) => followed.begun().await,
        Some(Event::Rows { rows }) => followed.told(rows).await,
        Some(Event::Saved { step, .. }) => followed.saved(*step).await,
        Some(
            Event::Stepped { .. }
            | Event::Validated { .. }
            | Event::Underway { .. }
            | Event::Measured(_),
        ) => {}
        None => {
            followed.done().await;
            trials.remove(trial);
        }
    }
}

/// A trial whose files are written while it trains.
struct Followed {
    store: Store,
    folder: Store,
    planned: PlannedTrial,
    /// Once they were opened.
    files: Option<TrialFiles>,
    /// Rows that are not in all files yet, in order.
    pending: VecDeque<Row>,
    /// Whether the store's rows were all taken when the generation began, and none of its own has come yet.
    begins: bool,
    /// Steps up to here that the files lack are nobody's: a trunk has taken them.
    floor: Step,
    /// When something went wrong, if nothing has gone right since.
    trouble: Option<Instant>,
}

impl Followed {
    fn new(store: Store, folder: Store, planned: PlannedTrial) -> Followed {
        Followed {
            store,
            folder,
            planned,
            files: None,
            pending: VecDeque::new(),
            begins: false,
            floor: Step(0),
            trouble: None,
        }
    }

    /// A generation begins: with rows that the store may lack, or with the step after its checkpoint.
    async fn begun(&mut self) {
        self.pending.clear();
        let caught_up = self.catch_up().await;
        self.begins = self.note(caught_up);
    }

    async fn told(&mut self, rows: &[Row]) {
        if let (true, Some(first)) = (self.begins, rows.first()) {
            self.floor = Step(first.step.0.saturating_sub(1));
            self.begins = false;
        }
        for row in rows {
            if self.pending.back().is_none_or(|last| row.step > last.step) {
                self.pending.push_back(row.clone());
            }
        }
        let surplus = self.pending.len().saturating_sub(MOST_PENDING);
        self.pending.drain(..surplus);
        if self.trouble.is_none_or(|since| since.elapsed() >= AGAIN) {
            let advanced = self.advance().await;
            self.note(advanced);
        }
    }

    /// A checkpoint is committed: the store has every row up to it.
    async fn saved(&mut self, step: Step) {
        let advanced = async {
            self.advance().await?;
            if self.opened().await?.written() < step {
                self.catch_up().await?;
                self.advance().await?;
            }
            Ok(())
        };
        let advanced = advanced.await;
        self.note(advanced);
    }

    async fn done(&mut self) {
        let finished = match self.opened().await {
            Ok(files) => files.finish().await,
            Err(error) => Err(error),
        };
        self.note(finished);
    }

    async fn end(&mut self) {
        let stored = async {
            self.advance().await?;
            self.opened().await?.store().await
        };
        let stored = stored.await;
        self.note(stored);
    }

    async fn opened(&mut self) -> Result<&mut TrialFiles, FilesError> {
        if self.files.is_none() {
            let opened = TrialFiles::open(&self.store, self.folder.clone(), &self.planned).await?;
            self.files = Some(opened);
        }
        Ok(self.files.as_mut().expect("they were just opened"))
    }

    async fn catch_up(&mut self) -> Result<(), FilesError> {
        self.opened().await?.catch_up().await
    }

    /// Adds the rows that follow those that are there without a gap.
    async fn advance(&mut self) -> Result<(), FilesError> {
        let written = self.opened().await?.written();
        while self.pending.front().is_some_and(|row| row.step <= written) {
            self.pending.pop_front();
        }
        let mut next = written.max(self.floor).0 + 1;
        let follows = self.pending.iter().take_while(|row| {
            let follows = row.step.0 == next;
            next += 1;
            follows
        });
        let rows: Vec<Row> = follows.cloned().collect();
        self.opened().await?.add(&rows).await?;
        self.pending.drain(..rows.len());
        Ok(())
    }

    /// Says once what is wrong. Returns whether nothing is.
    fn note(&mut self, result: Result<(), FilesError>) -> bool {
        let Err(error) = result else {
            self.trouble = None;
            return true;
        };
        if self.trouble.is_none() {
            tracing::warn!(
                "metrics files of {}: {}; training goes on, and they are written when they can be",
                self.planned.config.id,
                chain(&error)
            );
        }
        self.trouble = Some(Instant::now());
        false
    }
}
