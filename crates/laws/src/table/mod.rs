//! Laws of any table of runs, whoever trained them.
//!
//! | law | columns | what it says |
//! |---|---|---|
//! | parametric | N, D, loss | L = E + A / N^α + B / D^β |
//! | isoflop | C, N, loss, several sizes a budget | the best N of each budget, and N* = c · C^e |
//! | optima | C, N: rows are the best sizes already | N = c · C^e |
//! | power | loss, and C, N or D | L = c · x^e |
//!
//! Unasked, all of them are fitted whose columns are there, except that rows are taken for optima or for a
//! power law only if there is nothing else that they could be.

mod input;
mod read;

pub use input::report_input;
pub use read::{Quantity, Reading, Table, TableError};

use crate::fits::{
    Bootstrap, Fit, FitError, FormComparison, Observation, Parametric, ParametricError, PowerLaw,
    Run,
    isoflop::{Budget, Method, NoValley, Optimal, Valley, budgets, valleys},
};
use serde::Serialize;

/// Which laws are fitted to a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LawChoice {
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
    pub held_out: Option<HeldOutCheck>,
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
pub struct HeldOutCheck {
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
    pub laws: Fit<Optimal>,
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
    pub comparison: Option<FormComparison>,
}

/// How a table is fitted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Which laws.
    pub law: LawChoice,
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
    let mut fitter = Fitter {
        columns: Columns::of(table),
        table,
        options,
        fits: Fits {
            rows: table.lines.len(),
            filtered: table.filtered,
            skipped: table.skipped,
            parametric: None,
            held_out: None,
            isoflop: None,
            power: None,
            refused: Vec::new(),
        },
        failed: None,
    };
    fitter.parametric()?;
    fitter.isoflop()?;
    // Rows are taken for optima or for one power law only if there is nothing else that they could be.
    let is_open = fitter.fits.parametric.is_none()
        && fitter.fits.isoflop.is_none()
        && fitter.failed.is_none();
    fitter.optima(is_open)?;
    fitter.power(is_open)?;
    fitter.finish()
}

/// The columns that laws are made of.
#[derive(Clone, Copy)]
struct Columns<'a> {
    n: Option<&'a [f64]>,
    d: Option<&'a [f64]>,
    c: Option<&'a [f64]>,
    loss: Option<&'a [f64]>,
}

impl<'a> Columns<'a> {
    fn of(table: &'a Table) -> Self {
        Self {
            n: table.column(Quantity::N),
            d: table.column(Quantity::D),
            c: table.column(Quantity::C),
            loss: table.column(Quantity::Loss),
        }
    }
}

/// Tries one law after the other.
struct Fitter<'a> {
    table: &'a Table,
    columns: Columns<'a>,
    options: Options,
    fits: Fits,
    /// The first law that the columns allow and the numbers don't.
    failed: Option<Error>,
}

impl<'a> Fitter<'a> {
    fn is_wanted(&self, law: LawChoice) -> bool {
        self.options.law == law || self.options.law == LawChoice::Auto
    }

    fn missing(&self, law: &'static str, needs: &'static str) -> Error {
        let found: Vec<String> = self.table.values.keys().map(Quantity::to_string).collect();
        let found = match found.is_empty() {
            true => "none of N, D, C, loss".to_owned(),
            false => found.join(", "),
        };
        Error::Columns { law, needs, found }
    }

    /// L(N, D), and what it makes of the largest runs unseen.
    fn parametric(&mut self) -> Result<(), Error> {
        let Columns { n, d, loss, .. } = self.columns;
        if !self.is_wanted(LawChoice::Parametric) {
            return Ok(());
        }
        let (Some(n), Some(d), Some(loss)) = (n, d, loss) else {
            return match self.options.law {
                LawChoice::Auto => Ok(()),
                _ => Err(self.missing("the parametric law", "columns N, D and loss")),
            };
        };
        let runs = n.iter().zip(d).zip(loss);
        let runs: Vec<Run> = runs.map(|((&n, &d), &loss)| Run { n, d, loss }).collect();
        match Parametric::fit(&runs, self.options.bootstrap) {
            Ok(law) => {
                self.fits.parametric = Some(law);
                self.fits.held_out = hold_out(&runs);
            }
            Err(error) => self.failed = Some(Error::Parametric(error)),
        }
        Ok(())
    }

    /// The best size of each budget, where some budget has several runs.
    fn isoflop(&mut self) -> Result<(), Error> {
        let Columns { n, d, c, loss } = self.columns;
        if !self.is_wanted(LawChoice::Isoflop) {
            return Ok(());
        }
        let (Some(c), Some(n), Some(loss)) = (c, n, loss) else {
            return match self.options.law {
                LawChoice::Auto => Ok(()),
                _ => Err(self.missing("the isoflop law", "columns C, N and loss")),
            };
        };
        if self.options.law == LawChoice::Auto && !repeats(c) {
            return Ok(());
        }
        let run = |at: usize| Run {
            n: n[at],
            // What the budget pays for, where no column says it.
            d: d.map_or(c[at] / (6.0 * n[at]), |d| d[at]),
            loss: loss[at],
        };
        let budgets = budgets((0..c.len()).map(|at| (c[at], run(at))));
        match isoflop(&budgets, self.options) {
            Ok(found) => {
                if let Fit::Refused(reason) = &found.laws {
                    self.fits.refused.push(format!("N* against C: {reason}"));
                }
                self.fits.isoflop = Some(found);
            }
            Err(error) => self.failed = self.failed.take().or(Some(error)),
        }
        Ok(())
    }

    /// N against C, of rows that are best sizes already.
    fn optima(&mut self, is_open: bool) -> Result<(), Error> {
        let Columns { n, c, loss, .. } = self.columns;
        let is_asked = self.options.law == LawChoice::Optima;
        match (c, n) {
            (Some(c), Some(n)) if is_asked || (self.is_auto(is_open) && loss.is_none()) => {
                let weights: Vec<f64> = match self.table.column(Quantity::Sigma) {
                    Some(sigma) => sigma.iter().map(|s| 1.0 / (s * s)).collect(),
                    None => vec![1.0; c.len()],
                };
                let (of, by) = (Variable::new("N", n), Variable::new("C", c));
                self.fits.power = Some(power(of, by, &weights, self.options.bootstrap)?);
                Ok(())
            }
            _ if is_asked => Err(self.missing("the law of the best sizes", "columns C and N")),
            _ => Ok(()),
        }
    }

    /// Loss against whatever there is.
    fn power(&mut self, is_open: bool) -> Result<(), Error> {
        let Columns { n, d, c, loss } = self.columns;
        let is_asked = self.options.law == LawChoice::Power;
        if !is_asked && !(self.is_auto(is_open) && self.fits.power.is_none()) {
            return Ok(());
        }
        let mut x = [("C", c), ("N", n), ("D", d)].into_iter();
        let x = x.find_map(|(name, values)| Some(Variable::new(name, values?)));
        let (Some(x), Some(loss)) = (x, loss) else {
            return Err(self.missing(
                "a fit",
                "columns N, D and loss, or C, N and loss, or loss and one of C, N and D, or C and N",
            ));
        };
        let ones = vec![1.0; loss.len()];
        let loss = Variable::new("loss", loss);
        self.fits.power = Some(power(loss, x, &ones, self.options.bootstrap)?);
        Ok(())
    }

    fn is_auto(&self, is_open: bool) -> bool {
        self.options.law == LawChoice::Auto && is_open
    }

    /// What was found. One law that fits is success, and the others' refusals are part of it.
    fn finish(mut self) -> Result<Fits, Error> {
        match self.failed {
            Some(error) if self.fits.parametric.is_none() && self.fits.isoflop.is_none() => {
                Err(error)
            }
            Some(error) => {
                self.fits.refused.insert(0, error.to_string());
                Ok(self.fits)
            }
            None => Ok(self.fits),
        }
    }
}

/// A column under the name that it has in a law.
#[derive(Clone, Copy)]
struct Variable<'a> {
    name: &'static str,
    values: &'a [f64],
}

impl<'a> Variable<'a> {
    fn new(name: &'static str, values: &'a [f64]) -> Self {
        Self { name, values }
    }
}

/// `of` as a power of `by`; each squared residual counts with its weight.
fn power(
    of: Variable,
    by: Variable,
    weights: &[f64],
    bootstrap: Bootstrap,
) -> Result<Power, FitError> {
    let points: Vec<Observation> = by
        .values
        .iter()
        .zip(of.values)
        .enumerate()
        .map(|(row, (&x, &y))| Observation {
            label: format!("row {}", row + 1),
            x,
            loss: y,
        })
        .collect();
    let law = PowerLaw::fit_weighted(by.name, &points, weights, bootstrap)?;
    // Only a loss has a floor to speak of.
    let is_loss = of.name == "loss";
    let comparison = is_loss.then(|| FormComparison::with_floor(by.name, &law, bootstrap));
    Ok(Power {
        of: of.name.to_owned(),
        by: by.name.to_owned(),
        law,
        comparison,
    })
}

fn isoflop(budgets: &[Budget], options: Options) -> Result<IsoFlop, Error> {
    let (valleys, refused) = valleys(budgets, options.valley);
    if valleys.is_empty() {
        let reasons = refused
            .iter()
            .map(|without| format!("{:.3e} FLOP: {}", without.flops, without.reason));
        return Err(Error::NoValley(reasons.collect::<Vec<_>>().join("; ")));
    }
    Ok(IsoFlop {
        laws: Optimal::of(&valleys, options.bootstrap).into(),
        valleys,
        refused,
    })
}

/// The largest tenth of the runs by N · D, predicted by the law of the others.
fn hold_out(runs: &[Run]) -> Option<HeldOutCheck> {
    let mut runs = runs.to_vec();
    let budget = |r: &Run| r.n * r.d;
    runs.sort_by(|a, b| budget(a).total_cmp(&budget(b)));
    let (known, unknown) = runs.split_at(runs.len() - runs.len().div_ceil(10));
    let law = Parametric::fit(known, Bootstrap::NONE).ok()?.law;
    let error = |r: &Run| (law.predict(r.n, r.d) / r.loss - 1.0).abs();
    let mut errors: Vec<f64> = unknown.iter().map(error).collect();
    errors.sort_by(f64::total_cmp);
    Some(HeldOutCheck {
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
