//! From grouped pairs to a committed labelled corpus: subsets, held-out prompts, the tokenizer, the files,
//! and the manifest last. Two walks: count, write.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::select::{HeldOutPrompts, balanced, lot};
use super::walk::walk;
use super::{
    Error, Group, InputCounts, Progress, Recipe, Source, Stage, TOKENIZER_KEY,
    TOKENIZER_SAMPLE_BYTES, TOKENIZER_TEXT_BYTES, commit, occupied, present, tallied, trained,
    write,
};
use crate::files::{FileWriter, Usable};
use crate::labelled::{self, Label, LabelledPair};
use crate::manifest::{
    CorpusKind, Counts, File, FileSplit, Fingerprint, Manifest, Policy, SCHEMA_VERSION,
    TokenizerEntry,
};
use crate::origin::FileLayout;
use polestar_core::digest::hex;
use polestar_core::random::Stream;
use polestar_store::Store;

/// What the first walk finds.
#[derive(Debug, Serialize, Deserialize)]
struct Tally {
    /// Pairs by subset.
    subsets: BTreeMap<String, u64>,
    prompts: u64,
    inputs: BTreeMap<u32, InputCounts>,
    text_bytes: u64,
    /// Texts to train the tokenizer on. They are not saved.
    #[serde(skip)]
    sample: Vec<String>,
    heldout: HeldOutPrompts,
}

/// The pairs of a group, whose answers are pairs in writing.
fn pairs(group: Group) -> Result<Vec<LabelledPair>, Error> {
    let Group {
        prompt_id,
        prompt,
        answers,
        ..
    } = group;
    let pair = |answer: super::Answer| {
        let Label::Pair {
            reference,
            chosen,
            rejected,
        } = Label::from_json(&answer.response).map_err(Error::Label)?
        else {
            unreachable!("ranked answers were made pairs when they were grouped");
        };
        Ok(LabelledPair {
            prompt_id: prompt_id.clone(),
            prompt: prompt.clone(),
            subset: answer.policy,
            number: answer.sample,
            reference,
            chosen,
            rejected,
            meta: answer.meta,
        })
    };
    answers.into_iter().map(pair).collect()
}

/// Makes the corpus and commits it.
pub(crate) async fn assemble_labelled<S: Source>(
    store: &Store,
    source: Arc<S>,
    recipe: Recipe<'_>,
    progress: &dyn Fn(Progress),
) -> Result<Manifest, S::Error> {
    let present = present(store, |origin| *origin == recipe.origin).await?;
    let count = count(&source, &recipe, progress);
    let wanted = recipe.tokenizer.is_none();
    let tally = tallied(&*source, "labelled", wanted, count).await?;
    progress(Progress::of(Stage::Tokenizer, 0, 1));
    let tokenizer = match recipe.tokenizer {
        Some(given) => given,
        None => trained(&*source, &tally.sample, recipe.vocab_size).await?,
    };
    progress(Progress::of(Stage::Tokenizer, 1, 1));
    // Over an existing corpus nothing may be written: it is only compared with what would be.
    let target = present.is_none().then_some(store);
    if let (Some(journal), Some(_)) = (source.journal(), target) {
        write::forget(journal)?;
    }
    let files = write_files(&source, target, recipe.layout, &tally, progress).await?;
    let usable = |split| {
        let of_split = files.iter().filter(move |file| file.split == split);
        of_split.map(|file| file.rows).sum()
    };
    let counts = Counts {
        trajectories: files.iter().map(|file| file.rows).sum(),
        prompts: tally.prompts,
        train_prompts: usable(FileSplit::Train),
        heldout_prompts: usable(FileSplit::Heldout),
        text_bytes: tally.text_bytes,
    };
    let subset = |(name, pairs): (&String, &u64)| Policy {
        name: name.clone(),
        trajectories: *pairs,
        cells: *pairs,
        held_out: false,
        aliases: vec![],
    };
    let manifest = Manifest {
        schema_version: SCHEMA_VERSION,
        fingerprint: Fingerprint::default(),
        seal: String::new(),
        kind: CorpusKind::Labelled,
        origin: recipe.origin,
        inputs: balanced(recipe.inputs, &tally.inputs)?,
        counts,
        tokenizer: TokenizerEntry {
            path: TOKENIZER_KEY.into(),
            digest: hex(&tokenizer.bytes),
            vocab_size: tokenizer.tokenizer.vocab_size(),
            stored_tokens: false,
        },
        policies: tally.subsets.iter().map(subset).collect(),
        held_out: None,
        files,
    }
    .seal();
    match present {
        None => Ok(commit(store, tokenizer.bytes, manifest).await?),
        Some(present) if present == manifest => Ok(present),
        Some(_) => Err(occupied(store).into()),
    }
}

/// Counts pairs, samples texts for the tokenizer and draws the held-out prompts.
async fn count<S: Source>(
    source: &Arc<S>,
    recipe: &Recipe<'_>,
    progress: &dyn Fn(Progress),
) -> Result<Tally, S::Error> {
    let sampled = recipe.tokenizer.is_none();
    let share = TOKENIZER_SAMPLE_BYTES as f64 / source.text_bytes().max(1) as f64;
    let threshold = (share.min(1.0) * u64::MAX as f64) as u64;
    let (mut subsets, mut inputs) = (BTreeMap::new(), BTreeMap::<u32, InputCounts>::new());
    let (mut sample, mut lots, mut text_bytes) = (Vec::new(), Vec::new(), 0);
    let parts = source.parts() as u64;
    let mut walk = walk(source, 0);
    while let Some((part, groups)) = walk.try_next().await? {
        for group in groups {
            for (input, counts) in &group.inputs {
                *inputs.entry(*input).or_default() += *counts;
            }
            let prompt = (group.prompt_id.clone(), group.prompt.text());
            let pairs = pairs(group)?;
            if pairs.is_empty() {
                continue;
            }
            let (id, prompt) = prompt;
            lots.push(lot("held-out prompt", recipe.seed, &id));
            let ticket = lot("tokenizer", recipe.seed, &id) as u64;
            let mut tickets = Stream::new("tokenizer sample", &[ticket]);
            let answers = pairs.iter().flat_map(LabelledPair::answers);
            for text in std::iter::once(&prompt).chain(answers) {
                text_bytes += text.len() as u64;
                if sampled && tickets.word() <= threshold {
                    let end = text.floor_char_boundary(TOKENIZER_TEXT_BYTES);
                    sample.push(text[..end].to_owned());
                }
            }
            for pair in pairs {
                *subsets.entry(pair.subset).or_default() += 1;
            }
        }
        progress(Progress::of(Stage::Count, part as u64 + 1, parts));
    }
    if lots.is_empty() {
        return Err(Error::NoPair.into());
    }
    Ok(Tally {
        subsets,
        prompts: lots.len() as u64,
        inputs,
        text_bytes,
        sample,
        heldout: HeldOutPrompts::draw(recipe.heldout_prompts, recipe.seed, lots)?,
    })
}

/// Walks the source and writes every pair into the files of its prompt's split.
async fn write_files<S: Source>(
    source: &Arc<S>,
    target: Option<&Store>,
    layout: FileLayout,
    tally: &Tally,
    progress: &dyn Fn(Progress),
) -> Result<Vec<File>, S::Error> {
    let writer = |split| SplitWriter {
        split,
        target,
        layout,
        open: None,
        files: vec![],
        rows: vec![],
        text_bytes: 0,
    };
    let (mut train, mut heldout) = (writer(FileSplit::Train), writer(FileSplit::Heldout));
    let parts = source.parts() as u64;
    let mut walk = walk(source, 0);
    while let Some((part, groups)) = walk.try_next().await? {
        for group in groups {
            let writer = match tally.heldout.holds(&group.prompt_id) {
                true => &mut heldout,
                false => &mut train,
            };
            writer.add(pairs(group)?).await?;
        }
        progress(Progress::of(Stage::Write, part as u64 + 1, parts));
    }
    let mut files = train.finish().await?;
    files.extend(heldout.finish().await?);
    Ok(files)
}

/// Writes the pairs of a split. Row groups and files end between prompts.
struct SplitWriter<'a> {
    split: FileSplit,
    /// Where the files go; nowhere when they are only to be compared.
    target: Option<&'a Store>,
    layout: FileLayout,
    open: Option<FileWriter>,
    files: Vec<File>,
    rows: Vec<LabelledPair>,
    text_bytes: u64,
}

impl SplitWriter<'_> {
    /// Takes the pairs of a prompt.
    async fn add(&mut self, pairs: Vec<LabelledPair>) -> Result<(), Error> {
        for pair in &pairs {
            let answers = pair.answers().map(|text| text.len() as u64);
            self.text_bytes += pair.prompt.text().len() as u64 + answers.sum::<u64>();
        }
        self.rows.extend(pairs);
        if self.rows.len() as u64 >= self.layout.row_group_rows
            || self.text_bytes >= self.layout.row_group_bytes
        {
            self.end_row_group()?;
        }
        let bytes = self.open.as_ref().map_or(0, FileWriter::bytes);
        if bytes as u64 >= self.layout.file_bytes {
            self.end_file().await?;
        }
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<(), Error> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let file = match &mut self.open {
            Some(file) => file,
            none => {
                let path = write::path(self.split, self.files.len());
                let file = FileWriter::new(path, self.split, labelled::schema());
                none.insert(file.map_err(Error::File)?)
            }
        };
        let usable = Usable {
            prompts: self.rows.len() as u64,
            heldout_policy_prompts: 0,
        };
        let batch = labelled::encode(&self.rows);
        file.push(batch, usable).map_err(Error::File)?;
        self.rows.clear();
        self.text_bytes = 0;
        Ok(())
    }

    async fn end_file(&mut self) -> Result<(), Error> {
        let Some(file) = self.open.take() else {
            return Ok(());
        };
        let (entry, bytes) = file.finish().map_err(Error::File)?;
        if let Some(store) = self.target {
            let written = store.put(&entry.path, bytes).await;
            written.map_err(|source| Error::Store {
                url: store.url().into(),
                source,
            })?;
        }
        self.files.push(entry);
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<File>, Error> {
        self.end_row_group()?;
        self.end_file().await?;
        Ok(self.files)
    }
}
