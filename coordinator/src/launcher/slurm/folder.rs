//! The folder that a pool's jobs share with their coordinator: where it is, what lets them in, what they log.

use crate::launcher::local::tail;
use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// There is no place for what jobs need.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: can't be written; pool.slurm.folder names a folder that this user can write and all nodes have",
    path.display()
)]
pub struct FolderError {
    /// What could not be written.
    path: PathBuf,
    /// Why.
    #[source]
    source: std::io::Error,
}

/// The folder of one sweep, in `pool.slurm.folder`.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    sweep: String,
}

impl Folder {
    /// Where it is for a sweep of this name.
    ///
    /// # Errors
    /// When the folder that this runs in is gone.
    pub fn of(table_folder: &str, sweep: &str) -> Result<Folder, FolderError> {
        let given = Path::new(table_folder).join(sweep);
        let path = std::path::absolute(&given).map_err(|source| FolderError {
            path: given,
            source,
        })?;
        Ok(Folder {
            path,
            sweep: sweep.to_owned(),
        })
    }

    /// Makes it, for its user alone.
    ///
    /// # Errors
    /// [`FolderError`] names it.
    pub fn make(&self) -> Result<(), FolderError> {
        let mut builder = std::fs::DirBuilder::new();
        let logs = self.logs();
        builder.recursive(true).mode(0o700);
        builder
            .create(&logs)
            .map_err(|source| FolderError { path: logs, source })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// The file that holds where the coordinator is.
    pub(super) fn url(&self) -> PathBuf {
        self.path.join("url")
    }

    /// The file that holds what lets workers in.
    pub fn token(&self) -> PathBuf {
        self.path.join("token")
    }

    /// The script of the workers' jobs.
    pub fn workers_script(&self) -> PathBuf {
        self.path.join("workers.sbatch")
    }

    /// The script of the coordinator's job.
    pub fn coordinator_script(&self) -> PathBuf {
        self.path.join("coordinator.sbatch")
    }

    /// The name of jobs of a role. What tells one folder's jobs from another's is in it: SLURM's queue is everybody's,
    /// and two stores may have runs of one name.
    pub fn job_name(&self, role: &str) -> String {
        let place = blake3::hash(self.path.as_os_str().as_encoded_bytes()).to_hex();
        format!("polestar-{}-{}-{role}", self.sweep, &place[..6])
    }

    /// Writes a file at once or not at all, for its user alone.
    ///
    /// # Errors
    /// [`FolderError`] names it.
    pub fn write(&self, path: &Path, text: &str) -> Result<(), FolderError> {
        let beside = path.with_extension(format!("new-{}", std::process::id()));
        let write = || -> std::io::Result<()> {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, path)
        };
        write().map_err(|source| FolderError {
            path: path.to_owned(),
            source,
        })
    }

    /// The end of what a task's workers logged.
    pub(super) fn log_tail(&self, job: u64, task: u32) -> String {
        tail(&self.logs().join(format!("worker-{job}_{task}.log")))
    }
}
