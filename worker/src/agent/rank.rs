//! One rank of one generation: what it does, how it is stopped, and what it has to say in the end.

use super::{
    outbox::Outbox,
    prepare::{Meeting, PrepareError, prepare},
};
use crate::{
    collective::Aborter,
    engine::{self, Environment, Kept},
};
use polestar_core::{Generation, Rank};
use polestar_run::{
    Failure, Trial,
    failure::Phase,
    logged::Section,
    proto::{self, Start, from_worker::Body},
};
use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::watch;
use tracing::{Instrument, Span};

/// Stops a generation wherever it is: while it connects, inside a collective, between two steps.
#[derive(Clone, Debug)]
pub(super) struct Cancel {
    asked: watch::Sender<bool>,
    flag: Arc<AtomicBool>,
    /// Set to have it save and stop, instead.
    pub(super) drain: Arc<AtomicBool>,
}

impl Cancel {
    pub(super) fn new() -> Cancel {
        Cancel {
            asked: watch::Sender::new(false),
            flag: Arc::default(),
            drain: Arc::default(),
        }
    }

    pub(super) fn cancel(&self) {
        self.flag.store(true, Ordering::SeqCst);
        self.asked.send_replace(true);
    }

    /// Breaks a mesh when it is asked to, or at once if it has been.
    pub(super) fn break_when_asked(&self, aborter: Aborter) {
        let mut asked = self.asked.subscribe();
        tokio::spawn(async move {
            if asked.wait_for(|&asked| asked).await.is_ok() {
                aborter.abort();
            }
        });
    }
}

/// What a rank tells, and is told.
pub(super) struct ThisRank {
    pub(super) generation: Generation,
    pub(super) cancel: Cancel,
    /// Steps done.
    pub(super) step: Arc<AtomicU64>,
    pub(super) outbox: Outbox,
    pub(super) kept: Kept,
}

/// One rank of one generation, from the mesh to what it has to say in the end.
pub(super) async fn train(rank: ThisRank, trial: Trial, start: Start, meeting: Meeting) -> Body {
    let ThisRank {
        generation,
        cancel,
        step,
        outbox,
        kept,
    } = rank;
    // Into the log, for those who ask later whose lines these are. A log that is full or gone stops nobody.
    let world = u32::try_from(start.peers.len()).unwrap_or(u32::MAX);
    let section = Section::new(&trial.id, Rank(start.rank), world, generation);
    let _ = writeln!(std::io::stderr(), "{section}");
    let mut asked = cancel.asked.subscribe();
    let prepared = tokio::select! {
        prepared = prepare(start, meeting, &cancel).instrument(tracing::info_span!("connect")) => prepared,
        _ = asked.wait_for(|&asked| asked) => Err(PrepareError::Cancelled),
    };
    let (collective, run) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return failed(generation, error.failure()),
    };
    let env = Environment {
        collective,
        run,
        runtime: tokio::runtime::Handle::current(),
        abort: Arc::clone(&cancel.flag),
        drain: Arc::clone(&cancel.drain),
        events: Box::new(move |event| {
            if let Some(done) = event.step() {
                step.store(done.0, Ordering::Relaxed);
            }
            let progress = proto::Progress {
                generation: Some(generation.into()),
                event: Some(event.into()),
            };
            outbox.say(Body::Progress(progress));
        }),
        slice: None,
        kept,
    };
    let span = Span::current();
    let inside = span.clone();
    let engine =
        tokio::task::spawn_blocking(move || inside.in_scope(|| engine::run_on_mesh(&trial, env)));
    let ended = engine.await;
    if let Ok(Err(failure)) = &ended {
        span.record("otel.status_code", "error");
        span.record("otel.status_description", failure.to_string());
    }
    match ended {
        Ok(Ok(outcome)) => Body::Finished(proto::Finished {
            generation: Some(generation.into()),
            outcome: Some(outcome.into()),
        }),
        Ok(Err(engine::Failure::Drained { .. })) => Body::Stopped(proto::Stopped {
            generation: Some(generation.into()),
        }),
        Ok(Err(failure)) => failed(generation, failure.report()),
        Err(panic) => failed(generation, panicked("the engine", &panic)),
    }
}

pub(super) fn failed(generation: Generation, failure: Failure) -> Body {
    Body::Failed(proto::Failed {
        generation: Some(generation.into()),
        failure: Some(failure.into()),
    })
}

pub(super) fn panicked(what: &str, panic: &tokio::task::JoinError) -> Failure {
    Failure {
        phase: Phase::Compute,
        message: format!("{what} panicked: {panic}"),
        collateral: false,
        retryable: true,
        last_operation: None,
    }
}
