//! Reading the inputs, several at a time, each into a file of its own.

use super::{
    BadRows, Error, Prepared,
    convert::{Converted, Converter},
    job::Job,
    quarantine::Quarantine,
    read::{self, Batch, Input},
    spill::{Index, Spill},
};
use crate::account::Account;
use crate::assemble::{Progress, Stage, load, save};
use rayon::prelude::*;
use std::{
    path::PathBuf,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    thread,
};

/// Bytes of rows that a frame should have, before it is compressed.
const FRAME: u64 = 64 << 10;

/// What was read since the last one.
struct Advance {
    /// Of an input.
    bytes: u64,
    rows: u64,
}

/// Reads what no earlier import has read. Every input's file and index, in order.
pub(super) fn scatter(
    job: &Job,
    prepared: &Prepared,
    cores: usize,
    progress: &dyn Fn(Progress),
) -> Result<Vec<(PathBuf, Index)>, Error> {
    let inputs = &prepared.inputs;
    let mut read: Vec<Option<Index>> = (0..inputs.len())
        .map(|input| {
            let index: Option<Index> = load(&job.index(input));
            index.filter(|index| index.is_of(&job.rows(input), job.parts()))
        })
        .collect();
    let open: Vec<usize> = (0..inputs.len())
        .filter(|&input| read[input].is_none())
        .collect();
    let bytes = |inputs: &mut dyn Iterator<Item = &Input>| {
        inputs.map(|input| input.bytes.unwrap_or(0)).sum::<u64>()
    };
    let total = bytes(&mut inputs.iter());
    let before = total - bytes(&mut open.iter().map(|&input| &inputs[input]));
    // As many as can hold frames that are worth being one.
    let room = prepared.options.memory / 4;
    let threads = (room / (job.parts() as u64 * FRAME)).clamp(1, cores as u64) as usize;
    let threads = threads.min(open.len());
    let reading = Reading {
        job,
        prepared,
        held: (room / threads.max(1) as u64).max(1) as usize,
        stop: AtomicBool::new(false),
    };
    let next = AtomicUsize::new(0);
    let work = |progressed: Sender<Advance>| {
        let mut ended = Vec::new();
        while let Some(&input) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
            if reading.stop.load(Ordering::Relaxed) {
                break;
            }
            let index = reading.one(input, &progressed);
            reading.stop.fetch_or(index.is_err(), Ordering::Relaxed);
            ended.push((input, index));
        }
        ended
    };
    let ended = thread::scope(|scope| {
        let (progressed, advances) = mpsc::channel::<Advance>();
        let work = &work;
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                let progressed = progressed.clone();
                scope.spawn(move || work(progressed))
            })
            .collect();
        drop(progressed);
        let mut state = Progress {
            stage: Stage::Read,
            done: before,
            total,
            rows: 0,
            before,
        };
        progress(state);
        for advance in advances {
            state.done += advance.bytes;
            state.rows += advance.rows;
            progress(state);
        }
        let ended = workers.into_iter().flat_map(|worker| match worker.join() {
            Ok(ended) => ended,
            Err(panicked) => std::panic::resume_unwind(panicked),
        });
        ended.collect::<Vec<_>>()
    });
    let mut failures = Vec::new();
    for (input, index) in ended {
        match index {
            Ok(index) => read[input] = index,
            Err(error) => failures.push((input, error)),
        }
    }
    // Of several that fail at a time, the first input's is reported.
    failures.sort_by_key(|(input, _)| *input);
    if let Some((_, error)) = failures.into_iter().next() {
        return Err(error);
    }
    let read = read.into_iter().flatten().enumerate();
    Ok(read
        .map(|(input, index)| (job.rows(input), index))
        .collect())
}

struct Reading<'a> {
    job: &'a Job,
    prepared: &'a Prepared,
    /// Bytes of rows that an input holds in memory.
    held: usize,
    /// Another input failed.
    stop: AtomicBool,
}

impl Reading<'_> {
    /// Reads one input to its end, or gives up: `None`.
    fn one(&self, number: usize, progressed: &Sender<Advance>) -> Result<Option<Index>, Error> {
        let input = &self.prepared.inputs[number];
        let mut writing = Writing {
            input,
            bad_rows: self.prepared.options.bad_rows,
            spill: Spill::create(self.job.rows(number), self.job.parts(), self.held)?,
            quarantine: Quarantine::new(self.job.bad(number)),
            account: Account::default(),
        };
        let mapping = &self.prepared.mapping;
        let policy = mapping.policy_of_path(&input.shown);
        let policy = policy.map_err(|problem| Error::Path {
            path: input.shown.clone(),
            reason: problem.to_string(),
        })?;
        let converter = Converter {
            mapping,
            joined: self.prepared.joined_records.as_ref(),
            wanted: &self.prepared.wanted,
            parts: self.job.parts(),
            policy,
        };
        let mut consumed = 0;
        read::read(input, &self.prepared.wanted, &mut |batch: Batch| {
            let records = batch.records.par_iter();
            let converted: Vec<Converted> =
                records.map(|record| converter.convert(record)).collect();
            // The receiver may be gone after a panic; the work is the same.
            let _ = progressed.send(Advance {
                bytes: batch.consumed.saturating_sub(consumed),
                rows: converted
                    .iter()
                    .map(|record| record.rows.len() as u64)
                    .sum(),
            });
            consumed = batch.consumed;
            for record in converted {
                writing.take(record)?;
            }
            Ok(!self.stop.load(Ordering::Relaxed))
        })?;
        if self.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        writing.quarantine.finish()?;
        let index = writing.spill.finish(writing.account)?;
        let path = self.job.index(number);
        save(&path, &index).map_err(|source| Error::Spill { path, source })?;
        Ok(Some(index))
    }
}

/// What an input's records become, on the way to the disk.
struct Writing<'a> {
    input: &'a Input,
    bad_rows: BadRows,
    spill: Spill,
    quarantine: Quarantine,
    account: Account,
}

impl Writing<'_> {
    fn take(&mut self, record: Converted) -> Result<(), Error> {
        if let Some(bad) = record.bad {
            match self.bad_rows {
                BadRows::Skip => {}
                BadRows::Quarantine => self.quarantine.add(&self.input.shown, &bad)?,
                BadRows::Refuse => {
                    return Err(Error::Record {
                        path: self.input.shown.clone(),
                        place: bad.place,
                        reason: bad.reason,
                    });
                }
            }
        }
        self.account += record.account;
        for row in record.rows {
            self.spill.push(row)?;
        }
        Ok(())
    }
}
