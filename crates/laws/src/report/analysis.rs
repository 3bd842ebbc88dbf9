//! Fits beyond the two laws: valleys of each budget, the law in N and D together, and what they say of
//! the largest budget before it is looked at.

use super::{ByPolicies, Fitting, Quantity, ReportInput, policies::by_policies};
use crate::{
    coordinates::grouped,
    fits::{
        Bootstrap, Envelope, FinishedTrial, Fit, Groups, Interval, Parametric, PowerLaw, Run,
        frontier,
        isoflop::{NoValley, Optimal, Valley, budgets, valleys},
    },
};
use serde::Serialize;

/// Everything that is fitted besides the laws in N and C.
#[derive(Clone, Debug, Serialize)]
pub struct Analysis {
    /// Budgets with a best size, ascending.
    pub valleys: Vec<Valley>,
    /// Budgets without, and why.
    pub no_valleys: Vec<NoValley>,
    /// How the best size, its tokens and its loss grow with compute.
    pub optimal: Fit<Optimal>,
    /// L(N, D) = E + A / N^α + B / D^β.
    pub parametric: Fit<Parametric>,
    /// Trials that are far off that law, and took part in it all the same.
    pub outliers: Vec<String>,
    /// The law along training curves, if the sweep was made for it.
    pub envelope: Option<Fit<Envelope>>,
    /// How loss falls with the number of policies, where the sweep varies it.
    pub by_policies: Vec<ByPolicies>,
    /// The largest budget, predicted from the others.
    pub hold_out: Vec<Prediction>,
}

/// A prediction from all but the largest budget.
#[derive(Clone, Debug, Serialize)]
pub struct Prediction {
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
    // A bad learning rate says nothing of how loss scales.
    let best = frontier::best_settings(&input.finished);
    let training = |at: usize| match &best[at].run {
        Some(run) => best
            .iter()
            .position(|trial| trial.run.as_ref() == Some(run)),
        None => Some(at),
    };
    let at_budgets = (0..best.len())
        .filter_map(|at| Some((best[at].at.budget()?, best[at].run()?, training(at)?)));
    let budgets = budgets(at_budgets);
    let (found, no_valleys) = valleys(&budgets, valley);
    let (parametric, outliers) = parametric(&best, bootstrap);
    let is_sound = |trial: &&FinishedTrial| trial.loss.is_finite() && trial.loss > 0.0;
    let sound: Vec<&FinishedTrial> = input.finished.iter().filter(is_sound).collect();
    Analysis {
        optimal: Optimal::of(&budgets, valley, bootstrap).into(),
        valleys: found,
        no_valleys,
        parametric,
        outliers,
        envelope: input
            .envelope
            .then(|| Envelope::fit(&input.curves, bootstrap).into()),
        by_policies: by_policies(&sound),
        hold_out: hold_out(input, &best, bootstrap),
    }
}

/// The law in N and D, and the trials that are far off it.
fn parametric(trials: &[&FinishedTrial], bootstrap: Bootstrap) -> (Fit<Parametric>, Vec<String>) {
    let known = trials
        .iter()
        .filter_map(|trial| Some((*trial, trial.run()?)));
    let (trials, runs): (Vec<&FinishedTrial>, Vec<Run>) = known.unzip();
    let groups = match trials.iter().any(|trial| trial.run.is_some()) {
        true => Groups::of_runs(grouped(0..trials.len(), |&a, &b| {
            a == b || trials[a].run.is_some() && trials[a].run == trials[b].run
        })),
        // Trials that differ in their seed only are drawn together.
        false => Groups::of_repeats(grouped(0..trials.len(), |&a, &b| {
            trials[a].repeats(trials[b])
        })),
    };
    let fit = Parametric::fit_grouped(&runs, &groups, bootstrap);
    let outliers = fit.iter().flat_map(|law| &law.outliers);
    let outliers = outliers.map(|&(at, _)| trials[at].name.clone()).collect();
    (fit.into(), outliers)
}

/// The largest compute, predicted by laws that haven't seen it.
fn hold_out(
    input: &ReportInput,
    trials: &[&FinishedTrial],
    bootstrap: Bootstrap,
) -> Vec<Prediction> {
    let computes = trials.iter().filter_map(|trial| trial.compute());
    let Some(largest) = computes.max_by(f64::total_cmp) else {
        return Vec::new();
    };
    let (unknown, known): (Vec<&FinishedTrial>, Vec<&FinishedTrial>) =
        trials.iter().partition(|t| t.compute() >= Some(largest));
    let Some(best) = unknown.iter().min_by(|a, b| a.loss.total_cmp(&b.loss)) else {
        return Vec::new();
    };
    let mut predictions = Vec::new();
    let mut predict = |law: &str, predicted: f64, band| {
        predictions.push(Prediction {
            law: law.to_owned(),
            trial: best.name.clone(),
            measured: best.loss,
            predicted,
            band,
        });
    };
    let runs: Vec<Run> = known.iter().filter_map(|trial| trial.run()).collect();
    let known: Vec<FinishedTrial> = known.into_iter().cloned().collect();
    let chosen = frontier::by_compute(&known, &[], input.chance).chosen;
    if let (Some(flops), Ok(law)) = (
        best.flops,
        PowerLaw::fit(Quantity::Compute.symbol(), &chosen, bootstrap),
    ) {
        predict("law in compute", law.predict(flops), law.band(flops));
    }
    if let (Ok(fit), Some(Run { n, d, .. })) = (Parametric::fit(&runs, Bootstrap::NONE), best.run())
    {
        predict("law in N and D", fit.law.predict(n, d), None);
    }
    predictions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Coordinates, Length};

    /// Trials of a planted law, sizes by budgets, D = C / 6N.
    fn planted() -> ReportInput {
        let mut finished = Vec::new();
        for budget in [1e15, 4e15, 1.6e16, 6.4e16] {
            for size in 0..9 {
                let n = 2e5 * 2f64.powi(size);
                let tokens = budget / (6.0 * n);
                finished.push(FinishedTrial {
                    name: format!("{size}-{budget:e}"),
                    at: Coordinates {
                        size: size.to_string(),
                        length: Length::Budget(budget),
                        batch: Some(32),
                        lr: Some(1e-3),
                        policies: None,
                        seed: 1,
                    },
                    params: Some(n),
                    flops: Some(budget),
                    tokens: Some(tokens),
                    distance: None,
                    run: None,
                    loss: 0.2 + 20.0 / n.powf(0.35) + 60.0 / tokens.powf(0.35),
                });
            }
        }
        ReportInput {
            finished,
            ..ReportInput::default()
        }
    }

    fn exponents(found: &Analysis) -> [f64; 3] {
        let law = found.parametric.fitted().unwrap().law;
        let size = &found.optimal.fitted().unwrap().size;
        [size.exponent, law.alpha, law.beta]
    }

    #[test]
    fn a_planted_law_is_found_and_predicts_the_largest_budget() {
        let found = analyse(&planted(), Fitting::default());
        assert_eq!((found.valleys.len(), found.no_valleys.len()), (4, 0));
        assert!(found.parametric.fitted().unwrap().determined);
        let [size, alpha, beta] = exponents(&found);
        assert!((size - 0.5).abs() < 0.02, "{size}");
        assert!((alpha - 0.35).abs() < 1e-3 && (beta - 0.35).abs() < 1e-3);
        assert_eq!(found.hold_out.len(), 2);
        for held in &found.hold_out {
            let error = (held.predicted / held.measured - 1.0).abs();
            let tolerance = if held.band.is_some() { 0.05 } else { 1e-4 };
            assert!(error < tolerance, "{held:?}");
        }
    }

    #[test]
    fn a_bad_learning_rate_moves_no_law() {
        let alone = planted();
        let mut both = planted();
        for trial in &alone.finished {
            // Worse by a factor that grows with the size: averaged in, it would move every best size.
            let mut bad = trial.clone();
            bad.name += "-bad";
            bad.at.lr = Some(1e-1);
            bad.loss *= 1.0 + 0.05 * trial.params.unwrap().log10();
            both.finished.push(bad);
        }
        let [alone, both] =
            [alone, both].map(|input| exponents(&analyse(&input, Fitting::default())));
        assert_eq!(alone, both);
    }

    #[test]
    fn what_is_missing_is_said() {
        let mut one_size = planted();
        one_size.finished.retain(|t| t.at.size == "3");
        let found = analyse(&one_size, Fitting::default());
        assert_eq!(found.no_valleys.len(), 4);
        assert!(found.optimal.fitted().is_none() && found.parametric.fitted().is_none());
        let nothing = analyse(&ReportInput::default(), Fitting::default());
        assert!(nothing.hold_out.is_empty());
    }
}
