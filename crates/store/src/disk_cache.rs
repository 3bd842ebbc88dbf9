//! Row groups of remote corpora on the local disk, so that every worker of a machine and every epoch
//! fetches them once.
//!
//! Files are named by the digest of their content and written whole before they get that name: a
//! reader can't see half of one, processes need no lock, and one that went bad on the disk is noticed
//! by its digest and fetched again.

use bytes::Bytes;
use polestar_core::digest::hex;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

/// Where the cache lies: a folder, or `off`. Without it, `polestar/corpus` in the user's cache folder.
pub const FOLDER: &str = "POLESTAR_CACHE";
/// Its limit in GiB.
pub const LIMIT: &str = "POLESTAR_CACHE_GIB";

const DEFAULT_GIB: f64 = 20.0;

/// A folder with a limit.
#[derive(Debug)]
pub struct DiskCache {
    folder: PathBuf,
    limit: u64,
    /// Bytes there, as far as this process knows: what others add is seen when it looks again.
    bytes: AtomicU64,
}

impl DiskCache {
    /// The cache of this process, if its environment doesn't turn it off and there is a place for it.
    pub fn of_this_process() -> Option<Arc<DiskCache>> {
        static CACHE: LazyLock<Option<Arc<DiskCache>>> = LazyLock::new(|| {
            let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
            let folder = match variable(FOLDER) {
                Some(off) if off == "off" => return None,
                Some(folder) => PathBuf::from(folder),
                None => {
                    let home = || Some(PathBuf::from(variable("HOME")?).join(".cache"));
                    let base = variable("XDG_CACHE_HOME")
                        .map(PathBuf::from)
                        .or_else(home)?;
                    base.join("polestar").join("corpus")
                }
            };
            let limit = variable(LIMIT).and_then(|gib| gib.to_str()?.parse().ok());
            let limit = limit.filter(|gib: &f64| *gib >= 0.0).unwrap_or(DEFAULT_GIB);
            // Without a place for it, everything works as it does without a cache.
            DiskCache::open(folder, (limit * f64::from(1 << 30)) as u64)
                .ok()
                .map(Arc::new)
        });
        CACHE.clone()
    }

    /// A cache in a folder, of at most `limit` bytes.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn open(folder: PathBuf, limit: u64) -> io::Result<DiskCache> {
        fs::create_dir_all(&folder)?;
        let bytes = entries(&folder)?.iter().map(|entry| entry.bytes).sum();
        Ok(DiskCache {
            folder,
            limit,
            bytes: AtomicU64::new(bytes),
        })
    }

    /// What has this digest, checked.
    #[expect(
        clippy::disallowed_methods,
        reason = "the order in which cached files go, which nothing else depends on"
    )]
    pub fn get(&self, digest: &str) -> Option<Bytes> {
        let path = self.folder.join(digest);
        let bytes = fs::read(&path).ok()?;
        if hex(&bytes) != digest {
            let _ = fs::remove_file(&path);
            return None;
        }
        // What was used last goes last. A file system that can't note it loses a little speed.
        if let Ok(file) = fs::File::open(&path) {
            let _ = file.set_modified(SystemTime::now());
        }
        Some(bytes.into())
    }

    /// Keeps it, if there is room or can be made. A disk that is full or broken is no error: the store
    /// has it.
    pub fn put(&self, digest: &str, bytes: &Bytes) {
        let size = bytes.len() as u64;
        if size > self.limit {
            return;
        }
        let written = tempfile::NamedTempFile::new_in(&self.folder).and_then(|file| {
            fs::write(file.path(), bytes)?;
            Ok(file.persist(self.folder.join(digest))?)
        });
        if written.is_ok() && self.bytes.fetch_add(size, Ordering::SeqCst) + size > self.limit {
            let _ = self.make_room();
        }
    }

    /// Removes what was not used for longest, down to nine tenths of the limit.
    fn make_room(&self) -> io::Result<()> {
        let mut entries = entries(&self.folder)?;
        entries.sort_by_key(|entry| entry.used);
        let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        for entry in entries {
            if bytes <= self.limit / 10 * 9 {
                break;
            }
            // Somebody else may have removed it.
            let _ = fs::remove_file(&entry.path);
            bytes -= entry.bytes;
        }
        self.bytes.store(bytes, Ordering::SeqCst);
        Ok(())
    }
}

struct Entry {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

fn entries(folder: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Removed by somebody else in the meantime.
        let Ok(meta) = entry.metadata() else { continue };
        entries.push(Entry {
            path: entry.path(),
            bytes: meta.len(),
            used: meta.modified()?,
        });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use polestar_core::digest::hex;

    #[test]
    fn it_keeps_its_limit_and_what_was_used_last_and_heals() {
        let folder = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(folder.path().into(), 10_000).unwrap();
        let content = |i: u8| Bytes::from(vec![i; 2000]);
        let name = |i| hex(&content(i));
        let age = |i, seconds| {
            let file = fs::File::open(folder.path().join(name(i))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
                .unwrap();
        };
        for i in 0..5 {
            cache.put(&name(i), &content(i));
            age(i, u64::from(i));
        }
        assert_eq!(
            cache.get(&name(0)).unwrap(),
            content(0),
            "used, so the next oldest goes"
        );
        cache.put(&name(5), &content(5));
        assert_eq!(cache.get(&name(1)), None);
        assert!(cache.get(&name(0)).is_some() && cache.get(&name(5)).is_some());
        let held: u64 = entries(folder.path())
            .unwrap()
            .iter()
            .map(|e| e.bytes)
            .sum();
        assert!(held <= 10_000, "{held}");

        fs::write(folder.path().join(name(5)), "rot").unwrap();
        assert_eq!(cache.get(&name(5)), None);
        assert!(!folder.path().join(name(5)).exists());
        cache.put("large", &Bytes::from(vec![0; 20_000]));
        assert_eq!(cache.get("large"), None, "more than the limit is not kept");
    }
}
