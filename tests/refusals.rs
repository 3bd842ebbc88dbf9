//! Bad input is named: file, line or key, and what to do; and nothing half-made is left.

use crate::common::{Sandbox, small_sweep, transcript};

fn import(sandbox: &Sandbox, file: &str, more: &[&str]) -> String {
    let mut arguments = vec!["corpus", "import", file, "--output", "corpus"];
    arguments.extend(more);
    let said = sandbox.refuse(&arguments);
    assert!(
        !sandbox.path("corpus/corpus.json").exists(),
        "no corpus is left: {said}"
    );
    said
}

const LINES: &str = r#"{"prompt":"p","policy":"a","response":"one"}
{"prompt":"p","policy":"a","response":"two"}
{"prompt":"p","policy":"b","response":"three"}
"#;

#[test]
fn a_line_that_is_not_json() {
    let sandbox = Sandbox::new();
    sandbox.write("t.jsonl", &format!("{LINES}{{\"prompt\": oops\n"));
    let said = import(&sandbox, "t.jsonl", &[]);
    assert!(
        said.contains("t.jsonl, line 4: it ") && said.contains("--bad-rows skip"),
        "{said}"
    );
    // Nothing was read to its end, so nothing is kept.
    assert!(!said.contains("keeps what was read"), "{said}");
    assert!(!sandbox.path("corpus").exists(), "{said}");
}

#[test]
fn a_missing_column() {
    let sandbox = Sandbox::new();
    sandbox.write("t.jsonl", LINES);
    let said = import(&sandbox, "t.jsonl", &["--response", "answer"]);
    assert!(
        said.contains(
            "t.jsonl, line 1: there is no column 'answer'; it has prompt, policy, response: map"
        ),
        "{said}"
    );
}

#[test]
fn a_corpus_without_a_usable_prompt() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "t.jsonl",
        &LINES.replace("\"a\",\"response\":\"two\"", "\"c\",\"response\":\"two\""),
    );
    let said = import(&sandbox, "t.jsonl", &[]);
    assert!(
        said.contains("1 because no policy gave two distinct answers to it")
            && said.contains("--pairs across-prompts (1 prompts)"),
        "{said}"
    );
}

#[test]
fn a_truncated_parquet_file() {
    let sandbox = Sandbox::new();
    sandbox.succeed(&["corpus", "synth", "--output", "whole", "--prompts", "120"]);
    let bytes = std::fs::read(sandbox.path("whole/train-00000.parquet")).expect("a corpus");
    std::fs::write(sandbox.path("t.parquet"), &bytes[..bytes.len() / 2]).expect("writable");
    let said = import(&sandbox, "t.parquet", &[]);
    assert!(said.contains("t.parquet is cut off"), "{said}");
}

#[test]
fn a_tokenizer_without_the_special_tokens() {
    let sandbox = Sandbox::new();
    sandbox.write("t.jsonl", LINES);
    sandbox.write(
        "tokenizer.json",
        r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":null,"post_processor":null,"decoder":null,"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"vocab":{"a":0},"merges":[]}}"#,
    );
    let said = import(&sandbox, "t.jsonl", &["--tokenizer", "tokenizer.json"]);
    assert!(
        said.contains("tokenizer.json") && said.contains("<|reward|>"),
        "{said}"
    );
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "sweep.toml",
        &small_sweep(5).replace("batch = 16", "batsh = 16"),
    );
    let said = sandbox.refuse(&["launch", "sweep.toml"]);
    assert!(
        said.contains("sweep.toml:") && said.contains("`batsh`; did you mean `batch`?"),
        "{said}"
    );
    assert!(!sandbox.path("runs").exists() && !sandbox.path("corpus").exists());
}

#[test]
fn a_store_without_credentials() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(5));
    let said = sandbox.refuse(&["launch", "sweep.toml", "--store", "s3://bucket/runs"]);
    assert!(said.contains("AWS_ACCESS_KEY_ID"), "{said}");
}

#[test]
fn a_corpus_that_was_made_otherwise() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(5));
    sandbox.succeed(&["launch", "sweep.toml"]);
    sandbox.write(
        "sweep.toml",
        &small_sweep(5).replace("policies = 6", "policies = 7"),
    );
    let said = sandbox.refuse(&["launch", "sweep.toml"]);
    assert!(
        said.contains("was made with other [corpus.synth] options; give corpus.url another place"),
        "{said}"
    );
}

#[test]
fn a_worker_with_nobody_to_join() {
    let sandbox = Sandbox::new();
    let address = "http://127.0.0.1:1";
    sandbox.succeed(&["token", "t"]);
    let said = sandbox.refuse(&[
        "worker",
        "join",
        "--coordinator",
        address,
        "--token-file",
        "t",
    ]);
    assert!(
        said.contains(&format!("{address} can't be reached")),
        "{said}"
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_trouble() {
    let sandbox = Sandbox::new();
    let synth = ["corpus", "synth", "--output", "corpus", "--prompts", "300"];
    sandbox.succeed(&synth);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut inspect = sandbox.command(&["corpus", "inspect", "corpus"]);
    let output = inspect.stdout(writer).output().expect("the program starts");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}

#[test]
fn a_disk_that_is_full_is_told_in_a_sentence() {
    let sandbox = Sandbox::new();
    let full = || std::fs::File::options().write(true).open("/dev/full");
    let mut presets = sandbox.command(&["presets"]);
    presets.stdout(full().expect("Linux has it"));
    let output = presets.output().expect("the program starts");
    let said = transcript(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.trim().lines().count() == 1 && said.contains("can't be written"),
        "{said}"
    );
}

#[test]
fn a_launch_trains_on_when_nobody_listens() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(5));
    let gone = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        writer
    };
    let mut launch = sandbox.command(&["launch", "sweep.toml"]);
    let status = launch.stdout(gone()).stderr(gone()).status();
    assert!(status.expect("the program starts").success());
    let report = sandbox.only_run("runs").join("report/report.html");
    assert!(report.exists());

    // The same with a disk that is full, which whoever wanted the output has to know.
    std::fs::remove_file(&report).expect("it is there");
    let full = std::fs::File::options().write(true).open("/dev/full");
    let mut launch = sandbox.command(&["launch", "sweep.toml"]);
    launch.stdout(full.expect("Linux has it"));
    let output = launch.output().expect("the program starts");
    assert_eq!(output.status.code(), Some(1), "{}", transcript(&output));
    assert!(report.exists(), "{}", transcript(&output));
}

#[test]
fn looking_at_what_is_not_there_makes_nothing() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(5));
    std::fs::create_dir(sandbox.path("quickstart-1a2b")).expect("writable");
    let elsewhere = small_sweep(5).replace("url = \"corpus\"", "url = \"korpus\"");
    let (before, after) = elsewhere.split_once("[corpus.synth]").expect("a sweep");
    let (_, after) = after.split_once("[samples]").expect("a sweep");
    sandbox.write("lost.toml", &format!("{before}[samples]{after}"));
    for command in [
        &["status", "quickstart-1a2c"][..],
        &["report", "quickstart-1a2c"],
        &["report", "quickstart-1a2c", "--compare", "quickstart-1a2d"],
        &["verify", "quickstart-1a2c"],
        &["recommend", "quickstart-1a2c", "--flops", "1e12"],
        &["checkpoint", "list", "quickstart-1a2c"],
        &["checkpoint", "prune", "quickstart-1a2c"],
        &["corpus", "inspect", "quickstart-1a2c"],
        &["corpus", "verify", "quickstart-1a2c"],
    ] {
        let said = sandbox.refuse(command);
        assert!(said.contains("quickstart-1a2b?"), "{command:?}: {said}");
    }
    for command in ["plan", "launch"] {
        let said = sandbox.refuse(&[command, "lost.toml"]);
        assert!(said.contains("corpus.url: there is no folder"), "{said}");
    }
    let mut names: Vec<String> = std::fs::read_dir(sandbox.path(""))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().display().to_string())
        .collect();
    names.sort();
    assert_eq!(names, ["lost.toml", "quickstart-1a2b", "sweep.toml"]);
}

#[test]
fn a_temporary_folder_that_is_not_there_is_told_before_anything_is_made() {
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &small_sweep(5));
    let mut launch = sandbox.command(&["launch", "sweep.toml"]);
    let launch = launch.env("TMPDIR", sandbox.path("nowhere"));
    let output = launch.output().expect("the program starts");
    let said = transcript(&output);
    assert!(
        !output.status.success() && said.contains("set TMPDIR"),
        "{said}"
    );
    assert!(
        output.stdout.is_empty() && !sandbox.path("corpus").exists(),
        "{said}"
    );
}

#[test]
fn help_says_what_the_program_is_for() {
    let help = Sandbox::new().succeed(&["--help"]);
    assert!(
        help.starts_with("Train reward models of several sizes"),
        "{help}"
    );
    let launch = Sandbox::new().succeed(&["launch", "--help"]);
    assert!(launch.contains("Example: coordinator launch"), "{launch}");
}
