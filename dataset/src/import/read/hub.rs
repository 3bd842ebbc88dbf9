//! Data sets of the Hugging Face Hub: files of a revision, from the local cache that the Hub's own libraries
//! keep where it has them, from the Hub otherwise.
//!
//! ```text
//! <endpoint>/api/datasets/<owner>/<name>/revision/<revision>?blobs=true   the commit and its files
//! <endpoint>/datasets/<owner>/<name>/resolve/<commit>/<path>              a file
//! <cache>/datasets--<owner>--<name>/refs/<revision>                       the commit when it was fetched
//! <cache>/datasets--<owner>--<name>/snapshots/<commit>/<path>             a file
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use glob::Pattern;
use serde::Deserialize;
use url::Url;
use walkdir::WalkDir;

use super::expand::{Expanded, Input, Location, Skipped, no_data};
use super::http::{self, Asking, Page};
use super::local::{self, MATCHING, asked_for, is_pattern};
use super::{InputError, near, skip};

/// What the Hub's libraries take from the environment.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) endpoint: String,
    pub(super) token: Option<Arc<str>>,
    pub(super) cache: PathBuf,
    /// Nothing is asked of the Hub.
    pub(super) offline: bool,
}

impl Settings {
    /// From `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE` and what stands in for
    /// them.
    pub(super) fn of_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::of(&variable)
    }

    pub(super) fn of(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let path = |name: &str| variable(name).map(PathBuf::from);
        let caches = path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")));
        let usual = || caches.unwrap_or_default().join("huggingface");
        let home = path("HF_HOME").unwrap_or_else(usual);
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let kept = || {
            let file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
            std::fs::read_to_string(file).ok()
        };
        let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN"));
        let token = token.or_else(kept).map(|token| token.trim().to_owned());
        let endpoint = variable("HF_ENDPOINT");
        let endpoint = endpoint.unwrap_or_else(|| "https://huggingface.co".into());
        let offline = variable("HF_HUB_OFFLINE").unwrap_or_default();
        Self {
            endpoint: endpoint.trim_end_matches('/').into(),
            token: token.filter(|token| !token.is_empty()).map(Into::into),
            cache: cache.unwrap_or_else(|| home.join("hub")),
            offline: matches!(&*offline.to_uppercase(), "1" | "ON" | "YES" | "TRUE"),
        }
    }
}

/// What was named: a data set, and what of it.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    owner: String,
    name: String,
    revision: String,
    /// A file, a folder or a pattern; empty for all.
    path: String,
}

/// Files of a commit.
struct Listing {
    commit: String,
    files: Vec<Listed>,
}

struct Listed {
    path: String,
    bytes: Option<u64>,
}

/// The Hub's answer.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
}

/// Finds files; `rest` is what follows `hf://`.
pub(super) fn expand(
    rest: &str,
    settings: &Settings,
    temp: &Arc<Path>,
    to: &mut Expanded,
) -> Result<(), InputError> {
    let named = Named::parse(rest).map_err(|reason| InputError::Name {
        given: format!("hf://{rest}"),
        reason: reason.into(),
    })?;
    let hub = Hub { settings, named };
    let listing = hub.listing()?;
    let (chosen, mut skipped) = hub.choose(&listing)?;
    for file in chosen {
        to.inputs.push(hub.input(&listing, file, temp)?);
    }
    to.skipped.append(&mut skipped);
    Ok(())
}

impl Named {
    fn parse(rest: &str) -> Result<Self, &'static str> {
        const FORM: &str =
            "write hf://datasets/owner/name, with @revision and /path after it if you like";
        let rest = rest.strip_prefix("datasets/").ok_or(FORM)?;
        let (owner, rest) = rest.split_once('/').ok_or(FORM)?;
        let end = rest.find(['@', '/']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let (revision, path) = match rest.strip_prefix('@') {
            Some(rest) => {
                // References of the Hub have slashes.
                let parts = if rest.starts_with("refs/") { 3 } else { 1 };
                let ends = rest.match_indices('/').map(|(at, _)| at);
                let end = ends.into_iter().nth(parts - 1).unwrap_or(rest.len());
                (&rest[..end], &rest[end..])
            }
            None => ("main", rest),
        };
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !plain(owner) || !plain(name) || revision.is_empty() {
            return Err(FORM);
        }
        let path = path.trim_matches('/');
        if path.split('/').any(|part| part == "..") || revision.split('/').any(|part| part == "..")
        {
            return Err("a path within a data set has no '..'");
        }
        let revision = match revision {
            // As other programs call the copy that the Hub makes.
            "~parquet" => "refs/convert/parquet".to_owned(),
            other => other.replace("%2F", "/").replace("%2f", "/"),
        };
        Ok(Self {
            owner: owner.into(),
            name: name.into(),
            revision,
            path: path.into(),
        })
    }

    fn shown(&self) -> String {
        let Self {
            owner,
            name,
            revision,
            ..
        } = self;
        match revision.as_str() {
            "main" => format!("hf://datasets/{owner}/{name}"),
            revision => format!("hf://datasets/{owner}/{name}@{revision}"),
        }
    }

    fn whole(&self) -> String {
        match self.path.is_empty() {
            true => self.shown(),
            false => format!("{}/{}", self.shown(), self.path),
        }
    }
}

struct Hub<'a> {
    settings: &'a Settings,
    named: Named,
}

impl Hub<'_> {
    /// The commit and its files, as the Hub says; where it isn't asked or can't be reached, as the cache has
    /// them.
    fn listing(&self) -> Result<Listing, InputError> {
        let cached = self.cached();
        if self.settings.offline {
            return cached.ok_or_else(|| InputError::Missing {
                path: self.named.whole(),
                near: format!(
                    " in {}, and HF_HUB_OFFLINE keeps the Hub from being asked",
                    self.settings.cache.display()
                ),
            });
        }
        let exact = |listing: &Listing| listing.files.iter().any(|f| f.path == self.named.path);
        let fixed = |listing: &Listing| listing.commit == self.named.revision;
        if let Some(listing) = cached.filter(exact) {
            // What a commit holds doesn't change; what a branch holds does.
            if fixed(&listing) {
                return Ok(listing);
            }
            return match self.ask() {
                Err(InputError::Hub { .. }) => Ok(listing),
                answer => answer,
            };
        }
        self.ask()
    }

    fn folder(&self) -> PathBuf {
        let Named { owner, name, .. } = &self.named;
        self.settings
            .cache
            .join(format!("datasets--{owner}--{name}"))
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder().join("snapshots").join(commit)
    }

    /// What the cache has of the revision.
    fn cached(&self) -> Option<Listing> {
        let revision = &self.named.revision;
        let commit = std::fs::read_to_string(self.folder().join("refs").join(revision));
        let commit = commit.map_or_else(|_| revision.clone(), |commit| commit.trim().to_owned());
        let snapshot = self.snapshot(&commit);
        if commit.contains(['/', '.']) || !snapshot.is_dir() {
            return None;
        }
        let entries = WalkDir::new(&snapshot)
            .follow_links(true)
            .sort_by_file_name();
        let entries = entries.into_iter().flatten();
        let entries = entries.filter(|entry| entry.file_type().is_file());
        let files = entries.filter_map(|entry| {
            let path = entry.path().strip_prefix(&snapshot).ok()?;
            let path = path.to_string_lossy().into_owned();
            let bytes = entry.metadata().ok().map(|metadata| metadata.len());
            Some(Listed { path, bytes })
        });
        let files = files.collect();
        Some(Listing { commit, files })
    }

    fn page(&self, parts: &[&str]) -> Result<Page, InputError> {
        let bad = || InputError::Name {
            given: self.settings.endpoint.clone(),
            reason: "HF_ENDPOINT is no URL".into(),
        };
        let mut url = Url::parse(&self.settings.endpoint).map_err(|_| bad())?;
        url.path_segments_mut()
            .map_err(|()| bad())?
            .pop_if_empty()
            .extend(parts);
        Ok(Page {
            shown: http::shown(&url),
            url,
            token: self.settings.token.clone(),
        })
    }

    fn ask(&self) -> Result<Listing, InputError> {
        let Named {
            owner,
            name,
            revision,
            ..
        } = &self.named;
        let mut page = self.page(&["api", "datasets", owner, name, "revision", revision])?;
        page.url.set_query(Some("blobs=true"));
        let body = Asking::new(&page)?.body(&page).map_err(|error| match error {
            InputError::Web { answer, .. } => InputError::Web {
                path: self.named.shown(),
                answer: format!(
                    "the Hub has no such data set or revision, or shows it only to those whom it \
                     knows: check the name, or set HF_TOKEN ({answer})"
                ),
            },
            InputError::Network { source, .. } => InputError::Hub {
                path: self.named.whole(),
                endpoint: self.settings.endpoint.clone(),
                cache: self.settings.cache.clone(),
                source,
            },
            other => other,
        })?;
        let answer: Answer = serde_json::from_slice(&body).map_err(|error| InputError::Web {
            path: page.shown.clone(),
            answer: format!("it answers what the Hub would not ({error}); check HF_ENDPOINT"),
        })?;
        let files = answer.siblings.into_iter().map(|sibling| Listed {
            path: sibling.rfilename,
            bytes: sibling.size,
        });
        let mut files: Vec<Listed> = files.collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Listing {
            commit: answer.sha,
            files,
        })
    }

    /// The files that were named, and those that lie beside them.
    fn choose<'l>(
        &self,
        listing: &'l Listing,
    ) -> Result<(Vec<&'l Listed>, Vec<Skipped>), InputError> {
        let path = self.named.path.as_str();
        if let Some(file) = listing.files.iter().find(|file| file.path == path) {
            return Ok((vec![file], vec![]));
        }
        let wild = is_pattern(path);
        let pattern = match wild {
            true => Some(Pattern::new(path).map_err(|error| InputError::Name {
                given: self.named.whole(),
                reason: format!("it is no pattern: {error}"),
            })?),
            false => None,
        };
        let below = |file: &str| {
            path.is_empty()
                || file
                    .strip_prefix(path)
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        let (mut chosen, mut skipped) = (vec![], vec![]);
        for file in &listing.files {
            let matches = match &pattern {
                Some(pattern) => pattern.matches_with(&file.path, MATCHING),
                None => below(&file.path),
            };
            let asked = wild && asked_for(path, &file.path);
            let exists = |path: &str| listing.files.iter().any(|file| file.path == path);
            let reason = skip::reason(&file.path).filter(|_| !asked);
            match reason.or_else(|| skip::reason_in_corpus(&file.path, exists)) {
                _ if !matches => {}
                Some(reason) => skipped.push(Skipped {
                    name: format!("{}/{}", self.named.shown(), file.path),
                    reason,
                }),
                None => chosen.push(file),
            }
        }
        match (chosen.is_empty(), skipped.is_empty(), wild) {
            (false, ..) => Ok((chosen, skipped)),
            (true, false, _) => Err(no_data(&self.named.whole(), &skipped)),
            (true, true, true) => Err(InputError::NoMatch {
                pattern: self.named.whole(),
            }),
            (true, true, false) => {
                let names = listing.files.iter().map(|file| file.path.clone()).collect();
                Err(InputError::Missing {
                    path: self.named.whole(),
                    near: near::said(path, names, "the data set"),
                })
            }
        }
    }

    fn input(
        &self,
        listing: &Listing,
        file: &Listed,
        temp: &Arc<Path>,
    ) -> Result<Input, InputError> {
        let Named { owner, name, .. } = &self.named;
        let shown = format!("{}/{}", self.named.shown(), file.path);
        let commit = &listing.commit;
        let identity = format!("hf\0{owner}/{name}\0{commit}\0{}", file.path).into_bytes();
        let cached = self.snapshot(commit).join(&file.path);
        if cached.is_file() {
            let input = local::file(cached, file.path.clone(), shown, temp)?;
            return Ok(Input { identity, ..input });
        }
        let mut parts = vec!["datasets", owner, name, "resolve", commit];
        parts.extend(file.path.split('/'));
        let page = self.page(&parts)?;
        Ok(Input {
            name: file.path.clone(),
            shown: shown.clone(),
            bytes: file.bytes,
            identity,
            location: Location::Web(Page { shown, ..page }),
            temp: Arc::clone(temp),
        })
    }
}
