//! Held-out prompts that nearly repeat one that is trained on.

use std::collections::{BTreeMap, BTreeSet};

use super::{Leak, Share};
use crate::manifest::FileSplit;
use crate::reader::PromptSamples;
use crate::twins::NEARLY_EQUAL;
use polestar_core::similarity::Sketch;

/// Leaks that are named.
const NAMED_LEAKS: usize = 10;
/// Letters of a text's beginning.
const BEGINNING: usize = 72;

/// The begin of a text in one line.
pub(crate) fn beginning(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().take(BEGINNING).collect();
    let line = words.join(" ");
    match line.char_indices().nth(BEGINNING) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Collects leaks.
#[derive(Default)]
pub(super) struct Leaks {
    heldout: Vec<Seen>,
    /// Which of them share a key.
    by_key: BTreeMap<u64, Vec<usize>>,
    /// The id and beginning of the first training prompt that each nearly repeats.
    found: BTreeMap<usize, (String, String)>,
}

struct Seen {
    id: String,
    beginning: String,
    sketch: Sketch,
}

impl Leaks {
    /// Held-out prompts come first.
    pub(super) fn count(&mut self, split: FileSplit, prompt: &PromptSamples) {
        let sketch = Sketch::of(&prompt.text);
        if split == FileSplit::Heldout {
            for &key in sketch.keys() {
                self.by_key.entry(key).or_default().push(self.heldout.len());
            }
            self.heldout.push(Seen {
                id: prompt.id.clone(),
                beginning: beginning(&prompt.text),
                sketch,
            });
            return;
        }
        let sharing = sketch.keys().iter().filter_map(|key| self.by_key.get(key));
        let sharing: BTreeSet<usize> = sharing.flatten().copied().collect();
        for at in sharing {
            if self.found.contains_key(&at) {
                continue;
            }
            if self.heldout[at].sketch.resembles(&sketch, NEARLY_EQUAL) {
                let trained = (prompt.id.clone(), beginning(&prompt.text));
                self.found.insert(at, trained);
            }
        }
    }

    pub(super) fn share(&self) -> Share {
        Share {
            some: self.found.len() as u64,
            all: self.heldout.len() as u64,
        }
    }

    pub(super) fn named(self) -> Vec<Leak> {
        let pairs = self.found.into_iter().take(NAMED_LEAKS);
        let leak = pairs.map(|(at, trained)| Leak {
            heldout: (
                self.heldout[at].id.clone(),
                self.heldout[at].beginning.clone(),
            ),
            trained,
        });
        leak.collect()
    }
}
