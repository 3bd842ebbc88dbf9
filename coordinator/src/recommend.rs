//! From a run's laws to the trial that a compute budget is best spent on.
//!
//! A law is only followed as far as it has held: a fit that failed its own checks is refused unless that is
//! overruled, and how far beyond the data the budget lies is stated with the interval.

use crate::sweep::{BatchAxis, LrAxis, Share, State, Sweep, Workers, WorkersPerTrial};
use polestar_core::ByteCount;
use polestar_laws::{
    fits::{FinishedTrial, Fit, Interval, polar},
    report::{Analysis, ScalingLaw},
};
use polestar_model::{HeadKind, ModelConfig, ModelLayout, count};
use polestar_run::placement::Zero;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Compute, convention `6ND`.
    pub flops: f64,
    /// Memory of a worker for weights, gradients, moments and the copy for checkpoints.
    pub memory: Option<ByteCount>,
    /// Go on although the laws failed their checks.
    pub force: bool,
}

/// What a recommendation rests on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The sweep that was run.
    pub sweep: &'a Sweep,
    /// Mean plain tokens of a triplet of its corpus.
    pub tokens_per_triplet: f64,
    /// Tokens in the corpus's vocabulary.
    pub vocabulary: u32,
    /// Its finished trials.
    pub finished: &'a [FinishedTrial],
    /// What was fitted to them.
    pub analysis: &'a Analysis,
    /// The law in compute.
    pub by_compute: &'a ScalingLaw,
}

/// The trial to train.
#[derive(Clone, Debug)]
pub struct Recommendation {
    /// A sweep of this one trial.
    pub sweep: Sweep,
    /// Its shape.
    pub model: ModelConfig,
    /// All its parameters.
    pub parameters: u64,
    /// 95% of the best number of parameters; `None` where nothing was resampled.
    pub parameters_interval: Option<Interval>,
    /// Plain tokens.
    pub tokens: f64,
    /// Predicted loss and its 95%, if the law in compute stands.
    pub loss: Option<(f64, Option<Interval>)>,
    /// The budget over the largest that was measured.
    pub extrapolation: f64,
    /// What failed, and was overruled; what the laws don't say.
    pub cautions: Vec<String>,
}

/// Why nothing is recommended.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no law to follow.
    #[error("no law says which size is best: {reason}. {}", needed.join(". "))]
    NoLaw {
        /// Why there is none.
        reason: String,
        /// What the sweep would need, by its keys.
        needed: Vec<String>,
    },
    /// The laws failed their own checks.
    #[error("these laws failed their own checks: {}. Run more, or extrapolate all the same with --force", .0.join("; "))]
    Checks(Vec<String>),
    /// Less than any training.
    #[error(
        "{flops:.2e} FLOPs are {steps} steps of the best size; that trains nothing. Ask for more compute"
    )]
    TooLittle {
        /// Asked for.
        flops: f64,
        /// What they pay for.
        steps: u64,
    },
}

/// The largest error of a prediction of the largest budget that is still called held.
const HOLD_OUT: f64 = 0.05;
/// An extrapolation beyond this many times the largest measured budget fails its check.
const FAR: f64 = 1e4;
/// Fewer steps train nothing that the laws are about.
const FEWEST_STEPS: u64 = 100;

/// The trial to spend a budget on.
///
/// # Errors
/// [`Refusal`] says what is missing.
pub fn recommend(inputs: &Inputs, request: Request) -> Result<Recommendation, Refusal> {
    let law = match &inputs.analysis.optimal {
        Fit::Fitted(laws) => &laws.size,
        Fit::Refused(reason) => {
            return Err(Refusal::NoLaw {
                reason: reason.clone(),
                needed: needed(inputs),
            });
        }
    };
    let compute = inputs.finished.iter().filter_map(FinishedTrial::compute);
    let extrapolation = request.flops / compute.fold(0.0, f64::max);
    let mut cautions = failed_checks(inputs, extrapolation);
    if !cautions.is_empty() && !request.force {
        return Err(Refusal::Checks(cautions));
    }
    let model = of_size(law.predict(request.flops), inputs.vocabulary);
    let parameters = count::parameters(&model).total;
    let triplets = request.flops / (count::flops_6nd(&model, 1) * inputs.tokens_per_triplet);
    let mut sweep = alone(inputs.sweep, &model);
    let tokens = triplets * inputs.tokens_per_triplet;
    cautions.push(set_rate_and_batch(inputs, parameters, tokens, &mut sweep));
    let steps = (triplets / f64::from(sweep.train.batch)).round() as u64;
    if steps < FEWEST_STEPS {
        return Err(Refusal::TooLittle {
            flops: request.flops,
            steps,
        });
    }
    sweep.sweep.steps = vec![steps];
    cautions.extend(fit_memory(&mut sweep, &model, request.memory));
    let loss = inputs.by_compute.fitted();
    let loss = loss.map(|law| (law.predict(request.flops), law.band(request.flops)));
    Ok(Recommendation {
        parameters,
        parameters_interval: law.band(request.flops),
        tokens: steps as f64 * f64::from(sweep.train.batch) * inputs.tokens_per_triplet,
        sweep,
        model,
        loss,
        extrapolation,
        cautions,
    })
}

/// Budgets and sizes of each that a law of the best size takes.
const FEWEST: usize = 3;

/// What a sweep needs so that there is a law of the best size.
fn needed(inputs: &Inputs) -> Vec<String> {
    let axes = &inputs.sweep.sweep;
    let mut needed = Vec::new();
    if axes.budgets.len() < FEWEST {
        let there = match axes.budgets.len() {
            0 => "it has none".to_owned(),
            count => format!("it has {count}"),
        };
        needed.push(format!(
            "Give the sweep at least {FEWEST} compute budgets in sweep.budgets, such as [1e15, 4e15, 1.6e16] ({there}); sizes compete at each of them"
        ));
    }
    if axes.sizes.len() < FEWEST {
        needed.push(format!(
            "List at least {FEWEST} sizes in sweep.sizes ({} there), some smaller and some larger than the best one of each budget",
            match axes.sizes.len() {
                1 => "one is".to_owned(),
                count => format!("{count} are"),
            }
        ));
    }
    let unfound = inputs.analysis.no_valleys.iter().map(|without| {
        format!(
            "At {:.2e} FLOPs no size is best: {}",
            without.flops, without.reason
        )
    });
    needed.extend(unfound);
    if needed.is_empty() {
        needed.push("Wait for the trials that have not finished, or run more budgets".to_owned());
    }
    needed
}

/// The sweep that was run, with one trial of `model` in the place of its axes.
fn alone(run: &Sweep, model: &ModelConfig) -> Sweep {
    let mut sweep = run.clone();
    sweep.name = format!("{}-recommended", sweep.name);
    // Weights to start from have one shape.
    sweep.start = None;
    sweep.models = [("recommended".to_owned(), model.clone())].into();
    let axes = &mut sweep.sweep;
    axes.sizes = vec!["recommended".to_owned()];
    axes.budgets = vec![];
    axes.tokens_per_parameter = vec![];
    axes.batch = None;
    axes.trunk = None;
    axes.policies = vec![];
    axes.distance = vec![];
    axes.envelope = None;
    axes.seeds.truncate(1);
    sweep
}

/// The checks that the laws failed.
fn failed_checks(inputs: &Inputs, extrapolation: f64) -> Vec<String> {
    let analysis = inputs.analysis;
    let mut failed = Vec::new();
    if extrapolation > FAR {
        failed.push(format!(
            "the budget is {extrapolation:.0} times the largest that was measured"
        ));
    }
    let last = analysis.valleys.last().map_or(0.0, |valley| valley.flops);
    for without in analysis.no_valleys.iter().filter(|w| w.flops > last) {
        failed.push(format!(
            "at {:.2e} FLOPs, its largest, there is no best size ({})",
            without.flops, without.reason
        ));
    }
    if let Some(law) = analysis.optimal.fitted().map(|laws| &laws.size)
        && let Some(lowest) = law.exponent_interval.map(|interval| interval.lo)
        && lowest <= 0.0
    {
        failed.push(format!(
            "the exponent of the best size may be {lowest:.2}: these points don't show that it grows"
        ));
    }
    for held in &analysis.hold_out {
        let error = (held.predicted / held.measured - 1.0).abs();
        if error > HOLD_OUT {
            failed.push(format!(
                "the {} missed the largest budget by {:.1}% when it hadn't seen it",
                held.law,
                100.0 * error
            ));
        }
    }
    failed
}

/// The shape whose parameters, embedding included, are nearest to `wanted`.
fn of_size(wanted: f64, vocabulary: u32) -> ModelConfig {
    let total = |target: f64| {
        let model = ModelConfig::near(target as u64, vocabulary);
        (count::parameters(&model).total as f64, model)
    };
    // The number without the embedding lies below the whole; sizes are a percent or so apart at most.
    let (mut lo, mut hi) = (1e3_f64, wanted.max(2e3));
    for _ in 0..60 {
        let middle = (lo * hi).sqrt();
        if total(middle).0 < wanted {
            lo = middle;
        } else {
            hi = middle;
        }
    }
    let (below, above) = (total(lo), total(hi));
    let distance = |found: f64| (found / wanted).ln().abs();
    if distance(below.0) <= distance(above.0) {
        below.1
    } else {
        above.1
    }
}

/// Sets learning rate and batch of the new size, and says where they come from: the paper's laws where the
/// run followed them, else the best trial of the largest size that was run.
fn set_rate_and_batch(inputs: &Inputs, parameters: u64, tokens: f64, sweep: &mut Sweep) -> String {
    let best = best_of_largest(inputs.finished);
    let known = "a trial of a sweep knows its learning rate and its batch";
    let (lr, batch) = (best.at.lr.expect(known), best.at.batch.expect(known));
    let from = format!(
        "of {}, the best trial of the largest size that was run: no law of it was measured",
        best.name
    );
    let axes = &mut sweep.sweep;
    let batch = match &inputs.sweep.sweep.batch {
        Some(BatchAxis::Law(_)) => {
            let lawful = polar::batch(parameters as f64, tokens);
            // As plans round it: to whole lanes.
            let lanes = f64::from(sweep.train.lanes);
            sweep.train.batch = ((lawful / lanes).round().max(1.0) * lanes) as u32;
            format!("batch {} is by the paper's law", sweep.train.batch)
        }
        _ => {
            sweep.train.batch = batch;
            format!("batch {batch} is that {from}")
        }
    };
    let rate = match &inputs.sweep.sweep.lr {
        // The plan follows it: the recommended sweep says the same words.
        LrAxis::Law(law) => {
            axes.lr = LrAxis::Law(*law);
            "the learning rate is by the paper's law".to_owned()
        }
        _ => {
            axes.lr = LrAxis::default();
            sweep.train.optimizer.lr = lr;
            format!("learning rate {lr} is that {from}")
        }
    };
    format!("{rate}; {batch}")
}

/// Of the trials of the largest size, the one of lowest loss at the largest compute.
fn best_of_largest(finished: &[FinishedTrial]) -> &FinishedTrial {
    let params = |trial: &FinishedTrial| trial.params.unwrap_or(0.0);
    let best = finished.iter().max_by(|a, b| {
        params(a)
            .total_cmp(&params(b))
            .then_with(|| a.cmp_compute(b))
            .then_with(|| b.loss.total_cmp(&a.loss))
    });
    best.expect("a law of the best size was fitted to some trials")
}

/// The smallest world and the lowest ZeRO stage that hold the model.
fn fit_memory(sweep: &mut Sweep, model: &ModelConfig, limit: Option<ByteCount>) -> Option<String> {
    let limit = limit.or_else(|| sweep.pool.memory())?;
    let layout = ModelLayout::new(model, HeadKind::Reward);
    let train = &mut sweep.train;
    let state = State {
        layout: &layout,
        train,
        samples: &sweep.samples,
    };
    let found = Share::smallest(1..=train.lanes, limit, &state);
    let most = Share {
        world: train.lanes,
        zero: Zero::Weights,
    };
    let least = most.least_memory(&state).gib();
    let share = found.unwrap_or(most);
    train.zero = share.zero;
    sweep.pool.workers_per_trial = share
        .world
        .try_into()
        .map_or(WorkersPerTrial::one(), WorkersPerTrial::Fixed);
    if sweep.pool.workers.number() < share.world {
        sweep.pool.workers = Workers::Fixed(share.world);
    }
    found.is_none().then(|| {
        format!(
            "even sharded over all {} lanes it needs {least:.1} GiB a worker: raise train.lanes and the workers",
            train.lanes
        )
    })
}

impl Recommendation {
    /// The sweep file, with what it rests on as comments.
    ///
    /// # Errors
    /// A value that TOML can't express.
    pub fn toml(&self, flops: f64, run: &str) -> Result<String, toml::ser::Error> {
        let best = self
            .parameters_interval
            .map(|Interval { lo, hi }| format!(", best between {lo:.3e} and {hi:.3e} (95%)"));
        let mut text = format!(
            "# Recommended for {flops:.2e} FLOPs (6 x non-embedding parameters x tokens) by the laws of\n# {run}.\n\
             # {:.1} times the largest compute that was measured.\n\
             # Parameters: {:.3e}{}. Tokens: {:.3e}.\n",
            self.extrapolation,
            self.parameters as f64,
            best.unwrap_or_default(),
            self.tokens
        );
        if let Some((loss, band)) = self.loss {
            let band = band.map(|Interval { lo, hi }| format!(" ({lo:.4} to {hi:.4})"));
            let band = band.unwrap_or_default();
            text += &format!("# Loss by the law in compute: {loss:.4}{band}.\n");
        }
        for caution in &self.cautions {
            text += &format!("# Caution: {caution}.\n");
        }
        // TOML has f64 only: an f32 that passes through it gets digits that were never written.
        let mut value = toml::Value::try_from(&self.sweep)?;
        shorten(&mut value);
        text += "\n";
        text += &toml::to_string(&value)?;
        Ok(text)
    }
}

/// Seven digits say all of an f32, and enough of everything else in a sweep.
fn shorten(value: &mut toml::Value) {
    match value {
        toml::Value::Float(x) => {
            let short = format!("{x:.6e}").parse();
            *x = short.unwrap_or(*x);
        }
        toml::Value::Array(values) => values.iter_mut().for_each(shorten),
        toml::Value::Table(table) => table.iter_mut().for_each(|(_, value)| shorten(value)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
