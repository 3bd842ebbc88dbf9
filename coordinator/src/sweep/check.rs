//! What an axis can't be: the checks that serde doesn't make, each with a sentence that names the key.

use super::axes::{Axes, BatchAxis, LrAxis};

impl Axes {
    /// Checks what serde can't.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.seeds.is_empty() {
            return Err("sweep.seeds needs at least one entry".into());
        }
        self.check_lengths()?;
        self.check_rates()?;
        self.check_batches()?;
        self.check_policies()?;
        self.check_curves()
    }

    /// Exactly one way to say how long trials are.
    fn check_lengths(&self) -> Result<(), String> {
        let lengths = [
            self.budgets.is_empty(),
            self.steps.is_empty(),
            self.tokens_per_parameter.is_empty(),
        ];
        if lengths.iter().filter(|empty| !**empty).count() != 1 {
            return Err(
                "give one of sweep.budgets (FLOPs), sweep.steps and sweep.tokens_per_parameter, \
                 and not both or all"
                    .into(),
            );
        }
        if let Some(bad) = self.budgets.iter().find(|b| !positive(b)) {
            return Err(format!(
                "sweep.budgets has {bad}; a budget is a positive number of FLOPs"
            ));
        }
        if let Some(bad) = self.tokens_per_parameter.iter().find(|b| !positive(b)) {
            return Err(format!(
                "sweep.tokens_per_parameter has {bad}; it must be a positive number"
            ));
        }
        if self.steps.contains(&0) {
            return Err("sweep.steps has 0; a trial needs at least one step".into());
        }
        Ok(())
    }

    /// Rates of sizes that are there, or a law that has what it needs.
    fn check_rates(&self) -> Result<(), String> {
        match &self.lr {
            LrAxis::BySize(by_size) => {
                if let Some(size) = by_size.keys().find(|s| !self.sizes.contains(s)) {
                    return Err(format!("sweep.lr.{size}: sweep.sizes has no `{size}`"));
                }
            }
            LrAxis::Each(rates) if rates.is_empty() => {
                return Err("sweep.lr is an empty list; leave it out or name a rate".into());
            }
            LrAxis::Law(_) if !self.pretrain_tokens.as_ref().is_some_and(positive) => {
                return Err(
                    "sweep.lr = \"polar\" needs sweep.pretrain_tokens: how many tokens the weights \
                     to start from were trained on as a language model"
                        .into(),
                );
            }
            _ => {}
        }
        Ok(())
    }

    /// A list that isn't empty, or a law that isn't circular.
    fn check_batches(&self) -> Result<(), String> {
        match &self.batch {
            Some(BatchAxis::Each(batches)) if batches.is_empty() => {
                return Err("sweep.batch is an empty list; leave it out or name a batch".into());
            }
            Some(BatchAxis::Law(_)) if !self.steps.is_empty() => {
                return Err(
                    "sweep.batch = \"polar\" follows from the tokens, and sweep.steps from the batch: \
                     give sweep.budgets or sweep.tokens_per_parameter instead of steps"
                        .into(),
                );
            }
            _ => {}
        }
        Ok(())
    }

    /// Choices of policies that can be compared.
    fn check_policies(&self) -> Result<(), String> {
        if self.policies.iter().any(|&count| count < 2) {
            return Err("sweep.policies: a triplet compares two, so at least 2 are needed".into());
        }
        if !self.distance.is_empty() && self.policies.is_empty() {
            return Err(
                "sweep.distance says how chosen policies lie; say in sweep.policies how many"
                    .into(),
            );
        }
        Ok(())
    }

    /// Curves to read a law off, or a trunk to share.
    fn check_curves(&self) -> Result<(), String> {
        if let Some(validations) = self.envelope {
            if validations < 4 {
                return Err(format!(
                    "sweep.envelope is {validations}; a curve needs at least 4 validations, and a good one 20"
                ));
            }
            if self.trunk.is_some() {
                return Err(
                    "sweep.envelope reads the law off each curve, sweep.trunk shares curves among \
                     lengths: use one of them"
                        .into(),
                );
            }
        }
        if let Some(trunk) = &self.trunk {
            if !(trunk.decay > 0.0 && trunk.decay <= 1.0) {
                return Err(format!(
                    "sweep.trunk.decay is {}; it is a fraction of each length, above 0 and at most 1",
                    trunk.decay
                ));
            }
            let by_length =
                matches!(self.lr, LrAxis::Law(_)) || matches!(self.batch, Some(BatchAxis::Law(_)));
            if by_length {
                return Err(
                    "sweep.trunk: with \"polar\" every length has a learning rate or batch of its \
                     own, so there is no trunk to share; give lists or leave the trunk out"
                        .into(),
                );
            }
        }
        Ok(())
    }
}

fn positive(x: &f64) -> bool {
    x.is_finite() && *x > 0.0
}
