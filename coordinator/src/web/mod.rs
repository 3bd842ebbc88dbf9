//! A run in a browser: one page, the API that it is made from, and what happens as it happens.
//!
//! ```text
//!  control loop ── journal ─▶ feed ─▶ board (pure) ◀── GET /api/…   browsers
//!  store ────────── looks ──▶ feed ──────────────────▶ /api/stream  (a bounded ring: whoever is too slow is cut off)
//!  control loop ◀─ Handle ──────────────────────────── POST /api/…
//! ```
//! The loop never waits for any of it: the feed is a listener like others, and browsers read from a ring that forgets.

pub mod api;
mod board;
mod curves;
mod feed;
mod guard;
mod laws;
mod openapi;
mod routes;
pub mod stored;
mod stream;

pub use openapi::openapi;
pub use stored::LookError;

use crate::{control::Handle, run::Run};
use curves::StoredCurve;
use feed::{Journal, Shared};
use laws::Laws;
use polestar_core::{Step, TrialId};
use polestar_run::pool::Token;
use polestar_serve::http::{Certificate, Credential, ListenOptions, Listener, ServeError};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::Semaphore, task::JoinHandle};

/// Connections at a time.
const CONNECTIONS: usize = 256;
/// Browsers that watch at a time.
const STREAMS: usize = 64;
/// How long what was asked may take once the page closes.
const DRAIN: Duration = Duration::from_secs(1);

/// How a page is set up.
#[derive(Clone)]
pub struct Options {
    /// Where it listens. Outside loopback it takes a certificate and a token.
    pub address: SocketAddr,
    /// What browsers have to show.
    pub token: Option<Token>,
    /// What TLS is spoken with.
    pub certificate: Option<Certificate>,
    /// The options that give those two, for whoever forgot them.
    pub remedy: &'static str,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't listen.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The run can't be read.
    #[error(transparent)]
    Look(#[from] LookError),
}

/// A page that listens and answers nobody yet.
pub struct Page {
    listener: Listener,
    token: Option<Credential>,
    csrf: String,
}

/// What answers requests.
struct App {
    run: Run,
    shared: Shared,
    /// `None` where this process doesn't lead the run.
    handle: Option<Handle>,
    token: Option<Credential>,
    csrf: String,
    /// Whether only this machine can reach it.
    is_local: bool,
    laws: tokio::sync::Mutex<Laws>,
    /// Curves as they were read when a trial had saved so many steps.
    curves: Mutex<BTreeMap<TrialId, (Step, Arc<StoredCurve>)>>,
    streams: Arc<Semaphore>,
}

impl App {
    /// Whether a request for this host is one for this page.
    fn is_called(&self, host: &str) -> bool {
        // Elsewhere names are many, and the token is what counts.
        !self.is_local || guard::is_local(host)
    }
}

/// A page that is served until it is dropped.
#[derive(Debug)]
pub struct Serving {
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Page {
    /// Listens.
    ///
    /// # Errors
    /// [`Error::Serve`]: an address that others can reach without TLS and a token among them.
    pub async fn open(options: &Options) -> Result<Page, Error> {
        let listener = Listener::open(ListenOptions {
            address: options.address,
            certificate: options.certificate.as_ref(),
            has_token: options.token.is_some(),
            remedy: options.remedy,
            connections: CONNECTIONS,
        });
        let token = options.token.as_ref();
        Ok(Page {
            listener: listener.await?,
            token: token.map(|token| Credential::new(&token.to_hex())),
            csrf: blake3::Hash::from(rand::random::<[u8; 32]>())
                .to_hex()
                .to_string(),
        })
    }

    /// Where to look.
    pub fn url(&self) -> String {
        format!("{}/", self.listener.url())
    }

    /// Shows a run that this process leads, from its beginning on.
    ///
    /// # Errors
    /// [`Error::Look`].
    pub async fn serve_live(self, run: &Run, handle: Handle) -> Result<Serving, Error> {
        let entries = handle.subscribe();
        let shared = feed::look(run).await?;
        let journal = Journal {
            run: run.clone(),
            handle: handle.clone(),
            entries,
        };
        let feeding = tokio::spawn(feed::follow(shared.clone(), journal));
        Ok(self.serve(run, shared, Some(handle), feeding))
    }

    /// Shows a run from its store alone: one that is over, or that another process leads.
    ///
    /// # Errors
    /// [`Error::Look`].
    pub async fn serve_stored(self, run: &Run) -> Result<Serving, Error> {
        let shared = feed::look(run).await?;
        let feeding = tokio::spawn(feed::watch(shared.clone(), run.clone()));
        Ok(self.serve(run, shared, None, feeding))
    }

    fn serve(
        self,
        run: &Run,
        shared: Shared,
        handle: Option<Handle>,
        feeding: JoinHandle<()>,
    ) -> Serving {
        let Page {
            listener,
            token,
            csrf,
        } = self;
        let app = Arc::new(App {
            run: run.clone(),
            shared,
            handle,
            token,
            csrf,
            is_local: listener.address().ip().is_loopback(),
            laws: tokio::sync::Mutex::default(),
            curves: Mutex::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
        });
        let routes = routes::routes(&app);
        let serving = tokio::spawn(async move {
            listener.serve(routes, DRAIN, std::future::pending()).await;
        });
        Serving {
            tasks: vec![feeding, serving],
        }
    }
}
