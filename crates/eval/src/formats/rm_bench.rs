//! RM-Bench: arrays of objects with `prompt`, and three right (`chosen`) and three wrong (`rejected`) answers each:
//! concise, detailed, detailed with Markdown. `domain` is in the file of all domains; files of one name it.
//!
//! A pair is hard where the right answer's style is the plainer one, normal where both are of one style.

use super::{Record, Wrong, pairs::no_pair};
use crate::question::{Builder, Kind};
use std::cmp::Ordering;

const STYLES: usize = 3;
/// What a difficulty is called.
pub(crate) const DIFFICULTIES: [&str; 3] = ["easy", "normal", "hard"];

pub(super) fn read(builder: &mut Builder, record: Record<'_>) -> Result<(), Wrong> {
    let prompt = record.text("prompt")?;
    let [chosen, rejected] = [record.texts("chosen")?, record.texts("rejected")?];
    for (key, answers) in [("chosen", &chosen), ("rejected", &rejected)] {
        if answers.len() != STYLES {
            let what = format!(
                "has {} answers, not one of each of {STYLES} styles",
                answers.len()
            );
            return Err(Wrong::key(key, &what));
        }
    }
    let domain = domain(record)?;
    let question = builder.question(&prompt, None);
    for (style, right) in chosen.iter().enumerate() {
        for (other, wrong) in rejected.iter().enumerate() {
            if let Some(reason) = no_pair(&prompt, right, wrong) {
                builder.set_aside(reason, record.place);
                continue;
            }
            let difficulty = match style.cmp(&other) {
                Ordering::Greater => "easy",
                Ordering::Equal => "normal",
                Ordering::Less => "hard",
            };
            let better = builder.answer(question, right);
            let worse = builder.answer(question, wrong);
            let category = format!("{domain}/{difficulty}");
            builder.task(question, category, Kind::Pair { better, worse });
        }
    }
    Ok(())
}

/// Both kinds of safety are one domain.
fn domain(record: Record<'_>) -> Result<String, Wrong> {
    let given = record.label("domain")?;
    let of_file = || {
        let name = record.file.rsplit(['/', '\\']).next().unwrap_or_default();
        name.split(['_', '.']).next().unwrap_or_default().to_owned()
    };
    let domain = given.unwrap_or_else(of_file);
    let known = ["chat", "math", "code", "safety"];
    let known = known.into_iter().find(|known| domain.starts_with(known));
    Ok(match known {
        Some(known) => known.to_owned(),
        None => domain,
    })
}
