//! Rows of metrics as other programs read them: lines of CSV, and numbers with tags.

use polestar_run::{
    Trial,
    metrics::{REAL, Row, SCORES, WHOLE},
    scores::Scored,
};
use std::{collections::BTreeMap, fmt::Write as _};

/// The first line of a trial's metrics.csv. The columns are those of the Parquet files, of all sets that the trial
/// may be scored on.
pub(super) fn head(trial: &Trial) -> String {
    let fixed = WHOLE.iter().map(|(name, _)| (*name).to_owned());
    let real = REAL.iter().map(|(name, _)| (*name).to_owned());
    let sets = trial.measurement.sets.iter();
    let scores = sets.flat_map(|set| {
        let columns = SCORES.iter();
        columns.map(|(end, _)| quoted(&format!("{}{end}", set.name)))
    });
    let names: Vec<String> = fixed.chain(real).chain(scores).collect();
    names.join(",") + "\n"
}

/// The line of a row.
pub(super) fn line(trial: &Trial, row: &Row) -> String {
    let mut line = String::new();
    let mut cell = |value: Option<String>| {
        if !line.is_empty() {
            line.push(',');
        }
        line.push_str(&value.unwrap_or_default());
    };
    for (_, of) in WHOLE {
        cell(Some(of(row).to_string()));
    }
    for (_, of) in REAL {
        // The shortest decimal that is read as the same number.
        cell(of(row).map(|number| number.to_string()));
    }
    for set in &trial.measurement.sets {
        let score = row.validation.get(&set.name);
        for (_, of) in SCORES {
            cell(score.and_then(of).map(|number| number.to_string()));
        }
    }
    line + "\n"
}

/// A name as CSV has it.
fn quoted(name: &str) -> String {
    match name.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.to_owned(),
    }
}

/// The step that a line of metrics.csv begins with.
pub(super) fn step_of(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|&byte| byte == b',')?;
    std::str::from_utf8(&line[..end]).ok()?.parse().ok()
}

/// A row as scalars. What is told of a pace is since the row before, if that is known.
pub(super) fn scalars(trial: &Trial, row: &Row, before: Option<&Row>) -> Vec<(String, f64)> {
    let mut all = Vec::new();
    let mut add = |tag: &str, number: Option<f64>| {
        if let Some(number) = number.filter(|number| number.is_finite()) {
            all.push((tag.to_owned(), number));
        }
    };
    add("train/loss", Some(row.loss));
    add("train/accuracy", row.accuracy);
    add("train/margin", row.margin);
    add("train/lr", Some(row.lr));
    add("train/grad_norm", Some(row.grad_norm));
    add("progress/triplets", Some(row.triplets as f64));
    add("progress/tokens", Some(row.plain_tokens as f64));
    add("progress/flops_6nd", Some(row.flops_6nd));
    add("progress/seconds", Some(row.seconds));
    let to_do = trial.recipe.steps.saturating_sub(row.step.0) as f64;
    let each = row.seconds / row.step.0 as f64;
    add("progress/seconds_left", Some(to_do * each));
    if let Some(before) = before {
        let seconds = row.seconds - before.seconds;
        // A generation that began in between counts its seconds from its checkpoint on.
        let pace = |more: f64| (seconds > 0.0).then(|| more / seconds);
        let tokens = row.plain_tokens.saturating_sub(before.plain_tokens) as f64;
        add("speed/tokens_per_second", pace(tokens));
        add(
            "speed/flops_per_second",
            pace(row.flops_6nd - before.flops_6nd),
        );
    }
    for (set, score) in &row.validation {
        for (end, of) in SCORES {
            add(&format!("{set}/{}", end.trim_start_matches('_')), of(score));
        }
    }
    all
}

/// How a finished trial ranks each pair of policies, as CSV: policies by their numbers in the corpus, the one whose
/// answers should win first.
pub(super) fn pairs(scores: &[Scored]) -> String {
    let mut pairs: BTreeMap<(&str, u32, u32), Vec<f64>> = BTreeMap::new();
    for scored in scores {
        let key = (&*scored.set, scored.triplet.policy, scored.triplet.other);
        pairs.entry(key).or_default().push(f64::from(scored.margin));
    }
    let mut text = "set,policy,other,triplets,accuracy,margin\n".to_owned();
    for ((set, policy, other), margins) in pairs {
        let count = margins.len() as f64;
        let credit = |margin: &f64| match margin.total_cmp(&0.0) {
            // A tie counts half, also that of a negative zero.
            _ if *margin == 0.0 => 0.5,
            std::cmp::Ordering::Greater => 1.0,
            _ => 0.0,
        };
        let accuracy = margins.iter().map(credit).sum::<f64>() / count;
        let margin = margins.iter().sum::<f64>() / count;
        let set = quoted(set);
        writeln!(text, "{set},{policy},{other},{count},{accuracy},{margin}")
            .expect("a text takes everything");
    }
    text
}
