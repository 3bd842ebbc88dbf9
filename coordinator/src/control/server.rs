//! The gRPC service that workers dial into: streams in, events out.

use super::{
    connection::{Admission, Connections},
    core::{Inventory, WorkerEvent},
    listen::Listen,
};
use crate::launcher::{Contact, LaunchId};
use polestar_core::{Epoch, WorkerId};
use polestar_run::{
    pool::{MAX_MESSAGE, Release, same_release},
    proto::{
        self, FromWorker, ToWorker, Welcome,
        from_worker::Body,
        pool_server::{Pool, PoolServer},
        to_worker,
    },
    protocol::{self, Membership, ProtocolError},
};
use polestar_serve::http::Credential;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// A worker that is silent this long is asked whether it lives, and gets as long to answer.
const SILENCE: Duration = Duration::from_secs(5);
/// Calls that one connection may make at a time. A worker makes one.
const CALLS: u32 = 4;
/// Bytes of a call's headers.
const HEADERS: u32 = 16 << 10;

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

/// What workers are told of the coordinator that they have joined.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    /// Its epoch.
    pub(super) epoch: Epoch,
    /// URL of the run's folder, where its lease lies.
    pub(super) run: String,
    /// How long they may go on without a coordinator.
    pub(super) grace: Duration,
    /// Where they export traces and logs to, if the run says so.
    pub(super) collector: Option<proto::Collector>,
}

/// The outbox of each worker.
type Outboxes = BTreeMap<WorkerId, mpsc::UnboundedSender<Result<ToWorker, Status>>>;

#[derive(Clone, Debug, Default)]
struct Streams(Arc<Mutex<Outboxes>>);

impl Streams {
    fn lock(&self) -> MutexGuard<'_, Outboxes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running pool service.
#[derive(Debug)]
pub struct Server {
    contact: Contact,
    greeting: Arc<OnceLock<Greeting>>,
    streams: Streams,
    inbox: mpsc::UnboundedReceiver<(WorkerId, WorkerEvent)>,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Listens for workers that have the token. They are let in once it leads.
    ///
    /// # Errors
    /// When the address can't be bound.
    pub async fn bind(listen: Listen) -> Result<Server, ServeError> {
        let address = listen.address;
        let bind = |source| ServeError::Bind { address, source };
        let listener = tokio::net::TcpListener::bind(address).await.map_err(bind)?;
        let contact = listen.contact(listener.local_addr().map_err(bind)?);
        let greeting = Arc::<OnceLock<Greeting>>::default();
        let streams = Streams::default();
        let (events, inbox) = mpsc::unbounded_channel();
        let service = PoolService {
            token: Credential::new(&listen.token.bearer()),
            greeting: Arc::clone(&greeting),
            streams: streams.clone(),
            events,
            joined: AtomicU64::new(0),
        };
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(SILENCE))
            .http2_keepalive_timeout(Some(SILENCE))
            .max_concurrent_streams(CALLS)
            .http2_max_header_list_size(HEADERS)
            .add_service(PoolServer::new(service).max_decoding_message_size(MAX_MESSAGE))
            .serve_with_incoming(Connections::new(listener, listen.tls.as_ref()));
        Ok(Server {
            contact,
            greeting,
            streams,
            inbox,
            task: tokio::spawn(serving),
        })
    }

    /// How workers find it.
    pub fn contact(&self) -> Contact {
        self.contact.clone()
    }

    /// From now on workers are let in.
    pub(super) fn leads(&self, greeting: Greeting) {
        // A server serves one coordinator, which leads once.
        let _ = self.greeting.set(greeting);
    }

    /// Sends a message; a worker that is gone is told of by its broken stream, not here.
    pub(super) fn send(&self, worker: WorkerId, body: to_worker::Body) {
        if let Some(outbox) = self.streams.lock().get(&worker) {
            let _ = outbox.send(Ok(ToWorker { body: Some(body) }));
        }
    }

    /// Sends a message to all.
    pub(super) fn broadcast(&self, body: &to_worker::Body) {
        for outbox in self.streams.lock().values() {
            let body = Some(body.clone());
            let _ = outbox.send(Ok(ToWorker { body }));
        }
    }

    /// Ends a worker's stream; an agent that still lives stops its work and leaves.
    pub(super) fn disconnect(&self, worker: WorkerId) {
        self.streams.lock().remove(&worker);
    }

    /// Waits until no worker is connected any more, for so long at most. What they still say is not heard.
    pub(super) async fn drain(&mut self, grace: Duration) {
        let left = async {
            while !self.streams.lock().is_empty() {
                match self.next().await {
                    Ok((worker, WorkerEvent::Left)) => self.disconnect(worker),
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        };
        // Whoever stays longer sees the stream break.
        let _ = tokio::time::timeout(grace, left).await;
    }

    /// What a worker says next. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The end of the service, with its cause if it has one.
    pub(super) async fn next(
        &mut self,
    ) -> Result<(WorkerId, WorkerEvent), Option<tonic::transport::Error>> {
        tokio::select! {
            Some(said) = self.inbox.recv() => Ok(said),
            ended = &mut self.task => Err(match ended {
                Ok(served) => served.err(),
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }),
        }
    }
}

struct PoolService {
    /// What a worker has to show.
    token: Credential,
    greeting: Arc<OnceLock<Greeting>>,
    streams: Streams,
    events: mpsc::UnboundedSender<(WorkerId, WorkerEvent)>,
    joined: AtomicU64,
}

#[tonic::async_trait]
impl Pool for PoolService {
    type JoinStream = UnboundedReceiverStream<Result<ToWorker, Status>>;

    async fn join(
        &self,
        request: Request<Streaming<FromWorker>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        if !self.token.is_bearer_of(request.metadata().as_ref()) {
            return Err(Status::unauthenticated(
                "the token is not this pool's; a launch gives its own to the workers that it starts, and others take \
                 it from the file that `launch --token-file` names",
            ));
        }
        if let Some(admission) = request.extensions().get::<Admission>() {
            admission.admit();
        }
        let mut incoming = request.into_inner();
        let hello = match incoming.message().await? {
            Some(FromWorker {
                body: Some(Body::Hello(hello)),
            }) => hello,
            _ => return Err(Status::invalid_argument("the first message must be Hello")),
        };
        let release = Release {
            protocol: hello.protocol,
            version: hello.version,
        };
        same_release(release, Release::here())
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        let Some(greeting) = self.greeting.get() else {
            return Err(Status::unavailable(
                "this coordinator doesn't lead its run yet",
            ));
        };
        let membership = hello.membership.map(Membership::try_from).transpose();
        let membership = membership.map_err(|e| Status::invalid_argument(e.to_string()))?;
        let worker = WorkerId(self.joined.fetch_add(1, Ordering::Relaxed) + 1);
        let (outbox, outgoing) = mpsc::unbounded_channel();
        let _ = outbox.send(Ok(ToWorker {
            body: Some(to_worker::Body::Welcome(Welcome {
                worker: worker.0,
                epoch: greeting.epoch.0,
                run: greeting.run.clone(),
                grace_seconds: greeting.grace.as_secs(),
                collector: greeting.collector.clone(),
            })),
        }));
        self.streams.lock().insert(worker, outbox);
        let launch = (!hello.launch.is_empty()).then_some(LaunchId(hello.launch));
        let inventory = Inventory {
            host: hello.host,
            pid: hello.pid,
            launch,
            machine: hello.machine.unwrap_or_default().into(),
        };
        let joined = match membership {
            Some(membership) => WorkerEvent::Rejoined(inventory, membership),
            None => WorkerEvent::Joined(inventory),
        };
        // The loop that listens may have ended.
        let _ = self.events.send((worker, joined));
        tokio::spawn(listen(worker, incoming, self.events.clone()));
        Ok(Response::new(UnboundedReceiverStream::new(outgoing)))
    }
}

/// Hands on what a worker says, until its stream ends or it says what nobody understands.
async fn listen(
    worker: WorkerId,
    mut incoming: Streaming<FromWorker>,
    events: mpsc::UnboundedSender<(WorkerId, WorkerEvent)>,
) {
    // An error and an end are the same news: the worker is gone.
    while let Ok(Some(message)) = incoming.message().await {
        match message.body.map(understand).transpose() {
            Ok(event) => {
                if let Some(event) = event.flatten() {
                    // Without a receiver the loop has ended, and so will this stream.
                    let _ = events.send((worker, event));
                }
            }
            Err(error) => {
                tracing::error!(%worker, %error, "a message can't be understood; the worker is let go");
                break;
            }
        }
    }
    let _ = events.send((worker, WorkerEvent::Left));
}

/// Why a worker's message can't be understood.
#[derive(Debug, thiserror::Error)]
enum MessageError {
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("{text:?} is no address of a worker's port")]
    Address {
        text: String,
        #[source]
        source: std::net::AddrParseError,
    },
}

fn understand(body: Body) -> Result<Option<WorkerEvent>, MessageError> {
    let missing = |field| ProtocolError::Missing { field };
    Ok(Some(match body {
        // Said once, before this.
        Body::Hello(_) => return Ok(None),
        Body::Leaving(_) => WorkerEvent::Leaving,
        Body::Ready(m) => WorkerEvent::Ready {
            generation: protocol::generation(m.generation)?,
            endpoint: m.address.parse().map_err(|source| MessageError::Address {
                text: m.address.clone(),
                source,
            })?,
        },
        Body::Progress(m) => WorkerEvent::Progress {
            generation: protocol::generation(m.generation)?,
            event: m
                .event
                .ok_or_else(|| missing("progress.event"))?
                .try_into()?,
        },
        Body::Finished(m) => WorkerEvent::Finished {
            generation: protocol::generation(m.generation)?,
            outcome: m
                .outcome
                .ok_or_else(|| missing("finished.outcome"))?
                .try_into()?,
        },
        Body::Failed(m) => WorkerEvent::Failed {
            generation: protocol::generation(m.generation)?,
            failure: m
                .failure
                .ok_or_else(|| missing("failed.failure"))?
                .try_into()?,
        },
        Body::Stopped(m) => WorkerEvent::Stopped {
            generation: protocol::generation(m.generation)?,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use polestar_core::ByteCount;
    use polestar_run::pool::{CertificateFiles, Token};
    use polestar_worker::agent::{self, Options};
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use std::{os::unix::fs::PermissionsExt, path::Path};

    fn options(contact: &Contact) -> Options {
        Options {
            coordinator: contact.url(),
            token: contact.token.clone(),
            certificates: contact.certificates.clone(),
            data_address: None,
            launch: Some("l".to_owned()),
            leave: tokio::sync::watch::Sender::new(false).subscribe(),
            welcomed: Default::default(),
        }
    }

    /// Certificates of this host, by an authority that issues no others.
    fn certificates(folder: &Path) -> CertificateFiles {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, authority).unwrap();
        let key = KeyPair::generate().unwrap();
        let host = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let host = host.signed_by(&key, &authority).unwrap();
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            path
        };
        CertificateFiles {
            certificate: write("crt", host.pem()),
            key: write("key", key.serialize_pem()),
            ca: write("ca", authority.pem()),
        }
    }

    #[tokio::test]
    async fn a_worker_with_a_wrong_token_is_refused() {
        let token = || Token::random().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let openly = || Listen::openly(&"127.0.0.1:0".parse().unwrap(), token()).unwrap();
        let certified = openly().certified(certificates(folder.path())).unwrap();
        for (listen, says) in [
            (Listen::here(token()), "not this pool's"),
            (openly(), "both are of one pool"),
            // Certificates alone let nobody in.
            (certified, "not this pool's"),
        ] {
            let mut server = Server::bind(listen).await.unwrap();
            server.leads(Greeting {
                epoch: Epoch(1),
                run: "memory://".to_owned(),
                grace: Duration::ZERO,
                collector: None,
            });
            let contact = server.contact();
            let stranger = Options {
                token: token(),
                ..options(&contact)
            };
            let refused = agent::join(stranger).await.unwrap_err();
            assert!(refused.to_string().contains(says), "{refused}");

            let joined = tokio::spawn(agent::join(options(&contact)));
            let (worker, event) = server.next().await.unwrap();
            assert_eq!(worker, WorkerId(1), "the refused one never counted");
            let WorkerEvent::Joined(inventory) = event else {
                panic!("{event:?}");
            };
            assert_eq!(inventory.launch, Some(LaunchId("l".to_owned())));
            let machine = inventory.machine;
            assert_eq!(machine.data_address, Some(contact.addresses[0].ip()));
            assert!(
                machine.memory_bytes > Some(ByteCount(1 << 20)) && machine.devices[0].count > 0
            );
            server.broadcast(&to_worker::Body::Shutdown(proto::Shutdown {}));
            server.drain(Duration::from_secs(20)).await;
            joined.await.unwrap().unwrap();
        }
    }

    #[test]
    fn a_port_that_is_none_is_not_taken_for_one() {
        let ready = proto::Ready {
            generation: Some(proto::Generation::default()),
            address: String::new(),
        };
        let error = understand(Body::Ready(ready)).unwrap_err();
        assert!(error.to_string().contains("no address"), "{error}");
    }
}
