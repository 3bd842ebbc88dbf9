//! An inspection in text.

use std::collections::BTreeSet;
use std::fmt;

use super::{Inspection, Leak, Quantiles, Share, Suspects};
use crate::account::Accounts;
use crate::across::Pairs;
use crate::manifest::Counts;

/// Pairs of policies that are named.
const SHOWN: usize = 10;

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_totals(f)?;
        self.write_policies(f)?;
        self.write_warnings(f)
    }
}

impl Inspection {
    fn write_totals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            trajectories,
            prompts,
            train_prompts,
            heldout_prompts,
            text_bytes,
        } = self.counts;
        let (files, row_groups, bytes) = self.storage;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(f, "corpus        {}", self.url)?;
        writeln!(f, "fingerprint   {}", self.fingerprint)?;
        writeln!(f, "trajectories  {trajectories}")?;
        for line in Accounts(&self.inputs).to_string().lines() {
            writeln!(f, "              {line}")?;
        }
        writeln!(
            f,
            "near copies   {} pairs of one policy's answers to a prompt",
            self.same_policy
        )?;
        let without = prompts.saturating_sub(train_prompts + heldout_prompts);
        writeln!(
            f,
            "prompts       {prompts}: {train_prompts} to train on, {heldout_prompts} held out, \
             {without} without a triplet"
        )?;
        if !self.obstacles.is_empty() {
            writeln!(f, "              without: {}", self.obstacles)?;
        }
        if self.pairs == Pairs::AcrossPrompts {
            let cluster = self.cluster.as_ref();
            let of = cluster.map_or(String::new(), |column| format!(" with the same '{column}'"));
            writeln!(
                f,
                "pairs         across prompts: the reference answers another prompt of the row group{of}"
            )?;
        }
        let (answers, blank_prompts) = self.blank;
        if answers + blank_prompts > 0 {
            writeln!(
                f,
                "blank         {answers} answers and {blank_prompts} prompts are white space only"
            )?;
        }
        writeln!(
            f,
            "leaks         {} held-out prompts nearly repeat one that is trained on",
            self.leaks
        )?;
        let leaking: BTreeSet<&str> = (self.policy_leaks.iter())
            .map(|pair| pair.policies[0].as_str())
            .collect();
        let all = self.policies.iter().filter(|policy| policy.held_out);
        let held_out = Share {
            some: leaking.len() as u64,
            all: all.count() as u64,
        };
        writeln!(
            f,
            "              {held_out} held-out policies often give the answers of one that is \
             trained on (compared on {} prompts)",
            self.compared
        )?;
        writeln!(
            f,
            "text          {:.1} MiB in {files} files, {row_groups} row groups, {:.1} MiB",
            mib(text_bytes),
            mib(bytes)
        )?;
        writeln!(f, "tokenizer     {} tokens", self.vocab_size)?;
        let held_out = self
            .policies
            .iter()
            .filter(|policy| policy.held_out)
            .count();
        writeln!(
            f,
            "policies      {}, {held_out} of them held out\n",
            self.policies.len()
        )
    }

    fn write_policies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .policies
            .iter()
            .map(|policy| policy.name.chars().count())
            .max()
            .unwrap_or(0)
            .max(6);
        writeln!(
            f,
            "{:width$}  {:>12}  {:>10}  {:>20}  {:>17}",
            "policy", "trajectories", "2+ answers", "chars 50/90/100 %", "tokens 50/90/100 %"
        )?;
        for policy in &self.policies {
            let quantiles = |q: Quantiles| format!("{}/{}/{}", q.half, q.most, q.all);
            let mark = match (policy.held_out, policy.aliases) {
                (false, 0) => String::new(),
                (true, 0) => "  held out".into(),
                (held_out, aliases) => format!(
                    "{}  {aliases} aliases",
                    if held_out { "  held out" } else { "" }
                ),
            };
            writeln!(
                f,
                "{:width$}  {:>12}  {:>10}  {:>20}  {:>17}{mark}",
                policy.name,
                policy.trajectories,
                policy.cells,
                quantiles(policy.chars),
                quantiles(policy.tokens),
            )?;
        }
        writeln!(
            f,
            "2+ answers: prompts to which the policy gave at least two distinct answers"
        )
    }

    fn write_warnings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.leaking.is_empty() {
            writeln!(
                f,
                "\nThese held-out prompts nearly repeat one that is trained on, so their scores \
                 flatter:"
            )?;
            for Leak { heldout, trained } in &self.leaking {
                writeln!(f, "  {}  {}", heldout.0, heldout.1)?;
                writeln!(f, "    ~ {}  {}", trained.0, trained.1)?;
            }
            more(f, self.leaks.some, self.leaking.len())?;
        }
        if !self.policy_leaks.is_empty() {
            writeln!(
                f,
                "\nThese held-out policies often give the same answers as one that is trained on, so \
                 their scores flatter; hold both out, or, if they are one policy, import with aliases:"
            )?;
            write_pairs(f, &self.policy_leaks)?;
        }
        if !self.suspects.is_empty() {
            writeln!(
                f,
                "\nThese give the same response, or nearly, unusually often; if they are one \
                 policy, import with aliases:"
            )?;
            write_pairs(f, &self.suspects)?;
        }
        Ok(())
    }
}

fn write_pairs(f: &mut fmt::Formatter<'_>, pairs: &[Suspects]) -> fmt::Result {
    for pair in pairs.iter().take(SHOWN) {
        let [a, b] = &pair.policies;
        let share = 100.0 * pair.share();
        let (equal, shared) = (pair.equal, pair.shared);
        writeln!(
            f,
            "  {share:>5.1} %  {a}  ~  {b}  ({equal} of {shared} prompts)"
        )?;
    }
    more(f, pairs.len() as u64, SHOWN)
}

/// Says how many there are that are not shown.
fn more(f: &mut fmt::Formatter<'_>, all: u64, shown: usize) -> fmt::Result {
    match all.saturating_sub(shown as u64) {
        0 => Ok(()),
        more => writeln!(f, "  and {more} more"),
    }
}
