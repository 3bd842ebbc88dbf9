//! Worker processes on this machine: the coordinator runs its own program again.

use super::{Contact, Ending, LaunchEvent, LaunchId, Launcher, Logs};
use polestar_core::chain;
use polestar_run::pool::TOKEN_VARIABLE;
use polestar_worker::{agent::LAUNCH_VARIABLE, allocator::allocator};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    sync::{mpsc, oneshot},
    task::JoinSet,
};

/// Why a worker process can't be started.
#[derive(Debug, thiserror::Error)]
enum SpawnError {
    #[error("this program's own path can't be found")]
    OwnPath(#[source] std::io::Error),
    #[error("{}: the worker's log can't be created", path.display())]
    Log {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}: can't be started as a worker", path.display())]
    Start {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// A pool of processes on this machine. They outlive it, unless it is [closed](Launcher::close).
#[derive(Debug)]
pub struct Local {
    contact: Contact,
    threads: usize,
    logs: Logs,
    /// GPUs, each with the process that had it last; without any, nothing is said of GPUs.
    gpus: Vec<(String, Option<LaunchId>)>,
    /// Processes started so far; names them.
    started: u32,
    /// Those that run and are not being ended, with what ends them.
    running: BTreeMap<LaunchId, oneshot::Sender<Ending>>,
    /// One task a process, which owns it.
    watches: JoinSet<()>,
    events: mpsc::UnboundedReceiver<LaunchEvent>,
    sender: mpsc::UnboundedSender<LaunchEvent>,
}

impl Local {
    /// A GPU for a process that is to be started: one whose last process runs no more.
    fn gpu_for(&mut self, launch: &LaunchId) -> Option<String> {
        let running = &self.running;
        let is_free =
            |holder: &Option<LaunchId>| holder.as_ref().is_none_or(|h| !running.contains_key(h));
        let (gpu, holder) = self.gpus.iter_mut().find(|(_, holder)| is_free(holder))?;
        *holder = Some(launch.clone());
        Some(gpu.clone())
    }

    /// A pool without processes yet, each to compute with so many threads and, if there are any, on one of these
    /// GPUs, named as `CUDA_VISIBLE_DEVICES` names them.
    pub fn new(contact: Contact, threads: usize, logs: Logs, gpus: Vec<String>) -> Local {
        let (sender, events) = mpsc::unbounded_channel();
        Local {
            contact,
            threads,
            logs,
            gpus: gpus.into_iter().map(|gpu| (gpu, None)).collect(),
            started: 0,
            running: BTreeMap::new(),
            watches: JoinSet::new(),
            events,
            sender,
        }
    }

    /// Starts one worker.
    fn start(&mut self) -> Result<LaunchId, SpawnError> {
        self.started += 1;
        // Workers of a coordinator that was killed may be back under their old names.
        let launch = LaunchId(format!("local-{}-{}", std::process::id(), self.started));
        let program = std::env::current_exe().map_err(SpawnError::OwnPath)?;
        let log = self.logs.path().join(format!("{launch}.log"));
        let file = File::create(&log).map_err(|source| SpawnError::Log {
            path: log.clone(),
            source,
        })?;
        let certificates = self.contact.certificate_arguments().into_iter();
        let certificates =
            certificates.flat_map(|(flag, path)| [flag.into(), path.into_os_string()]);
        let gpu = self.gpu_for(&launch);
        let child = Command::new(&program)
            .envs([allocator()])
            .args(["worker", "join", "--coordinator"])
            .arg(self.contact.url())
            .args(certificates)
            // Not on the command line, where every user of the machine could read it.
            .env(TOKEN_VARIABLE, self.contact.token.to_hex())
            .env(LAUNCH_VARIABLE, &launch.0)
            .env("RAYON_NUM_THREADS", self.threads.to_string())
            .envs(gpu.map(|gpu| ("CUDA_VISIBLE_DEVICES", gpu)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(file))
            // Ctrl-C is for the coordinator, which ends its workers in order. If it dies, they look for the next one.
            .process_group(0)
            .spawn()
            .map_err(|source| SpawnError::Start {
                path: program,
                source,
            })?;
        let (end, ended) = oneshot::channel();
        self.running.insert(launch.clone(), end);
        let (sender, name) = (self.sender.clone(), launch.clone());
        self.watches.spawn(async move {
            let event = watch(child, name, log, ended).await;
            // Nobody listens any more when the pool is closed.
            let _ = sender.send(event);
        });
        Ok(launch)
    }
}

/// Threads for each of so many workers to share this machine.
pub fn threads_each(workers: u32) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / workers.max(1) as usize).max(1)
}

impl Launcher for Local {
    fn scale(&mut self, workers: u32) {
        while self.running.len() < workers as usize {
            let started = self.start();
            let failed = started.is_err();
            let event = match started {
                Ok(launch) => LaunchEvent::Started { launch },
                Err(error) => LaunchEvent::Failed {
                    message: chain(&error),
                },
            };
            let _ = self.sender.send(event);
            if failed {
                // The next one would fare no better at this moment.
                return;
            }
        }
    }

    fn retire(&mut self, launch: &LaunchId, ending: Ending) {
        if let Some(end) = self.running.remove(launch) {
            // Its watch is gone only if it has ended.
            let _ = end.send(ending);
        }
    }

    async fn next(&mut self) -> LaunchEvent {
        let event = self.events.recv().await;
        let event = event.expect("this pool holds a sender itself");
        if let LaunchEvent::Ended { launch, .. } = &event {
            self.running.remove(launch);
        }
        event
    }

    async fn close(&mut self, grace: Duration) -> usize {
        let all = async { while self.watches.join_next().await.is_some() {} };
        // Leaving early loses none of the watches that have not ended.
        let _ = tokio::time::timeout(grace, all).await;
        let left = self.watches.len();
        for (_, end) in std::mem::take(&mut self.running) {
            // They had all of `grace`.
            let _ = end.send(Ending::Forced);
        }
        while self.watches.join_next().await.is_some() {}
        left
    }
}

/// How long a worker that was asked to go may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(4);

/// Waits for a process's end, or brings it about.
async fn watch(
    mut child: Child,
    launch: LaunchId,
    log: PathBuf,
    end: oneshot::Receiver<Ending>,
) -> LaunchEvent {
    let status = tokio::select! {
        status = child.wait() => status,
        Ok(ending) = end => {
            let farewell = match ending {
                Ending::Asked => FAREWELL,
                Ending::Forced => Duration::ZERO,
            };
            match tokio::time::timeout(farewell, child.wait()).await {
                Ok(status) => status,
                Err(_) => {
                    // Failing means that it has ended already.
                    let _ = child.start_kill();
                    child.wait().await
                }
            }
        }
    };
    LaunchEvent::Ended {
        launch,
        status: match status {
            Ok(status) => status.to_string(),
            Err(error) => format!("its end can't be known: {error}"),
        },
        log_tail: tail(&log),
    }
}

/// The last few lines of a log.
pub(super) fn tail(path: &Path) -> String {
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
    match read() {
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(LINES)..].join("\n")
        }
        Err(error) => format!("{}: can't be read: {error}", path.display()),
    }
}
