//! What a coordinator leaves behind for those after it, apart from results: that it was there, which
//! generations ended before their trial, which trials it abandoned.
//!
//! ```text
//! launches/<epoch>.json                             put if absent: the epoch is taken
//! launches/<epoch>.ended                            its launch has ended in order
//! trials/<recipe>/setbacks/<epoch>-<number>.json    put if absent: a generation ended before its trial
//! trials/<recipe>/abandoned.json                    the last time that the trial was abandoned
//! ```
//! As with everything of a trial, all runs of a store share them: what diverges in one sweep diverges in the next.
//! A result overrules an abandonment, however old. Setbacks of epochs before an abandonment are settled by it:
//! whoever tries the trial again begins with a new budget.

use super::{RunError, from_json, to_json};
use crate::calendar;
use polestar_core::{Epoch, Generation, RecipeId, TrialId, format};
use polestar_run::Cause;
use polestar_store::{Put, Store};
use serde::{Deserialize, Serialize};
use std::{fmt, path::Path};

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
    /// Whose it is; records of versions that didn't tell have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<Launch>,
}

/// A coordinator at work, for people who meet another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// The run that it trains.
    pub run: String,
    /// Its machine.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// When it began, by its clock.
    pub began: String,
}

impl Launch {
    /// This process.
    pub fn of_this_process(run: &str) -> Launch {
        Launch {
            run: run.to_owned(),
            host: host_name(),
            pid: std::process::id(),
            began: calendar::now(),
        }
    }

    /// Whether it can't be running: its process would be on this machine, and isn't.
    fn is_dead(&self) -> bool {
        self.host == host_name()
            && Path::new("/proc/self").exists()
            && !Path::new(&format!("/proc/{}", self.pid)).exists()
    }
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Launch {
            host, pid, began, ..
        } = self;
        write!(f, "since {began}, host {host}, process {pid}")
    }
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
    /// Counts a setback.
    pub fn add(&mut self, cause: &Cause) {
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
    pub async fn claim_epoch(&self, by: &Launch) -> Result<Epoch, RunError> {
        let last = self.epochs(".json").await?.into_iter().max();
        let mut epoch = Epoch(last.unwrap_or(0) + 1);
        loop {
            let record = LaunchRecord {
                format: FORMAT,
                epoch,
                claim: blake3::Hash::from(rand::random::<[u8; 32]>())
                    .to_hex()
                    .to_string(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                by: Some(by.clone()),
            };
            let key = launch_key(epoch.0, ".json");
            let json = to_json(&key, &record)?;
            match self.store.put_if_absent(&key, json.into()).await? {
                Put::Created => return Ok(epoch),
                // Another coordinator began at the same moment.
                Put::Exists => epoch.0 += 1,
            }
        }
    }

    /// Numbers of the epochs that have an object of this ending.
    async fn epochs(&self, ending: &str) -> Result<Vec<u64>, RunError> {
        let number = |key: &str| -> Option<u64> {
            let name = key.strip_prefix("launches/")?.strip_suffix(ending)?;
            name.parse().ok()
        };
        let objects = self.store.list("launches").await?;
        Ok(objects.iter().filter_map(|o| number(&o.key)).collect())
    }

    /// Records that the launch of an epoch has ended in order, so that later ones needn't wonder.
    ///
    /// # Errors
    /// The store's.
    pub async fn record_end(&self, epoch: Epoch) -> Result<(), RunError> {
        let key = launch_key(epoch.0, ".ended");
        Ok(self.store.put(&key, Vec::new().into()).await?)
    }

    /// Launches of a run that may be at work: they have not ended in order, and are not known to be dead. One that
    /// was killed on another machine can't be told from one that works.
    ///
    /// # Errors
    /// The store's, or a record that can't be read.
    pub async fn at_work(&self, run: &str) -> Result<Vec<Launch>, RunError> {
        let ended = self.epochs(".ended").await?;
        let mut open = self.epochs(".json").await?;
        open.retain(|epoch| !ended.contains(epoch));
        let mut launches = Vec::new();
        for epoch in open {
            let key = launch_key(epoch, ".json");
            let record: LaunchRecord = versioned(&key, &self.store.get(&key).await?)?;
            launches.extend(record.by.filter(|by| by.run == run && !by.is_dead()));
        }
        Ok(launches)
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

fn launch_key(epoch: u64, ending: &str) -> String {
    format!("launches/{epoch:06}{ending}")
}

/// This machine's name.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
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
