//! The files of a corpus under construction: one open file a split, row groups cut between prompts.

use std::collections::BTreeMap;

use super::{Error, FileLayout, Group};
use crate::files::{FileWriter, Usable};
use crate::manifest::{File, FileSplit};
use crate::schema::{TokenRows, Trajectory};
use crate::store::Store;
use crate::tokenizer::{self, Tokenizer};
use crate::triplet::{Contest, Roles};

/// Writes groups into the files of their split.
pub(super) struct CorpusWriter<'a> {
    /// Where the files go; nowhere when they are only to be compared.
    target: Option<&'a Store>,
    layout: FileLayout,
    roles: &'a Roles,
    numbers: &'a BTreeMap<&'a str, u32>,
    /// Whose tokens the files are to hold, if any.
    tokenizer: Option<&'a Tokenizer>,
    train: SplitWriter,
    heldout: SplitWriter,
}

struct SplitWriter {
    split: FileSplit,
    open: Option<FileWriter>,
    done: Vec<File>,
    rows: Vec<Trajectory>,
    text_bytes: u64,
    usable: Usable,
}

impl<'a> CorpusWriter<'a> {
    pub(super) fn new(
        target: Option<&'a Store>,
        layout: FileLayout,
        roles: &'a Roles,
        numbers: &'a BTreeMap<&'a str, u32>,
        tokenizer: Option<&'a Tokenizer>,
    ) -> Self {
        let (train, heldout) = (
            SplitWriter::new(FileSplit::Train),
            SplitWriter::new(FileSplit::Heldout),
        );
        Self {
            target,
            layout,
            roles,
            numbers,
            tokenizer,
            train,
            heldout,
        }
    }

    pub(super) async fn add(&mut self, split: FileSplit, group: Group) -> Result<(), Error> {
        let cells = group.cells(self.numbers);
        let writer = match split {
            FileSplit::Train => &mut self.train,
            FileSplit::Heldout => &mut self.heldout,
        };
        writer.usable.prompts += u64::from(self.roles.usable(Contest::Training, &cells));
        if split == FileSplit::Heldout {
            writer.usable.heldout_policy_prompts +=
                u64::from(self.roles.usable(Contest::HeldoutPolicies, &cells));
        }
        writer.buffer(group);
        if writer.rows.len() as u64 >= self.layout.row_group_rows
            || writer.text_bytes >= self.layout.row_group_bytes
        {
            writer.end_row_group(self.tokenizer)?;
        }
        if writer
            .open
            .as_ref()
            .is_some_and(|file| file.bytes() as u64 >= self.layout.file_bytes)
        {
            writer.end_file(self.target).await?;
        }
        Ok(())
    }

    /// Ends the open files; all files, the training split's first.
    pub(super) async fn finish(mut self) -> Result<Vec<File>, Error> {
        for writer in [&mut self.train, &mut self.heldout] {
            writer.end_row_group(self.tokenizer)?;
            writer.end_file(self.target).await?;
        }
        self.train.done.append(&mut self.heldout.done);
        Ok(self.train.done)
    }
}

impl SplitWriter {
    fn new(split: FileSplit) -> Self {
        Self {
            split,
            open: None,
            done: vec![],
            rows: vec![],
            text_bytes: 0,
            usable: Usable::default(),
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

    fn end_row_group(&mut self, tokenizer: Option<&Tokenizer>) -> Result<(), Error> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let file = match &mut self.open {
            Some(file) => file,
            none => {
                let name = match self.split {
                    FileSplit::Train => "train",
                    FileSplit::Heldout => "heldout",
                };
                let path = format!("{name}-{:05}.parquet", self.done.len());
                let file = FileWriter::new(path, self.split, tokenizer.is_some());
                none.insert(file.map_err(Error::File)?)
            }
        };
        let tokens = tokenizer.map(|tokenizer| tokens(&self.rows, tokenizer));
        let tokens = tokens.transpose().map_err(Error::Tokenizer)?;
        let usable = std::mem::take(&mut self.usable);
        file.push(&self.rows, tokens.as_ref(), usable)
            .map_err(Error::File)?;
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
        self.done.push(entry);
        Ok(())
    }
}

/// Tokenizes rows on all cores. Which core does what never shows.
fn tokens(rows: &[Trajectory], tokenizer: &Tokenizer) -> Result<TokenRows, tokenizer::Error> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = rows.len().div_ceil(cores).max(1);
    let responses = std::thread::scope(|scope| {
        let encode = |rows: &[Trajectory]| -> Result<Vec<_>, tokenizer::Error> {
            rows.iter()
                .map(|row| tokenizer.encode(&row.response))
                .collect()
        };
        let parts: Vec<_> = rows
            .chunks(share)
            .map(|part| scope.spawn(move || encode(part)))
            .collect();
        let parts = parts.into_iter().map(|part| match part.join() {
            Ok(tokens) => tokens,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        parts.collect::<Result<Vec<_>, _>>()
    })?;
    let prompts = rows.iter().enumerate().map(|(at, row)| {
        let first = at == 0 || rows[at - 1].prompt_id != row.prompt_id;
        first
            .then(|| tokenizer.encode(&row.prompt.text()))
            .transpose()
    });
    Ok(TokenRows {
        prompts: prompts.collect::<Result<_, _>>()?,
        responses: responses.concat(),
    })
}
