//! From texts to token trees, cut as training cuts them.

use polestar_dataset::{Corpus, SampleConfig, TokenTree, tokenizer};
use serde::Serialize;
use std::sync::Arc;

/// The split token as text, as clients write it.
pub const SPLIT: &str = "<|reward|>";
/// The reward token as text.
pub const REWARD: &str = "[UNUSED_TOKEN_130]";

/// Candidates of one prompt, compared with one reference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The prompt.
    pub prompt: String,
    /// What a policy to be resembled answered; none is an empty answer.
    pub reference: Option<String>,
    /// The prompt that the reference answers, where it is another one.
    pub reference_prompt: Option<String>,
    /// The answers to score.
    pub candidates: Vec<String>,
}

/// How many tokens of a group's texts are not shown to the model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cuts {
    /// Of the prompt, from its beginning.
    pub prompt: usize,
    /// Of the reference, from its end.
    pub reference: usize,
    /// Of each candidate, from its end.
    pub candidates: Vec<usize>,
}

impl Cuts {
    /// How many texts are shown in part.
    pub fn texts(&self) -> usize {
        let all = [&self.prompt, &self.reference].into_iter();
        all.chain(&self.candidates).filter(|&&cut| cut > 0).count()
    }
}

/// A group in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenized {
    /// As the model sees it.
    pub tree: TokenTree,
    /// What it doesn't see.
    pub cuts: Cuts,
}

/// Why texts can't be scored.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// There is nothing to tell apart.
    #[error("prompt, reference and candidate {candidate} are all empty: there is no text to score")]
    Nothing {
        /// Which candidate, from 0.
        candidate: usize,
    },
    /// A whole sequence without its middle.
    #[error(
        "the text has {found} `{SPLIT}` instead of one. A reward compares with a reference: write PROMPT, REFERENCE, \
         `{SPLIT}`, PROMPT again, CANDIDATE, `{REWARD}`"
    )]
    Splits {
        /// How many it has.
        found: usize,
    },
    /// Tokens that are no sequence.
    #[error(
        "the token ids are no sequence: it begins with {bos}, has {split} (the split token) once and ends with \
         {reward} (the reward token)"
    )]
    Ids {
        /// The first token.
        bos: u32,
        /// The one in the middle.
        split: u32,
        /// The last one.
        reward: u32,
    },
    /// A whole sequence that nothing could be cut of.
    #[error(
        "the text has {tokens} tokens, and {most} are the most for prompt, reference and candidate together \
         (samples.max_prompt and samples.max_response of the run); shorten its parts, or send them apart to /score, \
         which cuts them as training does"
    )]
    TooLong {
        /// Its tokens.
        tokens: usize,
        /// The most.
        most: usize,
    },
    /// The tokenizer refused.
    #[error("a text can't be tokenized")]
    Tokenizer(#[from] tokenizer::Error),
}

/// A run's tokenizer and limits. Cheap to clone; any number of threads may use it at a time.
#[derive(Clone, Debug)]
pub struct Texts {
    corpus: Arc<Corpus>,
    samples: SampleConfig,
}

impl Texts {
    /// With a corpus's tokenizer, cut as that configuration says.
    pub fn new(corpus: Arc<Corpus>, samples: SampleConfig) -> Texts {
        Texts { corpus, samples }
    }

    /// The limits.
    pub fn samples(&self) -> &SampleConfig {
        &self.samples
    }

    /// A group in tokens, each text by itself as training has it: of the prompt the last `max_prompt`, of every
    /// answer the first `max_response`.
    ///
    /// # Errors
    /// [`TextError::Nothing`]; [`TextError::Tokenizer`].
    pub fn group(&self, group: &Group) -> Result<Tokenized, TextError> {
        let reference = group.reference.as_deref().unwrap_or_default();
        if group.prompt.is_empty() && reference.is_empty() {
            let empty = group.candidates.iter().position(String::is_empty);
            if let Some(candidate) = empty {
                return Err(TextError::Nothing { candidate });
            }
        }
        let samples = &self.samples;
        let (prompt, prompt_cut) = self.shown(&group.prompt, |ids| samples.clip_prompt(ids))?;
        let response = |text: &str| self.shown(text, |ids| samples.clip_response(ids));
        let (reference, reference_cut) = response(reference)?;
        let of_reference = group.reference_prompt.as_deref();
        let of_reference =
            of_reference.map(|text| self.shown(text, |ids| samples.clip_prompt(ids)));
        let of_reference = of_reference.transpose()?.map(|(ids, _)| ids);
        let candidates = group.candidates.iter().map(|text| response(text));
        let candidates: Vec<_> = candidates.collect::<Result<_, _>>()?;
        let (candidates, candidate_cuts): (Vec<_>, Vec<_>) = candidates.into_iter().unzip();
        let special = self.corpus.tokenizer().special();
        Ok(Tokenized {
            tree: TokenTree::new(
                samples,
                special,
                &prompt,
                of_reference.as_deref(),
                &reference,
                &candidates,
            ),
            cuts: Cuts {
                prompt: prompt_cut,
                reference: reference_cut,
                candidates: candidate_cuts,
            },
        })
    }

    /// The tokens of an answer, as many as the model is shown.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`].
    pub fn answer(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let (ids, _) = self.shown(text, |ids| self.samples.clip_response(ids))?;
        Ok(ids)
    }

    /// The tokens of a prompt, as many as the model is shown.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`].
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let (ids, _) = self.shown(text, |ids| self.samples.clip_prompt(ids))?;
        Ok(ids)
    }

    /// A text that holds all of a sequence, special tokens spelled out, as POLAR's clients send it: what is before
    /// and after the split token is tokenized in one piece each, as servers of other makers do, so that tokens at
    /// the seam of prompt and answer can differ from [`Texts::group`]'s. The reward token may be left out.
    ///
    /// # Errors
    /// [`TextError::Splits`]; [`TextError::TooLong`]; [`TextError::Tokenizer`].
    pub fn sequence(&self, text: &str) -> Result<TokenTree, TextError> {
        let (before, after) = halves(text)?;
        let prefix = self.before_split(before)?;
        self.tree(prefix, &[after])
    }

    /// A text that candidates continue: all that is before them, the split token spelled out.
    ///
    /// # Errors
    /// As [`Texts::sequence`].
    pub fn continued(&self, query: &str, items: &[String]) -> Result<TokenTree, TextError> {
        let (before, after) = halves(query)?;
        let mut prefix = self.before_split(before)?;
        prefix.extend(self.corpus.tokenizer().encode(after)?);
        let items: Vec<&str> = items.iter().map(|item| without_reward(item)).collect();
        self.tree(prefix, &items)
    }

    /// A whole sequence that the client has tokenized, special tokens and all.
    ///
    /// # Errors
    /// [`TextError::Ids`]; [`TextError::TooLong`].
    pub fn ids(&self, ids: &[u32]) -> Result<TokenTree, TextError> {
        let special = self.corpus.tokenizer().special();
        let found = ids.iter().filter(|&&id| id == special.split).count();
        let split = ids.iter().position(|&id| id == special.split);
        match split {
            Some(split)
                if found == 1
                    && ids.first() == Some(&special.bos)
                    && ids.last() == Some(&special.reward) =>
            {
                let (prefix, branch) = ids.split_at(split + 1);
                self.within(TokenTree {
                    prefix: prefix.to_vec(),
                    branches: vec![branch.to_vec()],
                })
            }
            _ => Err(TextError::Ids {
                bos: special.bos,
                split: special.split,
                reward: special.reward,
            }),
        }
    }

    fn before_split(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let tokenizer = self.corpus.tokenizer();
        let special = tokenizer.special();
        let mut tokens = vec![special.bos];
        tokens.extend(tokenizer.encode(text)?);
        tokens.push(special.split);
        Ok(tokens)
    }

    fn tree(&self, prefix: Vec<u32>, items: &[&str]) -> Result<TokenTree, TextError> {
        let tokenizer = self.corpus.tokenizer();
        let branches = items.iter().map(|item| {
            let mut tokens = tokenizer.encode(item)?;
            tokens.push(tokenizer.reward());
            Ok::<_, TextError>(tokens)
        });
        let branches = branches.collect::<Result<_, _>>()?;
        self.within(TokenTree { prefix, branches })
    }

    /// The tree, unless a sequence of it is longer than any in training.
    fn within(&self, tree: TokenTree) -> Result<TokenTree, TextError> {
        let samples = &self.samples;
        let newlines = 2 * self.corpus.tokenizer().special().newline.len();
        // Twice the prompt, both answers, and the three special tokens.
        let most = 2 * samples.max_prompt + 2 * samples.max_response + newlines + 3;
        let longest = tree.branches.iter().map(Vec::len).max().unwrap_or(0);
        let tokens = tree.prefix.len() + longest;
        match tokens > most {
            true => Err(TextError::TooLong { tokens, most }),
            false => Ok(tree),
        }
    }

    /// The tokens that are shown, and how many aren't.
    fn shown(
        &self,
        text: &str,
        clip: impl FnOnce(Vec<u32>) -> Vec<u32>,
    ) -> Result<(Vec<u32>, usize), TextError> {
        let tokens = self.corpus.tokenizer().encode(text)?;
        let whole = tokens.len();
        let shown = clip(tokens);
        let cut = whole - shown.len();
        Ok((shown, cut))
    }
}

/// What is before and after the split token, without the reward token at the end.
fn halves(text: &str) -> Result<(&str, &str), TextError> {
    let text = without_reward(text);
    match text.split_once(SPLIT) {
        Some((before, after)) if !after.contains(SPLIT) => Ok((before, after)),
        _ => Err(TextError::Splits {
            found: text.matches(SPLIT).count(),
        }),
    }
}

fn without_reward(text: &str) -> &str {
    text.strip_suffix(REWARD).unwrap_or(text)
}
