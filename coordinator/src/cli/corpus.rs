//! `corpus import | recipes | synth | inspect | preview | verify`.

use super::Error;
use crate::calendar::duration;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use polestar_core::ByteCount;
use polestar_dataset::{
    Accounts, BadRows, Corpus, CorpusKind, Detection, ImportOptions, Manifest, MappingRecipe,
    Prepared, PreviewOptions, Progress, PromptView, Stage, SynthOptions, Tokenizer, find_prompts,
    import::QUARANTINE_KEY, inspect, inspect_labelled, leftovers, preview, recipes, synth, verify,
};
use polestar_store::Store;
use std::{
    cell::Cell,
    fmt,
    io::IsTerminal,
    time::{Duration, Instant},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a corpus of the answers of several policies, or with --labelled of preferences, from files of most forms;
    /// goes on with an import to the same output that was stopped
    Import(Box<ImportArgs>),
    /// List the ready mappings of known dumps, or print one as a file to copy and change
    Recipes {
        /// Name of a recipe
        name: Option<String>,
    },
    /// Make a corpus of synthetic policies with a computable optimum
    Synth(SynthArgs),
    /// Show what is in a corpus: its policies, which answers are compared, what looks wrong
    #[command(after_help = "Example: coordinator corpus inspect data/mine")]
    Inspect {
        /// Folder or URL of the corpus
        url: String,
    },
    /// Show training triplets as text, as the model would see them, or one prompt and why it gives no
    /// triplet
    Preview(PreviewArgs),
    /// Read a corpus whole and check that nothing of it is damaged
    #[command(after_help = "Example: coordinator corpus verify data/mine")]
    Verify {
        /// Folder or URL of the corpus
        url: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    options: ImportOptions,
    /// Only look at the first records: say which columns would be taken, show three trajectories, and end
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PreviewArgs {
    /// Object store URL of the corpus
    url: String,
    /// Triplets to show
    #[arg(long, value_name = "N", default_value_t = 3)]
    triplets: usize,
    /// Show this prompt and who answered it instead; the first digits of its id suffice
    #[arg(long, value_name = "ID", conflicts_with_all = ["triplets", "max_prompt", "max_response", "seed"])]
    prompt: Option<String>,
    /// Cut prompts to this many tokens, as samples.max_prompt does, and mark where
    #[arg(long, value_name = "TOKENS")]
    max_prompt: Option<usize>,
    /// Cut responses to this many tokens, as samples.max_response does, and mark where
    #[arg(long, value_name = "TOKENS")]
    max_response: Option<usize>,
    /// Other triplets
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
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
        Command::Import(args) if args.dry_run => {
            let detection = look(args.options).await?.detection().clone();
            print!("{}", Look(&detection));
        }
        Command::Import(args) => {
            let manifest = watched_import(args.options.clone()).await?;
            describe(&Store::open(&args.options.output)?, &manifest);
            print!("{}", Accounts(&manifest.inputs));
        }
        Command::Recipes { name: None } => {
            for recipe in recipes() {
                println!("{:16} {}", recipe.name, recipe.about);
            }
        }
        Command::Recipes { name: Some(name) } => {
            let recipe = MappingRecipe::load(&name)?;
            match MappingRecipe::text(&name) {
                Some(text) => print!("{text}"),
                // A file of the user's own, who has its text.
                None => println!("{:16} {}", recipe.name, recipe.about),
            }
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
            match corpus.kind() {
                CorpusKind::Trajectories => print!("{}", inspect(&corpus).await?),
                CorpusKind::Labelled => print!("{}", inspect_labelled(&corpus).await?),
            }
        }
        Command::Preview(args) => show(&args).await?,
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

async fn show(args: &PreviewArgs) -> Result<(), Error> {
    let corpus = Corpus::open(Store::open_existing(&args.url)?.url()).await?;
    if let Some(id) = &args.prompt {
        return show_prompts(id, &find_prompts(&corpus, id).await?);
    }
    let options = PreviewOptions {
        triplets: args.triplets,
        seed: args.seed,
        max_prompt: args.max_prompt,
        max_response: args.max_response,
    };
    let triplets = preview(&corpus, &options).await?;
    for (number, triplet) in (1..).zip(&triplets) {
        println!("--- triplet {number} of {}", triplets.len());
        print!("{triplet}");
    }
    Ok(())
}

fn show_prompts(id: &str, found: &[PromptView]) -> Result<(), Error> {
    match found {
        [] => Err(format!("no prompt has an id that begins with '{id}'").into()),
        [one] => {
            print!("{one}");
            Ok(())
        }
        several => {
            let ids: Vec<&str> = several.iter().take(10).map(|it| it.id.as_str()).collect();
            let (count, ids) = (several.len(), ids.join(", "));
            Err(format!(
                "{count} prompts have an id that begins with '{id}': {ids}; give more of it"
            )
            .into())
        }
    }
}

fn describe(store: &Store, manifest: &Manifest) {
    if manifest.kind == CorpusKind::Labelled {
        let counts = &manifest.counts;
        println!(
            "{}: {} labelled pairs on {} prompts, {} pairs held out, fingerprint {}",
            store.url(),
            counts.trajectories,
            counts.prompts,
            counts.heldout_prompts,
            manifest.fingerprint
        );
        return;
    }
    println!(
        "{}: {} trajectories of {} policies on {} prompts, fingerprint {}",
        store.url(),
        manifest.counts.trajectories,
        manifest.policies.len(),
        manifest.counts.prompts,
        manifest.fingerprint
    );
    if let Some(held_out) = &manifest.held_out {
        print!("{held_out}");
    }
}

/// Finds the inputs and looks at their first records, which blocks.
async fn look(options: ImportOptions) -> Result<Prepared, Error> {
    let prepared = tokio::task::spawn_blocking(|| Prepared::new(options)).await;
    Ok(prepared.map_err(|_| "looking at the inputs panicked; see above")??)
}

/// Imports, says what it takes for what, and shows how far it is; if it fails, says what it leaves for the
/// next try.
pub(super) async fn watched_import(options: ImportOptions) -> Result<Manifest, Error> {
    let prepared = look(options.clone()).await?;
    eprint!("{}", Look(prepared.detection()));
    // What is wrong with it, the import says itself.
    if let Some(path) = &options.tokenizer
        && let Ok(given) = Tokenizer::given(path)
    {
        for note in given.tokenizer.notes() {
            eprintln!("tokenizer {}: {note}", path.display());
        }
    }
    let watcher = Watcher::new();
    let imported = prepared.import(&|progress| watcher.show(progress)).await;
    watcher.done();
    match &imported {
        Ok(manifest) => warn_of_quarantine(&options, manifest),
        Err(_) => {
            if let Some((folder, size)) = leftovers(&options) {
                eprintln!(
                    "{} ({}) keeps what was read: the next import to {} goes on from there",
                    folder.display(),
                    ByteCount(size),
                    options.output
                );
            }
        }
    }
    Ok(imported?)
}

fn warn_of_quarantine(options: &ImportOptions, manifest: &Manifest) {
    let bad = Accounts(&manifest.inputs).total().bad();
    if bad > 0 && options.bad_rows == BadRows::Quarantine {
        eprintln!(
            "{bad} records are set aside in {}/{QUARANTINE_KEY}, each with its file, place and reason",
            options.output.trim_end_matches('/')
        );
    }
}

/// What was found in the inputs, as text.
struct Look<'a>(&'a Detection);

impl fmt::Display for Look<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Detection {
            inputs,
            skipped,
            why,
            columns: _,
            rows,
            labels,
            trouble,
        } = self.0;
        match &inputs[..] {
            [one] => writeln!(f, "input: {one}")?,
            [first, .., last] => writeln!(f, "input: {} files, {first} to {last}", inputs.len())?,
            [] => {}
        }
        for file in skipped {
            writeln!(f, "skipped: {file}")?;
        }
        for reason in why {
            writeln!(f, "found: {reason}")?;
        }
        for row in rows {
            writeln!(f, "  {}", row.policy)?;
            writeln!(f, "    prompt    {}", shown(&row.prompt.text()))?;
            writeln!(f, "    response  {}", shown(&row.response))?;
        }
        for label in labels {
            writeln!(f, "  {}", label.subset)?;
            writeln!(f, "    prompt     {}", shown(&label.prompt))?;
            for (name, text) in &label.texts {
                writeln!(f, "    {name:10} {}", shown(text))?;
            }
        }
        match trouble {
            Some(trouble) => writeln!(f, "the first records give nothing to learn from: {trouble}"),
            None => Ok(()),
        }
    }
}

/// The beginning of a text, in one line.
fn shown(text: &str) -> String {
    const MOST: usize = 160;
    let mut line: String = text.chars().take(MOST).collect();
    if line.len() < text.len() {
        line.push('…');
    }
    line.replace('\n', "⏎")
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
            ByteCount(done),
            ByteCount(total),
            pace(rows),
            ByteCount(pace(done - before) as u64)
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
