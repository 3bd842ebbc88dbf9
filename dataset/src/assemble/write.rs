//! The files of a corpus under construction: one open file a split, row groups cut between prompts.
//!
//! A file begins with a prompt and ends with one. So when a file is stored it is enough to record it and
//! the place behind its last prompt: another job begins its split's next file there. What lies between the
//! places of the two splits is loaded again, and not written again.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Error, Group, Journal, Place};
use crate::across::Pairing;
use crate::files::{FileWriter, Usable};
use crate::manifest::{File, FileSplit};
use crate::origin::FileLayout;
use crate::reader::{PromptSamples, UsablePrompts};
use crate::schema::{self, TokenRows, Trajectory};
use crate::tokenizer::{self, Tokenizer};
use crate::triplet::{PolicyTable, Task};
use polestar_store::Store;

/// The journal's entry of how far the files are. All jobs to one output share it: their files have the
/// same names.
const PROGRESS: &str = "stored";

/// Writes groups into the files of their split.
pub(super) struct CorpusWriter<'a> {
    /// Where the files go; nowhere when they are only to be compared.
    target: Option<&'a Store>,
    /// Where it is recorded which are stored.
    journal: Option<&'a Journal>,
    layout: FileLayout,
    policies: Numbered<'a>,
    /// Whose tokens the files are to hold, if any.
    tokenizer: Option<&'a Tokenizer>,
    train: SplitWriter,
    heldout: SplitWriter,
}

/// The policies by number, and how triplets are made of their answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbered<'a> {
    pub(super) table: &'a PolicyTable,
    pub(super) numbers: &'a BTreeMap<&'a str, u32>,
    pub(super) pairing: &'a Pairing,
}

struct SplitWriter {
    split: FileSplit,
    open: Option<FileWriter>,
    stored: Stored,
    rows: Vec<Trajectory>,
    text_bytes: u64,
    /// The prompts of the rows.
    prompts: Vec<PromptSamples>,
}

/// The files of a split that are stored.
#[derive(Clone, Debug, Default)]
struct Stored {
    files: Vec<File>,
    /// Groups before this place are in them, if they are of this split.
    next: Place,
}

/// How far the files are. Each of them has an entry of its own.
#[derive(Debug, Serialize, Deserialize)]
struct FilesStored {
    /// The job whose files they are.
    job: String,
    /// Of each split the number of files and the next place.
    splits: [(usize, Place); 2],
}

impl<'a> CorpusWriter<'a> {
    /// Goes on behind the files that are in the journal and still there.
    pub(super) async fn new(
        target: Option<&'a Store>,
        journal: Option<&'a Journal>,
        layout: FileLayout,
        policies: Numbered<'a>,
        tokenizer: Option<&'a Tokenizer>,
    ) -> Result<Self, Error> {
        let [train, heldout] = match (journal, target) {
            (Some(journal), Some(store)) => still_there(journal, store).await?,
            _ => Default::default(),
        };
        let writer = Self {
            target,
            journal,
            layout,
            policies,
            tokenizer,
            train: SplitWriter::new(FileSplit::Train, train),
            heldout: SplitWriter::new(FileSplit::Heldout, heldout),
        };
        // Before anything of this job lies where another job's files may be recorded.
        writer.record()?;
        Ok(writer)
    }

    fn record(&self) -> Result<(), Error> {
        let Some(journal) = self.journal else {
            return Ok(());
        };
        let of = |stored: &Stored| (stored.files.len(), stored.next);
        let stored = FilesStored {
            job: journal.job().to_owned(),
            splits: [of(&self.train.stored), of(&self.heldout.stored)],
        };
        journal
            .save_shared(PROGRESS, &stored)
            .map_err(Error::Journal)
    }

    /// The part of the source that comes next.
    pub(super) fn first_part(&self) -> usize {
        let next = self.train.stored.next.min(self.heldout.stored.next);
        next.part
    }

    /// Takes the group at a place, in the order of places.
    pub(super) async fn add(
        &mut self,
        split: FileSplit,
        group: Group,
        place: Place,
    ) -> Result<(), Error> {
        let writer = match split {
            FileSplit::Train => &mut self.train,
            FileSplit::Heldout => &mut self.heldout,
        };
        if place < writer.stored.next {
            return Ok(());
        }
        let prompt = PromptSamples::of_policies(
            group.samples(self.policies.numbers),
            group.cluster(self.policies.pairing),
        );
        writer.prompts.push(prompt);
        writer.buffer(group);
        if writer.rows.len() as u64 >= self.layout.row_group_rows
            || writer.text_bytes >= self.layout.row_group_bytes
        {
            writer.end_row_group(self.policies, self.tokenizer)?;
        }
        if writer
            .open
            .as_ref()
            .is_some_and(|file| file.bytes() as u64 >= self.layout.file_bytes)
        {
            writer.end_file(self.target).await?;
            let next = Place {
                group: place.group + 1,
                ..place
            };
            for writer in [&mut self.train, &mut self.heldout] {
                if writer.open.is_none() && writer.rows.is_empty() {
                    writer.stored.next = next;
                }
            }
            if let (Some(journal), Some(file)) = (self.journal, self.last_of(split)) {
                journal.save(&file.path, file).map_err(Error::Journal)?;
                self.record()?;
            }
        }
        Ok(())
    }

    fn last_of(&self, split: FileSplit) -> Option<&File> {
        let writer = match split {
            FileSplit::Train => &self.train,
            FileSplit::Heldout => &self.heldout,
        };
        writer.stored.files.last()
    }

    /// Ends the open files; all files, the training split's first.
    pub(super) async fn finish(mut self) -> Result<Vec<File>, Error> {
        for writer in [&mut self.train, &mut self.heldout] {
            writer.end_row_group(self.policies, self.tokenizer)?;
            writer.end_file(self.target).await?;
        }
        let mut files = self.train.stored.files;
        files.append(&mut self.heldout.stored.files);
        Ok(files)
    }
}

/// Says that nothing is stored, before files of this job overwrite another's.
pub(super) fn forget(journal: &Journal) -> Result<(), Error> {
    let stored = FilesStored {
        job: journal.job().to_owned(),
        splits: Default::default(),
    };
    journal
        .save_shared(PROGRESS, &stored)
        .map_err(Error::Journal)
}

/// What this job has recorded as stored, or nothing if some of it isn't there any more: then all is
/// written again.
async fn still_there(journal: &Journal, store: &Store) -> Result<[Stored; 2], Error> {
    let recorded: Option<FilesStored> = journal.load_shared(PROGRESS);
    let Some(recorded) = recorded.filter(|it| it.job == journal.job()) else {
        return Ok(Default::default());
    };
    let splits = [FileSplit::Train, FileSplit::Heldout];
    let mut found: [Stored; 2] = Default::default();
    for ((split, (count, next)), stored) in splits.into_iter().zip(recorded.splits).zip(&mut found)
    {
        let files = (0..count).map(|number| journal.load(&path(split, number)));
        let Some(files) = files.collect() else {
            return Ok(Default::default());
        };
        *stored = Stored { files, next };
    }
    let listed = store.list("").await.map_err(|source| Error::Store {
        url: store.url().into(),
        source,
    })?;
    let sizes: BTreeMap<&str, u64> = listed.iter().map(|o| (o.key.as_str(), o.size)).collect();
    let mut files = found.iter().flat_map(|stored| &stored.files);
    match files.all(|file| sizes.get(file.path.as_str()) == Some(&file.bytes)) {
        true => Ok(found),
        false => Ok(Default::default()),
    }
}

/// The key of a split's file.
pub(super) fn path(split: FileSplit, number: usize) -> String {
    let name = match split {
        FileSplit::Train => "train",
        FileSplit::Heldout => "heldout",
    };
    format!("{name}-{number:05}.parquet")
}

impl SplitWriter {
    fn new(split: FileSplit, stored: Stored) -> Self {
        Self {
            split,
            open: None,
            stored,
            rows: vec![],
            text_bytes: 0,
            prompts: vec![],
        }
    }

    fn buffer(&mut self, group: Group) {
        self.text_bytes += group.prompt.text().len() as u64;
        for answer in group.answers {
            self.text_bytes += answer.response.len() as u64;
            self.rows.push(Trajectory {
                prompt_id: group.prompt_id.clone(),
                prompt: group.prompt.clone(),
                policy: answer.policy,
                sample: answer.sample,
                response: answer.response,
                meta: answer.meta,
            });
        }
    }

    fn end_row_group(
        &mut self,
        policies: Numbered<'_>,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<(), Error> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let file = match &mut self.open {
            Some(file) => file,
            none => {
                let path = path(self.split, self.stored.files.len());
                let schema = match tokenizer {
                    Some(_) => schema::token_schema(),
                    None => schema::schema(),
                };
                let file = FileWriter::new(path, self.split, schema);
                none.insert(file.map_err(Error::File)?)
            }
        };
        let tokens = tokenizer.map(|tokenizer| tokens(&self.rows, tokenizer));
        let tokens = tokens.transpose().map_err(Error::Tokenizer)?;
        let prompts = std::mem::take(&mut self.prompts);
        let usable = || {
            let found = UsablePrompts::new(&prompts, policies.table, policies.pairing.pairs);
            Usable {
                prompts: found.count(Task::Training),
                heldout_policy_prompts: match self.split {
                    FileSplit::Train => 0,
                    FileSplit::Heldout => found.count(Task::HeldoutPolicies),
                },
            }
        };
        let encode = || match &tokens {
            Some(tokens) => schema::encode_with_tokens(&self.rows, tokens),
            None => schema::encode(&self.rows),
        };
        let (usable, batch) = rayon::join(usable, encode);
        file.push(batch, usable).map_err(Error::File)?;
        self.rows.clear();
        self.text_bytes = 0;
        Ok(())
    }

    async fn end_file(&mut self, target: Option<&Store>) -> Result<(), Error> {
        let Some(file) = self.open.take() else {
            return Ok(());
        };
        let (entry, bytes) = file.finish().map_err(Error::File)?;
        if let Some(store) = target {
            let written = store.put(&entry.path, bytes).await;
            written.map_err(|source| Error::Store {
                url: store.url().into(),
                source,
            })?;
        }
        self.stored.files.push(entry);
        Ok(())
    }
}

/// Tokenizes rows on all cores. Which core does what never shows.
fn tokens(rows: &[Trajectory], tokenizer: &Tokenizer) -> Result<TokenRows, tokenizer::Error> {
    let responses = rows.par_iter().map(|row| tokenizer.encode(&row.response));
    let prompts = rows.par_iter().enumerate().map(|(at, row)| {
        let first = at == 0 || rows[at - 1].prompt_id != row.prompt_id;
        first
            .then(|| tokenizer.encode(&row.prompt.text()))
            .transpose()
    });
    Ok(TokenRows {
        prompts: prompts.collect::<Result<_, _>>()?,
        responses: responses.collect::<Result<_, _>>()?,
    })
}
