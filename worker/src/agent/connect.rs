//! The connection to a coordinator: from its URL to a channel that messages go over.

use super::{AddressChoice, AddressError, Error, Options};
use hyper_util::rt::TokioIo;
use polestar_run::pool::{DEFAULT_PORT, Tls};
use std::{
    io::ErrorKind,
    net::IpAddr,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tonic::{
    codegen::{BoxFuture, Service},
    transport::{Channel, Endpoint, Uri},
};

/// How long a coordinator has to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A coordinator that is silent this long is asked whether it lives, and gets as long to answer: of a host that lost
/// its power, nothing else is ever heard.
const SILENCE: Duration = Duration::from_secs(10);
/// How often a handshake is tried that the coordinator breaks off: it does so when too many strangers knock.
const ATTEMPTS: u32 = 8;
/// The wait before the second try; each later one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// Where a coordinator is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    url: String,
    host: String,
    port: u16,
    /// Whether the URL says `https`.
    sealed: bool,
}

impl Target {
    fn parse(url: &str) -> Result<Target, Error> {
        let wrong = || Error::Url {
            url: url.to_owned(),
        };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let sealed = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let nothing_else = uri.path() == "/" && uri.query().is_none();
        let host = uri.host().filter(|_| nothing_else).ok_or_else(wrong)?;
        Ok(Target {
            url: url.to_owned(),
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(DEFAULT_PORT),
            sealed,
        })
    }
}

/// A connection to a coordinator.
#[derive(Debug)]
pub(super) struct Connection {
    /// What calls go over.
    pub(super) channel: Channel,
    /// How connections to other ranks are sealed; `None` in a pool that is on this machine only.
    pub(super) tls: Option<Tls>,
    /// Where other ranks reach this one.
    pub(super) data_address: IpAddr,
}

/// Connects, and proves to the other end that it is of the same pool, and the other way round.
pub(super) async fn connect(url: &str, options: &Options) -> Result<Connection, Error> {
    let target = Target::parse(url)?;
    let tls = match &options.certificates {
        _ if !target.sealed => None,
        Some(files) => Some(Tls::by_certificates(files)?),
        None => Some(Tls::of(&options.token)),
    };
    let data_address = options.data_address.as_ref();
    let mut wait = FIRST_WAIT;
    for _ in 1..ATTEMPTS {
        match connect_once(&target, tls.as_ref(), data_address).await {
            Err(Error::Handshake { source, .. }) if was_broken(&source) => {
                tracing::debug!(url = target.url, %source, "the handshake broke; trying again");
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            other => return other,
        }
    }
    connect_once(&target, tls.as_ref(), data_address).await
}

async fn connect_once(
    target: &Target,
    tls: Option<&Tls>,
    data_address: Option<&AddressChoice>,
) -> Result<Connection, Error> {
    let failed = |source| Error::Connect {
        url: target.url.clone(),
        source,
    };
    let dialled = TcpStream::connect((&*target.host, target.port));
    let stream = tokio::time::timeout(PATIENCE, dialled).await;
    let stream = stream.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
    let stream = stream.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let here = stream.local_addr().map_err(failed)?.ip().to_canonical();
    let there = stream.peer_addr().map_err(failed)?.ip().to_canonical();
    if !target.sealed && !there.is_loopback() {
        return Err(Error::Plain {
            url: target.url.clone(),
        });
    }
    let data_address = data_address_of(here, data_address)?;
    let wire: Box<dyn Wire> = match tls {
        None => Box::new(stream),
        Some(tls) => {
            let connector = TlsConnector::from(tls.control.client.clone());
            let name = tls.control_name(&target.host).map_err(|_| Error::Url {
                url: target.url.clone(),
            })?;
            let shaken = tokio::time::timeout(PATIENCE, connector.connect(name, stream));
            let shaken = shaken
                .await
                .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
            Box::new(shaken.map_err(|source| Error::Handshake {
                url: target.url.clone(),
                source,
            })?)
        }
    };
    // What is spoken over the connection is HTTP either way; TLS is below it.
    let endpoint = Endpoint::from_static("http://pool.polestar.internal")
        .http2_keep_alive_interval(SILENCE)
        .keep_alive_timeout(SILENCE)
        .keep_alive_while_idle(true);
    let channel = endpoint.connect_with_connector(Once(Some(wire))).await;
    Ok(Connection {
        channel: channel.map_err(|source| Error::Channel {
            url: target.url.clone(),
            source,
        })?,
        tls: tls.cloned(),
        data_address,
    })
}

/// The address that is asked for, or the one that reaches the coordinator.
fn data_address_of(here: IpAddr, choice: Option<&AddressChoice>) -> Result<IpAddr, AddressError> {
    let address = choice.map_or(Ok(here), AddressChoice::resolve)?;
    match address.is_unspecified() {
        true => Err(AddressError::Any(address)),
        false => Ok(address),
    }
}

/// Whether the other end only hung up, rather than found something wrong.
fn was_broken(error: &std::io::Error) -> bool {
    use ErrorKind as K;
    matches!(
        error.kind(),
        K::UnexpectedEof | K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe
    )
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Wire for S {}

/// Gives the one connection there is. When it is gone, so is the worker's membership, and nothing is to dial again
/// behind its back.
struct Once(Option<Box<dyn Wire>>);

impl Service<Uri> for Once {
    type Response = TokioIo<Box<dyn Wire>>;
    type Error = std::io::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let wire = self.0.take().map(TokioIo::new);
        Box::pin(async move { wire.ok_or_else(|| ErrorKind::NotConnected.into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_scheme_a_host_and_a_port() {
        for (url, host, port, sealed) in [
            ("https://head:7000", "head", 7000, true),
            ("https://10.0.0.1", "10.0.0.1", DEFAULT_PORT, true),
            ("https://[fd00::1]:7000", "fd00::1", 7000, true),
            ("http://127.0.0.1:7000/", "127.0.0.1", 7000, false),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!(
                (&*target.host, target.port, target.sealed),
                (host, port, sealed)
            );
        }
        for url in [
            "head:7000",
            "head",
            "ftp://head",
            "https://head/pool",
            "https://",
            "",
            "h t",
        ] {
            let error = Target::parse(url).unwrap_err().to_string();
            assert!(error.contains("looks like https://host:port"), "{error}");
        }
    }
}
