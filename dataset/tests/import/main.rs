//! Import: every format gives the same corpus, the memory limit never shows, and what is wrong is
//! named.

mod across;
mod batch;
mod cases;
mod labelled;
mod look;
mod resume;
mod similar;
mod tokenizer;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::arrow::ArrowWriter;
use polestar_core::{Lane, Objective, Step};
use polestar_dataset::import::Error;
use polestar_dataset::loader::DEFAULT_MEMORY;
use polestar_dataset::manifest::FileSplit;
use polestar_dataset::{
    Accounts, AssembleError, ColumnMapping, Corpus, FileLayout, HeldOut, ImportOptions, LoadPlan,
    Loader, Manifest, Progress, Prompt, SampleConfig, Split, Stage, StepBatch, TokenTriplet,
    Trajectory, Weighting, import, inspect, schema, verify,
};
use polestar_store::Store;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

/// 40 prompts, 6 policies (two of them aliases), 3 samples, now and then a repeated answer.
fn trajectories() -> Vec<Trajectory> {
    let mut rows = Vec::new();
    for prompt in 0..40 {
        for policy in ["a", "a-copy", "b", "c", "d", "e"] {
            for sample in 0..3 {
                let repeated = prompt % 7 == 0 && policy == "b";
                let answer = if repeated {
                    "the same".to_owned()
                } else {
                    format!("{policy} says {sample} to {prompt}\n")
                };
                rows.push(Trajectory {
                    prompt_id: String::new(),
                    prompt: Prompt::plain(format!("question {prompt}?")),
                    policy: policy.into(),
                    sample,
                    response: answer.repeat(1 + prompt % 3),
                    meta: None,
                });
            }
        }
    }
    rows
}

fn json_lines(rows: &[Trajectory]) -> String {
    let line = |row: &Trajectory| {
        let prompt = &row.prompt.0[0].content;
        serde_json::json!({ "prompt": prompt, "policy": row.policy, "sample": row.sample, "response": row.response }).to_string()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn write(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn options(input: &Path, output: &Path) -> ImportOptions {
    ImportOptions {
        inputs: vec![text(input)],
        output: output.to_str().unwrap().into(),
        heldout_prompts: HeldOut::Count(8),
        heldout_policies: vec!["e".into()],
        aliases: vec![vec!["a".into(), "a-copy".into()]],
        vocab_size: 400,
        layout: FileLayout {
            row_group_rows: 100,
            ..FileLayout::default()
        },
        temp_dir: input.parent().map(Path::to_owned),
        ..ImportOptions::default()
    }
}

async fn imported(options: ImportOptions) -> Result<Manifest, Error> {
    import(options, &|_| {}).await
}

/// An error with all its causes.
fn told(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(|error| error.to_string())
        .collect::<Vec<_>>()
        .join(": ")
}

#[tokio::test]
async fn every_format_gives_the_same_corpus() {
    let folder = tempfile::tempdir().unwrap();
    let rows = trajectories();
    let text = json_lines(&rows);
    let plain = write(&folder, "rows.jsonl", text.as_bytes());

    let mut zstd = zstd::Encoder::new(Vec::new(), 3).unwrap();
    zstd.window_log(27).unwrap();
    zstd.write_all(text.as_bytes()).unwrap();
    let zstd = write(&folder, "rows.jsonl.zst", &zstd.finish().unwrap());

    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    let gzip = write(&folder, "rows.jsonl.gz", &gzip.finish().unwrap());

    let batch = schema::encode(&rows).unwrap();
    let mut parquet = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    parquet.write(&batch).unwrap();
    let parquet = write(&folder, "rows.parquet", &parquet.into_inner().unwrap());

    let mut manifests = Vec::new();
    for (number, input) in [plain, zstd, gzip, parquet].iter().enumerate() {
        let output = folder.path().join(format!("corpus-{number}"));
        manifests.push(imported(options(input, &output)).await.unwrap());
        let verification = verify(&Store::open(output.to_str().unwrap()).unwrap())
            .await
            .unwrap();
        assert!(verification.sound(), "{verification}");
    }
    let first = &manifests[0];
    for manifest in &manifests[..3] {
        assert_eq!(
            (&manifest.files, &manifest.policies, &manifest.tokenizer),
            (&first.files, &first.policies, &first.tokenizer)
        );
    }
    // A plain prompt comes from Parquet as a list of one message, which is the same prompt.
    assert_eq!(manifests[3].files, first.files);

    assert_eq!(
        Accounts(&first.inputs).total().repeats,
        6 * 2,
        "two repeats in every seventh prompt"
    );
    assert_eq!(
        (first.counts.train_prompts, first.counts.heldout_prompts),
        (32, 8)
    );
    assert_eq!(
        first
            .files
            .iter()
            .filter(|file| file.split == FileSplit::Heldout)
            .count(),
        1
    );
    let roles: Vec<_> = first
        .policies
        .iter()
        .map(|p| (p.name.as_str(), p.held_out, p.aliases.len()))
        .collect();
    let expected = [
        ("a", false, 1),
        ("a-copy", false, 1),
        ("b", false, 0),
        ("c", false, 0),
        ("d", false, 0),
        ("e", true, 0),
    ];
    assert_eq!(roles, expected);
}

#[tokio::test]
async fn the_memory_limit_never_shows_in_the_corpus() {
    let folder = tempfile::tempdir().unwrap();
    let input = write(
        &folder,
        "rows.jsonl",
        json_lines(&trajectories()).as_bytes(),
    );
    let mut fingerprints = Vec::new();
    for (name, memory) in [("much", 1 << 30), ("little", 4096)] {
        let output = folder.path().join(name);
        fingerprints.push(
            imported(ImportOptions {
                memory,
                ..options(&input, &output)
            })
            .await
            .unwrap()
            .fingerprint,
        );
    }
    assert_eq!(fingerprints[0], fingerprints[1]);
}

/// What training and validation see of a corpus.
async fn seen(corpus: &Arc<Corpus>, samples: &SampleConfig) -> (Vec<StepBatch>, Vec<TokenTriplet>) {
    let plan = LoadPlan {
        seed: 3,
        batch: 16,
        lanes: 4,
        hosted: (0..4).map(Lane).collect(),
        start: Step(0),
        objective: Objective::Polar,
        pack_tokens: 4096,
        samples: samples.clone(),
        weighting: Weighting::Balanced,
        window: 8,
        memory: DEFAULT_MEMORY,
    };
    let mut loader = Loader::start(Arc::clone(corpus), plan);
    let steps = (0..6).map(|_| loader.next().unwrap()).collect();
    let validation = corpus.validation(Split::HeldoutPrompts, 30, 1, samples);
    (steps, validation.await.unwrap())
}

#[tokio::test]
async fn stored_tokens_train_as_the_texts_do() {
    let folder = tempfile::tempdir().unwrap();
    let rows = json_lines(&trajectories());
    let input = write(&folder, "rows.jsonl", rows.as_bytes());
    let mut corpora = Vec::new();
    for (name, pretokenize) in [("texts", false), ("tokens", true)] {
        let output = folder.path().join(name);
        let options = ImportOptions {
            pretokenize,
            ..options(&input, &output)
        };
        let manifest = imported(options).await.unwrap();
        assert_eq!(manifest.tokenizer.stored_tokens, pretokenize);
        let url = output.to_str().unwrap();
        let verification = verify(&Store::open(url).unwrap()).await.unwrap();
        assert!(verification.sound(), "{verification}");
        corpora.push(Corpus::open(url).await.unwrap());
    }
    let clipped = SampleConfig {
        max_prompt: 3,
        max_response: 4,
        ..SampleConfig::default()
    };
    for samples in [SampleConfig::default(), clipped] {
        let texts = seen(&corpora[0], &samples).await;
        assert!(seen(&corpora[1], &samples).await == texts, "{samples:?}");
    }
}

#[tokio::test]
async fn a_corpus_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let input = write(
        &folder,
        "rows.jsonl",
        json_lines(&trajectories()).as_bytes(),
    );
    let output = folder.path().join("corpus");
    let first = imported(options(&input, &output)).await.unwrap();
    assert_eq!(
        imported(options(&input, &output)).await.unwrap(),
        first,
        "the same again is fine"
    );

    let other = imported(ImportOptions {
        seed: 1,
        ..options(&input, &output)
    })
    .await
    .unwrap_err();
    assert!(
        matches!(&other, Error::Assemble(AssembleError::Occupied { .. })),
        "{other}"
    );
    // Equal options over an input of equal size but other content: the manifest alone can't tell.
    let changed = json_lines(&trajectories()).replace("a says 0 to 17", "a says 9 to 17");
    write(&folder, "rows.jsonl", changed.as_bytes());
    let other = imported(options(&input, &output)).await.unwrap_err();
    assert!(
        matches!(&other, Error::Assemble(AssembleError::Occupied { .. })),
        "{other}"
    );
    let verification = verify(&Store::open(output.to_str().unwrap()).unwrap())
        .await
        .unwrap();
    assert!(verification.sound(), "{verification}");
}

#[tokio::test]
async fn strict_policies_join_columns_and_text_samples_are_ranked() {
    let folder = tempfile::tempdir().unwrap();
    let mut lines = Vec::new();
    for prompt in 0..4 {
        for config in ["hot", "cold"] {
            for sample in ["s/2", "s/1"] {
                let chat = serde_json::json!([{ "role": "system", "content": "Be brief." }, { "role": "user", "content": format!("{prompt}") }]);
                let response = format!("{config} {sample}");
                lines.push(serde_json::json!({ "q": chat, "m": "x", "c": config, "id": sample, "r": response, "k": 7 }).to_string());
            }
        }
    }
    let input = write(&folder, "rows.jsonl", lines.join("\n").as_bytes());
    let output = folder.path().join("corpus");
    let columns = ColumnMapping {
        prompt: Some("q".into()),
        policy: vec!["m".into(), "c".into()],
        sample: Some("id".into()),
        response: Some("r".into()),
        meta: vec!["k".into()],
        ..ColumnMapping::default()
    };
    let options = ImportOptions {
        columns,
        heldout_policies: vec![],
        aliases: vec![],
        heldout_prompts: HeldOut::Fraction(0.25),
        ..options(&input, &output)
    };
    let manifest = imported(options).await.unwrap();
    assert_eq!(
        manifest
            .policies
            .iter()
            .map(|p| p.name.as_str())
            .collect::<Vec<_>>(),
        ["x | cold", "x | hot"]
    );
    assert_eq!(
        (
            manifest.counts.train_prompts,
            manifest.counts.heldout_prompts
        ),
        (3, 1)
    );
    let corpus = Corpus::open(output.to_str().unwrap()).await.unwrap();
    assert_eq!(corpus.policy_name(1), Some("x | hot"));

    let bytes = Store::open(corpus.url())
        .unwrap()
        .get("train-00000.parquet")
        .await
        .unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes)
        .unwrap()
        .build()
        .unwrap();
    let rows: Vec<Trajectory> = reader
        .flat_map(|batch| schema::decode(&batch.unwrap()).unwrap())
        .collect();
    assert_eq!(
        (
            rows[0].sample,
            rows[0].response.as_str(),
            rows[0].meta.as_deref()
        ),
        (0, "cold s/1", Some("{\"k\":7}"))
    );
    assert_eq!(rows[0].prompt.0[0].role.as_deref(), Some("system"));
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let row = |policy: &str, response: &str| {
        serde_json::json!({ "prompt": "p", "policy": policy, "response": response }).to_string()
    };
    let good = [row("a", "1"), row("a", "2"), row("b", "3")].join("\n");
    let cases: [(&str, String, &[&str]); 8] = [
        (
            "json.jsonl",
            format!("{good}\n{{\"prompt\": "),
            &["json.jsonl", "line 4", "cut off"],
        ),
        (
            "column.jsonl",
            "{\"prompt\": \"p\", \"who\": \"a\", \"response\": \"r\"}".into(),
            &["--policy", "prompt, who, response"],
        ),
        (
            "type.jsonl",
            good.replace("\"3\"", "{\"score\": 3}"),
            &["line 3", "'response'", "an object", "text", "--bad-rows"],
        ),
        (
            "chat.jsonl",
            good.replace("\"p\"", "[{\"text\": 1}]"),
            &["'prompt'", "{role, content}"],
        ),
        (
            "alone.jsonl",
            [row("a", "1"), row("a", "2")].join("\n"),
            &[
                "no prompt can give a triplet",
                "1 because one policy only answered it",
            ],
        ),
        (
            "single.jsonl",
            [row("a", "1"), row("a", "1"), row("b", "2")].join("\n"),
            &["1 because no policy gave two distinct answers to it"],
        ),
        (
            "page.jsonl",
            "<!DOCTYPE html><html></html>".into(),
            &["page.jsonl", "HTML"],
        ),
        (
            "null.jsonl",
            good.replace("\"3\"", "null"),
            &["line 3", "'response' is null"],
        ),
    ];
    for (name, content, parts) in cases {
        let input = write(&folder, name, content.as_bytes());
        let bare = ImportOptions {
            heldout_policies: vec![],
            aliases: vec![],
            heldout_prompts: HeldOut::Count(0),
            ..options(&input, &folder.path().join("out"))
        };
        let error = told(&imported(bare).await.unwrap_err());
        for part in parts {
            assert!(error.contains(part), "{name}: '{part}' is not in: {error}");
        }
    }

    let zstd = zstd::encode_all(good.repeat(100).as_bytes(), 3).unwrap();
    let cut = write(&folder, "cut.jsonl.zst", &zstd[..zstd.len() - 9]);
    let error = told(
        &imported(options(&cut, &folder.path().join("out")))
            .await
            .unwrap_err(),
    );
    assert!(
        error.contains("cut.jsonl.zst") && error.contains("cut off"),
        "{error}"
    );
    let good = write(&folder, "good.jsonl", good.as_bytes());
    let error = told(
        &imported(options(&good, &folder.path().join("out")))
            .await
            .unwrap_err(),
    );
    assert!(
        error.contains("--alias (aliases): no policy is 'a-copy'"),
        "{error}"
    );
}
