//! `score`: rewards of a file of prompts, references and candidates.

use super::Error;
use clap::Args;
use polestar_serve::{
    Checkpoint, Normalization, Scorer, Texts,
    pairs::{self, Row},
};
use serde::Serialize;
use std::{
    fs::File,
    io::{BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    time::Instant,
};

/// Groups that are tokenized, scored and written together.
const TOGETHER: usize = 64;

#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    #[command(flatten)]
    from: FromCheckpoint,
    /// JSON Lines: prompt, perhaps reference, and candidates, candidate, or chosen and rejected; each a string or a
    /// list of messages. - is standard input
    pairs: PathBuf,
    /// Where to write the lines with their rewards [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What to do with the rewards of each line's candidates: raw, centred (their mean taken off), or z (and divided
    /// by their deviation)
    #[arg(long, value_name = "HOW", default_value = "raw", value_parser = normalization)]
    normalize: Normalization,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// Which checkpoint, and where its tokenizer is.
#[derive(Debug, Args)]
pub(crate) struct FromCheckpoint {
    /// A run and its trial, as RUN#TRIAL or RUN#TRIAL@STEP, or the folder of a checkpoint
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: String,
    /// The run's trial, instead of RUN#TRIAL
    #[arg(long, value_name = "TRIAL")]
    trial: Option<String>,
    /// The checkpoint after this many steps, instead of the newest
    #[arg(long, value_name = "STEP", requires = "trial")]
    step: Option<u64>,
    /// Where the corpus lies that it was trained on, whose tokenizer is used, if it was moved
    #[arg(long, value_name = "URL")]
    corpus: Option<String>,
}

impl FromCheckpoint {
    /// As it is found.
    pub(super) fn url(&self) -> String {
        let mut url = self.checkpoint.clone();
        if let Some(trial) = &self.trial {
            url += &format!("#{trial}");
        }
        if let Some(step) = self.step {
            url += &format!("@{step}");
        }
        url
    }

    /// The checkpoint, its tokenizer, and its weights on the device.
    pub(super) async fn load(&self) -> Result<(Checkpoint, Texts, Scorer), Error> {
        let checkpoint = Checkpoint::open(&self.url()).await?;
        let texts = checkpoint.texts(self.corpus.as_deref()).await?;
        let scorer = Scorer::load(&checkpoint).await?;
        Ok((checkpoint, texts, scorer))
    }
}

fn normalization(text: &str) -> Result<Normalization, String> {
    let json = serde_json::Value::from(text);
    serde_json::from_value(json).map_err(|error| error.to_string())
}

/// What a file came to.
#[derive(Debug, Serialize)]
struct Summary {
    checkpoint: String,
    step: u64,
    digest: String,
    groups: usize,
    rewards: usize,
    /// Of the raw rewards.
    mean: f64,
    /// Their standard deviation.
    deviation: f64,
    /// Texts of which the limits of the run hid a part.
    cut_texts: usize,
    seconds: f64,
}

pub(super) async fn run(args: ScoreArgs) -> Result<(), Error> {
    let rows = read(&args.pairs)?;
    let mut output = output(&args)?;
    let (checkpoint, texts, scorer) = args.from.load().await?;
    let begun = Instant::now();
    let mut all: Vec<f32> = Vec::new();
    let mut cut_texts = 0;
    for rows in rows.chunks(TOGETHER) {
        let (rewards, cuts) = tokio::task::block_in_place(|| score(&texts, &scorer, rows))?;
        cut_texts += cuts;
        for (row, rewards) in rows.iter().zip(&rewards) {
            let line = row.scored(&args.normalize.apply(rewards));
            serde_json::to_writer(&mut output, &line)?;
            output.write_all(b"\n")?;
            all.extend(rewards);
        }
    }
    output.flush()?;
    let (mean, deviation) = moments(&all);
    let summary = Summary {
        checkpoint: checkpoint.url(),
        step: checkpoint.step().0,
        digest: checkpoint.digest().to_string(),
        groups: rows.len(),
        rewards: all.len(),
        mean,
        deviation,
        cut_texts,
        seconds: begun.elapsed().as_secs_f64(),
    };
    tell(&summary, &args, &texts)
}

/// All lines, before a model is loaded for them.
fn read(path: &Path) -> Result<Vec<Row>, Error> {
    let name = path.display().to_string();
    if name == "-" {
        return Ok(pairs::read("standard input", std::io::stdin().lock())?);
    }
    let file = File::open(path).map_err(|error| format!("{name} can't be read: {error}"))?;
    Ok(pairs::read(&name, BufReader::new(file))?)
}

fn output(args: &ScoreArgs) -> Result<Box<dyn Write>, Error> {
    Ok(match &args.output {
        None => Box::new(BufWriter::new(std::io::stdout())),
        Some(path) => {
            let file = File::create(path);
            let file = file.map_err(|e| format!("{} can't be written: {e}", path.display()))?;
            Box::new(BufWriter::new(file))
        }
    })
}

/// Rewards of each row, and how many texts were cut.
fn score(texts: &Texts, scorer: &Scorer, rows: &[Row]) -> Result<(Vec<Vec<f32>>, usize), Error> {
    let read = rows.iter().map(|row| texts.group(&row.group));
    let read: Vec<_> = read.collect::<Result<_, _>>()?;
    let cuts = read.iter().map(|read| read.cuts.texts()).sum();
    Ok((scorer.score(read.iter().map(|read| &read.tree))?, cuts))
}

fn moments(rewards: &[f32]) -> (f64, f64) {
    let count = rewards.len().max(1) as f64;
    let mean = rewards.iter().copied().map(f64::from).sum::<f64>() / count;
    let squares = rewards.iter().map(|&r| (f64::from(r) - mean).powi(2));
    (mean, (squares.sum::<f64>() / count).sqrt())
}

/// On standard error where the rewards are on standard output.
fn tell(summary: &Summary, args: &ScoreArgs, texts: &Texts) -> Result<(), Error> {
    let text = match args.json {
        true => serde_json::to_string(summary)?,
        false => {
            let limits = texts.samples();
            let cut = match summary.cut_texts {
                0 => String::new(),
                cut => format!(
                    "; {cut} texts cut (max_prompt {}, max_response {} tokens)",
                    limits.max_prompt, limits.max_response
                ),
            };
            let Summary {
                groups,
                rewards,
                mean,
                deviation,
                seconds,
                ..
            } = summary;
            format!(
                "{groups} groups, {rewards} rewards in {seconds:.1} s: mean {mean:.4}, deviation {deviation:.4}{cut}"
            )
        }
    };
    match &args.output {
        Some(_) => println!("{text}"),
        None => eprintln!("{text}"),
    }
    Ok(())
}
