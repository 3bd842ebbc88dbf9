//! The agent: joins a pool, prepares, trains, stops, and stays warm between generations.

use crate::{
    collective::{self, Aborter, Join, Locality, Mesh, MeshTransport, Peers, Secret},
    engine::{self, Environment},
};
use polestar_core::{Generation, Rank, chain};
use polestar_run::{Event, Outcome};
use polestar_run::{
    Trial,
    proto::{
        self, FromWorker, Start, ToWorker, from_worker::Body, pool_client::PoolClient, to_worker,
    },
};
use polestar_store::Store;
use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, metadata::MetadataValue, transport::Endpoint};

/// How a worker joins.
#[derive(Clone, Debug)]
pub struct Options {
    /// The coordinator, as `http://host:port`.
    pub coordinator: String,
    /// The run's token.
    pub token: String,
    /// Address on which peers of a trial reach this worker.
    pub data_address: IpAddr,
}

/// Why a worker left.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is not one.
    #[error("--coordinator {url} is not a URL; it looks like http://host:port")]
    Url {
        /// What was given.
        url: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
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
        source: tonic::transport::Error,
    },
    /// The token has characters that no token has.
    #[error("the token is not printable ASCII; copy it again from the coordinator's output")]
    Token,
    /// The coordinator refused or the stream broke.
    #[error("the coordinator ended the connection: {message}")]
    Stream {
        /// What it said.
        message: String,
    },
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Error::Stream {
            message: status.message().to_owned(),
        }
    }
}

/// Serves a pool until it is told to shut down.
///
/// # Errors
/// [`Error`] when the coordinator can't be joined or is gone.
pub async fn join(options: Options) -> Result<(), Error> {
    let endpoint =
        Endpoint::from_shared(options.coordinator.clone()).map_err(|source| Error::Url {
            url: options.coordinator.clone(),
            source,
        })?;
    let channel = endpoint
        .connect_timeout(Duration::from_secs(10))
        .connect()
        .await
        .map_err(|source| Error::Connect {
            url: options.coordinator.clone(),
            source,
        })?;
    let (outbox, outgoing) = mpsc::unbounded_channel();
    let agent = Agent {
        outbox,
        data_address: options.data_address,
        prepared: None,
        running: None,
    };
    agent.say(Body::Hello(proto::Hello {
        host: host_name(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }));
    let mut request = Request::new(UnboundedReceiverStream::new(outgoing));
    let bearer: MetadataValue<_> = format!("Bearer {}", options.token)
        .parse()
        .map_err(|_| Error::Token)?;
    request.metadata_mut().insert("authorization", bearer);
    let incoming = PoolClient::new(channel).join(request).await?.into_inner();
    agent.serve(incoming).await
}

struct Agent {
    outbox: mpsc::UnboundedSender<FromWorker>,
    data_address: IpAddr,
    prepared: Option<(Generation, TcpListener)>,
    running: Option<Running>,
}

struct Running {
    generation: Generation,
    stop: Stop,
    done: tokio::task::JoinHandle<()>,
}

/// Stops a generation wherever it is: while it connects, inside a collective, between two steps.
#[derive(Clone, Debug)]
struct Stop {
    asked: watch::Sender<bool>,
    flag: Arc<AtomicBool>,
}

impl Stop {
    fn new() -> Stop {
        Stop {
            asked: watch::Sender::new(false),
            flag: Arc::default(),
        }
    }

    fn stop(&self) {
        self.flag.store(true, Ordering::SeqCst);
        self.asked.send_replace(true);
    }

    /// Breaks a mesh when the stop comes, or at once if it has come.
    fn break_on_stop(&self, aborter: Aborter) {
        let mut asked = self.asked.subscribe();
        tokio::spawn(async move {
            if asked.wait_for(|&stop| stop).await.is_ok() {
                aborter.abort();
            }
        });
    }
}

impl Agent {
    fn say(&self, body: Body) {
        say(&self.outbox, body);
    }

    async fn serve(mut self, mut incoming: tonic::Streaming<ToWorker>) -> Result<(), Error> {
        loop {
            let message = match incoming.message().await {
                Ok(Some(message)) => message,
                ended => {
                    if let Some(running) = &self.running {
                        running.stop.stop();
                    }
                    return match ended {
                        Err(status) => Err(status.into()),
                        _ => Err(Error::Stream {
                            message: "it closed the stream".to_owned(),
                        }),
                    };
                }
            };
            match message.body {
                Some(to_worker::Body::Welcome(w)) => tracing::info!(worker = w.worker, "joined"),
                Some(to_worker::Body::Prepare(p)) => self.prepare(Generation(p.generation)).await,
                Some(to_worker::Body::Start(start)) => self.start(start).await,
                Some(to_worker::Body::Abort(a)) => self.abort(Generation(a.generation)).await,
                Some(to_worker::Body::Shutdown(_)) => {
                    self.end().await;
                    return Ok(());
                }
                None => {}
            }
        }
    }

    async fn prepare(&mut self, generation: Generation) {
        match collective::listen(SocketAddr::new(self.data_address, 0)).await {
            Ok(listener) => {
                let address = listener.local_addr().map(|a| a.to_string());
                self.prepared = Some((generation, listener));
                self.say(Body::Ready(proto::Ready {
                    generation: generation.0,
                    address: address.unwrap_or_default(),
                }));
            }
            Err(error) => self.say(failed(
                generation,
                "collective",
                format!("no port on {}: {error}", self.data_address),
                false,
                true,
            )),
        }
    }

    async fn start(&mut self, start: Start) {
        let generation = Generation(start.generation);
        let listener = match self.prepared.take() {
            Some((prepared, listener)) if prepared == generation => listener,
            _ => {
                let text = "asked to start a generation that was not prepared".to_owned();
                return self.say(failed(generation, "collective", text, false, true));
            }
        };
        self.end().await;
        let stop = Stop::new();
        let outbox = self.outbox.clone();
        let work = train(start, listener, stop.clone(), outbox.clone());
        let done = tokio::spawn(async move {
            // Whatever happens, the coordinator is told: it waits for this rank.
            let body = tokio::spawn(work).await.unwrap_or_else(|panic| {
                let text = format!("the worker's own code panicked: {panic}");
                failed(generation, "compute", text, false, true)
            });
            say(&outbox, body);
        });
        self.running = Some(Running {
            generation,
            stop,
            done,
        });
    }

    async fn abort(&mut self, generation: Generation) {
        if matches!(&self.prepared, Some((prepared, _)) if *prepared == generation) {
            self.prepared = None;
        }
        if matches!(&self.running, Some(r) if r.generation == generation) {
            self.end().await;
        }
        self.say(Body::Stopped(proto::Stopped {
            generation: generation.0,
        }));
    }

    /// Stops what runs and waits for it.
    async fn end(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.stop();
            // The task itself can't panic; its work's panics are reported by it.
            let _ = running.done.await;
        }
    }
}

/// One rank of one generation, from the mesh to what it has to say in the end.
async fn train(
    start: Start,
    listener: TcpListener,
    stop: Stop,
    outbox: mpsc::UnboundedSender<FromWorker>,
) -> Body {
    let generation = Generation(start.generation);
    let mut asked = stop.asked.subscribe();
    let prepared = tokio::select! {
        prepared = prepare(start, listener, &stop) => prepared,
        _ = asked.wait_for(|&stop| stop) => Err(Refused {
            phase: "abort",
            message: "stopped before it was connected".to_owned(),
            collateral: true,
            retryable: true,
        }),
    };
    let (trial, collective, run) = match prepared {
        Ok(prepared) => prepared,
        Err(refused) => return refused.into_body(generation),
    };
    let env = Environment {
        collective,
        run,
        runtime: tokio::runtime::Handle::current(),
        abort: Arc::clone(&stop.flag),
        events: Box::new(move |event| say(&outbox, progress(generation, &event))),
        slice: None,
    };
    let engine = tokio::task::spawn_blocking(move || engine::run(&trial, env));
    match engine.await {
        Ok(Ok(outcome)) => finished(generation, &outcome),
        Ok(Err(failure)) => failed(
            generation,
            failure.phase(),
            chain(&failure),
            failure.is_collateral(),
            failure.is_retryable(),
        ),
        Err(panic) => failed(
            generation,
            "compute",
            format!("the engine panicked: {panic}"),
            false,
            true,
        ),
    }
}

struct Refused {
    phase: &'static str,
    message: String,
    collateral: bool,
    retryable: bool,
}

impl Refused {
    fn into_body(self, generation: Generation) -> Body {
        failed(
            generation,
            self.phase,
            self.message,
            self.collateral,
            self.retryable,
        )
    }
}

async fn prepare(
    start: Start,
    listener: TcpListener,
    stop: &Stop,
) -> Result<(Trial, MeshTransport, Store), Refused> {
    // What is wrong in a message stays wrong when it is sent again.
    let refused = |phase, message: String| Refused {
        phase,
        message,
        collateral: false,
        retryable: false,
    };
    let trial: Trial = serde_json::from_str(&start.trial)
        .map_err(|e| refused("config", format!("the trial can't be read: {e}")))?;
    let run = Store::open(&start.run).map_err(|e| refused("storage", chain(&e)))?;
    let peers: Vec<SocketAddr> = start
        .peers
        .iter()
        .map(|p| p.parse())
        .collect::<Result<_, _>>()
        .map_err(|e| refused("collective", format!("a peer's address can't be read: {e}")))?;
    let secret = <[u8; 32]>::try_from(&start.secret[..]).map_err(|_| {
        let text = "the generation's secret is not 32 bytes";
        refused("collective", text.to_owned())
    })?;
    let deadline = Duration::try_from_secs_f64(start.deadline_seconds)
        .map_err(|e| refused("config", format!("the deadline can't be: {e}")))?;
    let collective = if peers.len() == 1 {
        MeshTransport::alone()
    } else {
        let (rank, secret) = (Rank(start.rank), Secret(secret));
        let connect = Mesh::connect(Join {
            rank,
            listener,
            peers: &peers,
            secret: &secret,
            locality: Locality::Machine,
            deadline,
        });
        let mesh = connect.await.map_err(|e| Refused {
            phase: "collective",
            message: chain(&e),
            collateral: true,
            retryable: true,
        })?;
        let transport = MeshTransport::new(mesh, deadline);
        stop.break_on_stop(transport.aborter());
        transport
    };
    Ok((trial, collective, run))
}

fn say(outbox: &mpsc::UnboundedSender<FromWorker>, body: Body) {
    // The stream's end is noticed where it is read.
    let _ = outbox.send(FromWorker { body: Some(body) });
}

fn progress(generation: Generation, event: &Event) -> Body {
    Body::Progress(proto::Progress {
        generation: generation.0,
        event: serde_json::to_string(event).unwrap_or_default(),
    })
}

fn finished(generation: Generation, outcome: &Outcome) -> Body {
    Body::Finished(proto::Finished {
        generation: generation.0,
        outcome: serde_json::to_string(outcome).unwrap_or_default(),
    })
}

fn failed(
    generation: Generation,
    phase: &str,
    message: String,
    collateral: bool,
    retryable: bool,
) -> Body {
    Body::Failed(proto::Failed {
        generation: generation.0,
        phase: phase.to_owned(),
        message,
        collateral,
        retryable,
    })
}

/// Host name for messages; a worker without one is still a worker.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_else(|_| "unknown".to_owned())
}

/// Arguments of `worker join`.
#[derive(Debug, clap::Args)]
pub struct JoinArgs {
    /// URL of the coordinator, as `launch` prints it
    #[arg(long, value_name = "URL")]
    coordinator: String,
    /// Address on which the other workers of a trial reach this one
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    data_address: IpAddr,
    /// Token of the run
    #[arg(
        long,
        env = "POLESTAR_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: String,
}

impl JoinArgs {
    /// What [`join`] takes.
    pub fn into_options(self) -> Options {
        Options {
            coordinator: self.coordinator,
            token: self.token,
            data_address: self.data_address,
        }
    }
}
