//! One generation: its members, how far it is, and why it ended.

use super::{Failure, WorkerId};
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) trial: usize,
    /// By rank.
    pub(super) members: Vec<Member>,
    pub(super) phase: Phase,
    pub(super) causes: Vec<Cause>,
}

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) worker: WorkerId,
    pub(super) name: String,
    pub(super) address: Option<String>,
    pub(super) outcome: Option<String>,
    /// Whether its engine may still run.
    pub(super) busy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Preparing,
    Running,
    Stopping,
}

#[derive(Clone, Debug)]
pub(super) enum Cause {
    Lost { who: String },
    Failed { who: String, failure: Failure },
}

impl Group {
    pub(super) fn member(&self, worker: WorkerId) -> Option<(usize, &Member)> {
        self.members
            .iter()
            .enumerate()
            .find(|(_, m)| m.worker == worker)
    }

    /// Index of the cause that began it: the first that is no collateral.
    pub(super) fn first(&self) -> Option<usize> {
        let own = |c: &Cause| match c {
            Cause::Failed { failure, .. } => !failure.collateral,
            Cause::Lost { .. } => true,
        };
        let first = self.causes.iter().position(own);
        first.or_else(|| (!self.causes.is_empty()).then_some(0))
    }

    pub(super) fn first_failure(&self) -> Option<&Failure> {
        match &self.causes[self.first()?] {
            Cause::Failed { failure, .. } => Some(failure),
            Cause::Lost { .. } => None,
        }
    }

    pub(super) fn was_lost(&self) -> bool {
        let first = self.first().map(|i| &self.causes[i]);
        matches!(first, Some(Cause::Lost { .. }))
    }

    /// First cause, then whoever suffered from it.
    pub(super) fn story(&self) -> String {
        let Some(first) = self.first() else {
            return "it was stopped".to_owned();
        };
        let mut story = self.causes[first].sentence();
        let mut others: BTreeSet<&str> = self.causes.iter().map(Cause::who).collect();
        others.remove(self.causes[first].who());
        if !others.is_empty() {
            let others: Vec<&str> = others.into_iter().collect();
            story.push_str(&format!(" (in its wake: {})", others.join(", ")));
        }
        story
    }
}

impl Cause {
    pub(super) fn who(&self) -> &str {
        match self {
            Cause::Lost { who } | Cause::Failed { who, .. } => who,
        }
    }

    pub(super) fn sentence(&self) -> String {
        match self {
            Cause::Lost { who } => format!("{who} was lost: its process or host is gone"),
            Cause::Failed { who, failure } => {
                format!("{who} failed in {}: {}", failure.phase, failure.message)
            }
        }
    }
}
