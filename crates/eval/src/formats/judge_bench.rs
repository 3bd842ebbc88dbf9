//! JudgeBench: lines of `question`, `response_A`, `response_B` and `label` (`A>B` or `B>A`), with where the question is
//! from in `source`.

use super::{
    Record, Wrong,
    pairs::{Labels, pair},
};
use crate::question::Builder;

/// What the benchmark's sources are called in its tables: by how they begin.
const SOURCES: [(&str, &str); 4] = [
    ("mmlu-pro", "knowledge"),
    ("livebench-reasoning", "reasoning"),
    ("livebench-math", "math"),
    ("livecodebench", "coding"),
];

pub(super) fn read(builder: &mut Builder, record: Record<'_>) -> Result<(), Wrong> {
    let prompt = record.text("question")?;
    let [a, b] = [record.text("response_A")?, record.text("response_B")?];
    let label = record.label("label")?;
    let texts = match label.as_deref() {
        Some("A>B") => [&*prompt, &*a, &*b],
        Some("B>A") => [&*prompt, &*b, &*a],
        Some("A=B") => {
            builder.set_aside("neither answer is better", record.place);
            return Ok(());
        }
        other => {
            let what = format!("is {}, not A>B or B>A", other.unwrap_or("null"));
            return Err(Wrong::key("label", &what));
        }
    };
    let source = record.label("source")?.unwrap_or_default();
    let known = SOURCES.iter().find(|(start, _)| source.starts_with(start));
    let category = match known {
        Some((start, group)) if *start == source => (*group).to_owned(),
        Some((_, group)) => format!("{group}/{source}"),
        None => source,
    };
    let labels = Labels {
        reference: None,
        category,
    };
    pair(builder, record, texts, labels);
    Ok(())
}
