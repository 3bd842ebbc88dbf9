//! Which path answers what.

use super::{
    App,
    api::{
        ActionView, CurveView, EventPage, LawsView, Leadership, RunStatus, TrialDetail, TrialPhase,
    },
    curves::{LARGE, SMALL, StoredCurve},
    feed, guard,
    guard::Refusal,
    openapi, stored,
    stream::stream,
};
use crate::diagnose::Diagnosis;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, Uri, header},
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use polestar_core::{Step, TrialId, chain};
use polestar_run::Trial;
use serde_json::Value;
use std::sync::{Arc, PoisonError};

const HTML: &str = include_str!("page/index.html");
/// Files of the page: path, kind, content.
const FILES: [(&str, &str, &str); 9] = [
    ("/base.css", CSS, polestar_laws::report::BASE_STYLE),
    ("/style.css", CSS, include_str!("page/style.css")),
    ("/app.js", JS, include_str!("page/app.js")),
    ("/api.js", JS, include_str!("page/api.js")),
    ("/dom.js", JS, include_str!("page/dom.js")),
    ("/chart.js", JS, include_str!("page/chart.js")),
    ("/panels.js", JS, include_str!("page/panels.js")),
    ("/trial.js", JS, include_str!("page/trial.js")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];
const JS: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

type Answer<T> = Result<Json<T>, Refusal>;

/// All paths. Another router of the coordinator, as one of metrics, is merged into `data`, behind the same guards.
pub(super) fn routes(app: &Arc<App>) -> Router {
    let acts = Router::new()
        .route("/api/drain", post(drain))
        .route("/api/stop", post(stop))
        .route("/api/trials/{trial}/retry", post(retry))
        .layer(from_fn_with_state(Arc::clone(app), guard::own));
    let data = Router::new()
        .route("/api/status", get(status))
        .route("/api/events", get(events))
        .route("/api/incidents", get(incidents))
        .route("/api/curves", get(curves))
        .route("/api/trials/{trial}", get(trial))
        .route("/api/laws", get(laws))
        .route("/api/figures/{name}", get(figure))
        .route("/api/stream", get(stream))
        .merge(acts)
        .layer(from_fn_with_state(Arc::clone(app), guard::known));
    let mut open = Router::new()
        .route("/", get(page))
        .route("/api/openapi.json", get(document));
    for (path, kind, content) in FILES {
        let answer = move || async move { ([(header::CONTENT_TYPE, kind)], content) };
        open = open.route(path, get(answer));
    }
    open.merge(data)
        .fallback(nowhere)
        .layer(from_fn_with_state(Arc::clone(app), guard::admit))
        .layer(from_fn(guard::seal))
        .with_state(Arc::clone(app))
}

async fn page(State(app): State<Arc<App>>) -> impl IntoResponse {
    let html = HTML.replace("{{csrf}}", &app.csrf);
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html)
}

async fn document() -> Json<Value> {
    Json(openapi())
}

async fn nowhere(uri: Uri) -> Refusal {
    let path = uri.path();
    let sentence = format!("{path} is no path here; /api/openapi.json lists them");
    Refusal::new(StatusCode::NOT_FOUND, sentence)
}

async fn status(State(app): State<Arc<App>>) -> Json<RunStatus> {
    app.refresh().await;
    Json(app.shared.board().status().clone())
}

async fn events(State(app): State<Arc<App>>) -> Json<EventPage> {
    app.refresh().await;
    Json(app.shared.board().events())
}

async fn incidents(State(app): State<Arc<App>>) -> Json<Diagnosis> {
    app.refresh().await;
    Json(app.shared.board().diagnosis())
}

async fn curves(State(app): State<Arc<App>>) -> Answer<Vec<CurveView>> {
    let mut views = Vec::new();
    for planned in &app.run.record.plan.trials {
        let view = app.curve(&planned.config, SMALL).await?;
        if !view.points.is_empty() {
            views.push(view);
        }
    }
    Ok(Json(views))
}

async fn trial(State(app): State<Arc<App>>, Path(name): Path<String>) -> Answer<TrialDetail> {
    app.refresh().await;
    let status = app.shared.board().trial(&name).cloned();
    let (Some(status), Some(config)) = (status, app.planned(&name)) else {
        return Err(unknown(&name));
    };
    let curve = app.curve(config, LARGE).await?;
    let checkpoints = stored::checkpoints(&app.run, config).await;
    Ok(Json(TrialDetail {
        status,
        curve,
        checkpoints: checkpoints.map_err(|error| failed(&error))?,
    }))
}

async fn laws(State(app): State<Arc<App>>) -> Answer<LawsView> {
    let mut laws = app.laws.lock().await;
    let fitted = laws.refresh(&app.run, app.over()).await;
    fitted.map_err(|error| failed(&error))?;
    Ok(Json(laws.view.clone()))
}

async fn figure(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let laws = app.laws.lock().await;
    let Some(svg) = laws.figures.get(name.as_str()) else {
        let sentence = format!("there is no figure {name}; /api/laws lists them");
        return Err(Refusal::new(StatusCode::NOT_FOUND, sentence));
    };
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], svg.clone()).into_response())
}

type Action = Result<(StatusCode, Json<ActionView>), Refusal>;

async fn drain(State(app): State<Arc<App>>) -> Action {
    app.led()?.drain();
    Ok(accepted(
        "what trains saves a checkpoint and stops; the same launch goes on from there",
    ))
}

async fn stop(State(app): State<Arc<App>>) -> Action {
    app.led()?.stop();
    Ok(accepted(
        "it stops now; the same launch goes on from the newest checkpoints",
    ))
}

async fn retry(State(app): State<Arc<App>>, Path(name): Path<String>) -> Action {
    let handle = app.led()?;
    let phase = app.shared.board().trial(&name).map(|view| view.phase);
    match phase {
        None => Err(unknown(&name)),
        Some(TrialPhase::Abandoned) => {
            handle.retry(TrialId(name.clone()));
            Ok(accepted(format!("{name} is tried again with a new budget")))
        }
        Some(phase) => {
            let sentence = format!("{name} is {}, not abandoned", phase.word());
            Err(Refusal::new(StatusCode::CONFLICT, sentence))
        }
    }
}

fn accepted(says: impl Into<String>) -> (StatusCode, Json<ActionView>) {
    let says = says.into();
    (StatusCode::ACCEPTED, Json(ActionView { says }))
}

fn unknown(name: &str) -> Refusal {
    let sentence = format!("the run has no trial {name}; /api/status lists them");
    Refusal::new(StatusCode::NOT_FOUND, sentence)
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Refusal {
    Refusal::new(StatusCode::BAD_GATEWAY, chain(error))
}

impl App {
    /// Looks at the store where nobody tells of changes.
    async fn refresh(&self) {
        if self.handle.is_none() {
            feed::refresh(&self.shared, &self.run).await;
        }
    }

    /// The control loop, if it still runs.
    fn led(&self) -> Result<&super::Handle, Refusal> {
        let led = matches!(
            self.shared.board().status().leadership,
            Leadership::Here { .. }
        );
        let handle = self.handle.as_ref().filter(|_| led);
        handle.ok_or_else(|| {
            Refusal::new(
                StatusCode::CONFLICT,
                "this process doesn't lead the run; `coordinator launch` goes on with it, and with --retry-abandoned tries \
                 abandoned trials again",
            )
        })
    }

    fn planned(&self, name: &str) -> Option<&Trial> {
        let mut planned = self.run.record.plan.trials.iter().map(|t| &t.config);
        planned.find(|trial| trial.id.0 == name)
    }

    /// Trials that are over.
    fn over(&self) -> usize {
        let board = self.shared.board();
        let phases = board.status().trials.iter().map(|view| view.phase);
        phases
            .filter(|phase| matches!(phase, TrialPhase::Done | TrialPhase::Abandoned))
            .count()
    }

    /// A trial's curve: what the store has, read once for each checkpoint, and what came since.
    async fn curve(&self, trial: &Trial, most: usize) -> Result<CurveView, Refusal> {
        let saved = {
            let board = self.shared.board();
            board.trial(&trial.id.0).map_or(Step(0), |view| view.saved)
        };
        let read = {
            let curves = self.curves.lock().unwrap_or_else(PoisonError::into_inner);
            curves.get(&trial.id).cloned()
        };
        let stored = match read {
            Some((step, curve)) if step == saved => curve,
            _ if saved == Step(0) => Arc::<StoredCurve>::default(),
            _ => {
                let curve = stored::curve(&self.run, trial).await;
                let curve = Arc::new(curve.map_err(|error| failed(&error))?);
                let entry = (saved, Arc::clone(&curve));
                let mut curves = self.curves.lock().unwrap_or_else(PoisonError::into_inner);
                curves.insert(trial.id.clone(), entry);
                curve
            }
        };
        let board = self.shared.board();
        Ok(stored.view(&trial.id, board.live_curve(&trial.id), most))
    }
}
