//! The connections of one rank: a full mesh, each authenticated, with shared memory where both ends
//! are on one host. Lower ranks listen, higher ranks dial.

use super::{
    greet::Connected,
    handshake::{HandshakeError, HostId, Identity, Secret},
    link::Link,
};
use polestar_core::{Rank, WorldSize};
use polestar_run::pool::Tls;
use std::{
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// What a rank takes for its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locality {
    /// The machine: ranks on it talk through shared memory where it can be had, and reduce among
    /// themselves before anything goes over the network.
    #[default]
    Machine,
    /// A host of its own: connections to everybody.
    Apart,
    /// A made-up host that it shares with those that say the same, for tests on one machine.
    Simulated(u32),
}

impl Locality {
    fn host(self) -> HostId {
        match self {
            Locality::Machine => HostId::here(),
            Locality::Apart => HostId::apart(),
            Locality::Simulated(number) => HostId::of(&number.to_le_bytes()),
        }
    }
}

/// What a rank needs to find its peers.
#[derive(Debug)]
pub struct Join<'a> {
    /// This rank.
    pub rank: Rank,
    /// The port on which higher ranks dial in.
    pub listener: tokio::net::TcpListener,
    /// Where rank `r` listens, by rank.
    pub peers: &'a [SocketAddr],
    /// What proves that a rank belongs to the generation.
    pub secret: &'a Secret,
    /// How connections are sealed, where others could listen to them.
    pub tls: Option<&'a Tls>,
    /// Where it is.
    pub locality: Locality,
    /// How long it waits for the others.
    pub deadline: Duration,
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

impl Join<'_> {
    pub(super) fn shares_memory(&self) -> bool {
        self.locality == Locality::Machine
    }
}

/// All connections of one rank in one generation.
#[derive(Debug)]
pub struct Mesh {
    pub(super) rank: Rank,
    /// By rank; none for this one.
    pub(super) links: Vec<Option<Link>>,
    /// By rank.
    pub(super) hosts: Vec<HostId>,
    pub(super) aborter: Aborter,
}

/// Breaks a mesh from another thread: every waiting or later operation returns at once.
#[derive(Clone, Debug, Default)]
pub struct Aborter {
    pub(super) aborted: Arc<AtomicBool>,
    streams: Arc<Vec<TcpStream>>,
    hooks: Arc<Hooks>,
}

/// What else is to end with the connections.
#[derive(Default)]
struct Hooks(Mutex<Vec<Hook>>);

type Hook = Box<dyn Fn() + Send>;

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks")
    }
}

impl Hooks {
    /// Whoever panicked while holding them left them whole.
    fn lock(&self) -> MutexGuard<'_, Vec<Hook>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Aborter {
    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::SeqCst)
    }

    /// Shuts every connection. May be called more than once.
    pub fn abort(&self) {
        self.aborted.store(true, Ordering::SeqCst);
        for stream in self.streams.iter() {
            // A connection that is already gone is what we want.
            let _ = stream.shutdown(Shutdown::Both);
        }
        for hook in self.hooks.lock().iter() {
            hook();
        }
    }

    /// Has something else end with the connections, at once if they have ended. It may be called more than once.
    #[cfg(feature = "cuda")]
    pub(super) fn also(&self, hook: impl Fn() + Send + 'static) {
        let mut hooks = self.hooks.lock();
        if self.is_aborted() {
            hook();
        }
        hooks.push(Box::new(hook));
    }
}

impl Mesh {
    /// A world of one.
    pub(super) fn alone() -> Mesh {
        Mesh {
            rank: Rank(0),
            links: vec![None],
            hosts: vec![HostId::apart()],
            aborter: Aborter::default(),
        }
    }

    /// Connects to all peers and proves to each that we belong to the generation. Strangers that dial in
    /// are dropped and don't disturb.
    ///
    /// # Errors
    /// [`MeshError`], naming the rank that is missing or was refused.
    pub async fn connect(join: Join<'_>) -> Result<Mesh, MeshError> {
        let me = Identity {
            rank: join.rank,
            host: join.locality.host(),
        };
        let world = join.peers.len();
        let higher = join.rank.0 as usize + 1..world;
        let mut links: Vec<Option<Connected>> = Vec::new();
        links.resize_with(world, || None);
        let (lower, accepted) = links.split_at_mut(higher.start.min(world));
        let both = async { tokio::try_join!(join.dial(me, lower), join.accept(me, accepted)) };
        match tokio::time::timeout(join.deadline, both).await {
            Ok(connected) => connected?,
            Err(_) => {
                let absent = accepted
                    .iter()
                    .zip(higher)
                    .filter(|(link, _)| link.is_none());
                let absent: Vec<String> = absent.map(|(_, r)| Rank(r as u32).to_string()).collect();
                return Err(MeshError::Missing {
                    missing: match absent.is_empty() {
                        true => "a lower rank".to_owned(),
                        false => absent.join(", "),
                    },
                    seconds: join.deadline.as_secs(),
                });
            }
        };
        Mesh::over(me, links)
    }

    fn over(me: Identity, connected: Vec<Option<Connected>>) -> Result<Mesh, MeshError> {
        let mut links = Vec::with_capacity(connected.len());
        let mut hosts = Vec::with_capacity(connected.len());
        let mut streams = Vec::new();
        for (peer, connected) in connected.into_iter().enumerate() {
            let Some(connected) = connected else {
                links.push(None);
                hosts.push(me.host);
                continue;
            };
            let Connected { host, stream, way } = connected;
            let stream = stream.into_std()?;
            stream.set_nodelay(true)?;
            streams.push(stream.try_clone()?);
            hosts.push(host);
            links.push(Some(Link::new(Rank(peer as u32), stream, way)));
        }
        Ok(Mesh {
            rank: me.rank,
            links,
            hosts,
            aborter: Aborter {
                aborted: Arc::default(),
                streams: Arc::new(streams),
                hooks: Arc::default(),
            },
        })
    }

    pub(super) fn aborter(&self) -> Aborter {
        self.aborter.clone()
    }

    pub(super) fn world(&self) -> WorldSize {
        WorldSize(self.links.len() as u32)
    }

    /// Whether anything between ranks is encrypted.
    #[cfg(feature = "cuda")]
    pub(super) fn is_sealed(&self) -> bool {
        self.links.iter().flatten().any(Link::is_sealed)
    }

    /// A peer whose process or generation has ended, or ends within so much time, as far as its connection tells. Takes
    /// nothing from any.
    #[cfg(feature = "cuda")]
    pub(super) fn gone(&self, patience: Duration) -> Option<Rank> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let peers = self.links.iter().enumerate();
        let peers = peers.filter_map(|(rank, link)| Some((rank, link.as_ref()?)));
        let (ranks, mut watched): (Vec<usize>, Vec<PollFd<'_>>) = peers
            .map(|(rank, link)| (rank, PollFd::new(&link.stream, PollFlags::RDHUP)))
            .unzip();
        let patience = Timespec {
            tv_sec: patience.as_secs() as i64,
            tv_nsec: i64::from(patience.subsec_nanos()),
        };
        // A call that is interrupted is made again soon.
        poll(&mut watched, Some(&patience)).ok()?;
        let gone = watched.iter().position(|fd| !fd.revents().is_empty())?;
        Some(Rank(ranks[gone] as u32))
    }
}
