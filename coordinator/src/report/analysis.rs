//! Fits beyond the two laws: valleys of each budget, the law in N and D together, and what they say of
//! the largest budget before it is looked at.

use super::Quantity;
use crate::laws::{
    Bootstrap, Interval, Observation, Parametric, Point, PowerLaw, Run, frontier,
    isoflop::{Cell, NoValley, Valley, valleys},
};
use serde::Serialize;

/// Everything that is fitted besides the laws in N and C.
#[derive(Clone, Debug, Serialize)]
pub struct Analysis {
    /// Budgets with a best size, ascending.
    pub valleys: Vec<Valley>,
    /// Budgets without, and why.
    pub no_valleys: Vec<NoValley>,
    /// How the best size grows: N* = coefficient · C^exponent.
    pub best_size: Option<PowerLaw>,
    /// Why it isn't told how the best size grows.
    pub best_size_refused: Option<String>,
    /// L(N, D) = E + A / N^α + B / D^β.
    pub parametric: Option<Parametric>,
    /// Why there is none.
    pub parametric_refused: Option<String>,
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
pub(super) fn analyse(points: &[Point]) -> Analysis {
    let sound: Vec<&Point> = points
        .iter()
        .filter(|p| p.loss.is_finite() && p.loss > 0.0 && p.flops > 0.0 && p.tokens > 0.0)
        .collect();
    let (valleys, no_valleys) = valleys(&cells(&sound));
    let (best_size, best_size_refused) = match best_size(&valleys) {
        Ok(law) => (Some(law), None),
        Err(reason) => (None, Some(reason)),
    };
    let runs: Vec<Run> = sound.iter().map(|p| run(p)).collect();
    let (parametric, parametric_refused) = match Parametric::fit(&runs, Bootstrap::default()) {
        Ok(law) => (Some(law), None),
        Err(reason) => (None, Some(reason.to_string())),
    };
    Analysis {
        valleys,
        no_valleys,
        best_size,
        best_size_refused,
        parametric,
        parametric_refused,
        hold_out: hold_out(&sound),
    }
}

fn run(point: &Point) -> Run {
    Run {
        n: point.params as f64,
        d: point.tokens,
        loss: point.loss,
    }
}

/// The mean loss of every size at every budget.
fn cells(points: &[&Point]) -> Vec<Cell> {
    let mut budgeted: Vec<(f64, u64, f64)> = points
        .iter()
        .filter_map(|p| Some((p.budget?, p.params, p.loss)))
        .collect();
    budgeted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    budgeted
        .chunk_by(|a, b| (a.0, a.1) == (b.0, b.1))
        .map(|runs| Cell {
            flops: runs[0].0,
            n: runs[0].1 as f64,
            loss: runs.iter().map(|r| r.2).sum::<f64>() / runs.len() as f64,
        })
        .collect()
}

fn best_size(valleys: &[Valley]) -> Result<PowerLaw, String> {
    let points: Vec<Observation> = valleys
        .iter()
        .map(|valley| Observation {
            label: format!("{:.2e} FLOPs", valley.flops),
            x: valley.flops,
            loss: valley.n,
        })
        .collect();
    PowerLaw::fit(
        "compute (budgets with a best size)",
        &points,
        Bootstrap::default(),
    )
    .map_err(|reason| reason.to_string())
}

/// The largest compute, predicted by laws that haven't seen it.
fn hold_out(points: &[&Point]) -> Vec<HoldOut> {
    let compute = |p: &Point| p.budget.unwrap_or(p.flops);
    let Some(largest) = points.iter().map(|p| compute(p)).max_by(f64::total_cmp) else {
        return Vec::new();
    };
    let (unknown, known): (Vec<&Point>, Vec<&Point>) =
        points.iter().partition(|p| compute(p) >= largest);
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
    let chosen = frontier::by_compute(&known, &[]).chosen;
    if let Ok(law) = PowerLaw::fit(Quantity::Compute.symbol(), &chosen, Bootstrap::default()) {
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
    fn planted() -> Vec<Point> {
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
                    seed: 1,
                    loss: 0.2 + 20.0 / n.powf(0.35) + 60.0 / tokens.powf(0.35),
                });
            }
        }
        points
    }

    #[test]
    fn a_planted_law_is_found_and_predicts_the_largest_budget() {
        let found = analyse(&planted());
        assert_eq!((found.valleys.len(), found.no_valleys.len()), (4, 0));
        let exponent = found.best_size.unwrap().exponent;
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
        let one_size: Vec<Point> = planted().into_iter().filter(|p| p.size == "3").collect();
        let found = analyse(&one_size);
        assert_eq!(found.no_valleys.len(), 4);
        assert!(found.best_size.is_none() && found.best_size_refused.is_some());
        assert!(found.parametric.is_none() && found.parametric_refused.is_some());
        assert!(analyse(&[]).hold_out.is_empty());
    }
}
