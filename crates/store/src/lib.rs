//! Access to one prefix of an object store (local folder, memory, S3, Google Cloud Storage, Azure)
//! by URL.

mod attempt;
#[cfg(feature = "testing")]
pub mod conformance;
pub mod disk_cache;
#[cfg(any(test, feature = "testing"))]
pub mod faults;
mod folder;
mod folders;
mod parts;
mod remote;
mod swap;
mod traffic;

pub use remote::install_tls;
pub use swap::{Swap, Version};
pub use traffic::{Traffic, traffic};

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex};

use attempt::{Attempted, Pace, attempt};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetResultPayload, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use url::Url;

/// Why an operation on a store failed. Each variant names the operation and its subject; the cause
/// is the source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no URL of a store.
    #[error(
        "'{url}' is not a store URL; give a folder, file:///folder, memory://name, \
         s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
    )]
    Url {
        /// The text given.
        url: String,
    },
    /// There is no such folder.
    #[error(
        "there is no folder {}; {hint} (relative paths are taken from the folder that the command runs in)",
        path.display()
    )]
    NoFolder {
        /// Where it would be.
        path: std::path::PathBuf,
        /// What is called like it.
        hint: String,
    },
    /// The path begins with a `~` that is nobody's home.
    #[error(
        "'{path}': ~ stands for the folder that HOME names, and ~/x for x in it; write any other path in \
         full, or ./{path} for a folder that is called so"
    )]
    Home {
        /// The path given.
        path: String,
    },
    /// The environment holds no credentials for the service.
    #[error(
        "no credentials for {url}: set AWS_PROFILE to a profile of ~/.aws, or AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN for temporary keys, AWS_REGION, AWS_ENDPOINT_URL for \
         other services, AWS_SKIP_SIGNATURE=true for a public bucket, AWS_METADATA_ENDPOINT for an \
         instance role)"
    )]
    Credentials {
        /// The store.
        url: String,
    },
    /// The AWS files don't hold what was asked for.
    #[error("no credentials for {url}: {what}")]
    Profile {
        /// The store.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// The store overwrites what it was told not to.
    #[error(
        "{url} does not honour conditional puts (If-None-Match, If-Match): two coordinators could take \
         each other's place unnoticed. Garage up to 2.5 is such a server; use MinIO, Ceph, SeaweedFS or AWS \
         S3, or a folder that all workers share"
    )]
    Unfenced {
        /// The store.
        url: String,
    },
    /// The store could not be set up.
    #[error("could not open the store {url}")]
    Open {
        /// The store.
        url: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The key is not a valid object name.
    #[error("'{key}' is not a valid object key in {url}")]
    Key {
        /// The store.
        url: String,
        /// The key.
        key: String,
        /// What is wrong with it.
        source: Box<object_store::path::Error>,
    },
    /// No object has this key.
    #[error("there is no object '{key}' in {url}")]
    Missing {
        /// The store.
        url: String,
        /// The key.
        key: String,
    },
    /// A request failed.
    #[error("could not {operation} '{key}' in {url}")]
    Request {
        /// The store.
        url: String,
        /// The key or prefix.
        key: String,
        /// What was tried: "read", "write", "list", "delete".
        operation: &'static str,
        /// The store's answer.
        source: Box<object_store::Error>,
    },
}

type Result<T> = std::result::Result<T, Error>;

/// What a conditional put found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is new and holds the given bytes.
    Created,
    /// The key was taken; nothing was written.
    Exists,
}

/// One listed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The key, relative to the store's prefix.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
}

/// A prefix of an object store. Cheap to clone.
///
/// A client of a remote store belongs to the tokio runtime that first used it: code that runs on a
/// runtime of its own opens the URL again.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    prefix: Path,
    url: Arc<str>,
    /// For remote stores.
    pace: Option<Arc<Pace>>,
    /// Bytes of a part.
    part: usize,
    /// If it is a folder: what there was of it when it was opened. The rest of its path is in `prefix`.
    root: Option<Arc<std::path::Path>>,
}

/// Requests a second to a remote store, of one process.
const REQUESTS_PER_SECOND: u32 = 500;

/// What is larger than two of them goes up in parts of this many bytes, or of as many as 9,000 parts need.
const PART: usize = 16 << 20;

/// Only the URL: a client's settings may hold secrets.
impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// Process-wide stores behind `memory://name`.
static MEMORY: LazyLock<Mutex<BTreeMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

impl Store {
    /// Opens `url`: a folder path (`~` is the home folder), or a `file`, `memory`, `s3`, `gs` or `az`
    /// URL. A folder that isn't there is made by the first write. Credentials and endpoints come from the environment variables of the service (`AWS_*`,
    /// `GOOGLE_*`, `AZURE_*`). Nothing is requested from a remote store yet.
    pub fn open(url: &str) -> Result<Self> {
        let Some((scheme, _)) = url.split_once("://") else {
            return Self::open_folder(url);
        };
        let parsed = Url::parse(url).map_err(|_| Error::Url { url: url.into() })?;
        let mut pace = None;
        let inner: Arc<dyn ObjectStore> = match scheme {
            "file" => return Self::open_folder(url),
            "memory" => {
                let name = parsed.host_str().unwrap_or_default().to_owned();
                let mut stores = MEMORY
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                Arc::clone(stores.entry(name).or_default()) as _
            }
            _ => {
                pace = Some(Arc::new(Pace::new(REQUESTS_PER_SECOND)));
                remote::open(&parsed)?.ok_or_else(|| Error::Url { url: url.into() })?
            }
        };
        let prefix = Path::from_url_path(parsed.path()).map_err(|source| Error::Key {
            url: url.into(),
            key: parsed.path().into(),
            source: source.into(),
        })?;
        Ok(Self {
            inner,
            prefix,
            url: url.trim_end_matches('/').into(),
            pace,
            part: PART,
            root: None,
        })
    }

    /// The URL, absolute and without a trailing slash; opening it again gives the same store.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether reading from it is worth a copy on the local disk.
    pub fn is_remote(&self) -> bool {
        self.pace.is_some()
    }

    /// The part of this store under `prefix`.
    pub fn child(&self, prefix: &str) -> Self {
        let prefix = prefix.trim_matches('/');
        let below = format!("{}/{prefix}", self.prefix);
        Self {
            inner: Arc::clone(&self.inner),
            // As it is, like keys: escaping what is escaped already would be another place.
            prefix: Path::parse(&below).unwrap_or_else(|_| Path::from(below)),
            url: format!("{}/{prefix}", self.url).into(),
            pace: self.pace.clone(),
            part: self.part,
            root: self.root.clone(),
        }
    }

    /// The store whose [child](Store::child) this one is.
    ///
    /// # Errors
    /// [`Error::Url`] if nothing is above it.
    pub fn parent(&self) -> Result<Self> {
        match self.url.rsplit_once('/') {
            Some((above, _)) if !above.ends_with('/') => Self::open(above),
            _ => Err(Error::Url {
                url: format!("{}/..", self.url),
            }),
        }
    }

    /// Makes sure, with a throw-away object, that a put of a taken key is refused, and so is one over
    /// content that has changed. A store that ignores conditions can't tell two coordinators of one
    /// run from each other.
    ///
    /// # Errors
    /// [`Error::Unfenced`]; or the store's.
    pub async fn check_conditional_puts(&self) -> Result<()> {
        #[expect(
            clippy::disallowed_types,
            reason = "a name that nobody else takes, not an order"
        )]
        use std::hash::{BuildHasher, RandomState};
        #[expect(
            clippy::disallowed_types,
            reason = "a name that nobody else takes, not an order"
        )]
        let unique = RandomState::new().hash_one(std::process::id());
        let key = format!("conditional-put-check-{}-{unique:x}", std::process::id());
        let mut honoured = self.put_if_absent(&key, "first".into()).await? == Put::Created;
        honoured &= self.put_if_absent(&key, "second".into()).await? == Put::Exists;
        let seen = self.get_versioned(&key).await?;
        honoured &= seen.as_ref().is_some_and(|(bytes, _)| *bytes == "first");
        self.put(&key, "third".into()).await?;
        if let Some((_, outdated)) = seen {
            let swapped = self.compare_and_swap(&key, &outdated, "fourth".into());
            honoured &= matches!(swapped.await?, Swap::Changed);
        }
        self.delete(&key).await?;
        if honoured {
            return Ok(());
        }
        Err(Error::Unfenced {
            url: self.url.to_string(),
        })
    }

    /// Does something until it succeeds or the deadline is over.
    async fn attempt<T, F>(&self, bytes: u64, operation: impl FnMut() -> F) -> Attempted<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        attempt(self.pace.as_deref(), bytes, operation).await
    }

    /// The whole object. An absent one is [`Error::Missing`].
    #[tracing::instrument(level = "debug", name = "store.get", skip_all, fields(otel.kind = "client", polestar.key = key))]
    pub async fn get(&self, key: &str) -> Result<Bytes> {
        let path = self.path(key)?;
        let read = || async { self.inner.get(&path).await?.bytes().await };
        // Objects that are read whole are small or a corpus file, which waits long enough.
        let read = self.attempt(1 << 30, read).await;
        self.read(key, read)
    }

    /// The whole object, or `None` when there is none.
    pub async fn get_opt(&self, key: &str) -> Result<Option<Bytes>> {
        match self.get(key).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bytes `range` of an object.
    #[tracing::instrument(level = "debug", name = "store.get_range", skip_all, fields(otel.kind = "client", polestar.key = key, polestar.bytes = (range.end - range.start) as i64))]
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let path = self.path(key)?;
        let read = || self.inner.get_range(&path, range.clone());
        let read = self.attempt(range.end - range.start, read).await;
        self.read(key, read)
    }

    /// The object as a file of this machine, or `None` where it has to be asked for.
    pub async fn file(&self, key: &str) -> Result<Option<std::fs::File>> {
        if self.is_remote() {
            return Ok(None);
        }
        let path = self.path(key)?;
        let found = self.attempt(0, || self.inner.get(&path)).await.value;
        let found = found.map_err(|e| self.failed("read", key, e))?;
        Ok(match found.payload {
            GetResultPayload::File(file, _) => Some(file),
            GetResultPayload::Stream(_) => None,
        })
    }

    /// The object's size in bytes.
    pub async fn size(&self, key: &str) -> Result<u64> {
        let path = self.path(key)?;
        let head = self.attempt(0, || self.inner.head(&path)).await.value;
        Ok(head.map_err(|e| self.failed("read", key, e))?.size)
    }

    /// Whether an object has this key.
    pub async fn exists(&self, key: &str) -> Result<bool> {
        match self.size(key).await {
            Ok(_) => Ok(true),
            Err(Error::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes an object whole, over any that was there; a large one in parts. It is there whole or not
    /// at all.
    #[tracing::instrument(level = "debug", name = "store.put", skip_all, fields(otel.kind = "client", polestar.key = key, polestar.bytes = bytes.len() as i64))]
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        let path = self.path(key)?;
        let written = if bytes.len() > 2 * self.part {
            self.put_parts(&path, &bytes).await
        } else {
            let write = || self.inner.put(&path, bytes.clone().into());
            let written = self.attempt(bytes.len() as u64, write).await;
            written.value.map(drop)
        };
        let written = written.map(|()| traffic::written(bytes.len()));
        written.map_err(|e| self.failed("write", key, e))
    }

    /// Writes an object only if its key is free.
    #[tracing::instrument(level = "debug", name = "store.put_if_absent", skip_all, fields(otel.kind = "client", polestar.key = key, polestar.bytes = bytes.len() as i64))]
    pub async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<Put> {
        let path = self.path(key)?;
        let write = || {
            let options = PutOptions::from(PutMode::Create);
            self.inner.put_opts(&path, bytes.clone().into(), options)
        };
        let written = self.attempt(bytes.len() as u64, write).await;
        match written.value {
            Ok(_) => {
                traffic::written(bytes.len());
                Ok(Put::Created)
            }
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => {
                // An attempt whose answer was lost may have been the one that wrote it.
                let ours = written.repeated && self.get(key).await? == bytes;
                Ok(if ours { Put::Created } else { Put::Exists })
            }
            Err(error) => Err(self.failed("write", key, error)),
        }
    }

    /// Every object under `prefix` (a whole path segment; empty for all), sorted by key.
    #[tracing::instrument(level = "debug", name = "store.list", skip_all, fields(otel.kind = "client", polestar.key = prefix))]
    pub async fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let under = self.path(prefix)?;
        let list = || self.inner.list(Some(&under)).try_collect::<Vec<_>>();
        let found = self.attempt(0, list).await.value;
        let found = found.map_err(|e| self.failed("list", prefix, e))?;
        let mut objects: Vec<Object> = found
            .into_iter()
            .filter_map(|meta| {
                let parts: Vec<_> = meta.location.prefix_match(&self.prefix)?.collect();
                let key = parts
                    .iter()
                    .map(AsRef::as_ref)
                    .collect::<Vec<&str>>()
                    .join("/");
                let name = meta.location.filename().unwrap_or_default();
                let is_lock = self.root.is_some() && name.starts_with(swap::LOCK);
                (!is_lock).then_some(Object {
                    key,
                    size: meta.size,
                })
            })
            .collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// Removes an object; removing an absent one is no error.
    #[tracing::instrument(level = "debug", name = "store.delete", skip_all, fields(otel.kind = "client", polestar.key = key))]
    pub async fn delete(&self, key: &str) -> Result<()> {
        let path = self.path(key)?;
        let deleted = self.attempt(0, || self.inner.delete(&path)).await.value;
        match deleted.map_err(|e| self.failed("delete", key, e)) {
            Ok(()) | Err(Error::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What reading an object came to.
    fn read(&self, key: &str, read: Attempted<Bytes>) -> Result<Bytes> {
        if let Ok(bytes) = &read.value {
            traffic::read(bytes.len());
        }
        read.value.map_err(|e| self.failed("read", key, e))
    }

    fn path(&self, key: &str) -> Result<Path> {
        Path::parse(format!("{}/{key}", self.prefix)).map_err(|source| Error::Key {
            url: self.url.to_string(),
            key: key.to_owned(),
            source: source.into(),
        })
    }

    fn failed(&self, operation: &'static str, key: &str, error: object_store::Error) -> Error {
        let (url, key) = (self.url.to_string(), key.to_owned());
        match error {
            object_store::Error::NotFound { .. } => Error::Missing { url, key },
            source => Error::Request {
                url,
                key,
                operation,
                source: source.into(),
            },
        }
    }
}
