//! The report of a run: laws fitted to its finished trials, and the files that state them.
//!
//! [`build`] is pure: the same input gives the same bytes. What can't be fitted is a sentence with its reason, in the
//! figures as on the page.

mod analysis;
mod compare;
mod data;
mod discrimination;
mod figure;
mod html;
mod input;
mod interactive;
mod number;
mod paper;
mod policies;

#[cfg(test)]
mod demo;

use serde::Serialize;

use crate::fits::{Bootstrap, Comparison, PowerLaw, Selection, frontier, isoflop::Method};

pub use analysis::{Analysis, HoldOut};
pub use compare::{Compared, Row};
pub use discrimination::{Discrimination, Judged, LengthBand, LengthProbe, Pair};
pub use figure::FigureError;
pub use input::{Corpus, Curve, CurvePoint, ReportInput, Validation};
pub use policies::ByPolicies;

/// A run's findings, ready to be written out.
#[derive(Clone, Debug)]
pub struct Report {
    input: ReportInput,
    by_params: Law,
    by_compute: Law,
    analysis: Analysis,
}

/// What a law's x is, with everything that differs between the laws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantity {
    /// Model parameters, N.
    Parameters,
    /// Training compute in FLOPs, C.
    Compute,
}

/// One law: its points, and its fit or why there is none.
#[derive(Clone, Debug, Serialize)]
pub struct Law {
    /// What x is.
    pub quantity: Quantity,
    /// Which points entered.
    #[serde(flatten)]
    pub selection: Selection,
    /// The fit.
    pub outcome: Outcome,
    /// How it stands beside the law with a floor.
    pub comparison: Option<Comparison>,
}

/// How a report's laws are fitted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fitting {
    /// What intervals rest on.
    pub bootstrap: Bootstrap,
    /// How the best size of a budget is found.
    pub valley: Method,
}

/// Whether a law could be fitted.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The fitted law.
    Fitted(PowerLaw),
    /// Why there is none.
    Refused(String),
}

/// Why a report could not be written out.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A picture.
    #[error("can't draw {figure} of the report; report.json and points.csv hold the same numbers")]
    Draw {
        /// The figure's file name without its ending.
        figure: &'static str,
        /// The cause.
        #[source]
        source: FigureError,
    },
    /// report.json.
    #[error("can't encode report.json; check the names given to the report")]
    Encode(#[source] serde_json::Error),
}

/// Fits what can be fitted.
pub fn build(input: &ReportInput) -> Report {
    build_with(input, Fitting::default())
}

/// As [`build`], in a way of one's own.
pub fn build_with(input: &ReportInput, fitting: Fitting) -> Report {
    let (points, failed, chance) = (&input.points, &input.failed, input.chance);
    let law = |quantity, selection| Law::new(quantity, selection, fitting.bootstrap);
    Report {
        by_params: law(
            Quantity::Parameters,
            frontier::by_params(points, failed, chance),
        ),
        by_compute: law(
            Quantity::Compute,
            frontier::by_compute(points, failed, chance),
        ),
        analysis: analysis::analyse(input, fitting),
        input: input.clone(),
    }
}

impl Report {
    /// The law in parameters.
    pub fn by_params(&self) -> &Law {
        &self.by_params
    }

    /// The law in compute.
    pub fn by_compute(&self) -> &Law {
        &self.by_compute
    }

    /// What else was fitted.
    pub fn analysis(&self) -> &Analysis {
        &self.analysis
    }

    /// What it was made from.
    pub fn input(&self) -> &ReportInput {
        &self.input
    }

    /// Whether trials are still to come.
    pub fn is_provisional(&self) -> bool {
        !self.input.missing.is_empty()
    }

    /// The report's files as (name, bytes): the page first, then data, then figures.
    ///
    /// # Errors
    /// A figure that can't be drawn or numbers that can't be encoded; both point at a defect, not at the data.
    pub fn files(&self) -> Result<Vec<(String, Vec<u8>)>, ReportError> {
        let draw = |figure: &'static str, svg: Result<String, FigureError>| {
            svg.map_err(|source| ReportError::Draw { figure, source })
                .map(|svg| (figure, svg))
        };
        let mut figures = vec![
            draw("loss-vs-params", figure::scaling(self, &self.by_params))?,
            draw("loss-vs-compute", figure::scaling(self, &self.by_compute))?,
        ];
        if let Some(svg) = figure::valleys(self) {
            figures.push(draw("valleys", svg)?);
        }
        if let Some(svg) = figure::residuals(self) {
            figures.push(draw("residuals", svg)?);
        }
        // A table of runs has no curves.
        if self.input.chance.is_some() || !self.input.curves.is_empty() {
            figures.push(draw("curves", figure::curves(self))?);
        }
        let sets = self.input.discriminations.iter();
        for (found, name) in sets.zip(["pairs-1", "pairs-2"]) {
            if let Some(svg) = figure::pairs(self, found) {
                figures.push(draw(name, svg)?);
            }
        }
        let page = html::page(self, &figures);
        let mut files = vec![
            ("report.html".to_owned(), page.into_bytes()),
            (
                "report.json".to_owned(),
                data::json(self).map_err(ReportError::Encode)?,
            ),
            ("points.csv".to_owned(), data::csv(self).into_bytes()),
        ];
        for (figure, svg) in &figures {
            let png = figure::png(svg).map_err(|source| ReportError::Draw { figure, source })?;
            files.push((format!("{figure}.svg"), svg.clone().into_bytes()));
            files.push((format!("{figure}.png"), png));
        }
        Ok(files)
    }

    /// "3 of 16 trials have not finished", when that is so.
    fn progress(&self) -> Option<String> {
        let missing = self.input.missing.len();
        let all = missing + self.input.points.len() + self.input.failed.len();
        self.is_provisional().then(|| {
            format!(
                "{missing} of {all} trials {} not finished",
                if missing == 1 { "has" } else { "have" }
            )
        })
    }

    /// Model sizes in the order they are coloured: ascending in parameters.
    fn sizes(&self) -> Vec<(u64, &str)> {
        let points = self
            .input
            .points
            .iter()
            .map(|point| (point.params, point.size.as_str()));
        let curves = self
            .input
            .curves
            .iter()
            .map(|curve| (curve.params, curve.size.as_str()));
        let mut sizes: Vec<_> = points.chain(curves).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }
}

/// What models of so many parameters are called where they have no name.
pub fn size_name(params: f64) -> String {
    number::count(params)
}

impl Quantity {
    /// Its letter in the law.
    fn symbol(self) -> &'static str {
        match self {
            Self::Parameters => "N",
            Self::Compute => "C",
        }
    }

    /// A value of it, as printed.
    fn value(self, x: f64) -> String {
        match self {
            Self::Parameters => number::count(x),
            Self::Compute => number::flops(x),
        }
    }

    /// The law its paper gives.
    fn paper(self) -> paper::PaperLaw {
        match self {
            Self::Parameters => paper::BY_PARAMS,
            Self::Compute => paper::BY_COMPUTE,
        }
    }
}

impl Law {
    fn new(quantity: Quantity, mut selection: Selection, bootstrap: Bootstrap) -> Self {
        let unit = match quantity {
            Quantity::Parameters => "parameters",
            Quantity::Compute => "training FLOPs",
        };
        let outcome = match PowerLaw::fit(unit, &selection.chosen, bootstrap) {
            Ok(law) => Outcome::Fitted(law),
            Err(refusal) => Outcome::Refused(refusal.to_string()),
        };
        if let Outcome::Fitted(law) = &outcome
            && law.exponent_interval.hi >= 0.0
        {
            selection.cautions.push(format!(
                "The 95% interval of the exponent reaches {:.4}: these points do not show that loss falls with {unit}.",
                law.exponent_interval.hi
            ));
        }
        let comparison = match &outcome {
            Outcome::Fitted(law) => Some(Comparison::with_floor(unit, law, bootstrap)),
            Outcome::Refused(_) => None,
        };
        Self {
            quantity,
            selection,
            outcome,
            comparison,
        }
    }

    /// The fit, if there is one.
    pub fn fitted(&self) -> Option<&PowerLaw> {
        match &self.outcome {
            Outcome::Fitted(law) => Some(law),
            Outcome::Refused(_) => None,
        }
    }

    /// The law with its interval and R², or why there is none, on one line.
    pub fn text(&self) -> String {
        match &self.outcome {
            Outcome::Fitted(law) => format!(
                "L = {} {}^{:.4} (95%: {:.4} to {:.4}), R² {:.3}",
                number::significant(law.coefficient, 3),
                self.quantity.symbol(),
                law.exponent,
                law.exponent_interval.lo,
                law.exponent_interval.hi,
                law.r2
            ),
            Outcome::Refused(reason) => format!("No law: {reason}."),
        }
    }
}

#[cfg(test)]
mod tests;
