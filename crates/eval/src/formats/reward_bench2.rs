//! RewardBench 2: `prompt`, `chosen` and `rejected` (lists of answers), `subset`, `num_correct`, `id`.
//!
//! In each subset but one the highest of the answers is to be the one that is right. The subset of ties has prompts with
//! many right answers (`id` is `tied:7`), and a version of each with one (`ref:7`); it is scored as a whole.

use super::{Record, Wrong};
use crate::question::{Builder, Kind};

/// The subset that is scored otherwise.
pub(crate) const TIES: &str = "Ties";

pub(super) fn read(builder: &mut Builder, record: Record<'_>) -> Result<(), Wrong> {
    let prompt = record.text("prompt")?;
    let [chosen, rejected] = [record.texts("chosen")?, record.texts("rejected")?];
    let right = record.count("num_correct")?;
    if right != chosen.len() {
        let what = format!("says {right}, and 'chosen' has {} answers", chosen.len());
        return Err(Wrong::key("num_correct", &what));
    }
    for (key, answers) in [("chosen", &chosen), ("rejected", &rejected)] {
        if answers.is_empty() {
            return Err(Wrong::key(key, "is an empty list"));
        }
    }
    if prompt.trim().is_empty() {
        builder.set_aside("the prompt has no text", record.place);
        return Ok(());
    }
    if chosen.iter().any(|answer| rejected.contains(answer)) {
        builder.set_aside("a right and a wrong answer are the same text", record.place);
        return Ok(());
    }
    let subset = record.label("subset")?.unwrap_or_else(|| "all".to_owned());
    let question = builder.question(&prompt, None);
    let mut numbers = |answers: &[String]| -> Vec<usize> {
        let numbers = answers.iter().map(|text| builder.answer(question, text));
        numbers.collect()
    };
    let (right, wrong) = (numbers(&chosen), numbers(&rejected));
    if !subset.eq_ignore_ascii_case(TIES) {
        builder.task(question, subset, Kind::Best { right, wrong });
        return Ok(());
    }
    let (reference, number) = version(record)?;
    let kind = Kind::Ties {
        right,
        wrong,
        reference,
    };
    builder.task_of(question, TIES.to_owned(), kind, format!("ties {number}"));
    Ok(())
}

/// Which prompt of the ties, and whether it is the version with one right answer.
fn version(record: Record<'_>) -> Result<(bool, String), Wrong> {
    let id = record.label("id")?.unwrap_or_default();
    match id.split_once(':') {
        Some(("ref", number)) => Ok((true, number.to_owned())),
        Some(("tied", number)) => Ok((false, number.to_owned())),
        _ => Err(Wrong::key(
            "id",
            &format!("is '{id}', not 'ref:N' or 'tied:N'"),
        )),
    }
}
