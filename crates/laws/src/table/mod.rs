//! Laws of any table of runs, whoever trained them.
//!
//! | law | columns | what it says |
//! |---|---|---|
//! | parametric | N, D, loss | L = E + A / N^α + B / D^β |
//! | isoflop | C, N, loss, several sizes a budget | the best N of each budget, and N* = c · C^e |
//! | optima | C, N: rows are the best sizes already | N = c · C^e |
//! | power | loss, and C, N or D | L = c · x^e |
//!
//! Unasked, all of them are fitted whose columns are there, except that rows are taken for optima or for a power law
//! only if there is nothing else that they could be.

pub mod report;
pub mod table;

use crate::fits::{
    Bootstrap, Comparison, FitError, Observation, Parametric, ParametricError, PowerLaw, Run,
    isoflop::{Cell, Method, NoValley, Optimal, Valley, valleys},
};
use serde::Serialize;
use table::{Quantity, Table};

/// Which law.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Law {
    /// What the columns allow.
    #[default]
    Auto,
    /// L = E + A / N^α + B / D^β.
    Parametric,
    /// The best size of each budget, and how it grows.
    Isoflop,
    /// N = c · C^e, for rows that are the best sizes of their budgets.
    Optima,
    /// L = c · x^e, x being C, else N, else D.
    Power,
}

/// What was found in a table.
#[derive(Clone, Debug, Serialize)]
pub struct Fits {
    /// Rows that took part.
    pub rows: usize,
    /// Rows that a filter left out.
    pub filtered: usize,
    /// Rows that lack a number.
    pub skipped: usize,
    /// L(N, D).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parametric: Option<Parametric>,
    /// The largest budgets, predicted from the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
    /// The best size of each budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isoflop: Option<IsoFlop>,
    /// One quantity against another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
    /// Laws that the columns would allow and the numbers don't, and why.
    pub refused: Vec<String>,
}

/// A law fitted without the largest runs, on the largest runs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct HeldOut {
    /// Runs that were predicted.
    pub runs: usize,
    /// From this N · D on.
    pub from: f64,
    /// Median of |predicted / measured - 1|.
    pub median_error: f64,
    /// Largest of them.
    pub largest_error: f64,
}

/// Valleys, and how their bottoms grow.
#[derive(Clone, Debug, Serialize)]
pub struct IsoFlop {
    /// By budget.
    pub valleys: Vec<Valley>,
    /// Budgets without one.
    pub refused: Vec<NoValley>,
    /// Best N, its D and its loss against C.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub laws: Option<Optimal>,
}

/// y = c · x^e.
#[derive(Clone, Debug, Serialize)]
pub struct Power {
    /// y.
    pub of: String,
    /// x.
    pub by: String,
    /// The law.
    #[serde(flatten)]
    pub law: PowerLaw,
    /// How it stands beside the law with a floor, if y is a loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

/// How a table is fitted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Which law.
    pub law: Law,
    /// How the best size of a budget is found.
    pub valley: Method,
    /// What intervals rest on.
    pub bootstrap: Bootstrap,
}

/// Why nothing was fitted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to do with these columns.
    #[error("{law} needs {needs}; found {found}. Say which column is which with --column N=…")]
    Columns {
        /// What was asked for.
        law: &'static str,
        /// What it needs.
        needs: &'static str,
        /// What there is.
        found: String,
    },
    /// L(N, D).
    #[error(transparent)]
    Parametric(#[from] ParametricError),
    /// A power law.
    #[error(transparent)]
    Power(#[from] FitError),
    /// No budget has a best size.
    #[error("no budget has a best size; {0}")]
    NoValley(String),
}

/// Fits what the columns of a table allow, or the one law that is asked for.
///
/// # Errors
/// When columns are missing, or when no law fits.
pub fn fit(table: &Table, options: Options) -> Result<Fits, Error> {
    let Options {
        law,
        valley,
        bootstrap,
    } = options;
    let mut fits = Fits {
        rows: table.lines.len(),
        filtered: table.filtered,
        skipped: table.skipped,
        parametric: None,
        held_out: None,
        isoflop: None,
        power: None,
        refused: Vec::new(),
    };
    let [n, d, c, loss] = [Quantity::N, Quantity::D, Quantity::C, Quantity::Loss]
        .map(|quantity| table.column(quantity));
    let missing = |law, needs| {
        let found: Vec<String> = table.values.keys().map(Quantity::to_string).collect();
        let found = match found.is_empty() {
            true => "none of N, D, C, loss".to_owned(),
            false => found.join(", "),
        };
        Error::Columns { law, needs, found }
    };
    let wanted = |this| law == this || law == Law::Auto;
    let mut failed = None;
    match (n, d, loss) {
        (Some(n), Some(d), Some(loss)) if wanted(Law::Parametric) => {
            let runs = n.iter().zip(d).zip(loss);
            let runs: Vec<Run> = runs.map(|((&n, &d), &loss)| Run { n, d, loss }).collect();
            match Parametric::fit(&runs, bootstrap) {
                Ok(law) => {
                    fits.parametric = Some(law);
                    fits.held_out = hold_out(&runs);
                }
                Err(error) => failed = Some(Error::Parametric(error)),
            }
        }
        _ if law == Law::Parametric => {
            return Err(missing("the parametric law", "columns N, D and loss"));
        }
        _ => {}
    }
    match (c, n, loss) {
        (Some(c), Some(n), Some(loss))
            if law == Law::Isoflop || (law == Law::Auto && repeats(c)) =>
        {
            let cell = |at: usize| Cell {
                flops: c[at],
                n: n[at],
                // What the budget pays for, where no column says it.
                d: d.map_or(c[at] / (6.0 * n[at]), |d| d[at]),
                loss: loss[at],
            };
            let cells: Vec<Cell> = (0..c.len()).map(cell).collect();
            match isoflop(&cells, valley, bootstrap, &mut fits.refused) {
                Ok(found) => fits.isoflop = Some(found),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        _ if law == Law::Isoflop => {
            return Err(missing("the isoflop law", "columns C, N and loss"));
        }
        _ => {}
    }
    let nothing = fits.parametric.is_none() && fits.isoflop.is_none() && failed.is_none();
    match (c, n) {
        (Some(c), Some(n))
            if law == Law::Optima || (law == Law::Auto && nothing && loss.is_none()) =>
        {
            let weights: Vec<f64> = match table.column(Quantity::Sigma) {
                Some(sigma) => sigma.iter().map(|s| 1.0 / (s * s)).collect(),
                None => vec![1.0; c.len()],
            };
            fits.power = Some(power(("N", n), ("C", c), &weights, bootstrap)?);
        }
        _ if law == Law::Optima => {
            return Err(missing("the law of the best sizes", "columns C and N"));
        }
        _ => {}
    }
    if law == Law::Power || (law == Law::Auto && nothing && fits.power.is_none()) {
        let mut x = [("C", c), ("N", n), ("D", d)].into_iter();
        let x = x.find_map(|(name, values)| Some((name, values?)));
        let (Some(x), Some(loss)) = (x, loss) else {
            return Err(missing(
                "a fit",
                "columns N, D and loss, or C, N and loss, or loss and one of C, N and D, or C and N",
            ));
        };
        let ones = vec![1.0; loss.len()];
        fits.power = Some(power(("loss", loss), x, &ones, bootstrap)?);
    }
    match failed {
        Some(error) if fits.parametric.is_none() && fits.isoflop.is_none() => Err(error),
        Some(error) => {
            fits.refused.insert(0, error.to_string());
            Ok(fits)
        }
        None => Ok(fits),
    }
}

fn power(
    (of, y): (&str, &[f64]),
    (by, x): (&str, &[f64]),
    weights: &[f64],
    bootstrap: Bootstrap,
) -> Result<Power, FitError> {
    let point = |(i, (&x, &y)): (usize, (&f64, &f64))| Observation {
        label: format!("row {}", i + 1),
        x,
        loss: y,
    };
    let points: Vec<Observation> = x.iter().zip(y).enumerate().map(point).collect();
    let law = PowerLaw::fit_weighted(by, &points, weights, bootstrap)?;
    // Only a loss has a floor to speak of.
    let comparison = (of == "loss").then(|| Comparison::with_floor(by, &law, bootstrap));
    Ok(Power {
        of: of.to_owned(),
        by: by.to_owned(),
        law,
        comparison,
    })
}

fn isoflop(
    cells: &[Cell],
    method: Method,
    bootstrap: Bootstrap,
    refused: &mut Vec<String>,
) -> Result<IsoFlop, Error> {
    let (valleys, without) = valleys(cells, method);
    if valleys.is_empty() {
        let reasons = without
            .iter()
            .map(|w| format!("{:.3e} FLOP: {}", w.flops, w.reason));
        return Err(Error::NoValley(reasons.collect::<Vec<_>>().join("; ")));
    }
    let laws = Optimal::of(&valleys, bootstrap);
    Ok(IsoFlop {
        valleys,
        refused: without,
        laws: laws
            .map_err(|e| refused.push(format!("N* against C: {e}")))
            .ok(),
    })
}

/// The largest tenth of the runs by N · D, predicted by the law of the others.
fn hold_out(runs: &[Run]) -> Option<HeldOut> {
    let mut runs = runs.to_vec();
    let budget = |r: &Run| r.n * r.d;
    runs.sort_by(|a, b| budget(a).total_cmp(&budget(b)));
    let (known, unknown) = runs.split_at(runs.len() - runs.len().div_ceil(10));
    let none = Bootstrap {
        resamples: 0,
        seed: 0,
    };
    let law = Parametric::fit(known, none).ok()?.law;
    let error = |r: &Run| (law.predict(r.n, r.d) / r.loss - 1.0).abs();
    let mut errors: Vec<f64> = unknown.iter().map(error).collect();
    errors.sort_by(f64::total_cmp);
    Some(HeldOut {
        runs: unknown.len(),
        from: budget(unknown.first()?),
        median_error: errors[errors.len() / 2],
        largest_error: *errors.last()?,
    })
}

/// Whether some value stands in several rows.
fn repeats(values: &[f64]) -> bool {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.windows(2).any(|pair| pair[0] == pair[1])
}
