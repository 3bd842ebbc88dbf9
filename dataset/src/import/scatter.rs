//! Reading the inputs, several at a time, each into a file of its own.

use super::{
    Error, ImportOptions, InputFile,
    batch::Requests,
    input,
    job::Job,
    spill::{Index, Spill},
};
use crate::assemble::{Progress, Stage, load, save};
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
    options: &ImportOptions,
    inputs: &[InputFile],
    cores: usize,
    progress: &dyn Fn(Progress),
) -> Result<Vec<(PathBuf, Index)>, Error> {
    let mut read: Vec<Option<Index>> = (0..inputs.len())
        .map(|input| {
            let index: Option<Index> = load(&job.index(input));
            index.filter(|index| index.is_of(&job.rows(input), job.parts()))
        })
        .collect();
    let open: Vec<usize> = (0..inputs.len())
        .filter(|&input| read[input].is_none())
        .collect();
    let bytes = |inputs: &mut dyn Iterator<Item = &InputFile>| inputs.map(|i| i.bytes).sum::<u64>();
    let total = bytes(&mut inputs.iter());
    let before = total - bytes(&mut open.iter().map(|&input| &inputs[input]));
    let requests = match &options.requests[..] {
        [] => None,
        _ if open.is_empty() => None,
        paths => Some(Requests::read(paths)?),
    };
    // As many as can hold frames that are worth being one.
    let room = options.memory / 4;
    let threads = (room / (job.parts() as u64 * FRAME)).clamp(1, cores as u64) as usize;
    let threads = threads.min(open.len());
    let reading = Reading {
        job,
        options,
        requests,
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
    options: &'a ImportOptions,
    requests: Option<Requests>,
    /// Bytes of rows that an input holds in memory.
    held: usize,
    /// Another input failed.
    stop: AtomicBool,
}

impl Reading<'_> {
    /// Reads one input to its end, or gives up: `None`.
    fn one(&self, input: usize, progressed: &Sender<Advance>) -> Result<Option<Index>, Error> {
        let path = &self.options.inputs[input];
        let mut spill = Spill::create(self.job.rows(input), self.job.parts(), self.held)?;
        let (mut consumed, mut failed) = (0, 0);
        input::read(
            path,
            &self.options.columns,
            self.requests.as_ref(),
            self.job.parts(),
            &mut |batch| {
                // The receiver may be gone after a panic; the work is the same.
                let _ = progressed.send(Advance {
                    bytes: batch.consumed - consumed,
                    rows: batch.rows.len() as u64,
                });
                consumed = batch.consumed;
                failed += batch.failed;
                for row in batch.rows {
                    spill.push(row)?;
                }
                Ok(!self.stop.load(Ordering::Relaxed))
            },
        )?;
        if self.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let index = spill.finish(failed)?;
        let path = self.job.index(input);
        save(&path, &index).map_err(|source| Error::Spill { path, source })?;
        Ok(Some(index))
    }
}
