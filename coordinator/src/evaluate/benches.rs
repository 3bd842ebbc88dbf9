//! Benchmarks from where a user says that they lie.

use polestar_dataset::import::{FileRecord, RecordsError, records};
use polestar_eval::{Bench, Format, FormatError, Parser, Record};
use std::str::FromStr;

/// `[NAME=]PLACE`, as a user gives a benchmark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchArg {
    /// What it is called.
    pub name: String,
    /// A file, folder, pattern or URL.
    pub place: String,
}

impl FromStr for BenchArg {
    type Err = String;

    fn from_str(given: &str) -> Result<BenchArg, String> {
        let is_name = |name: &str| !name.is_empty() && is_plain(name);
        // JudgeBench's own files have an = in their names.
        let is_there = std::path::Path::new(given).exists();
        match given.split_once('=').filter(|_| !is_there) {
            Some((name, place)) if is_name(name) && !place.is_empty() => Ok(BenchArg {
                name: name.to_owned(),
                place: place.to_owned(),
            }),
            _ if given.is_empty() => Err("a benchmark is a file, a folder or a URL".to_owned()),
            _ => Ok(BenchArg {
                name: unpack_name(given),
                place: given.to_owned(),
            }),
        }
    }
}

/// Whether a name can be one of an object in a store.
pub fn is_plain(name: &str) -> bool {
    name.chars().all(is_plain_letter) && name.chars().any(|c| c.is_ascii_alphanumeric())
}

fn is_plain_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

/// What a place is called: the last part of it, without endings.
fn unpack_name(place: &str) -> String {
    const ENDINGS: [&str; 10] = [
        ".zst", ".gz", ".xz", ".bz2", ".jsonl", ".json", ".parquet", ".arrow", ".csv", ".tsv",
    ];
    let path = place.trim_end_matches('/');
    let mut name = path.rsplit('/').next().unwrap_or(path);
    while let Some(shorter) = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)) {
        name = shorter;
    }
    let plain: String = name
        .chars()
        .map(|c| if is_plain_letter(c) { c } else { '-' })
        .collect();
    match is_plain(&plain) {
        true => plain,
        false => "benchmark".to_owned(),
    }
}

/// Why a benchmark can't be read.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A file can't be read.
    #[error("the benchmark {name} can't be read")]
    Records {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: Box<RecordsError>,
    },
    /// A record isn't what it should be.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// There is nothing to judge in it.
    #[error("{place} has nothing to judge: of {records} records {why}")]
    Empty {
        /// Where.
        place: String,
        /// How many records it has.
        records: u64,
        /// What became of them.
        why: String,
    },
}

/// Reads a benchmark. Blocks its thread, which must not be one of an asynchronous runtime's.
///
/// # Errors
/// [`BenchError`], with file and line.
pub fn read_bench(arg: &BenchArg, format: Option<Format>) -> Result<(Format, Bench), BenchError> {
    let mut parser = Parser::new(format);
    let mut wrong = None;
    let read = records(
        std::slice::from_ref(&arg.place),
        &mut |record: FileRecord| {
            let pushed = parser.push(Record {
                file: &record.file,
                place: &record.place,
                fields: &record.fields,
            });
            wrong = pushed.err();
            wrong.is_none()
        },
    );
    if let Some(wrong) = wrong {
        return Err(wrong.into());
    }
    let skipped = read.map_err(|source| BenchError::Records {
        name: arg.name.clone(),
        source: Box::new(source),
    })?;
    for name in skipped {
        tracing::warn!("of the benchmark {} this is not read: {name}", arg.name);
    }
    match parser.finish() {
        (Some(format), bench) if bench.account.tasks > 0 => Ok((format, bench)),
        (_, bench) => {
            let aside = bench.account.aside.iter();
            let why: Vec<String> = aside
                .map(|(reason, aside)| format!("{}: {reason} (first {})", aside.count, aside.first))
                .collect();
            Err(BenchError::Empty {
                place: arg.place.clone(),
                records: bench.account.records,
                why: match why.is_empty() {
                    true => "none can be judged".to_owned(),
                    false => why.join("; "),
                },
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_benchmark_is_called_what_the_user_says_or_its_file_is() {
        let arg = |given: &str| given.parse::<BenchArg>().unwrap();
        let of = |given: &str| (arg(given).name, arg(given).place);
        let pair = |name: &str, place: &str| (name.to_owned(), place.to_owned());
        assert_eq!(of("rmb=RMB_dataset/"), pair("rmb", "RMB_dataset/"));
        assert_eq!(of("a/pref_bench.jsonl.zst").0, "pref_bench");
        // JudgeBench's own name has an = in it.
        let judge = "data/dataset=judgebench,response_model=gpt-4o.jsonl";
        assert_eq!(
            of(judge),
            pair("dataset-judgebench-response_model-gpt-4o", judge)
        );
        let hub = "hf://datasets/allenai/reward-bench-2";
        assert_eq!(of(hub), pair("reward-bench-2", hub));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            let path = folder.path().join("pairs.jsonl");
            std::fs::write(&path, text).unwrap();
            let arg: BenchArg = path.to_str().unwrap().parse().unwrap();
            std::thread::spawn(move || read_bench(&arg, None))
                .join()
                .unwrap()
        };
        let good = r#"{"prompt": "p", "chosen": "a", "rejected": "b"}"#;
        let (format, bench) = read(&format!("{good}\n\n{good}\n")).unwrap();
        assert_eq!((format, bench.account.records), (Format::Pairs, 2));
        let refused = |text: &str| {
            let error = read(text).unwrap_err();
            polestar_core::causes(&error).join(": ")
        };
        let missing = refused(&format!(
            "{good}\n{{\"prompt\": \"p\", \"chosen\": 1, \"rejected\": \"b\"}}\n"
        ));
        assert!(
            missing.contains("pairs.jsonl line 2") && missing.contains("'chosen'"),
            "{missing}"
        );
        let broken = refused(&format!("{good}\n{{\"prompt\": \"p\n"));
        assert!(
            broken.contains("pairs.jsonl") && broken.contains("line 2"),
            "{broken}"
        );
        let same = refused(r#"{"prompt": "p", "chosen": "a", "rejected": "a"}"#);
        assert!(same.contains("the same text"), "{same}");
    }
}
