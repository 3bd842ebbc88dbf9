//! Collectives between the ranks of one generation.
//!
//! ```text
//! Collective ── in order, one at a time ──▶ Exchange ──▶ Link ──▶ connection, or shared memory
//! ```
//! An operation has a sequence number, the same on every rank and checked on arrival; a deadline; and
//! a place in the flight record that an error carries. It runs on the thread that calls it, or, if it
//! was *started*, on a thread of its own, behind those that were started before it.

mod exchange;
mod handshake;
mod link;
mod mesh;
mod operation;
mod ring;
mod shared;
#[cfg(test)]
mod tests;

pub use handshake::{HandshakeError, Secret};
pub use mesh::{Aborter, Mesh, MeshError, SharedMemory, listen};

use operation::Core;
use polestar_core::{Rank, WorldSize, tree::Node};
use std::{
    fmt,
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

/// Why one link failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The peer's process or connection is gone.
    #[error("the connection to {0} broke")]
    PeerLost(Rank),
    /// Nothing came in time.
    #[error("{from} sent nothing for {seconds} s")]
    Deadline {
        /// Whom we waited for.
        from: Rank,
        /// How long.
        seconds: u64,
    },
    /// Somebody called [`Aborter::abort`].
    #[error("the generation was aborted")]
    Aborted,
}

/// A failed collective: what it was, why, and what came before it on this rank.
#[derive(Debug, thiserror::Error)]
#[error("{operation} #{sequence} on {rank} failed: {cause}\nlast operations here: {record}")]
pub struct CollectiveError {
    /// This rank.
    pub rank: Rank,
    /// The operation's name.
    pub operation: &'static str,
    /// Its number, the same on every rank.
    pub sequence: u64,
    /// What went wrong.
    pub cause: Cause,
    /// The flight record.
    pub record: String,
}

/// What went wrong in a collective.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Cause {
    /// A link failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Ranks disagree about where they are.
    #[error("{from} sent a message of operation #{found}: the ranks are not in step")]
    OutOfStep {
        /// Who sent it.
        from: Rank,
        /// Its sequence number.
        found: u64,
    },
    /// Ranks disagree about sizes.
    #[error("{from} sent {found} bytes where {expected} were due")]
    Size {
        /// Who sent it.
        from: Rank,
        /// Bytes that came.
        found: usize,
        /// Bytes that were due.
        expected: usize,
    },
    /// The thread of started operations is gone: its code panicked.
    #[error("the thread that runs collectives ended")]
    Gone,
}

/// The partial sums that are left when siblings have been merged.
pub type Partials = Vec<(Node, Vec<f32>)>;

/// The collectives of one generation on one rank.
pub struct Collective {
    rank: Rank,
    world: WorldSize,
    core: Arc<Mutex<Core>>,
    aborter: Aborter,
    started: Arc<Started>,
    thread: Option<Thread>,
}

/// How many started operations haven't ended.
#[derive(Default)]
struct Started {
    pending: Mutex<usize>,
    ended: Condvar,
}

struct Thread {
    jobs: mpsc::Sender<Job>,
    handle: JoinHandle<()>,
}

type Job = Box<dyn FnOnce(&mut Core) + Send>;

impl fmt::Debug for Collective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collective")
            .field("rank", &self.rank)
            .field("world", &self.world)
            .finish_non_exhaustive()
    }
}

/// An operation that was started.
#[must_use = "an operation that nobody waits for may still fail"]
pub struct Pending<T>(State<T>);

enum State<T> {
    Ready(Result<T, CollectiveError>),
    Running {
        rank: Rank,
        result: mpsc::Receiver<Result<T, CollectiveError>>,
    },
}

impl<T> Pending<T> {
    /// What needs no operation.
    pub fn ready(value: T) -> Pending<T> {
        Pending(State::Ready(Ok(value)))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost, late or out of step.
    pub fn wait(self) -> Result<T, CollectiveError> {
        match self.0 {
            State::Ready(result) => result,
            State::Running { rank, result } => result.recv().unwrap_or_else(|_| {
                Err(CollectiveError {
                    rank,
                    operation: "a started operation",
                    sequence: 0,
                    cause: Cause::Gone,
                    record: String::new(),
                })
            }),
        }
    }
}

impl Collective {
    /// A world of one: nothing is ever sent.
    pub fn alone() -> Collective {
        let mesh = Mesh {
            rank: Rank(0),
            links: vec![None],
            aborter: Aborter::default(),
        };
        Collective::new(mesh, Duration::MAX)
    }

    /// Collectives over a mesh. An operation in which nothing moves for longer than `deadline` fails.
    pub fn new(mesh: Mesh, deadline: Duration) -> Collective {
        Collective {
            rank: mesh.rank,
            world: mesh.world(),
            aborter: mesh.aborter.clone(),
            core: Arc::new(Mutex::new(Core::new(mesh, deadline))),
            started: Arc::default(),
            thread: None,
        }
    }

    /// This rank.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// Ranks in the world.
    pub fn world(&self) -> WorldSize {
        self.world
    }

    /// Merges partial sums and deals out the result.
    ///
    /// `pieces` are all partial sums that exist, in lane order, and who holds them; `mine` the vectors
    /// of this rank's, in that order. Rank `r` gets the elements `cuts[r]` of what is left when
    /// siblings have been added up, left + right, as [`Counter`](polestar_core::tree::Counter) would.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost, late or out of step.
    pub fn reduce_scatter(
        &mut self,
        pieces: &[(Rank, Node)],
        cuts: &[Range<usize>],
        mine: &[Vec<f32>],
    ) -> Result<Partials, CollectiveError> {
        self.now().reduce_scatter(pieces, cuts, mine)
    }

    /// Starts a [reduce-scatter](Collective::reduce_scatter).
    pub fn start_reduce_scatter(
        &mut self,
        pieces: Vec<(Rank, Node)>,
        cuts: Vec<Range<usize>>,
        mine: Vec<Vec<f32>>,
    ) -> Pending<Partials> {
        if self.world.0 == 1 {
            return Pending::ready(operation::merge_alone(&pieces, mine));
        }
        self.start(move |core| core.reduce_scatter(&pieces, &cuts, &mine))
    }

    /// Whether [`Collective::start_reduce_scatter_in_place`] can merge these pieces: one a rank, and a
    /// sum that is one node.
    pub fn can_reduce_in_place(&self, pieces: &[(Rank, Node)]) -> bool {
        operation::has_one_root(pieces, self.world.0 as usize)
    }

    /// Starts a [reduce-scatter](Collective::reduce_scatter) of one piece a rank, which ends in the vector
    /// itself: on rank `r` its elements `cuts[r]` are the sum, and the others of no use. The cuts cover
    /// the vector in order.
    pub fn start_reduce_scatter_in_place(
        &mut self,
        pieces: Vec<(Rank, Node)>,
        cuts: Vec<Range<usize>>,
        mut whole: Vec<f32>,
    ) -> Pending<Vec<f32>> {
        if self.world.0 == 1 {
            return Pending::ready(whole);
        }
        self.start(move |core| {
            core.reduce_scatter_in_place(&pieces, &cuts, &mut whole)?;
            Ok(whole)
        })
    }

    /// Starts an [all-gather](Collective::all_gather) in a vector that has this rank's cut in its place.
    pub fn start_all_gather_in_place(
        &mut self,
        cuts: Vec<Range<usize>>,
        mut whole: Vec<f32>,
    ) -> Pending<Vec<f32>> {
        if self.world.0 == 1 {
            return Pending::ready(whole);
        }
        self.start(move |core| {
            core.all_gather_in_place(&cuts, &mut whole)?;
            Ok(whole)
        })
    }

    /// Adds up one vector a rank, in place: all ranks get the sum of those that `pieces` say are there.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost, late or out of step.
    ///
    /// # Panics
    /// Unless [`Collective::can_reduce_in_place`].
    pub fn all_reduce(
        &mut self,
        pieces: &[(Rank, Node)],
        cuts: &[Range<usize>],
        values: &mut [f32],
    ) -> Result<(), CollectiveError> {
        assert!(
            self.can_reduce_in_place(pieces),
            "an all-reduce needs one piece a rank, and one sum"
        );
        if self.world.0 == 1 {
            return Ok(());
        }
        let mut core = self.now();
        core.reduce_scatter_in_place(pieces, cuts, values)?;
        core.all_gather_in_place(cuts, values)
    }

    /// Every rank's cut, put together.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost, late or out of step.
    pub fn all_gather(
        &mut self,
        cuts: &[Range<usize>],
        mine: &[f32],
    ) -> Result<Vec<f32>, CollectiveError> {
        self.now().all_gather(cuts, mine)
    }

    /// Starts an [all-gather](Collective::all_gather).
    pub fn start_all_gather(
        &mut self,
        cuts: Vec<Range<usize>>,
        mine: Vec<f32>,
    ) -> Pending<Vec<f32>> {
        if self.world.0 == 1 {
            return Pending::ready(mine);
        }
        self.start(move |core| core.all_gather(&cuts, &mine))
    }

    /// Makes `values` those of rank `from`.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost, late or out of step.
    pub fn broadcast(&mut self, from: Rank, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.now().broadcast(from, values)
    }

    /// Every rank's bytes, by rank. Sizes may differ.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost, late or out of step.
    pub fn gather_bytes(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.now().gather_bytes(mine)
    }

    /// Returns when every rank has called it.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost, late or out of step.
    pub fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.gather_bytes(&[]).map(drop)
    }

    /// Waits for what was started before and takes the links for this thread.
    fn now(&self) -> MutexGuard<'_, Core> {
        let mut pending = lock(&self.started.pending);
        while *pending > 0 {
            let woken = self.started.ended.wait(pending);
            pending = woken.unwrap_or_else(PoisonError::into_inner);
        }
        lock(&self.core)
    }

    fn start<T: Send + 'static>(
        &mut self,
        operation: impl FnOnce(&mut Core) -> Result<T, CollectiveError> + Send + 'static,
    ) -> Pending<T> {
        let (sender, result) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |core| {
            // Whoever started it may have given up waiting.
            let _ = sender.send(operation(core));
        });
        let rank = self.rank;
        let thread = match &mut self.thread {
            Some(thread) => thread,
            none => match spawn(&self.core, &self.started) {
                Ok(thread) => none.insert(thread),
                // No thread to be had: the operation takes place here.
                Err(_) => {
                    job(&mut lock(&self.core));
                    return Pending(State::Running { rank, result });
                }
            },
        };
        *lock(&self.started.pending) += 1;
        if let Err(mpsc::SendError(job)) = thread.jobs.send(job) {
            // The thread is gone; dropping the job tells whoever waits.
            drop(job);
            *lock(&self.started.pending) -= 1;
        }
        Pending(State::Running { rank, result })
    }
}

fn spawn(core: &Arc<Mutex<Core>>, started: &Arc<Started>) -> std::io::Result<Thread> {
    let (jobs, queue) = mpsc::channel::<Job>();
    let (core, started) = (Arc::clone(core), Arc::clone(started));
    let handle = std::thread::Builder::new()
        .name("collectives".to_owned())
        .spawn(move || {
            for job in queue {
                job(&mut lock(&core));
                *lock(&started.pending) -= 1;
                started.ended.notify_all();
            }
        })?;
    Ok(Thread { jobs, handle })
}

impl Drop for Collective {
    fn drop(&mut self) {
        if let Some(Thread { jobs, handle }) = self.thread.take() {
            // Nobody wants what is still under way, and it may be waiting for a peer.
            if *lock(&self.started.pending) > 0 {
                self.aborter.abort();
            }
            drop(jobs);
            // A panic in there was told to whoever waited.
            let _ = handle.join();
        }
    }
}

/// A panic elsewhere leaves nothing half done that matters here: the operation's own result tells.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
