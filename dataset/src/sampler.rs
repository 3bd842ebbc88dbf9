//! Triplets in tokens: drawn from a corpus by request, and the validation sets.

use polestar_core::random::Stream;
use serde::{Deserialize, Serialize};

use crate::corpus::{Corpus, Error};
use crate::manifest::{FileSplit, PromptRef};
use crate::reader::{PromptSamples, Reader};
use crate::sample::{AnswerSource, SampleConfig, TokenTriplet, TripletSource};
use crate::tokenizer;
use crate::triplet::{PolicyTable, Task, TripletChoice, Weighting};

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

impl Sampler<'_> {
    /// The triplet that is asked for, in tokens.
    pub(crate) async fn triplet(&self, request: &TripletRequest) -> Result<TokenTriplet, Error> {
        let &TripletRequest {
            prompt: PromptRef { row_group, prompt },
            task,
            weighting,
            key,
        } = request;
        let group = self.reader.row_group(row_group).await;
        let group = group.map_err(|source| self.corpus.unreadable(source))?;
        // Among all policies every usable prompt has a triplet; among some of them its neighbours may
        // have to step in.
        let usable = group.count(task);
        let found = (0..usable).find_map(|further| {
            let samples = group.usable(task, (prompt + further) % usable)?;
            let choice = self
                .policies
                .choose(task, weighting, &samples.policies, &key)?;
            Some((samples, choice))
        });
        let (samples, choice) = found.ok_or_else(|| Error::NoTriplet {
            path: self.corpus.manifest().files[row_group.file].path.clone(),
            row_group: row_group.row_group,
            prompt,
        })?;
        self.tokenize(samples, choice)
            .map_err(|source| self.corpus.untokenized(samples, source))
    }

    fn tokenize(
        &self,
        prompt: &PromptSamples,
        choice: TripletChoice,
    ) -> Result<TokenTriplet, tokenizer::Error> {
        let (config, tokenizer) = (self.samples, self.corpus.tokenizer());
        let (own, other) = (&prompt.policies[choice.own], &prompt.policies[choice.other]);
        let response = |of: usize, sample: usize| -> Result<Answer, tokenizer::Error> {
            let whole = |tokens: usize| AnswerSource {
                sample: prompt.sample_number(of, sample),
                tokens: tokens as u32,
            };
            if let Some(stored) = prompt.sample_tokens(of, sample) {
                return Ok(Answer {
                    source: whole(stored.len()),
                    tokens: stored[..stored.len().min(config.max_response)].to_vec(),
                });
            }
            let tokens = tokenizer.encode(&prompt.policies[of].samples[sample])?;
            Ok(Answer {
                source: whole(tokens.len()),
                tokens: config.clip_response(tokens),
            })
        };
        let (prompt_tokens, clipped_prompt) = match prompt.prompt_tokens() {
            Some(stored) => {
                let from = stored.len().saturating_sub(config.max_prompt);
                (stored.len(), stored[from..].to_vec())
            }
            None => {
                let tokens = tokenizer.encode(&prompt.text)?;
                (tokens.len(), config.clip_prompt(tokens))
            }
        };
        let reference = response(choice.own, choice.reference)?;
        let positive = response(choice.own, choice.positive)?;
        let negative = response(choice.other, choice.negative)?;
        Ok(TokenTriplet {
            policy: own.policy,
            other: other.policy,
            prompt: clipped_prompt,
            source: TripletSource {
                prompt_id: prompt.id.clone(),
                prompt_tokens: prompt_tokens as u32,
                reference: reference.source,
                positive: positive.source,
                negative: negative.source,
            },
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
