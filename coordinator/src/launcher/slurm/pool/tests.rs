//! Histories of a queue, one look after the other.

use super::*;
use crate::launcher::slurm::state::{Exit, State};

fn id(task: u32) -> TaskId {
    TaskId {
        job: 7,
        task: Some(task),
    }
}

fn row(task: u32, state: &str, restarts: u32) -> Row {
    let has_nodes = !matches!(state, "PENDING" | "REQUEUED");
    Row {
        id: id(task),
        name: "w".into(),
        state: State(state.into()),
        reason: "None".into(),
        restarts,
        exit: Exit::default(),
        nodes: if has_nodes {
            "n1".into()
        } else {
            String::new()
        },
        time_left: String::new(),
    }
}

fn start(task: u32, restarts: u32) -> Start {
    Start {
        task: id(task),
        restarts,
    }
}

const NOW: Duration = Duration::from_secs(100);

/// A pool of one worker a task that has submitted two.
fn pool_of_two() -> Pool {
    let mut pool = Pool::new(1);
    pool.scale(2);
    assert_eq!(pool.plan(NOW), [Action::Submit(2)]);
    pool.submitted(7, 2);
    assert!(pool.plan(NOW).is_empty(), "both are on their way");
    pool
}

#[test]
fn a_requeued_task_is_another_worker_each_time() {
    let mut pool = pool_of_two();
    let happened = pool.observe(&[row(0, "RUNNING", 0), row(1, "PENDING", 0)]);
    assert_eq!(happened, [Happened::Started(start(0, 0))]);
    // The core lets go of a worker whose stream broke; the task is on its way back into the queue.
    pool.retire(start(0, 0), NOW);
    let happened = pool.observe(&[row(0, "PENDING", 1), row(1, "PENDING", 0)]);
    assert!(
        matches!(&happened[..], [Happened::Ended(s, why)] if *s == start(0, 0) && why.contains("put back")),
        "{happened:?}"
    );
    let later = NOW + 2 * RETIRE_PATIENCE;
    assert!(pool.plan(later).is_empty(), "it has its place in the queue");
    let happened = pool.observe(&[row(0, "RUNNING", 1), row(1, "PENDING", 0)]);
    assert_eq!(happened, [Happened::Started(start(0, 1))]);
    // And what is late for the first start is nothing to the second.
    pool.retire(start(0, 0), later);
    assert!(pool.plan(later + 2 * RETIRE_PATIENCE).is_empty());
    // A requeue between two looks is both at once.
    let happened = pool.observe(&[row(0, "RUNNING", 2), row(1, "PENDING", 0)]);
    assert!(
        matches!(&happened[..], [Happened::Ended(a, _), Happened::Started(b)]
            if *a == start(0, 1) && *b == start(0, 2)),
        "{happened:?}"
    );
}

#[test]
fn a_deaf_worker_is_replaced_at_once_and_ended_in_time() {
    let mut pool = pool_of_two();
    let rows = [row(0, "RUNNING", 0), row(1, "RUNNING", 0)];
    pool.observe(&rows);
    pool.retire(start(1, 0), NOW);
    assert_eq!(pool.plan(NOW), [Action::Submit(1)]);
    pool.submitted(8, 1);
    pool.observe(&rows);
    assert_eq!(pool.plan(NOW + RETIRE_PATIENCE), [Action::End(vec![id(1)])]);
}

#[test]
fn fewer_workers_are_had_by_withdrawing_what_waits() {
    let mut pool = Pool::new(1);
    pool.scale(4);
    pool.submitted(7, 4);
    pool.observe(&[
        row(0, "RUNNING", 0),
        row(1, "RUNNING", 0),
        row(2, "PENDING", 0),
        row(3, "PENDING", 0),
    ]);
    pool.scale(3);
    assert_eq!(pool.plan(NOW), [Action::Withdraw(vec![id(3)])]);
    pool.scale(1);
    // What runs is for its coordinator to end.
    assert_eq!(pool.plan(NOW), [Action::Withdraw(vec![id(2)])]);
    let rows = [
        row(0, "RUNNING", 0),
        row(1, "RUNNING", 0),
        row(2, "CANCELLED", 0),
        row(3, "CANCELLED", 0),
    ];
    let gone: Vec<Row> = rows
        .into_iter()
        .map(|row| Row {
            nodes: String::new(),
            ..row
        })
        .collect();
    assert!(pool.observe(&gone).is_empty(), "nobody needs to hear of it");
    assert_eq!(pool.running(), [id(0), id(1)]);
}

#[test]
fn whatever_ends_before_it_ran_is_told_once_for_all() {
    let mut pool = pool_of_two();
    let cancelled = |task| Row {
        nodes: String::new(),
        ..row(task, "CANCELLED", 0)
    };
    let happened = pool.observe(&[cancelled(0), cancelled(1)]);
    assert_eq!(
        happened,
        [Happened::NeverRan(vec![id(0), id(1)], "CANCELLED".into())]
    );
    assert_eq!(pool.plan(NOW), [Action::Submit(2)]);
    // As squeue lists an array of which nothing ever ran.
    let whole = Row {
        id: TaskId { job: 7, task: None },
        ..cancelled(0)
    };
    let mut pool = pool_of_two();
    assert_eq!(pool.observe(std::slice::from_ref(&whole)), happened);
    assert!(pool.observe(&[whole]).is_empty());
    // They stay listed for minutes.
    assert!(pool.observe(&[cancelled(0), cancelled(1)]).is_empty());
}

#[test]
fn one_that_lived_between_two_looks_has_lived() {
    let mut pool = pool_of_two();
    let refused = Row {
        exit: Exit {
            code: 78,
            signal: 0,
        },
        ..row(0, "FAILED", 0)
    };
    let happened = pool.observe(&[refused, row(1, "PENDING", 0)]);
    assert!(
        matches!(&happened[..], [Happened::Started(a), Happened::Ended(b, why)]
            if a == b && why.contains("exit code 78")),
        "{happened:?}"
    );
}

#[test]
fn what_an_earlier_coordinator_left_is_taken_over() {
    let mut pool = Pool::new(1);
    let happened = pool.observe(&[
        row(0, "RUNNING", 0),
        row(1, "PENDING", 0),
        row(2, "TIMEOUT", 0),
    ]);
    assert_eq!(happened, [Happened::Started(start(0, 0))]);
    assert!(pool.plan(NOW).is_empty(), "nobody has said yet how many");
    pool.scale(2);
    assert!(pool.plan(NOW).is_empty());
    pool.scale(1);
    assert_eq!(pool.plan(NOW), [Action::Withdraw(vec![id(1)])]);
}

#[test]
fn a_task_that_the_queue_forgot_is_looked_up_under_its_own_start() {
    let mut pool = pool_of_two();
    pool.observe(&[row(0, "RUNNING", 1), row(1, "RUNNING", 0)]);
    let only = [row(1, "RUNNING", 0)];
    pool.observe(&only);
    assert!(
        pool.forgotten().is_empty(),
        "one look may have been unlucky"
    );
    pool.observe(&only);
    assert_eq!(pool.forgotten(), BTreeSet::from([id(0)]));
    let accounts = [row(0, "PREEMPTED", 0), row(0, "NODE_FAIL", 1)];
    let happened = pool.forget(id(0), &accounts);
    assert!(
        matches!(&happened[..], [Happened::Ended(s, why)] if *s == start(0, 1) && why.contains("NODE_FAIL")),
        "{happened:?}"
    );
}

#[test]
fn a_job_of_many_workers_is_one_place_for_all_of_them() {
    let mut pool = Pool::new(4);
    pool.scale(6);
    assert_eq!(pool.plan(NOW), [Action::Submit(2)]);
    let launch = start(0, 3).launch(2);
    assert_eq!(launch.0, "slurm-7_0.3.2");
    assert_eq!(Start::of(&launch), Some(start(0, 3)));
    assert_eq!(Start::of(&LaunchId("local-1".into())), None);
}
