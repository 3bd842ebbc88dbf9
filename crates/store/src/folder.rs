//! Folders as stores: what a path that somebody typed means, and what is there of it.

use super::{Error, PART, Result, Store};
use object_store::{local::LocalFileSystem, path::Path};
use polestar_core::near;
use std::{
    ffi::OsString,
    path::{Component, PathBuf},
    sync::Arc,
};
use url::Url;

/// A folder that may not be there yet: the part of it that is, and the rest.
struct Folder {
    /// Absolute, without symbolic links.
    there: PathBuf,
    /// Names below `there`, of folders that the first write makes.
    missing: Vec<OsString>,
}

impl Folder {
    /// Finds how much of a path is there. Makes nothing.
    fn find(path: &std::path::Path) -> std::io::Result<Folder> {
        let path = std::path::absolute(path)?;
        let mut missing = Vec::new();
        let mut at = path.as_path();
        let there = loop {
            match at.canonicalize() {
                Ok(there) => break there,
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                Err(error) => {
                    let Some(last) = at.components().next_back() else {
                        return Err(error);
                    };
                    missing.push(last);
                    at = at.parent().ok_or(error)?;
                }
            }
        };
        let mut folder = Folder {
            there,
            missing: Vec::new(),
        };
        for component in missing.into_iter().rev() {
            match component {
                // Above a folder that isn't there is the one that it would be in.
                Component::ParentDir => {
                    if folder.missing.pop().is_none() {
                        folder.there.pop();
                    }
                }
                name => folder.missing.push(name.as_os_str().to_owned()),
            }
        }
        if !folder.there.is_dir() {
            let what = format!("{} is a file and no folder", folder.there.display());
            return Err(std::io::Error::new(std::io::ErrorKind::NotADirectory, what));
        }
        Ok(folder)
    }

    fn path(&self) -> PathBuf {
        let mut path = self.there.clone();
        path.extend(&self.missing);
        path
    }

    /// What is there beside the first part that is missing, and called most like it.
    fn nearest(&self) -> Option<String> {
        let wanted = self.missing.first()?.to_string_lossy().into_owned();
        let entries = std::fs::read_dir(&self.there).ok()?;
        let names = entries.filter_map(|entry| {
            let entry = entry.ok()?;
            // Through symbolic links, too.
            let is_folder = entry.path().is_dir();
            is_folder.then(|| entry.file_name().to_string_lossy().into_owned())
        });
        let mut names: Vec<String> = names.collect();
        names.sort();
        let near = near::nearest(&wanted, names.iter().map(String::as_str), 0.8);
        near.first().map(|&name| name.to_owned())
    }
}

/// What a path means as it was typed: `~` is the home folder, as in a shell, which doesn't look into files; and a
/// path with `%20` that was cut out of a `file://` URL is the one that the URL meant, unless there is a folder that
/// is called so.
fn typed(given: &str, home: Option<&str>) -> Result<PathBuf> {
    let unusable = || Error::Url { url: given.into() };
    // A URL that lacks a slash or two would become a folder called `file:`.
    let schemes = [
        "file:", "memory:", "s3:", "s3a:", "gs:", "az:", "azure:", "abfs:", "abfss:",
    ];
    if given.is_empty() || schemes.iter().any(|scheme| given.starts_with(scheme)) {
        return Err(unusable());
    }
    let path = match given.strip_prefix('~') {
        None => PathBuf::from(given),
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let home = home.ok_or_else(|| Error::Home { path: given.into() })?;
            PathBuf::from(home).join(rest.trim_start_matches('/'))
        }
        Some(_) => return Err(Error::Home { path: given.into() }),
    };
    if !given.contains('%') || path.exists() {
        return Ok(path);
    }
    let decoded = std::path::absolute(&path).ok().and_then(|path| {
        let path = path.to_str()?.to_owned();
        of_url(&format!("file://{path}"))
    });
    Ok(decoded.filter(|decoded| decoded.exists()).unwrap_or(path))
}

/// The path of a `file://` URL. `#` and `?` mean nothing in one, so they belong to names.
fn of_url(url: &str) -> Option<PathBuf> {
    let url = url.replace('#', "%23").replace('?', "%3F");
    Url::parse(&url).ok()?.to_file_path().ok()
}

impl Store {
    /// A folder, by its path or its `file://` URL. It is made by the first write: whoever only looks leaves
    /// nothing behind.
    pub(super) fn open_folder(given: &str) -> Result<Self> {
        let folder = found(given)?;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Open {
            url: given.into(),
            source,
        };
        let path = folder.path();
        let url = Url::from_file_path(&path).map_err(|()| Error::Url { url: given.into() })?;
        // A commit must outlive a power cut: what a manifest speaks of is on disk before it is.
        let inner = LocalFileSystem::new_with_prefix(&folder.there)
            .map_err(|e| failed(e.into()))?
            .with_fsync(true);
        let missing: Option<Vec<&str>> = folder.missing.iter().map(|name| name.to_str()).collect();
        let missing = missing.ok_or_else(|| Error::Url { url: given.into() })?;
        let prefix = Path::parse(missing.join("/")).map_err(|e| failed(e.into()))?;
        Ok(Self {
            inner: Arc::new(inner),
            prefix,
            url: url.as_str().trim_end_matches('/').into(),
            pace: None,
            part: PART,
            root: Some(folder.there.into()),
        })
    }

    /// Opens what must be there already, for commands that only look: a folder that isn't there is an error that
    /// names what is called like it. Remote stores have no folders; what they lack is told by whoever reads.
    ///
    /// # Errors
    /// [`Error::NoFolder`], and those of [`Store::open`].
    pub fn open_existing(url: &str) -> Result<Self> {
        let is_folder = !url.contains("://") || url.starts_with("file://");
        if is_folder {
            let folder = found(url)?;
            if !folder.missing.is_empty() {
                return Err(Error::no_folder(&folder));
            }
        }
        Self::open(url)
    }
}

impl Store {
    /// Where an object is a file of this machine, whether it is there or not; `None` in any other kind of store.
    pub fn local_path(&self, key: &str) -> Option<PathBuf> {
        let path = self.path(key).ok()?;
        Some(self.root.as_ref()?.join(path.as_ref()))
    }

    /// Removes the folder of a prefix under which no object is left. Only file systems have such folders, and one
    /// that somebody writes to at this moment stays.
    pub async fn remove_empty_folder(&self, prefix: &str) {
        let (Some(root), Ok(path)) = (self.root.clone(), self.path(prefix)) else {
            return;
        };
        let folder = root.join(path.as_ref());
        // It is in nobody's way if it can't be removed, as when it isn't empty.
        let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir(folder)).await;
    }
}

/// The folder of a path or a `file://` URL.
fn found(given: &str) -> Result<Folder> {
    let path = match given.starts_with("file://") {
        true => of_url(given).ok_or_else(|| Error::Url { url: given.into() })?,
        false => typed(given, std::env::var("HOME").ok().as_deref())?,
    };
    Folder::find(&path).map_err(|source| Error::Open {
        url: given.into(),
        source: source.into(),
    })
}

impl Error {
    fn no_folder(folder: &Folder) -> Error {
        let nearest = folder.nearest().map(|name| folder.there.join(name));
        let hint = match nearest {
            Some(nearest) => format!("did you mean {}?", nearest.display()),
            None => format!("{} has nothing called like it", folder.there.display()),
        };
        Error::NoFolder {
            path: folder.path(),
            hint,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn looking_leaves_nothing_and_the_first_write_makes_the_folder() {
        let sandbox = tempfile::tempdir().unwrap();
        let path = sandbox.path().join("runs/mistyped/../a 100% new one");
        let path = path.to_str().unwrap();
        let store = Store::open(path).unwrap();
        assert_eq!(store.list("").await.unwrap(), []);
        assert!(!store.exists("run.json").await.unwrap());
        assert!(matches!(
            Store::open_existing(path),
            Err(Error::NoFolder { .. })
        ));
        assert_eq!(std::fs::read_dir(sandbox.path()).unwrap().count(), 0);

        store
            .child("run")
            .put("run.json", "{}".into())
            .await
            .unwrap();
        assert!(
            sandbox
                .path()
                .join("runs/a 100% new one/run/run.json")
                .is_file()
        );
        assert!(!sandbox.path().join("runs/mistyped").exists());
        assert!(store.url().ends_with("/runs/a%20100%25%20new%20one"));
        store.remove_empty_folder("run").await;
        assert!(
            store.exists("run/run.json").await.unwrap(),
            "it isn't empty"
        );
        // By its path, its URL, and the URL without its scheme.
        for given in [path, store.url(), &store.url()["file://".len()..]] {
            let again = Store::open_existing(given).unwrap();
            assert_eq!(again.url(), store.url());
            assert!(again.exists("run/run.json").await.unwrap(), "{given}");
        }
        store.delete("run/run.json").await.unwrap();
        store.remove_empty_folder("run").await;
        assert!(!sandbox.path().join("runs/a 100% new one/run").exists());
    }

    #[test]
    fn a_folder_that_is_not_there_is_told_with_the_nearest_name() {
        let sandbox = tempfile::tempdir().unwrap();
        std::fs::create_dir(sandbox.path().join("first-3a91")).unwrap();
        std::fs::write(sandbox.path().join("file"), "").unwrap();
        let refused = |name: &str| {
            let path = sandbox.path().join(name);
            let error = Store::open_existing(path.to_str().unwrap()).unwrap_err();
            polestar_core::chain::chain(&error)
        };
        let text = refused("first-3a9");
        assert!(
            text.contains("did you mean") && text.contains("/first-3a91?"),
            "{text}"
        );
        assert!(refused("file").contains("is a file and no folder"));
    }

    #[test]
    fn a_path_means_what_a_shell_would_take_it_for() {
        let of = |given: &str| typed(given, Some("/home/me"));
        assert_eq!(of("~").unwrap(), PathBuf::from("/home/me"));
        assert_eq!(of("~/runs").unwrap(), PathBuf::from("/home/me/runs"));
        assert_eq!(of("a/~").unwrap(), PathBuf::from("a/~"));
        for refused in ["~other/runs", "file:/runs", "memory:/runs", ""] {
            of(refused).unwrap_err();
        }
        assert!(matches!(typed("~/runs", None), Err(Error::Home { .. })));
        assert_eq!(
            of_url("file:///a b%20c#d?e").unwrap(),
            PathBuf::from("/a b c#d?e")
        );
    }
}
