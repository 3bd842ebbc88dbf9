//! `corpus import | synth | inspect | verify`.

use super::{
    Error,
    table::{bytes, duration},
};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use polestar_dataset::{
    Corpus, ImportOptions, Manifest, Progress, Stage, SynthOptions, import, inspect, leftovers,
    synth, verify,
};
use polestar_store::Store;
use std::{
    cell::Cell,
    io::IsTerminal,
    time::{Duration, Instant},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a corpus from JSONL (.jsonl, .zst, .gz) and Parquet files of trajectories; goes on with an
    /// import to the same output that was stopped
    Import(Box<ImportOptions>),
    /// Make a corpus of synthetic policies with a computable optimum
    Synth(SynthArgs),
    /// Show what is in a corpus: its policies, which answers are compared, what looks wrong
    #[command(after_help = "Example: coordinator corpus inspect data/mine")]
    Inspect {
        /// Folder or URL of the corpus
        url: String,
    },
    /// Read a corpus whole and check that nothing of it is damaged
    #[command(after_help = "Example: coordinator corpus verify data/mine")]
    Verify {
        /// Folder or URL of the corpus
        url: String,
    },
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
        Command::Import(options) => {
            let store = Store::open(&options.output)?;
            let output = store.url().to_owned();
            let manifest = watched_import(ImportOptions { output, ..*options }).await?;
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
            let corpus = Corpus::open(Store::open_existing(&url)?.url()).await?;
            print!("{}", inspect(&corpus).await?);
        }
        Command::Verify { url } => {
            let verification = verify(&Store::open_existing(&url)?).await?;
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
