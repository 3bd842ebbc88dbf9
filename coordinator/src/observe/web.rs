//! Metrics of a running service, and who reads them.

use super::{FAMILIES, Observed, samples};
use crate::control::{Handle, Subscription, core::Status};
use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use polestar_run::pool::Token;
use polestar_serve::http::Credential;
use polestar_store::traffic;
use polestar_telemetry::{Board, Sample, text};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{task::JoinHandle, time::MissedTickBehavior};
use tokio_stream::StreamExt;

/// How often the board is written anew.
const PACE: Duration = Duration::from_secs(1);

/// What a service says of itself, for whoever asks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Watch {
    handle: Handle,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    observed: Observed,
    /// How far everything was when that could last be asked.
    status: Option<Status>,
}

impl Watch {
    /// Watches a service, and keeps a board for OTLP up to date; the task ends with the service. Whoever watches from
    /// before the service runs misses nothing.
    pub fn begin(handle: &Handle, board: Board) -> (Watch, JoinHandle<()>) {
        let watch = Watch {
            handle: handle.clone(),
            known: Arc::default(),
        };
        let (journal, following) = (handle.subscribe(), watch.clone());
        (watch, tokio::spawn(following.follow(journal, board)))
    }

    async fn follow(self, mut journal: Subscription, board: Board) {
        let mut turns = tokio::time::interval(PACE);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                entry = journal.next() => match entry {
                    Some(entry) => self.known().observed.note(&entry),
                    None => break,
                },
                _ = turns.tick() => {
                    self.look().await;
                    board.set(self.samples());
                }
            }
        }
        board.set(self.samples());
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks how far everything is; of a service that has ended, what was known last stays.
    async fn look(&self) {
        if let Some(status) = self.handle.status().await {
            self.known().status = Some(status);
        }
    }

    /// As of the last look.
    fn samples(&self) -> Vec<Sample> {
        let known = self.known();
        let status = known.status.as_ref();
        status.map_or_else(Vec::new, |status| {
            samples(status, &known.observed, traffic())
        })
    }

    /// As of now, as Prometheus reads it.
    pub async fn text(&self) -> String {
        self.look().await;
        text(FAMILIES, &self.samples())
    }
}

/// The type of Prometheus's text.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers `/metrics`, to those who have the token if there is one.
pub fn router(watch: Watch, token: Option<&Token>) -> Router {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .with_state(watch);
    match token {
        None => router,
        Some(token) => {
            let token = Credential::new(&token.to_hex());
            router.layer(middleware::from_fn(move |request: Request, next: Next| {
                guarded(token, request, next)
            }))
        }
    }
}

async fn metrics(State(watch): State<Watch>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, TEXT)], watch.text().await)
}

async fn guarded(token: Credential, request: Request, next: Next) -> Response {
    if token.is_bearer_of(request.headers()) {
        return next.run(request).await;
    }
    let says = "the token is not the one of telemetry.token_file\n";
    (StatusCode::UNAUTHORIZED, says).into_response()
}

/// Why nobody can ask.
#[derive(Debug, thiserror::Error)]
#[error("telemetry.prometheus: {address} can't be listened on")]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// Serves routes at an address until what comes back is aborted. Returns where, too.
///
/// # Errors
/// When the address is taken or not ours.
pub async fn serve(
    address: SocketAddr,
    router: Router,
) -> Result<(SocketAddr, JoinHandle<()>), ListenError> {
    let failed = |source| ListenError { address, source };
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let serving = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::warn!("/metrics isn't served any more: {error}");
        }
    });
    Ok((bound, serving))
}
