//! A corpus opened for reading: manifest, tokenizer, and triplets in tokens.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::layout::{SampleConfig, TokenTriplet};
use crate::manifest::{self, FileSplit, Fingerprint, MANIFEST_KEY, Manifest, RowGroup};
use crate::reader::{self, PromptCells, PromptGroup, Reader};
use crate::tokenizer::{self, Tokenizer};
use crate::triplet::{Contest, PolicyChoice, Roles, TripletChoice, Weighting};
use polestar_core::digest::hex;
use polestar_core::random::Stream;
use polestar_store;
use polestar_store::Store;

/// Bytes of decoded text that a corpus keeps for validation and scans.
const CACHE_BYTES: u64 = 64 << 20;

/// Why a corpus could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no corpus.
    #[error(
        "there is no corpus at {url}: it has no {MANIFEST_KEY}; make one with `corpus import` \
         or `corpus synth`"
    )]
    Absent {
        /// The store.
        url: String,
    },
    /// The store failed.
    #[error("could not open the corpus at {url}")]
    Store {
        /// The store.
        url: String,
        /// What went wrong.
        source: polestar_store::Error,
    },
    /// The manifest is unusable.
    #[error("could not read the manifest of the corpus at {url}")]
    Manifest {
        /// The store.
        url: String,
        /// What went wrong.
        source: manifest::Error,
    },
    /// The tokenizer is unusable.
    #[error("could not load {path} of the corpus at {url}")]
    Tokenizer {
        /// The store.
        url: String,
        /// Its key.
        path: String,
        /// What went wrong.
        source: tokenizer::Error,
    },
    /// The tokenizer is not the one recorded.
    #[error(
        "{path} of the corpus at {url} does not match its digest in the manifest; restore it or \
         import the corpus anew"
    )]
    TokenizerDigest {
        /// The store.
        url: String,
        /// Its key.
        path: String,
    },
    /// What is to be left out isn't there.
    #[error(
        "corpus.quarantine has '{given}', which is no row group of the corpus at {url}; they are \
         written FILE#NUMBER, as the error about the damage names them"
    )]
    Quarantine {
        /// The store.
        url: String,
        /// What was given.
        given: String,
    },
    /// There are not so many policies, or too few to compare.
    #[error(
        "{count} policies were asked for, and the corpus at {url} has {has} to train on (aliases \
         count once); choose from 2 to {has}"
    )]
    Policies {
        /// The store.
        url: String,
        /// Asked for.
        count: u32,
        /// There are.
        has: u32,
    },
    /// A row group could not be read.
    #[error("could not read the corpus at {url}")]
    Read {
        /// The store.
        url: String,
        /// What went wrong.
        source: reader::Error,
    },
    /// A text could not be tokenized.
    #[error("could not tokenize prompt '{prompt_id}' of the corpus at {url}")]
    Tokenize {
        /// The store.
        url: String,
        /// The prompt.
        prompt_id: String,
        /// What went wrong.
        source: tokenizer::Error,
    },
    /// A usable prompt turned out to have no triplet.
    #[error(
        "prompt {prompt} of row group {row_group} in {path} has no triplet, though the manifest \
         counts it; run the corpus verification, or train on more policies"
    )]
    NoTriplet {
        /// The file.
        path: String,
        /// The row group.
        row_group: usize,
        /// Position among the usable prompts.
        prompt: usize,
    },
}

/// A validation set. Both stand on prompts that no training triplet uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Known policies on new prompts.
    HeldoutPrompts,
    /// New policies on new prompts: the reference's policy was never trained on; the negative's is
    /// any other.
    HeldoutPolicies,
}

impl Split {
    pub(crate) fn contest(self) -> Contest {
        match self {
            Self::HeldoutPrompts => Contest::Training,
            Self::HeldoutPolicies => Contest::HeldoutPolicies,
        }
    }
}

/// The row group that `FILE#NUMBER` names.
fn row_group<'a>(manifest: &'a mut Manifest, name: &str) -> Option<&'a mut RowGroup> {
    let (path, number) = name.rsplit_once('#')?;
    let file = manifest.files.iter_mut().find(|file| file.path == path)?;
    file.row_groups.get_mut(number.parse::<usize>().ok()?)
}

/// What a quarantine leaves out of a corpus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// Row groups.
    pub row_groups: u64,
    /// Their rows: trajectories.
    pub rows: u64,
    /// Their usable prompts.
    pub prompts: u64,
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            row_groups,
            rows,
            prompts,
        } = self;
        write!(
            f,
            "row groups: {row_groups}, with {rows} trajectories of {prompts} usable prompts"
        )
    }
}

/// An opened corpus.
#[derive(Debug)]
pub struct Corpus {
    left_out: LeftOut,
    store: Store,
    manifest: Arc<Manifest>,
    tokenizer: Arc<Tokenizer>,
    roles: Arc<Roles>,
    /// As far as training goes.
    chosen: Arc<Roles>,
    reader: Reader,
}

impl Corpus {
    /// Opens the corpus at a store URL: reads and checks the manifest and the tokenizer.
    pub async fn open(url: &str) -> Result<Arc<Self>, Error> {
        Self::open_without(url, &[]).await
    }

    /// Opens a corpus as if some row groups, each `FILE#NUMBER`, had no usable prompt: they are never
    /// read. The fingerprint stays the corpus's; what is left out belongs to the configuration.
    pub async fn open_without(url: &str, quarantine: &[String]) -> Result<Arc<Self>, Error> {
        Self::open_with(url, quarantine, None).await
    }

    /// [`Corpus::open_without`], training on some of the policies. Where that leaves a prompt without a
    /// triplet, another of its row group takes its place.
    pub async fn open_with(
        url: &str,
        quarantine: &[String],
        policies: Option<PolicyChoice>,
    ) -> Result<Arc<Self>, Error> {
        let failed = |source| Error::Store {
            url: url.into(),
            source,
        };
        let store = Store::open(url).map_err(failed)?;
        let json = store.get_opt(MANIFEST_KEY).await.map_err(failed)?;
        let json = json.ok_or_else(|| Error::Absent { url: url.into() })?;
        let mut manifest = Manifest::from_json(&json).map_err(|source| Error::Manifest {
            url: url.into(),
            source,
        })?;
        let mut left_out = LeftOut::default();
        for given in quarantine {
            let group = row_group(&mut manifest, given).ok_or_else(|| Error::Quarantine {
                url: url.into(),
                given: given.clone(),
            })?;
            // A held-out prompt may be usable for both sets.
            let prompts = group.prompts.max(group.heldout_policy_prompts);
            left_out.prompts += prompts;
            left_out.row_groups += 1;
            left_out.rows += group.rows;
            group.prompts = 0;
            group.heldout_policy_prompts = 0;
        }

        let path = manifest.tokenizer.path.clone();
        let bytes = store.get(&path).await.map_err(failed)?;
        if hex(&bytes) != manifest.tokenizer.digest {
            return Err(Error::TokenizerDigest {
                url: url.into(),
                path,
            });
        }
        let tokenizer = Tokenizer::from_bytes(&bytes);
        let tokenizer = tokenizer.map_err(|source| Error::Tokenizer {
            url: url.into(),
            path,
            source,
        })?;

        let manifest = Arc::new(manifest);
        let roles = Arc::new(Roles::new(&manifest.policies));
        let chosen = match policies {
            None => Arc::clone(&roles),
            Some(choice) => {
                let mut chosen = Roles::clone(&roles);
                let of = chosen.choose_policies(&manifest.policies, &choice);
                of.map_err(|has| Error::Policies {
                    url: url.into(),
                    count: choice.count(),
                    has,
                })?;
                Arc::new(chosen)
            }
        };
        let reader = Reader::new(
            store.clone(),
            Arc::clone(&manifest),
            Arc::clone(&roles),
            CACHE_BYTES,
        );
        Ok(Arc::new(Self {
            left_out,
            store,
            manifest,
            tokenizer: Arc::new(tokenizer),
            roles,
            chosen,
            reader,
        }))
    }

    /// Where the corpus lies.
    pub fn url(&self) -> &str {
        self.store.url()
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What the quarantine leaves out, or `None` where nothing is in it.
    pub fn left_out(&self) -> Option<LeftOut> {
        (self.left_out.row_groups > 0).then_some(self.left_out)
    }

    /// Names the corpus by its content.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.manifest.fingerprint
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// How many policies there are to train on; aliases of each other count once.
    pub fn training_policies(&self) -> usize {
        self.roles.training_policies().len()
    }

    /// A policy's name, or `None` for a number that is no policy.
    pub fn policy_name(&self, policy: u32) -> Option<&str> {
        self.manifest
            .policies
            .get(policy as usize)
            .map(|policy| policy.name.as_str())
    }

    /// A reader with a client that belongs to the calling runtime. What it decodes, others of this
    /// corpus need not, so a jump to another step is quick.
    pub(crate) fn reopen(&self, cache_bytes: u64) -> Result<Reader, Error> {
        let url = self.url();
        let store = Store::open(url).map_err(|source| Error::Store {
            url: url.into(),
            source,
        })?;
        Ok(self.reader.sharing(store, cache_bytes))
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Whom training compares.
    pub(crate) fn trained(&self) -> &Roles {
        &self.chosen
    }

    /// The triplet of one usable prompt, in tokens.
    pub(crate) async fn triplet(
        &self,
        reader: &Reader,
        roles: &Roles,
        draw: &Draw,
        samples: &SampleConfig,
    ) -> Result<TokenTriplet, Error> {
        let &Draw {
            file,
            row_group,
            prompt,
            contest,
            weighting,
            key,
        } = draw;
        let group = reader.row_group(file, row_group).await;
        let group = group.map_err(|source| self.unreadable(source))?;
        // Among all policies every usable prompt has a triplet; among some of them its neighbours may
        // have to step in.
        let usable = group.count(contest);
        let found = (0..usable).find_map(|further| {
            let cells = group.usable(contest, (prompt + further) % usable)?;
            let choice = roles.choose(contest, weighting, &cells.cells, &key)?;
            Some((cells, choice))
        });
        let (prompt, choice) = found.ok_or_else(|| Error::NoTriplet {
            path: self.manifest.files[file].path.clone(),
            row_group,
            prompt,
        })?;
        self.tokenize(prompt, choice, samples)
            .map_err(|source| self.untokenized(prompt, source))
    }

    /// A row group through the corpus' own reader.
    pub(crate) async fn row_group(
        &self,
        file: usize,
        row_group: usize,
    ) -> Result<Arc<PromptGroup>, Error> {
        let group = self.reader.row_group(file, row_group).await;
        group.map_err(|source| self.unreadable(source))
    }

    fn unreadable(&self, source: reader::Error) -> Error {
        Error::Read {
            url: self.url().into(),
            source,
        }
    }

    pub(crate) fn untokenized(&self, prompt: &PromptCells, source: tokenizer::Error) -> Error {
        Error::Tokenize {
            url: self.url().into(),
            prompt_id: prompt.id.clone(),
            source,
        }
    }

    fn tokenize(
        &self,
        prompt: &PromptCells,
        choice: TripletChoice,
        samples: &SampleConfig,
    ) -> Result<TokenTriplet, tokenizer::Error> {
        let (own, other) = (&prompt.cells[choice.cell], &prompt.cells[choice.other]);
        let response = |cell: usize, sample: usize| match prompt.sample_tokens(cell, sample) {
            Some(stored) => Ok(stored[..stored.len().min(samples.max_response)].to_vec()),
            None => {
                let tokens = self.tokenizer.encode(&prompt.cells[cell].samples[sample])?;
                Ok(samples.clip_response(tokens))
            }
        };
        let clipped_prompt = match prompt.prompt_tokens() {
            Some(stored) => stored[stored.len().saturating_sub(samples.max_prompt)..].to_vec(),
            None => samples.clip_prompt(self.tokenizer.encode(&prompt.text)?),
        };
        Ok(TokenTriplet {
            policy: own.policy,
            other: other.policy,
            prompt: clipped_prompt,
            reference: response(choice.cell, choice.reference)?,
            positive: response(choice.cell, choice.positive)?,
            negative: response(choice.other, choice.negative)?,
        })
    }

    /// The first `count` triplets of a validation set: every usable prompt once, in an order given
    /// by the seed, before any comes again with another triplet. A pure function of corpus,
    /// arguments and seed. A corpus without the split gives none.
    pub async fn validation(
        &self,
        split: Split,
        count: usize,
        seed: u64,
        samples: &SampleConfig,
    ) -> Result<Vec<TokenTriplet>, Error> {
        let contest = split.contest();
        let mut prompts = Vec::new();
        for (file, row_group, entry) in self.manifest.row_groups(FileSplit::Heldout) {
            let usable = match split {
                Split::HeldoutPrompts => entry.prompts,
                Split::HeldoutPolicies => entry.heldout_policy_prompts,
            };
            prompts.extend((0..usable as usize).map(|prompt| (file, row_group, prompt)));
        }
        if prompts.is_empty() {
            return Ok(vec![]);
        }
        let purpose = match split {
            Split::HeldoutPrompts => "validation on held-out prompts",
            Split::HeldoutPolicies => "validation on held-out policies",
        };
        let salt = Stream::new(purpose, &[seed]).word();
        Stream::new(purpose, &[seed, 1]).shuffle(&mut prompts);

        // Read in file order, so that every row group is fetched once, and put back in the order of
        // the set.
        let mut draws: Vec<(usize, Draw)> = (0..count)
            .map(|number| {
                let (file, row_group, prompt) = prompts[number % prompts.len()];
                let key = [
                    salt,
                    (number / prompts.len()) as u64,
                    (number % prompts.len()) as u64,
                ];
                (
                    number,
                    Draw {
                        file,
                        row_group,
                        prompt,
                        contest,
                        weighting: Weighting::Uniform,
                        key,
                    },
                )
            })
            .collect();
        draws.sort_by_key(|(number, draw)| (draw.file, draw.row_group, *number));
        let mut triplets = Vec::with_capacity(count);
        for (number, draw) in draws {
            triplets.push((
                number,
                self.triplet(&self.reader, &self.roles, &draw, samples)
                    .await?,
            ));
        }
        triplets.sort_by_key(|(number, _)| *number);
        Ok(triplets.into_iter().map(|(_, triplet)| triplet).collect())
    }
}

/// One triplet to be drawn: from which usable prompt, among whom, and with which key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draw {
    pub(crate) file: usize,
    pub(crate) row_group: usize,
    pub(crate) prompt: usize,
    pub(crate) contest: Contest,
    pub(crate) weighting: Weighting,
    /// Seed, epoch, index.
    pub(crate) key: [u64; 3],
}
