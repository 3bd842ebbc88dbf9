//! Files, folders and patterns of this machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use glob::MatchOptions;
use walkdir::WalkDir;

use super::expand::{Expanded, Input, Location, Skipped, no_data};
use super::{InputError, near, skip};

/// `*` stays within a folder and passes hidden files over, as in shells.
pub(super) const MATCHING: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// Whether a name is a pattern, if nothing has it.
pub(super) fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

pub(super) fn expand(name: &str, temp: &Arc<Path>, to: &mut Expanded) -> Result<(), InputError> {
    let path = home(name);
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => folder(&path, name, temp, to),
        Ok(_) => {
            let called = path.file_name().unwrap_or(path.as_os_str());
            let called = called.to_string_lossy().into_owned();
            to.inputs
                .push(file(path.clone(), called, name.into(), temp)?);
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && is_pattern(name) => {
            pattern(&path, name, temp, to)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(InputError::Missing {
            path: name.into(),
            near: near::of_path(&path),
        }),
        Err(source) => Err(InputError::Read {
            path: name.into(),
            source,
        }),
    }
}

/// The path with the home folder for a tilde: shells don't put it into quotes and after `=`.
fn home(name: &str) -> PathBuf {
    let home = || std::env::var_os("HOME").map(PathBuf::from);
    match name.strip_prefix("~/") {
        Some(rest) => home().map_or_else(|| name.into(), |home| home.join(rest)),
        None if name == "~" => home().unwrap_or_else(|| name.into()),
        None => name.into(),
    }
}

/// One file, whatever its name.
pub(super) fn file(
    path: PathBuf,
    name: String,
    shown: String,
    temp: &Arc<Path>,
) -> Result<Input, InputError> {
    let unreadable = |source| InputError::Read {
        path: shown.clone(),
        source,
    };
    let metadata = std::fs::metadata(&path).map_err(unreadable)?;
    if !metadata.is_file() {
        // A pipe gives its bytes once.
        let mut pipe = std::fs::File::open(&path).map_err(unreadable)?;
        let spooled = super::expand::spool(&mut pipe, temp)?;
        return Ok(Input {
            name,
            shown,
            ..spooled
        });
    }
    let real = path.canonicalize().map_err(unreadable)?;
    let changed = metadata.modified().ok();
    let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let changed = changed.map_or(0, |since| since.as_nanos());
    let mut identity = real.as_os_str().as_encoded_bytes().to_vec();
    identity.extend_from_slice(format!("\0{}\0{changed}", metadata.len()).as_bytes());
    Ok(Input {
        name,
        shown,
        bytes: Some(metadata.len()),
        identity,
        location: Location::File(path),
        temp: Arc::clone(temp),
    })
}

/// All data in a folder.
fn folder(path: &Path, shown: &str, temp: &Arc<Path>, to: &mut Expanded) -> Result<(), InputError> {
    let mut found = Expanded::default();
    for (file_path, name) in files(path, shown)? {
        let shown = Path::new(shown).join(&name).to_string_lossy().into_owned();
        let exists = |other: &str| path.join(other).is_file();
        match skip::reason(&name).or_else(|| skip::reason_in_corpus(&name, exists)) {
            Some(reason) => found.skipped.push(Skipped {
                name: shown,
                reason,
            }),
            None => found.inputs.push(file(file_path, name, shown, temp)?),
        }
    }
    if found.inputs.is_empty() {
        return Err(no_data(shown, &found.skipped));
    }
    to.inputs.append(&mut found.inputs);
    to.skipped.append(&mut found.skipped);
    Ok(())
}

/// Files in a folder and those within it, by name, with their paths below it.
fn files(path: &Path, shown: &str) -> Result<Vec<(PathBuf, String)>, InputError> {
    let mut files = Vec::new();
    for entry in WalkDir::new(path).follow_links(true).sort_by_file_name() {
        let entry = entry.map_err(|error| InputError::Read {
            path: shown.into(),
            source: error.into(),
        })?;
        if entry.file_type().is_file() {
            let below = entry
                .path()
                .strip_prefix(path)
                .unwrap_or_else(|_| entry.path());
            let below = below.to_string_lossy().into_owned();
            files.push((entry.into_path(), below));
        }
    }
    Ok(files)
}

/// All that matches, folders with what is in them.
fn pattern(path: &Path, name: &str, temp: &Arc<Path>, to: &mut Expanded) -> Result<(), InputError> {
    let text = path.to_string_lossy();
    let matches = glob::glob_with(&text, MATCHING).map_err(|error| InputError::Name {
        given: name.into(),
        reason: format!("it is no pattern: {error}"),
    })?;
    let fixed = fixed_part(&text);
    let (mut seen, mut skipped) = (BTreeSet::new(), vec![]);
    let before = to.inputs.len();
    for found in matches {
        let found = found.map_err(|error| InputError::Read {
            path: name.into(),
            source: error.into(),
        })?;
        let shown = found.to_string_lossy().into_owned();
        let inner = match found.is_dir() {
            true => files(&found, &shown)?
                .into_iter()
                .map(|(path, _)| path)
                .collect(),
            false => vec![found],
        };
        for path in inner {
            let shown = path.to_string_lossy().into_owned();
            let below = path
                .strip_prefix(fixed)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            if !seen.insert(path.clone()) {
                continue;
            }
            let exists = |other: &str| Path::new(other).is_file();
            let reason = skip::reason(&below).filter(|_| !asked_for(name, &below));
            match reason.or_else(|| skip::reason_in_corpus(&shown, exists)) {
                Some(reason) => skipped.push(Skipped {
                    name: shown,
                    reason,
                }),
                None => to.inputs.push(file(path, below, shown, temp)?),
            }
        }
    }
    if to.inputs.len() == before {
        return Err(match skipped.is_empty() {
            true => InputError::NoMatch {
                pattern: name.into(),
            },
            false => no_data(name, &skipped),
        });
    }
    to.skipped.append(&mut skipped);
    Ok(())
}

/// Whether a pattern asks for the very ending of a file: `*.txt`.
pub(super) fn asked_for(pattern: &str, file: &str) -> bool {
    let ending = |name: &str| Some(name.rsplit('/').next()?.rsplit_once('.')?.1.to_lowercase());
    let asked = ending(pattern);
    asked.is_some() && asked == ending(file)
}

/// The folder of a pattern below which names may differ.
pub(super) fn fixed_part(pattern: &str) -> &str {
    let wild = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    pattern[..wild]
        .rfind('/')
        .map_or("", |slash| &pattern[..=slash])
}
