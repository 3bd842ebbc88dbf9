//! The parametric law L(N, D) = E + A / N^α + B / D^β, fitted by the sum of Huber losses of ln L.
//!
//! For given α and β the law is linear in E, A and B. A grid over (α, β) is searched by solving those
//! three (variable projection, weighted so that residuals are relative); the best places are then
//! refined in all five variables by [`minimize`](super::minimize) with the analytic gradient of the
//! Huber loss. The grid finds the valley whatever the start, the refinement its bottom.

use super::{
    Bootstrap, Interval, Run,
    minimize::{Minimum, least_squares, minimize, solve},
};
use rayon::prelude::*;
use serde::Serialize;

/// Residuals of ln L beyond this count by their size rather than by its square: a tenth of a percent.
pub const HUBER: f64 = 1e-3;

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

    /// (ln A, ln B, ln E, α, β): positive scales for whatever numbers.
    fn from_logs([a, b, e, alpha, beta]: [f64; 5]) -> Coefficients {
        Coefficients {
            e: e.exp(),
            a: a.exp(),
            b: b.exp(),
            alpha,
            beta,
        }
    }
}

/// A fitted law with its 95% intervals.
#[derive(Clone, Debug, Serialize)]
pub struct Parametric {
    /// The best law.
    pub law: Coefficients,
    /// Its sum of Huber losses.
    pub objective: f64,
    /// Interval of each coefficient.
    pub intervals: Intervals,
    /// Exponent of the best N in compute.
    pub optimal_exponent: f64,
    /// Its interval.
    pub optimal_exponent_interval: Interval,
    /// Points whose residual is far beyond the others': indices and relative residuals. They took
    /// part in the fit.
    pub outliers: Vec<(usize, f64)>,
    /// Resamples that the intervals rest on.
    pub resamples: usize,
}

impl Parametric {
    /// Whether the runs say what the exponents are: to within a factor of five, by their 95% intervals. Few runs, or
    /// runs that differ in one direction only, leave coefficients that trade against each other.
    pub fn is_determined(&self) -> bool {
        const FACTOR: f64 = 5.0;
        let known = |i: Interval| i.lo > 0.0 && i.hi.is_finite() && i.hi / i.lo < FACTOR;
        known(self.intervals.alpha) && known(self.intervals.beta)
    }
}

/// 95% intervals by resampling runs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Intervals {
    /// Of E.
    pub e: Interval,
    /// Of A.
    pub a: Interval,
    /// Of B.
    pub b: Interval,
    /// Of α.
    pub alpha: Interval,
    /// Of β.
    pub beta: Interval,
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
    /// Nothing separates one part of the law from the others.
    #[error(
        "all points have {0}; its exponent can't be found. Add runs of other {1}, or fit loss against the other quantity alone"
    )]
    OneValue(&'static str, &'static str),
    /// The points determine no law.
    #[error("no law of this form fits these points; is loss falling with N and D at all?")]
    NoFit,
}

const FEWEST: usize = 8;

/// Exponents tried: from a law that is all but flat to one steeper than any that was measured.
const GRID: [f64; 12] = [
    0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.65, 0.9, 1.3,
];

/// Places of the grid that are refined.
const REFINED: usize = 6;

impl Parametric {
    /// Fits the law to runs, with intervals from a bootstrap over them. Runs of equal N and D differ in
    /// their seed only, and are drawn as [`Bootstrap::draws`] draws a group.
    ///
    /// # Errors
    /// A sentence that says what is missing or wrong.
    pub fn fit(runs: &[Run], bootstrap: Bootstrap) -> Result<Parametric, ParametricError> {
        let mut order: Vec<usize> = (0..runs.len()).collect();
        let key = |&i: &usize| (runs[i].n.to_bits(), runs[i].d.to_bits());
        order.sort_by_key(key);
        let mut groups: Vec<Vec<usize>> = order
            .chunk_by(|a, b| key(a) == key(b))
            .map(<[usize]>::to_vec)
            .collect();
        // In the order of the table, which has always decided what a seed of the bootstrap draws.
        groups.sort();
        Self::fit_grouped(runs, &groups, bootstrap)
    }

    /// The same where it is known which runs differ in their seed only: their indices, group by group.
    ///
    /// # Errors
    /// As [`Parametric::fit`].
    pub fn fit_grouped(
        runs: &[Run],
        groups: &[Vec<usize>],
        bootstrap: Bootstrap,
    ) -> Result<Parametric, ParametricError> {
        check(runs)?;
        let logs: Vec<Logs> = runs.iter().map(Logs::of).collect();
        let all: Vec<usize> = (0..runs.len()).collect();
        let best = best(&logs, &all, None).ok_or(ParametricError::NoFit)?;
        let law = Coefficients::from_logs(best.at);

        // Which runs are drawn is decided first, one after the other; the fits can then share cores.
        let drawn = bootstrap.draws(groups, |runs| Some(runs.to_vec()));
        let laws: Vec<Coefficients> = drawn
            .par_iter()
            .filter_map(|drawn| self::best(&logs, drawn, Some(best.at)))
            .map(|minimum| Coefficients::from_logs(minimum.at))
            .collect();
        let interval = |of: &dyn Fn(&Coefficients) -> f64| {
            let at = of(&law);
            Interval::percentile(laws.iter().map(of).collect())
                .unwrap_or(Interval { lo: at, hi: at })
        };
        Ok(Parametric {
            law,
            objective: best.value,
            intervals: Intervals {
                e: interval(&|l| l.e),
                a: interval(&|l| l.a),
                b: interval(&|l| l.b),
                alpha: interval(&|l| l.alpha),
                beta: interval(&|l| l.beta),
            },
            optimal_exponent: law.optimal_exponent(),
            optimal_exponent_interval: interval(&Coefficients::optimal_exponent),
            outliers: outliers(runs, &law),
            resamples: laws.len(),
        })
    }
}

fn check(runs: &[Run]) -> Result<(), ParametricError> {
    let usable = |x: f64| x.is_finite() && x > 0.0;
    for (i, run) in runs.iter().enumerate() {
        let &Run { n, d, loss } = run;
        if !(usable(n) && usable(d) && usable(loss)) {
            let row = i + 1;
            return Err(ParametricError::NotPositive { row, n, d, loss });
        }
    }
    if runs.len() < FEWEST {
        return Err(ParametricError::TooFew(runs.len()));
    }
    let varies = |of: fn(&Run) -> f64| runs.iter().any(|r| of(r) != of(&runs[0]));
    if !varies(|r| r.n) {
        return Err(ParametricError::OneValue("the same N", "sizes"));
    }
    if !varies(|r| r.d) {
        return Err(ParametricError::OneValue("the same D", "lengths"));
    }
    Ok(())
}

/// Runs further from the law than six times the median of all: named, never left out in silence.
fn outliers(runs: &[Run], law: &Coefficients) -> Vec<(usize, f64)> {
    let residual = |r: &Run| (r.loss / law.predict(r.n, r.d)).ln();
    let mut sizes: Vec<f64> = runs.iter().map(|r| residual(r).abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let bound = 6.0 * sizes[sizes.len() / 2];
    let far = |(i, r): (usize, &Run)| Some((i, residual(r))).filter(|(_, x)| x.abs() > bound);
    runs.iter().enumerate().filter_map(far).collect()
}

/// A run in the form in which the law is fitted.
struct Logs {
    n: f64,
    d: f64,
    loss: f64,
}

impl Logs {
    fn of(run: &Run) -> Logs {
        Logs {
            n: run.n.ln(),
            d: run.d.ln(),
            loss: run.loss.ln(),
        }
    }
}

/// The best law for the drawn runs. A resample also starts from the law of all runs.
fn best(logs: &[Logs], drawn: &[usize], from: Option<[f64; 5]>) -> Option<Minimum<5>> {
    let objective = |at: &[f64; 5]| huber(logs, drawn, at);
    let mut starts: Vec<(f64, [f64; 5])> = Vec::new();
    match from {
        // Near its neighbours' bottom: a coarse look around is enough to notice another valley.
        Some(at) => starts.push((objective(&at).0, at)),
        None => {
            for alpha in GRID {
                for beta in GRID {
                    if let Some(at) = project(logs, drawn, alpha, beta) {
                        starts.push((objective(&at).0, at));
                    }
                }
            }
            starts.retain(|(value, _)| value.is_finite());
            starts.sort_by(|a, b| a.0.total_cmp(&b.0));
            starts.truncate(REFINED);
        }
    }
    let refine = |(_, at): (f64, [f64; 5])| {
        let first = minimize(at, curvature(logs, drawn, &at), objective);
        // Once more with the curvature at the bottom: Huber's loss bends at every point.
        minimize(first.at, curvature(logs, drawn, &first.at), objective)
    };
    let minima = starts.into_iter().map(refine);
    minima
        .filter(|m| m.value.is_finite() && m.at.iter().all(|x| x.is_finite()))
        .min_by(|a, b| a.value.total_cmp(&b.value))
}

/// ln of the law's three parts for one run, and of their sum.
fn parts(log: &Logs, &[a, b, e, alpha, beta]: &[f64; 5]) -> ([f64; 3], f64) {
    let terms = [a - alpha * log.n, b - beta * log.d, e];
    let top = terms[0].max(terms[1]).max(terms[2]);
    let exps = terms.map(|t| (t - top).exp());
    let sum: f64 = exps.iter().sum();
    (exps.map(|x| x / sum), top + sum.ln())
}

/// Sum of Huber losses of ln L, and its gradient.
fn huber(logs: &[Logs], drawn: &[usize], at: &[f64; 5]) -> (f64, [f64; 5]) {
    let (mut value, mut gradient) = (0.0, [0.0; 5]);
    for log in drawn.iter().map(|&i| &logs[i]) {
        let (shares, sum) = parts(log, at);
        let r = sum - log.loss;
        let slope = r.clamp(-HUBER, HUBER);
        value += slope * (r - 0.5 * slope);
        for (g, j) in gradient.iter_mut().zip(jacobian(log, shares)) {
            *g += slope * j;
        }
    }
    (value, gradient)
}

/// How ln L moves with each variable.
fn jacobian(log: &Logs, [a, b, e]: [f64; 3]) -> [f64; 5] {
    [a, b, e, -a * log.n, -b * log.d]
}

/// Inverse of JᵀWJ, W being Huber's weights: about how far each variable should go.
fn curvature(logs: &[Logs], drawn: &[usize], at: &[f64; 5]) -> [[f64; 5]; 5] {
    let mut matrix = [[0.0; 5]; 5];
    for log in drawn.iter().map(|&i| &logs[i]) {
        let (shares, sum) = parts(log, at);
        let r = (sum - log.loss).abs();
        let weight = if r > HUBER { HUBER / r } else { 1.0 };
        let j = jacobian(log, shares);
        for (row, x) in matrix.iter_mut().zip(j) {
            for (cell, y) in row.iter_mut().zip(j) {
                *cell += weight * x * y;
            }
        }
    }
    for (i, row) in matrix.iter_mut().enumerate() {
        row[i] *= 1.0 + 1e-9;
        row[i] += 1e-12;
    }
    // The inverse is symmetric, so its columns are its rows.
    std::array::from_fn(|column| {
        let unit = std::array::from_fn(|i| if i == column { 1.0 } else { 0.0 });
        solve(matrix, unit).unwrap_or(unit)
    })
}

/// E, A and B for given exponents: least squares of relative residuals. `None` where one of them is
/// not positive, which no law of this form has.
fn project(logs: &[Logs], drawn: &[usize], alpha: f64, beta: f64) -> Option<[f64; 5]> {
    // Powers are taken relative to the middle, so that the three columns are of one size.
    let mean = |of: fn(&Logs) -> f64| {
        drawn.iter().map(|&i| of(&logs[i])).sum::<f64>() / drawn.len() as f64
    };
    let (n0, d0) = (mean(|l| l.n), mean(|l| l.d));
    let rows = drawn.iter().map(|&i| {
        let log = &logs[i];
        let weight = (-log.loss).exp();
        let row = [
            (alpha * (n0 - log.n)).exp() * weight,
            (beta * (d0 - log.d)).exp() * weight,
            weight,
        ];
        (row, 1.0)
    });
    let [a, b, e] = least_squares(rows)?;
    let positive = a > 0.0 && b > 0.0 && e > 0.0;
    positive.then(|| [a.ln() + alpha * n0, b.ln() + beta * d0, e.ln(), alpha, beta])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fits::planted::Noise;

    const PLANTED: Coefficients = Coefficients {
        e: 1.7,
        a: 400.0,
        b: 1500.0,
        alpha: 0.34,
        beta: 0.37,
    };

    /// As many sizes as lengths, over two and a half decades each, with log-normal noise.
    fn planted(sizes: i32, noise: f64, stream: u64) -> Vec<Run> {
        let mut luck = Noise::new(stream);
        let mut runs = Vec::new();
        let at = |i: i32| 250f64.powf(f64::from(i) / f64::from(sizes - 1));
        for size in 0..sizes {
            for length in 0..sizes {
                let (n, d) = (3e7 * at(size), 1e9 * at(length));
                let loss = PLANTED.predict(n, d) * (noise * luck.normal()).exp();
                runs.push(Run { n, d, loss });
            }
        }
        runs
    }

    #[test]
    fn a_law_without_noise_is_recovered() {
        let bootstrap = Bootstrap {
            resamples: 20,
            seed: 0,
        };
        let fit = Parametric::fit(&planted(7, 0.0, 0), bootstrap).unwrap();
        for (found, planted) in [
            (fit.law.e, PLANTED.e),
            (fit.law.a, PLANTED.a),
            (fit.law.b, PLANTED.b),
            (fit.law.alpha, PLANTED.alpha),
            (fit.law.beta, PLANTED.beta),
        ] {
            assert!((found / planted - 1.0).abs() < 1e-4, "{:?}", fit.law);
        }
    }

    #[test]
    fn intervals_hold_planted_exponents_about_as_often_as_they_claim() {
        let bootstrap = |seed| Bootstrap {
            resamples: 200,
            seed,
        };
        let (mut alpha, mut beta) = (0, 0);
        // A hundred runs. Half as many leave intervals a little wider than they claim: 97 of 100.
        for stream in 0..300 {
            let fit = Parametric::fit(&planted(10, 0.003, stream), bootstrap(stream)).unwrap();
            alpha += usize::from(fit.intervals.alpha.contains(PLANTED.alpha));
            beta += usize::from(fit.intervals.beta.contains(PLANTED.beta));
        }
        assert!((279..=291).contains(&alpha), "α: {alpha} of 300");
        assert!((279..=291).contains(&beta), "β: {beta} of 300");
    }

    #[test]
    fn what_can_not_be_fitted_is_said() {
        let refusal = |runs: &[Run]| {
            let fit = Parametric::fit(runs, Bootstrap::default());
            fit.unwrap_err().to_string()
        };
        let runs = planted(7, 0.0, 0);
        assert!(refusal(&runs[..7]).contains("at least 8"));
        let one_size: Vec<Run> = runs.iter().map(|r| Run { n: 1e8, ..*r }).collect();
        assert!(refusal(&one_size).contains("the same N"));
        let one_length: Vec<Run> = runs.iter().map(|r| Run { d: 1e9, ..*r }).collect();
        assert!(refusal(&one_length).contains("the same D"));
        let mut broken = runs;
        broken[3].loss = f64::NAN;
        assert!(refusal(&broken).contains("row 4"));
        broken[3] = Run {
            d: -1.0,
            loss: 2.0,
            n: 1e8,
        };
        assert!(refusal(&broken).contains("D = -1"));
    }
}
