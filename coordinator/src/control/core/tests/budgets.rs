//! What is tried again, what is stored, and who waits for whom.

use super::*;

#[test]
fn what_can_not_help_is_not_tried_again_and_takes_its_dependents_along() {
    let jobs = vec![job("a", 1.0, 1, None), job("b", 1.0, 1, Some("a"))];
    let mut pool = Pool::new(1, jobs);
    pool.join(1);
    pool.ready(1, 1);
    pool.failed(1, 1, failure("the loss is not finite", false, false));
    let abandoned = pool.core.abandoned();
    assert!(
        abandoned[&named("a")]
            .to_string()
            .contains("the loss is not finite")
    );
    assert_eq!(abandoned[&named("b")], Cause::Start { trial: named("a") });
    let stored = pool
        .facts
        .iter()
        .filter(|f| matches!(f, Fact::Abandoned(_)));
    assert_eq!(stored.count(), 2, "who comes after knows it, too");
    assert_eq!(pool.core.verdict(), Some(&Verdict::Complete));
}

#[test]
fn an_abandoned_trial_is_tried_again_by_order_with_those_that_start_from_it() {
    let jobs = vec![
        job("a", 9.0, 1, None),
        job("b", 1.0, 1, Some("a")),
        job("c", 2.0, 1, None),
    ];
    let mut pool = Pool::new(1, jobs);
    pool.join(1);
    pool.ready(1, 1);
    pool.failed(1, 1, failure("the loss is not finite", false, false));
    assert!(pool.core.abandoned().contains_key(&named("b")));
    pool.ready(1, 2);
    // Of a trial that is at work nothing is tried again, and its start comes before a trial.
    pool.event(Event::Retry(named("c")));
    pool.event(Event::Retry(named("b")));
    assert!(matches!(pool.state("c"), TrialState::Running { .. }));
    assert!(pool.core.abandoned().is_empty());
    let trial = named("a");
    assert_eq!(pool.state("b"), TrialState::WaitsForStart { trial });
    pool.finished(1, 2);
    for number in [3, 4] {
        pool.ready(1, number);
        pool.finished(1, number);
    }
    assert_eq!(pool.state("b"), TrialState::Done);
    assert_eq!(pool.core.verdict(), Some(&Verdict::Complete));
}

#[test]
fn budgets_go_on_where_an_earlier_coordinator_left_them() {
    let mut begun = job("begun", 2.0, 1, None);
    begun.history = History::Missing(Spent {
        failures: 0,
        losses: LIMITS.losses,
    });
    let mut dead = job("dead", 1.0, 1, None);
    let cause = Cause::Start {
        trial: named("elsewhere"),
    };
    dead.history = History::Abandoned(cause.clone());
    let jobs = vec![begun, dead, job("heir", 1.0, 1, Some("dead"))];
    let mut pool = Pool::new(1, jobs);
    assert_eq!(pool.core.abandoned()[&named("dead")], cause);
    assert!(pool.core.abandoned().contains_key(&named("heir")));
    pool.join(1);
    pool.worker(1, WorkerEvent::Left);
    assert!(
        matches!(pool.state("begun"), TrialState::Abandoned { .. }),
        "one loss too many, all together"
    );
}

#[test]
fn failures_are_counted_apart_from_losses() {
    let mut pool = Pool::new(1, vec![job("t", 1.0, 1, None)]);
    for worker in 1..=u64::from(LIMITS.losses) {
        pool.join(worker);
        pool.worker(worker, WorkerEvent::Left);
        assert!(matches!(
            pool.state("t"),
            TrialState::WaitsForWorkers { .. }
        ));
    }
    pool.join(100);
    pool.worker(100, WorkerEvent::Left);
    assert!(matches!(pool.state("t"), TrialState::Abandoned { .. }));
}

#[test]
fn what_the_store_does_not_take_is_tried_again_and_only_then_done() {
    let jobs = vec![job("a", 1.0, 1, None), job("b", 1.0, 1, Some("a"))];
    let mut pool = Pool::new(1, jobs);
    pool.join(1);
    pool.ready(1, 1);
    pool.store_is_down = true;
    pool.finished(1, 1);
    assert_eq!(pool.state("a"), TrialState::Saving);
    let down = |retryable| StoreTrouble {
        message: "503".to_owned(),
        retryable,
    };
    let mut waits = Vec::new();
    for attempt in 0.. {
        pool.event(Event::Stored(Ticket(1), Err(down(true))));
        let wait = 1 << attempt;
        waits.push(wait);
        if attempt == 3 {
            pool.store_is_down = false;
        }
        let again = |c: &Command| matches!(c, Command::Persist(Ticket(1), _));
        pool.said.clear();
        pool.wait(wait - 1);
        assert!(!pool.said().iter().any(again), "after {wait} s");
        pool.wait(1);
        assert!(pool.said().iter().any(again), "after {wait} s");
        if !pool.store_is_down {
            break;
        }
    }
    assert_eq!(waits, [1, 2, 4, 8]);
    assert_eq!(pool.state("a"), TrialState::Done);
    assert!(matches!(pool.state("b"), TrialState::Running { .. }));
}

#[test]
fn a_result_that_can_not_be_stored_is_told_of_and_never_forgotten() {
    // The store says that it never will.
    let mut pool = Pool::new(1, vec![job("t", 1.0, 1, None)]);
    pool.join(1);
    pool.ready(1, 1);
    pool.store_is_down = true;
    pool.finished(1, 1);
    let trouble = StoreTrouble {
        message: "another digest is there".to_owned(),
        retryable: false,
    };
    pool.event(Event::Stored(Ticket(1), Err(trouble)));
    let cause = pool.core.abandoned()[&named("t")].clone();
    assert_eq!(
        cause.to_string(),
        "its result could not be stored: another digest is there"
    );
    assert!(!cause.is_retryable());

    // The store says nothing at all: it is asked again for as long as it takes.
    let mut pool = Pool::new(1, vec![job("t", 1.0, 1, None)]);
    pool.join(1);
    pool.ready(1, 1);
    pool.store_is_down = true;
    pool.finished(1, 1);
    for _ in 0..100 {
        pool.wait(Deadlines::default().saving_seconds);
        assert_eq!(pool.state("t"), TrialState::Saving);
    }
    pool.store_is_down = false;
    pool.wait(Deadlines::default().saving_seconds);
    assert_eq!(pool.core.verdict(), Some(&Verdict::Complete));
}

#[test]
fn a_store_that_is_away_costs_a_trial_time_and_no_budget() {
    let mut pool = Pool::new(1, vec![job("t", 1.0, 1, None)]);
    pool.join(1);
    let away = Failure {
        phase: Phase::Storage,
        ..failure("503", false, true)
    };
    for number in 1..=20 {
        pool.ready(1, number);
        pool.failed(1, number, away.clone());
        assert!(matches!(
            pool.state("t"),
            TrialState::WaitsForWorkers { .. }
        ));
        pool.wait(64);
        assert!(
            matches!(pool.state("t"), TrialState::Running { .. }),
            "{number}"
        );
    }
}

#[test]
fn small_trials_overtake_a_large_one_but_not_for_ever() {
    let mut jobs = vec![job("large", 9.0, 2, None)];
    jobs.extend((0..4).map(|i| job(&format!("small-{i}"), 1.0, 1, None)));
    let mut pool = Pool::new(2, jobs);
    pool.join(1);
    assert!(matches!(pool.state("small-0"), TrialState::Running { .. }));
    pool.ready(1, 1);
    pool.finished(1, 1);
    assert!(matches!(pool.state("small-1"), TrialState::Running { .. }));
    pool.ready(1, 2);
    pool.wait(Deadlines::default().overtaking_seconds);
    pool.finished(1, 2);
    assert!(
        matches!(
            pool.state("large"),
            TrialState::WaitsForWorkers { next: true, .. }
        ),
        "{}",
        pool.core.status()
    );
    assert!(
        matches!(pool.state("small-2"), TrialState::WaitsForWorkers { .. }),
        "the free worker is kept"
    );
    pool.join(2);
    assert!(matches!(pool.state("large"), TrialState::Running { .. }));
}

#[test]
fn messages_of_other_generations_are_ignored() {
    let mut pool = Pool::two_at(Stage::Running);
    let foreign = Generation {
        epoch: Epoch(6),
        number: 1,
    };
    let event = WorkerEvent::Failed {
        generation: foreign,
        failure: failure("from another coordinator's time", false, false),
    };
    pool.worker(1, event);
    assert!(pool.said().is_empty());
    assert!(matches!(pool.state("t"), TrialState::Running { .. }));
}

#[test]
fn processes_that_never_join_end_it_and_one_that_hangs_is_replaced() {
    let mut pool = Pool::new(1, vec![job("t", 1.0, 1, None)]);
    let launch = |n: u32| LaunchId(format!("l{n}"));
    pool.event(Event::Launcher(LaunchEvent::Started { launch: launch(0) }));
    pool.said.clear();
    pool.wait(Deadlines::default().joining_seconds);
    assert!(pool.said().iter().any(|c| matches!(
        c,
        Command::Retire {
            reason: RetireReason::NeverJoined { .. },
            ..
        }
    )));
    for n in 0..4 {
        assert_eq!(pool.core.verdict(), None);
        pool.event(Event::Launcher(LaunchEvent::Ended {
            launch: launch(n),
            status: "exit status: 1".to_owned(),
            log_tail: "no such library".to_owned(),
        }));
    }
    assert_eq!(
        pool.core.verdict(),
        Some(&Verdict::NoWorkers {
            failed: 4,
            last: "no such library".to_owned()
        })
    );
}

#[test]
fn a_plan_that_can_never_run_is_refused() {
    let jobs = vec![job("t", 1.0, 3, None)];
    let refused = Core::new(options(2), jobs).expect_err("three of two");
    assert!(
        refused
            .to_string()
            .contains("needs 3 workers, the pool has 2"),
        "{refused}"
    );
}

#[test]
fn a_trouble_reported_twice_is_one_blame() {
    let mut pool = Pool::two_at(Stage::Running);
    pool.failed(2, 1, failure("first", false, true));
    pool.failed(2, 1, failure("second", false, true));
    pool.stopped(1, 1);
    let [Cause::Ranks { first, collateral }] = &pool.setbacks()[..] else {
        panic!("{:?}", pool.facts);
    };
    assert!(matches!(&first.trouble, Trouble::Failed { failure } if failure.message == "first"));
    assert!(collateral.is_empty());
}
