//! Access to one prefix of an object store (local folder, memory, S3, Google Cloud Storage, Azure)
//! by URL.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, Once};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
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
    /// The environment holds no credentials for the service.
    #[error(
        "no credentials for {url}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY \
         (AWS_SESSION_TOKEN for temporary keys, AWS_REGION, AWS_ENDPOINT for other services, \
         AWS_SKIP_SIGNATURE=true for a public bucket, AWS_METADATA_ENDPOINT for an instance role)"
    )]
    Credentials {
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
}

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
    /// Opens `url`: a folder path (created when absent), or a `file`, `memory`, `s3`, `gs` or `az`
    /// URL. Credentials and endpoints come from the environment variables of the service (`AWS_*`,
    /// `GOOGLE_*`, `AZURE_*`). Nothing is requested from a remote store yet.
    pub fn open(url: &str) -> Result<Self> {
        let Some((scheme, _)) = url.split_once("://") else {
            return Self::open_folder(url, std::path::Path::new(url));
        };
        let parsed = Url::parse(url).map_err(|_| Error::Url { url: url.into() })?;
        let opened = |source: object_store::Error| Error::Open {
            url: url.into(),
            source: Box::new(source),
        };
        let inner: Arc<dyn ObjectStore> = match scheme {
            "file" => {
                let folder = parsed
                    .to_file_path()
                    .map_err(|()| Error::Url { url: url.into() })?;
                return Self::open_folder(url, &folder);
            }
            "memory" => {
                let name = parsed.host_str().unwrap_or_default().to_owned();
                let mut stores = MEMORY
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                Arc::clone(stores.entry(name).or_default()) as _
            }
            "s3" | "s3a" => {
                if !aws_credentials_in(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()))
                {
                    return Err(Error::Credentials { url: url.into() });
                }
                install_tls();
                Arc::new(
                    AmazonS3Builder::from_env()
                        .with_url(bucket(&parsed))
                        .build()
                        .map_err(opened)?,
                )
            }
            "gs" => {
                install_tls();
                Arc::new(
                    GoogleCloudStorageBuilder::from_env()
                        .with_url(bucket(&parsed))
                        .build()
                        .map_err(opened)?,
                )
            }
            "az" | "azure" | "abfs" | "abfss" => {
                install_tls();
                Arc::new(
                    MicrosoftAzureBuilder::from_env()
                        .with_url(bucket(&parsed))
                        .build()
                        .map_err(opened)?,
                )
            }
            _ => return Err(Error::Url { url: url.into() }),
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
        })
    }

    fn open_folder(given: &str, folder: &std::path::Path) -> Result<Self> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Open {
            url: given.into(),
            source,
        };
        if given.is_empty() {
            return Err(Error::Url { url: given.into() });
        }
        std::fs::create_dir_all(folder).map_err(|e| failed(e.into()))?;
        let folder = folder.canonicalize().map_err(|e| failed(e.into()))?;
        let url = Url::from_file_path(&folder).map_err(|()| Error::Url { url: given.into() })?;
        // A commit must outlive a power cut: what a manifest speaks of is on disk before it is.
        let inner = LocalFileSystem::new_with_prefix(&folder)
            .map_err(|e| failed(e.into()))?
            .with_fsync(true);
        Ok(Self {
            inner: Arc::new(inner),
            prefix: Path::default(),
            url: url.as_str().trim_end_matches('/').into(),
        })
    }

    /// The URL, absolute and without a trailing slash; opening it again gives the same store.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The part of this store under `prefix`.
    pub fn child(&self, prefix: &str) -> Self {
        let prefix = prefix.trim_matches('/');
        Self {
            inner: Arc::clone(&self.inner),
            prefix: Path::from(format!("{}/{prefix}", self.prefix)),
            url: format!("{}/{prefix}", self.url).into(),
        }
    }

    /// The whole object. An absent one is [`Error::Missing`].
    pub async fn get(&self, key: &str) -> Result<Bytes> {
        let read = async {
            self.inner
                .get(&self.path(key)?)
                .await?
                .bytes()
                .await
                .map_err(Raw::from)
        };
        read.await.map_err(|e| self.failed("read", key, e))
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
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let read = async { Ok(self.inner.get_range(&self.path(key)?, range).await?) };
        read.await.map_err(|e| self.failed("read", key, e))
    }

    /// The object's size in bytes.
    pub async fn size(&self, key: &str) -> Result<u64> {
        let head = async { Ok(self.inner.head(&self.path(key)?).await?.size) };
        head.await.map_err(|e| self.failed("read", key, e))
    }

    /// Whether an object has this key.
    pub async fn exists(&self, key: &str) -> Result<bool> {
        match self.size(key).await {
            Ok(_) => Ok(true),
            Err(Error::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes an object whole, over any that was there.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        let write = async { Ok(self.inner.put(&self.path(key)?, bytes.into()).await?) };
        write
            .await
            .map(drop)
            .map_err(|e| self.failed("write", key, e))
    }

    /// Writes an object only if its key is free.
    pub async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<Put> {
        let options = PutOptions::from(PutMode::Create);
        let write = async {
            Ok(self
                .inner
                .put_opts(&self.path(key)?, bytes.into(), options)
                .await?)
        };
        match write.await {
            Ok(_) => Ok(Put::Created),
            Err(Raw::Store(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            )) => Ok(Put::Exists),
            Err(error) => Err(self.failed("write", key, error)),
        }
    }

    /// Every object under `prefix` (a whole path segment; empty for all), sorted by key.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let list = async {
            let under = self.path(prefix)?;
            let found: Vec<_> = self.inner.list(Some(&under)).try_collect().await?;
            Ok(found)
        };
        let found: Vec<_> = list.await.map_err(|e| self.failed("list", prefix, e))?;
        let mut objects: Vec<Object> = found
            .into_iter()
            .filter_map(|meta| {
                let parts: Vec<_> = meta.location.prefix_match(&self.prefix)?.collect();
                let key = parts
                    .iter()
                    .map(AsRef::as_ref)
                    .collect::<Vec<&str>>()
                    .join("/");
                Some(Object {
                    key,
                    size: meta.size,
                })
            })
            .collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// Removes an object; removing an absent one is no error.
    pub async fn delete(&self, key: &str) -> Result<()> {
        let delete = async { Ok(self.inner.delete(&self.path(key)?).await?) };
        match delete.await.map_err(|e| self.failed("delete", key, e)) {
            Ok(()) | Err(Error::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn path(&self, key: &str) -> std::result::Result<Path, Raw> {
        Ok(Path::parse(format!("{}/{key}", self.prefix))?)
    }

    fn failed(&self, operation: &'static str, key: &str, error: Raw) -> Error {
        let (url, key) = (self.url.to_string(), key.to_owned());
        match error {
            Raw::Key(source) => Error::Key {
                url,
                key,
                source: source.into(),
            },
            Raw::Store(object_store::Error::NotFound { .. }) => Error::Missing { url, key },
            Raw::Store(source) => Error::Request {
                url,
                key,
                operation,
                source: source.into(),
            },
        }
    }
}

/// A failure before it knows its operation and key.
enum Raw {
    Key(object_store::path::Error),
    Store(object_store::Error),
}

impl From<object_store::path::Error> for Raw {
    fn from(error: object_store::path::Error) -> Self {
        Self::Key(error)
    }
}

impl From<object_store::Error> for Raw {
    fn from(error: object_store::Error) -> Self {
        Self::Store(error)
    }
}

/// The URL without its path: the builders take the bucket from it, and the prefix is kept in
/// [`Store`].
fn bucket(url: &Url) -> String {
    let mut bucket = url.clone();
    bucket.set_path("");
    bucket.into()
}

/// Whether the environment names any source of AWS credentials. Without one the client would ask
/// the instance metadata service, which outside of AWS means a long silence and an error about a
/// link-local address.
fn aws_credentials_in(set: impl Fn(&str) -> bool) -> bool {
    (set("AWS_ACCESS_KEY_ID") && set("AWS_SECRET_ACCESS_KEY"))
        || (set("AWS_WEB_IDENTITY_TOKEN_FILE") && set("AWS_ROLE_ARN"))
        || set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        || set("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        || set("AWS_SKIP_SIGNATURE")
        || set("AWS_METADATA_ENDPOINT")
}

/// reqwest is built without a default TLS provider; the process needs exactly one.
fn install_tls() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // An error means that the program has installed its own provider, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn conforms(store: Store) {
        assert_eq!(store.get_opt("a/b").await.unwrap(), None);
        assert_eq!(
            store.put_if_absent("a/b", "one".into()).await.unwrap(),
            Put::Created
        );
        assert_eq!(
            store.put_if_absent("a/b", "two".into()).await.unwrap(),
            Put::Exists
        );
        assert_eq!(store.get("a/b").await.unwrap(), "one");
        store.put("a/b", "three".into()).await.unwrap();
        assert_eq!(store.get_range("a/b", 1..3).await.unwrap(), "hr");
        store.put("z", "!".into()).await.unwrap();
        let listed = store.list("").await.unwrap();
        assert_eq!(
            listed
                .iter()
                .map(|o| (o.key.as_str(), o.size))
                .collect::<Vec<_>>(),
            [("a/b", 5), ("z", 1)]
        );

        let child = store.child("a");
        assert_eq!(child.get("b").await.unwrap(), "three");
        assert_eq!(child.list("").await.unwrap()[0].key, "b");
        let again = Store::open(child.url()).unwrap();
        assert_eq!(again.get("b").await.unwrap(), "three");

        store.delete("a/b").await.unwrap();
        store.delete("a/b").await.unwrap();
        assert!(!store.exists("a/b").await.unwrap());
        let error = store.get("a/b").await.unwrap_err().to_string();
        assert!(
            error.contains("'a/b'") && error.contains(store.url()),
            "{error}"
        );
    }

    #[tokio::test]
    async fn every_store_behaves_alike() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new folder");
        conforms(Store::open(path.to_str().unwrap()).unwrap()).await;
        conforms(Store::open("memory://conformance/deep/prefix").unwrap()).await;
    }

    #[test]
    fn aws_credentials_are_asked_for_by_name() {
        assert!(!aws_credentials_in(|_| false));
        assert!(!aws_credentials_in(|name| name == "AWS_ACCESS_KEY_ID"));
        assert!(aws_credentials_in(|name| name
            .starts_with("AWS_ACCESS_KEY")
            || name.starts_with("AWS_SECRET")));
        let error = Error::Credentials {
            url: "s3://b".into(),
        }
        .to_string();
        assert!(error.contains("AWS_ACCESS_KEY_ID") && error.contains("AWS_SECRET_ACCESS_KEY"));
        assert!(matches!(
            Store::open("ftp://host/x"),
            Err(Error::Url { .. })
        ));
    }
}
