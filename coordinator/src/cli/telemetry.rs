//! What a process tells of itself, and whom: from sweep files, messages and the environment to exporters.

use super::Error;
use crate::{
    control::Handle,
    observe::{FAMILIES, Watch, router, serve},
    run::Run,
    sweep::TelemetryTable,
};
use polestar_core::chain;
use polestar_run::{lease::host_name, pool::Token, proto::Collector};
use polestar_telemetry::{Board, Endpoint, Exporting, Settings, Telemetry};
use polestar_worker::agent::{RunFacts, Welcomed};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;

/// Exports what a launch does, if somebody wants it.
pub(super) fn of_launch(
    telemetry: &Telemetry,
    table: &TelemetryTable,
    run: &Run,
) -> Result<(Option<Exporting>, Board), Error> {
    let board = Board::default();
    let Some(endpoint) = Endpoint::choose(table.collector())? else {
        return Ok((None, board));
    };
    let settings = Settings {
        endpoint,
        operations: table.operations,
        resource: resource("coordinator", run.folder.url(), None),
        metrics: Some((FAMILIES, board.clone())),
    };
    Ok((Some(telemetry.export(settings)?), board))
}

/// What workers are told of the collector.
pub(super) fn collector(table: &TelemetryTable) -> Option<Collector> {
    let (url, protocol) = table.collector()?;
    Some(Collector {
        url: url.to_owned(),
        protocol: protocol.map(|p| p.to_string()).unwrap_or_default(),
        operations: table.operations,
    })
}

/// Watches a launch for its exporters and for Prometheus.
pub(super) struct Watching {
    following: JoinHandle<()>,
    serving: Option<JoinHandle<()>>,
}

impl Watching {
    /// Begins, and listens where the sweep file says.
    pub(super) async fn begin(
        table: &TelemetryTable,
        handle: &Handle,
        board: Board,
    ) -> Result<Watching, Error> {
        let token = table.token_file.as_deref();
        let token = token.map(|file| Token::given(Some(file))).transpose()?;
        let (watch, following) = Watch::begin(handle, board);
        let serving = match table.prometheus {
            None => None,
            Some(address) => {
                let (bound, serving) = serve(address, router(watch, token.as_ref())).await?;
                println!("metrics http://{bound}/metrics");
                Some(serving)
            }
        };
        Ok(Watching { following, serving })
    }

    /// The service has ended: what it said last is on the board when this returns.
    pub(super) async fn end(self) {
        if let Some(serving) = self.serving {
            serving.abort();
        }
        // It ends with the journal, which the service closed.
        let _ = self.following.await;
    }
}

/// Exports what a worker does, once its coordinator has said where to.
#[derive(Clone)]
pub(super) struct OfWorker {
    telemetry: Telemetry,
    exporting: Arc<Mutex<Option<Exporting>>>,
}

impl OfWorker {
    pub(super) fn new(telemetry: Telemetry) -> OfWorker {
        OfWorker {
            telemetry,
            exporting: Arc::default(),
        }
    }

    /// What the agent tells of each welcome.
    pub(super) fn welcomed(&self) -> Welcomed {
        let this = self.clone();
        Welcomed(Arc::new(move |facts| this.begin(facts)))
    }

    fn begin(&self, facts: &RunFacts) {
        let mut exporting = self.lock();
        if exporting.is_some() {
            return;
        }
        // Training doesn't depend on it.
        match self.export(facts) {
            Ok(begun) => *exporting = begun,
            Err(error) => tracing::warn!("{}", chain(&*error)),
        }
    }

    fn export(&self, facts: &RunFacts) -> Result<Option<Exporting>, Error> {
        let collector = facts.collector.as_ref();
        let protocol = collector.map(|c| c.protocol.parse().ok());
        let configured = collector.map(|c| c.url.as_str()).zip(protocol);
        let Some(endpoint) = Endpoint::choose(configured)? else {
            return Ok(None);
        };
        let settings = Settings {
            endpoint,
            operations: collector.is_some_and(|c| c.operations),
            resource: resource("worker", &facts.run, Some(facts.worker)),
            metrics: None,
        };
        Ok(Some(self.telemetry.export(settings)?))
    }

    /// Sends what is left, within its time.
    pub(super) fn finish(&self) {
        if let Some(mut exporting) = self.lock().take() {
            exporting.finish();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Exporting>> {
        self.exporting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a process is, in the names that OpenTelemetry has for it.
fn resource(role: &str, run: &str, worker: Option<u64>) -> Vec<(&'static str, String)> {
    let (host, pid) = (host_name(), std::process::id());
    let job = std::env::var("SLURM_JOB_ID")
        .ok()
        .filter(|job| !job.is_empty());
    let run = run.rsplit('/').next().unwrap_or(run);
    let known = [
        (
            "service.version",
            Some(env!("CARGO_PKG_VERSION").to_owned()),
        ),
        ("service.instance.id", Some(format!("{host}-{pid}"))),
        ("host.name", Some(host)),
        ("process.pid", Some(pid.to_string())),
        ("polestar.role", Some(role.to_owned())),
        ("polestar.run", Some(run.to_owned())),
        ("polestar.worker", worker.map(|worker| worker.to_string())),
        ("polestar.job", job),
    ];
    let known = known.into_iter();
    known
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
}
