//! Fits beyond the two laws: valleys of each budget, the law in N and D together, and what they say of
//! the largest budget before it is looked at.

use super::{ByPolicies, Fitting, Quantity, ReportInput, policies::by_policies};
use crate::fits::{
    Bootstrap, Envelope, Interval, Parametric, Point, PowerLaw, Run, Track, frontier,
    isoflop::{Cell, NoValley, Optimal, Valley, valleys},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// Everything that is fitted besides the laws in N and C.
#[derive(Clone, Debug, Serialize)]
pub struct Analysis {
    /// Budgets with a best size, ascending.
    pub valleys: Vec<Valley>,
    /// Budgets without, and why.
    pub no_valleys: Vec<NoValley>,
    /// How the best size, its tokens and its loss grow with compute.
    pub optimal: Option<Optimal>,
    /// Why it isn't told how they grow.
    pub optimal_refused: Option<String>,
    /// L(N, D) = E + A / N^α + B / D^β.
    pub parametric: Option<Parametric>,
    /// Why there is none.
    pub parametric_refused: Option<String>,
    /// The law along training curves, if the sweep was made for it.
    pub envelope: Option<Envelope>,
    /// Why there is none.
    pub envelope_refused: Option<String>,
    /// How loss falls with the number of policies, where the sweep varies it.
    pub by_policies: Vec<ByPolicies>,
    /// The largest budget, predicted from the others.
    pub hold_out: Vec<HoldOut>,
}

/// A prediction from all but the largest budget.
#[derive(Clone, Debug, Serialize)]
pub struct HoldOut {
    /// Which law predicts.
    pub law: String,
    /// Name of the trial that is predicted.
    pub trial: String,
    /// Its loss.
    pub measured: f64,
    /// What the law gives.
    pub predicted: f64,
    /// 95% band of the law there, if it has one.
    pub band: Option<Interval>,
}

/// Looks at finished trials.
pub(super) fn analyse(input: &ReportInput, fitting: Fitting) -> Analysis {
    let Fitting { bootstrap, valley } = fitting;
    let sound: Vec<&Point> = input
        .points
        .iter()
        .filter(|p| p.loss.is_finite() && p.loss > 0.0 && p.flops > 0.0)
        .collect();
    let cells: Vec<Cell> = sound.iter().filter_map(|p| cell(p)).collect();
    let (valleys, no_valleys) = valleys(&cells, valley);
    let (optimal, optimal_refused) = told(Optimal::of(&valleys, bootstrap));
    let runs: Vec<Run> = sound.iter().map(|p| run(p)).collect();
    let fit = Parametric::fit_grouped(&runs, &groups(&sound), bootstrap);
    let (parametric, parametric_refused) = told(fit);
    let (envelope, envelope_refused) = match input.envelope {
        true => told(Envelope::fit(&tracks(input), bootstrap)),
        false => (None, None),
    };
    Analysis {
        valleys,
        no_valleys,
        optimal,
        optimal_refused,
        parametric,
        parametric_refused,
        envelope,
        envelope_refused,
        by_policies: by_policies(&sound),
        hold_out: hold_out(input, &sound, bootstrap),
    }
}

fn run(point: &Point) -> Run {
    Run {
        n: point.params as f64,
        d: point.tokens,
        loss: point.loss,
    }
}

/// A fit, or the sentence that says why there is none.
pub(super) fn told<T>(fit: Result<T, impl std::fmt::Display>) -> (Option<T>, Option<String>) {
    match fit {
        Ok(law) => (Some(law), None),
        Err(reason) => (None, Some(reason.to_string())),
    }
}

/// Validation along each trial.
fn tracks(input: &ReportInput) -> Vec<Track> {
    let track = |curve: &super::Curve| {
        let points = curve.points.iter();
        let points = points.filter_map(|p| Some((p.flops, p.val_loss?)));
        Track {
            trial: curve.trial.clone(),
            points: points.filter(|p| p.0 > 0.0 && p.1 > 0.0).collect(),
        }
    };
    input.curves.iter().map(track).collect()
}

/// What a trial says of its size at its budget.
fn cell(point: &Point) -> Option<Cell> {
    if point.params == 0 {
        return None;
    }
    Some(Cell {
        flops: point.budget?,
        n: point.params as f64,
        d: point.tokens,
        loss: point.loss,
    })
}

/// Indices of trials that differ in their seed only: what they are called without it is the same.
fn groups(points: &[&Point]) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, point) in points.iter().enumerate() {
        groups.entry(point.cell()).or_default().push(at);
    }
    groups.into_values().collect()
}

/// The largest compute, predicted by laws that haven't seen it.
fn hold_out(input: &ReportInput, points: &[&Point], bootstrap: Bootstrap) -> Vec<HoldOut> {
    let Some(largest) = points.iter().map(|p| p.compute()).max_by(f64::total_cmp) else {
        return Vec::new();
    };
    let (unknown, known): (Vec<&Point>, Vec<&Point>) =
        points.iter().partition(|p| p.compute() >= largest);
    let Some(best) = unknown.iter().min_by(|a, b| a.loss.total_cmp(&b.loss)) else {
        return Vec::new();
    };
    let known: Vec<Point> = known.into_iter().cloned().collect();
    let mut predictions = Vec::new();
    let mut predict = |law: &str, predicted: f64, band| {
        predictions.push(HoldOut {
            law: law.to_owned(),
            trial: best.trial.clone(),
            measured: best.loss,
            predicted,
            band,
        });
    };
    let chosen = frontier::by_compute(&known, &[], input.chance).chosen;
    if let Ok(law) = PowerLaw::fit(Quantity::Compute.symbol(), &chosen, bootstrap) {
        predict(
            "law in compute",
            law.predict(best.flops),
            Some(law.band(best.flops)),
        );
    }
    let none = Bootstrap {
        resamples: 0,
        seed: 0,
    };
    let runs: Vec<Run> = known.iter().map(run).collect();
    if let Ok(fit) = Parametric::fit(&runs, none) {
        let predicted = fit.law.predict(best.params as f64, best.tokens);
        predict("law in N and D", predicted, None);
    }
    predictions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Trials of a planted law, sizes by budgets, D = C / 6N.
    fn planted() -> ReportInput {
        let mut points = Vec::new();
        for budget in [1e15, 4e15, 1.6e16, 6.4e16] {
            for size in 0..9 {
                let n = 2e5 * 2f64.powi(size);
                let tokens = budget / (6.0 * n);
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
                    loss: 0.2 + 20.0 / n.powf(0.35) + 60.0 / tokens.powf(0.35),
                });
            }
        }
        ReportInput {
            points,
            ..ReportInput::default()
        }
    }

    #[test]
    fn a_planted_law_is_found_and_predicts_the_largest_budget() {
        let found = analyse(&planted(), Fitting::default());
        assert_eq!((found.valleys.len(), found.no_valleys.len()), (4, 0));
        let exponent = found.optimal.unwrap().size.exponent;
        assert!((exponent - 0.5).abs() < 0.02, "{exponent}");
        let fit = found.parametric.unwrap();
        assert!(fit.is_determined());
        let law = fit.law;
        assert!(
            (law.alpha - 0.35).abs() < 1e-3 && (law.beta - 0.35).abs() < 1e-3,
            "{law:?}"
        );
        assert_eq!(found.hold_out.len(), 2);
        for held in &found.hold_out {
            let error = (held.predicted / held.measured - 1.0).abs();
            let tolerance = if held.band.is_some() { 0.05 } else { 1e-4 };
            assert!(error < tolerance, "{held:?}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let mut one_size = planted();
        one_size.points.retain(|p| p.size == "3");
        let found = analyse(&one_size, Fitting::default());
        assert_eq!(found.no_valleys.len(), 4);
        assert!(found.optimal.is_none() && found.optimal_refused.is_some());
        assert!(found.parametric.is_none() && found.parametric_refused.is_some());
        let nothing = analyse(&ReportInput::default(), Fitting::default());
        assert!(nothing.hold_out.is_empty());
    }
}
