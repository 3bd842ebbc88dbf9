//! Where worker processes come from: a [`Launcher`] starts and ends them, and tells what became of them.

mod chosen;
mod join;
mod local;
mod logs;
pub mod slurm;

pub use chosen::{Chosen, LauncherKind};
pub use join::Join;
pub use local::{Local, threads_each};
pub use logs::{Logs, LogsError};
pub use slurm::{Slurm, SlurmTable};

use polestar_run::pool::{CertificateFiles, Token};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

/// A launcher's name for a process that it started, unique in a run.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct LaunchId(pub String);

impl LaunchId {
    /// What it shares with processes that live and end together, as those of one job: all up to its last dot.
    pub fn unit(&self) -> &str {
        self.0.rsplit_once('.').map_or(&self.0, |(unit, _)| unit)
    }
}

impl fmt::Display for LaunchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How workers find their pool.
#[derive(Clone, Debug)]
pub struct Contact {
    /// Where the pool can be reached: at least one, the best first.
    pub addresses: Vec<SocketAddr>,
    /// What lets a worker in.
    pub token: Token,
    /// Whether it speaks TLS, as every pool does that other hosts can reach.
    pub tls: bool,
    /// A site's certificates, if its TLS is by them.
    pub certificates: Option<CertificateFiles>,
}

impl Contact {
    /// The best address, as workers take it.
    pub fn url(&self) -> String {
        self.urls().swap_remove(0)
    }

    /// The arguments of `worker join` for its certificates.
    pub fn certificate_arguments(&self) -> Vec<(&'static str, PathBuf)> {
        let files = self.certificates.iter();
        let each = files.flat_map(|files| {
            [
                ("--tls-certificate", files.certificate.clone()),
                ("--tls-key", files.key.clone()),
                ("--tls-ca", files.ca.clone()),
            ]
        });
        each.collect()
    }

    /// All addresses, the best first.
    pub fn urls(&self) -> Vec<String> {
        let scheme = if self.tls { "https" } else { "http" };
        let addresses = self.addresses.iter();
        addresses
            .map(|address| format!("{scheme}://{address}"))
            .collect()
    }
}

/// What became of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaunchEvent {
    /// It was started.
    Started {
        /// Which.
        launch: LaunchId,
    },
    /// It ended.
    Ended {
        /// Which.
        launch: LaunchId,
        /// How, for people.
        status: String,
        /// The end of what it logged.
        log_tail: String,
    },
    /// One could not be started.
    Failed {
        /// What happened and what caused it, in one line.
        message: String,
    },
}

/// How a process is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to go, and has a moment to end by itself: it may still tell a collector of its last steps.
    Asked,
    /// At once: what became of it isn't known, or it doesn't answer.
    Forced,
}

/// Starts and ends worker processes.
///
/// Nothing here waits for a process: what is asked for is begun, and what comes of it is told by
/// [`next`](Launcher::next).
pub trait Launcher: Send {
    /// Has this many processes, those that are being ended not counted: starts what is missing. It never ends one
    /// that runs; where there is a queue, it takes out of it what is too many.
    fn scale(&mut self, workers: u32);

    /// Ends a process, however deaf it is. One that has ended is no trouble.
    fn retire(&mut self, launch: &LaunchId, ending: Ending);

    /// The next thing that became of a process. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = LaunchEvent> + Send;

    /// Waits until all processes have ended by themselves, and ends those that haven't in time. Returns how many
    /// that were.
    fn close(&mut self, grace: Duration) -> impl Future<Output = usize> + Send;
}
