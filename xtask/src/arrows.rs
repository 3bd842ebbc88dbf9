//! The one direction of dependence: which crate may use which. The table here is what
//! docs/architecture.md draws, and what the manifests are checked against.

use crate::{Trouble, metadata, output, pages};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A crate and what it may use.
struct Room {
    /// Name of the package, and what it is called among us.
    package: &'static str,
    /// Folder, from the root.
    folder: &'static str,
    /// Packages of the workspace that it uses: all of them, and no other.
    uses: &'static [&'static str],
    /// Whether tensors may be linked into it.
    tensors: bool,
}

/// What `tensors` forbids: this crate and those of its names' beginning.
const TENSORS: &str = "burn";

/// From the ground up: a crate uses only what stands above it here.
const ROOMS: [Room; 15] = [
    Room {
        package: "polestar-core",
        folder: "crates/core",
        uses: &[],
        tensors: false,
    },
    Room {
        package: "polestar-telemetry",
        folder: "crates/telemetry",
        uses: &[],
        tensors: false,
    },
    Room {
        package: "polestar-laws",
        folder: "crates/laws",
        uses: &["polestar-core"],
        tensors: false,
    },
    Room {
        package: "polestar-eval",
        folder: "crates/eval",
        uses: &["polestar-core"],
        tensors: false,
    },
    Room {
        package: "polestar-store",
        folder: "crates/store",
        uses: &["polestar-core"],
        tensors: false,
    },
    Room {
        package: "polestar-kernels",
        folder: "kernels",
        uses: &["polestar-core"],
        tensors: true,
    },
    Room {
        package: "polestar-model",
        folder: "model",
        uses: &["polestar-core", "polestar-kernels"],
        tensors: true,
    },
    Room {
        package: "polestar-hf",
        folder: "crates/hf",
        uses: &["polestar-core", "polestar-store", "polestar-model"],
        tensors: false,
    },
    Room {
        package: "polestar-dataset",
        folder: "dataset",
        uses: &["polestar-core", "polestar-store"],
        tensors: false,
    },
    Room {
        package: "polestar-run",
        folder: "crates/run",
        uses: &[
            "polestar-core",
            "polestar-store",
            "polestar-model",
            "polestar-dataset",
        ],
        tensors: false,
    },
    Room {
        package: "polestar-roofline",
        folder: "crates/roofline",
        uses: &["polestar-run", "polestar-model", "polestar-core"],
        tensors: false,
    },
    Room {
        package: "polestar-worker",
        folder: "worker",
        uses: &[
            "polestar-run",
            "polestar-hf",
            "polestar-dataset",
            "polestar-model",
            "polestar-kernels",
            "polestar-store",
            "polestar-core",
        ],
        tensors: true,
    },
    Room {
        package: "polestar-serve",
        folder: "crates/serve",
        uses: &[
            "polestar-worker",
            "polestar-run",
            "polestar-dataset",
            "polestar-model",
            "polestar-store",
            "polestar-core",
        ],
        tensors: true,
    },
    Room {
        package: "polestar-coordinator",
        folder: "coordinator",
        uses: &[
            "polestar-serve",
            "polestar-worker",
            "polestar-roofline",
            "polestar-run",
            "polestar-hf",
            "polestar-laws",
            "polestar-eval",
            "polestar-dataset",
            "polestar-model",
            "polestar-store",
            "polestar-telemetry",
            "polestar-core",
        ],
        tensors: true,
    },
    Room {
        package: "xtask",
        folder: "xtask",
        uses: &[],
        tensors: false,
    },
];

/// Where the table is, for whoever has to change it.
const TABLE: &str = "ROOMS in xtask/src/arrows.rs";

/// Packages of the workspace, each with those that it uses.
type Found = BTreeMap<String, BTreeSet<String>>;

/// Checks the manifests against the table, that no tensor library is linked where none may be, and the
/// picture.
///
/// # Errors
/// Every arrow that the table hasn't, and every one that is only there.
pub(crate) fn verify() -> Result<String, Trouble> {
    let found = found(&metadata()?);
    let faults = compare(&ROOMS, &found);
    if !faults.is_empty() {
        return Err(faults.join("\n"));
    }
    for room in ROOMS.iter().filter(|room| !room.tensors) {
        links_no_tensors(room.package)?;
    }
    pages::is_current("docs/architecture.md", &picture())?;
    let arrows: usize = found.values().map(BTreeSet::len).sum();
    Ok(format!("{} crates, {arrows} arrows, all down", found.len()))
}

/// Normal dependences between members, from what `cargo metadata --no-deps` prints.
fn found(metadata: &Value) -> Found {
    let packages = || metadata["packages"].as_array().into_iter().flatten();
    let name = |value: &Value| value["name"].as_str().unwrap_or("?").to_owned();
    let members: BTreeSet<String> = packages().map(name).collect();
    packages()
        .map(|package| {
            let uses = package["dependencies"].as_array().into_iter().flatten();
            // What only tests or build scripts use is nobody's floor.
            let uses = uses.filter(|used| used["kind"].is_null()).map(name);
            (
                name(package),
                uses.filter(|used| members.contains(used)).collect(),
            )
        })
        .collect()
}

/// What the table and the manifests disagree about, a sentence each.
fn compare(rooms: &[Room], found: &Found) -> Vec<String> {
    let mut faults = Vec::new();
    let nothing = BTreeSet::new();
    for (package, uses) in found {
        let Some(room) = rooms.iter().find(|room| room.package == package) else {
            faults.push(format!("{package} is not in the table ({TABLE})"));
            continue;
        };
        let allowed: BTreeSet<String> = room.uses.iter().map(|&used| used.to_owned()).collect();
        for used in uses.difference(&allowed) {
            faults.push(format!(
                "{package} -> {used} is no allowed arrow ({TABLE}); turn it round, or move what both need \
                 to a crate below"
            ));
        }
    }
    for room in rooms {
        let there = found.get(room.package).unwrap_or(&nothing);
        for used in room.uses.iter().filter(|&&used| !there.contains(used)) {
            faults.push(format!(
                "{} -> {used} is in the table ({TABLE}) and in no manifest; take it out",
                room.package
            ));
        }
    }
    faults
}

fn links_no_tensors(package: &str) -> Result<(), Trouble> {
    let tree = output(&[
        "cargo",
        "tree",
        "--locked",
        "--edges=normal",
        "--prefix=none",
        "--format={p}",
        "--package",
        package,
    ])?;
    match tree.lines().find(|line| line.starts_with(TENSORS)) {
        None => Ok(()),
        Some(line) => Err(format!(
            "{package} links {line}; `cargo tree --package {package} --edges normal --invert {TENSORS}` shows by \
             what. A feature that asks for tensors must be off there"
        )),
    }
}

/// On which floor a crate stands: one above the highest that it uses.
fn floor(package: &str) -> usize {
    let room = ROOMS.iter().find(|room| room.package == package);
    let uses = room.map(|room| room.uses).unwrap_or_default();
    uses.iter().map(|used| floor(used) + 1).max().unwrap_or(0)
}

/// The table as a picture, from the roof down.
pub(crate) fn picture() -> pages::Section {
    let mut rooms: Vec<&Room> = ROOMS.iter().collect();
    rooms.sort_by_key(|room| std::cmp::Reverse(floor(room.package)));
    let mut text = String::from("```text\nfloor  crate            uses\n");
    let mut above = None;
    for room in rooms {
        let floor = floor(room.package);
        let number = match above == Some(floor) {
            true => String::new(),
            false => floor.to_string(),
        };
        above = Some(floor);
        let mut uses: Vec<&str> = room.uses.iter().map(|used| short(used)).collect();
        uses.sort_by_key(|used| {
            let place = ROOMS.iter().position(|room| short(room.package) == *used);
            std::cmp::Reverse(place)
        });
        let marks = match (uses.is_empty(), room.tensors) {
            (true, _) => String::new(),
            (false, _) => format!("──▶ {}", uses.join(", ")),
        };
        let line = format!("{number:>5}  {:16} {marks}", room.folder);
        text += line.trim_end();
        text += "\n";
    }
    let plain: Vec<&str> = ROOMS
        .iter()
        .filter(|room| !room.tensors)
        .map(|room| short(room.package))
        .collect();
    text += &format!(
        "```\n\nNo tensor library is linked into {}.\n",
        plain.join(", ")
    );
    pages::Section {
        name: "arrows",
        text,
    }
}

fn short(package: &str) -> &str {
    package.strip_prefix("polestar-").unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workspace(dependencies: Value) -> Found {
        found(&json!({ "packages": [
            { "name": "low", "dependencies": [] },
            { "name": "middle", "dependencies": [{ "name": "low", "kind": null }] },
            { "name": "high", "dependencies": dependencies },
        ] }))
    }

    fn room(package: &'static str, uses: &'static [&'static str]) -> Room {
        Room {
            package,
            folder: package,
            uses,
            tensors: false,
        }
    }

    #[test]
    fn a_new_arrow_is_named_and_one_that_is_gone_as_well() {
        let rooms = [
            room("low", &[]),
            room("middle", &["low"]),
            room("high", &["middle"]),
        ];
        let sound = workspace(
            json!([{ "name": "middle", "kind": null }, { "name": "serde", "kind": null }]),
        );
        assert_eq!(compare(&rooms, &sound), Vec::<String>::new());

        let tests_only = workspace(json!([
            { "name": "middle", "kind": null }, { "name": "low", "kind": "dev" }
        ]));
        assert_eq!(compare(&rooms, &tests_only), Vec::<String>::new());

        let new =
            workspace(json!([{ "name": "middle", "kind": null }, { "name": "low", "kind": null }]));
        let faults = compare(&rooms, &new);
        assert!(
            faults.len() == 1 && faults[0].starts_with("high -> low is no allowed arrow"),
            "{faults:?}"
        );

        let gone = compare(&rooms, &workspace(json!([])));
        assert!(
            gone.len() == 1 && gone[0].starts_with("high -> middle is in the table"),
            "{gone:?}"
        );
    }

    #[test]
    fn the_table_has_one_direction() {
        for (place, room) in ROOMS.iter().enumerate() {
            for used in room.uses {
                let below = ROOMS[..place].iter().any(|lower| lower.package == *used);
                assert!(below, "{} -> {used} points up", room.package);
            }
        }
    }
}
