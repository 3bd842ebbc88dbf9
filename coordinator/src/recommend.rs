//! From a run's laws to the trial that a compute budget is best spent on.
//!
//! A law is only followed as far as it has held: a fit that failed its own checks is refused unless
//! somebody insists, and how far beyond the data the budget lies is stated with the interval.

use crate::sweep::{GIB, LrAxis, Share, Sweep};
use polestar_laws::{
    fits::{Interval, Point},
    report::{Analysis, Law},
};
use polestar_model::{HeadKind, ModelConfig, ModelLayout, count};
use polestar_run::placement::Zero;

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Compute, convention `6ND`.
    pub flops: f64,
    /// Memory of a worker for weights, gradients, moments and the copy for checkpoints, in bytes.
    pub memory: Option<f64>,
    /// Go on although the laws failed their checks.
    pub anyway: bool,
}

/// What a recommendation rests on.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The sweep that was run.
    pub sweep: &'a Sweep,
    /// Mean plain tokens of a triplet of its corpus.
    pub tokens_per_triplet: f64,
    /// Tokens in the corpus's vocabulary.
    pub vocabulary: u32,
    /// Its finished trials.
    pub points: &'a [Point],
    /// What was fitted to them.
    pub analysis: &'a Analysis,
    /// The law in compute.
    pub by_compute: &'a Law,
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
    /// 95% of the best number of parameters.
    pub parameters_interval: Interval,
    /// Plain tokens.
    pub tokens: f64,
    /// Predicted loss and its 95%, if the law in compute stands.
    pub loss: Option<(f64, Interval)>,
    /// The budget over the largest that was measured.
    pub extrapolation: f64,
    /// What failed, and was overruled; what the laws don't say.
    pub cautions: Vec<String>,
}

/// Why nothing is recommended.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no law to follow.
    #[error(
        "no law says which size is best: {0}. Run budgets with smaller and larger sizes around the best one"
    )]
    NoLaw(String),
    /// The laws failed their own checks.
    #[error("these laws failed their own checks: {}. Run more, or say --anyway to extrapolate all the same", .0.join("; "))]
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
/// Beyond so many times the largest measured budget an extrapolation fails its check.
const FAR: f64 = 1e4;

/// The trial to spend a budget on.
///
/// # Errors
/// [`Refusal`] says what is missing.
pub fn recommend(evidence: &Evidence, wish: Wish) -> Result<Recommendation, Refusal> {
    let analysis = evidence.analysis;
    let Some(law) = analysis.optimal.as_ref().map(|laws| &laws.size) else {
        let reason = analysis.optimal_refused.clone();
        return Err(Refusal::NoLaw(reason.unwrap_or_default()));
    };
    let compute = evidence.points.iter().map(Point::compute);
    let largest = compute.fold(0.0, f64::max);
    let extrapolation = wish.flops / largest;
    let mut cautions = failed(evidence, extrapolation);
    if !cautions.is_empty() && !wish.anyway {
        return Err(Refusal::Checks(cautions));
    }
    let wanted = law.predict(wish.flops);
    let model = of_size(wanted, evidence.vocabulary);
    let counted = count::parameters(&model);
    let per_triplet = count::flops_6nd(&model, 1) * evidence.tokens_per_triplet;
    let mut sweep = evidence.sweep.clone();
    let steps = (wish.flops / per_triplet / f64::from(sweep.train.batch)).round() as u64;
    if steps < 100 {
        return Err(Refusal::TooLittle {
            flops: wish.flops,
            steps,
        });
    }
    cautions.extend(rates(evidence, &mut sweep));
    cautions.extend(fit_memory(&mut sweep, &model, wish.memory));

    sweep.name = format!("{}-recommended", sweep.name);
    sweep.models = [("recommended".to_owned(), model.clone())].into();
    let axes = &mut sweep.sweep;
    axes.sizes = vec!["recommended".to_owned()];
    axes.steps = vec![steps];
    axes.budgets = vec![];
    axes.tokens_per_parameter = vec![];
    axes.lr = LrAxis::default();
    axes.batch = None;
    axes.trunk = None;
    axes.policies = vec![];
    axes.distance = vec![];
    axes.envelope = None;
    axes.seeds.truncate(1);
    let loss = evidence.by_compute.fitted();
    let loss = loss.map(|law| (law.predict(wish.flops), law.band(wish.flops)));
    Ok(Recommendation {
        parameters: counted.total,
        parameters_interval: law.band(wish.flops),
        tokens: steps as f64 * f64::from(sweep.train.batch) * evidence.tokens_per_triplet,
        sweep,
        model,
        loss,
        extrapolation,
        cautions,
    })
}

/// The checks that the laws failed.
fn failed(evidence: &Evidence, extrapolation: f64) -> Vec<String> {
    let analysis = evidence.analysis;
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
    if let Some(law) = analysis.optimal.as_ref().map(|laws| &laws.size)
        && law.exponent_interval.lo <= 0.0
    {
        failed.push(format!(
            "the exponent of the best size may be {:.2}: these points don't show that it grows",
            law.exponent_interval.lo
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

/// Learning rate of the new size: what its nearest size was trained with.
fn rates(evidence: &Evidence, sweep: &mut Sweep) -> Option<String> {
    let mut tried: Vec<(&Point, f32)> = Vec::new();
    for point in evidence.points {
        let lr = match &evidence.sweep.sweep.lr {
            LrAxis::BySize(by_size) => by_size.get(&point.size).copied(),
            _ => None,
        };
        tried.push((point, lr.unwrap_or(evidence.sweep.train.optimizer.lr)));
    }
    let largest = tried.iter().max_by_key(|(point, _)| point.params)?;
    sweep.train.optimizer.lr = largest.1;
    Some(format!(
        "learning rate {} and batch {} are those of the largest size that was run, {}: no law of either was measured",
        largest.1, sweep.train.batch, largest.0.size
    ))
}

/// The smallest world and the lowest ZeRO stage that hold the model.
fn fit_memory(sweep: &mut Sweep, model: &ModelConfig, limit: Option<f64>) -> Option<String> {
    let limit = limit.or_else(|| sweep.pool.memory_gib.map(|gib| gib * GIB))?;
    let layout = ModelLayout::new(model, HeadKind::Reward);
    let train = &mut sweep.train;
    let found = Share::smallest(1..=train.lanes, limit, &layout, train);
    let most = Share {
        world: train.lanes,
        zero: Zero::Weights,
    };
    let share = found.unwrap_or(most);
    train.zero = share.zero;
    sweep.pool.workers_per_trial = share.world;
    sweep.pool.workers = sweep.pool.workers.max(share.world);
    found.is_none().then(|| {
        format!(
            "even sharded over all {} lanes it needs {:.1} GiB a worker: raise train.lanes and the workers",
            train.lanes,
            most.bytes(&layout, train) as f64 / GIB
        )
    })
}

impl Recommendation {
    /// The sweep file, with what it rests on as comments.
    ///
    /// # Errors
    /// A value that TOML can't express.
    pub fn toml(&self, flops: f64, run: &str) -> Result<String, toml::ser::Error> {
        let interval = self.parameters_interval;
        let mut text = format!(
            "# Recommended for {flops:.2e} FLOPs (6 x non-embedding parameters x tokens) by the laws of\n# {run}.\n\
             # {:.1} times the largest compute that was measured.\n\
             # Parameters: {:.3e}, best between {:.3e} and {:.3e} (95%). Tokens: {:.3e}.\n",
            self.extrapolation, self.parameters as f64, interval.lo, interval.hi, self.tokens
        );
        if let Some((loss, band)) = self.loss {
            text += &format!(
                "# Loss by the law in compute: {loss:.4} ({:.4} to {:.4}).\n",
                band.lo, band.hi
            );
        }
        for caution in &self.cautions {
            text += &format!("# Caution: {caution}.\n");
        }
        // By way of JSON: the file's own numbers, without the tails that f32 gets as f64.
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
mod tests {
    use super::*;
    use crate::sweep;
    use polestar_laws::report::{ReportInput, build};

    const SWEEP: &str = r#"
name = "planted"
store = "runs"
[corpus]
url = "c"
[train]
batch = 8
[train.optimizer]
lr = 2e-3
[sweep]
sizes = ["300k", "1M"]
budgets = [1e15, 4e15, 1.6e16, 6.4e16]
lr = { 1M = 1e-3 }
"#;

    /// Trials of a planted law at budgets of `6ND`, N without and params with the embedding.
    fn points(worst: f64) -> Vec<Point> {
        let mut points = Vec::new();
        for (i, budget) in [1e15, 4e15, 1.6e16, 6.4e16].into_iter().enumerate() {
            for size in 0..9 {
                let n = 3e5 * 2f64.powi(size);
                let tokens = budget / (6.0 * n);
                let noise = if i == 3 { worst } else { 0.0 };
                points.push(Point {
                    trial: format!("{size}-{budget:e}"),
                    size: size.to_string(),
                    params: n as u64,
                    flops: budget,
                    tokens,
                    budget: Some(budget),
                    policies: None,
                    distance: None,
                    seed: 1,
                    loss: 0.2 + noise + 2.0 / n.powf(0.2) + 5.0 / tokens.powf(0.2),
                });
            }
        }
        points
    }

    fn ask(points: Vec<Point>, wish: Wish) -> Result<Recommendation, Refusal> {
        let sweep = sweep::read_str("t.toml", SWEEP).unwrap();
        let input = ReportInput {
            points: points.clone(),
            ..ReportInput::default()
        };
        let report = build(&input);
        let evidence = Evidence {
            sweep: &sweep,
            tokens_per_triplet: 700.0,
            vocabulary: 256,
            points: &points,
            analysis: report.analysis(),
            by_compute: report.by_compute(),
        };
        recommend(&evidence, wish)
    }

    #[test]
    fn a_recommendation_is_a_sweep_that_spends_the_budget_on_the_best_size() {
        let wish = Wish {
            flops: 1e18,
            memory: Some(5e8),
            anyway: false,
        };
        let found = ask(points(0.0), wish).unwrap();
        // The planted optimum: with equal exponents N* = sqrt(C / 6) · (2 / 5)^(1 / 0.4).
        let best = (1e18_f64 / 6.0).sqrt() * 0.4_f64.powf(2.5);
        let ratio = found.parameters as f64 / best;
        assert!((0.8..1.25).contains(&ratio), "{ratio}");
        assert!((found.extrapolation - 1e18 / 6.4e16).abs() < 1e-9);
        let text = found.toml(1e18, "a run").unwrap();
        let sweep = sweep::read_str("recommended.toml", &text).expect(&text);
        let planned = sweep::plan(
            &sweep,
            &sweep::CorpusFacts {
                fingerprint: "f".into(),
                vocab: 256,
                tokens_per_triplet: 700.0,
                polar: sweep::Work::default(),
                lm: sweep::Work::default(),
                distances: None,
            },
        )
        .unwrap();
        assert_eq!(planned.trials.len(), 1);
        let spent = planned.trials[0].flops_6nd;
        assert!((spent / 1e18 - 1.0).abs() < 0.01, "{spent}");
        let held = planned.trials[0].state_bytes as f64;
        assert!(
            held <= 5e8,
            "{held} {:?} {}",
            sweep.train.zero,
            sweep.pool.workers_per_trial
        );
    }

    #[test]
    fn laws_that_failed_are_not_followed_unless_somebody_insists() {
        let wish = |anyway| Wish {
            flops: 1e18,
            memory: None,
            anyway,
        };
        let refused = ask(points(0.3), wish(false)).unwrap_err().to_string();
        assert!(refused.contains("missed the largest budget"), "{refused}");
        let found = ask(points(0.3), wish(true)).unwrap();
        assert!(found.cautions.iter().any(|c| c.contains("missed")));
        let few = points(0.0).into_iter().take(9).collect();
        assert!(matches!(ask(few, wish(true)), Err(Refusal::NoLaw(_))));
    }
}
