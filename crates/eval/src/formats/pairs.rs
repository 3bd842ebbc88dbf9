//! Any lines of pairs: `prompt`, `chosen`, `rejected`, and where there are `reference` and `category` or `subset`.

use super::{Record, Wrong};
use crate::question::{Builder, Kind};

pub(super) fn read(builder: &mut Builder, record: Record<'_>) -> Result<(), Wrong> {
    let prompt = record.text("prompt")?;
    let [chosen, rejected] = [record.text("chosen")?, record.text("rejected")?];
    let reference = record.find("reference").map(|_| record.text("reference"));
    let reference = reference
        .transpose()?
        .filter(|text| !text.trim().is_empty());
    let category = match record.label("category")? {
        Some(category) => Some(category),
        None => record.label("subset")?,
    };
    pair(
        builder,
        record,
        [&prompt, &chosen, &rejected],
        Labels {
            reference: reference.as_deref(),
            category: category.unwrap_or_else(|| "all".to_owned()),
        },
    );
    Ok(())
}

/// What stands beside a pair.
pub(super) struct Labels<'a> {
    pub(super) reference: Option<&'a str>,
    pub(super) category: String,
}

/// Adds a pair, if it is one: texts are prompt, better and worse answer.
pub(super) fn pair(
    builder: &mut Builder,
    record: Record<'_>,
    [prompt, chosen, rejected]: [&str; 3],
    labels: Labels<'_>,
) {
    if let Some(reason) = no_pair(prompt, chosen, rejected) {
        builder.set_aside(reason, record.place);
        return;
    }
    let question = builder.question(prompt, labels.reference);
    let better = builder.answer(question, chosen);
    let worse = builder.answer(question, rejected);
    builder.task(question, labels.category, Kind::Pair { better, worse });
}

/// Why two answers are no pair.
pub(super) fn no_pair(prompt: &str, chosen: &str, rejected: &str) -> Option<&'static str> {
    if prompt.trim().is_empty() {
        Some("the prompt has no text")
    } else if chosen.trim().is_empty() || rejected.trim().is_empty() {
        Some("an answer has no text")
    } else if chosen == rejected {
        Some("both answers are the same text")
    } else {
        None
    }
}
