//! What a coordinator leaves behind for those after it, apart from results: which epochs are taken, which
//! generations ended before their trial, which trials were abandoned.
//!
//! ```text
//! launches/<epoch>.json                             put if absent: the epoch is taken
//! trials/<recipe>/setbacks/<epoch>-<number>.json    put if absent: a generation ended before its trial
//! trials/<recipe>/abandoned.json                    the last time that the trial was abandoned
//! ```
//! As with everything of a trial, all runs of a store share them: what diverges in one sweep diverges in the next.
//! A result overrules an abandonment, however old. Setbacks of epochs before an abandonment are settled by it:
//! whoever tries the trial again begins with a new budget.

use super::{RunError, from_json, to_json};
use polestar_core::{Epoch, Generation, RecipeId, TrialId, format};
use polestar_run::Cause;
use polestar_store::{Put, Store};
use serde::{Deserialize, Serialize};

/// Version of these records that this build writes.
const FORMAT: u32 = 1;

/// A coordinator's time in a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LaunchRecord {
    format: u32,
    epoch: Epoch,
    /// Tells this claim apart from any other's.
    claim: String,
    version: String,
}

/// A generation that ended before its trial did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setback {
    /// Version of this record.
    pub format: u32,
    /// What it trained, by its name in that run.
    pub trial: TrialId,
    /// Which it was.
    pub generation: Generation,
    /// Why it ended.
    pub cause: Cause,
}

impl Setback {
    /// A record in today's format.
    pub fn new(trial: TrialId, generation: Generation, cause: Cause) -> Setback {
        Setback {
            format: FORMAT,
            trial,
            generation,
            cause,
        }
    }
}

/// A trial that was abandoned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbandonedTrial {
    /// Version of this record.
    pub format: u32,
    /// Its name in the run that abandoned it.
    pub trial: TrialId,
    /// Why.
    pub cause: Cause,
    /// By whom.
    pub epoch: Epoch,
    /// Failures on the way.
    pub failures: u32,
    /// Losses of a worker on the way.
    pub losses: u32,
}

impl AbandonedTrial {
    /// A record in today's format.
    pub fn new(trial: TrialId, cause: Cause, epoch: Epoch, spent: Spent) -> AbandonedTrial {
        AbandonedTrial {
            format: FORMAT,
            trial,
            cause,
            epoch,
            failures: spent.failures,
            losses: spent.losses,
        }
    }
}

/// How much of a trial's budget is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spent {
    /// Failures that are the trial's or the program's own.
    pub failures: u32,
    /// Losses of a worker: preemption, a killed process, a dead host.
    pub losses: u32,
}

impl Spent {
    /// Counts a setback. One that the store is to blame for costs nothing.
    pub fn add(&mut self, cause: &Cause) {
        if cause.is_store_outage() {
            return;
        }
        match cause.is_loss() {
            true => self.losses += 1,
            false => self.failures += 1,
        }
    }
}

/// The facts in one store.
#[derive(Clone, Debug)]
pub struct Facts {
    store: Store,
}

impl Facts {
    /// Those in a store of runs.
    pub fn new(store: Store) -> Facts {
        Facts { store }
    }

    /// Takes the next epoch, which no other coordinator of this store has or gets.
    ///
    /// # Errors
    /// The store's.
    pub async fn claim_epoch(&self) -> Result<Epoch, RunError> {
        let number = |key: &str| -> Option<u64> {
            let name = key.strip_prefix("launches/")?.strip_suffix(".json")?;
            name.parse().ok()
        };
        let objects = self.store.list("launches").await?;
        let last = objects.iter().filter_map(|o| number(&o.key)).max();
        let mut epoch = Epoch(last.unwrap_or(0) + 1);
        loop {
            let record = LaunchRecord {
                format: FORMAT,
                epoch,
                claim: blake3::Hash::from(rand::random::<[u8; 32]>())
                    .to_hex()
                    .to_string(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            };
            let key = format!("launches/{:06}.json", epoch.0);
            let json = to_json(&key, &record)?;
            match self.store.put_if_absent(&key, json.into()).await? {
                Put::Created => return Ok(epoch),
                // Another coordinator began at the same moment.
                Put::Exists => epoch.0 += 1,
            }
        }
    }

    /// The last time that a trial was abandoned, whether or not it has a result since.
    ///
    /// # Errors
    /// The store's, or a record that can't be read.
    pub async fn abandoned(&self, trial: &RecipeId) -> Result<Option<AbandonedTrial>, RunError> {
        let key = abandoned_key(trial);
        let bytes = self.store.get_opt(&key).await?;
        bytes.map(|bytes| versioned(&key, &bytes)).transpose()
    }

    /// Records that a trial is abandoned, in place of an earlier time that it was.
    ///
    /// # Errors
    /// The store's.
    pub async fn record_abandoned(
        &self,
        trial: &RecipeId,
        record: &AbandonedTrial,
    ) -> Result<(), RunError> {
        let key = abandoned_key(trial);
        let json = to_json(&key, record)?;
        Ok(self.store.put(&key, json.into()).await?)
    }

    /// Records that a generation ended before its trial.
    ///
    /// # Errors
    /// The store's.
    pub async fn record_setback(
        &self,
        trial: &RecipeId,
        setback: &Setback,
    ) -> Result<(), RunError> {
        let Generation { epoch, number } = setback.generation;
        let folder = setbacks_folder(trial);
        let key = format!("{folder}/{:06}-{number:06}.json", epoch.0);
        let json = to_json(&key, setback)?;
        // One that is there is this one: generations are named once.
        self.store.put_if_absent(&key, json.into()).await?;
        Ok(())
    }

    /// What a trial has spent of its budget since it was last abandoned, if it was.
    ///
    /// # Errors
    /// The store's, or a record that can't be read.
    pub async fn spent(
        &self,
        trial: &RecipeId,
        abandoned: Option<&AbandonedTrial>,
    ) -> Result<Spent, RunError> {
        let mut spent = Spent::default();
        for object in self.store.list(&setbacks_folder(trial)).await? {
            let bytes = self.store.get(&object.key).await?;
            let setback: Setback = versioned(&object.key, &bytes)?;
            if abandoned.is_none_or(|a| setback.generation.epoch > a.epoch) {
                spent.add(&setback.cause);
            }
        }
        Ok(spent)
    }
}

fn abandoned_key(trial: &RecipeId) -> String {
    format!("{}/abandoned.json", trial.folder())
}

fn setbacks_folder(trial: &RecipeId) -> String {
    format!("{}/setbacks", trial.folder())
}

/// Reads a record of this module, its format first.
fn versioned<T: for<'a> Deserialize<'a>>(key: &str, bytes: &[u8]) -> Result<T, RunError> {
    format::check(bytes, "format", FORMAT).map_err(|error| match error {
        format::Error::Unreadable(source) => RunError::Record {
            key: key.to_owned(),
            source,
        },
        format::Error::Other { found } => RunError::FactFormat {
            key: key.to_owned(),
            found,
            expected: FORMAT,
        },
    })?;
    from_json(key, bytes)
}

#[cfg(test)]
mod tests;
