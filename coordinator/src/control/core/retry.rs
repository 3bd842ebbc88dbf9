//! Another attempt at a trial that was abandoned, when somebody asks for it.

use super::state::{Core, Standing};
use crate::{control::journal::Entry, run::Spent};
use polestar_core::TrialId;

impl Core {
    /// Tries an abandoned trial again, with a new budget: first what it starts from, if that was abandoned, too, and
    /// then what was abandoned for want of it.
    pub(super) fn retry(&mut self, trial: &TrialId) {
        let Some(mut index) = self.index_of(trial) else {
            return;
        };
        if !self.is_abandoned(index) {
            return;
        }
        while let Some(after) = self.trials[index].after
            && self.is_abandoned(after)
        {
            index = after;
        }
        self.reopen(index);
        // There is more to do than there was, maybe more than the pool was last made for.
        self.demand_is_known = false;
        self.scale();
    }

    fn is_abandoned(&self, index: usize) -> bool {
        matches!(self.trials[index].standing, Standing::Abandoned(_))
    }

    fn reopen(&mut self, index: usize) {
        let trial = &mut self.trials[index];
        // Trials that were abandoned before this coordinator came were never held against its pool.
        if trial.job.world > self.options.workers {
            return;
        }
        trial.spent = Spent::default();
        trial.outages = 0;
        trial.not_before = None;
        trial.overtaken = None;
        let name = trial.job.trial.clone();
        self.stand(index, Standing::Waiting);
        self.publish(Entry::Reopened { trial: name });
        for dependent in self.trials[index].dependents.clone() {
            if self.is_abandoned(dependent) {
                self.reopen(dependent);
            }
        }
    }
}
