//! Row groups as prompts with every policy's samples: fetched by range request, verified, decoded, and kept in
//! a cache with a byte bound.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use arrow_array::RecordBatch;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;

use crate::across::{Across, Pairs, Places, References};
use crate::files;
use crate::labelled::{self, pair_samples};
use crate::manifest::{CorpusKind, FileSplit, Manifest, RowGroupRef};
use crate::schema::Rows;
use crate::triplet::{Obstacle, PolicySamples, PolicyTable, Task};
use polestar_core::ByteCount;
use polestar_store::Store;
use polestar_store::disk_cache::DiskCache;

/// Why a row group could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes could not be had.
    #[error("could not read row group {row_group} of {path}")]
    Read {
        /// The file.
        path: String,
        /// The row group.
        row_group: usize,
        /// What went wrong.
        source: Box<files::Error>,
    },
    /// The content contradicts the manifest.
    #[error(
        "row group {row_group} of {path} contradicts the manifest: {what}; run the corpus \
         verification and import the corpus anew"
    )]
    Content {
        /// The file.
        path: String,
        /// The row group.
        row_group: usize,
        /// The contradiction.
        what: String,
    },
}

/// A prompt and what every policy answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PromptSamples {
    pub(crate) id: String,
    pub(crate) text: String,
    pub(crate) policies: Vec<PolicySamples>,
    /// The number that the corpus gives every sample, policy by policy.
    pub(crate) numbers: Vec<u32>,
    /// What its first row's meta names, where triplets pair prompts of one cluster.
    pub(crate) cluster: Option<String>,
    /// Where the corpus stores them: the prompt's tokens, then every sample's, policy by policy.
    pub(crate) tokens: Vec<Box<[u32]>>,
}

impl PromptSamples {
    /// A prompt as far as the choice of triplets goes.
    pub(crate) fn of_policies(policies: Vec<PolicySamples>, cluster: Option<String>) -> Self {
        Self {
            id: String::new(),
            text: String::new(),
            policies,
            numbers: vec![],
            cluster,
            tokens: vec![],
        }
    }

    /// The stored tokens of the prompt.
    pub(crate) fn prompt_tokens(&self) -> Option<&[u32]> {
        self.tokens.first().map(|tokens| &**tokens)
    }

    /// The stored tokens of a sample, by positions.
    pub(crate) fn sample_tokens(&self, policy: usize, sample: usize) -> Option<&[u32]> {
        let place = 1 + self.place(policy, sample);
        self.tokens.get(place).map(|tokens| &**tokens)
    }

    /// The number that the corpus gives a sample, by positions.
    pub(crate) fn sample_number(&self, policy: usize, sample: usize) -> u32 {
        self.numbers[self.place(policy, sample)]
    }

    /// Place of a sample among all of the prompt's.
    fn place(&self, policy: usize, sample: usize) -> usize {
        let before = self.policies[..policy].iter();
        before.map(|answers| answers.samples.len()).sum::<usize>() + sample
    }
}

/// The prompts of one row group.
#[derive(Debug)]
pub(crate) struct PromptGroup {
    pub(crate) prompts: Vec<PromptSamples>,
    /// Positions of the prompts that are usable among training policies.
    train: Vec<usize>,
    /// Positions of the prompts that are usable with a held-out policy's reference.
    heldout_policies: Vec<usize>,
    /// Where triplets pair prompts.
    references: Option<References>,
    /// Whether each prompt is a labelled pair.
    labelled: bool,
    bytes: u64,
}

impl PromptGroup {
    /// Where the `number`-th usable prompt stands among the prompts.
    pub(crate) fn usable(&self, task: Task, number: usize) -> Option<usize> {
        self.positions(task).get(number).copied()
    }

    /// The prompts as they pair with each other; `None` where each stands for itself.
    pub(crate) fn across<'a>(
        &'a self,
        task: Task,
        policies: &'a PolicyTable,
    ) -> Option<Across<'a>> {
        Some(Across {
            policies,
            task,
            prompts: &self.prompts,
            references: self.references.as_ref()?,
        })
    }

    /// The one triplet of the pair at a position; `None` where triplets are drawn.
    pub(crate) fn pair(&self, at: usize) -> Option<Places> {
        self.labelled.then(|| labelled::places(at))
    }

    /// Why the prompt at a position gives no training triplet; `None` where it gives one.
    pub(crate) fn obstacle(&self, at: usize, policies: &PolicyTable) -> Option<Obstacle> {
        if self.labelled {
            return None;
        }
        match self.across(Task::Training, policies) {
            Some(across) => across.obstacle(at),
            None => policies.obstacle(&self.prompts[at].policies),
        }
    }

    /// How many are usable.
    pub(crate) fn count(&self, task: Task) -> usize {
        self.positions(task).len()
    }

    fn positions(&self, task: Task) -> &[usize] {
        match task {
            Task::Training => &self.train,
            Task::HeldoutPolicies => &self.heldout_policies,
        }
    }
}

/// Reads row groups of one corpus.
#[derive(Debug)]
pub(crate) struct Reader {
    store: Store,
    manifest: Arc<Manifest>,
    table: Arc<PolicyTable>,
    cache: Arc<Mutex<Cache>>,
    disk: Option<Arc<DiskCache>>,
}

#[derive(Debug)]
struct Cache {
    limit: u64,
    bytes: u64,
    clock: u64,
    metadata: BTreeMap<usize, ArrowReaderMetadata>,
    /// When each was last used, and its content.
    groups: BTreeMap<RowGroupRef, (u64, Arc<PromptGroup>)>,
}

impl Reader {
    /// A reader that keeps about `limit` bytes of decoded text, and always the row group read last.
    pub(crate) fn new(
        store: Store,
        manifest: Arc<Manifest>,
        table: Arc<PolicyTable>,
        limit: u64,
    ) -> Self {
        let cache = Cache {
            limit,
            bytes: 0,
            clock: 0,
            metadata: BTreeMap::new(),
            groups: BTreeMap::new(),
        };
        let disk = store.is_remote().then(DiskCache::of_this_process).flatten();
        Self {
            store,
            manifest,
            table,
            cache: Arc::new(Mutex::new(cache)),
            disk,
        }
    }

    /// A reader with a client of its own that shares this one's cache, whose limit becomes at least
    /// `limit`.
    pub(crate) fn sharing(&self, store: Store, limit: ByteCount) -> Self {
        let mut cache = self.cache();
        cache.limit = cache.limit.max(limit.0);
        Self {
            store,
            manifest: Arc::clone(&self.manifest),
            table: Arc::clone(&self.table),
            cache: Arc::clone(&self.cache),
            disk: self.disk.clone(),
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The rows of a row group as stored.
    pub(crate) async fn batches(
        &self,
        RowGroupRef { file, row_group }: RowGroupRef,
    ) -> Result<Vec<RecordBatch>, files::Error> {
        let entry = &self.manifest.files[file];
        let known = self.cache().metadata.get(&file).cloned();
        let metadata = match known {
            Some(metadata) => metadata,
            None => {
                let metadata =
                    files::fetch_metadata(&self.store, self.disk.as_deref(), entry).await?;
                self.cache().metadata.insert(file, metadata.clone());
                metadata
            }
        };
        files::fetch_row_group(
            &self.store,
            self.disk.as_deref(),
            entry,
            metadata,
            row_group,
        )
        .await
    }

    /// A row group, from the cache or the store.
    pub(crate) async fn row_group(&self, place: RowGroupRef) -> Result<Arc<PromptGroup>, Error> {
        if let Some(known) = self.cache().get(place) {
            return Ok(known);
        }
        let RowGroupRef { file, row_group } = place;
        let path = &self.manifest.files[file].path;
        let batches = self.batches(place).await;
        let batches = batches.map_err(|source| Error::Read {
            path: path.clone(),
            row_group,
            source: source.into(),
        })?;
        let group = self.group(place, &batches);
        let group = group.map_err(|what| Error::Content {
            path: path.clone(),
            row_group,
            what,
        })?;
        let group = Arc::new(group);
        self.cache().insert(place, &group);
        Ok(group)
    }

    fn group(
        &self,
        RowGroupRef { file, row_group }: RowGroupRef,
        batches: &[RecordBatch],
    ) -> Result<PromptGroup, String> {
        let prompts = samples(batches, &self.manifest)?;
        let labelled = self.manifest.kind == CorpusKind::Labelled;
        let (train, heldout_policies, references) = match labelled {
            true => ((0..prompts.len()).collect(), vec![], None),
            false => {
                let pairs = self.manifest.pairing().pairs;
                let usable = UsablePrompts::new(&prompts, &self.table, pairs);
                let heldout_policies = match self.manifest.files[file].split {
                    FileSplit::Train => vec![],
                    FileSplit::Heldout => usable.positions(Task::HeldoutPolicies),
                };
                let train = usable.positions(Task::Training);
                (train, heldout_policies, usable.references)
            }
        };
        let entry = &self.manifest.files[file].row_groups[row_group];
        let found = (train.len() as u64, heldout_policies.len() as u64);
        let recorded = (entry.prompts, entry.heldout_policy_prompts);
        if found != recorded {
            return Err(format!(
                "it has {found:?} usable prompts, {recorded:?} are recorded"
            ));
        }
        let texts = prompts.iter().flat_map(|prompt| {
            let samples = prompt.policies.iter().flat_map(|answers| &answers.samples);
            samples.chain([&prompt.text, &prompt.id])
        });
        // The allocator's share of many small strings is about as large as a string header.
        let texts: u64 = texts.map(|text| text.len() as u64 + 48).sum();
        let tokens = prompts.iter().flat_map(|prompt| &prompt.tokens);
        let bytes = texts
            + tokens
                .map(|tokens| 4 * tokens.len() as u64 + 32)
                .sum::<u64>();
        Ok(PromptGroup {
            prompts,
            train,
            heldout_policies,
            references,
            labelled,
            bytes,
        })
    }
}

/// Which prompts of a row group have a triplet.
pub(crate) struct UsablePrompts<'a> {
    prompts: &'a [PromptSamples],
    table: &'a PolicyTable,
    /// Where triplets pair prompts.
    references: Option<References>,
}

impl<'a> UsablePrompts<'a> {
    pub(crate) fn new(prompts: &'a [PromptSamples], table: &'a PolicyTable, pairs: Pairs) -> Self {
        let references = match pairs {
            Pairs::SamePrompt => None,
            Pairs::AcrossPrompts => Some(References::new(prompts)),
        };
        Self {
            prompts,
            table,
            references,
        }
    }

    /// Their positions.
    pub(crate) fn positions(&self, task: Task) -> Vec<usize> {
        let usable = |at: &usize| match &self.references {
            None => self.table.usable(task, &self.prompts[*at].policies),
            Some(references) => {
                let across = Across {
                    policies: self.table,
                    task,
                    prompts: self.prompts,
                    references,
                };
                across.usable(*at)
            }
        };
        (0..self.prompts.len()).filter(usable).collect()
    }

    /// How many there are.
    pub(crate) fn count(&self, task: Task) -> u64 {
        self.positions(task).len() as u64
    }
}

impl Cache {
    fn get(&mut self, key: RowGroupRef) -> Option<Arc<PromptGroup>> {
        self.clock += 1;
        let (used, group) = self.groups.get_mut(&key)?;
        *used = self.clock;
        Some(Arc::clone(group))
    }

    fn insert(&mut self, key: RowGroupRef, group: &Arc<PromptGroup>) {
        self.clock += 1;
        self.bytes += group.bytes;
        if let Some((_, replaced)) = self.groups.insert(key, (self.clock, Arc::clone(group))) {
            self.bytes -= replaced.bytes;
        }
        while self.bytes > self.limit && self.groups.len() > 1 {
            let oldest = self
                .groups
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(&key, _)| key);
            if let Some((_, dropped)) = oldest.and_then(|key| self.groups.remove(&key)) {
                self.bytes -= dropped.bytes;
            }
        }
    }
}

/// The rows as what triplets are made of, whichever kind the corpus is of. Fails with the contradiction to the
/// manifest.
pub(crate) fn samples(
    batches: &[RecordBatch],
    manifest: &Manifest,
) -> Result<Vec<PromptSamples>, String> {
    match manifest.kind {
        CorpusKind::Trajectories => prompt_samples(batches, manifest),
        CorpusKind::Labelled => pair_samples(batches, manifest),
    }
}

/// Collects contiguous rows into prompts and policies. Fails with the contradiction when a policy is
/// unknown or rows are out of order.
fn prompt_samples(
    batches: &[RecordBatch],
    manifest: &Manifest,
) -> Result<Vec<PromptSamples>, String> {
    let mut prompts: Vec<PromptSamples> = Vec::new();
    let pairing = manifest.pairing();
    for batch in batches {
        let rows = Rows::new(batch).map_err(|error| error.to_string())?;
        for row in 0..rows.len() {
            if prompts
                .last()
                .is_none_or(|prompt| prompt.id != rows.prompt_id(row))
            {
                let (id, text) = (rows.prompt_id(row).to_owned(), rows.prompt(row).text());
                prompts.push(PromptSamples {
                    id,
                    text,
                    policies: vec![],
                    numbers: vec![],
                    cluster: pairing.cluster_of(rows.meta(row)),
                    tokens: vec![],
                });
            }
            let Some(prompt) = prompts.last_mut() else {
                continue;
            };
            prompt.numbers.push(rows.sample(row));
            if manifest.tokenizer.stored_tokens {
                if prompt.policies.is_empty() {
                    let tokens = stored(rows.prompt_tokens(row), &prompt.id, manifest)?;
                    prompt.tokens.push(tokens.into());
                }
                let tokens = stored(rows.response_tokens(row), &prompt.id, manifest)?;
                prompt.tokens.push(tokens.into());
            }
            let name = rows.policy(row);
            let number = manifest
                .policies
                .binary_search_by(|policy| policy.name.as_str().cmp(name));
            let policy =
                number.map_err(|_| format!("the policy '{name}' is not in its table"))? as u32;
            match prompt.policies.last_mut() {
                Some(answers) if answers.policy == policy => {
                    answers.samples.push(rows.response(row).to_owned())
                }
                Some(answers) if answers.policy > policy => {
                    return Err(format!(
                        "the rows of prompt '{}' are not sorted by policy",
                        prompt.id
                    ));
                }
                _ => prompt.policies.push(PolicySamples {
                    policy,
                    samples: vec![rows.response(row).to_owned()],
                }),
            }
        }
    }
    Ok(prompts)
}

/// Tokens that a corpus says it has, checked: a model has an embedding for each.
fn stored<'a>(
    tokens: Option<&'a [u32]>,
    prompt_id: &str,
    manifest: &Manifest,
) -> Result<&'a [u32], String> {
    let tokens = tokens
        .ok_or_else(|| format!("prompt '{prompt_id}' lacks tokens, though they are recorded"))?;
    let foreign = tokens
        .iter()
        .find(|id| **id >= manifest.tokenizer.vocab_size);
    match foreign {
        Some(id) => Err(format!(
            "prompt '{prompt_id}' has the token {id}, which the tokenizer doesn't have"
        )),
        None => Ok(tokens),
    }
}
