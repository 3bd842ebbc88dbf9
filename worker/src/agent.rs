//! The agent: joins a pool, prepares, trains, stops, and stays warm between generations.

mod address;
mod arguments;
mod connect;
mod inventory;
mod prepare;

pub use address::{AddressChoice, AddressError, Place, places};
pub use arguments::JoinArgs;

use crate::{
    collective::{self, Aborter},
    engine::{self, Environment},
};
use polestar_core::{Generation, chain};
use polestar_run::{
    Failure,
    failure::Phase,
    pool::{CertificateFiles, CertificatesError, MAX_MESSAGE, PROTOCOL, Tls, Token},
    proto::{
        self, FromWorker, Start, ToWorker, from_worker::Body, pool_client::PoolClient, to_worker,
    },
    protocol::{self, ProtocolError},
};
use prepare::{Meeting, PrepareError, prepare};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, metadata::MetadataValue};

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
    let connection = connect::connect(&options).await?;
    let Options {
        coordinator: url,
        token,
        launch,
        ..
    } = options;
    let (outbox, outgoing) = mpsc::unbounded_channel();
    let agent = Agent {
        outbox,
        url,
        data_address: connection.data_address,
        tls: connection.tls,
        prepared: None,
        running: None,
    };
    agent.say(Body::Hello(proto::Hello {
        host: inventory::host_name(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        launch: launch.unwrap_or_default(),
        protocol: PROTOCOL,
        machine: Some(inventory::machine(connection.data_address).into()),
    }));
    let mut request = Request::new(UnboundedReceiverStream::new(outgoing));
    let bearer: MetadataValue<_> = format!("Bearer {}", token.bearer())
        .parse()
        .expect("hexadecimal digits are printable");
    request.metadata_mut().insert("authorization", bearer);
    let mut client = PoolClient::new(connection.channel).max_decoding_message_size(MAX_MESSAGE);
    let incoming = client.join(request).await?.into_inner();
    agent.serve(incoming).await
}

struct Agent {
    outbox: mpsc::UnboundedSender<FromWorker>,
    /// Where the coordinator is, for messages.
    url: String,
    data_address: IpAddr,
    tls: Option<Tls>,
    prepared: Option<(Generation, TcpListener)>,
    running: Option<Running>,
}

struct Running {
    generation: Generation,
    cancel: Cancel,
    done: tokio::task::JoinHandle<()>,
}

/// Stops a generation wherever it is: while it connects, inside a collective, between two steps.
#[derive(Clone, Debug)]
struct Cancel {
    asked: watch::Sender<bool>,
    flag: Arc<AtomicBool>,
}

impl Cancel {
    fn new() -> Cancel {
        Cancel {
            asked: watch::Sender::new(false),
            flag: Arc::default(),
        }
    }

    fn cancel(&self) {
        self.flag.store(true, Ordering::SeqCst);
        self.asked.send_replace(true);
    }

    /// Breaks a mesh when it is asked to, or at once if it has been.
    fn break_when_asked(&self, aborter: Aborter) {
        let mut asked = self.asked.subscribe();
        tokio::spawn(async move {
            if asked.wait_for(|&asked| asked).await.is_ok() {
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
                        running.cancel.cancel();
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
                Some(to_worker::Body::Shutdown(_)) => {
                    self.end().await;
                    return Ok(());
                }
                Some(body) => {
                    if let Err(source) = self.obey(body).await {
                        self.end().await;
                        let url = self.url;
                        return Err(Error::Protocol { url, source });
                    }
                }
                // A kind of message that this version doesn't know: nothing that it could act on.
                None => {}
            }
        }
    }

    async fn obey(&mut self, body: to_worker::Body) -> Result<(), ProtocolError> {
        match body {
            to_worker::Body::Welcome(w) => tracing::info!(worker = w.worker, "joined"),
            to_worker::Body::Prepare(p) => {
                self.prepare(protocol::generation(p.generation)?).await;
            }
            to_worker::Body::Start(start) => {
                let generation = protocol::generation(start.generation)?;
                self.start(generation, start).await;
            }
            to_worker::Body::Abort(a) => {
                let generation = protocol::generation(a.generation)?;
                if let Some(cause) = a.cause {
                    let cause = polestar_run::Cause::try_from(cause)?;
                    tracing::info!(%generation, %cause, "asked to stop");
                }
                self.abort(generation).await;
            }
            // It ends the agent, which is not a message handler's to do.
            to_worker::Body::Shutdown(_) => {}
        }
        Ok(())
    }

    async fn prepare(&mut self, generation: Generation) {
        let opened = collective::listen(SocketAddr::new(self.data_address, 0)).await;
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
                let address = self.data_address;
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
        let cancel = Cancel::new();
        let outbox = self.outbox.clone();
        let meeting = Meeting {
            listener,
            tls: self.tls.clone(),
        };
        let work = train(generation, start, meeting, cancel.clone(), outbox.clone());
        let done = tokio::spawn(async move {
            // Whatever happens, the coordinator is told: it waits for this rank.
            let body = tokio::spawn(work).await.unwrap_or_else(|panic| {
                failed(generation, panicked("the worker's own code", &panic))
            });
            say(&outbox, body);
        });
        self.running = Some(Running {
            generation,
            cancel,
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

/// One rank of one generation, from the mesh to what it has to say in the end.
async fn train(
    generation: Generation,
    start: Start,
    meeting: Meeting,
    cancel: Cancel,
    outbox: mpsc::UnboundedSender<FromWorker>,
) -> Body {
    let mut asked = cancel.asked.subscribe();
    let prepared = tokio::select! {
        prepared = prepare(start, meeting, &cancel) => prepared,
        _ = asked.wait_for(|&asked| asked) => Err(PrepareError::Cancelled),
    };
    let (trial, collective, run) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return failed(generation, error.failure()),
    };
    let env = Environment {
        collective,
        run,
        runtime: tokio::runtime::Handle::current(),
        abort: Arc::clone(&cancel.flag),
        events: Box::new(move |event| {
            let progress = proto::Progress {
                generation: Some(generation.into()),
                event: Some(event.into()),
            };
            say(&outbox, Body::Progress(progress));
        }),
        slice: None,
    };
    let engine = tokio::task::spawn_blocking(move || engine::run(&trial, env));
    match engine.await {
        Ok(Ok(outcome)) => Body::Finished(proto::Finished {
            generation: Some(generation.into()),
            outcome: Some(outcome.into()),
        }),
        Ok(Err(failure)) => {
            let failure = Failure {
                phase: failure.phase(),
                message: chain(&failure),
                collateral: failure.is_collateral(),
                retryable: failure.is_retryable(),
            };
            failed(generation, failure)
        }
        Err(panic) => failed(generation, panicked("the engine", &panic)),
    }
}

fn say(outbox: &mpsc::UnboundedSender<FromWorker>, body: Body) {
    // The stream's end is noticed where it is read.
    let _ = outbox.send(FromWorker { body: Some(body) });
}

fn failed(generation: Generation, failure: Failure) -> Body {
    Body::Failed(proto::Failed {
        generation: Some(generation.into()),
        failure: Some(failure.into()),
    })
}

fn panicked(what: &str, panic: &tokio::task::JoinError) -> Failure {
    Failure {
        phase: Phase::Compute,
        message: format!("{what} panicked: {panic}"),
        collateral: false,
        retryable: true,
    }
}
