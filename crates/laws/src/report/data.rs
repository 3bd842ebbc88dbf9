//! The report as data: report.json with every number and fit, points.csv for a spreadsheet.

use super::{Analysis, Report, ReportInput, ScalingLaw, Validation};
use crate::fits::Interval;
use serde::Serialize;

#[derive(Serialize)]
struct Document<'a> {
    provisional: bool,
    chance_loss: Option<f64>,
    laws: [&'a ScalingLaw; 2],
    analysis: &'a Analysis,
    /// In the order of `input.validation`, clustered by prompt; null where prompts are unknown or too few.
    validation_loss_95: Vec<Option<Interval>>,
    validation_accuracy_95: Vec<Option<Interval>>,
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
        validation_loss_95: validation.iter().map(Validation::loss_interval).collect(),
        validation_accuracy_95: validation
            .iter()
            .map(Validation::accuracy_interval)
            .collect(),
        input: &report.input,
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// points.csv: one line a finished trial, with its place in each law.
pub(super) fn csv(report: &Report) -> String {
    fn known<T: ToString>(value: Option<T>) -> String {
        value.map_or_else(String::new, |value| value.to_string())
    }
    let mut text = String::from(
        "trial,size,params,flops,tokens,budget,batch,lr,policies,policy_distance,seed,loss,loss_lo,loss_hi,\
         accuracy,accuracy_lo,accuracy_hi,triplets,prompts,law_in_parameters,law_in_compute\n",
    );
    for trial in &report.input.finished {
        let score = report.fitted_score(&trial.name);
        let loss = score.and_then(Validation::loss_interval);
        let accuracy = score.and_then(Validation::accuracy_interval);
        let fields = [
            trial.name.clone(),
            trial.at.size.clone(),
            known(trial.params),
            known(trial.flops),
            known(trial.tokens),
            known(trial.at.budget()),
            known(trial.at.batch),
            known(trial.at.lr),
            known(trial.at.policies.map(|policies| policies.count)),
            known(trial.distance),
            trial.at.seed.to_string(),
            trial.loss.to_string(),
            known(loss.map(|interval| interval.lo)),
            known(loss.map(|interval| interval.hi)),
            known(score.map(|score| score.accuracy)),
            known(accuracy.map(|interval| interval.lo)),
            known(accuracy.map(|interval| interval.hi)),
            known(score.map(|score| score.triplets)),
            known(score.and_then(|score| score.prompts)),
            report.by_params.place(&trial.name),
            report.by_compute.place(&trial.name),
        ];
        text.push_str(&fields.map(|value| field(&value)).join(","));
        text.push('\n');
    }
    text
}

impl Report {
    /// A trial's score on the set that the laws are fitted to.
    fn fitted_score(&self, trial: &str) -> Option<&Validation> {
        let mut scores = self.input.validation.iter();
        scores.find(|score| score.trial == trial && score.set == self.input.fitted_set)
    }
}

impl ScalingLaw {
    /// `in the fit`, or why a trial is not.
    fn place(&self, trial: &str) -> String {
        let mut excluded = self.selection.excluded.iter();
        match excluded.find(|excluded| excluded.trial == trial) {
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
