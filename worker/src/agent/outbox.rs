//! What a worker has to say to its coordinator, if there is one just now.

use polestar_run::proto::{FromWorker, from_worker::Body};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// The way to the coordinator. Cheap to clone.
///
/// While there is none, progress is dropped: it is for people, and later progress supersedes it. How a rank ended is
/// kept, and said again to every coordinator that is found, until there is another rank to speak of: a message that
/// was on its way when the stream broke may not have arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    stream: Option<mpsc::UnboundedSender<FromWorker>>,
    last_word: Option<Body>,
}

impl Outbox {
    pub(super) fn say(&self, body: Body) {
        let mut state = self.lock();
        if let Some(stream) = &state.stream {
            // The stream's end is noticed where it is read.
            let body = Some(body.clone());
            let _ = stream.send(FromWorker { body });
        }
        if matches!(body, Body::Finished(_) | Body::Failed(_) | Body::Stopped(_)) {
            state.last_word = Some(body);
        }
    }

    /// A stream that begins with a greeting, and goes on with how the last rank ended, if it has.
    pub(super) fn attach(&self, hello: Body) -> mpsc::UnboundedReceiver<FromWorker> {
        let (stream, outgoing) = mpsc::unbounded_channel();
        let mut state = self.lock();
        for body in [Some(hello), state.last_word.clone()].into_iter().flatten() {
            let body = Some(body);
            let _ = stream.send(FromWorker { body });
        }
        state.stream = Some(stream);
        outgoing
    }

    pub(super) fn detach(&self) {
        self.lock().stream = None;
    }

    /// How the last rank ended is of no interest any more.
    pub(super) fn forget(&self) {
        self.lock().last_word = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polestar_run::proto;

    #[test]
    fn how_a_rank_ended_is_said_to_whoever_leads_next() {
        let outbox = Outbox::default();
        let stopped = || Body::Stopped(proto::Stopped::default());
        let progress = || Body::Progress(proto::Progress::default());
        let hello = || Body::Hello(proto::Hello::default());
        let said = |mut stream: mpsc::UnboundedReceiver<FromWorker>| {
            let messages = std::iter::from_fn(|| stream.try_recv().ok());
            messages.filter_map(|m| m.body).collect::<Vec<_>>()
        };
        let first = outbox.attach(hello());
        outbox.say(progress());
        outbox.say(stopped());
        assert_eq!(said(first), [hello(), progress(), stopped()]);
        outbox.detach();
        outbox.say(progress());
        assert_eq!(said(outbox.attach(hello())), [hello(), stopped()]);
        outbox.forget();
        assert_eq!(said(outbox.attach(hello())), [hello()]);
    }
}
