//! `eval`: preference accuracy of a checkpoint, or of every trial of a run.

use super::{
    Error,
    table::{si, table},
};
use crate::{
    evaluate::{BenchArg, Evaluated, Evaluators, How, Tell},
    run::Run,
    sweep::EvaluationSet,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use polestar_eval::{Accuracy, Evaluation, Format, Phase};
use polestar_serve::Checkpoint;
use polestar_store::Store;
use serde::Serialize;
use std::{path::PathBuf, sync::Arc};

#[derive(Debug, clap::Args)]
pub(crate) struct EvalArgs {
    /// The reward model: RUN#TRIAL, RUN#TRIAL@STEP or a checkpoint's folder; a whole RUN for all its finished trials,
    /// whose accuracies it keeps for the report
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: String,
    /// Benchmarks, each a file, folder, pattern or URL, with a name of your own before an = if you like
    #[arg(required = true, value_name = "[NAME=]BENCH")]
    benches: Vec<BenchArg>,
    /// Whose files they are, where their keys don't say: pairs, rmb, rmb-ranked, rm-bench, judge-bench, rewardbench2, ppe
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Where the corpus of the run is now, if it was moved: its tokenizer is needed
    #[arg(long, value_name = "URL")]
    corpus: Option<String>,
    /// Leave the baselines out
    #[arg(long)]
    no_baselines: bool,
    /// Score with references only, where there are any
    #[arg(long)]
    only_with_reference: bool,
    /// How deep categories are shown: 0 for one number a benchmark
    #[arg(long, value_name = "N", default_value_t = 2, conflicts_with = "json")]
    depth: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write the JSON to a file, too
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    /// Version of this document.
    format: u32,
    checkpoints: &'a [Evaluated],
}

pub(super) async fn run(args: EvalArgs) -> Result<(), Error> {
    // What can't work is better known before anything is read.
    let target = Target::find(&args.checkpoint).await?;
    let named = args.benches.iter().map(|arg| (arg.clone(), args.format));
    let named: Vec<_> = named.collect();
    if let Some(twice) = twice(&args.benches) {
        return Err(
            format!("two benchmarks are called {twice}; name them apart, as a={twice}").into(),
        );
    }
    let evaluators = Evaluators::read(named, !args.no_baselines).await?;
    let bar = bar();
    let how = How {
        corpus: args.corpus.clone(),
        without_reference: !args.only_with_reference,
        tell: Some(tell(bar.clone())),
    };
    let evaluated = match &target {
        Target::Run(run) => evaluators.run(run, &how).await?,
        Target::Checkpoint(checkpoint) => {
            let name = args.checkpoint.rsplit_once('#').map(|(_, trial)| trial);
            let name = name.unwrap_or(&args.checkpoint);
            vec![evaluators.checkpoint(name, checkpoint, &how).await?]
        }
    };
    bar.finish_and_clear();
    let document = Document {
        format: 1,
        checkpoints: &evaluated,
    };
    let json = serde_json::to_string_pretty(&document)?;
    if let Some(path) = &args.output {
        std::fs::write(path, json.clone() + "\n")
            .map_err(|error| format!("{} can't be written: {error}", path.display()))?;
    }
    match args.json {
        true => println!("{json}"),
        false => print!("{}", text(&evaluated, args.depth)),
    }
    Ok(())
}

/// Reads the benchmarks of a sweep.
pub(super) async fn read(sets: &[EvaluationSet], baselines: bool) -> Result<Evaluators, Error> {
    let arg = |set: &EvaluationSet| BenchArg {
        name: set.name.clone(),
        place: set.url.clone(),
    };
    let named = sets.iter().map(|set| (arg(set), set.format)).collect();
    Ok(Evaluators::read(named, baselines).await?)
}

/// Scores what trained trials have not been scored on yet, and says so.
pub(super) async fn missing(run: &Run, sets: &[EvaluationSet], corpus: &str) -> Result<(), Error> {
    if sets.is_empty() {
        return Ok(());
    }
    let evaluators = read(sets, true).await?;
    let bar = bar();
    let how = How {
        corpus: Some(corpus.to_owned()),
        without_reference: true,
        tell: Some(tell(bar.clone())),
    };
    let made = evaluators.missing(run, &how).await?;
    bar.finish_and_clear();
    if made > 0 {
        println!("{made} evaluations on preference benchmarks, kept with the run");
    }
    Ok(())
}

/// What is to be scored.
enum Target {
    Run(Box<Run>),
    Checkpoint(Box<Checkpoint>),
}

impl Target {
    async fn find(given: &str) -> Result<Target, Error> {
        if !given.contains('#') {
            let folder = Store::open_existing(given)?;
            if folder.exists("run.json").await? {
                return Ok(Target::Run(Box::new(Run::open(folder).await?)));
            }
        }
        Ok(Target::Checkpoint(Box::new(Checkpoint::open(given).await?)))
    }
}

fn twice(benches: &[BenchArg]) -> Option<&str> {
    let mut names: Vec<&str> = benches.iter().map(|arg| arg.name.as_str()).collect();
    names.sort_unstable();
    names
        .windows(2)
        .find(|two| two[0] == two[1])
        .map(|two| two[0])
}

/// A bar on a terminal, nothing elsewhere.
fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} answers {eta}");
    bar.set_style(style.expect("the template is one"));
    bar
}

fn tell(bar: ProgressBar) -> Tell {
    Arc::new(move |what: &str, phase: &Phase<'_>| {
        bar.set_message(what.to_owned());
        bar.set_length(phase.of);
        bar.set_position(phase.answers);
    })
}

/// For a terminal.
fn text(evaluated: &[Evaluated], depth: u32) -> String {
    let mut text = String::new();
    for of in evaluated {
        text += &format!(
            "{} at step {}, digest {}\n",
            of.name,
            of.step,
            of.digest.short()
        );
        for evaluation in &of.evaluations {
            text += "\n";
            text += &described(evaluation, depth);
        }
        text += "\n";
    }
    match evaluated {
        [_] => text.trim_end().to_owned() + "\n",
        _ => text + &against_compute(evaluated),
    }
}

/// One benchmark: what it is, its table, and what the model has over the others.
fn described(of: &Evaluation, depth: u32) -> String {
    let account = &of.account;
    let mut text = format!(
        "{} ({}): {} records, {} judgements of {} answers to {} prompts{}\none number: {}; {}\n",
        of.name,
        of.format,
        account.records,
        account.tasks,
        account.answers,
        account.prompts,
        match account.references {
            0 => ", no references".to_owned(),
            n => format!(", {n} questions with a reference"),
        },
        of.averaging,
        of.ties,
    );
    for (reason, aside) in &account.aside {
        text += &format!(
            "set aside: {} ({reason}; first {})\n",
            aside.count, aside.first
        );
    }
    text += &accuracies(of, depth);
    for difference in &of.differences {
        if let Some(by) = difference.by.first() {
            text += &format!("model less {}: {}\n", difference.less, signed(by));
        }
    }
    for note in &of.notes {
        text += &format!("{note}\n");
    }
    if !of.published.is_empty() {
        text += "published, not measured here, by other protocols:\n";
        let rows = of.published.iter().map(|row| {
            vec![
                row.model.clone(),
                format!("{:.3}", row.accuracy),
                row.source.clone(),
            ]
        });
        text += &table(&["", "accuracy", "source"], &rows.collect::<Vec<_>>());
    }
    text
}

/// Rows by scorers.
fn accuracies(of: &Evaluation, depth: u32) -> String {
    let mut head = vec!["", "n", "prompts"];
    for scorer in &of.scorers {
        head.push(&scorer.name);
        if scorer.is_model {
            head.push("95%");
        }
    }
    let shown = of
        .rows
        .iter()
        .enumerate()
        .filter(|(_, row)| row.depth <= depth);
    let rows: Vec<Vec<String>> = shown
        .map(|(at, row)| {
            let mut cells = vec![
                row.name.clone(),
                row.tasks.to_string(),
                row.prompts.to_string(),
            ];
            for scorer in &of.scorers {
                let accuracy = &scorer.accuracies[at];
                cells.push(format!("{:.3}", accuracy.value));
                if scorer.is_model {
                    cells.push(interval(accuracy));
                }
            }
            cells
        })
        .collect();
    let tied: Vec<String> = of
        .scorers
        .iter()
        .filter(|scorer| scorer.tied.first().is_some_and(|tied| *tied > 0))
        .map(|scorer| format!("{} {}", scorer.name, scorer.tied[0]))
        .collect();
    let mut text = table(&head, &rows);
    if !tied.is_empty() {
        text += &format!("equal rewards: {}\n", tied.join(", "));
    }
    text
}

fn interval(of: &Accuracy) -> String {
    match (of.lo, of.hi) {
        (Some(lo), Some(hi)) => format!("{lo:.3} to {hi:.3}"),
        _ => "-".to_owned(),
    }
}

fn signed(of: &Accuracy) -> String {
    let ends = match (of.lo, of.hi) {
        (Some(lo), Some(hi)) => format!(" (95% {lo:+.3} to {hi:+.3})"),
        _ => " (too few prompts for an interval)".to_owned(),
    };
    format!("{:+.3}{ends}", of.value)
}

/// All trials of a run, by compute.
fn against_compute(evaluated: &[Evaluated]) -> String {
    let mut sorted: Vec<&Evaluated> = evaluated.iter().collect();
    sorted.sort_by(|a, b| a.flops.unwrap_or(0.0).total_cmp(&b.flops.unwrap_or(0.0)));
    let Some(first) = sorted.first() else {
        return String::new();
    };
    let mut head = vec!["trial", "parameters", "FLOPs"];
    for evaluation in &first.evaluations {
        head.extend([evaluation.name.as_str(), "95%"]);
    }
    let known = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), si);
    let rows: Vec<Vec<String>> = sorted
        .iter()
        .map(|of| {
            let mut cells = vec![
                of.name.clone(),
                known(of.parameters.map(|n| n as f64)),
                known(of.flops),
            ];
            for evaluation in &of.evaluations {
                let overall = evaluation.overall();
                cells.push(overall.map_or_else(String::new, |a| format!("{:.3}", a.value)));
                cells.push(overall.map_or_else(String::new, |a| interval(&a)));
            }
            cells
        })
        .collect();
    let mut text = format!("accuracy against compute:\n{}", table(&head, &rows));
    for evaluation in &first.evaluations {
        let baselines = evaluation.scorers.iter().filter(|scorer| !scorer.is_model);
        let baselines: Vec<String> = baselines
            .map(|scorer| format!("{} {:.3}", scorer.name, scorer.accuracies[0].value))
            .collect();
        if !baselines.is_empty() {
            text += &format!("{}: {}\n", evaluation.name, baselines.join(", "));
        }
    }
    text
}
