use super::*;
use crate::{
    control::{
        JournalEntry,
        core::{Inventory, Moment, TrialStatus, Warmth},
    },
    sweep::TrialRole,
    web::api::StoreView,
};
use polestar_core::{Digest, Generation};
use polestar_laws::{Coordinates, Length};
use polestar_run::failure::Stage;

fn named(name: &str) -> TrialId {
    TrialId(name.to_owned())
}

fn board() -> Board {
    let trial = TrialView {
        trial: named("t"),
        role: TrialRole::Point,
        at: Coordinates {
            size: "nano".to_owned(),
            length: Length::Steps(10),
            batch: None,
            lr: None,
            policies: None,
            seed: 1,
        },
        after: None,
        parameters: 7,
        flops_6nd: 1.0,
        folder: "trials/0".to_owned(),
        phase: TrialPhase::Missing,
        says: None,
        step: Step(0),
        saved: Step(0),
        steps: 10,
        loss: None,
        steps_per_second: None,
        left_seconds: None,
        members: Vec::new(),
        digest: None,
        scores: BTreeMap::new(),
        cause: None,
    };
    let status = RunStatus {
        run: "r".to_owned(),
        url: "memory://r".to_owned(),
        version: "0".to_owned(),
        corpus: "f".to_owned(),
        leadership: Leadership::Nobody,
        left_seconds: None,
        pool: None,
        store: StoreView::default(),
        trials: vec![trial],
    };
    Board::new(status, EventHistory::default())
}

fn recorded(entry: Entry) -> Recorded {
    Recorded {
        epoch: Epoch(1),
        time: "2026-01-01 00:00:00 UTC".to_owned(),
        entry: JournalEntry {
            at: Moment::default(),
            entry,
        },
    }
}

fn progress(event: Event) -> Recorded {
    recorded(Entry::Progress {
        trial: named("t"),
        generation: Generation::default(),
        event,
    })
}

fn stepped(step: u64) -> Recorded {
    progress(Event::Stepped {
        step: Step(step),
        loss: 1.0 / step as f64,
        accuracy: None,
        triplets_per_second: 5.0,
    })
}

#[test]
fn a_run_is_seen_to_train_to_save_and_to_end() {
    let mut board = board();
    board.lead(Epoch(1));
    board.learn(recorded(Entry::Joined {
        worker: WorkerId(3),
        inventory: Inventory {
            host: "h".to_owned(),
            pid: 7,
            launch: None,
            machine: Default::default(),
        },
    }));
    for step in 1..=20 {
        board.learn(stepped(step));
    }
    let digest = Digest::of(b"d");
    board.learn(progress(Event::Saved {
        step: Step(5),
        digest,
        seconds: 0.0,
        behind: 0.0,
    }));
    let state = TrialState::Running {
        generation: Generation::default(),
        members: vec![WorkerId(3)],
        stage: Stage::Running,
        step: Step(20),
        steps: 30,
        pace: Some(2.0),
    };
    board.overlay(&Status {
        at: Moment::default(),
        workers: 1,
        idle: 0,
        unsaved: 0,
        draining: true,
        warmth: Warmth::default(),
        left: None,
        trials: vec![TrialStatus {
            trial: named("t"),
            state,
            left: None,
        }],
    });
    let status = board.status();
    let view = &status.trials[0];
    assert_eq!(
        (view.phase, view.step, view.saved),
        (TrialPhase::Running, Step(20), Step(5))
    );
    assert_eq!((view.loss, view.digest), (Some(0.05), Some(digest)));
    assert!(
        view.says
            .as_ref()
            .unwrap()
            .starts_with("is at step 20 of 30")
    );
    let pool = status.pool.as_ref().unwrap();
    assert_eq!(pool.workers[0].trial, Some(named("t")));
    let ending = true;
    let epoch = Epoch(1);
    assert_eq!(status.leadership, Leadership::Here { epoch, ending });
    // Steps make curves, not entries; the newest is always told.
    let steps = board.take_steps();
    assert!(steps[0].points.len() <= MOST_POINTS);
    assert_eq!(steps[0].points.last().unwrap().step, Step(20));
    assert!(board.take_steps().is_empty());
    assert_eq!(board.events().entries.len(), 2);

    board.end();
    let view = &board.status().trials[0];
    assert!(view.phase == TrialPhase::Begun && view.members.is_empty());
}

#[test]
fn a_long_history_is_cut_at_its_beginning_and_says_so() {
    let mut board = board();
    for worker in 0..MOST_ENTRIES as u64 + 5 {
        let worker = WorkerId(worker);
        board.learn(recorded(Entry::Leaving { worker }));
    }
    let page = board.events();
    assert_eq!(page.entries.len(), PAGE);
    assert_eq!(page.earlier, MOST_ENTRIES + 5 - PAGE);
    assert_eq!(board.known(), MOST_ENTRIES + 5);
}
