//! Laws of any table of runs, trained here or elsewhere.
//!
//! | law | columns | what it says |
//! |---|---|---|
//! | parametric | N, D, loss | L = E + A / N^α + B / D^β |
//! | isoflop | C, N, loss, several sizes a budget | the best N of each budget, and N* = c · C^e |
//! | optima | C, N: rows are the best sizes already | N = c · C^e |
//! | power | loss, and C, N or D | L = c · x^e |
//!
//! Unasked, all of them are fitted whose columns are there, except that rows are taken for optima or for a
//! power law only if there is nothing else that they could be. Models of many sizes and lengths are neither.

mod budgets;
mod columns;
mod fitter;
mod input;
mod read;
mod value;

pub use columns::Quantity;
pub use input::report_input;
pub use read::{Reading, RunColumn, Runs, Table, TableError};

use crate::fits::{
    Bootstrap, Fit, FitError, FormComparison, Parametric, ParametricError, PowerLaw,
    isoflop::{Method, NoValley, Optimal, Valley},
};
use fitter::Fitter;
use serde::Serialize;
use std::collections::BTreeMap;

/// Which laws are fitted to a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// The column that each quantity was found in.
    pub columns: BTreeMap<String, String>,
    /// Columns that nothing was read from.
    pub unused: Vec<String>,
    /// What rows were taken for, and what the laws don't say: a sentence each.
    pub notes: Vec<String>,
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
    #[error(
        "{law} needs {needs}; found {found}. Say which column is which with --column N=…; the table has {has}"
    )]
    Columns {
        /// What was asked for.
        law: &'static str,
        /// What it needs.
        needs: &'static str,
        /// What there is.
        found: String,
        /// All names.
        has: String,
    },
    /// Several columns could be it.
    #[error("any of {could} could be {quantity}; say which with --column {quantity}={first}")]
    Ambiguous {
        /// What.
        quantity: Quantity,
        /// The columns, quoted.
        could: String,
        /// One of them.
        first: String,
    },
    /// Neither the best models of some budgets nor all of them.
    #[error(
        "N goes up and down as C grows: these are models of many sizes, not the best of each budget, and no column says {missing}. Name it with --column {missing}=…, or say what to fit: --law optima or --law power. The table has {has}"
    )]
    Models {
        /// The quantity without which their law can't be fitted.
        missing: Quantity,
        /// All names.
        has: String,
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
/// When columns are missing or several could be meant, or when no law fits.
pub fn fit(table: &Table, options: Options) -> Result<Fits, Error> {
    unambiguous(table, options.law)?;
    let mut fitter = Fitter::new(table, options);
    fitter.parametric()?;
    fitter.isoflop()?;
    // Rows are taken for optima or for one power law only if there is nothing else that they could be.
    let is_open = fitter.is_open();
    fitter.optima(is_open)?;
    fitter.power(is_open)?;
    fitter.finish()
}

/// Whether it is clear which column is which, of those that a law asks for.
fn unambiguous(table: &Table, law: LawChoice) -> Result<(), Error> {
    let asked: &[Quantity] = match law {
        LawChoice::Parametric => &[Quantity::N, Quantity::D, Quantity::Loss],
        LawChoice::Isoflop => &[Quantity::C, Quantity::N, Quantity::Loss],
        LawChoice::Optima => &[Quantity::C, Quantity::N],
        LawChoice::Auto | LawChoice::Power => {
            &[Quantity::N, Quantity::D, Quantity::C, Quantity::Loss]
        }
    };
    let mut open = table.ambiguous.iter();
    match open.find(|(quantity, _)| asked.contains(quantity)) {
        None => Ok(()),
        Some((&quantity, columns)) => {
            let quoted: Vec<String> = columns.iter().map(|name| format!("`{name}`")).collect();
            Err(Error::Ambiguous {
                quantity,
                could: quoted.join(", "),
                first: columns[0].clone(),
            })
        }
    }
}

impl Table {
    /// How the table was understood: what is said of it beside any law. Name and text, a line each.
    pub fn facts(&self) -> Vec<(String, String)> {
        let mut facts = Vec::new();
        let mut fact = |name: &str, text: String| facts.push((name.to_owned(), text));
        let columns = self.columns.iter();
        let columns: Vec<String> = columns
            .map(|(q, name)| format!("{q} is `{name}`"))
            .collect();
        fact("Columns", columns.join(", "));
        if !self.unused.is_empty() {
            fact("Not used", self.unused.join(", "));
        }
        if let Some(runs) = &self.runs {
            let text = format!(
                "rows are checkpoints of {} runs, told apart by `{}`; intervals come from drawing runs, not rows",
                runs.groups().len(),
                runs.column
            );
            fact("Runs", text);
        }
        facts
    }
}

#[cfg(test)]
mod tests;
