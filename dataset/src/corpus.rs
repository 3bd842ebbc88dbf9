//! A corpus opened for reading: manifest, tokenizer, policies and row groups.

use std::sync::Arc;

use polestar_core::{ByteCount, digest::hex};
use polestar_store::Store;
use serde::{Deserialize, Serialize};

use crate::across::Pairs;
use crate::manifest::{
    self, CorpusKind, Fingerprint, MANIFEST_KEY, Manifest, RowGroup, RowGroupRef,
};
use crate::reader::{self, PromptGroup, PromptSamples, Reader};
use crate::tokenizer::{self, Tokenizer};
use crate::triplet::{PolicyChoice, PolicyTable};

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

/// The row group that `FILE#NUMBER` names.
fn row_group<'a>(manifest: &'a mut Manifest, name: &str) -> Option<&'a mut RowGroup> {
    let (path, number) = name.rsplit_once('#')?;
    let file = manifest.files.iter_mut().find(|file| file.path == path)?;
    file.row_groups.get_mut(number.parse::<usize>().ok()?)
}

/// Leaves the row groups that are named without usable prompts, and says what that comes to.
///
/// # Errors
/// The name that is none of a row group's.
fn leave_out(manifest: &mut Manifest, quarantine: &[String]) -> Result<LeftOut, String> {
    let mut left_out = LeftOut::default();
    for given in quarantine {
        let group = row_group(manifest, given).ok_or_else(|| given.clone())?;
        // A held-out prompt may be usable for both sets.
        left_out.prompts += group.prompts.max(group.heldout_policy_prompts);
        left_out.row_groups += 1;
        left_out.rows += group.rows;
        group.prompts = 0;
        group.heldout_policy_prompts = 0;
    }
    Ok(left_out)
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

/// Reads the manifest of the corpus in a store.
///
/// # Errors
/// [`Error::Absent`] where there is none; the store's; one that is damaged or of another version.
pub async fn read_manifest(store: &Store) -> Result<Manifest, Error> {
    let url = || store.url().to_owned();
    let json = store.get_opt(MANIFEST_KEY).await;
    let json = json.map_err(|source| Error::Store { url: url(), source })?;
    let json = json.ok_or_else(|| Error::Absent { url: url() })?;
    Manifest::from_json(&json).map_err(|source| Error::Manifest { url: url(), source })
}

/// The tokenizer of the corpus in a store, with its bytes and the manifest that vouches for them.
pub(crate) async fn read_tokenizer(store: &Store) -> Result<(Manifest, Vec<u8>, Tokenizer), Error> {
    let manifest = read_manifest(store).await?;
    let (bytes, tokenizer) = tokenizer(store, &manifest).await?;
    Ok((manifest, bytes, tokenizer))
}

async fn tokenizer(store: &Store, manifest: &Manifest) -> Result<(Vec<u8>, Tokenizer), Error> {
    let url = || store.url().to_owned();
    let path = manifest.tokenizer.path.clone();
    let bytes = store.get(&path).await;
    let bytes = bytes.map_err(|source| Error::Store { url: url(), source })?;
    if hex(&bytes) != manifest.tokenizer.digest {
        return Err(Error::TokenizerDigest { url: url(), path });
    }
    let tokenizer = Tokenizer::from_bytes(&bytes);
    let tokenizer = tokenizer.map_err(|source| Error::Tokenizer {
        url: url(),
        path,
        source,
    })?;
    Ok((bytes.to_vec(), tokenizer))
}

/// An opened corpus.
#[derive(Debug)]
pub struct Corpus {
    left_out: LeftOut,
    store: Store,
    manifest: Arc<Manifest>,
    tokenizer: Arc<Tokenizer>,
    policies: Arc<PolicyTable>,
    /// As far as training goes.
    chosen: Arc<PolicyTable>,
    reader: Reader,
}

impl Corpus {
    /// Opens the corpus at a store URL: reads and checks the manifest and the tokenizer.
    ///
    /// # Errors
    /// [`Error::Absent`] where there is none; the store's; a manifest or tokenizer that is damaged or
    /// of another version.
    pub async fn open(url: &str) -> Result<Arc<Self>, Error> {
        Self::open_without(url, &[]).await
    }

    /// Opens a corpus as if some row groups, each `FILE#NUMBER`, had no usable prompt: they are never
    /// read. The fingerprint stays the corpus's; what is left out belongs to the configuration.
    ///
    /// # Errors
    /// Those of [`Corpus::open`]; [`Error::Quarantine`] for what is no row group of it.
    pub async fn open_without(url: &str, quarantine: &[String]) -> Result<Arc<Self>, Error> {
        Self::open_with(url, quarantine, None).await
    }

    /// [`Corpus::open_without`], training on some of the policies. Where that leaves a prompt without a
    /// triplet, another of its row group takes its place.
    ///
    /// # Errors
    /// Those of [`Corpus::open_without`]; [`Error::Policies`] where `choice` is of policies that the
    /// corpus doesn't have, or of fewer than two.
    pub async fn open_with(
        url: &str,
        quarantine: &[String],
        choice: Option<PolicyChoice>,
    ) -> Result<Arc<Self>, Error> {
        let failed = |source| Error::Store {
            url: url.into(),
            source,
        };
        let store = Store::open(url).map_err(failed)?;
        let mut manifest = read_manifest(&store).await?;
        let left_out = leave_out(&mut manifest, quarantine).map_err(|given| Error::Quarantine {
            url: url.into(),
            given,
        })?;

        let (_, tokenizer) = tokenizer(&store, &manifest).await?;
        let manifest = Arc::new(manifest);
        let policies = Arc::new(manifest.policy_table());
        let chosen = match choice {
            None => Arc::clone(&policies),
            Some(choice) => {
                let mut chosen = PolicyTable::clone(&policies);
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
            Arc::clone(&policies),
            CACHE_BYTES,
        );
        Ok(Arc::new(Self {
            left_out,
            store,
            manifest,
            tokenizer: Arc::new(tokenizer),
            policies,
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

    /// What its rows are.
    pub fn kind(&self) -> CorpusKind {
        self.manifest.kind
    }

    /// Names the corpus by its content.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.manifest.fingerprint
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The text of its `tokenizer.json`.
    ///
    /// # Errors
    /// The store's; [`Error::TokenizerDigest`] if it is another one than the manifest says.
    pub async fn tokenizer_json(&self) -> Result<Vec<u8>, Error> {
        let url = self.url();
        let entry = &self.manifest.tokenizer;
        let bytes = self.store.get(&entry.path).await;
        let bytes = bytes.map_err(|source| Error::Store {
            url: url.into(),
            source,
        })?;
        match hex(&bytes) == entry.digest {
            true => Ok(bytes.to_vec()),
            false => Err(Error::TokenizerDigest {
                url: url.into(),
                path: entry.path.clone(),
            }),
        }
    }

    /// Which answers make a pair.
    pub fn pairs(&self) -> Pairs {
        self.manifest.pairing().pairs
    }

    /// How many policies there are to train on; aliases of each other count once.
    pub fn training_policies(&self) -> usize {
        self.policies.training_policies().len()
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
    pub(crate) fn reopen(&self, cache: ByteCount) -> Result<Reader, Error> {
        let url = self.url();
        let store = Store::open(url).map_err(|source| Error::Store {
            url: url.into(),
            source,
        })?;
        Ok(self.reader.sharing(store, cache))
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// All policies: what validation goes by.
    pub(crate) fn policies(&self) -> &PolicyTable {
        &self.policies
    }

    /// The policies that training compares.
    pub(crate) fn trained(&self) -> &PolicyTable {
        &self.chosen
    }

    /// A row group through the corpus' own reader.
    pub(crate) async fn row_group(&self, place: RowGroupRef) -> Result<Arc<PromptGroup>, Error> {
        let group = self.reader.row_group(place).await;
        group.map_err(|source| self.unreadable(source))
    }

    pub(crate) fn unreadable(&self, source: reader::Error) -> Error {
        Error::Read {
            url: self.url().into(),
            source,
        }
    }

    pub(crate) fn untokenized(&self, prompt: &PromptSamples, source: tokenizer::Error) -> Error {
        Error::Tokenize {
            url: self.url().into(),
            prompt_id: prompt.id.clone(),
            source,
        }
    }
}
