//! What several figures need of a report.

use super::{axis::Axis, model::Dimension};
use crate::{
    coordinates::grouped,
    fits::{Curve, FinishedTrial, Fit, Interval, frontier},
    report::{PreferenceScore, PreferenceSet, Quantity, Report, number},
};

/// Losses so far above chance say that a trial diverged, not how it scales; they would flatten everything
/// else.
const DIVERGED: f64 = 1.05;

/// Title of the figure of valleys.
pub(super) const VALLEYS: &str = "Sizes at equal compute";
/// Title of the figure of residuals.
pub(super) const RESIDUALS: &str = "What the law in N and D leaves over";
/// Title of the figure of training curves.
pub(super) const CURVES: &str = "Training curves";
/// Files of the figures of preference benchmarks; further ones stand in the page's tables only.
pub(super) const PREFERENCES: [&str; 4] = [
    "preference-1",
    "preference-2",
    "preference-3",
    "preference-4",
];

/// A model size of a report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Size<'a> {
    pub name: &'a str,
    pub params: Option<f64>,
}

impl<'a> Size<'a> {
    fn of(trial: &'a FinishedTrial) -> Self {
        Self {
            name: &trial.at.size,
            params: trial.params,
        }
    }

    fn of_curve(curve: &'a Curve) -> Self {
        Self {
            name: &curve.size,
            params: Some(curve.params),
        }
    }
}

/// The sizes of a report in the order in which they are coloured: ascending in parameters.
pub(super) struct Sizes<'a>(pub Vec<Size<'a>>);

impl<'a> Sizes<'a> {
    pub(super) fn of(report: &'a Report) -> Self {
        let trials = report.input.finished.iter().map(Size::of);
        let mut sizes: Vec<Size> = trials
            .chain(report.input.curves.iter().map(Size::of_curve))
            .collect();
        let params = |size: &Size| size.params.unwrap_or(0.0);
        sizes.sort_by(|a, b| {
            params(a)
                .total_cmp(&params(b))
                .then_with(|| a.name.cmp(b.name))
        });
        sizes.dedup();
        Self(sizes)
    }

    /// Place of a trial's size in the order of colours.
    pub(super) fn index(&self, trial: &FinishedTrial) -> usize {
        self.place(Size::of(trial))
    }

    /// Place of a curve's size in the order of colours.
    pub(super) fn index_of_curve(&self, curve: &Curve) -> usize {
        self.place(Size::of_curve(curve))
    }

    fn place(&self, size: Size) -> usize {
        let place = self.0.iter().position(|other| *other == size);
        place.expect("every trial and every curve has given its size")
    }
}

/// The trials that compete at one compute budget.
pub(super) struct Budget<'a> {
    /// The budget.
    pub flops: f64,
    /// Its trials with their N, ascending in it.
    pub trials: Vec<(f64, &'a FinishedTrial)>,
    /// Each size and its mean loss over the seeds of its best setting.
    pub means: Vec<(f64, f64)>,
}

/// The budgets of a report, ascending.
pub(super) fn budgets(report: &Report) -> Vec<Budget<'_>> {
    let best = frontier::best_settings(&report.input.finished);
    let trials = report.input.finished.iter();
    let trials = trials.filter_map(|trial| Some((trial.at.budget()?, trial.params?, trial)));
    let mut budgets: Vec<Budget> = grouped(trials, |a, b| a.0 == b.0)
        .into_iter()
        .map(|group| {
            let flops = group[0].0;
            let mut trials: Vec<_> = group.into_iter().map(|(_, n, trial)| (n, trial)).collect();
            trials.sort_by(|a, b| a.0.total_cmp(&b.0));
            Budget {
                flops,
                means: means(&trials, &best),
                trials,
            }
        })
        .collect();
    budgets.sort_by(|a, b| a.flops.total_cmp(&b.flops));
    budgets
}

/// Mean losses by N of those `trials` that are among the `best`.
fn means(trials: &[(f64, &FinishedTrial)], best: &[&FinishedTrial]) -> Vec<(f64, f64)> {
    let is_best = |trial: &FinishedTrial| best.iter().any(|other| std::ptr::eq(*other, trial));
    let runs: Vec<(f64, f64)> = trials
        .iter()
        .filter(|(_, trial)| is_best(trial))
        .map(|(n, trial)| (*n, trial.loss))
        .collect();
    let mean = |repeats: &[(f64, f64)]| {
        let losses: f64 = repeats.iter().map(|(_, loss)| loss).sum();
        (repeats[0].0, losses / repeats.len() as f64)
    };
    runs.chunk_by(|a, b| a.0 == b.0).map(mean).collect()
}

/// How a trial's loss compares with the law in N and D.
pub(super) struct Residual<'a> {
    pub trial: &'a FinishedTrial,
    pub tokens: f64,
    /// Measured loss over the law's.
    pub ratio: f64,
}

/// Of every trial whose N and D are known; `None` without a law.
pub(super) fn residuals(report: &Report) -> Option<Vec<Residual<'_>>> {
    let law = report.analysis.parametric.fitted()?.law;
    let finished = report.input.finished.iter();
    let residual = |trial: &'_ FinishedTrial| -> Option<(f64, f64)> {
        let run = trial.run()?;
        (run.loss.is_finite() && run.d > 0.0).then(|| (run.d, run.loss / law.predict(run.n, run.d)))
    };
    let of = |trial| {
        let (tokens, ratio) = residual(trial)?;
        Some(Residual {
            trial,
            tokens,
            ratio,
        })
    };
    Some(finished.filter_map(of).collect())
}

/// Compute, score and trial of those on a benchmark whose compute is known.
pub(super) fn preferences<'a>(
    report: &'a Report,
    set: &'a PreferenceSet,
) -> Vec<(f64, &'a PreferenceScore, &'a FinishedTrial)> {
    let scored = set.trials.iter().filter_map(|score| {
        let mut finished = report.input.finished.iter();
        let trial = finished.find(|trial| trial.name == score.trial)?;
        Some((trial.flops?, score, trial))
    });
    scored.collect()
}

/// (tokens, loss) along one curve, where both have logarithms.
pub(super) struct Lines {
    pub training: Vec<(f64, f64)>,
    pub validation: Vec<(f64, f64)>,
}

impl Lines {
    pub(super) fn of(curve: &Curve) -> Self {
        let is_usable = |(tokens, loss): &(f64, f64)| {
            *tokens > 0.0 && *loss > 0.0 && tokens.is_finite() && loss.is_finite()
        };
        let training = curve.points.iter();
        let training = training.filter_map(|at| Some((at.tokens, at.train_loss?)));
        let validation = curve.points.iter();
        let validation = validation.filter_map(|at| Some((at.tokens, at.val_loss?)));
        Self {
            training: training.filter(is_usable).collect(),
            validation: validation.filter(is_usable).collect(),
        }
    }
}

/// How the best size grows with compute, or why that isn't known; without a full stop.
pub(super) fn best_size(report: &Report) -> String {
    match &report.analysis.optimal {
        Fit::Fitted(laws) => format!(
            "The best size grows as C^{:.3}{}",
            laws.size.exponent,
            number::stated(laws.size.exponent_interval, 3)
        ),
        Fit::Refused(reason) => format!("No law of the best size: {reason}"),
    }
}

impl Quantity {
    /// Title of the figure of its law.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Parameters => "Loss against model parameters",
            Self::Compute => "Loss against training compute",
        }
    }

    /// Its axis.
    pub(super) fn dimension(self, axis: Axis) -> Dimension {
        match self {
            Self::Parameters => Dimension {
                title: "model parameters N",
                short: "N",
                axis,
                format: number::count,
            },
            Self::Compute => Dimension {
                title: "training compute C (FLOPs)",
                short: "C",
                axis,
                format: number::flops,
            },
        }
    }
}

/// An axis of tokens.
pub(super) fn tokens(axis: Axis) -> Dimension {
    Dimension {
        title: "tokens trained on D",
        short: "tokens",
        axis,
        format: number::count,
    }
}

/// An axis of losses.
pub(super) fn loss(title: &'static str, axis: Axis) -> Dimension {
    Dimension {
        title,
        short: "loss",
        axis,
        format: |loss| number::significant(loss, 4),
    }
}

/// `0.650 (95%: 0.620 to 0.680)`.
pub(super) fn accuracy(share: f64, interval: Option<Interval>) -> String {
    format!("{share:.3}{}", number::stated(interval, 3))
}

impl Report {
    /// A loss from which on a trial has diverged.
    pub(super) fn diverged(&self) -> f64 {
        let chance = self.input.chance;
        chance.map_or(f64::INFINITY, |chance| DIVERGED * chance)
    }

    /// What the axis of losses is called.
    pub(super) fn loss_title(&self) -> &'static str {
        match self.input.chance {
            Some(_) => "validation loss (nats per triplet)",
            None => "loss (nats)",
        }
    }
}

/// A trial's numbers in a few words, lines apart.
pub(super) fn summary(trial: &FinishedTrial) -> String {
    let unknown = || "unknown".to_owned();
    let known = |value: Option<f64>| value.map_or_else(unknown, number::count);
    format!(
        "{}\nN {}, tokens {}, C {}\nloss {:.4}",
        trial.name,
        known(trial.params),
        known(trial.tokens),
        trial.flops.map_or_else(unknown, number::flops),
        trial.loss
    )
}
