//! The event journal of a run in the store: what happened under each coordinator, for those who ask afterwards.
//!
//! ```text
//! <run>/journal/<epoch>-<segment>.jsonl     an entry a line, appended to; the last segment of an epoch grows
//! ```
//! A coordinator that dies leaves its last segment as it was last written. Lines that can't be read are counted and
//! passed over: a history with a hole says more than none.

use super::{Run, RunError, calendar};
use crate::control::JournalEntry;
use polestar_core::Epoch;
use polestar_store::Store;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes after which a segment is full and another begins: the last one is written whole each time.
const SEGMENT: usize = 64 << 10;

/// An entry as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Recorded {
    /// Under which coordinator.
    pub epoch: Epoch,
    /// When, by that coordinator's clock, for people.
    pub time: String,
    /// What, and when since the coordinator began.
    #[serde(flatten)]
    pub entry: JournalEntry,
}

/// Appends to the journal of one coordinator.
#[derive(Debug)]
pub struct EventLog {
    run: Store,
    epoch: Epoch,
    segment: u32,
    lines: Vec<u8>,
    /// Whether the store has all of it.
    is_stored: bool,
}

impl EventLog {
    /// The journal of an epoch, which nobody else writes.
    pub fn new(run: &Run, epoch: Epoch) -> EventLog {
        EventLog {
            run: run.folder.clone(),
            epoch,
            segment: 0,
            lines: Vec::new(),
            is_stored: true,
        }
    }

    /// Adds an entry; [`flush`](EventLog::flush) stores it.
    pub fn append(&mut self, entry: JournalEntry) {
        let recorded = Recorded {
            epoch: self.epoch,
            time: calendar::now(),
            entry,
        };
        serde_json::to_writer(&mut self.lines, &recorded)
            .expect("entries are numbers, texts and lists");
        self.lines.push(b'\n');
        self.is_stored = false;
    }

    /// Whether everything is stored.
    pub fn is_stored(&self) -> bool {
        self.is_stored
    }

    /// Stores what was appended.
    ///
    /// # Errors
    /// The store's; the next call tries again with all that is left to store.
    pub async fn flush(&mut self) -> Result<(), polestar_store::Error> {
        if self.is_stored {
            return Ok(());
        }
        let Epoch(epoch) = self.epoch;
        let key = format!("journal/{epoch:06}-{:06}.jsonl", self.segment);
        self.run.put(&key, self.lines.clone().into()).await?;
        self.is_stored = true;
        if self.lines.len() >= SEGMENT {
            self.segment += 1;
            self.lines.clear();
        }
        Ok(())
    }
}

/// What a run's journal holds.
#[derive(Clone, Debug, Default)]
pub struct EventHistory {
    /// In the order of epochs, and within one as they happened.
    pub entries: Vec<Recorded>,
    /// Where lines could not be read, as `OBJECT line NUMBER`.
    pub unreadable: Vec<String>,
}

/// Where the coordinator that leads says how far everything is.
const STATUS: &str = "status.txt";

impl Run {
    /// Keeps how far everything is, in place of what was kept before.
    ///
    /// # Errors
    /// The store's.
    pub async fn record_status(&self, status: &str) -> Result<(), RunError> {
        let text = format!("{}: {status}\n", calendar::now());
        Ok(self.folder.put(STATUS, text.into()).await?)
    }

    /// How far everything was when a coordinator last said so.
    ///
    /// # Errors
    /// The store's.
    pub async fn last_status(&self) -> Result<Option<String>, RunError> {
        let bytes = self.folder.get_opt(STATUS).await?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// What happened so far, under all coordinators.
    ///
    /// # Errors
    /// The store's.
    pub async fn event_history(&self) -> Result<EventHistory, RunError> {
        let mut history = EventHistory::default();
        let mut objects = self.folder.list("journal").await?;
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        for object in objects {
            let bytes = self.folder.get(&object.key).await?;
            history.add(&object.key, &bytes);
        }
        Ok(history)
    }
}

impl EventHistory {
    fn add(&mut self, key: &str, bytes: &[u8]) {
        for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            match serde_json::from_slice(line) {
                Ok(recorded) => self.entries.push(recorded),
                Err(_) => self.unreadable.push(format!("{key} line {}", number + 1)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Entry, core::Moment};
    use polestar_core::WorkerId;
    use std::time::Duration;

    fn recorded(number: u64) -> Recorded {
        Recorded {
            epoch: Epoch(3),
            time: "2026-01-01 00:00:00 UTC".to_owned(),
            entry: JournalEntry {
                at: Moment(Duration::from_millis(1500)),
                entry: Entry::Left {
                    worker: WorkerId(number),
                },
            },
        }
    }

    #[test]
    fn a_torn_tail_loses_its_last_line_and_nothing_else() {
        let line = |number| serde_json::to_string(&recorded(number)).expect("plain data");
        let whole = format!("{}\n{}\n", line(1), line(2));
        let mut history = EventHistory::default();
        history.add("journal/000003-000000.jsonl", whole.as_bytes());
        assert_eq!(history.entries, [recorded(1), recorded(2)]);
        for cut in 1..=line(2).len() {
            let mut history = EventHistory::default();
            history.add("j", &whole.as_bytes()[..whole.len() - 1 - cut]);
            let torn = usize::from(cut < line(2).len());
            assert_eq!(history.entries, [recorded(1)], "cut {cut}");
            assert_eq!(history.unreadable, vec!["j line 2".to_owned(); torn]);
        }
    }
}
