//! Workers as jobs of a SLURM cluster.
//!
//! ```text
//!  Slurm (a Launcher) ──orders──▶ keeper ──▶ pool (pure): rows of the queue → what happened, what to do
//!        ▲                        │   ▲
//!        └──────── events ────────┘   └── calls (sbatch, squeue, sacct, scancel), parse
//! ```
//! The batch scripts that it submits are those that `coordinator slurm render` prints. Jobs find the coordinator by a
//! [`Folder`] that all nodes have. They outlive a coordinator that is killed: the next one takes over what waits in
//! the queue.

mod calls;
mod folder;
mod keeper;
mod parse;
mod pool;
mod render;
mod state;
mod status;
mod table;

pub use calls::CallError;
pub use folder::{Folder, FolderError};
pub use render::{LaunchOptions, coordinator_script, worker_script};
pub use table::{CoordinatorJob, SlurmTable};

pub(crate) use calls::{Call, Commands, Programs};
pub(crate) use parse::{queue, submitted};
pub(crate) use status::{describe, is_at_work};

use super::{Ending, LaunchEvent, LaunchId, Launcher};
use keeper::{Habits, Keeper, Order};
use polestar_run::pool::Token;
use pool::{Pool, Start};
use std::time::Duration;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// Tasks of an array where the cluster doesn't say how many it takes: SLURM's own default.
const USUAL_LARGEST_ARRAY: u32 = 1001;

/// What a pool of jobs needs of its coordinator.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where workers find it.
    pub url: String,
    /// What lets them in.
    pub token: Token,
    /// Threads of a worker; 0 leaves that to what its job has.
    pub threads: usize,
    /// Workers to have at first, for who submits the script by hand.
    pub workers: u32,
}

/// Why a pool of jobs can't be had.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder that its jobs share.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// SLURM isn't there.
    #[error("workers can't be submitted to SLURM")]
    Slurm(#[from] CallError),
}

/// A pool of jobs.
#[derive(Debug)]
pub struct Slurm {
    orders: mpsc::UnboundedSender<Order>,
    events: mpsc::UnboundedReceiver<LaunchEvent>,
    /// Ends when nobody can give orders any more.
    _keeper: JoinHandle<()>,
}

impl Slurm {
    /// A pool that has submitted nothing yet. Writes what its jobs need.
    ///
    /// # Errors
    /// [`StartError`] when the folder can't be written, or there is no SLURM here.
    pub async fn start(
        table: &SlurmTable,
        folder: &Folder,
        place: &Place,
    ) -> Result<Slurm, StartError> {
        let settings = Programs.run(Call::settings()).await?;
        let largest = parse::largest_array(&settings).unwrap_or(USUAL_LARGEST_ARRAY);
        let tasks = place.workers.div_ceil(table.workers_per_job());
        folder.make()?;
        folder.write(&folder.token(), &format!("{}\n", place.token.to_hex()))?;
        folder.write(&folder.url(), &format!("{}\n", place.url))?;
        let script = worker_script(table, folder, place.threads, tasks.min(largest));
        folder.write(&folder.workers_script(), &script)?;
        Ok(Slurm::with(Programs, table, folder, largest))
    }

    fn with<C: Commands>(
        commands: C,
        table: &SlurmTable,
        folder: &Folder,
        largest_array: u32,
    ) -> Slurm {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (outbox, events) = mpsc::unbounded_channel();
        let poll = Duration::from_secs_f64(table.poll_seconds);
        let pool = Pool::new(table.workers_per_job());
        let habits = Habits {
            poll,
            largest_array,
        };
        let keeper = Keeper::new(commands, pool, folder.clone(), habits, outbox);
        Slurm {
            orders,
            events,
            _keeper: tokio::spawn(keeper.run(inbox)),
        }
    }

    fn order(&self, order: Order) {
        // The keeper lives as long as this; if it panicked, `next` says so.
        let _ = self.orders.send(order);
    }
}

impl Launcher for Slurm {
    fn scale(&mut self, workers: u32) {
        self.order(Order::Scale(workers));
    }

    /// Every task has a while to end by itself before its job is asked to end it.
    fn retire(&mut self, launch: &LaunchId, _ending: Ending) {
        // A worker that joined by itself is no job of ours.
        if let Some(start) = Start::of(launch) {
            self.order(Order::Retire(start));
        }
    }

    async fn next(&mut self) -> LaunchEvent {
        match self.events.recv().await {
            Some(event) => event,
            // After the end there is no more news.
            None => std::future::pending().await,
        }
    }

    async fn close(&mut self, grace: Duration) -> usize {
        let (reply, ended) = oneshot::channel();
        self.order(Order::Close { grace, reply });
        ended.await.unwrap_or(0)
    }
}
