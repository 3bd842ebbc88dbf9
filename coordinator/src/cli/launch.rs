//! `launch`: from a sweep file to finished trials and a report.

use super::{
    Error, LaunchArgs, ensure, plan,
    progress::Display,
    table::{duration, table},
};
use crate::{
    cluster::{Cluster, Command, Event, Job, Limits, WorkerId},
    pool::{self, LocalPool, PoolServer, Told},
    run::{Run, TrialResult, write_report},
    sweep::Sweep,
};
use polestar_core::{Generation, TrialId};
use polestar_run::{
    Outcome,
    proto::{self, to_worker::Body},
};
use polestar_store::Store;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};

/// Runs what is missing of a sweep and writes its report.
pub(super) async fn launch(args: LaunchArgs) -> Result<ExitCode, Error> {
    let begun = Instant::now();
    let mut sweep = plan::read(&args.sweep, args.store)?;
    if let Some(workers) = args.workers {
        if workers == 0 {
            return Err("--workers 0: somebody has to train".into());
        }
        sweep.pool.workers = workers;
        sweep.pool.workers_per_trial = sweep.pool.workers_per_trial.min(workers);
    }
    if let Some(world) = args.workers_per_trial {
        if world == 0 || world > sweep.pool.workers || world > sweep.train.lanes {
            return Err(format!(
                "--workers-per-trial {world}: the pool has {} workers and a batch {} lanes",
                sweep.pool.workers, sweep.train.lanes
            )
            .into());
        }
        sweep.pool.workers_per_trial = world;
    }
    let root = Store::open(&sweep.store)?;
    let corpus = ensure::corpus(&mut sweep).await?;
    let planned = ensure::plan_on(&sweep, &corpus).await?;
    print!("{}", plan::describe(&sweep, &planned));
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let run = Run::begin(&root, &sweep, planned).await?;
    println!("run {}", run.store.url());

    let results = run.results().await?;
    let missing = run.record.plan.trials.len() - results.len();
    if !results.is_empty() && missing > 0 {
        println!(
            "{} of {} trials are in the store already: {:.2e} FLOPs spared",
            results.len(),
            run.record.plan.trials.len(),
            run.spared(&results)
        );
    }
    let given_up = if missing == 0 {
        println!("every trial is done already; writing the report again");
        BTreeMap::new()
    } else {
        let mut launch = Launch::begin(&run, &sweep, &results).await?;
        // Only workers have anything to lose: from here on a signal ends the launch in order.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let ended = tokio::select! {
            ended = launch.drive() => ended,
            _ = interrupt.recv() => Err(INTERRUPTED.into()),
            _ = terminate.recv() => Err(INTERRUPTED.into()),
        };
        launch.end().await;
        ended?
    };
    let report = write_report(&run, &corpus, &given_up).await?;
    print!("{}", summary(&run).await?);
    println!("report {report}");
    println!("{} in all", duration(begun.elapsed().as_secs_f64()));
    if given_up.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for (trial, story) in &given_up {
        eprintln!("error: {trial} was given up: {story}");
    }
    Ok(ExitCode::FAILURE)
}

async fn summary(run: &Run) -> Result<String, Error> {
    let results = run.results().await?;
    let mut rows = Vec::new();
    for trial in &run.record.plan.trials {
        let Some(result) = results.get(&trial.config.id) else {
            continue;
        };
        let score = |set: &str| {
            result.outcome.validation.get(set).map_or_else(
                || "-".to_owned(),
                |s| match s.accuracy {
                    Some(accuracy) => format!("{:.4} / {accuracy:.3}", s.loss),
                    None => format!("{:.4}", s.loss),
                },
            )
        };
        rows.push(vec![
            trial.config.id.0.clone(),
            score("heldout_prompts"),
            score("heldout_policies"),
            duration(result.outcome.consumed.seconds),
            result.outcome.digest.short(),
        ]);
    }
    let head = [
        "trial",
        "held-out prompts",
        "held-out policies",
        "time",
        "digest",
    ];
    let mut text = format!("held-out loss / accuracy:\n{}", table(&head, &rows));
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
    let world = f64::from(run.record.sweep.pool.workers_per_trial);
    if seconds > 0.0 {
        text += &format!(
            "{:.2e} FLOPs a second and worker, validation and saving included (pool.worker_flops, for `plan`)\n",
            flops / seconds / world
        );
    }
    Ok(text)
}

/// The running half of a launch: the pool, the cluster and what they say to each other.
struct Launch<'a> {
    run: &'a Run,
    sweep: &'a Sweep,
    cluster: Cluster,
    server: PoolServer,
    processes: LocalPool,
    /// Process of each worker that is in the pool.
    pids: BTreeMap<WorkerId, u32>,
    display: Display,
    secrets: BTreeMap<Generation, [u8; 32]>,
    given_up: BTreeMap<TrialId, String>,
    /// Worker processes in a row that ended before they joined: a pool that can't start.
    barren: u32,
    logs: tempfile::TempDir,
}

const INTERRUPTED: &str = "interrupted; the same command goes on from the newest checkpoints";

/// Worker processes that may die in a row without one joining.
const BARREN: u32 = 3;

impl<'a> Launch<'a> {
    async fn begin(
        run: &'a Run,
        sweep: &'a Sweep,
        results: &BTreeMap<TrialId, TrialResult>,
    ) -> Result<Launch<'a>, Error> {
        let pool = &sweep.pool;
        let jobs = run
            .record
            .plan
            .trials
            .iter()
            .map(|t| Job {
                trial: t.config.id.clone(),
                after: t.after.clone(),
                cost: t.own_flops(),
                world: pool.workers_per_trial,
                done: results.contains_key(&t.config.id),
            })
            .collect();
        let limits = Limits {
            failures: pool.failures,
            losses: pool.losses,
        };
        let token: [u8; 32] = rand::random();
        let token = blake3::Hash::from(token).to_hex().to_string();
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = pool::serve(loopback, token.clone()).await?;
        let threads = match pool.threads {
            0 => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                (cores / pool.workers as usize).max(1)
            }
            given => given,
        };
        let logs = tempfile::Builder::new()
            .prefix("polestar-workers-")
            .tempdir()?;
        let mut processes = LocalPool::new(server.address, token, threads, logs.path());
        for _ in 0..pool.workers {
            processes.start()?;
        }
        Ok(Launch {
            run,
            sweep,
            cluster: Cluster::new(jobs, limits),
            server,
            processes,
            pids: BTreeMap::new(),
            display: Display::new(run.record.plan.trials.len(), results.len()),
            secrets: BTreeMap::new(),
            given_up: BTreeMap::new(),
            barren: 0,
            logs,
        })
    }

    /// Until every trial is done or given up.
    async fn drive(&mut self) -> Result<BTreeMap<TrialId, String>, Error> {
        let mut look = tokio::time::interval(Duration::from_millis(200));
        while !self.cluster.is_complete() {
            tokio::select! {
                told = self.server.told.recv() => match told {
                    Some(Told::Event(event)) => self.take(event).await?,
                    Some(Told::Progress { generation, event }) => self.progress(generation, &event),
                    None => return Err("the pool service ended".into()),
                },
                _ = look.tick() => self.look_after_processes()?,
            }
        }
        Ok(std::mem::take(&mut self.given_up))
    }

    async fn take(&mut self, event: Event) -> Result<(), Error> {
        match &event {
            Event::Joined { worker, host, pid } => {
                self.barren = 0;
                self.processes.joined(*pid);
                self.pids.insert(*worker, *pid);
                self.display
                    .line(&format!("{worker} joined ({host}, pid {pid})"));
            }
            Event::Left(worker) => {
                self.display.line(&format!("{worker} left"));
                if let Some(pid) = self.pids.remove(worker) {
                    self.processes.left(pid);
                }
            }
            Event::Failed {
                worker,
                generation,
                failure,
            } => {
                // At once: what follows may have to wait for whoever doesn't answer.
                let trial = self.cluster.trial_of(*generation);
                let ranks = self.cluster.ranks_of(*generation);
                if let Some(trial) = trial {
                    let text = &failure.message;
                    let line = format!("{trial}: {worker} failed in {}: {text}", failure.phase);
                    self.display
                        .line(&format!("{line}\n({})", ranks.join(", ")));
                }
            }
            _ => {}
        }
        for command in self.cluster.handle(event) {
            self.execute(command).await?;
        }
        Ok(())
    }

    async fn execute(&mut self, command: Command) -> Result<(), Error> {
        let workers = &self.server.workers;
        match command {
            Command::Prepare { worker, generation } => {
                workers.send(
                    worker,
                    Body::Prepare(proto::Prepare {
                        generation: generation.0,
                    }),
                );
            }
            Command::Start {
                worker,
                generation,
                rank,
                peers,
                trial,
            } => {
                let secret = self.secrets.entry(generation).or_insert_with(rand::random);
                let planned = self.run.record.plan.trials.iter();
                let config = planned.map(|t| &t.config).find(|c| c.id == trial);
                workers.send(
                    worker,
                    Body::Start(proto::Start {
                        generation: generation.0,
                        rank: rank.0,
                        peers,
                        secret: secret.to_vec(),
                        run: self.run.store.url().to_owned(),
                        trial: serde_json::to_string(&config)?,
                        deadline_seconds: self.sweep.pool.deadline_seconds,
                    }),
                );
            }
            Command::Abort {
                worker,
                generation,
                reason,
            } => {
                workers.send(
                    worker,
                    Body::Abort(proto::Abort {
                        generation: generation.0,
                        reason,
                    }),
                );
            }
            Command::Record {
                trial,
                outcome,
                failures,
                losses,
            } => {
                let outcome: Outcome = serde_json::from_str(&outcome)?;
                let result = TrialResult {
                    outcome,
                    failures,
                    losses,
                };
                self.run.record_result(&result).await?;
                self.display.over(&trial, true);
                self.display
                    .line(&format!("{trial} done, digest {}", result.outcome.digest));
            }
            Command::Retry { trial, story } => {
                self.display.over(&trial, false);
                self.display.line(&format!(
                    "{trial} is tried again from its newest checkpoint: {story}"
                ));
            }
            Command::GiveUp { trial, story } => {
                self.display.over(&trial, true);
                self.display.line(&format!("{trial} is given up: {story}"));
                self.given_up.insert(trial, story);
            }
        }
        Ok(())
    }

    fn progress(&mut self, generation: Generation, event: &str) {
        let Some(trial) = self.cluster.trial_of(generation).cloned() else {
            return;
        };
        match serde_json::from_str(event) {
            Ok(event) => self.display.event(generation, &trial, &event),
            Err(error) => tracing::debug!(%error, "a progress message can't be read"),
        }
    }

    /// Replaces worker processes that have ended.
    fn look_after_processes(&mut self) -> Result<(), Error> {
        for ended in self.processes.reap() {
            let line = format!(
                "a worker process ended ({}); another is started",
                ended.status
            );
            self.display.line(&line);
            if !ended.had_joined {
                self.barren += 1;
                if self.barren > BARREN {
                    return Err(format!(
                        "{} worker processes in a row ended before they joined; the last said:\n{}",
                        self.barren, ended.log_tail
                    )
                    .into());
                }
            }
            if !ended.log_tail.is_empty() {
                self.display.line(&ended.log_tail);
            }
            self.processes.start()?;
        }
        Ok(())
    }

    async fn end(mut self) {
        self.display.close();
        self.server
            .workers
            .broadcast(&Body::Shutdown(proto::Shutdown {}));
        let patience = Duration::from_secs(10);
        if tokio::time::timeout(patience, self.processes.wait())
            .await
            .is_err()
        {
            tracing::warn!("a worker did not end in time and is killed");
        }
        drop(self.logs);
    }
}
