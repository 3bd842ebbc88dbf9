//! Archives: each member is read as an input of its own would be, in the archive's order.

use std::fs::File;

use super::Sink;
use super::expand::Skipped;
use super::layers::Source;
use super::open::{Fault, Reading};
use super::skip;

/// Reads the members of a zip archive.
pub(super) fn zip(file: File, reading: &mut Reading<'_>, sink: Sink<'_>) -> Result<(), Fault> {
    let damaged = |error: zip::result::ZipError| match error {
        zip::result::ZipError::UnsupportedArchive(what) => Fault::Unsupported(format!(
            "its zip archive uses what is not supported: {what}"
        )),
        zip::result::ZipError::Io(error) => Fault::at(error, "in its directory"),
        other => Fault::Damaged(format!("its zip archive: {other}")),
    };
    let mut archive =
        zip::ZipArchive::new(std::io::BufReader::new(file)).map_err(|error| match error {
            // The directory stands at the end.
            zip::result::ZipError::InvalidArchive(_) => Fault::Cut {
                what: "its zip data",
                place: "without the directory that says what is in them".into(),
            },
            other => damaged(other),
        })?;
    let names: Vec<String> = archive
        .file_names()
        .filter_map(|name| Some(name.ok()?.into_owned()))
        .collect();
    if let Some(what) = foreign(&names) {
        return Err(Fault::Mistaken(what.into()));
    }
    let mut wants_more = true;
    for at in 0..archive.len() {
        let member = archive.by_index(at).map_err(damaged)?;
        let name = member.name().map_err(damaged)?.into_owned();
        if member.is_dir() || left_out(&name, reading) {
            continue;
        }
        let before = reading.consumed().bytes();
        let packed = member.compressed_size();
        let mut counted = |records| {
            wants_more = sink(records);
            wants_more
        };
        reading.member(&name, Box::new(member), &mut counted)?;
        if reading.direct().is_some() {
            reading.consumed().set(before + packed);
        }
        if !wants_more {
            break;
        }
    }
    Ok(())
}

/// Archives that are documents or weights.
fn foreign(names: &[String]) -> Option<&'static str> {
    let has = |name: &str| names.iter().any(|n| n == name);
    let ends = |ending: &str| names.iter().any(|name| name.ends_with(ending));
    match () {
        () if has("[Content_Types].xml") => {
            Some("an Office document (such as an Excel sheet); export it as CSV")
        }
        () if ends("/data.pkl") || has("data.pkl") => {
            Some("a PyTorch file; write the rows as JSON lines or Parquet")
        }
        () if !names.is_empty() && names.iter().all(|name| name.ends_with(".npy")) => {
            Some("a file of NumPy arrays (.npz); write the rows as JSON lines or Parquet")
        }
        () => None,
    }
}

/// Reads the members of a tar archive.
pub(super) fn tar(
    source: Source<'_>,
    reading: &mut Reading<'_>,
    sink: Sink<'_>,
) -> Result<(), Fault> {
    let mut archive = tar::Archive::new(source);
    let mut read = 0_u64;
    let mut wants_more = true;
    for member in archive.entries().map_err(|error| fault(error, read))? {
        let member = member.map_err(|error| fault(error, read))?;
        let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        if !member.header().entry_type().is_file() || left_out(&name, reading) {
            continue;
        }
        let mut counted = |records| {
            wants_more = sink(records);
            wants_more
        };
        reading.member(&name, Box::new(member), &mut counted)?;
        read += 1;
        if !wants_more {
            break;
        }
    }
    Ok(())
}

fn fault(error: std::io::Error, members: u64) -> Fault {
    let place = format!("after {members} members");
    if error
        .get_ref()
        .is_some_and(|inner| inner.is::<super::layers::Damage>())
    {
        return Fault::at(error, &place);
    }
    let why = error.to_string();
    match error.kind() == std::io::ErrorKind::UnexpectedEof || why.contains("unexpected EOF") {
        true => Fault::Cut {
            what: "its tar data",
            place: format!("in the middle, {place}"),
        },
        false => Fault::Damaged(format!("its tar archive, {place}: {why}")),
    }
}

/// Whether the member is no data by its name; then it is listed as skipped.
fn left_out(name: &str, reading: &mut Reading<'_>) -> bool {
    let Some(reason) = skip::reason(name) else {
        return false;
    };
    reading.skipped.push(Skipped {
        name: reading.member_name(name),
        reason,
    });
    true
}
