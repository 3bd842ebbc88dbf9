//! The loop: takes events from the world, asks the core, has its commands performed.

use super::{
    core::{Core, Event, Status, Verdict},
    effects::{EffectError, Effects},
};
use polestar_core::TrialId;
use tokio::sync::{mpsc, oneshot};

/// What a [`Handle`](super::Handle) asks of the loop.
#[derive(Debug)]
pub(super) enum Request {
    /// How far everything is.
    Status(oneshot::Sender<Status>),
    /// An early end that loses nothing.
    Drain,
    /// An early end.
    Stop,
    /// Another attempt at a trial that was abandoned.
    Retry(TrialId),
}

/// Runs until the core has a verdict.
///
/// # Errors
/// When the world can give no events any more.
pub(super) async fn drive<E: Effects>(
    core: &mut Core,
    effects: &mut E,
    requests: &mut mpsc::UnboundedReceiver<Request>,
) -> Result<Verdict, EffectError> {
    let mut commands = core.begin(effects.now());
    loop {
        for command in commands {
            effects.perform(command);
        }
        if let Some(verdict) = core.verdict() {
            return Ok(verdict.clone());
        }
        let event = tokio::select! {
            event = effects.next() => event?,
            Some(request) = requests.recv() => match request {
                Request::Status(answer) => {
                    // Whoever asked may have gone.
                    let _ = answer.send(core.status());
                    commands = Vec::new();
                    continue;
                }
                Request::Drain => Event::Drain,
                Request::Stop => Event::Stop,
                Request::Retry(trial) => Event::Retry(trial),
            },
        };
        commands = core.handle(effects.now(), event);
    }
}
