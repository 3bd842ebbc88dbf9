//! `corpus import | synth | inspect | verify`.

use super::{
    Error,
    table::{bytes, duration},
};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use polestar_dataset::{
    ColumnMapping, Corpus, FileLayout, HeldOut, ImportOptions, Manifest, Progress, Stage,
    SynthOptions, import, inspect, leftovers, synth, verify,
};
use polestar_store::Store;
use std::{
    cell::Cell,
    io::IsTerminal,
    path::PathBuf,
    time::{Duration, Instant},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a corpus from JSONL (.jsonl, .zst, .gz) and Parquet files of trajectories; goes on with an
    /// import to the same output that was stopped
    Import(Box<ImportArgs>),
    /// Make a corpus of synthetic policies with a computable optimum
    Synth(SynthArgs),
    /// Show what is in a corpus
    Inspect {
        /// Object store URL of the corpus
        url: String,
    },
    /// Check every file, row group and count of a corpus
    Verify {
        /// Object store URL of the corpus
        url: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Files to read
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// Object store URL of the corpus to make
    #[arg(long, value_name = "URL")]
    output: String,
    /// The inputs are outputs of batch inference (OpenAI, vLLM run-batch), and this the batch's input
    /// file; may be repeated
    #[arg(long, value_name = "FILE")]
    batch_requests: Vec<PathBuf>,
    /// Column of the prompt: a string, or a list of {role, content}
    #[arg(long, default_value = "prompt")]
    prompt: String,
    /// Column of the policy; several make the strict policy (policy,config)
    #[arg(long, value_delimiter = ',', default_value = "policy")]
    policy: Vec<String>,
    /// Column of the sample's number; without it, samples are numbered as they come
    #[arg(long)]
    sample: Option<String>,
    /// Column of the response: text, or a list of texts, {text} or {message: {content}}
    #[arg(long, default_value = "response")]
    response: String,
    /// Prompts to hold out: a number, or a fraction below 1
    #[arg(long, default_value = "0.1")]
    heldout_prompts: f64,
    /// Policies to hold out: a number of them
    #[arg(long, default_value_t = 0)]
    heldout_policies: usize,
    /// Policies that are the same under other names, as NAME=NAME; may be repeated
    #[arg(long, value_name = "NAME=NAME")]
    alias: Vec<String>,
    /// Seed of the held-out choice
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Vocabulary of the byte-level BPE that is trained
    #[arg(long, default_value_t = 4096)]
    vocab_size: u32,
    /// Use this Hugging Face tokenizer.json instead
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Store tokens beside the texts, so that training reads instead of tokenizing them
    #[arg(long)]
    pretokenize: bool,
    /// Leave out answers that resemble an earlier one of the same policy to the same prompt at least so
    /// much: the Jaccard index of their five-letter sequences, say 0.9
    #[arg(long, value_name = "RESEMBLANCE")]
    drop_similar: Option<f64>,
    /// A row group, the unit of reading, ends with the prompt that brings it to so many rows,
    #[arg(long, default_value_t = FileLayout::default().row_group_rows)]
    row_group_rows: u64,
    /// or to so many MiB of text, whichever is first
    #[arg(long, default_value_t = FileLayout::default().row_group_bytes >> 20)]
    row_group_mib: u64,
    /// A file ends with the row group that brings it to so many MiB
    #[arg(long, default_value_t = FileLayout::default().file_bytes >> 20)]
    file_mib: u64,
    /// Memory for grouping, in MiB
    #[arg(long, default_value_t = 512)]
    memory: u64,
    /// Where rows are kept meanwhile, compressed; what a stopped import leaves there is used by the next
    #[arg(long, value_name = "FOLDER")]
    temp_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SynthArgs {
    /// Object store URL of the corpus to make
    #[arg(long, value_name = "URL")]
    output: String,
    /// Policies to train on and to hold out, together
    #[arg(long)]
    policies: Option<u32>,
    /// Prompts
    #[arg(long)]
    prompts: Option<u32>,
    /// Seed of everything
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) async fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Import(args) => {
            let store = Store::open(&args.output)?;
            let manifest = watched_import(args.into_options(store.url())?).await?;
            describe(&store, &manifest);
        }
        Command::Synth(args) => {
            let store = Store::open(&args.output)?;
            let defaults = SynthOptions::default();
            let options = SynthOptions {
                output: store.url().to_owned(),
                policies: args.policies.unwrap_or(defaults.policies),
                prompts: args.prompts.unwrap_or(defaults.prompts),
                seed: args.seed.unwrap_or(defaults.seed),
                ..defaults
            };
            let manifest = synth(options).await?;
            describe(&store, &manifest);
        }
        Command::Inspect { url } => {
            let corpus = Corpus::open(&url).await?;
            print!("{}", inspect(&corpus).await?);
        }
        Command::Verify { url } => {
            let verification = verify(&Store::open(&url)?).await?;
            print!("{verification}");
            if !verification.sound() {
                return Err(
                    "the corpus is damaged; restore the named files or make it again".into(),
                );
            }
        }
    }
    Ok(())
}

impl ImportArgs {
    fn into_options(self, output: &str) -> Result<ImportOptions, Error> {
        let mut aliases = Vec::new();
        for alias in self.alias {
            let names: Vec<String> = alias.split('=').map(str::to_owned).collect();
            if names.len() < 2 || names.iter().any(String::is_empty) {
                return Err(format!("--alias {alias}: write it as NAME=NAME").into());
            }
            aliases.push(names);
        }
        Ok(ImportOptions {
            inputs: self.inputs,
            requests: self.batch_requests,
            output: output.to_owned(),
            columns: ColumnMapping {
                prompt: self.prompt,
                policy: self.policy,
                sample: self.sample,
                response: self.response,
                ..ColumnMapping::default()
            },
            heldout_prompts: held_out(self.heldout_prompts)?,
            heldout_policy_count: self.heldout_policies,
            aliases,
            seed: self.seed,
            vocab_size: self.vocab_size,
            pretokenize: self.pretokenize,
            tokenizer: self.tokenizer,
            drop_similar: self.drop_similar,
            layout: FileLayout {
                row_group_rows: self.row_group_rows,
                row_group_bytes: self.row_group_mib << 20,
                file_bytes: self.file_mib << 20,
            },
            memory: self.memory << 20,
            temp_dir: self.temp_dir,
            ..ImportOptions::default()
        })
    }
}

fn held_out(number: f64) -> Result<HeldOut, Error> {
    match number {
        n if (0.0..1.0).contains(&n) => Ok(HeldOut::Fraction(n)),
        n if n >= 1.0 && n.fract() == 0.0 => Ok(HeldOut::Count(n as u64)),
        n => {
            Err(format!("--heldout-prompts {n}: give a whole number, or a fraction below 1").into())
        }
    }
}

fn describe(store: &Store, manifest: &Manifest) {
    println!(
        "{}: {} trajectories of {} policies on {} prompts, fingerprint {}",
        store.url(),
        manifest.counts.trajectories,
        manifest.policies.len(),
        manifest.counts.prompts,
        manifest.fingerprint
    );
}

/// Imports and shows how far it is; if it fails, says what it leaves for the next try.
pub(super) async fn watched_import(options: ImportOptions) -> Result<Manifest, Error> {
    let watcher = Watcher::new();
    let imported = import(options.clone(), &|progress| watcher.show(progress)).await;
    watcher.done();
    if imported.is_err()
        && let Some((folder, size)) = leftovers(&options)
    {
        eprintln!(
            "{} ({}) keeps what was read: the next import to {} goes on from there",
            folder.display(),
            bytes(size),
            options.output
        );
    }
    Ok(imported?)
}

/// Shows an import's progress: a bar on a terminal, a line now and then elsewhere.
struct Watcher {
    bar: ProgressBar,
    stage: Cell<Option<Stage>>,
    begun: Cell<Instant>,
    said: Cell<Instant>,
}

/// Between two lines in a log.
const LINE_EVERY: Duration = Duration::from_secs(15);

impl Watcher {
    fn new() -> Watcher {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{prefix:10} {wide_bar} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Watcher {
            bar,
            stage: Cell::new(None),
            begun: Cell::new(Instant::now()),
            said: Cell::new(Instant::now()),
        }
    }

    fn show(&self, progress: Progress) {
        let begins = self.stage.replace(Some(progress.stage)) != Some(progress.stage);
        let now = Instant::now();
        if begins {
            self.begun.set(now);
        }
        let name = name(progress.stage);
        let text = told(progress, now - self.begun.get());
        self.bar.set_prefix(name);
        self.bar.set_length(progress.total);
        self.bar.set_position(progress.done);
        self.bar.set_message(text.clone());
        let log = !std::io::stderr().is_terminal();
        if begins && progress.before > 0 {
            let before = format!("{name}: going on where an earlier import was stopped");
            self.bar.suspend(|| eprintln!("{before}"));
        }
        if log && (begins || now - self.said.get() >= LINE_EVERY) {
            self.said.set(now);
            eprintln!("{name}: {text}");
        }
    }

    fn done(&self) {
        self.bar.finish_and_clear();
    }
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Read => "reading",
        Stage::Count => "counting",
        Stage::Tokenizer => "tokenizer",
        Stage::Choose => "choosing",
        Stage::Write => "writing",
    }
}

/// How far it is, how fast, and how long the rest of the stage takes at this pace.
fn told(progress: Progress, elapsed: Duration) -> String {
    let Progress {
        stage,
        done,
        total,
        rows,
        before,
    } = progress;
    let seconds = elapsed.as_secs_f64();
    let pace = |new: u64| new as f64 / seconds.max(1e-3);
    let mut text = match stage {
        Stage::Read => format!(
            "{} of {}, {rows} rows, {:.0} rows/s, {}/s",
            bytes(done),
            bytes(total),
            pace(rows),
            bytes(pace(done - before) as u64)
        ),
        _ => format!("{done} of {total} parts"),
    };
    // Of the first moments nothing follows.
    if done < total && done > before && seconds > 1.0 {
        let left = (total - done) as f64 / pace(done - before);
        text += &format!(", {} left", duration(left));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_that_goes_on_counts_its_own_pace() {
        let progress = Progress {
            stage: Stage::Read,
            done: 30 << 20,
            total: 50 << 20,
            rows: 4000,
            before: 10 << 20,
        };
        let text = told(progress, Duration::from_secs(10));
        assert!(
            text.contains("400 rows/s") && text.contains("2.0 MiB/s"),
            "{text}"
        );
        assert!(text.ends_with(", 10.0 s left"), "{text}");
    }
}
