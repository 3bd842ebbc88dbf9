//! Why a collective failed, and what came before it.

use polestar_core::Rank;
use std::fmt;

/// Why one link failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The peer's process or connection is gone.
    #[error("the connection to {0} broke")]
    PeerLost(Rank),
    /// Nothing came in time.
    #[error("{from} sent nothing for {seconds} s")]
    Deadline {
        /// Whom we waited for.
        from: Rank,
        /// How long.
        seconds: u64,
    },
    /// An [`Aborter`](super::Aborter) was used.
    #[error("the generation was aborted")]
    Aborted,
}

/// What a person can ask who has to find out more.
const NCCL_HINT: &str = "NCCL_DEBUG=WARN makes workers say more; while a trial hangs, `ncclras -v` on a worker's host \
     (NCCL 2.24 or newer; port 28028) lists the ranks that others wait for";

/// A failed collective: what it was, why, and what came before it on this rank.
#[derive(Debug, thiserror::Error)]
#[error("{operation} #{sequence} on {rank} failed: {cause}\nlast operations here: {record}")]
pub struct CollectiveError {
    /// This rank.
    pub rank: Rank,
    /// The operation's name.
    pub operation: &'static str,
    /// Its number, the same on every rank.
    pub sequence: u64,
    /// What went wrong.
    pub cause: Cause,
    /// What came before.
    pub record: FlightRecord,
}

/// What went wrong in a collective.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Cause {
    /// A link failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Ranks disagree about where they are.
    #[error("{from} sent a message of operation #{found}: the ranks are not in step")]
    OutOfStep {
        /// Who sent it.
        from: Rank,
        /// Its sequence number.
        found: u64,
    },
    /// Ranks disagree about sizes.
    #[error("{from} sent {found} bytes where {expected} were due")]
    Size {
        /// Who sent it.
        from: Rank,
        /// Bytes that came.
        found: usize,
        /// Bytes that were due.
        expected: usize,
    },
    /// NCCL failed, or what it talks to.
    #[error("{reason}. {NCCL_HINT}")]
    Nccl {
        /// What it said.
        reason: String,
    },
    /// What was given to NCCL didn't end in time.
    #[error("NCCL has not done what it was given for {seconds} s. {NCCL_HINT}")]
    NcclDeadline {
        /// How long.
        seconds: u64,
    },
    /// The code of a started operation panicked.
    #[error("the thread that runs collectives panicked; please report it")]
    Panicked,
}

/// A rank's last operations, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlightRecord(pub Vec<Operation>);

/// An operation in a [`FlightRecord`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// Its number, the same on every rank.
    pub sequence: u64,
    /// The step that was under way when it began.
    pub step: u64,
    /// Bytes that it is about.
    pub bytes: usize,
    /// Whether it ended well.
    pub done: bool,
}

impl FlightRecord {
    /// The last operation that ended well.
    pub fn last_done(&self) -> Option<Operation> {
        self.0
            .iter()
            .rev()
            .find(|operation| operation.done)
            .copied()
    }
}

impl fmt::Display for FlightRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, operation) in self.0.iter().enumerate() {
            let Operation {
                name,
                sequence,
                step: _,
                bytes,
                done,
            } = operation;
            let comma = if i == 0 { "" } else { ", " };
            let state = if *done { "done" } else { "not done" };
            write!(f, "{comma}#{sequence} {name} of {bytes} bytes {state}")?;
        }
        Ok(())
    }
}
