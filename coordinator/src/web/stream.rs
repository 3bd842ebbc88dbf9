//! Server-sent events: what happens, as it happens, for as long as a browser keeps up.

use super::{
    App,
    feed::{Frame, frame},
    guard::Refusal,
};
use axum::{
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, broadcast, broadcast::error::RecvError};
use tokio_stream::{Stream, StreamExt};

/// Between two signs of life.
const ALIVE: Duration = Duration::from_secs(5);

/// `GET /api/stream`.
pub(super) async fn stream(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let Ok(place) = Arc::clone(&app.streams).try_acquire_owned() else {
        return Err(Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many browsers are watching already; close some",
        ));
    };
    // From before the status was taken on, so that nothing falls between.
    let frames = app.shared.watch();
    let first = frame("status", app.shared.board().status());
    let frames = tokio_stream::once(first).chain(following(frames, place));
    let frames = frames.map(Ok::<_, Infallible>);
    Ok((
        [(header::CONTENT_TYPE, "text/event-stream")],
        Body::from_stream(frames),
    )
        .into_response())
}

/// Frames until there are no more, or the browser is too far behind: then it comes back, and begins anew.
fn following(
    frames: broadcast::Receiver<Frame>,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Frame> {
    let state = (frames, place);
    futures::stream::unfold(state, |(mut frames, place)| async move {
        let next = tokio::time::timeout(ALIVE, frames.recv()).await;
        let frame: Frame = match next {
            Ok(Ok(frame)) => frame,
            Ok(Err(RecvError::Closed | RecvError::Lagged(_))) => return None,
            Err(_) => ":\n\n".into(),
        };
        Some((frame, (frames, place)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    #[tokio::test(start_paused = true)]
    async fn one_that_falls_behind_is_cut_off_and_a_silent_stream_shows_that_it_lives() {
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places)
            .try_acquire_owned()
            .expect("one is free");
        let sender = broadcast::Sender::new(4);
        let mut stream = Box::pin(following(sender.subscribe(), place));
        assert_eq!(stream.next().await.as_deref(), Some(&b":\n\n"[..]));
        for _ in 0..9 {
            sender.send("x".into()).expect("somebody listens");
        }
        assert_eq!(stream.next().await, None, "it lost some");
        drop(stream);
        assert_eq!(places.available_permits(), 1);
    }
}
