//! The agent: joins a pool, prepares, trains, stops, and stays warm between generations.

mod address;
mod arguments;
mod connect;
pub mod exit;
mod inventory;
mod outbox;
mod prepare;
mod rank;
mod rejoin;

pub use address::{AddressChoice, AddressError, Place, places};
pub use arguments::JoinArgs;

use crate::{collective, engine::Kept};
use outbox::Outbox;
use polestar_core::{Epoch, Generation, Rank, Step};
use polestar_run::{
    pool::{CertificateFiles, CertificatesError, Tls, Token},
    proto::{self, Start, ToWorker, from_worker::Body, to_worker},
    protocol::{self, Membership, ProtocolError},
};
use prepare::{Meeting, PrepareError};
use rank::{Cancel, ThisRank, failed, panicked, train};
use rejoin::KnownRun;
use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch};
use tracing::{Instrument, field::Empty};

/// The environment variable in which a launcher tells a process its name.
pub const LAUNCH_VARIABLE: &str = "POLESTAR_LAUNCH";

/// How a worker joins.
#[derive(Clone, Debug)]
pub struct Options {
    /// The coordinator, as `https://host:port`; `http` only for one on this machine.
    pub coordinator: String,
    /// The pool's token.
    pub token: Token,
    /// A site's certificates, if the pool's TLS is by them.
    pub certificates: Option<CertificateFiles>,
    /// Address on which peers of a trial reach this worker; by default, the one that reaches the coordinator.
    pub data_address: Option<AddressChoice>,
    /// The launcher's name for this process, if a launcher started it.
    pub launch: Option<String>,
    /// Becomes true when the process will be gone soon: the coordinator is told, and lets it save and go.
    pub leave: watch::Receiver<bool>,
    /// Told of every welcome.
    pub welcomed: Welcomed,
}

/// What becomes of what a coordinator says of its run.
#[derive(Clone)]
pub struct Welcomed(pub Arc<dyn Fn(&RunFacts) + Send + Sync>);

impl Default for Welcomed {
    /// Nobody wants to know.
    fn default() -> Welcomed {
        Welcomed(Arc::new(|_| {}))
    }
}

impl std::fmt::Debug for Welcomed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Welcomed(…)")
    }
}

/// What a worker learns of the run that it has joined.
#[derive(Clone, Debug, PartialEq)]
pub struct RunFacts {
    /// URL of the run's folder.
    pub run: String,
    /// The number by which the coordinator knows this worker.
    pub worker: u64,
    /// Where traces and logs go, if the run says so.
    pub collector: Option<proto::Collector>,
}

/// Why a worker left.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is not one.
    #[error("--coordinator {url} can't be one; it looks like https://host:port")]
    Url {
        /// What was given.
        url: String,
    },
    /// The way there could be listened to.
    #[error(
        "--coordinator {url} is on another host, where what is said must not be readable on its way; give https://"
    )]
    Plain {
        /// What was given.
        url: String,
    },
    /// Nobody listens there.
    #[error(
        "the coordinator at {url} can't be reached; is it running, and reachable from this host?"
    )]
    Connect {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Whoever listens there is not of this pool.
    #[error(
        "who listens at {url} could not agree with this worker that both are of one pool; is it this launch's coordinator, and the token the same as there?"
    )]
    Handshake {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It doesn't speak the protocol.
    #[error("who listens at {url} doesn't speak HTTP/2; is it a coordinator?")]
    Channel {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The certificates can't be used.
    #[error(transparent)]
    Certificates(#[from] CertificatesError),
    /// The other ranks couldn't reach this worker.
    #[error("--data-address can't be used")]
    DataAddress(#[from] AddressError),
    /// It sent what this version does not understand.
    #[error("the coordinator at {url} sent a message that can't be understood")]
    Protocol {
        /// Where.
        url: String,
        /// What.
        #[source]
        source: ProtocolError,
    },
    /// The coordinator doesn't take this worker.
    #[error("the coordinator refused this worker: {message}")]
    Refused {
        /// Why.
        message: String,
    },
    /// The stream broke.
    #[error("the coordinator ended the connection: {message}")]
    Stream {
        /// What it said.
        message: String,
    },
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        use tonic::Code::{FailedPrecondition, InvalidArgument, PermissionDenied, Unauthenticated};
        let message = status.message().to_owned();
        match status.code() {
            FailedPrecondition | InvalidArgument | PermissionDenied | Unauthenticated => {
                Error::Refused { message }
            }
            _ => Error::Stream { message },
        }
    }
}

/// Serves a pool until it is told to shut down. When the coordinator is lost, what is trained goes on, and another
/// one of the same run is looked for until the grace that the pool gives is over.
///
/// # Errors
/// [`Error`] when the coordinator can't be joined, or is gone for good.
pub async fn join(options: Options) -> Result<(), Error> {
    let mut agent = Agent {
        outbox: Outbox::default(),
        url: options.coordinator.clone(),
        options,
        run: None,
        data_address: None,
        tls: None,
        prepared: None,
        running: None,
        kept: Kept::default(),
    };
    let mut incoming = agent.connect(agent.url.clone()).await?;
    loop {
        let lost = match agent.serve(incoming).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        agent.outbox.detach();
        if !matches!(lost, Error::Stream { .. }) {
            agent.end().await;
            return Err(lost);
        }
        incoming = match agent.rejoin(&lost).await {
            Some(incoming) => incoming,
            None => {
                agent.end().await;
                return Err(lost);
            }
        };
    }
}

struct Agent {
    options: Options,
    outbox: Outbox,
    /// Where the coordinator is.
    url: String,
    /// What is known of the run since the first welcome.
    run: Option<KnownRun>,
    /// Where other ranks reach this worker, once it has joined.
    data_address: Option<IpAddr>,
    /// How connections to them are sealed.
    tls: Option<Tls>,
    prepared: Option<(Generation, TcpListener)>,
    running: Option<Running>,
    /// What this process has of the trial of its last generation.
    kept: Kept,
}

/// The rank that this worker is, or was last.
struct Running {
    membership: Membership,
    step: Arc<AtomicU64>,
    cancel: Cancel,
    done: tokio::task::JoinHandle<()>,
}

impl Agent {
    fn say(&self, body: Body) {
        self.outbox.say(body);
    }

    /// Obeys until it is told to shut down.
    async fn serve(&mut self, mut incoming: tonic::Streaming<ToWorker>) -> Result<(), Error> {
        let mut leave = self.options.leave.clone();
        let mut leaving = false;
        loop {
            let message = tokio::select! {
                message = incoming.message() => message?,
                Ok(_) = leave.wait_for(|&leave| leave), if !leaving => {
                    leaving = true;
                    self.say(Body::Leaving(proto::Leaving {}));
                    continue;
                }
            };
            let Some(message) = message else {
                let message = "it closed the stream".to_owned();
                return Err(Error::Stream { message });
            };
            match message.body {
                Some(to_worker::Body::Shutdown(_)) => {
                    self.end().await;
                    return Ok(());
                }
                Some(body) => self.obey(body).await?,
                // A kind of message that this version doesn't know: nothing that it could act on.
                None => {}
            }
        }
    }

    async fn obey(&mut self, body: to_worker::Body) -> Result<(), Error> {
        let url = self.url.clone();
        let understood = |source| Error::Protocol { url, source };
        match body {
            to_worker::Body::Welcome(welcome) => return self.welcome(welcome),
            to_worker::Body::Prepare(p) => {
                let generation = protocol::generation(p.generation).map_err(understood)?;
                self.prepare(generation).await;
            }
            to_worker::Body::Start(start) => {
                let generation = protocol::generation(start.generation).map_err(understood)?;
                self.start(generation, start).await;
            }
            to_worker::Body::Drain(drain) => {
                let generation = protocol::generation(drain.generation).map_err(understood)?;
                self.drain(generation);
            }
            to_worker::Body::Abort(abort) => {
                let generation =
                    protocol::generation(abort.generation).map_err(understood.clone())?;
                if let Some(cause) = abort.cause {
                    let cause = polestar_run::Cause::try_from(cause).map_err(understood)?;
                    tracing::info!(%generation, %cause, "asked to stop");
                }
                self.abort(generation).await;
            }
            // It ends the agent, which is not a message handler's to do.
            to_worker::Body::Shutdown(_) => {}
        }
        Ok(())
    }

    /// Remembers how to find another coordinator of the run, and refuses one that was replaced.
    fn welcome(&mut self, welcome: proto::Welcome) -> Result<(), Error> {
        tracing::info!(worker = welcome.worker, epoch = welcome.epoch, "joined");
        let epoch = Epoch(welcome.epoch);
        if let Some(known) = &self.run
            && epoch < known.epoch
        {
            let message = format!("it leads in {epoch}, and the run is led in {}", known.epoch);
            return Err(Error::Stream { message });
        }
        (self.options.welcomed.0)(&RunFacts {
            run: welcome.run.clone(),
            worker: welcome.worker,
            collector: welcome.collector,
        });
        self.run = Some(KnownRun {
            epoch,
            folder: welcome.run,
            grace: Duration::from_secs(welcome.grace_seconds),
        });
        Ok(())
    }

    /// Has the rank that runs save a checkpoint and stop. One that is at its end anyway finishes.
    fn drain(&self, generation: Generation) {
        match &self.running {
            Some(running) if running.membership.generation == generation => {
                running.cancel.drain.store(true, Ordering::SeqCst);
            }
            _ => self.say(Body::Stopped(proto::Stopped {
                generation: Some(generation.into()),
            })),
        }
    }

    async fn prepare(&mut self, generation: Generation) {
        let address = self
            .data_address
            .expect("only who has joined is asked to prepare");
        let opened = collective::listen(SocketAddr::new(address, 0)).await;
        let opened = opened.and_then(|listener| Ok((listener.local_addr()?, listener)));
        match opened {
            Ok((address, listener)) => {
                self.prepared = Some((generation, listener));
                self.say(Body::Ready(proto::Ready {
                    generation: Some(generation.into()),
                    address: address.to_string(),
                }));
            }
            Err(source) => {
                let error = PrepareError::NoPort { address, source };
                self.say(failed(generation, error.failure()));
            }
        }
    }

    async fn start(&mut self, generation: Generation, start: Start) {
        let listener = match self.prepared.take() {
            Some((prepared, listener)) if prepared == generation => listener,
            _ => return self.say(failed(generation, PrepareError::NotPrepared.failure())),
        };
        self.end().await;
        let trial = match prepare::trial(&start) {
            Ok(trial) => trial,
            Err(error) => return self.say(failed(generation, error.failure())),
        };
        let cancel = Cancel::new();
        let step = Arc::<AtomicU64>::default();
        let membership = Membership {
            generation,
            trial: trial.id.clone(),
            rank: Rank(start.rank),
            world: start.peers.len() as u32,
            step: Step(0),
        };
        let outbox = self.outbox.clone();
        outbox.forget();
        let rank = ThisRank {
            generation,
            cancel: cancel.clone(),
            step: Arc::clone(&step),
            outbox: outbox.clone(),
            kept: self.kept.clone(),
        };
        let meeting = Meeting {
            listener,
            tls: self.tls.clone(),
        };
        let span = tracing::info_span!(
            parent: None,
            "rank",
            trace.parent = start.traceparent,
            polestar.trial = %trial.id,
            polestar.epoch = generation.epoch.0 as i64,
            polestar.generation = generation.number as i64,
            polestar.rank = i64::from(start.rank),
            polestar.world = start.peers.len() as i64,
            otel.status_code = Empty,
            otel.status_description = Empty,
        );
        let work = train(rank, trial, start, meeting).instrument(span);
        let done = tokio::spawn(async move {
            // Whatever happens, the coordinator is told: it waits for this rank.
            let body = tokio::spawn(work).await.unwrap_or_else(|panic| {
                failed(generation, panicked("the worker's own code", &panic))
            });
            outbox.say(body);
        });
        self.running = Some(Running {
            membership,
            step,
            cancel,
            done,
        });
    }

    async fn abort(&mut self, generation: Generation) {
        if matches!(&self.prepared, Some((prepared, _)) if *prepared == generation) {
            self.prepared = None;
        }
        if matches!(&self.running, Some(r) if r.membership.generation == generation) {
            self.end().await;
            self.outbox.forget();
        }
        self.say(Body::Stopped(proto::Stopped {
            generation: Some(generation.into()),
        }));
    }

    /// Stops what runs and waits for it.
    async fn end(&mut self) {
        if let Some(running) = self.running.take() {
            running.cancel.cancel();
            // The task itself can't panic; its work's panics are reported by it.
            let _ = running.done.await;
        }
    }
}
