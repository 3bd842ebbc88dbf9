//! What the workers of a launch log, kept in the run's folder: their own files go with the launch.
//!
//! ```text
//! <run>/logs/<process>.log      the end of what it has logged, written again when there is more
//! ```
//! A worker says in its log when it begins as a rank of a trial ([`polestar_run::logged`]), so what follows has one.

use polestar_core::chain;
use polestar_store::Store;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::SeekFrom,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    fs,
    io::{AsyncReadExt, AsyncSeekExt},
};

/// The folder in a run's.
const FOLDER: &str = "logs";
/// What names of logs end with.
const END: &str = ".log";
/// Bytes of a log that are kept: a worker that complains at every step must not fill the store.
const KEPT: u64 = 256 << 10;
/// How often logs are looked at.
const PACE: Duration = Duration::from_secs(2);
/// What a log begins with that isn't whole: how much of it is missing.
const MISSING: &str = "bytes before this line are not kept";

/// Keeps the logs of a folder.
pub(crate) struct LogKeeper {
    folder: PathBuf,
    run: Store,
    /// Lengths of logs that are kept.
    kept: BTreeMap<String, u64>,
    /// Whether trouble was told and has not ended.
    troubled: bool,
}

impl LogKeeper {
    /// Of this folder, in that of a run.
    pub(crate) fn new(folder: &Path, run: &Store) -> LogKeeper {
        LogKeeper {
            folder: folder.to_owned(),
            run: run.clone(),
            kept: BTreeMap::new(),
            troubled: false,
        }
    }

    /// Keeps what there is, and what comes. Dropping the future loses nothing that [`keep`](LogKeeper::keep) doesn't
    /// find.
    pub(crate) async fn run(&mut self) -> Infallible {
        loop {
            self.keep().await;
            tokio::time::sleep(PACE).await;
        }
    }

    /// Keeps what there is.
    pub(crate) async fn keep(&mut self) {
        let kept = self.keep_grown().await;
        if let (Err(error), false) = (&kept, self.troubled) {
            tracing::warn!(
                "logs of workers can't be kept in the run: {}",
                chain(error.as_ref())
            );
        }
        self.troubled = kept.is_err();
    }

    async fn keep_grown(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut entries = fs::read_dir(&self.folder).await?;
        while let Some(entry) = entries.next_entry().await? {
            let name = entry.file_name().to_string_lossy().into_owned();
            let length = entry.metadata().await?.len();
            if !name.ends_with(END) || length == 0 || self.kept.get(&name) == Some(&length) {
                continue;
            }
            let text = end_of(&entry.path(), length).await?;
            self.run
                .put(&format!("{FOLDER}/{name}"), text.into())
                .await?;
            self.kept.insert(name, length);
        }
        Ok(())
    }
}

/// The end of a log of this length, from the beginning of a line on.
async fn end_of(path: &Path, length: u64) -> std::io::Result<Vec<u8>> {
    let mut file = fs::File::open(path).await?;
    let from = length.saturating_sub(KEPT);
    file.seek(SeekFrom::Start(from)).await?;
    let mut bytes = Vec::new();
    file.take(length - from).read_to_end(&mut bytes).await?;
    if from == 0 {
        return Ok(bytes);
    }
    let line = bytes.iter().position(|&byte| byte == b'\n');
    let cut = line.map_or(0, |end| end + 1);
    let mut text = format!("{} {MISSING}\n", from + cut as u64).into_bytes();
    text.extend(&bytes[cut..]);
    Ok(text)
}

/// A process's log as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptLog {
    /// The launcher's name of the process.
    pub process: String,
    /// Bytes before the text that are not kept.
    pub missing: u64,
    /// The rest.
    pub text: String,
}

/// The logs of a run's workers, by their names.
///
/// # Errors
/// The store's.
pub async fn kept_logs(run: &Store) -> Result<Vec<KeptLog>, polestar_store::Error> {
    let mut logs = Vec::new();
    for object in run.list(FOLDER).await? {
        let name = object.key.rsplit('/').next().unwrap_or_default();
        let Some(process) = name.strip_suffix(END) else {
            continue;
        };
        let bytes = run.get(&object.key).await?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let missing = text.split_once('\n').and_then(|(first, rest)| {
            let bytes = first.strip_suffix(MISSING)?.trim().parse().ok()?;
            Some((bytes, rest.to_owned()))
        });
        let (missing, text) = missing.unwrap_or((0, text));
        logs.push(KeptLog {
            process: process.to_owned(),
            missing,
            text,
        });
    }
    Ok(logs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn a_log_is_kept_while_it_grows_and_only_so_much_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = Store::open("memory://kept-logs").expect("a store");
        let mut keeper = LogKeeper::new(folder.path(), &run);
        let path = folder.path().join("local-1-1.log");
        let mut log = std::fs::File::create(&path).expect("writable");
        keeper.keep().await;
        assert_eq!(
            kept_logs(&run).await.expect("a store"),
            [],
            "nothing was logged"
        );
        log.write_all(b"one\n").expect("writable");
        keeper.keep().await;
        log.write_all(b"two\n").expect("writable");
        keeper.keep().await;
        let kept = kept_logs(&run).await.expect("a store");
        let whole = KeptLog {
            process: "local-1-1".to_owned(),
            missing: 0,
            text: "one\ntwo\n".to_owned(),
        };
        assert_eq!(kept, [whole]);
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        log.write_all(&line.repeat(4000)).expect("writable");
        log.write_all(b"last\n").expect("writable");
        keeper.keep().await;
        let kept = kept_logs(&run).await.expect("a store");
        let [kept] = &kept[..] else {
            panic!("one log");
        };
        assert!(kept.text.ends_with("x\nlast\n") && kept.text.starts_with('x'));
        assert!(kept.text.len() as u64 <= KEPT);
        assert_eq!(kept.missing + kept.text.len() as u64, 8 + 400_005);
    }
}
