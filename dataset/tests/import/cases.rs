//! Made-up inputs in the shapes of files that people have, each with what has to come of it.

use std::fmt::Write as _;

use clap::Parser;
use polestar_dataset::Account;

use super::*;

/// The flags of `corpus import`.
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: ImportOptions,
}

/// A folder of inputs, the flags, and what comes of them: what the corpus holds and what was left out, or
/// words of the refusal, separated by ` … `.
struct Case {
    folder: String,
    flags: String,
    outcome: String,
}

fn cases() -> Vec<Case> {
    let table = folder().join("expected.txt");
    let table = std::fs::read_to_string(table).expect("the table of cases");
    let lines = table
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let cases = lines.map(|line| {
        let parts: Vec<&str> = line.splitn(3, " | ").collect();
        let [folder, flags, outcome] = parts[..] else {
            panic!("'{line}' is no case");
        };
        Case {
            folder: folder.trim().into(),
            flags: flags.trim().into(),
            outcome: outcome.trim().into(),
        }
    });
    cases.collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// What a corpus holds, and what became of the rest.
fn described(manifest: &Manifest) -> String {
    let Account {
        records,
        used: _,
        failed,
        malformed,
        unmapped,
        answers: _,
        null,
        blank,
        repeats,
        similar,
        unpaired: _,
        kept,
        repaired,
        changes,
    } = Accounts(&manifest.inputs).total();
    let policies = manifest.policies.len();
    let prompts = manifest.counts.prompts;
    let mut text =
        format!("{kept} answers of {policies} policies to {prompts} prompts in {records} records");
    let counts = [
        (failed, "failed"),
        (malformed, "malformed"),
        (unmapped, "unmapped"),
        (null, "null"),
        (blank, "blank"),
        (repeats, "repeats"),
        (similar, "similar"),
        (repaired, "repaired"),
    ];
    for (count, what) in counts.iter().filter(|(count, _)| *count > 0) {
        write!(text, ", {count} {what}").unwrap();
    }
    if !changes.is_none() {
        write!(text, "; {changes}").unwrap();
    }
    text
}

async fn outcome(case: &Case) -> Result<String, String> {
    let folder = folder().join(&case.folder);
    let scratch = tempfile::tempdir().unwrap();
    let flags = case.flags.split_whitespace();
    let common = ["import", "--output", "x"];
    let line = Line::try_parse_from(common.into_iter().chain(flags)).map_err(|e| e.to_string())?;
    let within = |path: &String| text(&folder.join(path));
    let options = line.options;
    let options = ImportOptions {
        inputs: options.inputs.iter().map(within).collect(),
        join: options.join.iter().map(within).collect(),
        tokenizer: options.tokenizer.map(|path| folder.join(path)),
        output: text(&scratch.path().join("corpus")),
        vocab_size: 300,
        temp_dir: Some(scratch.path().to_owned()),
        ..options
    };
    let output = options.output.clone();
    let manifest = imported(options).await.map_err(|error| told(&error))?;
    let store = Store::open(&output).unwrap();
    let verification = verify(&store).await.unwrap();
    assert!(verification.sound(), "{}: {verification}", case.folder);
    Ok(described(&manifest))
}

#[tokio::test]
async fn every_input_gives_its_corpus_or_a_refusal_that_names_the_cause() {
    let mut wrong = String::new();
    let cases = cases();
    for case in &cases {
        let Case {
            folder,
            flags,
            outcome: expected,
        } = case;
        let found = outcome(case).await;
        let fits = match (&found, expected.strip_prefix("refused: ")) {
            (Ok(described), None) => described == expected,
            (Err(error), Some(words)) => words.split(" … ").all(|word| error.contains(word)),
            _ => false,
        };
        if !fits {
            let found = found.unwrap_or_else(|error| format!("refused: {error}"));
            writeln!(wrong, "{folder} | {flags} | {found}\n  expected {expected}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    // A folder without a line would be tried by nobody.
    let folders = std::fs::read_dir(folder()).unwrap();
    for entry in folders.map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        let known = cases.iter().any(|case| case.folder == name);
        assert!(
            known || entry.path().is_file(),
            "{name} is in no line of expected.txt"
        );
    }
}
