//! What is left: the order of trials, the time they take, and workers that nobody needs any more.

use super::*;

impl Pool {
    fn stepped(&mut self, worker: u64, number: u64, step: u64) {
        let event = polestar_run::Event::Stepped {
            step: Step(step),
            loss: 1.0,
            accuracy: None,
            triplets_per_second: 1.0,
        };
        let generation = generation(number);
        self.worker(worker, WorkerEvent::Progress { generation, event });
    }

    /// A worker trains ten steps of so many seconds each, to the end.
    fn trains(&mut self, worker: u64, number: u64, seconds: u64) {
        self.ready(worker, number);
        self.begun(worker, number);
        for step in 1..=10 {
            self.wait(seconds);
            self.stepped(worker, number, step);
        }
        self.finished(worker, number);
    }

    /// Takes out the commands so far, and of them the workers that are let go.
    fn dismissed(&mut self) -> Vec<u64> {
        let said = self.said();
        let dismissed = said.iter().filter_map(|command| match command {
            Command::Dismiss(worker) => Some(worker.0),
            _ => None,
        });
        dismissed.collect()
    }
}

fn of_kind(kind: &str, job: Job) -> Job {
    let kind = kind.to_owned();
    Job {
        work: Work { kind, ..job.work },
        ..job
    }
}

#[test]
fn what_was_measured_to_take_longest_goes_first() {
    let jobs = vec![
        of_kind("fast", job("fast-1", 8.0, 1, None)),
        of_kind("slow", job("slow-1", 7.0, 1, None)),
        of_kind("fast", job("fast-2", 6.0, 1, None)),
        of_kind("slow", job("slow-2", 4.0, 1, None)),
    ];
    let mut pool = Pool::new(1, jobs);
    pool.join(1);
    assert_eq!(pool.core.status().left, None, "nothing was measured");
    pool.trains(1, 1, 1);
    // Of a kind that is not known the others' pace is taken.
    assert!(matches!(pool.state("slow-1"), TrialState::Running { .. }));
    pool.trains(1, 2, 20);
    assert!(
        matches!(pool.state("slow-2"), TrialState::Running { .. }),
        "it costs less and takes longer"
    );

    // 4 at 7 in 200 s, and 6 at 8 in 10 s.
    let status = pool.core.status();
    let left = |trial: &str| {
        let found = status.trials.iter().find(|t| t.trial.0 == trial);
        found.and_then(|t| t.left).map(|left| left.as_secs_f64())
    };
    assert!(
        (left("slow-2").expect("measured") - 800.0 / 7.0).abs() < 0.1,
        "{status}"
    );
    assert!(
        (left("fast-2").expect("measured") - 7.5).abs() < 0.1,
        "{status}"
    );
    let all = status.left.expect("measured").as_secs_f64();
    assert!(
        (all - 800.0 / 7.0 - 7.5).abs() < 0.2,
        "one after the other: {status}"
    );

    // Its own pace is better than that of its kind.
    pool.ready(1, 3);
    pool.begun(1, 3);
    pool.wait(10);
    pool.stepped(1, 3, 5);
    let said = pool.core.status().to_string();
    assert!(
        said.contains(
            "slow-2 is at step 5 of 10 (generation 7.3), 0.500 steps/s, about 10.0 s left"
        ),
        "{said}"
    );
    assert!(said.contains("; it takes about 7.5 s"), "{said}");
}

#[test]
fn workers_that_nothing_can_use_any_more_are_let_go_and_spares_stay() {
    let jobs = vec![
        job("start", 1.0, 1, None),
        job("x", 3.0, 1, Some("start")),
        job("y", 2.0, 1, Some("start")),
        job("z", 1.0, 1, Some("start")),
    ];
    // Three at one time at most, and a spare.
    let mut pool = Pool::new(4, jobs);
    (1..=4).for_each(|worker| pool.join(worker));
    assert!(
        pool.dismissed().is_empty(),
        "three are for what comes after the start"
    );
    pool.trains(1, 1, 1);
    assert!(pool.dismissed().is_empty());
    for number in 2..=4 {
        let worker = number - 1;
        pool.ready(worker, number);
        pool.begun(worker, number);
    }
    pool.said.clear();
    pool.finished(3, 4);
    let said = pool.said.clone();
    assert!(said.contains(&Command::Scale(3)), "{said:?}");
    let gone = pool.dismissed();
    assert_eq!(gone.len(), 1, "{gone:?}");
    // Its end is no news and asks for no other in its place.
    let launch = inventory(gone[0]).launch.expect("a launcher started it");
    pool.worker(gone[0], WorkerEvent::Left);
    pool.event(Event::Launcher(LaunchEvent::Ended {
        launch,
        status: "exit status: 0".to_owned(),
        log_tail: String::new(),
    }));
    let said = pool.said();
    assert!(
        !said
            .iter()
            .any(|c| matches!(c, Command::Scale(n) if *n != 3)),
        "{said:?}"
    );
    let told = |c: &Command| {
        matches!(
            c,
            Command::Publish(Entry::Left { .. } | Entry::ProcessEnded { .. })
        )
    };
    assert!(!said.iter().any(told), "{said:?}");
    // One that is lost is replaced as before.
    pool.worker(1, WorkerEvent::Left);
    assert!(
        matches!(pool.state("x"), TrialState::Running { .. }),
        "the spare goes on with it"
    );
}

#[test]
fn workers_that_live_together_are_let_go_together() {
    let names = ["a", "b", "c", "d"];
    let mut pool = Pool::new(
        4,
        names.iter().map(|name| job(name, 1.0, 1, None)).collect(),
    );
    for worker in 1..=4 {
        let (task, process) = ((worker - 1) / 2, (worker - 1) % 2);
        let inventory = Inventory {
            launch: Some(LaunchId(format!("slurm-7_{task}.0.{process}"))),
            ..inventory(worker)
        };
        pool.started(&inventory);
        pool.worker(worker, WorkerEvent::Joined(inventory));
    }
    for worker in 1..=4 {
        pool.ready(worker, worker);
    }
    pool.finished(3, 3);
    pool.finished(1, 1);
    assert!(pool.dismissed().is_empty(), "each job has one that trains");
    pool.finished(2, 2);
    assert_eq!(pool.dismissed(), [1, 2]);
}

#[test]
fn all_that_a_broken_node_takes_along_is_one_failure() {
    let mut pool = Pool::new(
        4,
        (0..4)
            .map(|i| job(&format!("t{i}"), 1.0, 1, None))
            .collect(),
    );
    let round = |pool: &mut Pool, number: u32| {
        let launch = |task: u32| LaunchId(format!("slurm-{number}_{task}.0.0"));
        pool.now += 1;
        for task in 0..4 {
            pool.event(Event::Launcher(LaunchEvent::Started {
                launch: launch(task),
            }));
        }
        pool.now += 1;
        for task in 0..4 {
            pool.event(Event::Launcher(LaunchEvent::Ended {
                launch: launch(task),
                status: "NODE_FAIL".to_owned(),
                log_tail: String::new(),
            }));
        }
    };
    for number in 1..=3 {
        round(&mut pool, number);
        assert_eq!(pool.core.verdict(), None, "{number} nodes");
    }
    round(&mut pool, 4);
    assert!(matches!(
        pool.core.verdict(),
        Some(Verdict::NoWorkers { failed: 4, .. })
    ));
}
