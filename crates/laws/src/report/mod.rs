//! The report of a run: laws fitted to its finished trials, and the files that state them.
//!
//! [`build`] is pure: the same input gives the same bytes. What can't be fitted is a sentence with its reason, in the
//! figures as on the page.

mod analysis;
mod compare;
mod data;
mod discrimination;
mod figures;
mod input;
mod number;
mod page;
mod paper;
mod policies;
mod preference;
mod scored;
mod tuned;

#[cfg(test)]
mod demo;

use crate::fits::{
    Bootstrap, FinishedTrial, Fit, FormComparison, PowerLaw, Selection, frontier, isoflop::Method,
};
use serde::Serialize;

pub use analysis::{Analysis, Prediction};
pub use compare::{Difference, PairedDifference, RunComparison};
pub use discrimination::{Discrimination, LengthBand, LengthProbe, Pair, ScoredTriplet};
pub use figures::{FigureError, LineFigure, LineSeries};
pub use input::{BestTrial, Corpus, ReportInput, Validation};
pub use page::BASE_STYLE;
pub use policies::{ByPolicies, PolicyLoss};
pub use preference::{PreferenceScore, PreferenceSet};
pub use scored::{CurveScores, CutShare, CutTexts, Cutting};
pub use tuned::FineTuned;

/// A run's findings, ready to be written out.
#[derive(Clone, Debug)]
pub struct Report {
    input: ReportInput,
    by_params: ScalingLaw,
    by_compute: ScalingLaw,
    analysis: Analysis,
    resamples: usize,
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

/// One law: its trials, and its fit or why there is none.
#[derive(Clone, Debug, Serialize)]
pub struct ScalingLaw {
    /// What x is.
    pub quantity: Quantity,
    /// Which trials entered.
    #[serde(flatten)]
    pub selection: Selection,
    /// The fit.
    #[serde(rename = "outcome")]
    pub fit: Fit<PowerLaw>,
    /// How it stands beside the law with a floor.
    pub comparison: Option<FormComparison>,
}

/// How a report's laws are fitted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fitting {
    /// What intervals rest on.
    pub bootstrap: Bootstrap,
    /// How the best size of a budget is found.
    pub valley: Method,
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
    let (finished, failed, chance) = (&input.finished, &input.failed, input.chance);
    let law = |quantity, selection| ScalingLaw::new(quantity, selection, fitting.bootstrap);
    Report {
        by_params: law(
            Quantity::Parameters,
            frontier::by_params(finished, failed, chance),
        ),
        by_compute: law(
            Quantity::Compute,
            frontier::by_compute(finished, failed, chance),
        ),
        analysis: analysis::analyse(input, fitting),
        resamples: fitting.bootstrap.resamples,
        input: input.clone(),
    }
}

impl Report {
    /// The law in parameters.
    pub fn by_params(&self) -> &ScalingLaw {
        &self.by_params
    }

    /// The law in compute.
    pub fn by_compute(&self) -> &ScalingLaw {
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
        let figures = figures::all(self);
        let page = page::page(self, &figures);
        let json = data::json(self).map_err(ReportError::Encode)?;
        let mut files = vec![
            ("report.html".to_owned(), page.into_bytes()),
            ("report.json".to_owned(), json),
            ("points.csv".to_owned(), data::csv(self).into_bytes()),
        ];
        for figure in &figures {
            let svg = figures::svg(figure);
            let png = figures::png(&svg).map_err(|source| ReportError::Draw {
                figure: figure.name,
                source,
            })?;
            files.push((format!("{}.svg", figure.name), svg.into_bytes()));
            files.push((format!("{}.png", figure.name), png));
        }
        Ok(files)
    }

    /// The figures that there is something to show in, as (name, SVG).
    pub fn drawings(&self) -> Vec<(&'static str, String)> {
        let drawn = figures::all(self);
        let drawn = drawn.iter();
        drawn
            .map(|figure| (figure.name, figures::svg(figure)))
            .collect()
    }

    /// "3 of 16 trials have not finished", when that is so.
    fn progress(&self) -> Option<String> {
        let missing = self.input.missing.len();
        let all = missing + self.input.finished.len() + self.input.failed.len();
        self.is_provisional().then(|| {
            format!(
                "{missing} of {all} trials {} not finished",
                if missing == 1 { "has" } else { "have" }
            )
        })
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

    /// Its value for a trial, where that is known.
    fn of(self, trial: &FinishedTrial) -> Option<f64> {
        match self {
            Self::Parameters => trial.params,
            Self::Compute => trial.flops,
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

impl ScalingLaw {
    fn new(quantity: Quantity, mut selection: Selection, bootstrap: Bootstrap) -> Self {
        let unit = match quantity {
            Quantity::Parameters => "parameters",
            Quantity::Compute => "training FLOPs",
        };
        let fit = Fit::from(PowerLaw::fit(unit, &selection.chosen, bootstrap));
        if let Fit::Fitted(law) = &fit {
            selection.cautions.extend(law.caution(unit));
        }
        let comparison = fit
            .fitted()
            .map(|law| FormComparison::with_floor(unit, law, bootstrap));
        Self {
            quantity,
            selection,
            fit,
            comparison,
        }
    }

    /// The fit, if there is one.
    pub fn fitted(&self) -> Option<&PowerLaw> {
        self.fit.fitted()
    }

    /// Whether a trial of this name is in the fit, or would be.
    fn has_chosen(&self, trial: &str) -> bool {
        let mut chosen = self.selection.chosen.iter();
        chosen.any(|entry| entry.label == trial)
    }

    /// The law with its interval and R², or why there is none, on one line.
    pub fn text(&self) -> String {
        match &self.fit {
            Fit::Fitted(law) => format!(
                "L = {} {}^{:.4}{}, R² {:.3}",
                number::significant(law.coefficient, 3),
                self.quantity.symbol(),
                law.exponent,
                number::stated(law.exponent_interval, 4),
                law.r2
            ),
            Fit::Refused(reason) => format!("No law: {reason}."),
        }
    }
}

#[cfg(test)]
mod tests;
