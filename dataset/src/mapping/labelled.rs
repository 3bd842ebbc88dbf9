//! Labelled records: which of two answers is preferred, or how good one answer of several is.

use super::answer::answers;
use super::columns::{Column, ColumnMapping};
use super::compiled::{Source, Unusable, source};
use super::labels::ReferenceFrom;
use super::record::{Answer, Record};
use super::row::{Problem, Row, SampleLabel, label, wrong};
use crate::labelled::Label;
use crate::schema::Prompt;

/// The subset of records that don't name one.
const ALL: &str = "all";

/// What a labelled record holds, compiled.
#[derive(Debug, Clone)]
pub(crate) struct Labelled {
    holds: Holds,
    subset: Option<Source>,
}

#[derive(Debug, Clone)]
enum Holds {
    /// Two answers, of which one is preferred.
    Pair {
        chosen: Source,
        rejected: Source,
        reference: Reference,
    },
    /// An answer and its score.
    Scored { response: Source, score: Source },
}

#[derive(Debug, Clone)]
enum Reference {
    Column(Source),
    Chosen,
    None,
}

impl Labelled {
    /// Compiles what a mapping says of labels.
    pub(super) fn new(columns: &ColumnMapping) -> Result<Self, Unusable> {
        if columns.names_policy() {
            return Err(Unusable::LabelledPolicy);
        }
        let subset = source(&columns.subset)?;
        if let Some(score) = &columns.score {
            if matches!(columns.reference, Some(ReferenceFrom::Column(_))) {
                return Err(Unusable::RankedReference);
            }
            let response = columns.response.as_ref();
            let response = response.ok_or(Unusable::NoColumn("response"))?;
            let holds = Holds::Scored {
                response: Source::of(response)?,
                score: Source::of(score)?,
            };
            return Ok(Self { holds, subset });
        }
        let (Some(chosen), Some(rejected)) = (&columns.chosen, &columns.rejected) else {
            return Err(Unusable::NoPreference);
        };
        let reference = match columns.reference.as_ref().ok_or(Unusable::NoReference)? {
            ReferenceFrom::Column(column) => Reference::Column(Source::of(column)?),
            ReferenceFrom::Best => Reference::Chosen,
            ReferenceFrom::None => Reference::None,
        };
        let holds = Holds::Pair {
            chosen: Source::of(chosen)?,
            rejected: Source::of(rejected)?,
            reference,
        };
        Ok(Self { holds, subset })
    }

    /// The columns that it looks at.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Source> {
        let of_label = match &self.holds {
            Holds::Pair {
                chosen,
                rejected,
                reference,
            } => {
                let reference = match reference {
                    Reference::Column(column) => Some(column),
                    Reference::Chosen | Reference::None => None,
                };
                [Some(chosen), Some(rejected), reference]
            }
            Holds::Scored { response, score } => [Some(response), Some(score), None],
        };
        of_label.into_iter().flatten().chain(&self.subset)
    }

    /// The row of a record: its policy is the subset, its response the label in writing; none for an answer
    /// that is null, and an empty one where one is blank.
    pub(super) fn row(&self, record: Record<'_>) -> Result<Row, Problem> {
        let asks = match &self.holds {
            Holds::Pair { chosen, .. } => chosen,
            Holds::Scored { response, .. } => response,
        };
        let (prompt, split) = record.asked(Some(asks))?;
        let label = match &self.holds {
            Holds::Pair {
                chosen,
                rejected,
                reference,
            } => {
                let chosen = match split {
                    Some(answer) => answer,
                    None => one(record, chosen, &prompt)?,
                };
                let rejected = one(record, rejected, &prompt)?;
                let reference = match reference {
                    Reference::Column(column) => Some(one(record, column, &prompt)?),
                    Reference::Chosen => Some(chosen.clone()),
                    Reference::None => None,
                };
                pair(chosen, rejected, reference)
            }
            Holds::Scored { response, score } => {
                let answer = match split {
                    Some(answer) => answer,
                    None => one(record, response, &prompt)?,
                };
                let score = number(record, score)?;
                answer.map(|response| match is_blank(&response) {
                    true => String::new(),
                    false => Label::Scored { response, score }.to_json(),
                })
            }
        };
        let subset = match &self.subset {
            Some(source) => self::label(&source.column, &*record.get(source)?)?,
            None => ALL.to_owned(),
        };
        Ok(Row {
            prompt,
            prompt_id: record.prompt_id()?,
            policy: subset,
            sample: SampleLabel::Order,
            response: label,
            meta: record.meta(),
        })
    }
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// A pair in writing.
fn pair(chosen: Answer, rejected: Answer, reference: Option<Answer>) -> Answer {
    let reference = match reference {
        Some(reference) => Some(reference?),
        None => None,
    };
    let (chosen, rejected) = (chosen?, rejected?);
    let texts = [Some(&chosen), Some(&rejected), reference.as_ref()];
    if texts.into_iter().flatten().any(|text| is_blank(text)) {
        return Some(String::new());
    }
    let label = Label::Pair {
        reference,
        chosen,
        rejected,
    };
    Some(label.to_json())
}

/// The one answer in a column.
fn one(record: Record<'_>, source: &Source, prompt: &Prompt) -> Result<Answer, Problem> {
    let value = record.get(source)?;
    let found = answers(&value, prompt, record.mapping.reasoning)
        .map_err(|why| wrong(&source.column, why.sentence(), &value))?;
    match <[Answer; 1]>::try_from(found) {
        Ok([answer]) => Ok(answer),
        Err(_) => Err(wrong(&source.column, "one answer is needed", &value)),
    }
}

/// The number in a column, also where it is written as text.
fn number(record: Record<'_>, source: &Source) -> Result<f64, Problem> {
    let value = record.get(source)?;
    let number = match value.as_str() {
        Some(text) => text.trim().parse().ok(),
        None => value.as_f64(),
    };
    let number = number.filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| wrong(&source.column, "a number is needed", &value))
}

/// Usual names of columns of labelled records, the most telling ones first.
pub(super) const CHOSEN: [&str; 4] = ["chosen", "preferred", "chosen_response", "response_chosen"];
pub(super) const REJECTED: [&str; 5] = [
    "rejected",
    "dispreferred",
    "rejected_response",
    "response_rejected",
    "reject",
];
pub(super) const REFERENCES: [&str; 4] =
    ["reference", "ref", "reference_answer", "reference_response"];
pub(super) const SCORES: [&str; 4] = ["score", "overall_score", "rating", "helpfulness"];
pub(super) const SUBSETS: [&str; 2] = ["subset", "category"];

impl Column {
    /// Whether it is this one column.
    pub(super) fn is(&self, name: &str) -> bool {
        matches!(self.paths(), [path] if path == name)
    }
}
