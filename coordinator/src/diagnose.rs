//! What went wrong in a run, from its event journal: for each generation that ended early, who began it, with what
//! evidence, and who only suffered.

use crate::{
    control::Entry,
    launcher::LaunchId,
    run::{EventHistory, Recorded},
};
use polestar_core::{Epoch, Generation, TrialId, WorkerId};
use polestar_run::Cause;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// How bad it is, from nothing to worst. Its number is the exit code of `diagnose`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing went wrong.
    Sound = 0,
    /// What went wrong was made good, or is being tried again.
    Recovered = 10,
    /// The last coordinator ended without a word: its process or host died, or it still works.
    NoEnd = 11,
    /// A trial is abandoned.
    Abandoned = 12,
}

/// What became of the trial after an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is done since.
    Done,
    /// It is not done yet.
    Open,
    /// It is not tried again.
    Abandoned,
}

/// A generation that ended before its trial, or a trial that was abandoned for another reason.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Incident {
    /// The trial.
    pub trial: TrialId,
    /// Which generation of it, if it was one that failed.
    pub generation: Option<Generation>,
    /// When, by the coordinator's clock.
    pub time: String,
    /// What began it, and who suffered.
    pub cause: Cause,
    /// The last lines that the process of the first cause logged, if they are known.
    pub log_tail: Option<String>,
    /// What became of the trial.
    pub outcome: Outcome,
}

/// What the journal says of a run.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Diagnosis {
    /// The worst of it.
    pub severity: Severity,
    /// Coordinators that led, by epoch, and how each ended; none for one that didn't say.
    pub coordinators: BTreeMap<u64, Option<String>>,
    /// In the order in which they happened.
    pub incidents: Vec<Incident>,
    /// Facts that could not be stored, each a sentence.
    pub not_stored: Vec<String>,
    /// Lines of the journal that can't be read.
    pub unreadable: Vec<String>,
}

/// A worker's name is unique under one coordinator.
type WorkerKey = (Epoch, WorkerId);

/// What is known of processes.
#[derive(Default)]
struct Processes {
    launches: BTreeMap<WorkerKey, LaunchId>,
    tails: BTreeMap<(Epoch, LaunchId), String>,
}

impl Processes {
    fn learn(&mut self, recorded: &Recorded) {
        let epoch = recorded.epoch;
        match &recorded.entry.entry {
            Entry::Joined { worker, inventory } => {
                if let Some(launch) = &inventory.launch {
                    self.launches.insert((epoch, *worker), launch.clone());
                }
            }
            Entry::ProcessEnded {
                launch, log_tail, ..
            } if !log_tail.is_empty() => {
                self.tails.insert((epoch, launch.clone()), log_tail.clone());
            }
            _ => {}
        }
    }

    fn log_tail(&self, epoch: Epoch, cause: &Cause) -> Option<String> {
        let Cause::Ranks { first, .. } = cause else {
            return None;
        };
        let launch = self.launches.get(&(epoch, first.member.worker))?;
        self.tails.get(&(epoch, launch.clone())).cloned()
    }
}

/// Reads a history.
pub fn diagnose(history: &EventHistory) -> Diagnosis {
    let mut processes = Processes::default();
    let mut coordinators = BTreeMap::new();
    let mut not_stored = Vec::new();
    let mut incidents: Vec<(Epoch, Incident)> = Vec::new();
    let mut outcomes: BTreeMap<&TrialId, Outcome> = BTreeMap::new();
    for recorded in &history.entries {
        processes.learn(recorded);
        let end = coordinators.entry(recorded.epoch.0).or_insert(None);
        let mut incident = |trial: &TrialId, generation, cause: &Cause| {
            let incident = Incident {
                trial: trial.clone(),
                generation,
                time: recorded.time.clone(),
                cause: cause.clone(),
                log_tail: None,
                outcome: Outcome::Open,
            };
            incidents.push((recorded.epoch, incident));
        };
        match &recorded.entry.entry {
            Entry::Ended { verdict, .. } => *end = Some(verdict.clone()),
            Entry::Retried {
                trial,
                generation,
                cause,
            } => {
                incident(trial, Some(*generation), cause);
                outcomes.insert(trial, Outcome::Open);
            }
            Entry::Abandoned { trial, cause } => {
                incident(trial, None, cause);
                outcomes.insert(trial, Outcome::Abandoned);
            }
            Entry::Reopened { trial } => {
                outcomes.insert(trial, Outcome::Open);
            }
            Entry::Done { trial, .. } => {
                outcomes.insert(trial, Outcome::Done);
            }
            Entry::NotStored {
                fact,
                message,
                again_in: None,
            } => not_stored.push(format!("{fact} could not be stored: {message}")),
            _ => {}
        }
    }
    let incidents: Vec<Incident> = incidents
        .into_iter()
        .map(|(epoch, mut incident)| {
            // A process's end is often told of after what it led to.
            incident.log_tail = processes.log_tail(epoch, &incident.cause);
            incident.outcome = outcomes
                .get(&incident.trial)
                .copied()
                .unwrap_or(Outcome::Open);
            incident
        })
        .collect();
    let severity = severity(&incidents, coordinators.values().next_back());
    Diagnosis {
        severity,
        coordinators,
        incidents,
        not_stored,
        unreadable: history.unreadable.clone(),
    }
}

fn severity(incidents: &[Incident], last_end: Option<&Option<String>>) -> Severity {
    let abandoned = incidents.iter().any(|i| i.outcome == Outcome::Abandoned);
    match last_end {
        _ if abandoned => Severity::Abandoned,
        Some(None) => Severity::NoEnd,
        _ if incidents.is_empty() => Severity::Sound,
        _ => Severity::Recovered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{
        JournalEntry,
        core::{Inventory, Warmth},
    };
    use polestar_core::{Digest, Rank};
    use polestar_run::failure::{Blame, Member, Trouble};

    fn history(entries: Vec<(u64, Entry)>) -> EventHistory {
        let recorded = |(epoch, entry)| Recorded {
            epoch: Epoch(epoch),
            time: "2026-01-01 00:00:00 UTC".to_owned(),
            entry: JournalEntry {
                at: Default::default(),
                entry,
            },
        };
        EventHistory {
            entries: entries.into_iter().map(recorded).collect(),
            unreadable: Vec::new(),
        }
    }

    fn lost(worker: u64) -> Cause {
        let member = Member {
            rank: Rank(0),
            worker: WorkerId(worker),
            host: "h".to_owned(),
            pid: 7,
        };
        let trouble = Trouble::Lost;
        Cause::of_ranks(vec![Blame { member, trouble }]).expect("one blame")
    }

    #[test]
    fn the_first_cause_comes_with_what_its_process_said_last() {
        let trial = TrialId("t".to_owned());
        let launch = LaunchId("l1".to_owned());
        let joined = Entry::Joined {
            worker: WorkerId(1),
            inventory: Inventory {
                host: "h".to_owned(),
                pid: 7,
                launch: Some(launch.clone()),
                machine: Default::default(),
            },
        };
        let retried = Entry::Retried {
            trial: trial.clone(),
            generation: Generation::default(),
            cause: lost(1),
        };
        let ended = Entry::ProcessEnded {
            launch,
            status: "signal: 11".to_owned(),
            log_tail: "bus error".to_owned(),
        };
        let done = Entry::Done {
            trial: trial.clone(),
            digest: Digest::of(b"d"),
        };
        let end = Entry::Ended {
            verdict: "every trial is done".to_owned(),
            warmth: Warmth::default(),
        };
        let mut entries = vec![(3, joined), (3, retried), (3, ended)];
        let open = diagnose(&history(entries.clone()));
        assert_eq!(open.severity, Severity::NoEnd);
        assert_eq!(open.incidents[0].outcome, Outcome::Open);
        assert_eq!(open.incidents[0].log_tail.as_deref(), Some("bus error"));

        entries.extend([(4, done), (4, end)]);
        let done = diagnose(&history(entries.clone()));
        assert_eq!(done.severity, Severity::Recovered);
        assert_eq!(done.incidents[0].outcome, Outcome::Done);
        assert_eq!(done.coordinators[&3], None, "it died");

        let cause = lost(9);
        entries.insert(3, (3, Entry::Abandoned { trial, cause }));
        let since = diagnose(&history(entries.clone()));
        assert_eq!(since.severity, Severity::Recovered, "it is done since");
        entries.truncate(4);
        assert_eq!(diagnose(&history(entries)).severity, Severity::Abandoned);
        assert_eq!(diagnose(&history(Vec::new())).severity, Severity::Sound);
    }
}
