//! IsoFLOP valleys: for each compute budget the size at which loss is lowest, and how size, tokens and loss
//! of these bottoms grow with compute.
//!
//! A bottom is found by a parabola in ln N through the losses near the lowest one, or by Akima's piecewise
//! cubics through all of them, which follow a valley of any shape and every wobble in it.

mod noise;

use super::{
    Bootstrap, FitError, Observation, PowerLaw, Run, akima::Akima, minimize::least_squares,
};
use noise::Noise;
use serde::Serialize;

/// Runs that were trained with one compute budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Compute in FLOPs.
    pub flops: f64,
    /// The runs, in any order; those of equal N are repeats of one size.
    pub runs: Vec<Run>,
    /// For each run the number of its training: checkpoints of one training, which may be in several budgets, share its
    /// noise.
    pub trainings: Vec<usize>,
}

/// The bottom of one budget's losses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Valley {
    /// The budget.
    pub flops: f64,
    /// Parameters at the bottom.
    pub n: f64,
    /// Tokens there.
    pub d: f64,
    /// Loss there.
    pub loss: f64,
    /// Half the second derivative of loss by ln N: how sure the place of the bottom is.
    pub curvature: f64,
    /// Sizes that the curve went through.
    pub sizes: usize,
}

/// A budget without a bottom, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NoValley {
    /// The budget.
    pub flops: f64,
    /// A sentence: what is missing.
    pub reason: String,
}

/// How a bottom is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// A parabola in ln N through the lowest losses: wobbles average out.
    #[default]
    Parabola,
    /// Akima's interpolation in ln N: no shape is assumed.
    Akima,
}

/// Sizes on each side of the lowest loss that the parabola goes through: further away a valley is no
/// parabola any more.
const REACH: usize = 3;

/// Sizes that determine a curve's slopes beside its lowest point.
const AKIMA_SIZES: usize = 5;

/// Runs by their budgets, ascending; each with its budget and the number of its training.
pub fn budgets(runs: impl IntoIterator<Item = (f64, Run, usize)>) -> Vec<Budget> {
    let mut runs: Vec<(f64, Run, usize)> = runs.into_iter().collect();
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    runs.chunk_by(|a, b| a.0 == b.0)
        .map(|budget| Budget {
            flops: budget[0].0,
            runs: budget.iter().map(|&(_, run, _)| run).collect(),
            trainings: budget.iter().map(|&(_, _, training)| training).collect(),
        })
        .collect()
}

/// The valley of each budget, and the budgets that have none.
pub fn valleys(budgets: &[Budget], method: Method) -> (Vec<Valley>, Vec<NoValley>) {
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    for budget in budgets {
        match valley(budget, method) {
            Ok(valley) => found.push(valley),
            Err(reason) => refused.push(NoValley {
                flops: budget.flops,
                reason,
            }),
        }
    }
    (found, refused)
}

/// Every size of a budget, ascending, as the mean of its runs.
fn sizes(budget: &Budget) -> Vec<Run> {
    let mut runs = budget.runs.clone();
    runs.sort_by(|a, b| a.n.total_cmp(&b.n));
    let mean = |repeats: &[Run]| {
        let of = |of: fn(&Run) -> f64| repeats.iter().map(of).sum::<f64>() / repeats.len() as f64;
        Run {
            n: repeats[0].n,
            d: of(|run| run.d),
            loss: of(|run| run.loss),
        }
    };
    runs.chunk_by(|a, b| a.n == b.n).map(mean).collect()
}

/// A curve's lowest place: ln N, loss and half the second derivative.
struct Bottom {
    x: f64,
    loss: f64,
    curvature: f64,
    sizes: usize,
}

fn valley(budget: &Budget, method: Method) -> Result<Valley, String> {
    let sizes = sizes(budget);
    let fewest = match method {
        Method::Parabola => 3,
        Method::Akima => AKIMA_SIZES,
    };
    if sizes.len() < fewest {
        let count = sizes.len();
        return Err(format!(
            "{count} {} no curve; train at least {fewest}",
            if count == 1 {
                "size determines"
            } else {
                "sizes determine"
            }
        ));
    }
    let at = lowest(&sizes);
    if at == 0 || at + 1 == sizes.len() {
        let (edge, more) = match at {
            0 => ("smallest", "smaller"),
            _ => ("largest", "larger"),
        };
        return Err(format!(
            "loss is lowest at the {edge} size, {:.3e}; train {more} ones",
            sizes[at].n
        ));
    }
    let bottom = match method {
        Method::Parabola => parabola(&sizes, at)?,
        Method::Akima => interpolated(&sizes, at)?,
    };
    Ok(Valley {
        flops: budget.flops,
        n: bottom.x.exp(),
        d: tokens(&sizes, bottom.x),
        loss: bottom.loss,
        curvature: bottom.curvature,
        sizes: bottom.sizes,
    })
}

/// The place of the lowest loss; the first of equals.
fn lowest(sizes: &[Run]) -> usize {
    let by_loss = |(_, a): &(usize, &Run), (_, b): &(usize, &Run)| a.loss.total_cmp(&b.loss);
    let found = sizes.iter().enumerate().min_by(by_loss);
    found.expect("there are sizes").0
}

/// The sizes that the parabola around the lowest loss goes through.
fn reach(sizes: &[Run], at: usize) -> std::ops::Range<usize> {
    at.saturating_sub(REACH)..(at + REACH + 1).min(sizes.len())
}

fn parabola(sizes: &[Run], at: usize) -> Result<Bottom, String> {
    let near = &sizes[reach(sizes, at)];
    // Around the lowest point, so that the three sums of powers are of one size.
    let middle = sizes[at].n.ln();
    let rows = near.iter().map(|run| {
        let x = run.n.ln() - middle;
        ([1.0, x, x * x], run.loss)
    });
    let [height, slope, curvature] = least_squares(rows).ok_or("all runs have the same size")?;
    if curvature <= 0.0 {
        return Err("its losses bend downwards: they are too noisy, or too close together".into());
    }
    let x = -slope / (2.0 * curvature);
    let n = (middle + x).exp();
    if n < near[0].n || n > near[near.len() - 1].n {
        return Err("the parabola's bottom lies outside the sizes that were trained".into());
    }
    Ok(Bottom {
        x: middle + x,
        loss: height + slope * x / 2.0,
        curvature,
        sizes: near.len(),
    })
}

fn interpolated(sizes: &[Run], at: usize) -> Result<Bottom, String> {
    let points = sizes.iter().map(|run| (run.n.ln(), run.loss));
    let curve = Akima::through(points.collect()).ok_or("two sizes are too close together")?;
    // The lowest node has higher ones on both sides: the curve's lowest place lies beside it.
    let (x, loss) = curve.lowest(at - 1..at + 1);
    Ok(Bottom {
        x,
        loss,
        curvature: curve.second_derivative(x) / 2.0,
        sizes: sizes.len(),
    })
}

/// Tokens of a size at this budget, by a line in logarithms between the sizes beside it.
fn tokens(sizes: &[Run], x: f64) -> f64 {
    let above = sizes.partition_point(|run| run.n.ln() < x);
    let above = above.clamp(1, sizes.len() - 1);
    let (a, b) = (&sizes[above - 1], &sizes[above]);
    let share = (x - a.n.ln()) / (b.n.ln() - a.n.ln());
    (a.d.ln() + share * (b.d.ln() - a.d.ln())).exp()
}

/// Of laws that don't know the noise of their runs, as a sentence without a full stop.
pub const UNKNOWN_NOISE: &str = "how noisy the runs are is not known where a curve goes through all of a budget's, or where \
     their noise hides the valleys: the intervals of the best sizes rest on the budgets alone, and more sizes or seeds would say";

/// How the bottoms grow with compute C.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Optimal {
    /// Best number of parameters.
    pub size: PowerLaw,
    /// Tokens that it is trained on.
    pub tokens: PowerLaw,
    /// Loss that it reaches.
    pub loss: PowerLaw,
    /// Whether the runs say how noisy they are: intervals then know what that makes of every bottom. Where each curve
    /// goes through its runs exactly nothing is known of it, and intervals rest on the bottoms alone.
    pub knows_noise: bool,
}

impl Optimal {
    /// Power laws through the bottoms of budgets.
    ///
    /// # Errors
    /// As [`PowerLaw::fit`]: fewer than three budgets with a bottom.
    pub fn of(
        budgets: &[Budget],
        method: Method,
        bootstrap: Bootstrap,
    ) -> Result<Optimal, FitError> {
        let (valleys, _) = valleys(budgets, method);
        let noise = Noise::of(budgets, method).and_then(|noise| noise.draws(bootstrap));
        let law = |of: fn(&Valley) -> f64| {
            let point = |valley: &Valley| Observation {
                label: format!("{:.2e} FLOPs", valley.flops),
                x: valley.flops,
                loss: of(valley),
            };
            let points: Vec<Observation> = valleys.iter().map(point).collect();
            let law = PowerLaw::fit("compute (budgets with a best size)", &points, bootstrap)?;
            Ok::<_, FitError>(match &noise {
                Some(noise) => law.of_measured(&noise.of_points(of)),
                None => law,
            })
        };
        Ok(Optimal {
            size: law(|v| v.n)?,
            tokens: law(|v| v.d)?,
            loss: law(|v| v.loss)?,
            knows_noise: noise.is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(flops: f64, best: f64, sizes: std::ops::Range<i32>) -> Budget {
        let run = |i: i32| {
            let n = 1e6 * 2f64.powi(i);
            let loss = 2.0 + 0.03 * (n / best).ln().powi(2);
            let d = flops / (6.0 * n);
            Run { n, d, loss }
        };
        let runs: Vec<Run> = sizes.map(run).collect();
        Budget {
            flops,
            trainings: (0..runs.len()).collect(),
            runs,
        }
    }

    #[test]
    fn the_bottom_of_a_parabola_is_found_again_either_way() {
        let budgets = [budget(1e18, 5e6, 0..6), budget(1e19, 2e7, 1..8)];
        // A parabola is what the one assumes; the other follows it from node to node.
        for (method, tolerance) in [(Method::Parabola, 1e-9), (Method::Akima, 0.03)] {
            let (found, refused) = valleys(&budgets, method);
            assert!(refused.is_empty(), "{refused:?}");
            for (valley, best) in found.iter().zip([5e6, 2e7]) {
                assert!((valley.n / best - 1.0).abs() < tolerance, "{valley:?}");
                assert!((valley.loss - 2.0).abs() < tolerance * 0.03, "{valley:?}");
                let spent = 6.0 * valley.n * valley.d;
                assert!((spent / valley.flops - 1.0).abs() < 1e-9, "{valley:?}");
            }
        }
    }

    #[test]
    fn laws_of_the_bottoms_hold_for_size_tokens_and_loss() {
        let budgets: Vec<Budget> = [1e17, 1e18, 1e19, 1e20]
            .into_iter()
            .enumerate()
            .map(|(i, flops)| budget(flops, 3e6 * 10f64.powf(0.5 * i as f64), 0..10))
            .collect();
        let laws = Optimal::of(&budgets, Method::Parabola, Bootstrap::default()).unwrap();
        assert!((laws.size.exponent - 0.5).abs() < 1e-6);
        assert!((laws.tokens.exponent - 0.5).abs() < 1e-6);
        assert!(laws.loss.exponent.abs() < 1e-6);
    }

    #[test]
    fn a_budget_without_a_bottom_is_refused_with_what_would_help() {
        let reason = |budget: Budget| valleys(&[budget], Method::Parabola).1.remove(0).reason;
        assert!(reason(budget(1.0, 1e9, 0..5)).contains("train larger ones"));
        assert!(reason(budget(1.0, 1e3, 0..5)).contains("train smaller ones"));
        assert!(reason(budget(1.0, 2e6, 0..2)).contains("at least 3"));
    }
}
