//! What all handlers share: from texts to rewards.

use super::{Credential, Limits, metrics::Metrics, queue::Queue, refusal::Refusal};
use crate::{Cuts, Group, TextError, Texts};
use axum::http::StatusCode;
use polestar_dataset::TokenTree;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::SystemTime,
};
use tokio::sync::Semaphore;

/// The server behind its routes.
pub(super) struct App {
    pub(super) texts: Texts,
    pub(super) queue: Queue,
    pub(super) metrics: Arc<Metrics>,
    pub(super) model: String,
    pub(super) limits: Limits,
    /// Hash of what clients have to show.
    pub(super) token: Option<Credential>,
    /// Requests that may still come in.
    pub(super) requests: Arc<Semaphore>,
    /// Threads that may still begin to tokenize.
    pub(super) tokenizers: Semaphore,
    pub(super) draining: AtomicBool,
    pub(super) answers: AtomicU64,
}

/// A whole sequence to score.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sequence {
    /// Special tokens spelled out.
    Text(String),
    /// All that is before a candidate, and the candidate.
    Pair(String, String),
    /// Tokenized by the client, special tokens and all.
    Ids(Vec<u32>),
}

/// Rewards of sequences, in order.
#[derive(Debug, Default)]
pub(super) struct Rewarded {
    pub(super) rewards: Vec<f32>,
    /// Tokens of each sequence.
    pub(super) tokens: Vec<usize>,
}

impl Rewarded {
    /// Tokens of all of them.
    pub(super) fn all_tokens(&self) -> usize {
        self.tokens.iter().sum()
    }
}

impl App {
    /// Rewards of groups, with what was cut of each.
    pub(super) async fn groups(
        &self,
        groups: Vec<Group>,
        place: fn(usize) -> String,
    ) -> Result<Vec<(Vec<f32>, Cuts)>, Refusal> {
        let read = move |texts: &Texts| {
            let read = groups.iter().enumerate();
            let read = read.map(|(at, group)| {
                let tokenized = texts.group(group);
                tokenized.map_err(|error| Refusal::at(&place(at), &error))
            });
            read.collect::<Result<Vec<_>, _>>()
        };
        let tokenized = self.tokenize(read).await?;
        let (trees, cuts): (Vec<_>, Vec<_>) =
            tokenized.into_iter().map(|t| (t.tree, t.cuts)).unzip();
        self.metrics.cut(cuts.iter().map(Cuts::texts).sum());
        let rewards = self.queue.score(trees).await?;
        self.metrics.rewards(rewards.iter().map(Vec::len).sum());
        Ok(rewards.into_iter().zip(cuts).collect())
    }

    /// Rewards of whole sequences. Those that begin alike up to the candidate share that beginning.
    pub(super) async fn sequences(&self, sequences: Vec<Sequence>) -> Result<Rewarded, Refusal> {
        let read = move |texts: &Texts| {
            let each = sequences.iter().enumerate();
            let each = each.map(|(at, sequence)| {
                let tree = read(texts, sequence);
                tree.map_err(|error| Refusal::at(&format!("text {at}"), &error))
            });
            each.collect::<Result<Vec<TokenTree>, _>>()
        };
        let sequences = self.tokenize(read).await?;
        let mut trees: Vec<TokenTree> = Vec::new();
        let mut by_prefix = BTreeMap::new();
        let mut places = Vec::with_capacity(sequences.len());
        let mut tokens = Vec::with_capacity(sequences.len());
        for TokenTree { prefix, branches } in sequences {
            let of_branch: usize = branches.iter().map(Vec::len).sum();
            tokens.push(prefix.len() + of_branch);
            let number = *by_prefix.entry(prefix.clone()).or_insert(trees.len());
            if number == trees.len() {
                let branches = Vec::new();
                trees.push(TokenTree { prefix, branches });
            }
            places.push((number, trees[number].branches.len()));
            trees[number].branches.extend(branches);
        }
        let found = self.queue.score(trees).await?;
        let rewards = places.into_iter().map(|(tree, branch)| found[tree][branch]);
        let rewards: Vec<f32> = rewards.collect();
        self.metrics.rewards(rewards.len());
        Ok(Rewarded { rewards, tokens })
    }

    /// Runs on a thread that may take its time, one of a few.
    async fn tokenize<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Texts) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let gone = |_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server ends");
        let _turn = self.tokenizers.acquire().await.map_err(gone)?;
        let texts = self.texts.clone();
        let read = tokio::task::spawn_blocking(move || read(&texts)).await;
        read.map_err(|error| {
            let sentence = format!("tokenizing ended in a panic, please report it: {error}");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, sentence)
        })?
    }

    /// A name for an answer, as `kind-7`.
    pub(super) fn answer_id(&self, kind: &str) -> String {
        let number = self.answers.fetch_add(1, Ordering::Relaxed);
        format!("{kind}-{number}")
    }
}

fn read(texts: &Texts, sequence: &Sequence) -> Result<TokenTree, TextError> {
    match sequence {
        Sequence::Text(text) => texts.sequence(text),
        Sequence::Pair(query, item) => texts.continued(query, std::slice::from_ref(item)),
        Sequence::Ids(ids) => texts.ids(ids),
    }
}

/// Seconds since 1970, as answers of OpenAI's shape say when they were made.
#[expect(
    clippy::disallowed_methods,
    reason = "clients read when an answer was made; nothing follows from it"
)]
pub(super) fn created() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
