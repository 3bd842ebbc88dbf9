//! Which column of a table holds what: by the name that was given, else by the names under which people write it.

use super::read::{Reading, RunColumn, TableError};
use std::{collections::BTreeMap, fmt};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// Parameters.
    N,
    /// Tokens.
    D,
    /// Compute, FLOP.
    C,
    /// Loss in nats.
    Loss,
    /// Standard deviation of ln N.
    Sigma,
}

impl Quantity {
    const ALL: [Quantity; 5] = [
        Quantity::N,
        Quantity::D,
        Quantity::C,
        Quantity::Loss,
        Quantity::Sigma,
    ];

    /// Whether a column of this name is it, whatever else the table has.
    fn is_named(self, name: &str) -> bool {
        let names: &[&str] = match self {
            Quantity::N => &["n", "params", "parameters"],
            Quantity::D => &["d", "tokens"],
            Quantity::C => &["c", "flop", "flops", "compute"],
            Quantity::Loss => &["loss", "l"],
            Quantity::Sigma => &[],
        };
        names.contains(&name)
    }

    /// Whether a column of this name may be it, if it is the only one.
    fn may_be_named(self, name: &str) -> bool {
        const N: [&str; 15] = [
            "num_params",
            "n_params",
            "nparams",
            "num_parameters",
            "n_parameters",
            "param_count",
            "parameter_count",
            "params_count",
            "total_params",
            "total_parameters",
            "model_params",
            "model_parameters",
            "model_size",
            "non_embedding_params",
            "non_embedding_parameters",
        ];
        const D: [&str; 15] = [
            "num_tokens",
            "n_tokens",
            "ntokens",
            "training_tokens",
            "train_tokens",
            "total_tokens",
            "unique_tokens",
            "tokens_seen",
            "tokens_trained",
            "trained_tokens",
            "token_count",
            "dataset_tokens",
            "d_total",
            "d_unique",
            "n_train_tokens",
        ];
        const C: [&str; 12] = [
            "budget",
            "compute_budget",
            "flop_budget",
            "flops_budget",
            "total_flops",
            "train_flops",
            "training_flops",
            "achieved_flops",
            "num_flops",
            "n_flops",
            "total_compute",
            "training_compute",
        ];
        match self {
            Quantity::N => N.contains(&name),
            Quantity::D => D.contains(&name),
            Quantity::C => C.contains(&name),
            Quantity::Loss => is_a_loss(name),
            Quantity::Sigma => false,
        }
    }
}

/// `val_loss`, `loss_c4_val`, `bpb`: a loss of some set, but not how sure it is.
fn is_a_loss(name: &str) -> bool {
    const LOSS: [&str; 3] = ["loss", "bpb", "nll"];
    const SURENESS: [&str; 12] = [
        "std", "sd", "se", "stderr", "sigma", "var", "err", "error", "lo", "hi", "lower", "upper",
    ];
    let has = |words: &[&str]| name.split('_').any(|part| words.contains(&part));
    has(&LOSS) && !has(&SURENESS)
}

/// Names of columns that say which training a row is of.
const RUN: [&str; 10] = [
    "run",
    "run_id",
    "run_name",
    "name",
    "trial",
    "trial_id",
    "trial_name",
    "experiment",
    "experiment_id",
    "experiment_name",
];

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Quantity::N => "N",
            Quantity::D => "D",
            Quantity::C => "C",
            Quantity::Loss => "loss",
            Quantity::Sigma => "sigma",
        })
    }
}

impl std::str::FromStr for Quantity {
    type Err = String;

    fn from_str(name: &str) -> Result<Quantity, String> {
        let found = Quantity::ALL
            .into_iter()
            .find(|q| q.to_string().eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("`{name}` is none of N, D, C, loss, sigma"))
    }
}

/// A name as it is compared: without case, units in brackets, and what stands between words.
fn plain(name: &str) -> String {
    let mut text = String::new();
    let mut depth = 0_usize;
    for letter in name.chars() {
        match letter {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            ' ' | '-' | '.' | '/' | '_' => text.push('_'),
            _ => text.extend(letter.to_lowercase()),
        }
    }
    let words: Vec<&str> = text.split('_').filter(|word| !word.is_empty()).collect();
    words.join("_")
}

/// Where everything stands that is read from a table.
#[derive(Debug, Default)]
pub(super) struct Places<'r> {
    /// By quantity.
    pub(super) columns: Vec<(Quantity, usize)>,
    /// Quantities that several columns may be, and those.
    pub(super) ambiguous: BTreeMap<Quantity, Vec<String>>,
    /// Columns that rows are filtered by, and the value that they must have.
    pub(super) filters: Vec<(usize, &'r str)>,
    /// Columns that may say which run a row is of; the one that was asked for, if one was.
    pub(super) runs: Vec<usize>,
}

/// The names of the columns, each once.
pub(super) struct Header(pub(super) Vec<String>);

impl Header {
    pub(super) fn of(names: &csv::StringRecord) -> Result<Self, TableError> {
        let names: Vec<String> = names.iter().map(str::to_owned).collect();
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) {
                return Err(TableError::Twice(name.clone()));
            }
        }
        if names.iter().all(|name| name.parse::<f64>().is_ok()) {
            return Err(TableError::NoHeader(names.join(", ")));
        }
        Ok(Self(names))
    }

    /// Finds everything.
    pub(super) fn places<'r>(&self, reading: &'r Reading) -> Result<Places<'r>, TableError> {
        let mut places = Places::default();
        let mut given: Vec<(Quantity, usize)> = Vec::new();
        for (&quantity, name) in &reading.columns {
            let at = self.place(name)?;
            if let Some((other, _)) = given.iter().find(|(_, other)| *other == at) {
                return Err(TableError::Shared(name.clone(), *other, quantity));
            }
            given.push((quantity, at));
        }
        let is_free = |at: &usize| given.iter().all(|(_, taken)| taken != at);
        for quantity in Quantity::ALL {
            if let Some(&found) = given.iter().find(|(q, _)| *q == quantity) {
                places.columns.push(found);
                continue;
            }
            let named = |is_it: &dyn Fn(&str) -> bool| -> Vec<usize> {
                let all = (0..self.0.len()).filter(is_free);
                all.filter(|&at| is_it(&plain(&self.0[at]))).collect()
            };
            let mut found = named(&|name| quantity.is_named(name));
            if found.is_empty() {
                found = named(&|name| quantity.may_be_named(name));
            }
            match found[..] {
                [] => {}
                [at] => places.columns.push((quantity, at)),
                _ => {
                    let names = found.iter().map(|&at| self.0[at].clone());
                    places.ambiguous.insert(quantity, names.collect());
                }
            }
        }
        for (name, value) in &reading.filters {
            places.filters.push((self.place(name)?, value.as_str()));
        }
        places.runs = match &reading.run {
            RunColumn::None => Vec::new(),
            RunColumn::Named(name) => vec![self.place(name)?],
            RunColumn::Detect => (0..self.0.len())
                .filter(|&at| RUN.contains(&plain(&self.0[at]).as_str()))
                .collect(),
        };
        Ok(places)
    }

    fn place(&self, name: &str) -> Result<usize, TableError> {
        let at = self.0.iter().position(|h| h == name);
        at.ok_or_else(|| TableError::NoColumn {
            name: name.to_owned(),
            has: self.0.join(", "),
        })
    }
}
