//! From a sweep to its trials, as data: printed, compared and executed elsewhere.

use super::{
    PlanError, Pretraining, StartTrial, Sweep,
    axes::LrAxis,
    expand::{Begin, Family, Maker, Trials},
    sizes,
};
use polestar_core::{ByteCount, Digest, RecipeId, TrialId, digest::hex};
use polestar_dataset::{LeftOut, Pairs, PolicyDistances, SampleConfig, Wrapper};
use polestar_laws::Coordinates;
use polestar_model::ModelConfig;
use polestar_run::Trial;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a plan has to know of the corpus.
#[derive(Clone, Debug)]
pub struct CorpusFacts {
    /// Names its content.
    pub fingerprint: String,
    /// Entries of its tokenizer.
    pub vocab: u32,
    /// Mean tokens of a triplet, plain layout.
    pub tokens_per_triplet: f64,
    /// What a triplet comes to when policies are discriminated.
    pub polar: Work,
    /// What it comes to as a language model.
    pub lm: Work,
    /// How far apart its policies write, if the sweep varies that.
    pub distances: Option<PolicyDistances>,
    /// Weights that trials start from, where the sweep names some.
    pub starts: Vec<StartTrial>,
    /// What its trials start from, if that comes from elsewhere.
    pub start: Option<StartFacts>,
}

/// Weights from elsewhere that trials start from.
#[derive(Clone, Debug, PartialEq)]
pub struct StartFacts {
    /// Digest of their files.
    pub digest: Digest,
    /// Their shape.
    pub model: ModelConfig,
    /// Tokens of a sequence beyond which they would be another model, and why.
    pub limit: Option<polestar_hf::config::Limit>,
}

/// What a triplet comes to, on average, where a shared prefix is packed once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Tokens.
    pub tokens: f64,
    /// (query, key) pairs that attention looks at.
    pub pairs: f64,
}

/// All trials of a sweep on one corpus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Fingerprint of the corpus that it was made for.
    pub fingerprint: String,
    /// Mean tokens of a triplet in the plain layout, as measured on the corpus.
    pub tokens_per_triplet: f64,
    /// What the quarantine leaves out of the corpus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
    /// Which answers of the corpus make a pair.
    #[serde(default, skip_serializing_if = "Pairs::is_default")]
    pub pairs: Pairs,
    /// The trials: warm starts first, then by size, length and seed.
    pub trials: Vec<PlannedTrial>,
}

/// What a trial is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrialRole {
    /// Others start from its last weights; no point of any law.
    Start,
    /// Others leave its path before it ends; no point of any law.
    Trunk,
    /// A point of the laws.
    Point,
}

/// One trial and what it is expected to cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedTrial {
    /// What the workers get.
    pub config: Trial,
    /// The identity of its recipe: where it lies in the store, for readers who can't hash it.
    pub recipe_id: RecipeId,
    /// Where it lies on the sweep's axes: what laws group it by.
    pub at: Coordinates,
    /// What it is for.
    pub role: TrialRole,
    /// The trial whose checkpoint it begins from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<TrialId>,
    /// What went into the weights that it starts from, where `[start]` names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretraining: Option<Pretraining>,
    /// All trained parameters of the reward model.
    pub parameters: u64,
    /// Without the embedding table.
    pub non_embedding: u64,
    /// Mean distance between the policies it trains on, where the sweep chose them by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<f64>,
    /// Expected tokens, plain layout.
    pub plain_tokens: f64,
    /// Expected FLOPs, convention `6ND`.
    pub flops_6nd: f64,
    /// Expected FLOPs, convention `executed`; 0 in plans of versions that didn't tell.
    #[serde(default)]
    pub flops_executed: f64,
    /// The most of weights, gradients and moments on a rank.
    pub state_bytes: ByteCount,
}

/// Expands a sweep for a corpus.
///
/// # Errors
/// [`PlanError`] names the key and what would do.
pub fn plan(sweep: &Sweep, corpus: &CorpusFacts) -> Result<Plan, PlanError> {
    let maker = Maker { sweep, corpus };
    if let Some(limit) = corpus.start.as_ref().and_then(|start| start.limit.as_ref()) {
        let longest = longest_sequence(&sweep.samples);
        if longest > limit.tokens {
            return Err(PlanError::StartLimit {
                longest,
                limit: limit.tokens,
                why: limit.why,
            });
        }
    }
    let axes = &sweep.sweep;
    let mut trials = Trials::default();
    for start in &corpus.starts {
        let variants = maker.variants(&start.name, &start.model, &sweep.train)?;
        for &seed in &axes.seeds {
            let of = Family {
                size: &start.name,
                model: &start.model,
                seed,
                start: Some(start),
            };
            let begin = Begin::at(start);
            for variant in &variants {
                maker.lengths_of(of, variant, Some(&begin), &mut trials)?;
            }
        }
    }
    for size in &axes.sizes {
        let model = sizes::model(sweep, size, corpus)?;
        let mut train = sweep.train.clone();
        if let LrAxis::BySize(by_size) = &axes.lr
            && let Some(&lr) = by_size.get(size)
        {
            train.optimizer.lr = lr;
        }
        let variants = maker.variants(size, &model, &train)?;
        for &seed in &axes.seeds {
            let of = Family {
                size,
                model: &model,
                seed,
                start: None,
            };
            let mut start = None;
            if let Some(warm) = &sweep.warm_start {
                let trial = maker.start(of, warm, &train)?;
                start = Some(Begin::after(&trial));
                trials.before.push(trial);
            }
            for variant in &variants {
                maker.lengths_of(of, variant, start.as_ref(), &mut trials)?;
            }
        }
    }
    let Trials { mut before, points } = trials;
    before.extend(points);
    let mut names: Vec<&TrialId> = before.iter().map(|t| &t.config.id).collect();
    names.sort();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(PlanError::Twice(pair[0].clone()));
    }
    let mut same: Vec<(String, &TrialId)> = before
        .iter()
        .map(|t| (t.measured(), &t.config.id))
        .collect();
    same.sort();
    if let Some(pair) = same.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(PlanError::Same(pair[0].1.clone(), pair[1].1.clone()));
    }
    Ok(Plan {
        fingerprint: corpus.fingerprint.clone(),
        tokens_per_triplet: corpus.tokens_per_triplet,
        left_out: None,
        pairs: Pairs::default(),
        trials: before,
    })
}

/// Tokens of the longest sequence that samples can make, newlines of a token each.
pub fn longest_sequence(samples: &SampleConfig) -> u64 {
    let newlines = match samples.wrapper {
        Wrapper::Pretrain => 0,
        Wrapper::Sft => 2,
    };
    let texts = samples.max_prompt.saturating_add(samples.max_response);
    (texts as u64)
        .saturating_mul(2)
        .saturating_add(3 + newlines)
}

impl PlannedTrial {
    /// What it trains and is measured on: two trials that agree in this are one.
    fn measured(&self) -> String {
        format!("{} {}", self.recipe_id, self.config.measurement.id())
    }

    /// FLOPs that it takes, apart from those that its trunk has done for it.
    pub fn own_flops(&self) -> f64 {
        let shared = self
            .config
            .execution
            .trunk
            .as_ref()
            .map_or(0, |trunk| trunk.step.0);
        self.flops_6nd * (1.0 - shared as f64 / self.config.recipe.steps.max(1) as f64)
    }
}

impl Plan {
    /// blake3 over what each trial's weights are a function of and what it is measured on: what the
    /// run's name ends with. Machines, workers and places are not part of it, nor is the order in which
    /// the sweep lists its axes, so the same sweep continues the same run anywhere.
    pub fn digest(&self) -> String {
        let name = |trial: &PlannedTrial| format!("{} {}\n", trial.config.id, trial.measured());
        let mut names: Vec<String> = self.trials.iter().map(name).collect();
        names.sort();
        hex(names.concat().as_bytes())
    }
}
