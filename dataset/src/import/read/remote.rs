//! Objects of stores: one, all under a prefix, or those that match a pattern.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::future::try_join_all;
use glob::Pattern;
use polestar_store::Store;
use tokio::runtime::{Builder, Runtime};

use super::expand::{Expanded, Input, Location, Skipped, no_data};
use super::layers::Source;
use super::local::{MATCHING, asked_for, fixed_part, is_pattern};
use super::{InputError, skip};

/// Bytes that are asked for at once.
const PART: u64 = 4 << 20;
/// Parts that are on their way at a time.
const PARTS: u64 = 4;

/// An object by the URL of its store and its key.
#[derive(Debug, Clone)]
pub(super) struct StoredObject {
    store: String,
    key: String,
    size: u64,
}

/// A runtime for what this thread asks of a network.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// The store of a URL and the key in it, as they are written: a key is not encoded.
fn split(url: &str) -> Option<(&str, &str)> {
    let host = url.find("://")? + 3;
    let end = url[host..]
        .find('/')
        .map_or(url.len(), |slash| host + slash);
    (end > host).then(|| (&url[..end], url[end..].trim_start_matches('/')))
}

pub(super) fn expand(url: &str, temp: &Arc<Path>, to: &mut Expanded) -> Result<(), InputError> {
    let (root, key) = split(url).ok_or_else(|| InputError::Name {
        given: url.into(),
        reason: "its scheme is followed by no bucket".into(),
    })?;
    let failed = |source| InputError::Store {
        path: url.into(),
        source,
    };
    let runtime = runtime().map_err(|source| InputError::Read {
        path: url.into(),
        source,
    })?;
    let store = Store::open(root).map_err(failed)?;
    let place = Place { root, temp };
    if !key.is_empty() && !key.ends_with('/') {
        match runtime.block_on(store.size(key)) {
            Ok(size) => {
                let name = key.rsplit('/').next().unwrap_or(key);
                to.inputs.push(place.input(name, key, size));
                return Ok(());
            }
            Err(polestar_store::Error::Missing { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let wild = is_pattern(key);
    let folder = match wild {
        true => fixed_part(key),
        false => key,
    };
    let folder = folder.trim_end_matches('/');
    let objects = runtime.block_on(store.list(folder)).map_err(failed)?;
    let pattern = match wild {
        true => Some(Pattern::new(key).map_err(|error| InputError::Name {
            given: url.into(),
            reason: format!("it is no pattern: {error}"),
        })?),
        false => None,
    };
    let matches = |key: &str| {
        pattern
            .as_ref()
            .is_none_or(|p| p.matches_with(key, MATCHING))
    };
    let keys: BTreeSet<&str> = objects.iter().map(|object| &*object.key).collect();
    let exists = |key: &str| keys.contains(key);
    let (mut found, mut skipped) = (0, vec![]);
    for object in objects.iter().filter(|object| matches(&object.key)) {
        let below = object.key.strip_prefix(folder).unwrap_or(&object.key);
        let below = below.trim_start_matches('/');
        // Some programs make folders of empty objects.
        let reason = match object.key.ends_with('/') {
            true => Some("a folder"),
            false => skip::reason(below)
                .filter(|_| !(wild && asked_for(key, below)))
                .or_else(|| skip::reason_in_corpus(&object.key, exists)),
        };
        match reason {
            Some(reason) => skipped.push(Skipped {
                name: format!("{root}/{}", object.key),
                reason,
            }),
            None => {
                found += 1;
                to.inputs.push(place.input(below, &object.key, object.size));
            }
        }
    }
    if found > 0 {
        to.skipped.append(&mut skipped);
        return Ok(());
    }
    Err(match (skipped.is_empty(), wild) {
        (false, _) => no_data(url, &skipped),
        (true, true) => InputError::NoMatch {
            pattern: url.into(),
        },
        (true, false) => InputError::Missing {
            path: url.into(),
            near: "; there is no object with this key or below it".into(),
        },
    })
}

/// A store, as errors call it.
struct Place<'a> {
    root: &'a str,
    temp: &'a Arc<Path>,
}

impl Place<'_> {
    fn input(&self, name: &str, key: &str, size: u64) -> Input {
        let shown = format!("{}/{key}", self.root);
        Input {
            name: name.into(),
            bytes: Some(size),
            identity: format!("{shown}\0{size}").into_bytes(),
            shown,
            location: Location::Store(StoredObject {
                store: self.root.into(),
                key: key.into(),
                size,
            }),
            temp: Arc::clone(self.temp),
        }
    }
}

impl StoredObject {
    /// The object from its first byte to its last.
    pub(super) fn open(&self) -> Result<Source<'static>, InputError> {
        let path = || format!("{}/{}", self.store, self.key);
        let runtime = runtime().map_err(|source| InputError::Read {
            path: path(),
            source,
        })?;
        // The client belongs to the runtime that uses it.
        let store = Store::open(&self.store).map_err(|source| InputError::Store {
            path: path(),
            source,
        })?;
        Ok(Box::new(Parts {
            runtime,
            store,
            object: self.clone(),
            at: 0,
            ready: VecDeque::new(),
        }))
    }
}

/// An object, read a few parts at a time; the store tries again what fails.
struct Parts {
    runtime: Runtime,
    store: Store,
    object: StoredObject,
    /// So much is asked for.
    at: u64,
    ready: VecDeque<Bytes>,
}

impl Parts {
    fn fetch(&mut self) -> io::Result<()> {
        let end = self.object.size.min(self.at + PART * PARTS);
        let begins = (self.at..end).step_by(PART as usize);
        let (store, key) = (&self.store, &self.object.key);
        let parts = begins.map(|begin| async move {
            let range = begin..end.min(begin + PART);
            let length = range.end - range.start;
            let part = store.get_range(key, range).await;
            let part = part.map_err(io::Error::other)?;
            match part.len() as u64 == length {
                true => Ok(part),
                false => Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the object has become shorter while it was read",
                )),
            }
        });
        let parts = self.runtime.block_on(try_join_all(parts))?;
        self.ready.extend(parts);
        self.at = end;
        Ok(())
    }
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ready.is_empty() && self.at < self.object.size {
            self.fetch()?;
        }
        let Some(part) = self.ready.front_mut() else {
            return Ok(0);
        };
        let length = part.len().min(buffer.len());
        part.copy_to_slice(&mut buffer[..length]);
        if part.is_empty() {
            self.ready.pop_front();
        }
        Ok(length)
    }
}
