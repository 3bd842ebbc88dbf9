//! Why a corpus could not be assembled.

use super::Unusable;
use crate::account::Account;
use crate::{files, tokenizer};

/// Why a corpus could not be assembled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No prompt can give a triplet.
    #[error("{0}")]
    NoUsablePrompt(Box<Unusable>),
    /// No prompt says of which cluster it is.
    #[error("--cluster {column}: no row has a value in this column; name one that has")]
    NoCluster {
        /// The column.
        column: String,
    },
    /// No prompt has a pair.
    #[error(
        "no prompt has a pair: pairs of equal texts prefer nothing, and ranked answers need two of unequal \
         scores beside their reference (--reference none makes pairs of two answers alone)"
    )]
    NoPair,
    /// A label that was written can't be read.
    #[error(
        "a label that was kept on disk can't be read; remove the temporary folder and import again"
    )]
    Label(#[source] serde_json::Error),
    /// Nothing would be left to train on.
    #[error(
        "{asked} held-out prompts would leave nothing to train on: {usable} prompts are usable; \
         hold out fewer (--heldout-prompts)"
    )]
    HeldOutPrompts {
        /// Prompts to hold out.
        asked: u64,
        /// Usable prompts.
        usable: u64,
    },
    /// A fraction is not one.
    #[error("the held-out fraction {fraction} is not in 0..1")]
    Fraction {
        /// The fraction.
        fraction: f64,
    },
    /// A named policy does not exist.
    #[error(
        "{flag}: no policy is '{name}'; the nearest of {policies}: '{nearest}' (a strict policy may be given by \
         its first columns, and --heldout-policy takes patterns with *)"
    )]
    UnknownPolicy {
        /// The flag, and the key in a sweep file.
        flag: &'static str,
        /// The name.
        name: String,
        /// How many policies there are.
        policies: usize,
        /// The names nearest to it.
        nearest: String,
    },
    /// Too few policies to hold out.
    #[error(
        "--heldout-policies (heldout_policy_count): {asked} policies are to be held out, but only {eligible} can be: they need as \
         many usable prompts as the median policy, and no twin that stays in training ({twins} more have one, \
         in groups of more than a quarter of all policies); hold out fewer, or name them with \
         --heldout-policy NAME"
    )]
    HeldOutPolicies {
        /// Policies to hold out.
        asked: usize,
        /// Policies that can be.
        eligible: usize,
        /// Policies that can't because of their twins.
        twins: usize,
    },
    /// The tokenizer could not be made.
    #[error("could not make the tokenizer")]
    Tokenizer(#[source] tokenizer::Error),
    /// A file could not be written.
    #[error("could not write a corpus file")]
    File(#[source] files::Error),
    /// What was found could not be saved.
    #[error("could not record how far the import is; choose a temp_dir with enough free space")]
    Journal(#[source] std::io::Error),
    /// Rows are lost, or counted twice.
    #[error(
        "the rows of {input} don't add up: {account:?}; nothing was imported. This is a fault of the \
         program: please report it with this line"
    )]
    Account {
        /// The input.
        input: String,
        /// Its account.
        account: Box<Account>,
    },
    /// The store failed.
    #[error("could not write the corpus to {url}")]
    Store {
        /// The store.
        url: String,
        /// What went wrong.
        source: polestar_store::Error,
    },
    /// Another corpus is there.
    #[error(
        "another corpus is already at {url}; choose an empty place, or delete that corpus first"
    )]
    Occupied {
        /// The store.
        url: String,
    },
}
