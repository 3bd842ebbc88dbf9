//! Listening under one set of rules, and letting connections end.

use super::{
    Credential, Options, app::App, metrics::Metrics, queue::Queue, routes::routes, unread::Unread,
};
use crate::{Scorer, Texts};
use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use polestar_worker::engine::Engine;
use rustls::{
    ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error as PemError, PemObject},
    },
};
use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;

/// How long a handshake, and the head of a request, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the other end of a connection may take nothing of an answer.
const UNREAD: Duration = Duration::from_secs(30);
/// How long nobody is let in after that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Files of a server's certificate, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate and those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Others could listen or ask.
    #[error(
        "{address} can be reached from other hosts, where {missing}; give {remedy}, or listen on 127.0.0.1"
    )]
    Unguarded {
        /// Where.
        address: SocketAddr,
        /// What is missing.
        missing: &'static str,
        /// The options that give it.
        remedy: &'static str,
    },
    /// The address is taken or isn't this host's.
    #[error("can't listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that is no certificate or key.
    #[error("{}: no {what} can be read", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why.
        #[source]
        source: PemError,
    },
    /// They don't go together.
    #[error("{} and {}: the certificate can't be used", files.certificate.display(), files.key.display())]
    Certificate {
        /// Both.
        files: Certificate,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The system gives no thread.
    #[error("the model's thread can't be started")]
    Thread(#[source] io::Error),
}

/// Where a server listens, and as what.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions<'a> {
    /// The address. Outside loopback it takes a certificate and a token.
    pub address: SocketAddr,
    /// What TLS is spoken with.
    pub certificate: Option<&'a Certificate>,
    /// Whether whoever asks has to show a token.
    pub has_token: bool,
    /// The options that give a certificate and a token, for whoever forgot them.
    pub remedy: &'static str,
    /// Connections at a time; more wait to be accepted.
    pub connections: usize,
}

/// A listener for HTTP that nobody uses up: its connections are bounded in number, a handshake and the head of a
/// request in time, and one whose other end takes no answer is closed.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    /// [`ServeError`]: an address that others can reach without TLS and a token among them.
    pub async fn open(options: ListenOptions<'_>) -> Result<Listener, ServeError> {
        let ListenOptions {
            address,
            certificate,
            has_token,
            remedy,
            connections,
        } = options;
        if !address.ip().is_loopback() {
            let missing = match (certificate.is_some(), has_token) {
                (false, false) => "nothing is sealed and nobody has to show a token",
                (false, true) => "nothing is sealed",
                (true, false) => "nobody has to show a token",
                (true, true) => "",
            };
            if !missing.is_empty() {
                return Err(ServeError::Unguarded {
                    address,
                    missing,
                    remedy,
                });
            }
        }
        let tls = certificate.map(acceptor).transpose()?;
        let failed = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        Ok(Listener {
            address: listener.local_addr().map_err(failed)?,
            listener,
            tls,
            places: Arc::new(Semaphore::new(connections)),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves until `stop` is ready. Then nobody is let in any more, and what was asked is answered within `drain`.
    /// Returns how many connections were cut off.
    pub async fn serve(
        self,
        routes: Router,
        drain: Duration,
        stop: impl Future<Output = ()>,
    ) -> usize {
        let graceful = GracefulShutdown::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = accept(&self.listener, &self.places) => accepted,
            };
            let Some((stream, place)) = accepted else {
                continue;
            };
            let (tls, routes) = (self.tls.clone(), routes.clone());
            let watcher = graceful.watcher();
            tokio::spawn(async move {
                let _place = place;
                match tls {
                    None => serve(stream, routes, watcher).await,
                    Some(tls) => {
                        let greeting = tokio::time::timeout(PATIENCE, tls.accept(stream)).await;
                        if let Ok(Ok(stream)) = greeting {
                            serve(stream, routes, watcher).await;
                        }
                    }
                }
            });
        }
        drop(self.listener);
        let connections = graceful.count();
        let drained = tokio::time::timeout(drain, graceful.shutdown()).await;
        match drained {
            Ok(()) => 0,
            Err(_) => connections,
        }
    }
}

/// A server that listens.
pub struct Server {
    listener: Listener,
    app: Arc<App>,
    routes: Router,
}

impl Server {
    /// Listens, and moves the model to its thread.
    ///
    /// # Errors
    /// [`ServeError`]: an address that others can reach without TLS and a token among them.
    pub async fn bind<E>(
        options: Options,
        texts: Texts,
        scorer: Scorer<E>,
    ) -> Result<Server, ServeError>
    where
        E: Engine,
        E::Weights: Send,
    {
        let Options {
            address,
            token,
            certificate,
            model,
            limits,
        } = options;
        let listen = ListenOptions {
            address,
            certificate: certificate.as_ref(),
            has_token: token.is_some(),
            remedy: "--tls-certificate FILE, --tls-key FILE and --token-file FILE",
            connections: limits.connections,
        };
        let listener = Listener::open(listen).await?;
        let metrics = Arc::new(Metrics::new());
        let layout = texts.samples().layout;
        let queue = Queue::start(scorer, layout, limits.queue_tokens, Arc::clone(&metrics));
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
        let app = Arc::new(App {
            texts,
            queue: queue.map_err(ServeError::Thread)?,
            metrics,
            model,
            limits,
            token: token.map(|token| Credential::new(&token.to_hex())),
            requests: Arc::new(Semaphore::new(limits.requests)),
            tokenizers: Semaphore::new(threads),
            draining: false.into(),
            answers: 0.into(),
        });
        Ok(Server {
            listener,
            routes: routes(&app),
            app,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Serves until `stop` is ready. Then nobody is let in any more, and what was asked is answered within the time
    /// that there is for that. Returns how many connections were cut off.
    pub async fn run(self, stop: impl Future<Output = ()>) -> usize {
        let Server {
            listener,
            app,
            routes,
        } = self;
        let drain = app.limits.drain;
        let stop = async move {
            stop.await;
            app.draining.store(true, Ordering::SeqCst);
        };
        listener.serve(routes, drain, stop).await
    }
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!("a connection stays slow: {error}");
            }
            Some((stream, place))
        }
        // Most likely all descriptors are taken, and connections that end give some back.
        Err(error) => {
            tracing::warn!("a connection can't be accepted: {error}");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

async fn serve<S>(stream: S, routes: Router, watcher: hyper_util::server::graceful::Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    let timer = TokioTimer::new();
    builder
        .http1()
        .timer(timer.clone())
        .header_read_timeout(PATIENCE);
    builder.http2().timer(timer);
    let service = TowerToHyperService::new(routes);
    let stream = Unread::new(stream, UNREAD);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!("a connection broke: {error}");
    }
}

fn acceptor(files: &Certificate) -> Result<TlsAcceptor, ServeError> {
    let pem = |path: &PathBuf, what| {
        let path = path.clone();
        move |source| ServeError::Pem { path, what, source }
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(|all| all.collect::<Result<Vec<_>, _>>())
        .and_then(|all| match all.is_empty() {
            true => Err(PemError::NoItemsFound),
            false => Ok(all),
        })
        .map_err(pem(&files.certificate, "certificate"))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(pem(&files.key, "key"))?;
    let unusable = |source| ServeError::Certificate {
        files: files.clone(),
        source,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
