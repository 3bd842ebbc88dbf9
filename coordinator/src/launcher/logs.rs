//! The folder of a launch's worker logs, and what launches that were killed left of theirs.

use polestar_run::pool::{Token, TokenError};
use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

/// What names of such folders begin with.
const PREFIX: &str = "polestar-workers-";
/// The file in one that its launch has locked for as long as it lives.
const ALIVE: &str = "alive";
/// The file in one that says which run its workers are for, and the token that lets them in: a line each.
const POOL: &str = "pool";

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

/// The folder. It goes with this and all holds on it.
#[derive(Debug)]
pub struct Logs {
    folder: Arc<TempDir>,
    /// Holds the lock that says that this launch lives.
    _alive: File,
}

impl Logs {
    /// Makes a folder in the system's temporary one.
    ///
    /// # Errors
    /// [`LogsError`] names the folder, and the variable that names another.
    pub fn new() -> Result<Logs, LogsError> {
        let parent = std::env::temp_dir();
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
            folder: Arc::new(folder),
            _alive: alive,
        })
    }

    /// The token of a run's pool on this machine: that of another launch of the same run, whose workers may still be at
    /// work and look for their next coordinator, or else a new one. Removes what launches that are dead have left.
    ///
    /// # Errors
    /// When it can't be written down for the launch after this one.
    pub fn token_for(&self, run: &str) -> Result<Token, TokenError> {
        let parent = self.folder.path().parent();
        let all = parent.map(folders).unwrap_or_default();
        let inherited = all.iter().find_map(|folder| {
            let pool = std::fs::read_to_string(folder.join(POOL)).ok()?;
            let (of, token) = pool.split_once('\n')?;
            (of == run).then(|| Token::parse(token.trim(), POOL).ok())?
        });
        let token = inherited.map_or_else(Token::random, Ok)?;
        // The folder is its user's alone.
        let pool = self.folder.path().join(POOL);
        std::fs::write(&pool, format!("{run}\n{}\n", token.to_hex()))
            .map_err(|source| TokenError::Write { path: pool, source })?;
        for folder in all.iter().filter(|folder| is_dead(folder)) {
            // What can't be removed belongs to somebody else.
            let _ = std::fs::remove_dir_all(folder);
        }
        Ok(token)
    }

    /// Keeps the folder there.
    pub(crate) fn hold(&self) -> Arc<TempDir> {
        Arc::clone(&self.folder)
    }

    /// Where the logs lie.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// The folders of all launches.
fn folders(parent: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let ours = entries.filter(|e| e.file_name().to_string_lossy().starts_with(PREFIX));
    ours.map(|entry| entry.path()).collect()
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

    /// As after a SIGKILL: the lock is gone, the folder is not.
    fn kill(logs: Logs) -> PathBuf {
        let folder = Arc::into_inner(logs.folder).expect("nobody else holds it");
        let left = folder.keep();
        std::fs::write(left.join("local-1.log"), "text").unwrap();
        left
    }

    #[test]
    fn only_folders_of_dead_launches_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let lives = Logs::in_folder(parent.path()).unwrap();
        let left = kill(Logs::in_folder(parent.path()).unwrap());
        let stranger = parent.path().join("polestar-workers-of-another-kind");
        std::fs::create_dir(&stranger).unwrap();
        let newborn = parent.path().join("polestar-workers-newborn");
        std::fs::create_dir(&newborn).unwrap();
        std::fs::write(newborn.join(ALIVE), "").unwrap();
        let next = Logs::in_folder(parent.path()).unwrap();
        next.token_for("file:///runs/a").unwrap();
        assert!(!left.exists());
        assert!(lives.path().exists() && stranger.exists() && newborn.exists());
    }

    #[test]
    fn the_next_launch_of_a_run_that_was_killed_lets_its_workers_in() {
        let parent = tempfile::tempdir().unwrap();
        let killed = Logs::in_folder(parent.path()).unwrap();
        let token = killed.token_for("file:///runs/a").unwrap();
        kill(killed);
        let next = Logs::in_folder(parent.path()).unwrap();
        assert_eq!(next.token_for("file:///runs/a").unwrap(), token);
        // One that only stands still is replaced as well.
        let beside = Logs::in_folder(parent.path()).unwrap();
        assert_eq!(beside.token_for("file:///runs/a").unwrap(), token);
        kill(next);
        let other = Logs::in_folder(parent.path()).unwrap();
        assert_ne!(other.token_for("file:///runs/b").unwrap(), token);
    }
}
