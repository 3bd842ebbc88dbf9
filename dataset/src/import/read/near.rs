//! Names that a mistyped one may stand for.

use polestar_core::near;
use std::{collections::BTreeMap, path::Path};

/// Names that are listed where none is near.
const LISTED: usize = 5;
/// Below this likeness a name is another one.
const ALIKE: f64 = 0.75;

/// What to say after a path that isn't there, with the nearest names in its folder.
pub(super) fn of_path(path: &Path) -> String {
    // The first part that is missing is the one that is mistyped.
    let missing = path.ancestors().find(|part| {
        let above = part.parent().map(or_here);
        above.is_some_and(|above| above.is_dir())
    });
    let Some(missing) = missing else {
        return String::new();
    };
    let folder = missing.parent().map_or_else(|| Path::new("."), or_here);
    let asked = missing.file_name().unwrap_or_default().to_string_lossy();
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    said(&asked, names.collect(), &folder.display().to_string())
}

fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}

/// What to say after a name that is not among others in a place.
pub(super) fn said(asked: &str, mut names: Vec<String>, place: &str) -> String {
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    if names.is_empty() {
        return format!("; {place} is empty");
    }
    let asked = asked.to_lowercase();
    let lowered: BTreeMap<String, &str> = names
        .iter()
        .map(|name| (name.to_lowercase(), name.as_str()))
        .collect();
    let near = near::nearest(&asked, lowered.keys().map(String::as_str), ALIKE);
    let near: Vec<&str> = near.iter().take(3).map(|name| lowered[*name]).collect();
    if !near.is_empty() {
        return format!("; did you mean {}?", near.join(" or "));
    }
    let listed = names.len().min(LISTED);
    let more = match names.len() - listed {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("; {place} has {}{more}", names[..listed].join(", "))
}
