//! `launch`: from a sweep file to finished trials and a report.

use super::{
    Error, LaunchArgs,
    ensure::{self, OnCorpus},
    eval,
    plan::{self, Outlook},
    pool::{Entrance, override_pool},
    progress::Display,
    scores::score_table,
    speed::Speed,
    table::table,
    telemetry::{self, Watching},
};
use crate::{
    calendar::{self, duration},
    control::{self, Candidate, Handle, Lead, Service},
    launcher::Logs,
    output,
    run::{LogKeeper, Run, TrialResult, write_report},
    sweep::{self, Sweep},
    web::{Page, Serving},
};
use polestar_core::TrialId;
use polestar_run::{Cause, lease::Leader};
use polestar_store::Store;
use polestar_telemetry::{Board, Telemetry};
use std::{
    collections::BTreeMap,
    process::ExitCode,
    task::Poll,
    time::{Duration, Instant},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit code of a launch whose results are all there, and whose report or evaluations could not be made.
const NO_REPORT: u8 = 3;

/// Runs what is missing of a sweep and writes its report.
pub(super) async fn launch(args: LaunchArgs, telemetry: &Telemetry) -> Result<ExitCode, Error> {
    let begun = Instant::now();
    if !args.dry_run {
        output::work_on();
    }
    let mut sweep = plan::read(&args.what.sweep, args.what.store.as_deref())?;
    override_pool(&mut sweep, &args)?;
    sweep.train.accept_numerics |= args.accept_numerics;
    sweep::check(&sweep)?;
    // What can't work is better known before anything is made or printed.
    let logs = Logs::new()?;
    let entrance = match args.dry_run {
        true => None,
        false => Some(Entrance::of(&sweep)?),
    };
    let page = match args.dry_run {
        true => None,
        false => args.page.open().await?,
    };
    let root = Store::open(&sweep.store)?;
    let corpus = ensure::corpus(&mut sweep).await?;
    let OnCorpus {
        plan: planned,
        cutting,
        weights,
    } = ensure::plan_on(&sweep, &corpus).await?;
    let outlook = Outlook::new(&corpus, Speed::known(&sweep));
    let cut = plan::what_is_cut(&cutting);
    print!("{}{cut}", plan::describe(&sweep, &planned, &outlook));
    let Some(entrance) = entrance else {
        return Ok(ExitCode::SUCCESS);
    };
    // A benchmark that can't be read is better known before days of training than after.
    eval::read(&sweep.evaluation, false).await?;
    let run = Run::begin(&root, &sweep, planned).await?;
    if let Some(weights) = &weights {
        polestar_hf::record(&run.store, weights).await?;
    }
    println!("run {}", run.folder.url());
    // It ends with the launch, and sends what is left then.
    let (_exporting, board) = telemetry::of_launch(telemetry, &sweep.telemetry, &run)?;

    // The page stays until the report is written.
    let Trained {
        abandoned,
        page: _page,
    } = train(
        &run,
        &sweep,
        Setting {
            entrance,
            logs,
            retry_abandoned: args.retry_abandoned,
            page,
            board,
        },
    )
    .await?;
    print!("{}", summary(&run).await?);
    let evaluated = eval::missing(&run, &sweep.evaluation, corpus.url()).await;
    let report = write_report(&run, &corpus).await;
    if let Ok(place) = &report {
        println!("report {place}");
    }
    println!("{} in all", duration(begun.elapsed().as_secs_f64()));
    for (trial, cause) in &abandoned {
        eprintln!("error: {trial} was abandoned: {cause}");
        if !cause.is_retryable() {
            eprintln!("  the same would happen again; --retry-abandoned tries it all the same");
        }
    }
    let url = run.folder.url();
    if let Err(error) = &evaluated {
        super::print_error(error.as_ref());
        eprintln!(
            "the results are safe; `coordinator launch` evaluates what is missing, `coordinator eval {url}` all of it"
        );
    }
    match report {
        Err(error) => {
            super::print_error(&error);
            eprintln!("the results are safe; `coordinator report {url}` writes the report");
            Ok(ExitCode::from(NO_REPORT))
        }
        Ok(_) if evaluated.is_err() => Ok(ExitCode::from(NO_REPORT)),
        Ok(_) if abandoned.is_empty() => Ok(ExitCode::SUCCESS),
        Ok(_) => Ok(ExitCode::FAILURE),
    }
}

/// What training has around it in this process.
struct Setting {
    /// Where workers come in.
    entrance: Entrance,
    /// Where they log to.
    logs: Logs,
    retry_abandoned: bool,
    /// Shows it, if that is wanted.
    page: Option<Page>,
    /// What a collector is told of it.
    board: Board,
}

/// What came of training.
struct Trained {
    /// Trials that were abandoned, now or before.
    abandoned: BTreeMap<TrialId, Cause>,
    /// The page, while this is kept.
    page: Option<Serving>,
}

/// Trains what has neither a result nor a good reason to have none.
async fn train(run: &Run, sweep: &Sweep, setting: Setting) -> Result<Trained, Error> {
    let Setting {
        entrance,
        logs,
        retry_abandoned,
        page,
        board,
    } = setting;
    let results = run.results().await?;
    let (done, trials) = (results.len(), run.record.plan.trials.len());
    if done > 0 && done < trials {
        println!(
            "{done} of {trials} trials are in the store already: {:.2e} FLOPs spared",
            run.spared(&results)
        );
    }
    if done == trials {
        println!("every trial is done already; writing the report again");
        if page.is_some() {
            println!("`coordinator web {}` shows it", run.folder.url());
        }
        return Ok(Trained {
            abandoned: BTreeMap::new(),
            page: None,
        });
    }
    let (server, how_to_join) = entrance.listen(&logs, run.folder.url()).await?;
    let lead = lead(run, sweep, server.contact().url()).await?;
    print!("{how_to_join}");
    let folder = logs.hold();
    let mut keeper = LogKeeper::new(folder.path(), &run.folder);
    let launcher = Entrance::launcher(sweep, &server, logs).await?;
    let mut options = control::Options::of(&sweep.pool)?;
    options.retry_abandoned = retry_abandoned;
    options.collector = telemetry::collector(&sweep.telemetry);
    let service = Service::begin(&options, run, lead, server, launcher).await?;
    let handle = service.handle();
    let page = match page {
        None => None,
        Some(page) => {
            let url = page.url();
            let serving = page.serve_live(run, handle.clone()).await?;
            println!("page {url}");
            Some(serving)
        }
    };
    let display = Display::new(trials, done).show(handle.subscribe());
    let watching = Watching::begin(&sweep.telemetry, &handle, board).await?;
    let stopper = tokio::spawn(stop_on_signal(signals()?, handle));
    let work = async { tokio::join!(service.run(), display) };
    let (summary, ()) = tokio::select! {
        done = work => done,
        never = keeper.run() => match never {},
    };
    keeper.keep().await;
    stopper.abort();
    watching.end().await;
    let summary = summary?;
    if summary.stopped {
        return Err("interrupted; the same command goes on from the newest checkpoints".into());
    }
    println!("{}", summary.status.warmth);
    Ok(Trained {
        abandoned: summary.abandoned,
        page,
    })
}

/// Becomes the coordinator that leads the run.
async fn lead(run: &Run, sweep: &Sweep, address: String) -> Result<Lead, Error> {
    let candidate = Candidate {
        leader: Leader::this_process(calendar::now(), address),
        time: Duration::from_secs(sweep.pool.lease_seconds),
    };
    let facts = run.facts();
    let taken = control::take_lead(&run.folder, &facts, &candidate, |other| {
        eprintln!(
            "this run was led by another coordinator ({}); waiting {} s to see whether it lives",
            other.leader,
            other.patience().as_secs()
        );
    });
    Ok(taken.await?)
}

/// Ctrl-C, what a system that shuts down sends, and what a terminal that is closed does, unless `nohup` or the like
/// has it ignored. Only workers have anything to lose, so it is from their start
/// on that a signal ends the launch in order.
fn signals() -> std::io::Result<Vec<Signal>> {
    let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
    // Where the system doesn't say, signals are taken to do what they do usually.
    let status = std::fs::read_to_string("/proc/self/status").ok();
    if status.is_none_or(|status| !is_ignored(&status, SignalKind::hangup())) {
        kinds.push(SignalKind::hangup());
    }
    kinds.into_iter().map(signal).collect()
}

/// Whether a process ignores a signal, by the status that Linux gives of it.
fn is_ignored(status: &str, kind: SignalKind) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (kind.as_raw_value() - 1) & 1 == 1)
}

/// The first signal has everything saved before it ends; the second doesn't wait for that.
async fn stop_on_signal(mut signals: Vec<Signal>, handle: Handle) {
    any(&mut signals).await;
    if let Some(status) = handle.status().await {
        eprintln!("saving and stopping (once more: stopping at once): {status}");
    }
    handle.drain();
    any(&mut signals).await;
    eprintln!("stopping");
    handle.stop();
}

async fn any(signals: &mut [Signal]) {
    std::future::poll_fn(|context| {
        let came = signals.iter_mut().any(|s| s.poll_recv(context).is_ready());
        match came {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

/// Scores, times and digests of what is done, and how fast the workers were.
async fn summary(run: &Run) -> Result<String, Error> {
    let results = run.results().await?;
    let planned = run.record.plan.trials.iter();
    let rows: Vec<Vec<String>> = planned
        .filter_map(|trial| results.get(&trial.config.id))
        .map(|TrialResult { outcome, .. }| {
            vec![
                outcome.trial.0.clone(),
                duration(outcome.consumed.seconds),
                outcome.digest.short(),
            ]
        })
        .collect();
    let mut text = score_table(&run.record.plan, &results);
    text += &table(&["trial", "time", "digest"], &rows);
    if let Some(speed) = flops_per_worker(run, &results) {
        text += &format!(
            "{speed:.2e} FLOPs a second and worker, validation and saving included (pool.worker_flops, for `plan`)\n"
        );
    }
    Ok(text)
}

/// FLOPs a second of one worker, over all finished trials; `None` when no time was spent.
fn flops_per_worker(run: &Run, results: &BTreeMap<TrialId, TrialResult>) -> Option<f64> {
    let (mut flops, mut seconds) = (0.0, 0.0);
    for trial in &run.record.plan.trials {
        let taken = |id| Some(results.get(id)?.outcome.consumed.seconds);
        let Some(all) = taken(&trial.config.id) else {
            continue;
        };
        // A branch's seconds begin with its trunk's.
        let shared = trial.config.execution.trunk.as_ref().and_then(|trunk| {
            let id = trial.after.as_ref()?;
            let steps = results.get(id)?.outcome.steps;
            Some(taken(id)? * trunk.step.0 as f64 / steps as f64)
        });
        flops += trial.own_flops();
        seconds += (all - shared.unwrap_or(0.0)).max(0.0);
    }
    let sweep = &run.record.sweep;
    let world = f64::from(sweep.pool.largest_world(sweep.train.lanes));
    (seconds > 0.0).then(|| flops / seconds / world)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nohup_is_heeded() {
        let status = |mask: &str| format!("Name:\tcoordinator\nSigIgn:\t{mask}\nSigCgt:\t0\n");
        assert!(is_ignored(
            &status("0000000000001001"),
            SignalKind::hangup()
        ));
        assert!(!is_ignored(
            &status("0000000000001000"),
            SignalKind::hangup()
        ));
        assert!(!is_ignored("", SignalKind::hangup()));
    }
}
