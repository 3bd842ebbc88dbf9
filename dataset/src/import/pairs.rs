//! Labels of one prompt, grouped: pairs as they were given, and those that ranked answers make.

use std::collections::{BTreeMap, BTreeSet};

use super::spill::Found;
use crate::assemble::{Answer, Group, InputCounts};
use crate::labelled::{Label, Scored, ranked};
use crate::schema::Prompt;

/// A ranked answer, and where it is from.
struct Rated {
    input: u32,
    response: String,
    score: f64,
    meta: Option<String>,
    /// Whether a pair is made of it.
    used: bool,
}

/// The pairs of a prompt: numbered over all its subsets, in input order. `best` makes the best of ranked
/// answers the reference.
pub(super) fn group(
    prompt_id: String,
    prompt: Prompt,
    mut rows: Vec<Found>,
    best: bool,
) -> Result<Group, serde_json::Error> {
    // Stable: within a subset the order of the input remains.
    rows.sort_by(|a, b| a.answer.policy.cmp(&b.answer.policy));
    let mut inputs: BTreeMap<u32, InputCounts> = BTreeMap::new();
    let mut answers = Vec::new();
    for rows in rows.chunk_by(|a, b| a.answer.policy == b.answer.policy) {
        let subset = &rows[0].answer.policy;
        let mut push = |label: &Label, meta: Option<String>| {
            let sample = answers.len() as u32;
            answers.push(Answer {
                policy: subset.clone(),
                sample,
                response: label.to_json(),
                meta,
            });
        };
        let (mut seen, mut rated) = (BTreeSet::new(), Vec::new());
        for Found { input, answer, .. } in rows {
            let counts = inputs.entry(*input).or_default();
            if !seen.insert(&answer.response) {
                counts.repeats += 1;
                continue;
            }
            match Label::from_json(&answer.response)? {
                Label::Scored { response, score } => rated.push(Rated {
                    input: *input,
                    response,
                    score,
                    meta: answer.meta.clone(),
                    used: false,
                }),
                Label::Pair {
                    chosen, rejected, ..
                } if chosen == rejected => counts.unpaired += 1,
                pair => {
                    counts.kept += 1;
                    push(&pair, answer.meta.clone());
                }
            }
        }
        for (pair, meta) in rank(&mut rated, best) {
            push(&pair, meta);
        }
        for rated in &rated {
            let counts = inputs.entry(rated.input).or_default();
            match rated.used {
                true => counts.kept += 1,
                false => counts.unpaired += 1,
            }
        }
    }
    Ok(Group {
        prompt_id,
        prompt,
        inputs,
        answers,
    })
}

/// The pairs of ranked answers, each with the meta of both.
fn rank(rated: &mut [Rated], best: bool) -> Vec<(Label, Option<String>)> {
    let scored = rated.iter().map(|rated| Scored {
        response: &rated.response,
        score: rated.score,
    });
    let pairs = ranked(&scored.collect::<Vec<_>>(), best);
    let mut labels = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let (chosen, rejected) = (&rated[pair.chosen], &rated[pair.rejected]);
        let meta = chosen.meta.as_ref().zip(rejected.meta.as_ref());
        let meta = meta
            .map(|(chosen, rejected)| format!(r#"{{"chosen":{chosen},"rejected":{rejected}}}"#));
        let label = Label::Pair {
            reference: pair.reference.map(|at| rated[at].response.clone()),
            chosen: chosen.response.clone(),
            rejected: rejected.response.clone(),
        };
        labels.push((label, meta));
        for at in [pair.chosen, pair.rejected]
            .into_iter()
            .chain(pair.reference)
        {
            rated[at].used = true;
        }
    }
    labels
}
