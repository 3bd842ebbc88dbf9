//! Which path is whose, and what happens to every request on its way.

use super::{
    app::App,
    asked::{Asked, discard, has},
    lmdeploy, ours,
    refusal::Refusal,
    sglang, tei, trainers, vllm,
};
use axum::{
    Json, Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode, Uri, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, get, on, post},
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

type Answer = Result<Json<Value>, Refusal>;

/// All paths.
pub(super) fn routes(app: &Arc<App>) -> Router {
    let sglang = Router::new()
        .route("/classify", either(sglang::classify))
        .route("/v1/embeddings", post(sglang::embeddings))
        .route("/v1/classify", post(sglang::softmaxed))
        .route("/v1/score", post(sglang::score));
    let vllm = Router::new()
        .route("/classify", post(vllm::classify))
        .route("/pooling", post(vllm::pooling))
        .route("/score", post(vllm::score))
        .route("/v1/score", post(vllm::score))
        .route("/rerank", post(vllm::rerank))
        .route("/v1/rerank", post(vllm::rerank))
        .route("/v2/rerank", post(vllm::rerank));
    let tei = Router::new()
        .route("/predict", post(tei::predict))
        .route("/rerank", post(tei::rerank));
    let lmdeploy = Router::new().route("/pooling", post(lmdeploy::pooling));
    let all = Router::new()
        .nest("/sglang", sglang)
        .nest("/vllm", vllm)
        .nest("/lmdeploy", lmdeploy)
        .nest("/tei", tei)
        .route("/score", post(score))
        .route("/reward", post(trainers::slime))
        .route("/get_reward", post(trainers::openrlhf))
        .route("/classify", either(classify))
        .route("/v1/embeddings", post(sglang::embeddings))
        .route("/v1/classify", post(sglang::softmaxed))
        .route("/v1/score", post(v1_score))
        .route("/pooling", post(vllm::pooling))
        .route("/predict", post(tei::predict))
        .route("/rerank", post(rerank))
        .route("/v1/rerank", post(vllm::rerank))
        .route("/v2/rerank", post(vllm::rerank))
        .route("/v1/models", get(models))
        .layer(from_fn_with_state(Arc::clone(app), admit));
    let open = Router::new()
        .route("/metrics", get(metrics))
        .layer(from_fn_with_state(Arc::clone(app), known))
        .route("/health", get(health));
    all.merge(open)
        .fallback(nowhere)
        .method_not_allowed_fallback(otherwise)
        .with_state(Arc::clone(app))
}

/// SGLang takes both.
fn either<H, T>(handler: H) -> MethodRouter<Arc<App>>
where
    H: axum::handler::Handler<T, Arc<App>>,
    T: 'static,
{
    on(MethodFilter::POST.or(MethodFilter::PUT), handler)
}

/// Ours, or vLLM's by its names of a pair.
async fn score(State(app): State<Arc<App>>, Asked(json): Asked) -> Answer {
    match ["text_1", "queries"].iter().any(|field| has(&json, field)) {
        true => vllm::answer_score(&app, json).await,
        false => ours::answer(&app, json).await,
    }
}

/// SGLang's, or vLLM's by its names of a pair.
async fn v1_score(State(app): State<Arc<App>>, Asked(json): Asked) -> Answer {
    match ["text_1", "queries"].iter().any(|field| has(&json, field)) {
        true => vllm::answer_score(&app, json).await,
        false => sglang::answer_score(&app, json).await,
    }
}

/// SGLang's, or vLLM's where the texts are called `input`.
async fn classify(State(app): State<Arc<App>>, Asked(json): Asked) -> Answer {
    match has(&json, "input") {
        true => vllm::answer_classify(&app, json).await,
        false => sglang::answer_classify(&app, json).await,
    }
}

/// text-embeddings-inference's, or vLLM's where the texts are called `documents`.
async fn rerank(State(app): State<Arc<App>>, Asked(json): Asked) -> Answer {
    match has(&json, "documents") {
        true => vllm::answer_rerank(&app, json).await,
        false => tei::answer_rerank(&app, json).await,
    }
}

async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let model = json!({ "id": app.model, "object": "model", "owned_by": "polestar" });
    Json(json!({ "object": "list", "data": [model] }))
}

async fn health(State(app): State<Arc<App>>) -> Response {
    let waiting = app.queue.waiting();
    match (app.draining.load(Ordering::SeqCst), app.queue.lives()) {
        (false, true) => Json(json!({ "status": "ok", "queue_tokens": waiting })).into_response(),
        (true, _) => {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server drains").into_response()
        }
        (_, false) => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the model's thread has ended",
        )
        .into_response(),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    app.metrics.waiting(app.queue.waiting());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.text())
}

async fn nowhere(uri: Uri, body: Body) -> Refusal {
    discard(body).await;
    let sentence = format!(
        "{} is no path here; there are /score, /reward, /get_reward, and /classify, /pooling, /v1/embeddings, \
         /v1/score, /predict, /rerank, with /sglang, /vllm, /lmdeploy or /tei before them where shapes differ",
        uri.path()
    );
    Refusal::new(StatusCode::NOT_FOUND, sentence)
}

async fn otherwise(method: Method, uri: Uri) -> Refusal {
    let sentence = format!("{method} {}: this path takes another method", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, sentence)
}

/// Lets in who shows the token.
async fn known(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let token = app.token.as_ref();
    match token.is_none_or(|token| token.is_bearer_of(request.headers())) {
        true => next.run(request).await,
        false => {
            let sentence =
                "Authorization: Bearer TOKEN is needed, with what is in the server's token file";
            discard(request.into_body()).await;
            Refusal::new(StatusCode::UNAUTHORIZED, sentence).into_response()
        }
    }
}

/// Counts requests, and bounds their number and their time.
async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(|| "?".to_owned(), |path| path.as_str().to_owned());
    let handled = async {
        let Ok(_place) = Arc::clone(&app.requests).try_acquire_owned() else {
            discard(request.into_body()).await;
            let most = app.limits.requests;
            let sentence =
                format!("{most} requests are being answered already; try again in a moment");
            return Refusal::new(StatusCode::TOO_MANY_REQUESTS, sentence).into_response();
        };
        known(State(Arc::clone(&app)), request, next).await
    };
    let response = match tokio::time::timeout(app.limits.timeout, handled).await {
        Ok(response) => response,
        Err(_) => {
            let seconds = app.limits.timeout.as_secs_f64();
            let sentence = format!("no answer within {seconds} s (--timeout); send less at a time");
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, sentence).into_response()
        }
    };
    app.metrics
        .answered(&route, response.status().as_u16(), begun.elapsed());
    response
}
