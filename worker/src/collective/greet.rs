//! Meeting the other ranks: dialling those below, letting those above in, and whoever else knocks out.
//!
//! Under TLS, a connection is sealed before anything else is said on it. What is said next proves that both ends
//! belong to the generation; then memory is shared, where it can be. With memory, TLS has done its part: what is left
//! of the connection only wakes a process of the same machine.

use super::{
    handshake::{self, Channel, HandshakeError, HostId, Identity, Proof},
    link::Way,
    mesh::{Join, MeshError},
    sealed::Sealed,
    shared::{self, Shared},
};
use futures::{
    StreamExt,
    future::{AbortHandle, abortable},
    stream::FuturesUnordered,
};
use polestar_core::Rank;
use polestar_run::pool::Tls;
use std::{collections::VecDeque, io::ErrorKind, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{Connection, Error as RustlsError},
};

/// A connection that doesn't prove itself within this time is dropped.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that may be in the middle of that. One more, and the oldest is dropped: a rank is done in milliseconds.
const UNKNOWN: usize = 64;
/// How long nobody is let in after that failed.
const PAUSE: Duration = Duration::from_millis(100);
/// Waits before a broken handshake is tried again: strangers may have crowded it out.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// An authenticated connection.
pub(super) struct Connected {
    pub(super) host: HostId,
    pub(super) stream: TcpStream,
    pub(super) way: Way,
}

/// What was agreed on over a connection.
struct Agreed {
    peer: Identity,
    shared: Option<Shared>,
}

impl Agreed {
    fn over(self, stream: TcpStream, sealed: Option<Connection>) -> Connected {
        Connected {
            host: self.peer.host,
            stream,
            way: match (self.shared, sealed) {
                (Some(shared), _) => Way::Shared(shared),
                (None, Some(connection)) => Way::Sealed(Sealed::new(connection)),
                (None, None) => Way::Plain,
            },
        }
    }
}

impl Join<'_> {
    fn proof(&self, me: Identity, channel: Channel) -> Proof<'_> {
        Proof {
            secret: self.secret,
            channel,
            me,
        }
    }

    /// Dials the lower ranks. `links` are those to them, and to this rank itself.
    pub(super) async fn dial(
        &self,
        me: Identity,
        links: &mut [Option<Connected>],
    ) -> Result<(), MeshError> {
        let lower = (0..self.rank.0).map(Rank).zip(self.peers);
        for ((peer, &address), link) in lower.zip(links) {
            *link = Some(self.dial_one(me, peer, address).await?);
        }
        Ok(())
    }

    /// Dials one, as often as it takes: the deadline is around all of it.
    async fn dial_one(
        &self,
        me: Identity,
        peer: Rank,
        address: SocketAddr,
    ) -> Result<Connected, MeshError> {
        let mut wait = FIRST_WAIT;
        loop {
            let stream = TcpStream::connect(address).await;
            let stream = stream.map_err(|source| MeshError::Connect {
                peer,
                address,
                source,
            })?;
            match self.ask(stream, me, peer).await {
                Ok(connected) => return Ok(connected),
                Err(HandshakeError::Broken(error)) => {
                    tracing::debug!(%peer, %address, %error, "the handshake broke; trying again");
                    tokio::time::sleep(wait).await;
                    wait = (2 * wait).min(LONGEST_WAIT);
                }
                Err(source) => {
                    return Err(MeshError::Refused {
                        peer,
                        address,
                        source,
                    });
                }
            }
        }
    }

    /// The dialler's part on one connection.
    async fn ask(
        &self,
        mut stream: TcpStream,
        me: Identity,
        peer: Rank,
    ) -> Result<Connected, HandshakeError> {
        stream.set_nodelay(true)?;
        let Some(Tls { data, .. }) = self.tls else {
            let agreed = self.ask_over(&mut stream, me, peer, [0; 32]).await?;
            return Ok(agreed.over(stream, None));
        };
        let connector = TlsConnector::from(data.client.clone());
        let stream = connector.connect(Tls::data_name(), stream).await;
        let mut stream = TlsStream::from(stream.map_err(of_tls)?);
        let channel = channel(&stream)?;
        let agreed = self.ask_over(&mut stream, me, peer, channel).await?;
        let (stream, connection) = apart(stream);
        Ok(agreed.over(stream, Some(connection)))
    }

    async fn ask_over<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        me: Identity,
        peer: Rank,
        channel: Channel,
    ) -> Result<Agreed, HandshakeError> {
        let proof = self.proof(me, channel);
        let found = handshake::dial(stream, proof, peer).await?;
        let shared = shared::accept(stream, peer, self.shares_memory()).await?;
        Ok(Agreed {
            peer: found,
            shared,
        })
    }

    /// The listener's part on one connection; returns who it is.
    async fn answer(
        &self,
        mut stream: TcpStream,
        me: Identity,
    ) -> Result<(Rank, Connected), HandshakeError> {
        stream.set_nodelay(true)?;
        let Some(Tls { data, .. }) = self.tls else {
            let agreed = self.answer_over(&mut stream, me, [0; 32]).await?;
            return Ok((agreed.peer.rank, agreed.over(stream, None)));
        };
        let acceptor = TlsAcceptor::from(data.server.clone());
        let stream = acceptor.accept(stream).await;
        let mut stream = TlsStream::from(stream.map_err(of_tls)?);
        let channel = channel(&stream)?;
        let agreed = self.answer_over(&mut stream, me, channel).await?;
        let (stream, connection) = apart(stream);
        Ok((agreed.peer.rank, agreed.over(stream, Some(connection))))
    }

    async fn answer_over<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        me: Identity,
        channel: Channel,
    ) -> Result<Agreed, HandshakeError> {
        let proof = self.proof(me, channel);
        let peer = handshake::answer(stream, proof).await?;
        let shared = shared::offer(stream, peer.rank, self.shares_memory()).await?;
        Ok(Agreed { peer, shared })
    }

    /// Waits until every higher rank has dialled in. `links` are those to them.
    ///
    /// Connections prove themselves side by side, so that one that says nothing keeps nobody waiting; how many may
    /// do so at a time is bounded, so that strangers can't use up the descriptors.
    pub(super) async fn accept(
        &self,
        me: Identity,
        links: &mut [Option<Connected>],
    ) -> Result<(), MeshError> {
        let first = self.rank.0 as usize + 1;
        let mut greetings = FuturesUnordered::new();
        // Oldest first.
        let mut unknown: VecDeque<(u64, AbortHandle)> = VecDeque::new();
        let mut number = 0;
        while links.iter().any(Option::is_none) {
            let greeted = tokio::select! {
                accepted = self.listener.accept() => {
                    let crowded = unknown.len() >= UNKNOWN || accepted.is_err();
                    if let Some((_, oldest)) = crowded.then(|| unknown.pop_front()).flatten() {
                        oldest.abort();
                    }
                    match accepted {
                        Ok((stream, address)) => {
                            let answer = tokio::time::timeout(PATIENCE, self.answer(stream, me));
                            let (answer, handle) = abortable(answer);
                            number += 1;
                            unknown.push_back((number, handle));
                            let name = number;
                            greetings.push(async move { (name, address, answer.await) });
                        }
                        // Most likely all descriptors are taken.
                        Err(error) => {
                            tracing::warn!("a connection can't be accepted: {error}");
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                    continue;
                }
                Some((name, address, greeted)) = greetings.next() => {
                    unknown.retain(|(other, _)| *other != name);
                    match greeted {
                        Ok(Ok(Ok(connected))) => (address, connected),
                        Ok(Ok(Err(error))) => {
                            tracing::debug!(%address, %error, "connection refused");
                            continue;
                        }
                        Ok(Err(_)) | Err(_) => {
                            tracing::debug!(%address, "connection dropped: it didn't prove itself in time");
                            continue;
                        }
                    }
                }
            };
            let (address, (rank, connected)) = greeted;
            let place = (rank.0 as usize).checked_sub(first);
            match place.and_then(|place| links.get_mut(place)) {
                Some(link) => *link = Some(connected),
                None => tracing::warn!(%address, %rank, "unexpected rank dialled in"),
            }
        }
        Ok(())
    }
}

/// What only the two ends of a session know.
fn channel(stream: &TlsStream<TcpStream>) -> Result<Channel, HandshakeError> {
    let label = b"EXPORTER-polestar-data";
    let exported = match stream {
        TlsStream::Client(stream) => {
            let (_, connection) = stream.get_ref();
            connection.export_keying_material([0; 32], label, None)
        }
        TlsStream::Server(stream) => {
            let (_, connection) = stream.get_ref();
            connection.export_keying_material([0; 32], label, None)
        }
    };
    exported.map_err(|error| HandshakeError::Tls(std::io::Error::other(error)))
}

/// A connection and its session. Nothing has been read from it that the session doesn't have.
fn apart(stream: TlsStream<TcpStream>) -> (TcpStream, Connection) {
    match stream {
        TlsStream::Client(stream) => {
            let (stream, connection) = stream.into_inner();
            (stream, connection.into())
        }
        TlsStream::Server(stream) => {
            let (stream, connection) = stream.into_inner();
            (stream, connection.into())
        }
    }
}

/// Whether a session failed by what the other end said, or by a broken connection.
fn of_tls(error: std::io::Error) -> HandshakeError {
    let said = error.kind() == ErrorKind::InvalidData
        || error
            .get_ref()
            .is_some_and(|inner| inner.is::<RustlsError>());
    match said {
        true => HandshakeError::Tls(error),
        false => HandshakeError::Broken(error),
    }
}
