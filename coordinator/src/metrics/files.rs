//! The files of one trial: which steps they have, and which come next.

use super::{
    hparams::hparams,
    tables,
    target::{Target, TargetError},
    tensorboard,
};
use crate::{calendar, run::Run, sweep::PlannedTrial};
use polestar_core::Step;
use polestar_run::{
    Trial,
    metrics::{self, Row},
    scores,
};
use polestar_store::Store;

/// Why a trial's files can't be written. None of it harms the trial.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file doesn't grow.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Metrics can't be read or written as a table.
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] polestar_store::Error),
}

/// The table of a trial.
const CSV: &str = "metrics.csv";
/// The same for programs that read Parquet.
const PARQUET: &str = "metrics.parquet";
/// Accuracy by pair of policies, of the triplets that were scored in the end.
const PAIRS: &str = "pairs.csv";
/// Hyperparameters.
const HPARAMS: &str = "hparams.json";

/// The files of a trial while they grow.
pub(super) struct TrialFiles {
    planned: PlannedTrial,
    /// Where the trial's own metrics are.
    store: Store,
    folder: Store,
    events: Events,
    /// In folders only: an object can't be appended to.
    csv: Option<Csv>,
}

impl TrialFiles {
    /// Looks which steps are there.
    pub(super) async fn open(
        store: &Store,
        folder: Store,
        planned: &PlannedTrial,
    ) -> Result<TrialFiles, FilesError> {
        let trial = &planned.config;
        let events = Events::open(&folder, planned).await?;
        let csv = Csv::open(&folder, trial).await?;
        let json = serde_json::Value::Object(hparams(planned));
        let json = format!("{json:#}\n");
        folder.put_if_absent(HPARAMS, json.into()).await?;
        Ok(TrialFiles {
            planned: planned.clone(),
            store: store.clone(),
            folder,
            events,
            csv,
        })
    }

    /// The step up to which all of them have every step.
    pub(super) fn written(&self) -> Step {
        match &self.csv {
            Some(csv) => self.events.written.min(csv.written),
            None => self.events.written,
        }
    }

    /// Adds rows; those that are there are passed over.
    pub(super) async fn add(&mut self, rows: &[Row]) -> Result<(), FilesError> {
        let Some(last) = rows.last() else {
            return Ok(());
        };
        let trial = &self.planned.config;
        // When a row was measured is known from its seconds, up to restarts in between.
        let now = calendar::since_1970().as_secs_f64();
        let time = |row: &Row| now - (last.seconds - row.seconds).max(0.0);
        self.events.add(trial, rows, time).await?;
        if let Some(csv) = &mut self.csv {
            csv.add(trial, rows).await?;
        }
        Ok(())
    }

    /// Adds what the store has and these don't.
    pub(super) async fn catch_up(&mut self) -> Result<(), FilesError> {
        let trial = &self.planned.config;
        let rows = metrics::read_after(&self.store, trial, self.written()).await?;
        self.add(&rows).await
    }

    /// Has everything stored that was added.
    pub(super) async fn store(&mut self) -> Result<(), FilesError> {
        Ok(self.events.target.store().await?)
    }

    /// The trial is done: what a trial that grew has no place for, and tables that are whole.
    pub(super) async fn finish(&mut self) -> Result<(), FilesError> {
        self.catch_up().await?;
        self.events.end().await?;
        self.csv = None;
        write_tables(&self.store, &self.folder, &self.planned.config).await
    }
}

/// Writes a trial's files anew, from what the store has of it. Returns how many steps that is.
///
/// # Errors
/// [`FilesError`], of either store.
pub async fn write_anew(
    run: &Run,
    into: &Store,
    planned: &PlannedTrial,
    is_done: bool,
) -> Result<usize, FilesError> {
    let trial = &planned.config;
    let rows = metrics::read(&run.store, trial).await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let folder = into.child(&trial.id.0);
    for object in folder.list("").await? {
        if object.key.starts_with(tensorboard::PREFIX) || object.key == CSV {
            folder.delete(&object.key).await?;
        }
    }
    let mut files = TrialFiles::open(&run.store, folder, planned).await?;
    files.add(&rows).await?;
    match is_done {
        true => files.finish().await?,
        false => {
            files.store().await?;
            write_tables(&files.store, &files.folder, trial).await?;
        }
    }
    Ok(rows.len())
}

async fn write_tables(store: &Store, folder: &Store, trial: &Trial) -> Result<(), FilesError> {
    let rows = metrics::read(store, trial).await?;
    let lines = rows.iter().map(|row| tables::line(trial, row));
    let csv: String = std::iter::once(tables::head(trial)).chain(lines).collect();
    folder.put(CSV, csv.into()).await?;
    let parquet = metrics::encode(PARQUET, &rows)?;
    folder.put(PARQUET, parquet.into()).await?;
    let scores = scores::read(store, trial).await?;
    if !scores.is_empty() {
        folder.put(PAIRS, tables::pairs(&scores).into()).await?;
    }
    Ok(())
}

/// The event files of a trial, of which one grows.
struct Events {
    folder: Store,
    /// In the name of the file that grows.
    seconds: u64,
    number: u32,
    target: Target,
    written: Step,
    /// The last row.
    before: Option<Row>,
    /// What a trial's first file begins with.
    start: Vec<u8>,
}

impl Events {
    async fn open(folder: &Store, planned: &PlannedTrial) -> Result<Events, FilesError> {
        let objects = folder.list("").await?;
        let names = objects.iter().map(|object| &*object.key);
        let names: Vec<&str> = names
            .filter(|name| name.starts_with(tensorboard::PREFIX))
            .collect();
        let mut written = None;
        for name in names.iter().rev() {
            written = tensorboard::last_step(&folder.get(name).await?);
            if written.is_some() {
                break;
            }
        }
        let now = calendar::since_1970();
        // Readers go by names: a clock that was put back must not put this file before those that are there.
        let newest = names
            .iter()
            .filter_map(|name| tensorboard::seconds_in(name));
        let after = newest.max().map_or(0, |newest| newest + 1);
        let seconds = now.as_secs().max(after);
        let start = match names.is_empty() {
            true => tensorboard::session_start(now.as_secs_f64(), &hparams(planned)),
            false => Vec::new(),
        };
        Ok(Events {
            folder: folder.clone(),
            seconds,
            number: 0,
            target: Target::new(folder, &tensorboard::file_name(seconds, 0), 0),
            written: written.unwrap_or_default(),
            before: None,
            start,
        })
    }

    async fn add(
        &mut self,
        trial: &Trial,
        rows: &[Row],
        time: impl Fn(&Row) -> f64,
    ) -> Result<(), TargetError> {
        let new = rows.partition_point(|row| row.step <= self.written);
        let (old, new) = rows.split_at(new);
        if let Some(row) = old.last() {
            self.before = Some(row.clone());
        }
        let (Some(first), Some(last)) = (new.first(), new.last()) else {
            return Ok(());
        };
        if self.target.is_full() {
            self.number += 1;
            let name = tensorboard::file_name(self.seconds, self.number);
            self.target = Target::new(&self.folder, &name, 0);
        }
        let mut bytes = Vec::new();
        if self.target.is_empty() {
            bytes.extend(tensorboard::header(time(first)));
            bytes.extend(&self.start);
        }
        let mut before = self.before.as_ref();
        for row in new {
            let numbers = tables::scalars(trial, row, before);
            bytes.extend(tensorboard::scalars(time(row), row.step, &numbers));
            before = Some(row);
        }
        self.target.append(&bytes).await?;
        self.start.clear();
        self.written = last.step;
        self.before = Some(last.clone());
        Ok(())
    }

    async fn end(&mut self) -> Result<(), TargetError> {
        if self.target.is_empty() {
            // An earlier coordinator has written all of it.
            return Ok(());
        }
        let now = calendar::since_1970().as_secs_f64();
        let end = tensorboard::session_end(now, self.written);
        self.target.append(&end).await?;
        self.target.store().await
    }
}

/// The table that grows.
struct Csv {
    target: Target,
    written: Step,
}

impl Csv {
    async fn open(folder: &Store, trial: &Trial) -> Result<Option<Csv>, FilesError> {
        if folder.local_path(CSV).is_none() {
            return Ok(None);
        }
        let found = folder.get_opt(CSV).await?.unwrap_or_default();
        // A last line that is not whole is written again; so is a table of another version's columns.
        let whole = found.iter().rposition(|&byte| byte == b'\n');
        let whole = &found[..whole.map_or(0, |last| last + 1)];
        let whole = match whole.starts_with(tables::head(trial).as_bytes()) {
            true => whole,
            false => &[],
        };
        let mut lines = whole.split(|&byte| byte == b'\n').rev();
        let last = lines.find(|line| !line.is_empty());
        let written = last.and_then(tables::step_of).map(Step);
        Ok(Some(Csv {
            target: Target::new(folder, CSV, whole.len() as u64),
            written: written.unwrap_or_default(),
        }))
    }

    async fn add(&mut self, trial: &Trial, rows: &[Row]) -> Result<(), TargetError> {
        let new = rows.partition_point(|row| row.step <= self.written);
        let new = &rows[new..];
        let Some(last) = new.last() else {
            return Ok(());
        };
        let mut text = match self.target.is_empty() {
            true => tables::head(trial),
            false => String::new(),
        };
        text.extend(new.iter().map(|row| tables::line(trial, row)));
        self.target.append(text.as_bytes()).await?;
        self.written = last.step;
        Ok(())
    }
}
