//! Times imports of the rows of a JSONL file, with a tokenizer that is trained and with one that is given, and
//! the tokenization of all their texts. For `scripts/bench`.
//!
//! Prints one line of JSON: rows a second of both imports, tokens a second on all cores.

use polestar_dataset::{GivenTokenizer, HeldOut, ImportOptions, Tokenizer, import};
use rayon::prelude::*;
use std::{io::BufRead, path::Path, time::Instant};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("bench_import ROWS.jsonl FOLDER");
    let (rows, folder) = (next()?, next()?);
    let (trained, given) = (format!("{folder}/trained"), format!("{folder}/given"));
    let runtime = tokio::runtime::Runtime::new()?;
    let timed = |output: &str, tokenizer: Option<&str>| {
        let options = ImportOptions {
            inputs: vec![rows.clone()],
            output: output.into(),
            heldout_prompts: HeldOut::Count(0),
            tokenizer: tokenizer.map(Into::into),
            ..ImportOptions::default()
        };
        let begun = Instant::now();
        let manifest = runtime.block_on(import(options, &|_| {}))?;
        let seconds = begun.elapsed().as_secs_f64();
        Ok::<_, Failure>(manifest.counts.trajectories as f64 / seconds)
    };
    let with_training = timed(&trained, None)?;
    let without = timed(&given, Some(&trained))?;

    let texts = texts(&rows)?;
    let GivenTokenizer { tokenizer, .. } = Tokenizer::given(Path::new(&trained))?;
    let begun = Instant::now();
    let counts = texts
        .par_iter()
        .map(|text| Ok(tokenizer.encode(text)?.len()));
    let counts: Result<Vec<usize>, polestar_dataset::tokenizer::Error> = counts.collect();
    let seconds = begun.elapsed().as_secs_f64();
    let tokens: usize = counts?.iter().sum();
    println!(
        "{}",
        serde_json::json!({
            "trained": with_training,
            "given": without,
            "tokens": tokens as f64 / seconds,
            "count": tokens,
        })
    );
    Ok(())
}

/// Prompts and responses, each as often as it is there.
fn texts(rows: &str) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::new();
    for line in std::io::BufReader::new(std::fs::File::open(rows)?).lines() {
        let row: serde_json::Value = serde_json::from_str(&line?)?;
        for column in ["prompt", "response"] {
            texts.extend(row[column].as_str().map(str::to_owned));
        }
    }
    Ok(texts)
}
