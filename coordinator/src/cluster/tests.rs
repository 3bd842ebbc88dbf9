//! Histories of a pool, event by event.

use super::{Cluster, Command, Event, Failure, Job, Limits, Status, WorkerId};
use polestar_core::{Generation, Rank, TrialId};

const LIMITS: Limits = Limits {
    failures: 1,
    losses: 5,
};

fn job(name: &str, cost: f64, world: u32, after: Option<&str>) -> Job {
    Job {
        trial: TrialId(name.to_owned()),
        after: after.map(|a| TrialId(a.to_owned())),
        cost,
        world,
        done: false,
    }
}

fn joined(worker: u64) -> Event {
    Event::Joined {
        worker: WorkerId(worker),
        host: "h".into(),
        pid: worker as u32,
    }
}

fn finished(worker: u64, generation: u64) -> Event {
    Event::Finished {
        worker: WorkerId(worker),
        generation: Generation(generation),
        outcome: format!("outcome of {worker}"),
    }
}

/// Answers every Prepare at once and returns the trials that start, with their generation.
fn answer(cluster: &mut Cluster, commands: Vec<Command>) -> Vec<(TrialId, Generation)> {
    let mut started = Vec::new();
    let mut queue: std::collections::VecDeque<Command> = commands.into();
    while let Some(command) = queue.pop_front() {
        match command {
            Command::Prepare { worker, generation } => {
                queue.extend(cluster.handle(Event::Ready {
                    worker,
                    generation,
                    address: format!("a{}", worker.0),
                }));
            }
            Command::Start {
                rank: Rank(0),
                trial,
                generation,
                ..
            } => started.push((trial, generation)),
            _ => {}
        }
    }
    started
}

#[test]
fn costliest_first_and_starts_before_what_needs_them() {
    let jobs = vec![
        job("small", 1.0, 1, None),
        job("big", 9.0, 1, Some("start")),
        job("start", 2.0, 1, None),
    ];
    let mut cluster = Cluster::new(jobs, LIMITS);
    let commands = cluster.handle(joined(1));
    let started = answer(&mut cluster, commands);
    assert_eq!(started[0].0.0, "start");
    assert_eq!(
        cluster.statuses()[1].1,
        Status::Waiting("start must be done first".into())
    );
    let commands = cluster.handle(finished(1, 1));
    assert!(matches!(&commands[0], Command::Record { trial, .. } if trial.0 == "start"));
    let started = answer(&mut cluster, commands);
    assert_eq!(started[0].0.0, "big");
}

#[test]
fn a_lost_worker_ends_the_generation_and_the_trial_is_regrouped() {
    let mut cluster = Cluster::new(vec![job("t", 1.0, 2, None)], LIMITS);
    cluster.handle(joined(1));
    let commands = cluster.handle(joined(2));
    answer(&mut cluster, commands);

    let commands = cluster.handle(Event::Left(WorkerId(2)));
    assert!(
        matches!(
            &commands[..],
            [Command::Abort {
                worker: WorkerId(1),
                ..
            }]
        ),
        "{commands:?}"
    );
    // Its collateral failure and its confirmation may both come; the trial is retried once.
    let failure = Failure {
        phase: "collective".into(),
        message: "peer lost".into(),
        collateral: true,
        retryable: true,
    };
    let commands = cluster.handle(Event::Failed {
        worker: WorkerId(1),
        generation: Generation(1),
        failure,
    });
    let [Command::Retry { story, .. }] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert!(
        story.starts_with("rank 1 on worker 2 (h, pid 2) was lost"),
        "{story}"
    );
    assert!(story.contains("in its wake: rank 0"), "{story}");
    assert!(
        cluster
            .handle(Event::Stopped {
                worker: WorkerId(1),
                generation: Generation(1)
            })
            .is_empty()
    );

    let commands = cluster.handle(joined(3));
    let started = answer(&mut cluster, commands);
    assert_eq!(started, [(TrialId("t".into()), Generation(2))]);
    cluster.handle(finished(1, 2));
    let commands = cluster.handle(finished(3, 2));
    assert!(
        matches!(
            &commands[..],
            [Command::Record {
                losses: 1,
                failures: 0,
                ..
            }]
        ),
        "{commands:?}"
    );
    assert!(cluster.is_complete());
}

#[test]
fn what_can_not_help_is_not_tried_again_and_takes_its_dependents_along() {
    let jobs = vec![job("a", 1.0, 1, None), job("b", 1.0, 1, Some("a"))];
    let mut cluster = Cluster::new(jobs, LIMITS);
    let commands = cluster.handle(joined(1));
    answer(&mut cluster, commands);
    let commands = cluster.handle(Event::Failed {
        worker: WorkerId(1),
        generation: Generation(1),
        failure: Failure {
            phase: "compute".into(),
            message: "the loss is not finite".into(),
            collateral: false,
            retryable: false,
        },
    });
    let given_up: Vec<&str> = commands
        .iter()
        .filter_map(|c| match c {
            Command::GiveUp { trial, .. } => Some(trial.0.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(given_up, ["a", "b"]);
    assert!(cluster.is_complete());
}

#[test]
fn failures_are_counted_apart_from_losses() {
    let mut cluster = Cluster::new(vec![job("t", 1.0, 1, None)], LIMITS);
    let mut worker = 0;
    let mut generation = 0;
    let mut lose = |cluster: &mut Cluster| {
        worker += 1;
        generation += 1;
        let commands = cluster.handle(joined(worker));
        answer(cluster, commands);
        cluster.handle(Event::Left(WorkerId(worker)))
    };
    for _ in 0..LIMITS.losses {
        assert!(matches!(lose(&mut cluster)[..], [Command::Retry { .. }]));
    }
    assert!(matches!(lose(&mut cluster)[..], [Command::GiveUp { .. }]));
}
