//! The gRPC service that workers dial into: streams in, [`Event`]s out.

use crate::cluster::{Event, Failure, WorkerId};
use polestar_core::Generation;
use polestar_run::proto::{
    FromWorker, ToWorker, Welcome,
    from_worker::Body,
    pool_server::{Pool, PoolServer as Service},
    to_worker,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

/// What a worker said.
#[derive(Clone, Debug)]
pub enum Told {
    /// Something the cluster must know.
    Event(Event),
    /// Progress of a generation, for people.
    Progress {
        /// Of which.
        generation: Generation,
        /// The engine's event as JSON.
        event: String,
    },
}

/// Why the pool can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port is taken or not ours.
    #[error("{address} can't be listened on")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

type Streams = BTreeMap<WorkerId, mpsc::UnboundedSender<Result<ToWorker, Status>>>;

/// Sends messages to workers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Workers {
    streams: Arc<Mutex<Streams>>,
}

impl Workers {
    /// Sends a message; a worker that is gone is told of by its broken stream, not here.
    pub fn send(&self, worker: WorkerId, body: to_worker::Body) {
        if let Some(stream) = self.lock().get(&worker) {
            let _ = stream.send(Ok(ToWorker { body: Some(body) }));
        }
    }

    /// Sends a message to all.
    pub fn broadcast(&self, body: &to_worker::Body) {
        for stream in self.lock().values() {
            let _ = stream.send(Ok(ToWorker {
                body: Some(body.clone()),
            }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running pool service.
#[derive(Debug)]
pub struct PoolServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// The way to the workers.
    pub workers: Workers,
    /// What they say.
    pub told: mpsc::UnboundedReceiver<Told>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for PoolServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens on `address` for workers that know `token`.
///
/// # Errors
/// When the address can't be bound.
pub async fn serve(address: SocketAddr, token: String) -> Result<PoolServer, ServeError> {
    let bind = |source| ServeError::Bind { address, source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    let workers = Workers::default();
    let (teller, told) = mpsc::unbounded_channel();
    let door = Door {
        token,
        workers: workers.clone(),
        teller,
        joined: AtomicU64::new(0),
    };
    let service = Service::new(door);
    let task = tokio::spawn(async move {
        let server = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(SILENCE))
            .http2_keepalive_timeout(Some(SILENCE))
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        if let Err(error) = server.await {
            tracing::error!(%error, "the pool service ended");
        }
    });
    Ok(PoolServer {
        address,
        workers,
        told,
        task,
    })
}

/// A worker that is silent this long is asked whether it lives, and gets as long to answer.
const SILENCE: Duration = Duration::from_secs(5);

struct Door {
    token: String,
    workers: Workers,
    teller: mpsc::UnboundedSender<Told>,
    joined: AtomicU64,
}

#[tonic::async_trait]
impl Pool for Door {
    type JoinStream = UnboundedReceiverStream<Result<ToWorker, Status>>;

    async fn join(
        &self,
        request: Request<Streaming<FromWorker>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let bearer = request.metadata().get("authorization");
        let given = bearer.and_then(|v| v.to_str().ok()?.strip_prefix("Bearer "));
        // Comparing hashes takes the same time wherever two tokens differ.
        let right = given
            .is_some_and(|g| blake3::hash(g.as_bytes()) == blake3::hash(self.token.as_bytes()));
        if !right {
            return Err(Status::unauthenticated(
                "the token is not this run's; take it from the output of `coordinator launch`",
            ));
        }
        let mut incoming = request.into_inner();
        let hello = match incoming.message().await? {
            Some(FromWorker {
                body: Some(Body::Hello(hello)),
            }) => hello,
            _ => return Err(Status::invalid_argument("the first message must be Hello")),
        };
        let ours = env!("CARGO_PKG_VERSION");
        if hello.version != ours {
            return Err(Status::failed_precondition(format!(
                "the worker is version {}, the coordinator {ours}; one run needs one version",
                hello.version
            )));
        }
        let worker = WorkerId(self.joined.fetch_add(1, Ordering::Relaxed) + 1);
        let (outbox, outgoing) = mpsc::unbounded_channel();
        let _ = outbox.send(Ok(ToWorker {
            body: Some(to_worker::Body::Welcome(Welcome { worker: worker.0 })),
        }));
        self.workers.lock().insert(worker, outbox);
        let teller = self.teller.clone();
        let workers = self.workers.clone();
        let _ = teller.send(Told::Event(Event::Joined {
            worker,
            host: hello.host,
            pid: hello.pid,
        }));
        tokio::spawn(async move {
            // An error and an end are the same news: the worker is gone.
            while let Ok(Some(message)) = incoming.message().await {
                if let Some(told) = message.body.and_then(|body| translate(worker, body)) {
                    let _ = teller.send(told);
                }
            }
            workers.lock().remove(&worker);
            let _ = teller.send(Told::Event(Event::Left(worker)));
        });
        Ok(Response::new(UnboundedReceiverStream::new(outgoing)))
    }
}

fn translate(worker: WorkerId, body: Body) -> Option<Told> {
    let event = match body {
        Body::Hello(_) => return None,
        Body::Progress(p) => {
            return Some(Told::Progress {
                generation: Generation(p.generation),
                event: p.event,
            });
        }
        Body::Ready(r) => Event::Ready {
            worker,
            generation: Generation(r.generation),
            address: r.address,
        },
        Body::Finished(f) => Event::Finished {
            worker,
            generation: Generation(f.generation),
            outcome: f.outcome,
        },
        Body::Failed(f) => Event::Failed {
            worker,
            generation: Generation(f.generation),
            failure: Failure {
                phase: f.phase,
                message: f.message,
                collateral: f.collateral,
                retryable: f.retryable,
            },
        },
        Body::Stopped(s) => Event::Stopped {
            worker,
            generation: Generation(s.generation),
        },
    };
    Some(Told::Event(event))
}

#[cfg(test)]
mod tests {
    use super::*;
    use polestar_worker::agent::{self, Options};

    #[tokio::test]
    async fn a_worker_with_a_wrong_token_is_refused() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = serve(loopback, "right".to_owned()).await.unwrap();
        let options = |token: &str| Options {
            coordinator: format!("http://{}", server.address),
            token: token.to_owned(),
            data_address: loopback.ip(),
        };
        let refused = agent::join(options("wrong")).await.unwrap_err();
        assert!(refused.to_string().contains("not this run's"), "{refused}");

        let joined = tokio::spawn(agent::join(options("right")));
        let told = server.told.recv().await;
        assert!(
            matches!(
                told,
                Some(Told::Event(Event::Joined {
                    worker: WorkerId(1),
                    ..
                }))
            ),
            "the refused one never counted: {told:?}"
        );
        server
            .workers
            .broadcast(&to_worker::Body::Shutdown(Default::default()));
        joined.await.unwrap().unwrap();
    }
}
