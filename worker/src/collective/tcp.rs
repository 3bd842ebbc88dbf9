//! The TCP transport: a full mesh of authenticated connections.
//!
//! One thread a peer drains its connection into a queue, so that no order of sends and receives
//! can deadlock. Lower ranks listen, higher ranks dial.

use super::{
    LinkError, Message, Transport,
    handshake::{self, HandshakeError, Secret},
};
use crate::{Rank, WorldSize};
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

/// A message is at most this long: a guard against a broken stream being read as a length.
const LONGEST: u64 = 1 << 40;

/// A peer proves itself within this time or is dropped.
const HANDSHAKE: Duration = Duration::from_secs(5);

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
    rank: Rank,
    world: WorldSize,
    peers: Vec<Option<Peer>>,
    aborted: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Peer {
    stream: TcpStream,
    inbox: mpsc::Receiver<Message>,
}

/// Breaks a mesh from another thread: every waiting or later operation returns at once.
#[derive(Clone, Debug, Default)]
pub struct Aborter {
    aborted: Arc<AtomicBool>,
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
        deadline: Duration,
    ) -> Result<(Mesh, Aborter), MeshError> {
        let world = WorldSize(peers.len() as u32);
        let mut streams: Vec<Option<tokio::net::TcpStream>> = Vec::new();
        streams.resize_with(peers.len(), || None);

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
                dialled.push(stream);
            }
            Ok::<_, MeshError>(dialled)
        };
        let higher = rank.0 as usize + 1..peers.len();
        let mut accepted: Vec<Option<tokio::net::TcpStream>> = Vec::new();
        accepted.resize_with(higher.len(), || None);
        let accept = async {
            while accepted.iter().any(Option::is_none) {
                let (mut stream, address) = listener.accept().await?;
                let answer = handshake::answer(&mut stream, secret, rank);
                // A stranger that says nothing must not keep the others waiting.
                let Ok(answered) = tokio::time::timeout(HANDSHAKE, answer).await else {
                    tracing::warn!(%address, "connection dropped: it said nothing");
                    continue;
                };
                match answered {
                    Ok(peer) if higher.contains(&(peer.0 as usize)) => {
                        accepted[peer.0 as usize - higher.start] = Some(stream);
                    }
                    Ok(peer) => tracing::warn!(%address, %peer, "unexpected rank dialled in"),
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
        for (slot, stream) in streams.iter_mut().zip(dialled) {
            *slot = Some(stream);
        }
        for (slot, stream) in streams[higher.start.min(peers.len())..]
            .iter_mut()
            .zip(accepted)
        {
            *slot = stream;
        }
        Mesh::over(rank, world, streams)
    }

    fn over(
        rank: Rank,
        world: WorldSize,
        streams: Vec<Option<tokio::net::TcpStream>>,
    ) -> Result<(Mesh, Aborter), MeshError> {
        let mut peers = Vec::with_capacity(streams.len());
        let mut handles = Vec::new();
        for (r, stream) in streams.into_iter().enumerate() {
            let Some(stream) = stream else {
                peers.push(None);
                continue;
            };
            let stream = stream.into_std()?;
            stream.set_nonblocking(false)?;
            stream.set_nodelay(true)?;
            handles.push(stream.try_clone()?);
            let (outbox, inbox) = mpsc::channel();
            let reader = stream.try_clone()?;
            std::thread::Builder::new()
                .name(format!("from-rank-{r}"))
                .spawn(move || drain(reader, &outbox))?;
            peers.push(Some(Peer { stream, inbox }));
        }
        let aborter = Aborter {
            aborted: Arc::default(),
            streams: Arc::new(handles),
        };
        let mesh = Mesh {
            rank,
            world,
            peers,
            aborted: Arc::clone(&aborter.aborted),
        };
        Ok((mesh, aborter))
    }

    fn peer(&mut self, rank: Rank) -> Result<&mut Peer, LinkError> {
        if self.aborted.load(Ordering::SeqCst) {
            return Err(LinkError::Aborted);
        }
        self.peers
            .get_mut(rank.0 as usize)
            .and_then(Option::as_mut)
            .ok_or(LinkError::PeerLost(rank))
    }

    fn lost(&self, peer: Rank) -> LinkError {
        if self.aborted.load(Ordering::SeqCst) {
            LinkError::Aborted
        } else {
            LinkError::PeerLost(peer)
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        for peer in self.peers.iter().flatten() {
            // Ends the reader thread; the peer has either read everything or is gone.
            let _ = peer.stream.shutdown(Shutdown::Both);
        }
    }
}

impl Transport for Mesh {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn world(&self) -> WorldSize {
        self.world
    }

    fn send(&mut self, to: Rank, sequence: u64, payload: &[u8]) -> Result<(), LinkError> {
        let stream = &mut self.peer(to)?.stream;
        let mut header = [0; 16];
        header[..8].copy_from_slice(&sequence.to_le_bytes());
        header[8..].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        let written = stream
            .write_all(&header)
            .and_then(|()| stream.write_all(payload));
        written.map_err(|_| self.lost(to))
    }

    fn receive(&mut self, from: Rank, deadline: Duration) -> Result<Message, LinkError> {
        match self.peer(from)?.inbox.recv_timeout(deadline) {
            Ok(message) => Ok(message),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(LinkError::Deadline {
                from,
                seconds: deadline.as_secs(),
            }),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(self.lost(from)),
        }
    }
}

/// Reads messages until the connection ends or nobody wants them.
fn drain(mut stream: TcpStream, outbox: &mpsc::Sender<Message>) {
    loop {
        let mut header = [0; 16];
        if stream.read_exact(&mut header).is_err() {
            return;
        }
        let field = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let (sequence, length) = (field(0), field(8));
        if length > LONGEST {
            return;
        }
        let mut message = Message::with_len(sequence, length as usize);
        if stream.read_exact(message.bytes_mut()).is_err() || outbox.send(message).is_err() {
            return;
        }
    }
}
