//! From grouped trajectories to a committed corpus: the policy table, the held-out sets, the
//! tokenizer, the files, and the manifest last.
//!
//! The source is walked three times (count, find the usable prompts, write), so memory holds a few
//! parts of it and the files under construction. What each walk finds is saved where the source has a
//! journal, and of the last one every file: a job that was stopped goes on there.

mod error;
mod journal;
mod labelled;
mod policies;
mod select;
mod unusable;
mod walk;
mod write;

use std::{collections::BTreeMap, sync::Arc};

use futures::TryStreamExt;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::account::InputAccount;
use crate::across::{Pairing, Pairs};
use crate::manifest::{
    CorpusKind, File, FileSplit, Fingerprint, MANIFEST_KEY, Manifest, SCHEMA_VERSION,
    TokenizerEntry,
};
use crate::origin::{FileLayout, HeldOut, Origin};
use crate::schema::Prompt;
use crate::tokenizer::{GivenTokenizer, Tokenizer};
use crate::triplet::{Obstacle, PolicySamples};
pub use error::Error;
pub(crate) use journal::{Journal, load, save};
pub(crate) use labelled::assemble_labelled;
use polestar_core::digest::hex;
use polestar_store::{Put, Store};
use policies::PolicySelection;
pub(crate) use select::{COLUMN_SEPARATOR, lot};
use select::{Chooser, HeldOutPrompts, Tally, Wanted};
pub use unusable::{Coarser, Obstacles, Unusable};
use walk::walk;
use write::{CorpusWriter, Numbered};

/// Text that the tokenizer is trained on, at most about this much,
const TOKENIZER_SAMPLE_BYTES: u64 = 32 << 20;
/// of which one text gives at most its first so many bytes: an answer that repeats itself without end would
/// otherwise be most of the sample.
const TOKENIZER_TEXT_BYTES: usize = 1 << 20;
/// What the journal calls the tokenizer that was trained.
const TOKENIZER_NAME: &str = "tokenizer";
pub(crate) const TOKENIZER_KEY: &str = "tokenizer.json";

/// What is being done, for a progress display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The stage.
    pub stage: Stage,
    /// Units done in this stage.
    pub done: u64,
    /// Units in this stage.
    pub total: u64,
    /// Rows read by this job, in the first stage.
    pub rows: u64,
    /// Units that an earlier job, which was stopped, had done already.
    pub before: u64,
}

impl Progress {
    fn of(stage: Stage, done: u64, total: u64) -> Self {
        Self {
            stage,
            done,
            total,
            rows: 0,
            before: 0,
        }
    }
}

/// A stage of making a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading the input; units are bytes.
    Read,
    /// Counting policies and prompts; units are parts.
    Count,
    /// Training the tokenizer; one unit.
    Tokenizer,
    /// Choosing the held-out prompts; units are parts.
    Choose,
    /// Writing the files; units are parts.
    Write,
}

/// One prompt with all its distinct answers, sorted by (policy, sample, response).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) prompt_id: String,
    pub(crate) prompt: Prompt,
    pub(crate) answers: Vec<Answer>,
    /// What became of the answers, by the number of the input that has them.
    pub(crate) inputs: BTreeMap<u32, InputCounts>,
}

/// What became of an input's answers when they were grouped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InputCounts {
    /// In the corpus.
    pub(crate) kept: u64,
    /// Left out because they repeat another of the same policy.
    pub(crate) repeats: u64,
    /// Left out because they resemble another of the same policy.
    pub(crate) similar: u64,
    /// Labelled answers left out because no pair came of them.
    #[serde(default)]
    pub(crate) unpaired: u64,
}

impl std::ops::AddAssign for InputCounts {
    fn add_assign(&mut self, other: Self) {
        self.kept += other.kept;
        self.repeats += other.repeats;
        self.similar += other.similar;
        self.unpaired += other.unpaired;
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) policy: String,
    pub(crate) sample: u32,
    pub(crate) response: String,
    pub(crate) meta: Option<String>,
}

impl Group {
    /// The answers of each policy.
    fn by_policy(&self) -> impl Iterator<Item = &[Answer]> {
        self.answers.chunk_by(|a, b| a.policy == b.policy)
    }

    /// What the prompt's first answer says of its cluster.
    fn cluster(&self, pairing: &Pairing) -> Option<String> {
        pairing.cluster_of(self.answers.first()?.meta.as_deref())
    }

    /// The answers as cells of numbered policies.
    fn samples(&self, numbers: &BTreeMap<&str, u32>) -> Vec<PolicySamples> {
        let numbered = self.by_policy().map(|answers| PolicySamples {
            policy: numbers[answers[0].policy.as_str()],
            samples: answers
                .iter()
                .map(|answer| answer.response.clone())
                .collect(),
        });
        numbered.collect()
    }
}

/// Where the groups come from: the same ones, in the same order, on every walk.
pub(crate) trait Source: Send + Sync + 'static {
    type Error: std::error::Error + From<Error> + Send;

    fn parts(&self) -> usize;
    /// The groups of one part. A prompt is in one part only.
    fn load(&self, part: usize) -> Result<Vec<Group>, Self::Error>;
    /// Roughly the bytes of all texts.
    fn text_bytes(&self) -> u64;
    /// How many parts may be in memory, loaded on as many threads.
    fn loads_ahead(&self) -> usize;
    /// Where findings are saved, for sources that are there again when the job is stopped.
    fn journal(&self) -> Option<&Journal> {
        None
    }
}

/// What the journal has under `name`, or else what `find` finds, which is then saved.
async fn memoize<S: Source, T: Serialize + DeserializeOwned>(
    source: &S,
    name: &str,
    find: impl Future<Output = Result<T, S::Error>>,
) -> Result<T, S::Error> {
    if let Some(known) = source.journal().and_then(|journal| journal.load(name)) {
        return Ok(known);
    }
    let found = find.await?;
    if let Some(journal) = source.journal() {
        journal.save(name, &found).map_err(Error::Journal)?;
    }
    Ok(found)
}

/// As [`memoize`] for what the first walk finds. Its texts for the tokenizer, most of it by far, are not saved: until a
/// tokenizer that is `wanted` has been trained, the walk is made again.
async fn tallied<S: Source, T: Serialize + DeserializeOwned>(
    source: &S,
    name: &str,
    wanted: bool,
    count: impl Future<Output = Result<T, S::Error>>,
) -> Result<T, S::Error> {
    let trained = |journal: &Journal| journal.load::<Vec<u8>>(TOKENIZER_NAME).is_some();
    if !wanted || source.journal().is_some_and(trained) {
        return memoize(source, name, count).await;
    }
    let found = count.await?;
    if let Some(journal) = source.journal() {
        journal.save(name, &found).map_err(Error::Journal)?;
    }
    Ok(found)
}

/// What a corpus is made with, apart from its trajectories.
#[derive(Debug)]
pub(crate) struct Recipe<'a> {
    pub(crate) heldout_prompts: HeldOut,
    /// Held out by name.
    pub(crate) heldout_named: &'a [String],
    /// Further ones chosen by the seed.
    pub(crate) heldout_chosen: usize,
    pub(crate) aliases: &'a [Vec<String>],
    /// What triplets are made of.
    pub(crate) pairing: Pairing,
    /// Whether policies are compared, so that none is held out whose twin is trained on.
    pub(crate) twins: bool,
    pub(crate) seed: u64,
    pub(crate) vocab_size: u32,
    /// A tokenizer to use instead of training one.
    pub(crate) tokenizer: Option<GivenTokenizer>,
    /// Whether the files hold tokens beside the texts.
    pub(crate) pretokenize: bool,
    pub(crate) layout: FileLayout,
    pub(crate) origin: Origin,
    /// What became of every input's records until their answers were grouped.
    pub(crate) inputs: Vec<InputAccount>,
}

/// A group's place in its source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Place {
    part: usize,
    group: usize,
}

/// The corpus that is there, if its origin is the `same`; another one is refused.
pub(crate) async fn present(
    store: &Store,
    same: impl Fn(&Origin) -> bool,
) -> Result<Option<Manifest>, Error> {
    let json = store.get_opt(MANIFEST_KEY).await;
    let json = json.map_err(|source| Error::Store {
        url: store.url().into(),
        source,
    })?;
    // A manifest that can't be read is still a corpus.
    match json.map(|json| Manifest::from_json(&json)) {
        None => Ok(None),
        Some(Ok(manifest)) if same(&manifest.origin) => Ok(Some(manifest)),
        Some(_) => Err(occupied(store)),
    }
}

/// Makes the corpus and commits it.
pub(crate) async fn assemble<S: Source>(
    store: &Store,
    source: Arc<S>,
    recipe: Recipe<'_>,
    progress: &dyn Fn(Progress),
) -> Result<Manifest, S::Error> {
    let present = present(store, |origin| *origin == recipe.origin).await?;

    let selection = PolicySelection::of(&recipe);
    let wanted = Wanted {
        seed: recipe.seed,
        sample: recipe.tokenizer.is_none(),
        twins: recipe.twins && selection.holds_some(),
        pairing: &recipe.pairing,
    };
    let count = Tally::count(&source, wanted, progress);
    let tally = tallied(&*source, "tally", wanted.sample, count).await?;
    let cluster = recipe.pairing.cluster.clone();
    if let Some(column) = cluster.filter(|_| tally.clustered == 0) {
        return Err(Error::NoCluster { column }.into());
    }
    let (policies, held_out) = selection.table(&tally)?;
    let table = recipe.pairing.policy_table(&policies);
    progress(Progress::of(Stage::Tokenizer, 0, 1));
    let tokenizer = match recipe.tokenizer {
        Some(given) => given,
        None => trained(&*source, &tally.sample, recipe.vocab_size).await?,
    };
    progress(Progress::of(Stage::Tokenizer, 1, 1));
    let numbers: BTreeMap<&str, u32> = (0..)
        .zip(&policies)
        .map(|(number, policy)| (policy.name.as_str(), number))
        .collect();
    let chooser = Chooser {
        table: &table,
        numbers: &numbers,
        wanted: recipe.heldout_prompts,
        pairs: recipe.pairing.pairs,
        seed: recipe.seed,
    };
    let choose = async {
        let columns = recipe.origin.policy_columns();
        match chooser.choose(&source, progress).await? {
            Ok(chosen) => Ok(chosen),
            Err(obstacles) => {
                Err(no_triplet(&source, obstacles, &columns, recipe.pairing.pairs).await?)
            }
        }
    };
    let heldout = memoize(&*source, "heldout", choose).await?;

    // Over an existing corpus nothing may be written: it is only compared with what would be.
    let target = present.is_none().then_some(store);
    let writer = CorpusWriter::new(
        target,
        source.journal().filter(|_| present.is_none()),
        recipe.layout,
        Numbered {
            table: &table,
            numbers: &numbers,
            pairing: &recipe.pairing,
        },
        recipe.pretokenize.then_some(&tokenizer.tokenizer),
    )
    .await?;
    let files = write_files(&source, writer, &heldout, progress).await?;
    let counts = tally.counts(&files);
    if counts.train_prompts == 0 {
        // Of prompts that were usable each by itself no two of a row group make a pair.
        let mut obstacles = Obstacles::default();
        (0..counts.prompts).for_each(|_| obstacles.count(Obstacle::NoPartner));
        let pairs = recipe.pairing.pairs;
        return Err(no_triplet(&source, obstacles, &[], pairs).await?);
    }
    let inputs = tally.complete(recipe.inputs, counts.trajectories)?;
    let manifest = Manifest {
        schema_version: SCHEMA_VERSION,
        fingerprint: Fingerprint::default(),
        seal: String::new(),
        kind: CorpusKind::Trajectories,
        origin: recipe.origin,
        counts,
        inputs,
        tokenizer: TokenizerEntry {
            path: TOKENIZER_KEY.into(),
            digest: hex(&tokenizer.bytes),
            vocab_size: tokenizer.tokenizer.vocab_size(),
            stored_tokens: recipe.pretokenize,
        },
        policies: policies.clone(),
        held_out: wanted.twins.then_some(held_out),
        files,
    }
    .seal();
    match present {
        None => Ok(commit(store, tokenizer.bytes, manifest).await?),
        Some(present) if present == manifest => Ok(present),
        Some(_) => Err(occupied(store).into()),
    }
}

/// A tokenizer that is trained on a sample of the texts.
async fn trained<S: Source>(
    source: &S,
    sample: &[String],
    vocab_size: u32,
) -> Result<GivenTokenizer, S::Error> {
    let train = async {
        let trained = Tokenizer::train(sample, vocab_size);
        Ok(trained.map_err(Error::Tokenizer)?)
    };
    let bytes = memoize(source, TOKENIZER_NAME, train).await?;
    let tokenizer = Tokenizer::from_bytes(&bytes).map_err(Error::Tokenizer)?;
    Ok(GivenTokenizer { bytes, tokenizer })
}

/// The error that no prompt gives a triplet, with the ways on; the outer one is that the source failed.
async fn no_triplet<S: Source>(
    source: &Arc<S>,
    obstacles: Obstacles,
    columns: &[String],
    pairs: Pairs,
) -> Result<S::Error, S::Error> {
    let unusable = unusable::ways_on(source, obstacles, columns, pairs).await?;
    Ok(Error::NoUsablePrompt(Box::new(unusable)).into())
}

/// Walks the source and writes every group into the files of its split.
async fn write_files<S: Source>(
    source: &Arc<S>,
    mut writer: CorpusWriter<'_>,
    heldout: &HeldOutPrompts,
    progress: &dyn Fn(Progress),
) -> Result<Vec<File>, S::Error> {
    let parts = source.parts() as u64;
    let before = writer.first_part();
    let mut walk = walk(source, before);
    while let Some((part, groups)) = walk.try_next().await? {
        for (at, group) in groups.into_iter().enumerate() {
            let split = match heldout.holds(&group.prompt_id) {
                true => FileSplit::Heldout,
                false => FileSplit::Train,
            };
            writer.add(split, group, Place { part, group: at }).await?;
        }
        progress(Progress {
            before: before as u64,
            ..Progress::of(Stage::Write, part as u64 + 1, parts)
        });
    }
    Ok(writer.finish().await?)
}

/// Writes the tokenizer and then, if there is none, the manifest, which makes the files a corpus.
async fn commit(store: &Store, tokenizer: Vec<u8>, manifest: Manifest) -> Result<Manifest, Error> {
    let at = |source| Error::Store {
        url: store.url().into(),
        source,
    };
    let json = manifest.to_json();
    store
        .put(TOKENIZER_KEY, tokenizer.into())
        .await
        .map_err(at)?;
    let put = store.put_if_absent(MANIFEST_KEY, json.into()).await;
    if put.map_err(at)? == Put::Created {
        return Ok(manifest);
    }
    // Another process was faster, which is fine if it is the same corpus.
    let theirs = store.get(MANIFEST_KEY).await.map_err(at)?;
    match Manifest::from_json(&theirs) {
        Ok(theirs) if theirs == manifest => Ok(manifest),
        _ => Err(occupied(store)),
    }
}

fn occupied(store: &Store) -> Error {
    Error::Occupied {
        url: store.url().into(),
    }
}
