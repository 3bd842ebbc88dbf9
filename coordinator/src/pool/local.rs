//! Worker processes on this machine: the coordinator runs its own program again.

use polestar_worker::allocator::allocator;
use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read, Seek, SeekFrom},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};
use tokio::process::{Child, Command};

/// Why a worker process can't be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program's own path is unknown.
    #[error("this program's own path can't be found")]
    OwnPath(#[source] std::io::Error),
    /// The log can't be written.
    #[error("{}: the worker's log can't be created", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The process can't be started.
    #[error("{}: can't be started as a worker", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Starts workers and keeps their number up.
#[derive(Debug)]
pub struct LocalPool {
    coordinator: SocketAddr,
    token: String,
    threads: usize,
    logs: PathBuf,
    started: u32,
    children: Vec<Process>,
    /// Processes whose worker has joined.
    joined: BTreeSet<u32>,
}

#[derive(Debug)]
struct Process {
    pid: u32,
    child: Child,
    log: PathBuf,
}

/// A worker process that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// The end of what it logged.
    pub log_tail: String,
    /// Whether it had joined the pool before.
    pub had_joined: bool,
}

impl LocalPool {
    /// A pool without processes yet. Logs go to `logs`.
    pub fn new(coordinator: SocketAddr, token: String, threads: usize, logs: &Path) -> LocalPool {
        LocalPool {
            coordinator,
            token,
            threads,
            logs: logs.to_owned(),
            started: 0,
            children: Vec::new(),
            joined: BTreeSet::new(),
        }
    }

    /// Starts one worker. It ends with this process: when its stream breaks, or when the handle is
    /// dropped.
    ///
    /// # Errors
    /// [`SpawnError`] names the program or the log.
    pub fn start(&mut self) -> Result<(), SpawnError> {
        self.started += 1;
        let program = std::env::current_exe().map_err(SpawnError::OwnPath)?;
        let log = self.logs.join(format!("worker-{}.log", self.started));
        let file = File::create(&log).map_err(|source| SpawnError::Log {
            path: log.clone(),
            source,
        })?;
        let child = Command::new(&program)
            .envs([allocator()])
            .args(["worker", "join", "--coordinator"])
            .arg(format!("http://{}", self.coordinator))
            // Not on the command line, where every user of the machine could read it.
            .env("POLESTAR_TOKEN", &self.token)
            .env("RAYON_NUM_THREADS", self.threads.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(file))
            // Ctrl-C is for the coordinator, which ends its workers in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| SpawnError::Start {
                path: program,
                source,
            })?;
        let pid = child.id().unwrap_or_default();
        self.children.push(Process { pid, child, log });
        Ok(())
    }

    /// The worker of a process has joined the pool.
    pub fn joined(&mut self, pid: u32) {
        self.joined.insert(pid);
    }

    /// The worker of a process is out of the pool. A process that is stopped rather than dead would
    /// keep its place for ever, so it is ended.
    pub fn left(&mut self, pid: u32) {
        for process in self.children.iter_mut().filter(|p| p.pid == pid) {
            // Failing means that it has ended already.
            let _ = process.child.start_kill();
        }
    }

    /// Takes out the processes that have ended.
    pub fn reap(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        self.children.retain_mut(|process| {
            match process.child.try_wait() {
                Ok(Some(status)) => {
                    ended.push(Ended {
                        status,
                        log_tail: tail(&process.log),
                        had_joined: self.joined.remove(&process.pid),
                    });
                    false
                }
                // Not ended, or not to be known: keep it.
                Ok(None) | Err(_) => true,
            }
        });
        ended
    }

    /// Waits until all processes have ended.
    pub async fn wait(&mut self) {
        for process in &mut self.children {
            // A process that can't be waited for is killed when its handle is dropped.
            let _ = process.child.wait().await;
        }
        self.children.clear();
    }
}

/// The last few lines of a log.
fn tail(path: &Path) -> String {
    const BYTES: u64 = 4096;
    const LINES: usize = 12;
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
