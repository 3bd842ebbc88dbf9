//! The report as data: report.json with every number and fit, points.csv for a spreadsheet.

use serde::Serialize;

use super::{Analysis, Law, Report, ReportInput};
use crate::fits::Interval;

#[derive(Serialize)]
struct Document<'a> {
    provisional: bool,
    chance_loss: Option<f64>,
    laws: [&'a Law; 2],
    analysis: &'a Analysis,
    /// In the order of `input.validation`.
    validation_accuracy_95: Vec<Interval>,
    input: &'a ReportInput,
}

/// report.json.
pub(super) fn json(report: &Report) -> Result<Vec<u8>, serde_json::Error> {
    let validation = &report.input.validation;
    let mut bytes = serde_json::to_vec_pretty(&Document {
        provisional: report.is_provisional(),
        chance_loss: report.input.chance,
        laws: [&report.by_params, &report.by_compute],
        analysis: &report.analysis,
        validation_accuracy_95: validation
            .iter()
            .map(|row| Interval::wilson(row.accuracy, row.triplets))
            .collect(),
        input: &report.input,
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// points.csv: one line a finished trial, with its place in each law.
pub(super) fn csv(report: &Report) -> String {
    let mut text = String::from(
        "trial,size,params,flops,tokens,budget,policies,policy_distance,seed,loss,law_in_parameters,law_in_compute\n",
    );
    for point in &report.input.points {
        let fields = [
            point.trial.clone(),
            point.size.clone(),
            point.params.to_string(),
            point.flops.to_string(),
            point.tokens.to_string(),
            point
                .budget
                .map(|budget| budget.to_string())
                .unwrap_or_default(),
            point
                .policies
                .map(|policies| policies.to_string())
                .unwrap_or_default(),
            point
                .distance
                .map(|distance| distance.to_string())
                .unwrap_or_default(),
            point.seed.to_string(),
            point.loss.to_string(),
            report.by_params.place(&point.trial),
            report.by_compute.place(&point.trial),
        ];
        text.push_str(&fields.map(|value| field(&value)).join(","));
        text.push('\n');
    }
    text
}

impl Law {
    /// `in the fit`, or why a trial is not.
    pub(super) fn place(&self, trial: &str) -> String {
        match self
            .selection
            .excluded
            .iter()
            .find(|excluded| excluded.trial == trial)
        {
            Some(excluded) => excluded.reason.clone(),
            None => "in the fit".to_owned(),
        }
    }
}

/// One CSV field, quoted where it must be.
fn field(value: &str) -> String {
    if value.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value.to_owned()
    }
}
