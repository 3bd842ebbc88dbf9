//! The connections of one rank: a full mesh, each authenticated, with shared memory where both ends
//! are on one host. Lower ranks listen, higher ranks dial.

use super::{
    handshake::{self, HandshakeError, Secret},
    link::Link,
    shared::{self, Shared},
};
use polestar_core::{Rank, WorldSize};
use std::{
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// A peer proves itself within this time or is dropped.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Whether ranks on one host talk through shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SharedMemory {
    /// Where it can be had.
    #[default]
    Auto,
    /// Never: as if every rank had a host of its own.
    Off,
}

/// Opens the port on which this rank's peers will dial in.
///
/// # Errors
/// When the address can't be bound.
pub async fn listen(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind(address).await
}

/// Why the mesh could not be built.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// A peer's port can't be reached.
    #[error("{peer} at {address} can't be reached")]
    Connect {
        /// The peer.
        peer: Rank,
        /// Where it should listen.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A peer is not who it should be.
    #[error("{peer} at {address} was refused")]
    Refused {
        /// The peer.
        peer: Rank,
        /// Where it listens.
        address: SocketAddr,
        /// Why.
        #[source]
        source: HandshakeError,
    },
    /// Some ranks never dialled in.
    #[error("{missing} did not dial in within {seconds} s")]
    Missing {
        /// The ranks, as text.
        missing: String,
        /// How long we waited.
        seconds: u64,
    },
    /// The local socket failed.
    #[error("the local port failed")]
    Socket(#[from] std::io::Error),
}

/// All connections of one rank in one generation.
#[derive(Debug)]
pub struct Mesh {
    pub(super) rank: Rank,
    /// By rank; none for this one.
    pub(super) links: Vec<Option<Link>>,
    pub(super) aborter: Aborter,
}

type Connected = (tokio::net::TcpStream, Option<Shared>);

/// Breaks a mesh from another thread: every waiting or later operation returns at once.
#[derive(Clone, Debug, Default)]
pub struct Aborter {
    pub(super) aborted: Arc<AtomicBool>,
    streams: Arc<Vec<TcpStream>>,
}

impl Aborter {
    /// Shuts every connection. May be called more than once.
    pub fn abort(&self) {
        self.aborted.store(true, Ordering::SeqCst);
        for stream in self.streams.iter() {
            // A connection that is already gone is what we want.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Mesh {
    /// Connects to all peers and proves to each that we belong to the generation.
    ///
    /// `peers[r]` is where rank `r` listens. Strangers that dial in are dropped and don't disturb.
    ///
    /// # Errors
    /// [`MeshError`], naming the rank that is missing or was refused.
    pub async fn connect(
        rank: Rank,
        listener: tokio::net::TcpListener,
        peers: &[SocketAddr],
        secret: &Secret,
        memory: SharedMemory,
        deadline: Duration,
    ) -> Result<(Mesh, Aborter), MeshError> {
        let wanted = memory == SharedMemory::Auto;
        let mut links: Vec<Option<Connected>> = Vec::new();
        links.resize_with(peers.len(), || None);

        let dial = async {
            let mut dialled = Vec::new();
            for lower in 0..rank.0 {
                let (peer, address) = (Rank(lower), peers[lower as usize]);
                let mut stream =
                    tokio::net::TcpStream::connect(address)
                        .await
                        .map_err(|source| MeshError::Connect {
                            peer,
                            address,
                            source,
                        })?;
                handshake::dial(&mut stream, secret, rank, peer)
                    .await
                    .map_err(|source| MeshError::Refused {
                        peer,
                        address,
                        source,
                    })?;
                let shared = shared::accept(&mut stream, peer, wanted).await?;
                dialled.push((stream, shared));
            }
            Ok::<_, MeshError>(dialled)
        };
        let higher = rank.0 as usize + 1..peers.len();
        let mut accepted: Vec<Option<Connected>> = Vec::new();
        accepted.resize_with(higher.len(), || None);
        let accept = async {
            while accepted.iter().any(Option::is_none) {
                let (mut stream, address) = listener.accept().await?;
                let answer = async {
                    let peer = handshake::answer(&mut stream, secret, rank).await?;
                    let shared = shared::offer(&mut stream, peer, wanted).await?;
                    Ok::<_, HandshakeError>((peer, shared))
                };
                // A stranger that says nothing must not keep the others waiting.
                let Ok(answered) = tokio::time::timeout(HANDSHAKE, answer).await else {
                    tracing::warn!(%address, "connection dropped: it said nothing");
                    continue;
                };
                match answered {
                    Ok((peer, shared)) if higher.contains(&(peer.0 as usize)) => {
                        accepted[peer.0 as usize - higher.start] = Some((stream, shared));
                    }
                    Ok((peer, _)) => tracing::warn!(%address, %peer, "unexpected rank dialled in"),
                    Err(error) => tracing::warn!(%address, %error, "connection refused"),
                }
            }
            Ok::<_, MeshError>(())
        };
        let both = async { tokio::try_join!(dial, accept) };
        let joined = tokio::time::timeout(deadline, both).await;
        let (dialled, ()) = match joined {
            Ok(result) => result?,
            Err(_) => {
                let missing = accepted
                    .iter()
                    .zip(higher.clone())
                    .filter(|(stream, _)| stream.is_none())
                    .map(|(_, r)| Rank(r as u32).to_string())
                    .collect::<Vec<_>>();
                let missing = if missing.is_empty() {
                    "a lower rank".to_owned()
                } else {
                    missing.join(", ")
                };
                return Err(MeshError::Missing {
                    missing,
                    seconds: deadline.as_secs(),
                });
            }
        };
        for (slot, connected) in links.iter_mut().zip(dialled) {
            *slot = Some(connected);
        }
        for (slot, connected) in links[higher.start.min(peers.len())..]
            .iter_mut()
            .zip(accepted)
        {
            *slot = connected;
        }
        Mesh::over(rank, links)
    }

    fn over(rank: Rank, connected: Vec<Option<Connected>>) -> Result<(Mesh, Aborter), MeshError> {
        let mut links = Vec::with_capacity(connected.len());
        let mut streams = Vec::new();
        for (peer, connected) in connected.into_iter().enumerate() {
            let Some((stream, shared)) = connected else {
                links.push(None);
                continue;
            };
            let stream = stream.into_std()?;
            stream.set_nodelay(true)?;
            streams.push(stream.try_clone()?);
            links.push(Some(Link::new(Rank(peer as u32), stream, shared)));
        }
        let aborter = Aborter {
            aborted: Arc::default(),
            streams: Arc::new(streams),
        };
        let mesh = Mesh {
            rank,
            links,
            aborter: aborter.clone(),
        };
        Ok((mesh, aborter))
    }

    pub(super) fn world(&self) -> WorldSize {
        WorldSize(self.links.len() as u32)
    }
}
