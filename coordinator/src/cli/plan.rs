//! `plan`: what a sweep would train, and what it takes.

use super::{
    Error,
    cluster::{self, ClusterArgs},
    ensure::{self, OnCorpus},
    scale,
    speed::Speed,
    table::{si, table},
};
use crate::{
    calendar::duration,
    run::TRAINING,
    sweep::{self, Plan, PlannedTrial, Sweep, TrialRole},
};
use polestar_dataset::Corpus;
use polestar_laws::report::{CutTexts, Cutting};
use polestar_run::schedule::Schedule;
use std::path::{Path, PathBuf};

/// Fewer steps than this say nothing that a law could rest on.
const FEW_STEPS: u64 = 30;

#[derive(Debug, clap::Args)]
pub(super) struct PlanArgs {
    /// The sweep file
    #[arg(required_unless_present_any = ["cluster", "scale"])]
    sweep: Option<PathBuf>,
    /// Folder or URL of the store to use instead of the file's
    #[arg(long, value_name = "URL", requires = "sweep")]
    store: Option<String>,
    /// Don't measure how fast this machine trains, where that isn't known
    #[arg(long, requires = "sweep")]
    no_measure: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What a plan is set against.
pub(super) struct Outlook {
    /// Prompts of the corpus that training visits.
    pub(super) prompts: u64,
    /// How fast a worker is.
    pub(super) speed: Speed,
}

impl Outlook {
    pub(super) fn new(corpus: &Corpus, speed: Speed) -> Outlook {
        Outlook {
            prompts: corpus.manifest().counts.train_prompts,
            speed,
        }
    }
}

/// Prints a sweep's plan, or what is predicted of a cluster.
pub(super) async fn show(args: &PlanArgs) -> Result<(), Error> {
    if let Some(folder) = &args.cluster.scale {
        return scale::write(folder);
    }
    match (&args.sweep, &args.cluster.cluster) {
        (_, Some(cluster)) => cluster::show(cluster, &args.cluster),
        (Some(sweep), None) => show_sweep(sweep, args).await,
        (None, None) => Err("plan takes a sweep file, or --cluster".into()),
    }
}

async fn show_sweep(file: &Path, args: &PlanArgs) -> Result<(), Error> {
    let mut sweep = read(file, args.store.as_deref())?;
    print!("{}", places(&sweep)?);
    let corpus = ensure::corpus(&mut sweep).await?;
    let OnCorpus { plan, cutting, .. } = ensure::plan_on(&sweep, &corpus).await?;
    let speed = match args.no_measure {
        true => Speed::known(&sweep),
        false => Speed::known_or_measured(&sweep).await?,
    };
    let outlook = Outlook::new(&corpus, speed);
    let cut = what_is_cut(&cutting);
    print!("{}{cut}", describe(&sweep, &plan, &outlook));
    Ok(())
}

/// A sweep file, with another store if one is given: checked as if the file had it.
pub(super) fn read(file: &Path, store: Option<&str>) -> Result<Sweep, Error> {
    let mut sweep = sweep::read(file)?;
    if let Some(url) = store {
        sweep.store = url.to_owned();
        sweep::check(&sweep).map_err(|message| format!("--store {url}: {message}"))?;
    }
    Ok(sweep)
}

/// Where a sweep's store and corpus lie, as far as its file leaves that to whoever runs it.
fn places(sweep: &Sweep) -> Result<String, Error> {
    let relative = |url: &str| !url.contains("://") && !url.starts_with(['/', '~']);
    let keys = [("store", &sweep.store), ("corpus.url", &sweep.corpus.url)];
    let mut text = String::new();
    for (key, url) in keys {
        if relative(url) {
            text += &format!(
                "{key} is {}: relative to the folder that this runs in, not to the sweep file\n",
                std::path::absolute(url)?.display()
            );
        }
    }
    Ok(text)
}

/// A sweep's trials, and what they take.
pub(super) fn describe(sweep: &Sweep, plan: &Plan, outlook: &Outlook) -> String {
    let head = [
        "trial",
        "parameters",
        "non-emb.",
        "steps",
        "triplets",
        "epochs",
        "tokens",
        "FLOPs 6ND",
        "6ND all",
        "executed",
        "memory/rank",
        "time",
    ];
    let rows: Vec<Vec<String>> = plan
        .trials
        .iter()
        .map(|t| {
            vec![
                t.config.id.0.clone(),
                si(t.parameters as f64),
                si(t.non_embedding as f64),
                t.config.recipe.steps.to_string(),
                si(triplets(t)),
                format!("{:.2}", triplets(t) / outlook.prompts.max(1) as f64),
                si(t.plain_tokens),
                format!("{:.2e}", t.flops_6nd),
                format!("{:.2e}", 6.0 * t.parameters as f64 * t.plain_tokens),
                format!("{:.2e}", t.flops_executed),
                t.state_bytes.to_string(),
                match worker_seconds(&outlook.speed, t) {
                    Some(seconds) => duration(seconds / world(sweep)),
                    None => "?".to_owned(),
                },
            ]
        })
        .collect();
    let total: f64 = plan.trials.iter().map(PlannedTrial::own_flops).sum();
    let quarantine = plan.left_out.map_or_else(String::new, |left_out| {
        format!("in quarantine, not trained on: {left_out}\n")
    });
    format!(
        "{}: {} trial{}, {total:.2e} FLOPs in all (6ND: 6 × non-embedding parameters × tokens of the plain layout, {:.0} a triplet; 6ND all: with the embedding; executed: products and attention as they are run, a shared prefix once); memory is weights, gradients, moments, the copy for checkpoints and one of another worker's shard, without activations; epochs are how often each of {} training prompts is seen\n{quarantine}{}{}{}{}",
        sweep.name,
        plan.trials.len(),
        if plan.trials.len() == 1 { "" } else { "s" },
        plan.tokens_per_triplet,
        outlook.prompts,
        trunks(plan),
        cost(sweep, plan, &outlook.speed),
        table(&head, &rows),
        short(plan),
    )
}

/// What of the corpus's texts is not shown to a model, and what that does to the length probe.
pub(super) fn what_is_cut(cutting: &Cutting) -> String {
    let Cutting {
        max_prompt,
        max_response,
        texts,
    } = cutting;
    let data = |of: &CutTexts| {
        format!(
            "  {}: {} of prompts, {} of answers, in {} triplets\n",
            of.data, of.prompts, of.answers, of.triplets
        )
    };
    let lines: String = texts.iter().map(data).collect();
    // The probe looks at held-out answers only.
    let held_out = texts.iter().filter(|of| of.data != TRAINING);
    let lengths = held_out.filter_map(|of| {
        let text = of.answers.of_lengths()?;
        Some(format!("  {}: {text}\n", of.data))
    });
    let lengths: String = lengths.collect();
    format!(
        "cut by samples.max_prompt = {max_prompt} and samples.max_response = {max_response}, measured on the first triplets:\n{lines}{lengths}"
    )
}

fn triplets(trial: &PlannedTrial) -> f64 {
    let recipe = &trial.config.recipe;
    recipe.steps as f64 * f64::from(recipe.batch.triplets)
}

/// Workers that train a trial together.
fn world(sweep: &Sweep) -> f64 {
    f64::from(sweep.pool.largest_world(sweep.train.lanes))
}

/// What sharing trunks spares.
fn trunks(plan: &Plan) -> String {
    let is_trunk = |t: &&PlannedTrial| t.role == TrialRole::Trunk;
    if !plan.trials.iter().any(|t| is_trunk(&t)) {
        return String::new();
    }
    let alone = plan.trials.iter().filter(|t| !is_trunk(t));
    let alone: f64 = alone.map(|t| t.flops_6nd).sum();
    format!("lengths share trunks: {alone:.2e} FLOPs without them\n")
}

/// Seconds that one worker takes for a trial alone, what its trunk has done for it left out.
fn worker_seconds(speed: &Speed, trial: &PlannedTrial) -> Option<f64> {
    let own = trial.own_flops() / trial.flops_6nd;
    match speed {
        Speed::Told(rate) => Some(trial.own_flops() / rate),
        Speed::Measured(measured) => {
            let rate = measured.flops_per_second(trial.non_embedding as f64);
            let scoring = scored_triplets(trial) / 3.0 / triplets(trial);
            Some((own + scoring) * trial.flops_executed / rate)
        }
        Speed::Unknown(_) => None,
    }
}

/// Held-out triplets that a trial scores. Each takes a forward pass, a third of a step.
fn scored_triplets(trial: &PlannedTrial) -> f64 {
    let measurement = &trial.config.measurement;
    let times = match measurement.every {
        0 => 0,
        every => (trial.config.recipe.steps - 1) / every,
    };
    let each = times as f64 * measurement.triplets as f64 + measurement.final_triplets as f64;
    each * measurement.sets.len() as f64
}

/// Time and money, as far as they can be told.
fn cost(sweep: &Sweep, plan: &Plan, speed: &Speed) -> String {
    let pool = &sweep.pool;
    let source = match speed {
        Speed::Told(rate) => format!("at {rate:.2e} FLOPs a second each (pool.worker_flops)"),
        Speed::Measured(measured) => format!(
            "by made-up steps measured on this machine on {}; loading and saving come on top",
            measured.date()
        ),
        Speed::Unknown(remedy) => return format!("how long it takes is unknown: {remedy}\n"),
    };
    let each = plan.trials.iter().filter_map(|t| worker_seconds(speed, t));
    let (mut all, mut longest) = (0.0, 0.0_f64);
    for seconds in each {
        all += seconds;
        longest = longest.max(seconds / world(sweep));
    }
    // Workers that don't make a whole group wait.
    let workers = pool.workers.number();
    let groups = (f64::from(workers) / world(sweep)).floor().max(1.0);
    let elapsed = duration((all / world(sweep) / groups).max(longest));
    let plural = if workers == 1 { "" } else { "s" };
    let mut text = format!("about {elapsed} on {workers} worker{plural}, {source}");
    if let Some(price) = pool.worker_price {
        let hours = all / 3600.0;
        text += &format!(
            "; {hours:.1} worker-hours, {:.2} at {price} an hour",
            hours * price
        );
    }
    text + "\n"
}

/// Trials that are too short to mean anything.
fn short(plan: &Plan) -> String {
    let points = plan.trials.iter().filter(|t| t.role == TrialRole::Point);
    let mut text = String::new();
    let few: Vec<&PlannedTrial> = points
        .clone()
        .filter(|t| t.config.recipe.steps < FEW_STEPS)
        .collect();
    if let Some(shortest) = few.iter().min_by_key(|t| t.config.recipe.steps) {
        text += &format!(
            "warning: {} of {} trials have fewer than {FEW_STEPS} steps ({}: {}), too few to learn much or to rest a law on; lengthen them, or lower train.batch\n",
            few.len(),
            points.clone().count(),
            shortest.config.id,
            shortest.config.recipe.steps,
        );
    }
    for trial in points {
        let recipe = &trial.config.recipe;
        if let Schedule::WsdSteps { warmup, .. } = recipe.schedule
            && 2 * warmup > recipe.steps
        {
            text += &format!(
                "warning: {} rises to its learning rate for {warmup} of its {} steps; lower the warm-up, or lengthen it\n",
                trial.config.id, recipe.steps
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::speed::measured_at, sweep::fixture};
    use polestar_laws::report::CutShare;

    fn described(axes: &str, speed: Speed) -> String {
        let text = fixture::text(&format!("sizes = [\"nano\"]\n{axes}"));
        let sweep = sweep::read_str("t.toml", &text).unwrap();
        let plan = sweep::plan(&sweep, &fixture::facts()).unwrap();
        let outlook = Outlook {
            prompts: 200,
            speed,
        };
        describe(&sweep, &plan, &outlook)
    }

    #[test]
    fn cut_texts_are_counted_and_what_lengths_still_say_is_told() {
        let texts = |data: &str, cut| CutTexts {
            data: data.to_owned(),
            prompts: CutShare { cut: 1, all: 8 },
            answers: CutShare { cut, all: 500 },
            triplets: 512,
        };
        let mut cutting = Cutting {
            max_prompt: 64,
            max_response: 16,
            texts: vec![texts(TRAINING, 500), texts("held-out prompts", 499)],
        };
        let said = what_is_cut(&cutting);
        assert!(
            said.contains("  held-out prompts: 12.5% (1 of 8) of prompts, 99.8% (499 of 500) of answers, in 512 triplets\n"),
            "{said}"
        );
        let probe = "held-out prompts: lengths are compared after cutting: 99.8% of answers are cut, so the length probe can see little";
        assert!(said.contains(probe), "{said}");
        assert_eq!(said.matches("length probe").count(), 1, "{said}");
        cutting.texts = vec![texts(TRAINING, 0), texts("held-out prompts", 0)];
        assert!(!what_is_cut(&cutting).contains("length probe"));
    }

    #[test]
    fn a_plan_tells_epochs_and_times_and_where_these_come_from() {
        let measured = Speed::Measured(measured_at(&[[1e4, 1e9], [1e6, 1e9]]));
        let text = described("steps = [50, 100]\n", measured);
        assert!(
            text.contains("measured on this machine on 2025-01-31"),
            "{text}"
        );
        let row = |name: &str| {
            let line = text.lines().find(|l| l.starts_with(name));
            let line = line.unwrap_or_else(|| panic!("no {name}: {text}"));
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(row("nano-50steps")[5], "2.00");
        assert_eq!(row("nano-100steps")[5], "4.00");
        assert_eq!(row("nano-100steps").last().unwrap(), "s");
        assert!(!text.contains("warning"), "{text}");

        let text = described("steps = [50]\n", Speed::Unknown("do this"));
        assert!(
            text.contains("how long it takes is unknown: do this"),
            "{text}"
        );
        let text = described(
            "steps = [50]\n[pool]\nworker_price = 2.0\n",
            Speed::Told(1e6),
        );
        assert!(
            text.contains("pool.worker_flops") && text.contains("at 2 an hour"),
            "{text}"
        );
    }

    #[test]
    fn trials_that_are_too_short_are_told() {
        let unknown = Speed::Unknown("");
        let text = described("steps = [9, 20, 100]\n", unknown.clone());
        assert!(
            text.contains("warning: 2 of 3 trials have fewer than 30 steps (nano-9steps-s1: 9)"),
            "{text}"
        );
        let trunk = "steps = [100, 200]\ntrunk = { decay = 0.2, warmup = 60 }\n";
        let text = described(trunk, unknown);
        assert!(
            text.contains("nano-100steps-s1 rises to its learning rate for 60 of its 100 steps"),
            "{text}"
        );
        assert_eq!(text.matches("warning").count(), 1, "{text}");
    }
}
