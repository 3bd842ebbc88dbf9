//! Saving behind the steps. Training stands still while weights and moments are copied to host
//! memory; hashing, uploading and the commit go on while it does the next steps.
//!
//! Ranks move in lockstep: while a save is under way, every step ends with one byte from each about
//! how far it is. When all have stored their objects, rank 0 commits. A rank whose storage fails
//! stops with that error at its next step; the others are stopped by the coordinator.

use super::{Failure, Stepper};
use crate::collective::Collective;
use polestar_core::{Digest, Step};
use polestar_run::{Consumed, Event};
use polestar_run::{
    Trial,
    checkpoint::{self, FORMAT, Keep, Manifest, PAGE, Shape, Staging, Uploaded},
    metrics::{self, Row},
};
use polestar_store::Store;
use std::{sync::Arc, time::Duration, time::Instant};
use tokio::{runtime::Handle, task::JoinHandle};

/// How long a rank that has nothing else to do waits for its own upload before it lets the others
/// hear from it again: far less than a collective's deadline.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Saver {
    store: Store,
    runtime: Handle,
    shape: Shape,
    /// Memory of the save before.
    spare: Option<Staging>,
    current: Option<Current>,
}

struct Current {
    step: Step,
    consumed: Consumed,
    rows: Vec<Row>,
    replicas: u64,
    staging: Arc<Staging>,
    stage: Stage,
    stalled: f64,
    begun: Instant,
}

enum Stage {
    /// This rank's object is on its way.
    Uploading(Task<Uploaded>),
    /// It is stored; others' are not.
    Stored(Uploaded),
    /// Rank 0 commits; nobody else has anything to do.
    Committing(Digest, Option<Task<()>>),
}

/// Work behind the steps, given up when nobody asks for it any more.
struct Task<T>(JoinHandle<Result<T, Failure>>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Task<T> {
    /// Its result, if there is one within `patience`.
    fn poll(&mut self, runtime: &Handle, patience: Duration) -> Option<Result<T, Failure>> {
        if patience.is_zero() && !self.0.is_finished() {
            return None;
        }
        let ended = runtime.block_on(async { tokio::time::timeout(patience, &mut self.0).await });
        ended.ok().map(|ended| {
            ended.unwrap_or_else(|_| {
                let key = "a checkpoint".to_owned();
                Err(checkpoint::Error::Panicked { key }.into())
            })
        })
    }
}

impl Saver {
    pub(super) fn new(store: Store, runtime: Handle, shape: Shape) -> Saver {
        Saver {
            store,
            runtime,
            shape,
            spare: None,
            current: None,
        }
    }

    /// Takes a copy of the state and begins to store it. The save before must be
    /// [settled](Saver::settle).
    pub(super) fn begin(
        &mut self,
        trial: &Trial,
        stepper: &Stepper,
        (step, consumed): (Step, Consumed),
        rows: Vec<Row>,
    ) {
        let begun = Instant::now();
        let spare = self.spare.take().filter(|spare| spare.is_for(&self.shape));
        let mut staging = spare.unwrap_or_else(|| Staging::new(self.shape.clone()));
        for segment in 0..stepper.layout().segments.len() {
            staging.fill(segment, stepper.state(segment));
        }
        let replicas = stepper.replicas();
        let staging = Arc::new(staging);
        let (store, stored) = (self.store.clone(), Arc::clone(&staging));
        let place = checkpoint::place(&trial.recipe_id(), step);
        let upload = async move { Ok(checkpoint::upload(&store, &place, stored).await?) };
        self.current = Some(Current {
            step,
            consumed,
            rows,
            replicas,
            staging,
            stage: Stage::Uploading(Task(self.runtime.spawn(upload))),
            stalled: begun.elapsed().as_secs_f64(),
            begun,
        });
    }

    /// Takes the save that is under way one stage further if every rank is so far. All ranks call it.
    pub(super) fn advance(
        &mut self,
        trial: &Trial,
        collective: &mut Collective,
        patience: Duration,
    ) -> Result<Option<Event>, Failure> {
        let Some(mut current) = self.current.take() else {
            return Ok(None);
        };
        let done = match &mut current.stage {
            Stage::Uploading(task) => match task.poll(&self.runtime, patience) {
                Some(uploaded) => {
                    current.stage = Stage::Stored(uploaded?);
                    true
                }
                None => false,
            },
            Stage::Stored(_) | Stage::Committing(_, None) => true,
            Stage::Committing(_, Some(task)) => match task.poll(&self.runtime, patience) {
                Some(committed) => {
                    committed?;
                    true
                }
                None => false,
            },
        };
        let all = collective.gather_bytes(&[u8::from(done)])?;
        if !all.iter().all(|rank| rank[..] == [1]) {
            self.current = Some(current);
            return Ok(None);
        }
        match current.stage {
            // Only what is done gets here.
            Stage::Uploading(_) => Ok(None),
            Stage::Stored(uploaded) => {
                current.stage = self.agree(
                    trial,
                    collective,
                    (&current.rows, current.step, current.consumed),
                    (current.replicas, &uploaded),
                )?;
                self.current = Some(current);
                Ok(None)
            }
            Stage::Committing(digest, _) => {
                self.spare = Arc::into_inner(current.staging);
                Ok(Some(Event::Saved {
                    step: current.step,
                    digest,
                    seconds: current.stalled,
                    behind: current.begun.elapsed().as_secs_f64(),
                }))
            }
        }
    }

    /// Waits until nothing is under way.
    pub(super) fn settle(
        &mut self,
        trial: &Trial,
        collective: &mut Collective,
        aborted: impl Fn() -> bool,
    ) -> Result<Option<Event>, Failure> {
        while self.current.is_some() {
            if aborted() {
                return Err(Failure::Aborted);
            }
            let event = self.advance(trial, collective, PATIENCE)?;
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Every object is stored: rank 0 is to commit, if the ranks agree.
    fn agree(
        &self,
        trial: &Trial,
        collective: &mut Collective,
        (rows, step, consumed): (&[Row], Step, Consumed),
        (replicas, uploaded): (u64, &Uploaded),
    ) -> Result<Stage, Failure> {
        // Numbers, strings and lists: serializing them can't fail.
        let mine = serde_json::to_vec(&(replicas, uploaded)).unwrap_or_default();
        let all: Vec<(u64, Uploaded)> = collective
            .gather_bytes(&mine)?
            .iter()
            .map(|bytes| serde_json::from_slice(bytes))
            .collect::<Result<_, _>>()
            .map_err(|e| {
                Failure::Data(format!("a rank's part of a checkpoint can't be read: {e}"))
            })?;
        let (sums, uploads): (Vec<u64>, Vec<Uploaded>) = all.into_iter().unzip();
        if sums.iter().any(|&sum| sum != replicas) {
            let sums: Vec<_> = sums.iter().map(|sum| format!("{sum:016x}")).collect();
            return Err(Failure::Diverged {
                step,
                digests: sums.join(", "),
            });
        }
        let digest = Digest::of_blocks(checkpoint::canonical(&uploads));
        let mut task = None;
        if collective.rank().0 == 0 {
            let manifest = Manifest {
                format: FORMAT,
                recipe: trial.recipe_id(),
                step,
                digest: digest.clone(),
                consumed,
                segments: self.shape.segments().to_vec(),
                objects: uploads.into_iter().map(|upload| upload.object).collect(),
                page: PAGE,
            };
            let (store, trial, rows) = (self.store.clone(), trial.clone(), rows.to_vec());
            let keep = Keep {
                last: trial.execution.checkpoint.keep,
                every: trial.execution.checkpoint.keep_every,
                at: trial.execution.checkpoint.at.clone(),
            };
            let commit = async move {
                metrics::write(&store, &trial, &rows).await?;
                checkpoint::commit(&store, &manifest).await?;
                checkpoint::prune(&store, &manifest.recipe, step, &keep).await?;
                Ok(())
            };
            task = Some(Task(self.runtime.spawn(commit)));
        }
        Ok(Stage::Committing(digest, task))
    }
}
