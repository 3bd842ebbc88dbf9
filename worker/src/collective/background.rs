//! Started operations: one thread that runs them in order, behind the caller's back.

use super::{Cause, CollectiveError, FlightRecord, Pending, operation::Core};
use polestar_core::Rank;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
};

type Job = Box<dyn FnOnce(&mut Core) + Send>;

/// A started operation until somebody runs it: the thread, or whoever waits for it first.
type Slot = Arc<Mutex<Option<Job>>>;

/// The links of a rank, and the thread that uses them for what was started.
pub(super) struct Background {
    rank: Rank,
    core: Arc<Mutex<Core>>,
    started: Arc<Started>,
    thread: Option<Thread>,
}

struct Thread {
    jobs: mpsc::Sender<Slot>,
    handle: JoinHandle<()>,
}

/// How many started operations haven't ended.
#[derive(Default)]
struct Started {
    pending: Mutex<usize>,
    ended: Condvar,
}

/// Counts a started operation from its creation to its drop: whether it ran, panicked, or was thrown
/// away with the queue, nobody waits for it afterwards.
struct Ticket(Arc<Started>);

impl Ticket {
    fn new(started: &Arc<Started>) -> Ticket {
        *lock(&started.pending) += 1;
        Ticket(Arc::clone(started))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        *lock(&self.0.pending) -= 1;
        self.0.ended.notify_all();
    }
}

/// Makes a panic in an operation the end of the mesh: this rank's streams may be anywhere, and its
/// peers must not wait for the rest.
struct Unfinished<'a>(&'a mut Core);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Cause::Panicked);
        }
    }
}

impl Background {
    pub(super) fn new(rank: Rank, core: Core) -> Background {
        Background {
            rank,
            core: Arc::new(Mutex::new(core)),
            started: Arc::default(),
            thread: None,
        }
    }

    /// Waits for what was started before and takes the links for this thread.
    pub(super) fn now(&self) -> MutexGuard<'_, Core> {
        let mut pending = lock(&self.started.pending);
        while *pending > 0 {
            let woken = self.started.ended.wait(pending);
            pending = woken.unwrap_or_else(PoisonError::into_inner);
        }
        lock(&self.core)
    }

    /// Whether something that was started hasn't ended.
    pub(super) fn is_busy(&self) -> bool {
        *lock(&self.started.pending) > 0
    }

    /// Runs an operation behind those that were started before.
    pub(super) fn start<T: Send + 'static>(
        &mut self,
        operation: impl FnOnce(&mut Core) -> Result<T, CollectiveError> + Send + 'static,
    ) -> Pending<T> {
        let (sender, result) = mpsc::sync_channel(1);
        let ticket = Ticket::new(&self.started);
        // The thread works for whoever started it.
        let span = tracing::Span::current();
        let job: Job = Box::new(move |core| {
            let _entered = span.entered();
            let _ticket = ticket;
            let unfinished = Unfinished(core);
            let result = operation(unfinished.0);
            // Whoever started it may have stopped waiting.
            let _ = sender.send(result);
        });
        let slot: Slot = Arc::new(Mutex::new(Some(job)));
        match &mut self.thread {
            Some(thread) => thread.run(&slot),
            none => match Thread::spawn(&self.core) {
                Ok(thread) => none.insert(thread).run(&slot),
                // No thread to be had: the operation takes place here.
                Err(_) => run(&slot, &self.core),
            },
        }
        let rank = self.rank;
        let (core, started) = (Arc::clone(&self.core), Arc::clone(&self.started));
        Pending::running(move || {
            // A caller that waits at once need not wait for a thread to wake up: if nothing was started
            // before this, it does the work itself.
            if *lock(&started.pending) == 1 {
                // A panic is told by the result, wherever it happened.
                let _ = catch_unwind(AssertUnwindSafe(|| run(&slot, &core)));
            }
            let panicked = |_| {
                Err(CollectiveError {
                    rank,
                    operation: "a started operation",
                    sequence: 0,
                    cause: Cause::Panicked,
                    record: FlightRecord::default(),
                })
            };
            result.recv().unwrap_or_else(panicked)
        })
    }

    /// Ends the thread once its queue is empty.
    pub(super) fn join(&mut self) {
        if let Some(Thread { jobs, handle }) = self.thread.take() {
            drop(jobs);
            // A panic in there was told to whoever waited.
            let _ = handle.join();
        }
    }
}

impl Thread {
    fn spawn(core: &Arc<Mutex<Core>>) -> std::io::Result<Thread> {
        let (jobs, queue) = mpsc::channel::<Slot>();
        let core = Arc::clone(core);
        let handle = std::thread::Builder::new()
            .name("collectives".to_owned())
            .spawn(move || {
                for slot in queue {
                    run(&slot, &core);
                }
            })?;
        Ok(Thread { jobs, handle })
    }

    fn run(&self, slot: &Slot) {
        // If the thread has panicked, whoever waits finds the job where it is.
        drop(self.jobs.send(Arc::clone(slot)));
    }
}

/// Runs the operation unless somebody has begun it.
fn run(slot: &Slot, core: &Mutex<Core>) {
    // Its lock is held no longer than this: the operation may take a while.
    let job = lock(slot).take();
    if let Some(job) = job {
        job(&mut lock(core));
    }
}

/// A panic elsewhere leaves nothing half done that matters here: an operation's own result tells, and
/// [`Unfinished`] marks the links.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
