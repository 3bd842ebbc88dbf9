//! From a run's store to its report.

use super::{
    Run, RunError, RunRecord, TrialResult,
    cuts::{SampleError, cutting, training_sample},
    evaluations::preferences,
    next::best_trial,
    paired::against_best,
    set_title,
};
use crate::{
    control::{Entry, core::Warmth},
    sweep::{Plan, PlannedTrial, Pretraining, TrialRole},
};
use polestar_core::{Objective, TrialId};
use polestar_dataset::{Corpus, Pairs, Split, planted_optimum};
use polestar_laws::{
    Coordinates,
    fits::{CHANCE_LOSS, Curve, CurvePoint, FailedTrial, FinishedTrial},
    report::{
        self, CurveScores, Discrimination, FineTuned, Report, ReportInput, ScoredTriplet,
        Validation,
    },
};
use polestar_run::{
    Outcome, SetScore, checkpoint, metrics,
    scores::{self, Scored},
};
use polestar_worker::engine::VALIDATION_SEED;
use std::collections::BTreeMap;

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The run's records.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] polestar_store::Error),
    /// A trial's metrics.
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
    /// The best trial's checkpoints.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// What is cut of the corpus's texts.
    #[error("what is cut of the corpus's texts can't be measured")]
    Sample(#[from] SampleError),
    /// The planted optimum of a synthetic corpus.
    #[error("the corpus's planted optimum can't be computed")]
    Optimum(#[from] polestar_dataset::synth::planted::Error),
    /// Drawing or encoding.
    #[error(transparent)]
    Report(#[from] report::ReportError),
}

/// The set that laws are fitted to.
const FITTED: &str = "heldout_prompts";

/// Fits, draws and writes the report of what is in the store; returns where.
///
/// # Errors
/// [`ReportError`]; files written before it are overwritten by the next attempt.
pub async fn write_report(run: &Run, corpus: &Corpus) -> Result<String, ReportError> {
    let place = run.folder.child("report");
    for (name, bytes) in report_of(run, Some(corpus)).await?.files()? {
        place.put(&name, bytes.into()).await?;
    }
    Ok(format!("{}/report.html", place.url().trim_end_matches('/')))
}

/// Fits what is in the store, and writes nothing. Without the corpus there are no names of policies, no counts of
/// what it holds or of what is cut of it, and no planted optimum; the laws and paired differences are the same.
///
/// # Errors
/// [`ReportError`].
pub async fn report_of(run: &Run, corpus: Option<&Corpus>) -> Result<Report, ReportError> {
    Ok(report::build(&gather(run, corpus).await?))
}

/// Fits what the results of trials say: laws without curves, scores and evaluations, which are not read.
///
/// # Errors
/// [`ReportError`].
pub async fn laws_of(run: &Run) -> Result<Report, ReportError> {
    let mut input = header(&run.record, None);
    // It is fitted to curves.
    input.envelope = false;
    add_results(&mut input, run, &run.results().await?).await?;
    Ok(report::build(&input))
}

async fn gather(run: &Run, corpus: Option<&Corpus>) -> Result<ReportInput, ReportError> {
    let results = run.results().await?;
    let mut input = header(&run.record, corpus);
    if let Some(corpus) = corpus {
        input.optimum = optimum(&run.record, corpus).await?;
        let sweep = &run.record.sweep;
        let training = training_sample(sweep, corpus).await?;
        input.cutting = Some(cutting(sweep, corpus, &training).await?);
    }
    add_results(&mut input, run, &results).await?;
    let finished = run.record.plan.trials.iter();
    for planned in finished.filter(|planned| results.contains_key(&planned.config.id)) {
        add_curve(&mut input, run, planned).await?;
    }
    input.warmth = warmth(run).await?;
    if let Some(corpus) = corpus {
        input.discriminations = discriminations(run, corpus, &input.finished).await?;
    }
    input.best = best_trial(run, &input).await?;
    input.paired = against_best(run, &input.finished, &input.fitted_set).await?;
    for (name, records) in run.evaluations().await? {
        input
            .preferences
            .extend(preferences(&name, &records, &results));
    }
    Ok(input)
}

/// Adds what became of every trial.
async fn add_results(
    input: &mut ReportInput,
    run: &Run,
    results: &BTreeMap<TrialId, TrialResult>,
) -> Result<(), ReportError> {
    let abandoned = run.abandoned(results).await?;
    for planned in &run.record.plan.trials {
        let id = &planned.config.id;
        match (results.get(id), abandoned.get(id)) {
            (Some(result), _) => add_finished(input, planned, &result.outcome),
            (None, Some(record)) => input.failed.push(FailedTrial {
                name: id.to_string(),
                reason: record.cause.to_string(),
            }),
            (None, None) => input.missing.push(id.to_string()),
        }
    }
    Ok(())
}

/// What warm workers saved, under all coordinators that ended in order.
async fn warmth(run: &Run) -> Result<String, RunError> {
    let mut all = Warmth::default();
    for recorded in run.event_history().await?.entries {
        if let Entry::Ended { warmth, .. } = recorded.entry.entry {
            all += warmth;
        }
    }
    Ok(match all.ranks {
        0 => String::new(),
        _ => all.to_string(),
    })
}

/// What is known of a run before any trial has finished.
fn header(record: &RunRecord, corpus: Option<&Corpus>) -> ReportInput {
    let manifest = corpus.map(Corpus::manifest);
    // The report is for readers elsewhere: the fingerprint identifies the corpus, its place does not.
    let url = corpus.map_or(record.sweep.corpus.url.as_str(), Corpus::url);
    let name = url.rsplit_once('/').map_or(url, |(_, name)| name);
    ReportInput {
        title: record.sweep.name.clone(),
        run_id: record.run.clone(),
        corpus: report::Corpus {
            name: name.to_owned(),
            fingerprint: record.plan.fingerprint.clone(),
            policies: manifest.map_or(0, |manifest| manifest.policies.len() as u64),
            prompts: manifest.map_or(0, |manifest| manifest.counts.prompts),
            triplets_seen: 0,
            tokens_seen: 0,
        },
        config_digest: record.plan.digest(),
        created: format!("Polestar {}", record.version),
        conventions: conventions(&record.plan),
        chance: Some(CHANCE_LOSS),
        fitted_set: set_title(FITTED),
        envelope: record.sweep.sweep.envelope.is_some(),
        ..ReportInput::default()
    }
}

/// Bayes loss of a synthetic corpus on the triplets that laws are fitted to.
async fn optimum(record: &RunRecord, corpus: &Corpus) -> Result<Option<f64>, ReportError> {
    let count = record.sweep.train.validation.at_the_end();
    let samples = &record.sweep.samples;
    let split = Split::HeldoutPrompts;
    let optimum = planted_optimum(corpus, split, count, VALIDATION_SEED, samples).await?;
    Ok(optimum.map(|optimum| optimum.loss))
}

/// Adds a trial that has a result. Starts and trunks of others are counted, but are no trials of a law.
fn add_finished(input: &mut ReportInput, planned: &PlannedTrial, outcome: &Outcome) {
    let id = &planned.config.id;
    let name = id.to_string();
    input.corpus.triplets_seen += outcome.consumed.triplets;
    input.corpus.tokens_seen += outcome.consumed.plain_tokens;
    let digest = outcome.digest.to_string();
    input.digests.push((name.clone(), digest));
    if planned.role != TrialRole::Point {
        return;
    }
    for (set, score) in &outcome.validation {
        // A language model ranks nothing.
        let Some(accuracy) = score.accuracy else {
            continue;
        };
        input.validation.push(Validation {
            trial: name.clone(),
            set: set_title(set),
            loss: score.loss,
            accuracy,
            triplets: score.triplets as u64,
            prompts: score.prompts.map(|prompts| prompts as u64),
            loss_error: score.loss_error,
            accuracy_error: score.accuracy_error,
        });
    }
    if let Some(before) = &planned.pretraining {
        input.fine_tuned.push(FineTuned {
            trial: name.clone(),
            start: before.trial.clone(),
            flops: before.flops_6nd,
            tokens: before.plain_tokens,
            own_flops: outcome.flops_6nd,
        });
    }
    if let Some(score) = outcome.validation.get(FITTED) {
        let Spent { at, flops, tokens } = Spent::of(planned, outcome);
        input.finished.push(FinishedTrial {
            name,
            at,
            params: Some(planned.parameters as f64),
            flops: Some(flops),
            tokens: Some(tokens),
            distance: planned.distance,
            run: None,
            loss: score.loss,
        });
    }
}

/// Adds the curve of a trial that has a result; starts and trunks of others have none in a report.
async fn add_curve(
    input: &mut ReportInput,
    run: &Run,
    planned: &PlannedTrial,
) -> Result<(), ReportError> {
    if planned.role != TrialRole::Point {
        return Ok(());
    }
    let mut rows = metrics::read(&run.store, &planned.config).await?;
    add_curve_scores(input, planned, &mut rows);
    input.curves.push(Curve {
        trial: planned.config.id.to_string(),
        size: match &planned.pretraining {
            Some(before) => before.at.size.clone(),
            None => planned.at.size.clone(),
        },
        params: planned.parameters as f64,
        points: thinned(&rows, planned.pretraining.as_ref()),
    });
    Ok(())
}

/// What a trial's loss is set against: its own training, or the pre-training of the weights that it fine-tunes.
struct Spent {
    at: Coordinates,
    flops: f64,
    tokens: f64,
}

impl Spent {
    fn of(planned: &PlannedTrial, outcome: &Outcome) -> Spent {
        match &planned.pretraining {
            Some(before) => Spent {
                at: Coordinates {
                    lr: planned.at.lr,
                    ..before.at.clone()
                },
                flops: before.flops_6nd,
                tokens: before.plain_tokens,
            },
            None => Spent {
                at: planned.at.clone(),
                flops: outcome.flops_6nd,
                tokens: outcome.consumed.plain_tokens as f64,
            },
        }
    }
}

/// Says what a trial's curve is scored on. Scores of other triplets, with which older versions ended it, would bend it:
/// they are taken out and told.
fn add_curve_scores(input: &mut ReportInput, planned: &PlannedTrial, rows: &mut [metrics::Row]) {
    let measured = &planned.config.measurement;
    let is_along = |score: &SetScore| score.triplets == measured.triplets;
    let mut others = false;
    for row in rows.iter_mut() {
        others |= row.validation.values().any(|score| !is_along(score));
        row.validation.retain(|_, score| is_along(score));
    }
    let mut scored = rows.iter().filter_map(|row| row.validation.get(FITTED));
    let first = scored.next();
    if first.is_none() && !others {
        return;
    }
    let told = input.curve_scores.get_or_insert_with(|| CurveScores {
        triplets: measured.triplets as u64,
        final_triplets: measured.final_triplets as u64,
        ..CurveScores::default()
    });
    let prompts = first.and_then(|score| score.prompts);
    told.prompts = told
        .prompts
        .or_else(|| prompts.map(|prompts| prompts as u64));
    if others {
        told.without_end.push(planned.config.id.to_string());
    }
}

/// The best trial of the largest compute, on each set.
async fn discriminations(
    run: &Run,
    corpus: &Corpus,
    finished: &[FinishedTrial],
) -> Result<Vec<Discrimination>, ReportError> {
    let best = finished.iter().max_by(|a, b| {
        let larger = a.cmp_compute(b);
        larger.then_with(|| b.loss.total_cmp(&a.loss))
    });
    let Some(best) = best else {
        return Ok(Vec::new());
    };
    let mut planned = run.record.plan.trials.iter().map(|t| &t.config);
    let trial = planned
        .find(|trial| trial.id.0 == best.name)
        .expect("finished trials were planned");
    let scores = scores::read(&run.store, trial).await?;
    let name = |policy: u32| corpus.policy_name(policy).unwrap_or("?").to_owned();
    let found = trial.measurement.sets.iter().filter_map(|set| {
        let set = &set.name;
        let of_set = scores.iter().filter(|scored| scored.set == *set);
        let triplets: Vec<ScoredTriplet> = of_set.map(|s| scored_triplet(s, name)).collect();
        Discrimination::of(&best.name, &set_title(set), &triplets)
    });
    Ok(found.collect())
}

fn scored_triplet(scored: &Scored, name: impl Fn(u32) -> String) -> ScoredTriplet {
    let triplet = &scored.triplet;
    let source = triplet.source.as_ref();
    let cut = source.map(|source| {
        [
            (source.reference, triplet.reference),
            (source.positive, triplet.positive),
            (source.negative, triplet.negative),
        ]
        .map(|(whole, shown)| u32::from(whole.tokens > shown))
    });
    ScoredTriplet {
        policy: name(triplet.policy),
        other: name(triplet.other),
        lengths: [triplet.reference, triplet.positive, triplet.negative],
        margin: f64::from(scored.margin),
        prompt: source.map(|source| source.prompt_id.clone()),
        cut_answers: cut.map(|cut| cut.iter().sum()),
    }
}

/// Points of a curve that a picture can show: the rows between are averaged, the first and those with a
/// validation all stay. The metrics keep every step.
fn thinned(rows: &[metrics::Row], before: Option<&Pretraining>) -> Vec<CurvePoint> {
    const MOST: usize = 400;
    let window = rows.len().div_ceil(MOST).max(1);
    let mut points = Vec::new();
    let mut losses = Vec::with_capacity(window);
    for (at, row) in rows.iter().enumerate() {
        losses.push(row.loss);
        let stays = at == 0 || at + 1 == rows.len() || !row.validation.is_empty();
        if !stays && losses.len() < window {
            continue;
        }
        let mut point = curve_point(row);
        // Compute is all that was spent until then.
        point.flops += before.map_or(0.0, |before| before.flops_6nd);
        point.train_loss = Some(losses.iter().sum::<f64>() / losses.len() as f64);
        points.push(point);
        losses.clear();
    }
    points
}

fn curve_point(row: &metrics::Row) -> CurvePoint {
    let score = row.validation.get(FITTED);
    CurvePoint {
        step: row.step.0,
        tokens: row.plain_tokens as f64,
        flops: row.flops_6nd,
        train_loss: None,
        val_loss: score.map(|s| s.loss),
        val_accuracy: score.and_then(|s| s.accuracy),
    }
}

/// What the digests hold for.
fn orders(plan: &Plan) -> String {
    let mut orders: Vec<String> = Vec::new();
    for trial in &plan.trials {
        let order = trial.config.recipe.arithmetic.order.to_string();
        if !orders.contains(&order) {
            orders.push(order);
        }
    }
    orders.join("; ")
}

/// What C is.
fn compute(plan: &Plan) -> &'static str {
    match plan.trials.iter().any(|trial| trial.pretraining.is_some()) {
        true => {
            "6 × non-embedding parameters × tokens of the pre-training whose weights a trial starts from, as are the tokens; \
             its own training is not in it"
        }
        false => "6 × non-embedding parameters × tokens; a warm start's compute is not in it",
    }
}

/// What the loss is.
fn loss(plan: &Plan) -> &'static str {
    let mut points = plan
        .trials
        .iter()
        .filter(|trial| trial.role == TrialRole::Point);
    match points.any(|trial| trial.config.recipe.objective == Objective::Sft) {
        true => {
            "-ln σ(reward of the chosen answer − reward of the rejected one), in nats, on pairs of held-out prompts; chance is ln 2"
        }
        false => {
            "-ln σ(reward of the same policy − reward of another), in nats, on held-out prompts; chance is ln 2"
        }
    }
}

/// What the numbers count; stands in the report's header.
fn conventions(plan: &Plan) -> Vec<(String, String)> {
    let line = |name: &str, text: String| (name.to_owned(), text);
    let left_out = plan.left_out.map(|left_out| {
        let text = format!("{left_out}; damaged, so not trained on");
        line("Quarantine", text)
    });
    let mut lines = vec![
        line(
            "N",
            "all trained parameters of the reward model, the embedding table included".into(),
        ),
        line("C", compute(plan).into()),
        line(
            "Tokens",
            format!(
                "both sequences of each triplet whole, as in the plain layout ({:.0} a triplet)",
                plan.tokens_per_triplet
            ),
        ),
        line("Loss", loss(plan).into()),
        line("Reduction", orders(plan)),
    ];
    lines.extend(left_out);
    if plan.pairs == Pairs::AcrossPrompts {
        let text = "across prompts: the reference answers another prompt than the two that are compared, so \
                    style and topic are learnt, not how one policy varies on a prompt";
        lines.push(line("Pairs", text.into()));
    }
    lines
}
