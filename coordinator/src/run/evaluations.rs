//! What finished trials came to on preference benchmarks: `evaluations/<benchmark>/<trial>.json` in the run's folder.
//!
//! Weights and benchmark decide it, so to write it again changes nothing; a record of other weights or another benchmark
//! under the same name is replaced.

use super::{Run, RunError, TrialResult, from_json, to_json};
use polestar_core::{Digest, TrialId};
use polestar_eval::{Evaluation, ScorerResult, baselines::EMBEDDING};
use polestar_laws::{
    fits::Interval,
    report::{PreferenceScore, PreferenceSet},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of a record that this build writes.
const FORMAT: u32 = 1;

/// A trial's evaluation on one benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationRecord {
    /// Version of this record.
    pub format: u32,
    /// Whose.
    pub trial: TrialId,
    /// Digest of the weights that were scored.
    pub weights: Digest,
    /// Identity of the benchmark: of all its texts and judgements.
    pub benchmark: Digest,
    /// What came out.
    pub evaluation: Evaluation,
}

impl EvaluationRecord {
    /// A record of this version.
    pub fn new(trial: TrialId, weights: Digest, benchmark: Digest, evaluation: Evaluation) -> Self {
        EvaluationRecord {
            format: FORMAT,
            trial,
            weights,
            benchmark,
            evaluation,
        }
    }
}

impl Run {
    /// Keeps what a trial came to on a benchmark.
    ///
    /// # Errors
    /// The store's.
    pub async fn record_evaluation(&self, record: &EvaluationRecord) -> Result<(), RunError> {
        let key = key(&record.evaluation.name, &record.trial);
        let json = to_json(&key, record)?;
        Ok(self.folder.put(&key, json.into()).await?)
    }

    /// What is kept of a trial on a benchmark of this name.
    ///
    /// # Errors
    /// The store's, or a record that can't be read.
    pub async fn evaluation(
        &self,
        name: &str,
        trial: &TrialId,
    ) -> Result<Option<EvaluationRecord>, RunError> {
        let key = key(name, trial);
        match self.folder.get_opt(&key).await? {
            Some(bytes) => read(&key, &bytes),
            None => Ok(None),
        }
    }

    /// All that is kept, by benchmark and trial, in the order of the plan.
    ///
    /// # Errors
    /// The store's, or a record that can't be read.
    pub async fn evaluations(&self) -> Result<BTreeMap<String, Vec<EvaluationRecord>>, RunError> {
        let mut found: BTreeMap<String, Vec<EvaluationRecord>> = BTreeMap::new();
        let mut names: Vec<String> = Vec::new();
        for object in self.folder.list("evaluations").await? {
            let mut parts = object.key.split('/').skip(1);
            if let Some(name) = parts.next().filter(|name| !names.iter().any(|n| n == name)) {
                names.push(name.to_owned());
            }
        }
        for name in names {
            for planned in &self.record.plan.trials {
                let record = self.evaluation(&name, &planned.config.id).await?;
                found.entry(name.clone()).or_default().extend(record);
            }
        }
        Ok(found)
    }
}

/// The trials of a run on one benchmark; none if no record is of a trial's result.
pub(super) fn preferences(
    name: &str,
    records: &[EvaluationRecord],
    results: &BTreeMap<TrialId, TrialResult>,
) -> Option<PreferenceSet> {
    let is_current = |record: &&EvaluationRecord| {
        let result = results.get(&record.trial);
        result.is_some_and(|result| result.outcome.digest == record.weights)
    };
    let current: Vec<&EvaluationRecord> = records.iter().filter(is_current).collect();
    // Numbers on another benchmark that had the same name can't stand beside the newest one's.
    let last = current.last()?;
    let same = current
        .iter()
        .filter(|record| record.benchmark == last.benchmark);
    let row = last.evaluation.rows.first()?;
    let first = |scorer: &ScorerResult| scorer.accuracies.first().copied();
    let score = |record: &&EvaluationRecord| {
        let overall = record.evaluation.overall()?;
        let mut models = record
            .evaluation
            .scorers
            .iter()
            .filter(|scorer| scorer.is_model);
        let without = models.find(|scorer| !scorer.with_reference);
        let without = without.filter(|_| record.evaluation.account.references > 0);
        Some(PreferenceScore {
            trial: record.trial.to_string(),
            accuracy: overall.value,
            interval: overall
                .lo
                .zip(overall.hi)
                .map(|(lo, hi)| Interval { lo, hi }),
            without_reference: without.and_then(first).map(|accuracy| accuracy.value),
        })
    };
    let baselines = last
        .evaluation
        .scorers
        .iter()
        // Each model has embeddings of its own.
        .filter(|scorer| !scorer.is_model && scorer.name != EMBEDDING);
    let baseline = |scorer: &ScorerResult| Some((scorer.name.clone(), first(scorer)?.value));
    Some(PreferenceSet {
        name: name.to_owned(),
        averaging: last.evaluation.averaging.clone(),
        judgements: row.tasks,
        prompts: row.prompts,
        trials: same.filter_map(score).collect(),
        baselines: baselines.filter_map(baseline).collect(),
    })
}

/// A record of this version; those of others are as if they weren't there, since they can be made anew.
fn read(key: &str, bytes: &[u8]) -> Result<Option<EvaluationRecord>, RunError> {
    match polestar_core::format::check(bytes, "format", FORMAT) {
        Ok(()) => from_json(key, bytes).map(Some),
        Err(polestar_core::format::Error::Other { .. }) => Ok(None),
        Err(polestar_core::format::Error::Unreadable(source)) => Err(RunError::Record {
            key: key.to_owned(),
            source,
        }),
    }
}

fn key(name: &str, trial: &TrialId) -> String {
    format!("evaluations/{name}/{trial}.json")
}
