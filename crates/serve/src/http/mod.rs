//! One HTTP server for every usual client of a reward model.
//!
//! Clients of other servers find what they expect under their server's name, and at the root where shapes don't
//! contradict each other:
//!
//! | path | whose shape |
//! |---|---|
//! | `/score` | ours: prompt, reference, candidates |
//! | `/reward`, `/get_reward` | slime's and miles' `remote_rm`, OpenRLHF's `remote_url` |
//! | `/sglang/…`: `classify`, `v1/embeddings`, `v1/score` | SGLang |
//! | `/vllm/…`: `classify`, `pooling`, `score`, `rerank` | vLLM |
//! | `/lmdeploy/pooling` | LMDeploy |
//! | `/tei/…`: `predict`, `rerank` | text-embeddings-inference |
//!
//! Rewards are raw wherever a client doesn't ask for something else.

mod app;
mod asked;
mod credential;
mod listener;
mod lmdeploy;
mod metrics;
mod ours;
mod queue;
mod refusal;
mod routes;
mod sglang;
mod tei;
mod trainers;
mod unread;
mod vllm;

pub use credential::Credential;
pub use listener::{Certificate, ListenOptions, Listener, ServeError, Server};

use polestar_run::pool::Token;
use std::{net::SocketAddr, time::Duration};

/// How a server is set up.
#[derive(Clone)]
pub struct Options {
    /// Where it listens. Outside loopback it takes a certificate and a token.
    pub address: SocketAddr,
    /// What clients have to show as `Authorization: Bearer …`, as it lies in its file.
    pub token: Option<Token>,
    /// Speaks TLS with it.
    pub certificate: Option<Certificate>,
    /// What the model is called in answers.
    pub model: String,
    /// What it takes on.
    pub limits: Limits,
}

/// What a server takes on at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request; more is answered 413.
    pub body: usize,
    /// Tokens in the queue; more is answered 429, and a single request that has more, 413.
    pub queue_tokens: usize,
    /// Requests at a time; more are answered 429.
    pub requests: usize,
    /// Connections at a time; more wait to be accepted.
    pub connections: usize,
    /// From a request's head to its answer; later is answered 504.
    pub timeout: Duration,
    /// How long requests may still take once the server is told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body: 8 << 20,
            queue_tokens: 1 << 20,
            requests: 256,
            connections: 1024,
            timeout: Duration::from_secs(60),
            drain: Duration::from_secs(30),
        }
    }
}
