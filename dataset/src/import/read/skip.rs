//! Files that lie beside data and are none.

use crate::assemble::TOKENIZER_KEY;
use crate::import::QUARANTINE_KEY;
use crate::manifest::MANIFEST_KEY;

/// Endings of what is written for people and machines, not for training.
const ENDINGS: [&str; 34] = [
    "md", "rst", "txt", "pdf", "html", "htm", "tex", "bib", "cff", "log", "out", "err", "py",
    "ipynb", "sh", "js", "css", "yaml", "yml", "toml", "ini", "cfg", "lock", "png", "jpg", "jpeg",
    "gif", "svg", "webp", "mp4", "wav", "crc", "sha256", "md5",
];

/// Files that libraries write about data.
const NAMES: [&str; 9] = [
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "manifest.json",
    "license",
    "licence",
    "notice",
    "readme",
];

/// Why a file that was found, not named, isn't read; `None` if it is. The name may have folders.
pub(super) fn reason(name: &str) -> Option<&'static str> {
    let parts = || {
        name.split('/')
            .filter(|part| !matches!(*part, "" | "." | ".."))
    };
    if parts().any(|part| part == "__MACOSX" || part.starts_with('.')) {
        return Some("hidden");
    }
    // Also within _delta_log, _temporary and the like.
    if parts().any(|part| part.starts_with('_')) {
        return Some("a mark of the program that wrote the data");
    }
    let file = parts().next_back()?.to_lowercase();
    let (stem, ending) = file.rsplit_once('.').unwrap_or((&file, ""));
    match () {
        () if NAMES.contains(&file.as_str()) || NAMES.contains(&stem) => Some("about the data"),
        () if ENDINGS.contains(&ending) => Some("no data by its ending"),
        () => None,
    }
}

/// What a corpus of this program has beside its answers.
const OF_CORPUS: [&str; 3] = [MANIFEST_KEY, TOKENIZER_KEY, QUARANTINE_KEY];

/// Why a file that was found in the folder of a corpus isn't read, if it is none of those with answers. The name may
/// have folders; `exists` says whether a name like it is there. One of these names alone is anybody's.
pub(super) fn reason_in_corpus(name: &str, exists: impl Fn(&str) -> bool) -> Option<&'static str> {
    let file = name.rsplit('/').next()?;
    let beside = |other: &str| exists(&format!("{}{other}", &name[..name.len() - file.len()]));
    let is_there = || beside(MANIFEST_KEY) && beside(TOKENIZER_KEY);
    (OF_CORPUS.contains(&file) && is_there()).then_some("what a corpus says of itself")
}

/// Why a file that was named among others isn't read: shells put such names in for `folder/*`.
pub(super) fn reason_named(name: &str) -> Option<&'static str> {
    let file = name.rsplit('/').next()?;
    let mark = [
        "_SUCCESS",
        "_committed_",
        "_started_",
        "_metadata",
        "_common_metadata",
    ];
    match () {
        () if mark.iter().any(|mark| file.starts_with(mark)) => reason(file),
        () if file.ends_with(".crc") || file == ".DS_Store" => Some("about the data"),
        () if matches!(
            file,
            "README.md" | "LICENSE" | "README" | "dataset_infos.json"
        ) =>
        {
            Some("about the data")
        }
        () => None,
    }
}
