//! Saving behind the steps. Training stands still while weights and moments are copied to host
//! memory; hashing, uploading and the commit go on while it does the next steps.
//!
//! Ranks move in lockstep: while a save is under way, every step ends with one byte from each about
//! how far it is. When all have stored their objects, rank 0 commits. A rank whose storage fails
//! stops with that error at its next step; the others are stopped by the coordinator.

use super::{Engine, Failure, Stepper, observe::BeforeCommit};
use crate::collective::{CollectiveError, Peers};
use polestar_core::{Digest, Rank, Step};
use polestar_run::{Consumed, Event};
use polestar_run::{
    Trial,
    checkpoint::{self, FORMAT, Keep, Manifest, PAGE, Shape, Staging, Uploaded},
};
use polestar_store::Store;
use std::{sync::Arc, time::Duration, time::Instant};
use tokio::{runtime::Handle, task::JoinHandle};
use tracing::Instrument;

/// How long a rank that has nothing else to do waits for its own upload before it lets the others
/// hear from it again: far less than a collective's deadline.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Saver {
    store: Store,
    runtime: Handle,
    shape: Shape,
    transport: Option<String>,
    /// Memory of the save before.
    spare: Option<Staging>,
    current: Option<Current>,
}

struct Current {
    record: Record,
    replica_checksum: u64,
    /// Of this rank's engine.
    numerics: Option<String>,
    staging: Arc<Staging>,
    stage: Stage,
    stalled: f64,
    begun: Instant,
}

/// A save that is over.
pub(super) struct Committed {
    /// The step of the checkpoint.
    pub(super) step: Step,
    /// What the rank that committed it tells.
    pub(super) event: Option<Event>,
}

/// What a checkpoint records beside weights and moments.
pub(super) struct Record {
    pub(super) step: Step,
    pub(super) consumed: Consumed,
    /// What is to be stored before it is committed.
    pub(super) before_commit: Vec<BeforeCommit>,
}

enum Stage {
    /// This rank's object is on its way.
    Uploading(Task<Uploaded>),
    /// It is stored; others' are not.
    Stored(Uploaded),
    /// Rank 0 commits; nobody else has anything to do.
    Committing(Option<(Digest, Task<()>)>),
}

/// Work behind the steps, stopped when nobody asks for it any more.
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
    /// `transport` is how vectors go between the ranks' devices, for the record.
    pub(super) fn new(
        store: Store,
        runtime: Handle,
        shape: Shape,
        transport: Option<String>,
    ) -> Saver {
        Saver {
            store,
            runtime,
            shape,
            transport,
            spare: None,
            current: None,
        }
    }

    /// Takes a copy of the state and begins to store it. The save before must be
    /// [settled](Saver::settle).
    pub(super) fn begin<E: Engine>(&mut self, trial: &Trial, stepper: &Stepper<E>, record: Record) {
        let begun = Instant::now();
        let spare = self.spare.take().filter(|spare| spare.is_for(&self.shape));
        let mut staging = spare.unwrap_or_else(|| Staging::new(self.shape.clone()));
        for segment in 0..stepper.layout().segments.len() {
            staging.fill(segment, |kind, into| {
                stepper.read_shard(segment, kind, into)
            });
        }
        let replica_checksum = stepper.replica_checksum();
        let staging = Arc::new(staging);
        let (store, stored) = (self.store.clone(), Arc::clone(&staging));
        let place = checkpoint::place(&trial.recipe_id(), record.step);
        let bytes: &[u8] = (*stored).as_ref();
        let span = tracing::info_span!(
            "checkpoint.upload",
            polestar.key = place,
            polestar.bytes = bytes.len() as i64
        );
        let upload = async move { Ok(checkpoint::upload(&store, &place, stored).await?) };
        let upload = upload.instrument(span);
        self.current = Some(Current {
            record,
            replica_checksum,
            numerics: stepper.engine().numerics(),
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
        peers: &mut impl Peers,
        patience: Duration,
    ) -> Result<Option<Committed>, Failure> {
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
            Stage::Stored(_) | Stage::Committing(None) => true,
            Stage::Committing(Some((_, task))) => match task.poll(&self.runtime, patience) {
                Some(committed) => {
                    committed?;
                    true
                }
                None => false,
            },
        };
        if !all_done(peers, done)? {
            self.current = Some(current);
            return Ok(None);
        }
        match std::mem::replace(&mut current.stage, Stage::Committing(None)) {
            Stage::Uploading(_) => unreachable!("an upload that is done is stored"),
            Stage::Stored(uploaded) => {
                let task = self.agree(trial, peers, &mut current, &uploaded)?;
                current.stage = Stage::Committing(task);
                self.current = Some(current);
                Ok(None)
            }
            Stage::Committing(committed) => {
                self.spare = Arc::into_inner(current.staging);
                let step = current.record.step;
                let event = committed.map(|(digest, _)| Event::Saved {
                    step,
                    digest,
                    seconds: current.stalled,
                    behind: current.begun.elapsed().as_secs_f64(),
                });
                Ok(Some(Committed { step, event }))
            }
        }
    }

    /// Waits until nothing is under way.
    pub(super) fn settle(
        &mut self,
        trial: &Trial,
        peers: &mut impl Peers,
        aborted: impl Fn() -> bool,
    ) -> Result<Option<Committed>, Failure> {
        let mut saved = None;
        while self.current.is_some() {
            if aborted() {
                return Err(Failure::Aborted);
            }
            saved = self.advance(trial, peers, PATIENCE)?;
        }
        Ok(saved)
    }

    /// Every object is stored: rank 0 is to commit, if the ranks agree.
    fn agree(
        &self,
        trial: &Trial,
        peers: &mut impl Peers,
        current: &mut Current,
        uploaded: &Uploaded,
    ) -> Result<Option<(Digest, Task<()>)>, Failure> {
        let Record {
            step,
            consumed,
            before_commit,
        } = &mut current.record;
        let ours = current.replica_checksum.to_le_bytes();
        let all = peers.exchange(&ours)?;
        if all.iter().any(|theirs| theirs[..] != ours) {
            return Err(Failure::diverged(*step, &all));
        }
        // 32 bytes for each 16 KiB of weights, and only one rank has a use for them.
        let Some(entries) = peers.gather(Rank(0), &uploaded.encode())? else {
            return Ok(None);
        };
        let uploads: Vec<Uploaded> = entries
            .iter()
            .map(|bytes| Uploaded::decode(bytes))
            .collect::<Result<_, _>>()?;
        let digest = Digest::of_blocks(checkpoint::canonical(&uploads));
        let manifest = Manifest {
            format: FORMAT,
            recipe: trial.recipe_id(),
            step: *step,
            digest,
            consumed: *consumed,
            segments: self.shape.segments().to_vec(),
            objects: uploads.into_iter().map(|upload| upload.object).collect(),
            page: PAGE,
            numerics: current.numerics.clone(),
            transport: self.transport.clone(),
        };
        let (store, before) = (self.store.clone(), std::mem::take(before_commit));
        let keep = Keep {
            last: trial.execution.checkpoint.keep,
            every: trial.execution.checkpoint.keep_every,
            at: trial.execution.checkpoint.at.clone(),
        };
        let span = tracing::info_span!("checkpoint.commit", polestar.step = step.0 as i64);
        let commit = async move {
            for store_it in before {
                store_it.await?;
            }
            checkpoint::commit(&store, &manifest).await?;
            checkpoint::prune(&store, &manifest.recipe, manifest.step, &keep).await?;
            Ok(())
        };
        let commit = commit.instrument(span);
        Ok(Some((digest, Task(self.runtime.spawn(commit)))))
    }
}

/// Whether every rank has come as far as this one.
fn all_done(peers: &mut impl Peers, done: bool) -> Result<bool, CollectiveError> {
    let all = peers.exchange(&[u8::from(done)])?;
    Ok(all.iter().all(|rank| rank[..] == [1]))
}
