//! What a run has in the store: its record, its trials' results, its report.
//!
//! ```text
//! <store>/<name>-<plan digest>/run.json             put if absent: the run begins
//!                              lease.json           who leads it
//!                              journal/             what happened under each coordinator
//!                              status.txt           what the one that leads is at
//!                              evaluations/         what trials came to on preference benchmarks
//!                              logs/                what workers of a launch logged
//!                              metrics/             copies for other programs
//!                              report/
//!         trials/<recipe>/recipe.json               put if absent: what the folder's name is the hash of
//!                         results/<measurement>.json  put if absent: the trial is over
//!                         setbacks/                 put if absent: generations that ended before it
//!                         abandoned.json            why it is not tried again
//!                         checkpoints/              the worker's, as are these
//!                         metrics/<measurement>/
//!                         scores/<measurement>.parquet
//!         launches/                                 put if absent: epochs that are taken
//! ```
//! A trial's folder is named by its recipe, so all runs of a store share what any of them has trained.

mod chosen;
mod cuts;
mod evaluations;
mod events;
mod facts;
mod logs;
mod next;
mod paired;
mod report;

pub use chosen::{CheckpointArgs, Chosen, ChosenError, of_run};
pub use cuts::{SampleError, TRAINING, cutting, training_sample};
pub use evaluations::EvaluationRecord;
pub use events::{EventHistory, EventLog, Recorded};
pub use facts::{AbandonedTrial, Facts, Setback, Spent};
pub(crate) use logs::LogKeeper;
pub use logs::{KeptLog, kept_logs};
pub use paired::{ScoredTrial, best};
pub use report::{ReportError, laws_of, report_of, write_report};

use crate::{
    calendar,
    sweep::{Plan, PlannedTrial, Sweep},
};
use polestar_core::{Digest, TrialId, format};
use polestar_run::{Outcome, Trial};
use polestar_store::{Put, Store};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of run.json that this build writes.
pub const FORMAT: u32 = 2;

/// The record of a run: everything its results are a function of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    /// Version of this record.
    pub format: u32,
    /// The run's folder.
    pub run: String,
    /// The sweep as written. Its `pool` is that of the first launch.
    pub sweep: Sweep,
    /// The trials.
    pub plan: Plan,
    /// Version of Polestar that began it.
    pub version: String,
}

/// A trial that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialResult {
    /// What came out.
    pub outcome: Outcome,
    /// Failures on the way.
    pub failures: u32,
    /// Losses of a worker on the way.
    pub losses: u32,
}

/// Why a run can't be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] polestar_store::Error),
    /// Nothing there.
    #[error("{url} has no run.json; give the folder of a run, as `launch` prints it")]
    NoRun {
        /// Where.
        url: String,
    },
    /// A record can't be read.
    #[error("{key} can't be read; remove it and launch again to have it written anew")]
    Record {
        /// The object.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Written by another version.
    #[error(
        "{url} has a run.json of format {found}, this Polestar reads {FORMAT}; use the version that wrote it"
    )]
    Format {
        /// Where.
        url: String,
        /// Its format.
        found: u64,
    },
    /// A recipe and its hash differ.
    #[error(
        "{url}/run.json was altered: the recipe of {trial} isn't the one that its identity is the hash of; put the old file back, or remove it and launch again"
    )]
    Altered {
        /// Where.
        url: String,
        /// Which trial.
        trial: TrialId,
    },
    /// A fact written by another version.
    #[error(
        "{key} has format {found}, this Polestar reads {expected}; use the version that wrote it"
    )]
    FactFormat {
        /// The object.
        key: String,
        /// Its format.
        found: u64,
        /// The one that is understood.
        expected: u32,
    },
    /// A trial has two different results.
    #[error(
        "{key} exists with digest {there}, this launch computed {here}; the promise of one answer is broken, please report it"
    )]
    Conflict {
        /// The object.
        key: String,
        /// Digest in the store.
        there: Digest,
        /// Digest just computed.
        here: Digest,
    },
}

/// A run in a store.
#[derive(Clone, Debug)]
pub struct Run {
    /// The store that it shares with other runs.
    pub store: Store,
    /// Its own folder there.
    pub folder: Store,
    /// Its record.
    pub record: RunRecord,
}

impl Run {
    /// Name of the folder of a plan.
    pub fn name(sweep: &Sweep, plan: &Plan) -> String {
        format!("{}-{}", sweep.name, &plan.digest()[..8])
    }

    /// Begins a run, or opens it if it began before.
    ///
    /// # Errors
    /// The store's, or a record that can't be read.
    pub async fn begin(store: &Store, sweep: &Sweep, plan: Plan) -> Result<Run, RunError> {
        let name = Run::name(sweep, &plan);
        let folder = store.child(&name);
        let record = RunRecord {
            format: FORMAT,
            run: name,
            sweep: sweep.clone(),
            plan,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let json = to_json("run.json", &record)?;
        store.check_conditional_puts().await?;
        // Before the record: where that is, so are these, and launching again writes none.
        if !folder.exists("run.json").await? {
            for trial in &record.plan.trials {
                let key = format!("{}/recipe.json", trial.recipe_id.folder());
                let json = to_json(&key, &trial.config.recipe)?;
                store.put_if_absent(&key, json.into()).await?;
            }
        }
        match folder.put_if_absent("run.json", json.into()).await? {
            Put::Created => {}
            // The name says that the plans' identities are equal. Where the corpus lies and how
            // often to save are taken from this launch.
            Put::Exists => drop(Run::open(folder.clone()).await?),
        }
        Ok(Run {
            store: store.clone(),
            folder,
            record,
        })
    }

    /// Opens the run at a folder.
    ///
    /// # Errors
    /// [`RunError::NoRun`] when there is none.
    pub async fn open(folder: Store) -> Result<Run, RunError> {
        let Some(bytes) = folder.get_opt("run.json").await? else {
            return Err(RunError::NoRun {
                url: folder.url().to_owned(),
            });
        };
        format::check(&bytes, "format", FORMAT).map_err(|error| match error {
            format::Error::Unreadable(source) => RunError::Record {
                key: "run.json".to_owned(),
                source,
            },
            format::Error::Other { found } => RunError::Format {
                url: folder.url().to_owned(),
                found,
            },
        })?;
        let record: RunRecord = from_json("run.json", &bytes)?;
        for trial in &record.plan.trials {
            if trial.recipe_id != trial.config.recipe_id() {
                return Err(RunError::Altered {
                    url: folder.url().to_owned(),
                    trial: trial.config.id.clone(),
                });
            }
        }
        Ok(Run {
            store: folder.parent()?,
            folder,
            record,
        })
    }

    /// Results of the trials that are over.
    ///
    /// # Errors
    /// The store's, or a record that can't be read.
    pub async fn results(&self) -> Result<BTreeMap<TrialId, TrialResult>, RunError> {
        let mut results = BTreeMap::new();
        for trial in &self.record.plan.trials {
            if let Some(result) = self.result(&trial.config).await? {
                results.insert(trial.config.id.clone(), result);
            }
        }
        Ok(results)
    }

    /// The result of one of its trials, if that is over.
    ///
    /// # Errors
    /// The store's, or a record that can't be read.
    pub async fn result(&self, trial: &Trial) -> Result<Option<TrialResult>, RunError> {
        let key = result_key(trial);
        let Some(bytes) = self.store.get_opt(&key).await? else {
            return Ok(None);
        };
        let mut result: TrialResult = from_json(&key, &bytes)?;
        // Another run may have trained it by another name.
        result.outcome.trial = trial.id.clone();
        Ok(Some(result))
    }

    /// What results that are there already spare: FLOPs that needn't be spent again.
    pub fn spared(&self, results: &BTreeMap<TrialId, TrialResult>) -> f64 {
        let done = |trial: &&PlannedTrial| results.contains_key(&trial.config.id);
        let trials = self.record.plan.trials.iter().filter(done);
        trials.map(PlannedTrial::own_flops).sum()
    }

    /// What coordinators left in its store, apart from results.
    pub fn facts(&self) -> Facts {
        Facts::new(self.store.clone())
    }

    /// Trials that were abandoned and have none of these [results](Run::results) since.
    ///
    /// # Errors
    /// The store's, or a record that can't be read.
    pub async fn abandoned(
        &self,
        results: &BTreeMap<TrialId, TrialResult>,
    ) -> Result<BTreeMap<TrialId, AbandonedTrial>, RunError> {
        let facts = self.facts();
        let mut abandoned = BTreeMap::new();
        for trial in &self.record.plan.trials {
            let id = &trial.config.id;
            if !results.contains_key(id)
                && let Some(record) = facts.abandoned(&trial.recipe_id).await?
            {
                abandoned.insert(id.clone(), record);
            }
        }
        Ok(abandoned)
    }

    /// Records that a trial is abandoned, in place of an earlier time that it was.
    ///
    /// # Errors
    /// The store's.
    pub async fn record_abandoned(&self, record: &AbandonedTrial) -> Result<(), RunError> {
        let trial = self.planned(&record.trial).recipe_id();
        self.facts().record_abandoned(&trial, record).await
    }

    /// Records that a generation ended before its trial.
    ///
    /// # Errors
    /// The store's.
    pub async fn record_setback(&self, setback: &Setback) -> Result<(), RunError> {
        let trial = self.planned(&setback.trial).recipe_id();
        self.facts().record_setback(&trial, setback).await
    }

    fn planned(&self, id: &TrialId) -> &Trial {
        let mut trials = self.record.plan.trials.iter().map(|t| &t.config);
        trials
            .find(|trial| trial.id == *id)
            .expect("only planned trials are trained")
    }

    /// Records a trial's result. An equal one there is success.
    ///
    /// # Errors
    /// [`RunError::Conflict`] when another digest is recorded already.
    pub async fn record_result(&self, result: &TrialResult) -> Result<(), RunError> {
        let key = result_key(self.planned(&result.outcome.trial));
        let json = to_json(&key, result)?;
        if self.store.put_if_absent(&key, json.into()).await? == Put::Exists {
            let there: TrialResult = from_json(&key, &self.store.get(&key).await?)?;
            if there.outcome.digest != result.outcome.digest {
                return Err(RunError::Conflict {
                    key,
                    there: there.outcome.digest,
                    here: result.outcome.digest,
                });
            }
        }
        Ok(())
    }
}

/// What a held-out set is called to a reader.
pub fn set_title(set: &str) -> String {
    set.replace("heldout_", "held-out ")
}

fn result_key(trial: &Trial) -> String {
    let (recipe, measurement) = (trial.recipe_id(), trial.measurement.id());
    format!("{}/results/{measurement}.json", recipe.folder())
}

fn to_json<T: Serialize>(key: &str, value: &T) -> Result<Vec<u8>, RunError> {
    serde_json::to_vec_pretty(value).map_err(|source| RunError::Record {
        key: key.to_owned(),
        source,
    })
}

fn from_json<T: for<'a> Deserialize<'a>>(key: &str, bytes: &[u8]) -> Result<T, RunError> {
    serde_json::from_slice(bytes).map_err(|source| RunError::Record {
        key: key.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_newer_run_is_left_alone() {
        let store = Store::open("memory://newer-run").unwrap();
        let newer = br#"{"format": 4000, "novelty": {"of": "another version"}}"#;
        store.put("run.json", newer.to_vec().into()).await.unwrap();
        let refused = Run::open(store).await.unwrap_err().to_string();
        assert!(
            refused.contains("format 4000") && refused.contains("use the version that wrote it"),
            "{refused}"
        );
        assert!(!refused.contains("remove"), "{refused}");
    }
}
