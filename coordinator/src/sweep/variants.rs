//! The trials of one size: every learning rate, batch and choice of policies with every length.

use super::{
    PlanError,
    axes::{BatchAxis, LrAxis},
    expand::Maker,
};
use polestar_laws::{Length, Policies, Spread, fits::polar};
use polestar_model::{ModelConfig, count};
use polestar_run::TrainConfig;

/// Fewer steps than this are no training.
pub(super) const MIN_STEPS: u64 = 4;

/// More steps than this are a slip of the pen: a trial of a millisecond a step would take eleven days.
pub(super) const MAX_STEPS: f64 = 1e9;

/// How long a trial is.
#[derive(Clone)]
pub(super) struct Duration {
    /// In a trial's name.
    pub label: String,
    /// On the sweep's axis.
    pub length: Length,
    pub steps: u64,
}

/// Trials of one size that differ in their lengths only.
pub(super) struct Variant {
    /// What tells them from those of another learning rate, batch or number of policies.
    pub suffix: String,
    pub train: TrainConfig,
    pub policies: Option<Policies>,
    pub lengths: Vec<Duration>,
}

impl Maker<'_> {
    /// Learning rates, batches and policies of a size, each with its lengths.
    pub(super) fn variants(
        &self,
        size: &str,
        model: &ModelConfig,
        train: &TrainConfig,
    ) -> Result<Vec<Variant>, PlanError> {
        let axes = &self.sweep.sweep;
        let batches = match &axes.batch {
            Some(BatchAxis::Each(batches)) => batches.clone(),
            _ => vec![train.batch],
        };
        let rates = match &axes.lr {
            LrAxis::Each(rates) => rates.clone(),
            _ => vec![train.optimizer.lr],
        };
        let policies = axes.choices();
        let mut variants = Vec::new();
        for &batch in &batches {
            let lengths = self.lengths(size, model, batch)?;
            for &lr in &rates {
                for &policies in &policies {
                    let mut suffix = String::new();
                    if batches.len() > 1 {
                        suffix += &format!("-b{batch}");
                    }
                    if rates.len() > 1 {
                        suffix += &format!("-lr{lr:e}");
                    }
                    if let Some(Policies { count, spread }) = policies {
                        suffix += match (axes.distance.is_empty(), spread) {
                            (true, _) => "",
                            (false, Spread::Any) => "-any",
                            (false, Spread::Near) => "-near",
                            (false, Spread::Far) => "-far",
                        };
                        suffix += &format!("-p{count}");
                    }
                    let mut train = train.clone();
                    train.batch = batch;
                    train.optimizer.lr = lr;
                    variants.push(Variant {
                        suffix,
                        train,
                        policies,
                        lengths: lengths.clone(),
                    });
                }
            }
        }
        if self.follows_a_law() {
            // By the paper's laws every length is a variant of its own.
            let mut apart = Vec::new();
            for variant in variants {
                for length in &variant.lengths {
                    apart.push(self.by_law(size, model, &variant, length)?);
                }
            }
            variants = apart;
        }
        for duration in variants.iter().flat_map(|variant| &variant.lengths) {
            not_too_long(size, duration)?;
        }
        Ok(variants)
    }

    fn follows_a_law(&self) -> bool {
        let axes = &self.sweep.sweep;
        matches!(axes.lr, LrAxis::Law(_)) || matches!(axes.batch, Some(BatchAxis::Law(_)))
    }

    /// One length, with batch and learning rate by the paper's laws: the batch first, rounded to whole
    /// lanes, and as many steps as then make the same number of tokens.
    fn by_law(
        &self,
        size: &str,
        model: &ModelConfig,
        variant: &Variant,
        length: &Duration,
    ) -> Result<Variant, PlanError> {
        let axes = &self.sweep.sweep;
        let (mut train, mut length) = (variant.train.clone(), length.clone());
        let parameters = count::parameters(model).total as f64;
        let triplets = length.steps as f64 * f64::from(train.batch);
        let tokens = triplets * self.tokens_per_triplet();
        if let Some(BatchAxis::Law(_)) = axes.batch {
            let lanes = f64::from(train.lanes);
            let lawful = (polar::batch(parameters, tokens) / lanes).round().max(1.0) * lanes;
            train.batch = lawful as u32;
            length.steps = self.enough(size, length.length, model, train.batch, triplets)?;
        }
        if let (LrAxis::Law(_), Some(before)) = (&axes.lr, axes.pretrain_tokens) {
            train.optimizer.lr = polar::learning_rate(parameters, before, tokens) as f32;
        }
        Ok(Variant {
            suffix: variant.suffix.clone(),
            train,
            policies: variant.policies,
            lengths: vec![length],
        })
    }

    /// Label, budget and steps of each length on the sweep's axis.
    fn lengths(
        &self,
        size: &str,
        model: &ModelConfig,
        batch: u32,
    ) -> Result<Vec<Duration>, PlanError> {
        let axes = &self.sweep.sweep;
        let non_embedding = count::parameters(model).non_embedding as f64;
        let mut lengths = Vec::new();
        for &budget in &axes.budgets {
            let triplets = budget / self.flops(model, 1, 1);
            lengths.push(Duration {
                label: budget_label(budget, &axes.budgets),
                length: Length::Budget(budget),
                steps: self.enough(size, Length::Budget(budget), model, batch, triplets)?,
            });
        }
        for &multiple in &axes.tokens_per_parameter {
            let triplets = multiple * non_embedding / self.tokens_per_triplet();
            let length = Length::TokensPerParameter(multiple);
            lengths.push(Duration {
                label: format!("{multiple}x"),
                length,
                steps: self.enough(size, length, model, batch, triplets)?,
            });
        }
        for &steps in &axes.steps {
            lengths.push(Duration {
                label: format!("{steps}steps"),
                length: Length::Steps(steps),
                steps,
            });
        }
        Ok(lengths)
    }

    /// Steps of `batch` triplets that make `triplets`.
    fn enough(
        &self,
        size: &str,
        length: Length,
        model: &ModelConfig,
        batch: u32,
        triplets: f64,
    ) -> Result<u64, PlanError> {
        let steps = (triplets / f64::from(batch)).round() as u64;
        if steps >= MIN_STEPS {
            return Ok(steps);
        }
        Err(match length {
            Length::Budget(budget) => PlanError::BudgetTooSmall {
                budget,
                size: size.to_owned(),
                steps,
                enough: self.flops(model, batch, MIN_STEPS),
            },
            _ => PlanError::TooShort {
                size: size.to_owned(),
                steps,
                enough: MIN_STEPS as f64 * f64::from(batch) * self.tokens_per_triplet()
                    / count::parameters(model).non_embedding as f64,
            },
        })
    }

    pub(super) fn flops(&self, model: &ModelConfig, batch: u32, steps: u64) -> f64 {
        count::flops_6nd(model, 1) * self.tokens_per_triplet() * f64::from(batch) * steps as f64
    }
}

/// A budget in a trial's name: with three digits, or with all where another one has the same three.
fn budget_label(budget: f64, all: &[f64]) -> String {
    let short = |budget: f64| format!("{budget:.2e}").replace(".00e", "e");
    let alike = all
        .iter()
        .any(|&b| b != budget && short(b) == short(budget));
    match alike {
        true => format!("{budget:e}"),
        false => short(budget),
    }
}

/// Refuses what nobody has the time for, before numbers that end somewhere count what it takes.
fn not_too_long(size: &str, duration: &Duration) -> Result<(), PlanError> {
    if duration.steps as f64 <= MAX_STEPS {
        return Ok(());
    }
    Err(PlanError::TooLong {
        size: size.to_owned(),
        length: match duration.length {
            Length::Budget(flops) | Length::Flops(flops) => format!("sweep.budgets = [{flops:e}]"),
            Length::TokensPerParameter(tokens) => {
                format!("sweep.tokens_per_parameter = [{tokens:e}]")
            }
            Length::Steps(steps) => format!("sweep.steps = [{steps}]"),
        },
    })
}
