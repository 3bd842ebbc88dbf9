//! A transport whose process dies at an operation, or that doesn't hear how one ended.

use polestar_core::{Rank, Step, WorldSize};
use polestar_worker::{
    collective::{
        Aborter, Cause, CollectiveError, FlightRecord, LaneSum, LinkError, MeshTransport,
        Neighbours, Partials, Passed, Peers, Pending, Transport,
    },
    engine::{BurnEngine, Engine},
};
use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

type Flat = <BurnEngine as Engine>::Flat;

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process is gone before it.
    DieBefore,
    /// The process is gone as soon as it has done its part, which the others may use.
    DieAfter,
    /// It does its part, but doesn't get to know the others'.
    Deaf,
}

/// What a rank went through.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Operations that were asked for, by name.
    pub(crate) operations: Vec<&'static str>,
    /// The last step that it began.
    pub(crate) step: Step,
    pub(crate) fired: bool,
}

pub(crate) struct Dying {
    inner: MeshTransport,
    /// What happens, and at which operation.
    fault: Option<(Fault, usize)>,
    log: Arc<Mutex<Log>>,
}

impl Dying {
    pub(crate) fn new(inner: MeshTransport, fault: Option<(Fault, usize)>) -> Dying {
        let log = Arc::default();
        Dying { inner, fault, log }
    }

    pub(crate) fn log(&self) -> Arc<Mutex<Log>> {
        Arc::clone(&self.log)
    }

    /// Counts an operation. Returns what happens at it.
    fn next(&self, name: &'static str) -> Option<Fault> {
        let mut log = self.log.lock().expect("no panic");
        let number = log.operations.len();
        log.operations.push(name);
        let (fault, _) = self.fault.filter(|(_, at)| *at == number)?;
        log.fired = true;
        if fault == Fault::DieBefore {
            self.inner.aborter().abort();
        }
        Some(fault)
    }

    fn error(&self) -> CollectiveError {
        CollectiveError {
            rank: self.inner.rank(),
            operation: "an operation",
            sequence: 0,
            cause: Cause::Link(LinkError::PeerLost(Rank(0))),
            record: FlightRecord::default(),
        }
    }

    fn now<R>(
        &mut self,
        name: &'static str,
        run: impl FnOnce(&mut MeshTransport) -> Result<R, CollectiveError>,
    ) -> Result<R, CollectiveError> {
        let fault = self.next(name);
        let result = run(&mut self.inner)?;
        match fault {
            None | Some(Fault::DieBefore) => Ok(result),
            Some(Fault::DieAfter) => {
                self.inner.aborter().abort();
                Err(self.error())
            }
            Some(Fault::Deaf) => Err(self.error()),
        }
    }

    fn started<R: Send + 'static>(
        &mut self,
        name: &'static str,
        start: impl FnOnce(&mut MeshTransport) -> Pending<R>,
    ) -> Pending<R> {
        let fault = self.next(name);
        let pending = start(&mut self.inner);
        let Some(fault) = fault.filter(|fault| *fault != Fault::DieBefore) else {
            return pending;
        };
        let (error, aborter) = (self.error(), self.inner.aborter());
        Pending::running(move || {
            pending.wait()?;
            if fault == Fault::DieAfter {
                aborter.abort();
            }
            Err(error)
        })
    }
}

impl Peers for Dying {
    fn rank(&self) -> Rank {
        self.inner.rank()
    }

    fn world(&self) -> WorldSize {
        self.inner.world()
    }

    fn exchange(&mut self, local: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.now("exchange", |inner| inner.exchange(local))
    }

    fn gather(
        &mut self,
        root: Rank,
        local: &[u8],
    ) -> Result<Option<Vec<Vec<u8>>>, CollectiveError> {
        self.now("gather", |inner| inner.gather(root, local))
    }

    fn broadcast(&mut self, root: Rank, local: &[u8]) -> Result<Vec<u8>, CollectiveError> {
        self.now("broadcast", |inner| inner.broadcast(root, local))
    }

    fn all_to_all(&mut self, to: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.now("all-to-all", |inner| inner.all_to_all(to))
    }

    fn hosts(&self) -> Vec<usize> {
        self.inner.hosts()
    }

    fn at_step(&mut self, step: Step) {
        self.log.lock().expect("no panic").step = step;
        self.inner.at_step(step);
    }

    fn aborter(&self) -> Aborter {
        self.inner.aborter()
    }
}

impl Transport<BurnEngine> for Dying {
    fn canonical_sum(
        &mut self,
        engine: &BurnEngine,
        sum: LaneSum,
        local: Vec<Flat>,
    ) -> Pending<Partials<Flat>> {
        self.started("sum", |inner| inner.canonical_sum(engine, sum, local))
    }

    fn fast_sum(&mut self, engine: &BurnEngine, sum: LaneSum, local: Vec<Flat>) -> Pending<Flat> {
        self.started("sum", |inner| inner.fast_sum(engine, sum, local))
    }

    fn all_gather(
        &mut self,
        engine: &BurnEngine,
        shards: Vec<Range<usize>>,
        own: Flat,
    ) -> Pending<Flat> {
        self.started("all-gather", |inner| inner.all_gather(engine, shards, own))
    }

    fn pass_on(
        &mut self,
        engine: &BurnEngine,
        neighbours: Neighbours,
        own: Flat,
        elements: usize,
    ) -> Pending<Passed<Flat>> {
        self.started("pass-on", |inner| {
            inner.pass_on(engine, neighbours, own, elements)
        })
    }
}
