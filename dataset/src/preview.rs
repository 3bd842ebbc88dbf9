//! Triplets and prompts of a corpus as text: what the model would see, and why a prompt gives no triplet.

use std::fmt;

use polestar_core::Lane;

use crate::across::Place;
use crate::corpus::{Corpus, Error};
use crate::inspect::beginning;
use crate::lanes::LaneOrder;
use crate::manifest::{CorpusKind, FileSplit, RowGroupRef};
use crate::reader::{PromptGroup, PromptSamples};
use crate::sample::SampleConfig;
use crate::sampler::{Chosen, Sampler, TripletRequest};
use crate::triplet::{Obstacle, Task, Weighting};

/// Prompts that are shuffled among each other.
const WINDOW: usize = 64;

/// Which triplets to show.
#[derive(Debug, Clone)]
pub struct PreviewOptions {
    /// How many.
    pub triplets: usize,
    /// Which.
    pub seed: u64,
    /// Most tokens of a prompt, if it is to be cut.
    pub max_prompt: Option<usize>,
    /// Most tokens of a response, if it is to be cut.
    pub max_response: Option<usize>,
}

/// A text as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What is left of it.
    pub text: String,
    /// Tokens of that.
    pub tokens: usize,
    /// Tokens cut off: of a prompt at its start, of a response at its end.
    pub cut: usize,
}

/// A triplet as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TripletView {
    /// Id of the prompt that both candidates answer.
    pub prompt_id: String,
    /// That prompt.
    pub prompt: Shown,
    /// Where the reference answers another prompt, that one's id and text.
    pub reference_prompt: Option<(String, Shown)>,
    /// Whether it is a labelled pair: policies are subsets then.
    pub labelled: bool,
    /// Policy of reference and chosen answer.
    pub policy: String,
    /// Policy of the rejected answer.
    pub other: String,
    /// The reference.
    pub reference: Shown,
    /// The answer of the same policy.
    pub chosen: Shown,
    /// The answer of the other policy.
    pub rejected: Shown,
}

/// A policy's answers to a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswersView {
    /// The policy.
    pub policy: String,
    /// Whether it is held out.
    pub held_out: bool,
    /// Other names of it.
    pub aliases: Vec<String>,
    /// How each distinct answer begins.
    pub beginnings: Vec<String>,
}

/// A prompt with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptView {
    /// Its id.
    pub id: String,
    /// Where it lies: FILE#NUMBER.
    pub row_group: String,
    /// Whether it is held out.
    pub held_out: bool,
    /// Its text.
    pub text: String,
    /// Who answered.
    pub answers: Vec<AnswersView>,
    /// Why it gives no training triplet; `None` where it gives one.
    pub obstacle: Option<Obstacle>,
}

/// The first training triplets of a seed.
///
/// # Errors
/// [`Error::Read`] for a row group that can't be read; [`Error::Tokenize`].
pub async fn preview(corpus: &Corpus, options: &PreviewOptions) -> Result<Vec<TripletView>, Error> {
    // The order refuses nothing but a corpus without training triplets.
    let Ok(order) = LaneOrder::new(corpus.manifest(), options.seed, 1, WINDOW) else {
        return Ok(vec![]);
    };
    let whole = SampleConfig {
        max_prompt: usize::MAX,
        max_response: usize::MAX,
        ..SampleConfig::default()
    };
    let cut = SampleConfig {
        max_prompt: options.max_prompt.unwrap_or(usize::MAX),
        max_response: options.max_response.unwrap_or(usize::MAX),
        ..SampleConfig::default()
    };
    let sampler = |samples| Sampler {
        corpus,
        reader: corpus.reader(),
        policies: corpus.trained(),
        samples,
    };
    let mut views = Vec::with_capacity(options.triplets);
    for position in 0..options.triplets as u64 {
        let visit = order.locate(Lane(0), position);
        let request = TripletRequest {
            prompt: visit.prompt,
            task: Task::Training,
            weighting: Weighting::default(),
            key: [options.seed, visit.epoch, visit.index],
        };
        let chosen = sampler(&whole).choose(&request).await?;
        views.push(view(&chosen, &sampler(&whole), &sampler(&cut))?);
    }
    Ok(views)
}

fn view(chosen: &Chosen, whole: &Sampler<'_>, cut: &Sampler<'_>) -> Result<TripletView, Error> {
    let corpus = cut.corpus;
    let (all, kept) = (whole.tokens(chosen)?, cut.tokens(chosen)?);
    let shown = |kept: &[u32], all: &[u32]| -> Result<Shown, Error> {
        let text = corpus.tokenizer().decode(kept);
        Ok(Shown {
            text: text.map_err(|source| corpus.untokenized(chosen.prompt(), source))?,
            tokens: kept.len(),
            cut: all.len() - kept.len(),
        })
    };
    let name = |place: Place| {
        let number = chosen.policy_of(place) as usize;
        corpus.manifest().policies[number].name.clone()
    };
    let reference_prompt = kept
        .reference_prompt
        .as_ref()
        .zip(all.reference_prompt.as_ref());
    let reference_prompt = reference_prompt.map(|(kept, all)| {
        let id = chosen.prompt_of(chosen.places.reference).id.clone();
        shown(kept, all).map(|shown| (id, shown))
    });
    Ok(TripletView {
        prompt_id: chosen.prompt().id.clone(),
        prompt: shown(&kept.prompt, &all.prompt)?,
        reference_prompt: reference_prompt.transpose()?,
        labelled: corpus.kind() == CorpusKind::Labelled,
        policy: name(chosen.places.positive),
        other: name(chosen.places.negative),
        reference: shown(&kept.reference, &all.reference)?,
        chosen: shown(&kept.positive, &all.positive)?,
        rejected: shown(&kept.negative, &all.negative)?,
    })
}

/// The prompts whose id begins so; of one whose id is exactly this, that one. Reads the corpus until it is
/// found.
///
/// # Errors
/// [`Error::Read`] for a row group that can't be read.
pub async fn find_prompts(corpus: &Corpus, id: &str) -> Result<Vec<PromptView>, Error> {
    let mut found = Vec::new();
    for split in [FileSplit::Train, FileSplit::Heldout] {
        for (place, _) in corpus.manifest().row_groups(split) {
            let group = corpus.row_group(place).await?;
            let fits = |prompt: &PromptSamples| prompt.id.starts_with(id);
            let places = 0..group.prompts.len();
            for at in places.filter(|&at| fits(&group.prompts[at])) {
                let view = prompt_view(corpus, place, &group, at);
                if view.id == id {
                    return Ok(vec![view]);
                }
                found.push(view);
            }
        }
    }
    Ok(found)
}

fn prompt_view(corpus: &Corpus, place: RowGroupRef, group: &PromptGroup, at: usize) -> PromptView {
    let (manifest, prompt) = (corpus.manifest(), &group.prompts[at]);
    let file = &manifest.files[place.file];
    let answers = prompt.policies.iter().map(|given| {
        let policy = &manifest.policies[given.policy as usize];
        AnswersView {
            policy: policy.name.clone(),
            held_out: policy.held_out,
            aliases: policy.aliases.clone(),
            beginnings: given.samples.iter().map(|text| beginning(text)).collect(),
        }
    });
    PromptView {
        id: prompt.id.clone(),
        row_group: format!("{}#{}", file.path, place.row_group),
        held_out: file.split == FileSplit::Heldout,
        text: prompt.text.clone(),
        answers: answers.collect(),
        obstacle: group.obstacle(at, corpus.policies()),
    }
}

/// Every line of a text behind a mark, so that it shows where the text ends.
fn quote(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for line in text.split('\n') {
        writeln!(f, "  | {line}")?;
    }
    Ok(())
}

impl TripletView {
    fn write_prompt(f: &mut fmt::Formatter<'_>, title: &str, shown: &Shown) -> fmt::Result {
        writeln!(f, "{title} ({} tokens)", shown.tokens)?;
        if shown.cut > 0 {
            writeln!(f, "  [{} tokens cut off here]", shown.cut)?;
        }
        quote(f, &shown.text)
    }

    fn write_answer(f: &mut fmt::Formatter<'_>, title: &str, shown: &Shown) -> fmt::Result {
        writeln!(f, "{title} ({} tokens)", shown.tokens)?;
        quote(f, &shown.text)?;
        match shown.cut {
            0 => Ok(()),
            cut => writeln!(f, "  [{cut} tokens cut off here]"),
        }
    }
}

impl fmt::Display for TripletView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, other, .. } = self;
        if let Some((id, prompt)) = &self.reference_prompt {
            Self::write_prompt(f, &format!("prompt {id} of the reference"), prompt)?;
        }
        let prompt = format!("prompt {}", self.prompt_id);
        if self.reference_prompt.is_none() {
            Self::write_prompt(f, &prompt, &self.prompt)?;
        }
        let by = |name: &str| match self.labelled {
            true => format!(" ({name})"),
            false => format!(", by {name}"),
        };
        Self::write_answer(f, &format!("reference{}", by(policy)), &self.reference)?;
        if self.reference_prompt.is_some() {
            Self::write_prompt(f, &prompt, &self.prompt)?;
        }
        Self::write_answer(f, &format!("chosen{}", by(policy)), &self.chosen)?;
        Self::write_answer(f, &format!("rejected{}", by(other)), &self.rejected)
    }
}

impl fmt::Display for PromptView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let split = if self.held_out {
            "held out"
        } else {
            "trained on"
        };
        writeln!(f, "prompt {} ({split}, in {})", self.id, self.row_group)?;
        quote(f, &self.text)?;
        match self.obstacle {
            None => writeln!(f, "it gives triplets of trained policies")?,
            Some(obstacle) => writeln!(
                f,
                "it gives no triplet of trained policies, because {}",
                obstacle.because()
            )?,
        }
        for answers in &self.answers {
            let mark = if answers.held_out { ", held out" } else { "" };
            let aliases = match answers.aliases.is_empty() {
                true => String::new(),
                false => format!(", also called {}", answers.aliases.join(", ")),
            };
            let (policy, count) = (&answers.policy, answers.beginnings.len());
            writeln!(f, "{policy} ({count} distinct answers{mark}{aliases})")?;
            for beginning in &answers.beginnings {
                writeln!(f, "  | {beginning}")?;
            }
        }
        Ok(())
    }
}
