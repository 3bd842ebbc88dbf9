//! The folder of a launch's worker logs, and what launches that were killed left of theirs.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// What names of such folders begin with.
const PREFIX: &str = "polestar-workers-";
/// The file in one that its launch has locked for as long as it lives.
const ALIVE: &str = "alive";

/// There is no place for the logs.
#[derive(Debug, thiserror::Error)]
#[error(
    "workers log to a temporary folder, and {} can't hold one ({origin}); set TMPDIR to a folder that is there and writable",
    parent.display()
)]
pub struct LogsError {
    /// Where it would have been.
    parent: PathBuf,
    /// Who says so.
    origin: &'static str,
    #[source]
    source: std::io::Error,
}

/// The folder. It goes with this.
#[derive(Debug)]
pub struct Logs {
    folder: TempDir,
    /// Holds the lock that says that this launch lives.
    _alive: File,
}

impl Logs {
    /// Makes a folder in the system's temporary one, and removes those of launches that are dead.
    ///
    /// # Errors
    /// [`LogsError`] names the folder, and the variable that names another.
    pub fn new() -> Result<Logs, LogsError> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        Logs::in_folder(&parent).map_err(|source| LogsError {
            parent,
            origin: match std::env::var_os("TMPDIR") {
                Some(_) => "TMPDIR names it",
                None => "TMPDIR is not set",
            },
            source,
        })
    }

    fn in_folder(parent: &Path) -> std::io::Result<Logs> {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let mut alive = File::create_new(folder.path().join(ALIVE))?;
        alive.lock()?;
        // Before there is something in it, nobody takes it for one that was left behind.
        write!(alive, "{}", std::process::id())?;
        Ok(Logs {
            folder,
            _alive: alive,
        })
    }

    /// Where the logs lie.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes the folders whose launches have ended without doing so. What can't be removed belongs to somebody else.
fn sweep(parent: &Path) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if ours && is_dead(&entry.path()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether the launch of a folder has let go of its lock, as every process does that ends, however it ends.
fn is_dead(folder: &Path) -> bool {
    let look = || -> std::io::Result<bool> {
        let mut alive = File::open(folder.join(ALIVE))?;
        let begun = alive.read(&mut [0])? > 0;
        Ok(begun && alive.try_lock().is_ok())
    };
    look().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_dead_launches_are_swept() {
        let parent = tempfile::tempdir().unwrap();
        let lives = Logs::in_folder(parent.path()).unwrap();
        let killed = Logs::in_folder(parent.path()).unwrap();
        // As after a SIGKILL: the lock is gone, the folder is not.
        let left = killed.folder.keep();
        std::fs::write(left.join("local-1.log"), "text").unwrap();
        drop(killed._alive);
        let stranger = parent.path().join("polestar-workers-of-another-kind");
        std::fs::create_dir(&stranger).unwrap();
        let newborn = parent.path().join("polestar-workers-newborn");
        std::fs::create_dir(&newborn).unwrap();
        std::fs::write(newborn.join(ALIVE), "").unwrap();
        sweep(parent.path());
        assert!(!left.exists());
        assert!(lives.path().exists() && stranger.exists() && newborn.exists());
    }
}
