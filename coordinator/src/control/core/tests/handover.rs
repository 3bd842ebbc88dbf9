//! One coordinator after another: leases, workers that come back, ends that lose nothing.

use super::*;
use polestar_run::protocol::Membership;

/// A generation of the coordinator before this one.
const BEFORE: Generation = Generation {
    epoch: Epoch(6),
    number: 3,
};

fn rank_of(trial: &str, rank: u32, world: u32) -> Membership {
    Membership {
        generation: BEFORE,
        trial: named(trial),
        rank: Rank(rank),
        world,
        step: Step(40),
    }
}

impl Pool {
    /// A coordinator that takes the run over from one that died.
    fn heir(workers: u32, jobs: Vec<Job>) -> Pool {
        let options = Options {
            takes_over: true,
            ..options(workers)
        };
        let mut pool = Pool::new(workers, Vec::new());
        pool.core = Core::new(options, jobs).expect("jobs that can be scheduled");
        pool.said = pool.core.begin(Moment::default()).into();
        pool
    }

    fn rejoin(&mut self, worker: u64, membership: Membership) {
        let inventory = inventory(worker);
        self.worker(worker, WorkerEvent::Rejoined(inventory, membership));
    }

    fn finished_in(&mut self, worker: u64, generation: Generation) {
        let outcome = outcome(&named("t"));
        let event = WorkerEvent::Finished {
            generation,
            outcome,
        };
        self.worker(worker, event);
    }
}

#[test]
fn a_generation_whose_ranks_all_come_back_goes_on_under_its_old_name() {
    let mut pool = Pool::heir(2, vec![job("t", 1.0, 2, None), job("u", 0.5, 1, None)]);
    pool.rejoin(1, rank_of("t", 1, 2));
    // Rank 1 is at its end before rank 0 is even back.
    pool.finished_in(1, BEFORE);
    pool.rejoin(2, rank_of("t", 0, 2));
    let said = pool.said();
    let orders = said.iter().filter(|c| matches!(c, Command::Send(..)));
    assert_eq!(orders.count(), 0, "nobody is disturbed: {said:?}");
    let TrialState::Running { generation, .. } = pool.state("t") else {
        panic!("{}", pool.core.status());
    };
    assert_eq!(generation, BEFORE);
    pool.finished_in(2, BEFORE);
    assert_eq!(pool.state("t"), TrialState::Done);
    assert!(pool.setbacks().is_empty());
}

#[test]
fn a_rank_that_stays_away_costs_one_loss_and_the_trial_is_regrouped() {
    let mut pool = Pool::heir(2, vec![job("t", 1.0, 2, None)]);
    pool.rejoin(1, rank_of("t", 1, 2));
    pool.wait(Deadlines::default().rejoining_seconds);
    assert_eq!(pool.aborted(), [1]);
    let [cause] = &pool.setbacks()[..] else {
        panic!("{:?}", pool.facts);
    };
    assert!(cause.is_loss(), "{cause}");
    pool.join(2);
    pool.ready(1, 1);
    pool.ready(2, 1);
    assert!(
        matches!(pool.state("t"), TrialState::Running { generation: g, .. } if g == generation(1))
    );
}

#[test]
fn work_that_nobody_wants_any_more_is_stopped() {
    let mut done = job("t", 1.0, 1, None);
    done.history = History::Done;
    let mut pool = Pool::heir(2, vec![done, job("u", 1.0, 2, None)]);
    pool.rejoin(1, rank_of("t", 0, 1));
    assert_eq!(pool.aborted(), [1], "its trial has a result");
    pool.rejoin(2, rank_of("u", 5, 2));
    assert_eq!(pool.aborted(), [2], "there is no such rank");
}

#[test]
fn an_heir_waits_for_workers_before_it_starts_others() {
    let mut pool = Pool::heir(2, vec![job("t", 1.0, 1, None), job("u", 1.0, 1, None)]);
    pool.rejoin(1, rank_of("t", 0, 1));
    let scaled = |pool: &mut Pool| {
        let said = pool.said();
        let scaled = said.iter().filter_map(|c| match c {
            Command::Scale(workers) => Some(*workers),
            _ => None,
        });
        scaled.collect::<Vec<_>>()
    };
    assert!(scaled(&mut pool).is_empty());
    pool.wait(Deadlines::default().rejoining_seconds);
    assert_eq!(scaled(&mut pool), [1], "one of two is back");
}

#[test]
fn an_idle_worker_of_an_earlier_coordinator_takes_a_place_in_the_pool() {
    let mut pool = Pool::heir(1, vec![job("t", 1.0, 1, None)]);
    // It is in no generation; this coordinator's launcher doesn't know its process.
    pool.worker(1, WorkerEvent::Joined(inventory(1)));
    pool.wait(Deadlines::default().rejoining_seconds);
    let said = pool.said();
    assert!(!said.contains(&Command::Scale(1)), "{said:?}");
}

#[test]
fn workers_whose_launcher_knows_them_again_are_its_own_whichever_is_told_first() {
    let mut pool = Pool::heir(2, vec![job("t", 1.0, 2, None)]);
    pool.rejoin(1, rank_of("t", 0, 2));
    pool.started(&inventory(1));
    pool.started(&inventory(2));
    pool.rejoin(2, rank_of("t", 1, 2));
    pool.said.clear();
    pool.wait(Deadlines::default().joining_seconds);
    let said = pool.said();
    assert!(said.contains(&Command::Scale(2)), "{said:?}");
    let retired = said.iter().any(|c| matches!(c, Command::Retire { .. }));
    assert!(!retired, "nobody waits for them to join: {said:?}");
}

#[test]
fn nothing_begins_without_the_lease_and_who_lost_it_stops() {
    let mut pool = Pool::new(2, vec![job("t", 1.0, 1, None), job("u", 1.0, 1, None)]);
    pool.lease_is_stuck = true;
    pool.join(1);
    assert!(matches!(pool.state("t"), TrialState::Running { .. }));
    pool.wait(LEASE.as_secs());
    let event = LeaseEvent::Trouble {
        message: "503".to_owned(),
    };
    pool.event(Event::Lease(event));
    pool.join(2);
    assert!(matches!(
        pool.state("u"),
        TrialState::WaitsForWorkers { .. }
    ));
    pool.lease_is_stuck = false;
    pool.wait(1);
    assert!(matches!(pool.state("u"), TrialState::Running { .. }));
    let leader = "host b".to_owned();
    pool.event(Event::Lease(LeaseEvent::Lost {
        leader: leader.clone(),
    }));
    assert_eq!(pool.core.verdict(), Some(&Verdict::Fenced { leader }));
}

#[test]
fn a_renewal_that_comes_too_late_gives_no_right() {
    let mut pool = Pool::new(1, vec![job("t", 1.0, 1, None)]);
    pool.lease_is_stuck = true;
    pool.wait(2 * LEASE.as_secs());
    // Asked for at the beginning: its time is over, too.
    let asked = Moment::default();
    pool.event(Event::Lease(LeaseEvent::Renewed { asked }));
    pool.join(1);
    assert!(matches!(
        pool.state("t"),
        TrialState::WaitsForWorkers { .. }
    ));
}

#[test]
fn a_drain_saves_what_runs_and_begins_nothing() {
    let mut pool = Pool::two_at(Stage::Running);
    pool.event(Event::Drain);
    let said = pool.said();
    let drained = said
        .iter()
        .filter(|c| matches!(c, Command::Send(_, Order::Drain { .. })));
    assert_eq!(drained.count(), 2);
    pool.stopped(1, 1);
    assert_eq!(pool.core.verdict(), None);
    pool.stopped(2, 1);
    assert_eq!(pool.core.verdict(), Some(&Verdict::Stopped));
    assert!(pool.setbacks().is_empty(), "it is no setback");
}

#[test]
fn a_drain_that_takes_too_long_ends_all_the_same() {
    let mut pool = Pool::two_at(Stage::Running);
    pool.event(Event::Drain);
    pool.said.clear();
    pool.wait(Deadlines::default().draining_seconds);
    assert_eq!(pool.aborted(), [1, 2]);
    pool.stopped(1, 1);
    pool.stopped(2, 1);
    assert_eq!(pool.core.verdict(), Some(&Verdict::Stopped));
}

#[test]
fn a_worker_that_will_be_gone_soon_is_replaced_without_a_setback() {
    let mut pool = Pool::two_at(Stage::Running);
    pool.worker(1, WorkerEvent::Leaving);
    pool.stopped(1, 1);
    pool.said.clear();
    pool.stopped(2, 1);
    assert!(pool.said().contains(&Command::Dismiss(WorkerId(1))));
    pool.join(3);
    assert!(matches!(pool.state("t"), TrialState::Running { .. }));
    let members = pool.core.groups[&generation(2)].members();
    let members: Vec<u64> = members.map(|m| m.worker.0).collect();
    assert_eq!(members, [2, 3]);
    assert!(pool.setbacks().is_empty());

    // It has a moment to end by itself; of one whose stream just breaks nobody knows what became.
    for (worker, ending) in [(1, Ending::Asked), (2, Ending::Forced)] {
        pool.said.clear();
        pool.worker(worker, WorkerEvent::Left);
        let retired = pool.said().into_iter().find_map(|command| match command {
            Command::Retire { ending, .. } => Some(ending),
            _ => None,
        });
        assert_eq!(retired, Some(ending), "worker {worker}");
    }
}

#[test]
fn a_pool_that_stays_small_trains_with_what_it_has() {
    let mut wide = job("t", 1.0, 4, None);
    wide.least_world = 1;
    let mut pool = Pool::new(4, vec![wide]);
    pool.join(1);
    pool.join(2);
    pool.wait(Deadlines::default().shrinking_seconds - 1);
    assert!(matches!(
        pool.state("t"),
        TrialState::WaitsForWorkers { .. }
    ));
    pool.wait(1);
    assert!(matches!(pool.state("t"), TrialState::Running { .. }));
    assert_eq!(pool.core.groups[&generation(1)].members().count(), 2);
}

#[test]
fn a_trial_that_began_small_grows_when_workers_come_that_nobody_else_needs() {
    let mut wide = job("t", 1.0, 2, None);
    wide.least_world = 1;
    let mut pool = Pool::new(2, vec![wide]);
    pool.join(1);
    pool.wait(Deadlines::default().shrinking_seconds);
    pool.ready(1, 1);
    pool.begun(1, 1);
    pool.join(2);
    let drained = |pool: &mut Pool| {
        let said = pool.said();
        let drains = said
            .iter()
            .filter(|c| matches!(c, Command::Send(_, Order::Drain { .. })));
        drains.count()
    };
    pool.wait(Deadlines::default().growing_seconds - 1);
    assert_eq!(drained(&mut pool), 0);
    pool.wait(1);
    assert_eq!(drained(&mut pool), 1);
    pool.stopped(1, 1);
    assert_eq!(pool.core.groups[&generation(2)].members().count(), 2);
    assert!(pool.setbacks().is_empty());
}

#[test]
fn trials_that_share_a_pool_are_alone_while_there_are_many_and_together_in_the_end() {
    let sharing = |name| {
        let mut job = job(name, 1.0, 4, None);
        (job.least_world, job.shares) = (1, true);
        job
    };
    let jobs = ["t", "u", "v", "w", "x"].map(sharing);
    let mut core = Core::new(options(4), jobs.to_vec()).expect("jobs that can be scheduled");
    core.begin(Moment::default());
    let mut pool = Pool::new(4, Vec::new());
    pool.core = core;
    for worker in 1..=4 {
        pool.join(worker);
    }
    let worlds = |pool: &Pool| -> Vec<usize> {
        pool.core
            .groups
            .values()
            .map(|group| group.members().count())
            .collect()
    };
    assert_eq!(worlds(&pool), [1, 1, 1, 1]);
    for number in 1..=4 {
        pool.ready(number, number);
        pool.begun(number, number);
    }
    // The last trial begins on the first worker that is free, and has the others when nobody else needs them.
    for number in 1..=4 {
        pool.finished(number, number);
    }
    pool.ready(1, 5);
    pool.begun(1, 5);
    assert_eq!(worlds(&pool), [1]);
    pool.wait(Deadlines::default().growing_seconds);
    pool.stopped(1, 5);
    assert_eq!(worlds(&pool), [4]);
}
