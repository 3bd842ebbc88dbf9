//! PPE: human preferences (`prompt`, `response_1`, `response_2`, `winner`), and lists of K answers of one model
//! (`response_1` to `response_K`) of which `scores` says which are right.
//!
//! Of a list, `sampled_conflict_pairs` (numbers of answers, from 0) are the pairs that are judged; where the file has
//! none, all pairs of a right and a wrong answer would be, so the list counts as best-of-K only.

use super::{
    Record, Wrong,
    field::is_not,
    pairs::{Labels, no_pair, pair},
};
use crate::question::{Builder, Kind};
use serde_json::Value;

/// What pairs are counted under, and lists.
pub(crate) const PAIRS: &str = "pairs";
const BEST: &str = "best-of-K";

pub(super) fn read(builder: &mut Builder, record: Record<'_>) -> Result<(), Wrong> {
    match record.find("scores") {
        Some(_) => list(builder, record),
        None => human(builder, record),
    }
}

fn human(builder: &mut Builder, record: Record<'_>) -> Result<(), Wrong> {
    let prompt = record.text("prompt")?;
    let [first, second] = [record.text("response_1")?, record.text("response_2")?];
    let winner = record.label("winner")?.unwrap_or_default();
    let texts = match winner.as_str() {
        "model_a" => [&*prompt, &*first, &*second],
        "model_b" => [&*prompt, &*second, &*first],
        tie if tie.starts_with("tie") => {
            builder.set_aside("people preferred neither answer", record.place);
            return Ok(());
        }
        other => {
            let what = format!("is '{other}', not model_a, model_b or tie");
            return Err(Wrong::key("winner", &what));
        }
    };
    let language = record.label("language")?;
    let language = language.unwrap_or_else(|| "unknown language".to_owned());
    let labels = Labels {
        reference: None,
        category: format!("{PAIRS}/{language}"),
    };
    pair(builder, record, texts, labels);
    Ok(())
}

fn list(builder: &mut Builder, record: Record<'_>) -> Result<(), Wrong> {
    let prompt = record.text("prompt")?;
    if prompt.trim().is_empty() {
        builder.set_aside("the prompt has no text", record.place);
        return Ok(());
    }
    let scores: Result<Vec<bool>, Wrong> = record.list("scores")?.iter().map(is_right).collect();
    let scores = scores?;
    let answers: Result<Vec<String>, Wrong> = (1..=scores.len())
        .map(|number| record.text(&format!("response_{number}")))
        .collect();
    let answers = answers?;
    let category = match record.label("category")? {
        Some(category) => format!("/{category}"),
        None => String::new(),
    };
    let question = builder.question(&prompt, None);
    let numbers: Vec<usize> = answers
        .iter()
        .map(|text| builder.answer(question, text))
        .collect();
    for (one, other) in conflicts(record, answers.len())? {
        let reason = match scores[one] == scores[other] {
            true => Some("both answers of a pair are right, or both wrong"),
            false => no_pair(&prompt, &answers[one], &answers[other]),
        };
        if let Some(reason) = reason {
            builder.set_aside(reason, record.place);
            continue;
        }
        let (right, wrong) = if scores[one] {
            (one, other)
        } else {
            (other, one)
        };
        let kind = Kind::Pair {
            better: numbers[right],
            worse: numbers[wrong],
        };
        builder.task(question, format!("{PAIRS}{category}"), kind);
    }
    let of = |wanted: bool| -> Vec<usize> {
        let those = scores
            .iter()
            .zip(&numbers)
            .filter(|(right, _)| **right == wanted);
        let mut those: Vec<usize> = those.map(|(_, number)| *number).collect();
        those.sort_unstable();
        those.dedup();
        those
    };
    let (right, wrong) = (of(true), of(false));
    let reason = if right.is_empty() || wrong.is_empty() {
        Some("all answers of a list are right, or all wrong")
    } else if right.iter().any(|number| wrong.contains(number)) {
        Some("a right and a wrong answer are the same text")
    } else {
        None
    };
    match reason {
        Some(reason) => builder.set_aside(reason, record.place),
        None => builder.task(
            question,
            format!("{BEST}{category}"),
            Kind::Best { right, wrong },
        ),
    }
    Ok(())
}

/// Truth values; some tables have them as numbers.
fn is_right(value: &Value) -> Result<bool, Wrong> {
    match (value.as_bool(), value.as_f64()) {
        (Some(right), _) => Ok(right),
        (_, Some(number)) if number == 0.0 || number == 1.0 => Ok(number == 1.0),
        _ => Err(Wrong::key(
            "scores",
            &format!("holds a value that {}", is_not(value, "true or false")),
        )),
    }
}

/// The pairs that the file has chosen.
fn conflicts(record: Record<'_>, answers: usize) -> Result<Vec<(usize, usize)>, Wrong> {
    const KEY: &str = "sampled_conflict_pairs";
    if record.find(KEY).is_none() {
        return Ok(Vec::new());
    }
    let number = |value: &Value| {
        let number = value.as_u64().map(|number| number as usize);
        number.filter(|number| *number < answers)
    };
    let pair = |value: &Value| match value.as_array().map(Vec::as_slice) {
        Some([one, other]) => number(one).zip(number(other)),
        _ => None,
    };
    let wrong = || {
        let what =
            format!("holds something else than two numbers of its {answers} answers, from 0");
        Wrong::key(KEY, &what)
    };
    let list = record.list(KEY)?.iter();
    list.map(|value| pair(value).ok_or_else(wrong)).collect()
}
