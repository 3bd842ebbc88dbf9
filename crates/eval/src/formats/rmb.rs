//! RMB: `Pairwise_set` and `BoN_set` of the benchmark's repository, arrays of objects.
//!
//! A pair has `pair_uid`, `conversation_input` (messages), `chosen` and `reject` (`llm_name`, `answer`); a best-of-N
//! list has `bon_uid`, `bon_best` and `loser_list`. `category_path` is `BoN_set/Helpfulness/Chat/Discussion`.

use super::{
    Record, Wrong,
    field::{is_not, text},
    pairs::{Labels, no_pair, pair},
};
use crate::question::{Builder, Kind};
use ahash::{AHashMap, AHashSet};
use serde_json::Value;

/// Categories of the two sets.
const PAIRS: &str = "pairs";
const BEST: &str = "best-of-N";

pub(super) fn read(builder: &mut Builder, record: Record<'_>) -> Result<(), Wrong> {
    match record.find("bon_best") {
        Some(_) => best(builder, record),
        None => {
            let (prompt, [chosen, rejected]) = texts(record)?;
            let category = category(record, PAIRS)?;
            let labels = Labels {
                reference: None,
                category,
            };
            pair(builder, record, [&prompt, &chosen, &rejected], labels);
            Ok(())
        }
    }
}

/// Prompt, and the better and worse answer.
fn texts(record: Record<'_>) -> Result<(String, [String; 2]), Wrong> {
    let prompt = record.text("conversation_input")?;
    let better = answer("chosen", record.get("chosen")?)?;
    let worse = answer("reject", record.get("reject")?)?;
    Ok((prompt, [better, worse]))
}

fn best(builder: &mut Builder, record: Record<'_>) -> Result<(), Wrong> {
    let prompt = record.text("conversation_input")?;
    let winner = answer("bon_best", record.get("bon_best")?)?;
    let losers = record.list("loser_list")?;
    let losers: Result<Vec<String>, Wrong> = losers
        .iter()
        .map(|loser| answer("loser_list", loser))
        .collect();
    let losers = losers?;
    let reason = match losers.is_empty() {
        true => Some("its list of losers is empty"),
        false => losers
            .iter()
            .find_map(|loser| no_pair(&prompt, &winner, loser)),
    };
    if let Some(reason) = reason {
        builder.set_aside(reason, record.place);
        return Ok(());
    }
    let category = category(record, BEST)?;
    let question = builder.question(&prompt, None);
    let right = vec![builder.answer(question, &winner)];
    let wrong = losers.iter().map(|loser| builder.answer(question, loser));
    let kind = Kind::Best {
        wrong: wrong.collect(),
        right,
    };
    builder.task(question, category, kind);
    Ok(())
}

/// `{"llm_name": …, "answer": …}`.
fn answer(key: &str, value: &Value) -> Result<String, Wrong> {
    match value.get("answer") {
        Some(answer) => text(&format!("{key}.answer"), answer),
        None if value.is_object() => Err(Wrong::key(key, "has no key 'answer'")),
        None => Err(Wrong::key(
            key,
            &is_not(value, "an object with the key 'answer'"),
        )),
    }
}

/// `Pairwise_set/Helpfulness/Chat/Discussion` as `helpfulness/pairs/Chat/Discussion`.
fn category(record: Record<'_>, set: &str) -> Result<String, Wrong> {
    let path = record.label("category_path")?.unwrap_or_default();
    let mut parts = path.split('/');
    // The set's folder, which the keys say, too.
    parts.next();
    let goal = parts.next().filter(|goal| !goal.is_empty());
    let goal = goal.unwrap_or("all").to_lowercase();
    let rest = parts.map(|part| format!("/{part}"));
    Ok(format!("{goal}/{set}{}", rest.collect::<String>()))
}

/// Pairs by prompt, until all are there.
#[derive(Debug, Default)]
pub(super) struct Ranked {
    prompts: Vec<Ranking>,
    known: AHashMap<String, usize>,
}

#[derive(Debug)]
struct Ranking {
    prompt: String,
    category: String,
    first: String,
    answers: Vec<String>,
    /// Which is better than which.
    above: AHashSet<(usize, usize)>,
}

impl Ranked {
    pub(super) fn read(&mut self, builder: &mut Builder, record: Record<'_>) -> Result<(), Wrong> {
        if record.find("bon_best").is_some() {
            builder.set_aside("a best-of-N list doesn't rank its losers", record.place);
            return Ok(());
        }
        let (prompt, [better, worse]) = texts(record)?;
        if let Some(reason) = no_pair(&prompt, &better, &worse) {
            builder.set_aside(reason, record.place);
            return Ok(());
        }
        let category = category(record, PAIRS)?;
        let prompts = &mut self.prompts;
        let at = *self.known.entry(prompt.clone()).or_insert_with(|| {
            prompts.push(Ranking {
                prompt,
                category,
                first: record.place.to_owned(),
                answers: Vec::new(),
                above: AHashSet::new(),
            });
            prompts.len() - 1
        });
        let ranking = &mut prompts[at];
        let pair = (ranking.number(&better), ranking.number(&worse));
        ranking.above.insert(pair);
        Ok(())
    }

    /// Of three answers each two of which are compared and that stand in one order: the best is the reference, and
    /// the second is to be above the third.
    pub(super) fn finish(&mut self, builder: &mut Builder) {
        for ranking in std::mem::take(&mut self.prompts) {
            let mut found = false;
            for (best, second, third) in ranking.triples() {
                found = true;
                let answers = &ranking.answers;
                let question = builder.question(&ranking.prompt, Some(&answers[best]));
                let better = builder.answer(question, &answers[second]);
                let worse = builder.answer(question, &answers[third]);
                let kind = Kind::Pair { better, worse };
                builder.task(question, ranking.category.clone(), kind);
            }
            if !found {
                let reason = "no three answers of the prompt are ranked";
                builder.set_aside(reason, &ranking.first);
            }
        }
    }
}

impl Ranking {
    fn number(&mut self, answer: &str) -> usize {
        let known = self.answers.iter().position(|known| known == answer);
        known.unwrap_or_else(|| {
            self.answers.push(answer.to_owned());
            self.answers.len() - 1
        })
    }

    fn triples(&self) -> Vec<(usize, usize, usize)> {
        let is_above =
            |a: usize, b: usize| self.above.contains(&(a, b)) && !self.above.contains(&(b, a));
        let all = 0..self.answers.len();
        let mut triples = Vec::new();
        for best in all.clone() {
            for second in all.clone().filter(|second| is_above(best, *second)) {
                let thirds = all.clone().filter(|third| is_above(second, *third));
                let thirds = thirds.filter(|third| is_above(best, *third));
                triples.extend(thirds.map(|third| (best, second, third)));
            }
        }
        triples
    }
}
