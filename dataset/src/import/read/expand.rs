//! From what a user names to inputs.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use tempfile::TempPath;

use super::sniff::{self, Kind};
use super::{InputError, http, hub, local, remote, skip};
use crate::import::Error;

/// One thing to read.
#[derive(Debug, Clone)]
pub(in crate::import) struct Input {
    /// What it is called where its place doesn't matter: the name of a file, or a path within the folder,
    /// prefix or data set that was named.
    pub(in crate::import) name: String,
    /// What errors call it: as it was given, or its URL without query and credentials.
    pub(in crate::import) shown: String,
    /// Its size as it lies there, packed; nothing where a server doesn't say.
    pub(in crate::import) bytes: Option<u64>,
    /// Equal for two inputs only if they are the same one with the same content, as far as its place tells:
    /// path, size and time of change of a file; URL, size and version of what is remote.
    pub(in crate::import) identity: Vec<u8>,
    pub(super) location: Location,
    /// For copies of what can't be read from the front to the end.
    pub(super) temp: Arc<Path>,
}

/// Where an input's bytes are.
#[derive(Debug, Clone)]
pub(super) enum Location {
    File(PathBuf),
    /// A copy of standard input, which is gone with the last input that has it.
    Spooled(Arc<TempPath>),
    Store(remote::StoredObject),
    Web(http::Page),
}

/// What was found and not taken for data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::import) struct Skipped {
    /// As an input of it would be called.
    pub(in crate::import) name: String,
    /// Why: "hidden".
    pub(in crate::import) reason: &'static str,
}

/// What a user named.
#[derive(Debug, Default)]
pub(in crate::import) struct Expanded {
    /// In the order of the names, and sorted within each.
    pub(in crate::import) inputs: Vec<Input>,
    /// What lay beside them.
    pub(in crate::import) skipped: Vec<Skipped>,
}

/// Finds the inputs behind names: files, folders with all that is in them, patterns (`*`, `?`, `[a-z]`,
/// `**`), `-` for standard input (which is copied to `temp`), URLs of stores
/// (s3, gs, az, memory, file), `http` and `https`, and `hf://datasets/owner/name[@revision][/path or pattern]`.
/// `temp` is also where inputs are copied to that have to be. May block on networks.
///
/// # Errors
/// [`Error::Input`]: a name that stands for nothing, or can't be asked for.
pub(in crate::import) fn expand(named: &[String], temp: &Path) -> Result<Expanded, Error> {
    let temp: Arc<Path> = temp.into();
    let work = || {
        let mut expanded = Expanded::default();
        for name in named {
            one(name, named.len() > 1, &temp, &mut expanded)?;
        }
        match expanded.inputs.is_empty() && !expanded.skipped.is_empty() {
            true => Err(no_data(&named.join(", "), &expanded.skipped)),
            false => Ok(expanded),
        }
    };
    // Remote places are asked by a runtime of their own, which none may be around.
    let joined = thread::scope(|scope| scope.spawn(work).join());
    match joined {
        Ok(expanded) => Ok(expanded?),
        Err(panicked) => std::panic::resume_unwind(panicked),
    }
}

fn one(
    name: &str,
    among_others: bool,
    temp: &Arc<Path>,
    to: &mut Expanded,
) -> Result<(), InputError> {
    if let Some(reason) = skip::reason_named(name).filter(|_| among_others) {
        let name = name.to_owned();
        to.skipped.push(Skipped { name, reason });
        return Ok(());
    }
    match name.split_once("://") {
        _ if name == "-" => {
            to.inputs.push(spool(&mut io::stdin().lock(), temp)?);
            Ok(())
        }
        None => local::expand(name, temp, to),
        Some(("file", _)) => {
            let path = url::Url::parse(name)
                .ok()
                .and_then(|url| url.to_file_path().ok());
            let path = path.ok_or_else(|| InputError::Name {
                given: name.into(),
                reason: "it is no URL of a file; write file:///folder/file".into(),
            })?;
            local::expand(&path.to_string_lossy(), temp, to)
        }
        Some(("http" | "https", _)) => {
            to.inputs.push(http::expand(name, temp)?);
            Ok(())
        }
        Some(("hf", rest)) => hub::expand(rest, &hub::Settings::of_environment(), temp, to),
        Some(_) => remote::expand(name, temp, to),
    }
}

/// Nothing but files that are no data.
pub(super) fn no_data(place: &str, skipped: &[Skipped]) -> InputError {
    let said = |skipped: &Skipped| format!("{} is {}", skipped.name, skipped.reason);
    let mut said: Vec<String> = skipped.iter().take(3).map(said).collect();
    if skipped.len() > 3 {
        said.push(format!("and {} more", skipped.len() - 3));
    }
    InputError::NoData {
        path: place.to_owned(),
        skipped: match said.is_empty() {
            true => "it is empty".into(),
            false => said.join(", "),
        },
    }
}

/// Copies a stream that can't be read twice.
pub(super) fn spool(source: &mut dyn Read, temp: &Arc<Path>) -> Result<Input, InputError> {
    let shown = "standard input";
    let copy = |source| InputError::Copy {
        path: shown.into(),
        folder: temp.to_path_buf(),
        source,
    };
    std::fs::create_dir_all(temp).map_err(copy)?;
    let mut file = tempfile::Builder::new()
        .prefix("polestar-stdin-")
        .tempfile_in(temp)
        .map_err(copy)?;
    let (mut digest, mut bytes) = (blake3::Hasher::new(), 0);
    let mut buffer = vec![0; 1 << 18];
    loop {
        let length = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => {
                let path = shown.into();
                return Err(InputError::Read { path, source });
            }
        };
        digest.update(&buffer[..length]);
        bytes += length as u64;
        file.write_all(&buffer[..length]).map_err(copy)?;
    }
    Ok(Input {
        name: "stdin".into(),
        shown: shown.into(),
        bytes: Some(bytes),
        identity: format!("stdin\0{}", digest.finalize().to_hex()).into_bytes(),
        location: Location::Spooled(Arc::new(file.into_temp_path())),
        temp: Arc::clone(temp),
    })
}

impl Input {
    /// About how many bytes of text it holds; nothing where not even its size is known.
    pub(in crate::import) fn text_estimate(&self) -> Option<u64> {
        let bytes = self.bytes?;
        let ratio = match self.begins() {
            Some(Kind::Packed(sniff::Packing::Zstd | sniff::Packing::Xz)) => 8,
            Some(Kind::Packed(_) | Kind::Zip | Kind::Parquet | Kind::ArrowFile) => 5,
            Some(_) => 1,
            None => {
                let packed = [
                    ".zst", ".gz", ".xz", ".bz2", ".zip", ".parquet", ".arrow", ".tgz",
                ];
                let is_packed = packed.iter().any(|ending| self.name.ends_with(ending));
                if is_packed { 5 } else { 1 }
            }
        };
        Some(bytes.saturating_mul(ratio))
    }

    /// What a local file begins with.
    fn begins(&self) -> Option<Kind> {
        let path: &Path = match &self.location {
            Location::File(path) => path,
            Location::Spooled(path) => path.as_ref(),
            Location::Store(_) | Location::Web(_) => return None,
        };
        let mut head = Vec::new();
        File::open(path)
            .ok()?
            .take(512)
            .read_to_end(&mut head)
            .ok()?;
        sniff::kind(&head, true)
    }
}
