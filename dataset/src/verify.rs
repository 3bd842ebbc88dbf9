//! Verification: every byte and every count of a corpus against its manifest.

use std::collections::BTreeSet;
use std::fmt;

use crate::corpus::{Corpus, Error};
use crate::manifest::{CorpusKind, Counts, File, FileSplit, Manifest, RowGroupRef};
use crate::reader::{PromptSamples, UsablePrompts, samples};
use crate::triplet::{PolicyTable, Task};
use polestar_core::{chain::chain, digest::hex};
use polestar_store;
use polestar_store::Store;

/// What was checked, and what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Files checked.
    pub files: usize,
    /// Row groups checked.
    pub row_groups: usize,
    /// Rows checked.
    pub rows: u64,
    /// Every fault found, none in a sound corpus.
    pub faults: Vec<Fault>,
}

impl Verification {
    /// Whether no fault was found.
    pub fn sound(&self) -> bool {
        self.faults.is_empty()
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub path: String,
    /// The row group, where one is at fault.
    pub row_group: Option<usize>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row_group {
            Some(number) => write!(f, "{}, row group {number}: {}", self.path, self.what),
            None => write!(f, "{}: {}", self.path, self.what),
        }
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "checked {} files, {} row groups, {} rows",
            self.files, self.row_groups, self.rows
        )?;
        for fault in &self.faults {
            writeln!(f, "  {fault}")?;
        }
        match self.faults.len() {
            0 => writeln!(f, "sound"),
            faults => writeln!(
                f,
                "{faults} faults; restore the files named, or import the corpus anew"
            ),
        }
    }
}

/// Reads the whole corpus, one file at a time.
///
/// # Errors
/// Those of [`Corpus::open`]: a manifest or tokenizer that can't be used at all. Everything else is a
/// fault.
pub async fn verify(store: &Store) -> Result<Verification, Error> {
    let corpus = Corpus::open(store.url()).await?;
    let manifest = corpus.manifest();
    let mut scan = Scan::new(manifest);
    for number in 0..manifest.files.len() {
        scan.file(store, &corpus, number).await;
    }
    scan.totals();
    Ok(scan.found)
}

struct Scan<'a> {
    manifest: &'a Manifest,
    table: PolicyTable,
    found: Verification,
    prompts: BTreeSet<String>,
    counts: Counts,
    policies: Vec<(u64, u64)>,
    /// Whether every row could be read, so that totals mean something.
    complete: bool,
}

impl<'a> Scan<'a> {
    fn new(manifest: &'a Manifest) -> Self {
        Self {
            manifest,
            table: manifest.policy_table(),
            found: Verification::default(),
            prompts: BTreeSet::new(),
            counts: Counts::default(),
            policies: vec![(0, 0); manifest.policies.len()],
            complete: true,
        }
    }

    fn fault(&mut self, path: &str, row_group: Option<usize>, what: String) {
        self.found.faults.push(Fault {
            path: path.into(),
            row_group,
            what,
        });
    }

    async fn file(&mut self, store: &Store, corpus: &Corpus, number: usize) {
        let file = &self.manifest.files[number];
        self.found.files += 1;
        match store.get(&file.path).await {
            Ok(bytes) if bytes.len() as u64 != file.bytes => {
                let what = format!("it has {} bytes, {} are recorded", bytes.len(), file.bytes);
                self.fault(&file.path, None, what);
            }
            Ok(bytes) if hex(&bytes) != file.digest => {
                self.fault(&file.path, None, "its digest differs".into())
            }
            Ok(_) => {}
            Err(polestar_store::Error::Missing { .. }) => {
                self.complete = false;
                return self.fault(&file.path, None, "it is missing".into());
            }
            Err(error) => self.fault(&file.path, None, chain(&error)),
        }
        let rows: u64 = file.row_groups.iter().map(|group| group.rows).sum();
        if rows != file.rows {
            self.fault(
                &file.path,
                None,
                format!(
                    "its row groups have {rows} rows, {} are recorded",
                    file.rows
                ),
            );
        }
        for row_group in 0..file.row_groups.len() {
            self.found.row_groups += 1;
            let place = RowGroupRef {
                file: number,
                row_group,
            };
            let batches = match corpus.reader().batches(place).await {
                Ok(batches) => batches,
                Err(error) => {
                    self.complete = false;
                    self.fault(&file.path, Some(row_group), chain(&error));
                    continue;
                }
            };
            match samples(&batches, self.manifest) {
                Ok(prompts) => {
                    self.tokens(file, row_group, corpus, &prompts);
                    match self.manifest.kind {
                        CorpusKind::Trajectories => self.row_group(file, row_group, &prompts),
                        CorpusKind::Labelled => self.pairs(file, row_group, &prompts),
                    }
                }
                Err(what) => {
                    self.complete = false;
                    self.fault(&file.path, Some(row_group), what);
                }
            }
        }
    }

    /// Stored tokens must be what the tokenizer makes of the texts, or weights would depend on which
    /// of the two was read.
    fn tokens(&mut self, file: &File, number: usize, corpus: &Corpus, prompts: &[PromptSamples]) {
        for prompt in prompts.iter().filter(|prompt| !prompt.tokens.is_empty()) {
            let samples = prompt.policies.iter().flat_map(|answers| &answers.samples);
            let mut texts = [&prompt.text]
                .into_iter()
                .chain(samples)
                .zip(&prompt.tokens);
            let differs = texts.any(|(text, stored)| {
                let tokens = corpus.tokenizer().encode(text);
                !tokens.is_ok_and(|tokens| tokens[..] == stored[..])
            });
            if differs {
                let what = format!(
                    "the stored tokens of prompt '{}' are not the tokenizer's",
                    prompt.id
                );
                self.fault(&file.path, Some(number), what);
            }
        }
    }

    fn row_group(&mut self, file: &File, number: usize, prompts: &[PromptSamples]) {
        let entry = &file.row_groups[number];
        let mut rows = 0;
        for prompt in prompts {
            if !self.prompts.insert(prompt.id.clone()) {
                let what = format!("the rows of prompt '{}' are not contiguous", prompt.id);
                self.fault(&file.path, Some(number), what);
            }
            self.counts.text_bytes += prompt.text.len() as u64;
            for answers in &prompt.policies {
                rows += answers.samples.len() as u64;
                self.counts.text_bytes += answers
                    .samples
                    .iter()
                    .map(|text| text.len() as u64)
                    .sum::<u64>();
                let (trajectories, cells) = &mut self.policies[answers.policy as usize];
                *trajectories += answers.samples.len() as u64;
                *cells += u64::from(answers.samples.len() >= 2);
                let distinct: BTreeSet<&String> = answers.samples.iter().collect();
                if distinct.len() != answers.samples.len() {
                    let name = &self.manifest.policies[answers.policy as usize].name;
                    let what = format!(
                        "'{name}' gives prompt '{}' the same response twice",
                        prompt.id
                    );
                    self.fault(&file.path, Some(number), what);
                }
            }
        }
        let found = UsablePrompts::new(prompts, &self.table, self.manifest.pairing().pairs);
        let usable = found.count(Task::Training);
        let with_heldout = match file.split {
            FileSplit::Train => 0,
            FileSplit::Heldout => found.count(Task::HeldoutPolicies),
        };
        self.found.rows += rows;
        self.counts.trajectories += rows;
        self.counts.prompts += prompts.len() as u64;
        match file.split {
            FileSplit::Train => self.counts.train_prompts += usable,
            FileSplit::Heldout => self.counts.heldout_prompts += usable,
        }
        let checks = [
            ("rows", rows, entry.rows),
            ("usable prompts", usable, entry.prompts),
            (
                "prompts usable with held-out policies",
                with_heldout,
                entry.heldout_policy_prompts,
            ),
        ];
        for (what, found, recorded) in checks {
            if found != recorded {
                self.fault(
                    &file.path,
                    Some(number),
                    format!("it has {found} {what}, {recorded} are recorded"),
                );
            }
        }
    }

    /// The pairs of a labelled corpus.
    fn pairs(&mut self, file: &File, number: usize, pairs: &[PromptSamples]) {
        let entry = &file.row_groups[number];
        for prompt in pairs.chunk_by(|a, b| a.id == b.id) {
            if !self.prompts.insert(prompt[0].id.clone()) {
                let what = format!("the pairs of prompt '{}' are not contiguous", prompt[0].id);
                self.fault(&file.path, Some(number), what);
            }
            self.counts.prompts += 1;
            self.counts.text_bytes += prompt[0].text.len() as u64;
            for pair in prompt {
                let texts = pair.policies.iter().flat_map(|answers| &answers.samples);
                self.counts.text_bytes += texts.map(|text| text.len() as u64).sum::<u64>();
                let (pairs, cells) = &mut self.policies[pair.policies[0].policy as usize];
                *pairs += 1;
                *cells += 1;
            }
        }
        let found = pairs.len() as u64;
        self.found.rows += found;
        self.counts.trajectories += found;
        match file.split {
            FileSplit::Train => self.counts.train_prompts += found,
            FileSplit::Heldout => self.counts.heldout_prompts += found,
        }
        for (what, recorded) in [("rows", entry.rows), ("pairs", entry.prompts)] {
            if found != recorded {
                let what = format!("it has {found} {what}, {recorded} are recorded");
                self.fault(&file.path, Some(number), what);
            }
        }
    }

    fn totals(&mut self) {
        if !self.complete {
            return;
        }
        let manifest = self.manifest;
        if self.counts != manifest.counts {
            let what = format!(
                "its counts are {:?}, the files have {:?}",
                manifest.counts, self.counts
            );
            self.fault(crate::manifest::MANIFEST_KEY, None, what);
        }
        for (policy, found) in manifest
            .policies
            .iter()
            .zip(std::mem::take(&mut self.policies))
        {
            let recorded = (policy.trajectories, policy.cells);
            if found != recorded {
                let what = format!(
                    "policy '{}' has {found:?} trajectories and cells, {recorded:?} are recorded",
                    policy.name
                );
                self.fault(crate::manifest::MANIFEST_KEY, None, what);
            }
        }
    }
}
