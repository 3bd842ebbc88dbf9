//! Triplets in tokens: drawn from a corpus by request, and the validation sets.

use std::sync::Arc;

use polestar_core::random::Stream;
use serde::{Deserialize, Serialize};

use crate::across::{Place, Places};
use crate::corpus::{Corpus, Error};
use crate::manifest::{CorpusKind, FileSplit, PromptRef};
use crate::reader::{PromptGroup, PromptSamples, Reader};
use crate::sample::{AnswerSource, SampleConfig, TokenTriplet, TripletSource};
use crate::tokenizer;
use crate::triplet::{PolicyTable, Task, Weighting};

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
    /// All of them.
    pub const ALL: [Split; 2] = [Split::HeldoutPrompts, Split::HeldoutPolicies];

    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            Split::HeldoutPrompts => "heldout_prompts",
            Split::HeldoutPolicies => "heldout_policies",
        }
    }

    pub(crate) fn task(self) -> Task {
        match self {
            Self::HeldoutPrompts => Task::Training,
            Self::HeldoutPolicies => Task::HeldoutPolicies,
        }
    }

    /// Names the set's random streams.
    fn purpose(self) -> &'static str {
        match self {
            Self::HeldoutPrompts => "validation on held-out prompts",
            Self::HeldoutPolicies => "validation on held-out policies",
        }
    }
}

/// One triplet to be drawn: from which usable prompt, among whom, and with which key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TripletRequest {
    pub(crate) prompt: PromptRef,
    pub(crate) task: Task,
    pub(crate) weighting: Weighting,
    /// Seed, epoch, index.
    pub(crate) key: [u64; 3],
}

/// Draws triplets of a corpus: through one reader, among some policies, cut in one way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sampler<'a> {
    pub(crate) corpus: &'a Corpus,
    pub(crate) reader: &'a Reader,
    pub(crate) policies: &'a PolicyTable,
    pub(crate) samples: &'a SampleConfig,
}

/// A response as clipped, and where it is from.
struct Answer {
    source: AnswerSource,
    tokens: Vec<u32>,
}

/// A triplet that was chosen: its answers by their places in a row group.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    group: Arc<PromptGroup>,
    pub(crate) places: Places,
}

impl Chosen {
    /// The prompt that both candidates answer.
    pub(crate) fn prompt(&self) -> &PromptSamples {
        self.prompt_of(self.places.positive)
    }

    /// The prompt that an answer answers.
    pub(crate) fn prompt_of(&self, place: Place) -> &PromptSamples {
        &self.group.prompts[place.prompt]
    }

    /// The policy that gave an answer.
    pub(crate) fn policy_of(&self, place: Place) -> u32 {
        self.prompt_of(place).policies[place.policy].policy
    }
}

impl Sampler<'_> {
    /// The triplet that is asked for, in tokens.
    pub(crate) async fn triplet(&self, request: &TripletRequest) -> Result<TokenTriplet, Error> {
        self.tokens(&self.choose(request).await?)
    }

    /// The triplet that is asked for.
    pub(crate) async fn choose(&self, request: &TripletRequest) -> Result<Chosen, Error> {
        let &TripletRequest {
            prompt: PromptRef { row_group, prompt },
            task,
            weighting,
            key,
        } = request;
        let group = self.reader.row_group(row_group).await;
        let group = group.map_err(|source| self.corpus.unreadable(source))?;
        let across = group.across(task, self.policies);
        let chosen = |at: usize| match (&across, group.pair(at)) {
            (_, Some(pair)) => Some(pair),
            (Some(across), None) => across.choose(weighting, at, &key),
            (None, None) => {
                let samples = &group.prompts[at].policies;
                let choice = self.policies.choose(task, weighting, samples, &key)?;
                Some(Places::at(at, &choice))
            }
        };
        // Among all policies every usable prompt has a triplet; among some of them its neighbours may
        // have to step in.
        let usable = group.count(task);
        let mut near = (0..usable).filter_map(|n| group.usable(task, (prompt + n) % usable));
        let places = near.find_map(chosen).ok_or_else(|| Error::NoTriplet {
            path: self.corpus.manifest().files[row_group.file].path.clone(),
            row_group: row_group.row_group,
            prompt,
        })?;
        Ok(Chosen { group, places })
    }

    /// A triplet in tokens.
    ///
    /// # Errors
    /// [`Error::Tokenize`].
    pub(crate) fn tokens(&self, chosen: &Chosen) -> Result<TokenTriplet, Error> {
        let tokens = self.tokenize(chosen);
        tokens.map_err(|source| self.corpus.untokenized(chosen.prompt(), source))
    }

    fn tokenize(&self, chosen: &Chosen) -> Result<TokenTriplet, tokenizer::Error> {
        let (config, tokenizer) = (self.samples, self.corpus.tokenizer());
        let response = |place: Place| -> Result<Answer, tokenizer::Error> {
            let prompt = chosen.prompt_of(place);
            let whole = |tokens: usize| AnswerSource {
                sample: prompt.sample_number(place.policy, place.sample),
                tokens: tokens as u32,
            };
            if let Some(stored) = prompt.sample_tokens(place.policy, place.sample) {
                return Ok(Answer {
                    source: whole(stored.len()),
                    tokens: stored[..stored.len().min(config.max_response)].to_vec(),
                });
            }
            let samples = &prompt.policies[place.policy].samples;
            let tokens = tokenizer.encode(&samples[place.sample])?;
            Ok(Answer {
                source: whole(tokens.len()),
                tokens: config.clip_response(tokens),
            })
        };
        let clipped = |prompt: &PromptSamples| -> Result<(usize, Vec<u32>), tokenizer::Error> {
            match prompt.prompt_tokens() {
                Some(stored) => {
                    let from = stored.len().saturating_sub(config.max_prompt);
                    Ok((stored.len(), stored[from..].to_vec()))
                }
                None => {
                    let tokens = tokenizer.encode(&prompt.text)?;
                    Ok((tokens.len(), config.clip_prompt(tokens)))
                }
            }
        };
        let elsewhere = chosen.places.reference.prompt != chosen.places.positive.prompt;
        let reference_prompt =
            elsewhere.then(|| clipped(chosen.prompt_of(chosen.places.reference)));
        let reference_prompt = reference_prompt.transpose()?.map(|(_, tokens)| tokens);
        let (prompt_tokens, prompt) = clipped(chosen.prompt())?;
        let reference = response(chosen.places.reference)?;
        let positive = response(chosen.places.positive)?;
        let negative = response(chosen.places.negative)?;
        Ok(TokenTriplet {
            policy: chosen.policy_of(chosen.places.positive),
            other: chosen.policy_of(chosen.places.negative),
            prompt,
            source: TripletSource {
                prompt_id: chosen.prompt().id.clone(),
                prompt_tokens: prompt_tokens as u32,
                reference_prompt_id: elsewhere
                    .then(|| chosen.prompt_of(chosen.places.reference).id.clone()),
                reference: reference.source,
                positive: positive.source,
                negative: negative.source,
            },
            reference_prompt,
            reference: reference.tokens,
            positive: positive.tokens,
            negative: negative.tokens,
        })
    }
}

impl Corpus {
    /// The first `count` triplets of a validation set: every usable prompt once, in an order given
    /// by the seed, before any comes again with another triplet. A pure function of corpus,
    /// arguments and seed. A corpus without the split gives none.
    ///
    /// # Errors
    /// [`Error::Read`] for a row group that can't be read or is damaged; [`Error::Tokenize`].
    pub async fn validation(
        &self,
        split: Split,
        count: usize,
        seed: u64,
        samples: &SampleConfig,
    ) -> Result<Vec<TokenTriplet>, Error> {
        let mut prompts = Vec::new();
        for (row_group, entry) in self.manifest().row_groups(FileSplit::Heldout) {
            let usable = match split {
                Split::HeldoutPrompts => entry.prompts,
                Split::HeldoutPolicies => entry.heldout_policy_prompts,
            };
            prompts.extend((0..usable as usize).map(|prompt| PromptRef { row_group, prompt }));
        }
        if prompts.is_empty() {
            return Ok(vec![]);
        }
        // A labelled pair gives one triplet: once all are in the set, more would be the same again.
        let count = match self.kind() {
            CorpusKind::Trajectories => count,
            CorpusKind::Labelled => count.min(prompts.len()),
        };
        let salt = Stream::new(split.purpose(), &[seed]).word();
        Stream::new(split.purpose(), &[seed, 1]).shuffle(&mut prompts);

        // Read in file order, so that every row group is fetched once, and put back in the order of
        // the set.
        let request = |number: usize| {
            let (round, place) = (number / prompts.len(), number % prompts.len());
            let request = TripletRequest {
                prompt: prompts[place],
                task: split.task(),
                weighting: Weighting::Uniform,
                key: [salt, round as u64, place as u64],
            };
            (number, request)
        };
        let mut requests: Vec<(usize, TripletRequest)> = (0..count).map(request).collect();
        requests.sort_by_key(|(number, request)| (request.prompt.row_group, *number));
        let sampler = Sampler {
            corpus: self,
            reader: self.reader(),
            policies: self.policies(),
            samples,
        };
        let mut triplets = Vec::with_capacity(count);
        for (number, request) in requests {
            triplets.push((number, sampler.triplet(&request).await?));
        }
        triplets.sort_by_key(|(number, _)| *number);
        Ok(triplets.into_iter().map(|(_, triplet)| triplet).collect())
    }
}
