//! What keeps the picture of a run true, and tells browsers: the control loop's journal where this process leads the
//! run, the store where another one does or nobody.

use super::{
    api::EventView,
    board::Board,
    stored::{self, Ends, LookError},
};
use crate::{
    calendar,
    control::{Entry, Handle, Subscription},
    run::{Recorded, Run},
};
use axum::body::Bytes;
use polestar_core::{Epoch, chain};
use serde::Serialize;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::broadcast, time::MissedTickBehavior};
use tokio_stream::StreamExt;

/// Frames that a browser may be behind before it is cut off.
const MOST_BEHIND: usize = 512;
/// Between two tellings of steps.
const STEPS: Duration = Duration::from_millis(250);
/// Tellings of steps to one of the status.
const STATUS_EVERY: u32 = 8;
/// Between two looks at a store that others write.
const LOOK: Duration = Duration::from_secs(3);
/// How long the store may take to say what a trial came to.
const RESULT: Duration = Duration::from_secs(10);

/// A frame of the stream, encoded once for all browsers.
pub(super) type Frame = Bytes;

/// The picture, and the way to those who watch it.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    board: Arc<Mutex<Board>>,
    frames: broadcast::Sender<Frame>,
    /// When the store was last looked at.
    looked: Arc<tokio::sync::Mutex<Instant>>,
}

impl Shared {
    fn new(board: Board) -> Shared {
        Shared {
            board: Arc::new(Mutex::new(board)),
            frames: broadcast::Sender::new(MOST_BEHIND),
            looked: Arc::new(tokio::sync::Mutex::new(Instant::now())),
        }
    }

    /// The picture. Never kept over an await.
    pub(super) fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything from now on.
    pub(super) fn watch(&self) -> broadcast::Receiver<Frame> {
        self.frames.subscribe()
    }

    fn is_watched(&self) -> bool {
        self.frames.receiver_count() > 0
    }

    fn tell(&self, event: &str, data: &impl Serialize) {
        if self.is_watched() {
            // Nobody may be left by now.
            let _ = self.frames.send(frame(event, data));
        }
    }

    fn tell_status(&self) {
        let status = self.board().status().clone();
        self.tell("status", &status);
    }

    fn learn(&self, recorded: Recorded) {
        let view = match recorded.entry.entry.is_superseded() {
            true => None,
            false => Some(EventView::from(recorded.clone())),
        };
        self.board().learn(recorded);
        if let Some(view) = view {
            self.tell("entry", &view);
        }
    }
}

/// An event of the stream. JSON has no line breaks of its own.
pub(super) fn frame(event: &str, data: &impl Serialize) -> Frame {
    let json = serde_json::to_string(data).expect("views are numbers, texts, lists and tables");
    format!("event: {event}\ndata: {json}\n\n").into()
}

/// The picture of a run as the store has it now.
pub(super) async fn look(run: &Run) -> Result<Shared, LookError> {
    let status = stored::status(run, &Ends::of(run).await?).await?;
    Ok(Shared::new(Board::new(status, run.event_history().await?)))
}

/// What the control loop of this process tells.
pub(super) struct Journal {
    pub(super) run: Run,
    pub(super) handle: Handle,
    pub(super) entries: Subscription,
}

/// Follows the control loop until it ends.
pub(super) async fn follow(shared: Shared, journal: Journal) {
    let Journal {
        run,
        handle,
        mut entries,
    } = journal;
    let mut ticks = tokio::time::interval(STEPS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut epoch, mut count) = (Epoch::default(), 0_u32);
    loop {
        tokio::select! {
            entry = entries.next() => {
                let Some(entry) = entry else { break };
                if let Entry::Began { epoch: begun, .. } = &entry.entry {
                    epoch = *begun;
                    shared.board().lead(epoch);
                }
                let done = match &entry.entry {
                    Entry::Done { trial, .. } => Some(trial.clone()),
                    _ => None,
                };
                let matters = !matches!(entry.entry, Entry::Progress { .. });
                shared.learn(Recorded { epoch, time: calendar::now(), entry });
                if let Some(trial) = done {
                    let mut planned = run.record.plan.trials.iter().map(|planned| &planned.config);
                    let trial = planned.find(|planned| planned.id == trial);
                    let trial = trial.expect("only planned trials are trained");
                    // It is for people, who see it in the report, too.
                    if let Ok(Ok(Some(result))) = tokio::time::timeout(RESULT, run.result(trial)).await {
                        shared.board().finish(&result);
                    }
                }
                // What people wait for is told at once.
                if matters {
                    count = 0;
                }
            }
            _ = ticks.tick() => {
                let steps = shared.board().take_steps();
                if !steps.is_empty() {
                    shared.tell("steps", &steps);
                }
                if count.is_multiple_of(STATUS_EVERY) && let Some(status) = handle.status().await {
                    shared.board().overlay(&status);
                    shared.tell_status();
                }
                count += 1;
            }
        }
    }
    shared.board().end();
    shared.tell_status();
    shared.tell("end", &());
}

/// Looks at the store again and again while somebody watches.
pub(super) async fn watch(shared: Shared, run: Run) {
    loop {
        tokio::time::sleep(LOOK).await;
        if shared.is_watched() {
            refresh(&shared, &run).await;
            shared.tell_status();
        }
    }
}

/// Brings the picture up to date with the store, unless that was just done. Of a run that is over nothing is new.
pub(super) async fn refresh(shared: &Shared, run: &Run) {
    let mut looked = shared.looked.lock().await;
    if looked.elapsed() < LOOK || shared.board().is_over() {
        return;
    }
    if let Err(error) = look_again(shared, run).await {
        let trouble = format!("the store can't be read: {}", chain(&error));
        shared.board().trouble(trouble);
    }
    *looked = Instant::now();
}

async fn look_again(shared: &Shared, run: &Run) -> Result<(), LookError> {
    let status = stored::status(run, &Ends::of(run).await?).await?;
    let history = run.event_history().await?;
    let known = shared.board().known();
    for recorded in history.entries.into_iter().skip(known) {
        shared.learn(recorded);
    }
    shared.board().set_status(status);
    Ok(())
}
