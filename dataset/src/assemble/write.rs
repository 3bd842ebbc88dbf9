//! The files of a corpus under construction: one open file a split, row groups cut between prompts.

use std::collections::BTreeMap;

use super::{Error, FileLayout, Group};
use crate::files::{FileWriter, Usable};
use crate::manifest::{File, FileSplit};
use crate::schema::Trajectory;
use crate::store::Store;
use crate::triplet::{Contest, Roles};

/// Writes groups into the files of their split.
pub(super) struct CorpusWriter<'a> {
    /// Where the files go; nowhere when they are only to be compared.
    target: Option<&'a Store>,
    layout: FileLayout,
    roles: &'a Roles,
    numbers: &'a BTreeMap<&'a str, u32>,
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
            writer.end_row_group()?;
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
            writer.end_row_group()?;
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

    fn end_row_group(&mut self) -> Result<(), Error> {
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
                none.insert(FileWriter::new(path, self.split).map_err(Error::File)?)
            }
        };
        file.push(&self.rows, std::mem::take(&mut self.usable))
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
