//! One law after the other, as far as columns and numbers allow.

use super::{
    Error, Fits, HeldOutCheck, IsoFlop, LawChoice, Options, Power, Quantity, Table, budgets::Grid,
};
use crate::fits::{
    Bootstrap, Fit, FitError, FormComparison, Groups, Observation, Parametric, PowerLaw, Run,
    isoflop::{Budget, NoValley, Optimal, UNKNOWN_NOISE, budgets, valleys},
};

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
pub(super) struct Fitter<'a> {
    table: &'a Table,
    columns: Columns<'a>,
    grid: Grid,
    options: Options,
    fits: Fits,
    /// The first law that the columns allow and the numbers don't.
    failed: Option<Error>,
}

impl<'a> Fitter<'a> {
    pub(super) fn new(table: &'a Table, options: Options) -> Self {
        let columns = table.columns.iter();
        Self {
            columns: Columns::of(table),
            grid: Grid::of(table),
            table,
            options,
            fits: Fits {
                rows: table.lines.len(),
                filtered: table.filtered,
                skipped: table.skipped,
                columns: columns
                    .map(|(q, name)| (q.to_string(), name.clone()))
                    .collect(),
                unused: table.unused.clone(),
                notes: Vec::new(),
                parametric: None,
                held_out: None,
                isoflop: None,
                power: None,
                refused: Vec::new(),
            },
            failed: None,
        }
    }

    /// Whether no law of models of many sizes was found or failed.
    pub(super) fn is_open(&self) -> bool {
        self.fits.parametric.is_none() && self.fits.isoflop.is_none() && self.failed.is_none()
    }

    fn is_wanted(&self, law: LawChoice) -> bool {
        self.options.law == law || self.options.law == LawChoice::Auto
    }

    fn missing(&self, law: &'static str, needs: &'static str) -> Error {
        let found: Vec<String> = self.table.values.keys().map(Quantity::to_string).collect();
        let found = match found.is_empty() {
            true => "none of N, D, C, loss".to_owned(),
            false => found.join(", "),
        };
        Error::Columns {
            law,
            needs,
            found,
            has: self.has(),
        }
    }

    /// The names of all columns.
    fn has(&self) -> String {
        self.table.header.join(", ")
    }

    /// L(N, D), and what it makes of the largest runs unseen.
    pub(super) fn parametric(&mut self) -> Result<(), Error> {
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
        let fitted = match &self.table.runs {
            None => Parametric::fit(&runs, self.options.bootstrap),
            Some(of) => {
                let groups = Groups::of_runs(of.groups());
                Parametric::fit_grouped(&runs, &groups, self.options.bootstrap)
            }
        };
        match fitted {
            Ok(law) => {
                self.fits.parametric = Some(law);
                self.fits.held_out = hold_out(&runs);
            }
            Err(error) => self.failed = Some(Error::Parametric(error)),
        }
        Ok(())
    }

    /// The best size of each budget, where some budget has several runs.
    pub(super) fn isoflop(&mut self) -> Result<(), Error> {
        let Columns { d, loss, .. } = self.columns;
        if !self.is_wanted(LawChoice::Isoflop) {
            return Ok(());
        }
        let (Some(c), Some(n), Some(loss)) = (&self.grid.c, &self.grid.n, loss) else {
            return match self.options.law {
                LawChoice::Auto => Ok(()),
                _ => Err(self.missing("the isoflop law", "columns C, N and loss")),
            };
        };
        if self.options.law == LawChoice::Auto && !self.grid.has_budgets {
            return Ok(());
        }
        let run = |at: usize| Run {
            n: n[at],
            // What the budget pays for, where no column says it.
            d: d.map_or(c[at] / (6.0 * n[at]), |d| d[at]),
            loss: loss[at],
        };
        let trainings = match &self.table.runs {
            Some(runs) => runs.numbers(),
            None => (0..c.len()).collect(),
        };
        let budgets = budgets((0..c.len()).map(|at| (c[at], run(at), trainings[at])));
        match isoflop(&budgets, self.options) {
            Ok(found) => {
                if let Fit::Refused(reason) = &found.laws {
                    self.fits.refused.push(format!("N* against C: {reason}"));
                }
                self.fits.notes.append(&mut self.grid.notes);
                if let Fit::Fitted(laws) = &found.laws
                    && !laws.knows_noise
                {
                    self.fits.notes.push(UNKNOWN_NOISE.to_owned());
                }
                self.fits.isoflop = Some(found);
            }
            Err(error) => self.failed = self.failed.take().or(Some(error)),
        }
        Ok(())
    }

    /// N against C, of rows that are best sizes already.
    pub(super) fn optima(&mut self, is_open: bool) -> Result<(), Error> {
        let Columns { n, c, loss, .. } = self.columns;
        let is_asked = self.options.law == LawChoice::Optima;
        match (c, n) {
            (Some(c), Some(n)) if is_asked || (self.is_auto(is_open) && loss.is_none()) => {
                if !is_asked && (self.grid.has_budgets || self.grid.is_of_models()) {
                    return Err(self.models(Quantity::Loss));
                }
                let weights: Vec<f64> = match self.table.column(Quantity::Sigma) {
                    Some(sigma) => sigma.iter().map(|s| 1.0 / (s * s)).collect(),
                    None => vec![1.0; c.len()],
                };
                let (of, by) = (Variable::new("N", n), Variable::new("C", c));
                self.fits.power = Some(self.law(of, by, &weights)?);
                Ok(())
            }
            _ if is_asked => Err(self.missing("the law of the best sizes", "columns C and N")),
            _ => Ok(()),
        }
    }

    fn models(&self, missing: Quantity) -> Error {
        Error::Models {
            missing,
            has: self.has(),
        }
    }

    /// Loss against whatever there is.
    pub(super) fn power(&mut self, is_open: bool) -> Result<(), Error> {
        let Columns { n, d, c, loss } = self.columns;
        let is_asked = self.options.law == LawChoice::Power;
        let is_last_resort = self.is_auto(is_open) && self.fits.power.is_none();
        if !(is_asked || is_last_resort) {
            return Ok(());
        }
        let x: Vec<Variable> = [("C", c), ("N", n), ("D", d)]
            .into_iter()
            .filter_map(|(name, values)| Some(Variable::new(name, values?)))
            .collect();
        let (Some(&first), Some(loss)) = (x.first(), loss) else {
            return Err(self.missing(
                "a fit",
                "columns N, D and loss, or C, N and loss, or loss and one of C, N and D, or C and N",
            ));
        };
        if !is_asked && d.is_none() && self.grid.is_of_models() {
            return Err(self.models(Quantity::D));
        }
        let chosen = x.iter().copied().find(Variable::varies).unwrap_or(first);
        for other in x.iter().filter(|x| x.name != chosen.name && x.varies()) {
            self.fits.notes.push(format!(
                "{} varies too, and a law in {} alone says nothing of it",
                other.name, chosen.name
            ));
        }
        let ones = vec![1.0; loss.len()];
        let power = self.law(Variable::new("loss", loss), chosen, &ones)?;
        self.fits.notes.extend(power.law.caution(chosen.name));
        self.fits.power = Some(power);
        Ok(())
    }

    fn is_auto(&self, is_open: bool) -> bool {
        self.options.law == LawChoice::Auto && is_open
    }

    /// What was found. One law that fits is success, and the others' refusals are part of it.
    pub(super) fn finish(mut self) -> Result<Fits, Error> {
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

    /// `of` as a power of `by`; each squared residual counts with its weight.
    fn law(&self, of: Variable, by: Variable, weights: &[f64]) -> Result<Power, FitError> {
        let bootstrap = self.options.bootstrap;
        let row = |((line, &x), &y): ((&u64, &f64), &f64)| Observation {
            label: format!("line {line}"),
            x,
            loss: y,
        };
        let rows = self.table.lines.iter().zip(by.values).zip(of.values);
        let points: Vec<Observation> = rows.map(row).collect();
        let law = match &self.table.runs {
            None => PowerLaw::fit_weighted(by.name, &points, weights, bootstrap)?,
            Some(runs) => {
                let groups = Groups::of_runs(runs.groups());
                PowerLaw::fit_grouped(by.name, &points, weights, &groups, bootstrap)?
            }
        };
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

    /// Whether it takes different values.
    fn varies(&self) -> bool {
        let mut values = self.values.iter();
        values.any(|value| (value / self.values[0] - 1.0).abs() > 1e-3)
    }
}

fn isoflop(budgets: &[Budget], options: Options) -> Result<IsoFlop, Error> {
    let (valleys, refused) = valleys(budgets, options.valley);
    if valleys.is_empty() {
        return Err(Error::NoValley(reasons(&refused)));
    }
    Ok(IsoFlop {
        laws: Optimal::of(budgets, options.valley, options.bootstrap).into(),
        valleys,
        refused,
    })
}

/// Why budgets have no best size, each reason once.
fn reasons(refused: &[NoValley]) -> String {
    let mut reasons: Vec<(&str, Vec<f64>)> = Vec::new();
    for without in refused {
        match reasons
            .iter_mut()
            .find(|(reason, _)| *reason == without.reason)
        {
            Some((_, budgets)) => budgets.push(without.flops),
            None => reasons.push((&without.reason, vec![without.flops])),
        }
    }
    let text = |(reason, budgets): (&str, Vec<f64>)| match budgets[..] {
        [one] => format!("{one:.3e} FLOP: {reason}"),
        [first, .., last] => {
            let count = budgets.len();
            format!("{count} budgets from {first:.3e} to {last:.3e} FLOP: {reason}")
        }
        [] => reason.to_owned(),
    };
    const MOST: usize = 5;
    let more = reasons.len().saturating_sub(MOST);
    let mut texts: Vec<String> = reasons.into_iter().take(MOST).map(text).collect();
    if more > 0 {
        texts.push(format!("and {more} more reasons"));
    }
    texts.join("; ")
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
