//! The parametric law L(N, D) = E + A / N^α + B / D^β, fitted by the sum of Huber losses of ln L, and whether the runs
//! determine it: `design` says so of their sizes and lengths, `doubts` of what came out.

mod design;
mod doubts;
mod search;

use super::{
    Bootstrap, Groups, Interval, Run, bootstrap::small_sample_factor, buckets::classes,
    minimize::Minimum,
};
use design::Design;
use doubts::doubts;
use rayon::prelude::*;
use search::{STEEPEST, Search};
use serde::Serialize;

pub use search::HUBER;

/// The law's five numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Coefficients {
    /// Irreducible loss.
    pub e: f64,
    /// Scale of the part that falls with parameters.
    pub a: f64,
    /// Scale of the part that falls with tokens.
    pub b: f64,
    /// Exponent of parameters.
    pub alpha: f64,
    /// Exponent of tokens.
    pub beta: f64,
}

impl Coefficients {
    /// Loss of a model of `n` parameters after `d` tokens.
    pub fn predict(&self, n: f64, d: f64) -> f64 {
        self.e + self.a * n.powf(-self.alpha) + self.b * d.powf(-self.beta)
    }

    /// Exponent of the best N in compute C, if C is proportional to N · D: β / (α + β).
    pub fn optimal_exponent(&self) -> f64 {
        self.beta / (self.alpha + self.beta)
    }
}

/// What is said of a law that its runs don't determine, before the reason.
pub const UNDETERMINED: &str = "These runs don't determine this law";

/// What such a law is good for.
pub const DESCRIPTION: &str = "Take it as a description of them, and predict nothing by it";

/// A fitted law with its 95% intervals.
#[derive(Clone, Debug, Serialize)]
pub struct Parametric {
    /// Whether the runs say what the exponents are.
    pub determined: bool,
    /// If not, a clause that says why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The best law.
    pub law: Coefficients,
    /// Its sum of Huber losses.
    pub objective: f64,
    /// Interval of each coefficient.
    pub intervals: Intervals,
    /// Exponent of the best N in compute.
    pub optimal_exponent: f64,
    /// Its interval.
    pub optimal_exponent_interval: Option<Interval>,
    /// Points whose residual is far beyond the others': indices and relative residuals. They took
    /// part in the fit.
    pub outliers: Vec<(usize, f64)>,
    /// Resamples that the intervals rest on.
    pub resamples: usize,
}

/// 95% intervals by resampling runs; `None` where resamples say nothing.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Intervals {
    /// Of E.
    pub e: Option<Interval>,
    /// Of A.
    pub a: Option<Interval>,
    /// Of B.
    pub b: Option<Interval>,
    /// Of α.
    pub alpha: Option<Interval>,
    /// Of β.
    pub beta: Option<Interval>,
}

/// Why the law was not fitted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ParametricError {
    /// A number has no logarithm.
    #[error(
        "row {row}: N = {n}, D = {d} and loss = {loss} must all be finite and above zero; leave the row out or repeat the run"
    )]
    NotPositive {
        /// Which, counted from 1.
        row: usize,
        /// Its N.
        n: f64,
        /// Its D.
        d: f64,
        /// Its loss.
        loss: f64,
    },
    /// Five numbers need more than five points.
    #[error("the law has five coefficients and there are {0} points; at least 8 are needed")]
    TooFew(usize),
    /// Too few different values leave one part of the law open.
    #[error(
        "L(N, D) is not determined: {}, and its exponent takes 3 of them. Add runs of other {more}, or fit loss against {other} alone with `fit --law power`",
        if *found == 1 {
            format!("all points have the same {quantity}")
        } else {
            format!("there are only {found} different {quantity}")
        }
    )]
    FewValues {
        /// What takes too few values.
        quantity: &'static str,
        /// What doesn't.
        other: &'static str,
        /// What would help.
        more: &'static str,
        /// Different values of it.
        found: usize,
    },
    /// N and D grow together.
    #[error(
        "L(N, D) is not determined: D follows N in all runs (as N^{0:.2}), so nothing tells their parts apart. Train some sizes for longer or shorter, or fit loss against one of the two with `fit --law power`"
    )]
    InStep(f64),
    /// Nothing to explain.
    #[error(
        "L(N, D) is not determined: all losses are {0}, whatever N and D are. Is this the right column?"
    )]
    Flat(f64),
    /// The points determine no law.
    #[error("no law of this form fits these points; is loss falling with N and D at all?")]
    NoFit,
}

/// Runs whose N and D differ by less are taken for one training with different seeds.
const REPEATS: f64 = 1e-3;

/// Resamples that are fitted at a time: what is drawn is kept no longer than it is needed.
const CHUNK: usize = 1_024;

impl Parametric {
    /// Fits the law to runs, with intervals from a bootstrap over them. Runs of equal N and D differ in
    /// their seed only, and are drawn as [`Groups::of_repeats`] says.
    ///
    /// # Errors
    /// A sentence that says what is missing or wrong.
    pub fn fit(runs: &[Run], bootstrap: Bootstrap) -> Result<Parametric, ParametricError> {
        let values = |of: fn(&Run) -> f64| runs.iter().map(of).collect::<Vec<f64>>();
        let sizes = classes(&values(|r| r.n), REPEATS);
        let lengths = classes(&values(|r| r.d), REPEATS);
        let mut order: Vec<usize> = (0..runs.len()).collect();
        let key = |&i: &usize| (sizes[i], lengths[i]);
        order.sort_by_key(key);
        let mut groups: Vec<Vec<usize>> = order
            .chunk_by(|a, b| key(a) == key(b))
            .map(<[usize]>::to_vec)
            .collect();
        // In the order of the table, which has always decided what a seed of the bootstrap draws.
        groups.sort();
        Self::fit_grouped(runs, &Groups::of_repeats(groups), bootstrap)
    }

    /// The same where it is known which runs belong together: their indices, group by group.
    ///
    /// # Errors
    /// As [`Parametric::fit`].
    pub fn fit_grouped(
        runs: &[Run],
        groups: &Groups,
        bootstrap: Bootstrap,
    ) -> Result<Parametric, ParametricError> {
        let design = Design::of(runs)?;
        let search = Search::of(runs);
        let best = search.best().ok_or(ParametricError::NoFit)?;
        let law = search.law(best.at);
        let laws = resampled(&search, &design, groups, bootstrap, best);
        let spread = Spread {
            law,
            laws: &laws,
            factor: small_sample_factor(groups.witnesses(runs.len()), COEFFICIENTS),
        };
        let intervals = spread.intervals();
        let reason = doubts(runs, &spread, &intervals);
        Ok(Parametric {
            determined: reason.is_none(),
            reason,
            law,
            objective: best.value,
            intervals,
            optimal_exponent: law.optimal_exponent(),
            optimal_exponent_interval: spread.optimal_exponent(),
            outliers: outliers(runs, &law),
            resamples: laws.len(),
        })
    }
}

/// Numbers that are fitted.
const COEFFICIENTS: usize = 5;

/// The laws of the resamples that determine one. Which runs are drawn is decided first, one after the other; the fits
/// can then share cores.
fn resampled(
    search: &Search,
    design: &Design,
    groups: &Groups,
    bootstrap: Bootstrap,
    best: Minimum<5>,
) -> Vec<Coefficients> {
    let drawn = bootstrap.resamples(groups);
    let mut drawn = drawn
        .filter(|drawn| design.determines(drawn))
        .take(bootstrap.resamples);
    let mut laws = Vec::new();
    loop {
        let chunk: Vec<Vec<usize>> = drawn.by_ref().take(CHUNK).collect();
        if chunk.is_empty() {
            return laws;
        }
        laws.par_extend(chunk.par_iter().filter_map(|drawn| {
            let found = search.again(drawn, best.at)?;
            Some(search.law(found.at))
        }));
    }
}

/// The laws of resamples around the law of all runs, spread for the smallness of the sample.
struct Spread<'a> {
    law: Coefficients,
    laws: &'a [Coefficients],
    factor: f64,
}

impl Spread<'_> {
    fn intervals(&self) -> Intervals {
        let log = |of: fn(&Coefficients) -> f64| {
            let found = self.interval(|law| of(law).ln())?;
            let found = Interval {
                lo: found.lo.exp(),
                hi: found.hi.exp(),
            };
            // Rounding on the way to the logarithm and back may leave the estimate just outside.
            (found.hi.is_finite()).then(|| found.spanning(of(&self.law)))
        };
        let exponent = |of: fn(&Coefficients) -> f64| {
            let found = self.interval(of)?.within(0.0, STEEPEST);
            self.has_width(found, of(&self.law)).then_some(found)
        };
        let e = self.interval(|law| law.e).and_then(|found| {
            let found = found.within(0.0, f64::MAX);
            self.has_width(found, self.law.e).then_some(found)
        });
        Intervals {
            e,
            a: log(|law| law.a),
            b: log(|law| law.b),
            alpha: exponent(|law| law.alpha),
            beta: exponent(|law| law.beta),
        }
    }

    fn optimal_exponent(&self) -> Option<Interval> {
        let found = self.interval(Coefficients::optimal_exponent)?;
        Some(found.within(0.0, 1.0))
    }

    /// 95% of some number of the law. It holds the estimate, even where all resamples lie to one side of it.
    fn interval(&self, of: impl Fn(&Coefficients) -> f64) -> Option<Interval> {
        let at = of(&self.law);
        let found = self.percentile(of)?;
        Some(found.widened(at, self.factor).spanning(at))
    }

    /// 95% of what resamples say of it.
    fn percentile(&self, of: impl Fn(&Coefficients) -> f64) -> Option<Interval> {
        Interval::percentile(self.laws.iter().map(of).collect())
    }

    /// A number at a bound that no resample has moved was kept there by the bound: how sure it is isn't known.
    fn has_width(&self, interval: Interval, estimate: f64) -> bool {
        let is_at_bound = estimate <= 0.0 || estimate >= STEEPEST * 0.98;
        !is_at_bound || interval.hi - interval.lo > 1e-6 * estimate.max(1.0)
    }
}

/// Runs further from the law than six times the median of all: named, never left out in silence. A residual that the
/// fit counts by its square is none, however small the others are.
fn outliers(runs: &[Run], law: &Coefficients) -> Vec<(usize, f64)> {
    let residual = |r: &Run| (r.loss / law.predict(r.n, r.d)).ln();
    let mut sizes: Vec<f64> = runs.iter().map(|r| residual(r).abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let bound = (6.0 * sizes[sizes.len() / 2]).max(HUBER);
    let far = |(i, r): (usize, &Run)| Some((i, residual(r))).filter(|(_, x)| x.abs() > bound);
    runs.iter().enumerate().filter_map(far).collect()
}

#[cfg(test)]
mod tests;
