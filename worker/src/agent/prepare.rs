//! From a coordinator's `Start` to a rank that can train.

use super::rank::Cancel;
use crate::collective::{Join, Locality, Mesh, MeshError, MeshTransport, Peers, Secret};
use polestar_core::{Rank, chain};
use polestar_run::{
    Failure, Trial,
    failure::Phase,
    pool::Tls,
    proto::Start,
    protocol::{self, ProtocolError},
};
use polestar_store::Store;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::net::TcpListener;

/// Why a rank can't begin to train.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrepareError {
    #[error("no port on {address}")]
    NoPort {
        address: IpAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("asked to start a generation that was not prepared")]
    NotPrepared,
    #[error("stopped before it was connected")]
    Cancelled,
    #[error("the coordinator's message can't be understood")]
    Protocol(#[from] ProtocolError),
    #[error(
        "the trial is in format {found}, this worker reads {}",
        protocol::TRIAL_FORMAT
    )]
    Format { found: u32 },
    #[error("the trial can't be read")]
    Trial(#[source] serde_json::Error),
    #[error("the run's store can't be opened")]
    Store(#[source] polestar_store::Error),
    #[error("a peer's address, {text:?}, can't be read")]
    Peer {
        text: String,
        #[source]
        source: std::net::AddrParseError,
    },
    #[error("the generation's secret has {0} bytes instead of 32")]
    Secret(usize),
    #[error("the deadline can't be {seconds} s")]
    Deadline {
        seconds: f64,
        #[source]
        source: std::time::TryFromFloatSecsError,
    },
    #[error(transparent)]
    Connect(MeshError),
}

impl PrepareError {
    /// As the coordinator is told.
    pub(super) fn failure(&self) -> Failure {
        use PrepareError as E;
        let phase = match self {
            E::NoPort { .. } | E::NotPrepared | E::Peer { .. } | E::Secret(_) | E::Connect(_) => {
                Phase::Collective
            }
            E::Cancelled => Phase::Abort,
            E::Store(_) => Phase::Storage,
            E::Protocol(_) | E::Format { .. } | E::Trial(_) | E::Deadline { .. } => Phase::Config,
        };
        // What is wrong in a message stays wrong when it is sent again.
        let for_good = matches!(phase, Phase::Config | Phase::Storage)
            || matches!(self, E::Peer { .. } | E::Secret(_));
        Failure {
            phase,
            message: chain(self),
            // Whoever can't be reached has trouble of its own, which is told of apart from this.
            collateral: matches!(self, E::Cancelled | E::Connect(_)),
            retryable: !for_good,
            last_operation: None,
        }
    }
}

/// How the other ranks of a generation are met.
pub(super) struct Meeting {
    /// Where higher ranks dial in.
    pub(super) listener: TcpListener,
    /// How connections are sealed, in a pool over several hosts.
    pub(super) tls: Option<Tls>,
}

/// What a rank is to train.
pub(super) fn trial(start: &Start) -> Result<Trial, PrepareError> {
    let field = "start.trial";
    let trial = start.trial.as_ref();
    let trial = trial.ok_or(ProtocolError::Missing { field })?;
    if trial.format != protocol::TRIAL_FORMAT {
        let found = trial.format;
        return Err(PrepareError::Format { found });
    }
    serde_json::from_slice(&trial.json).map_err(PrepareError::Trial)
}

/// Opens the run's store and connects to the other ranks.
pub(super) async fn prepare(
    start: Start,
    meeting: Meeting,
    cancel: &Cancel,
) -> Result<(MeshTransport, Store), PrepareError> {
    let run = Store::open(&start.run).map_err(PrepareError::Store)?;
    let address = |text: &String| {
        text.parse().map_err(|source| PrepareError::Peer {
            text: text.clone(),
            source,
        })
    };
    let peers: Vec<SocketAddr> = start.peers.iter().map(address).collect::<Result<_, _>>()?;
    let secret = <[u8; 32]>::try_from(&start.secret[..])
        .map_err(|_| PrepareError::Secret(start.secret.len()))?;
    let seconds = start.deadline_seconds;
    let deadline = Duration::try_from_secs_f64(seconds)
        .map_err(|source| PrepareError::Deadline { seconds, source })?;
    let collective = if peers.len() == 1 {
        MeshTransport::alone()
    } else {
        let (rank, secret) = (Rank(start.rank), Secret(secret));
        let connect = Mesh::connect(Join {
            rank,
            listener: meeting.listener,
            peers: &peers,
            secret: &secret,
            tls: meeting.tls.as_ref(),
            locality: Locality::Machine,
            deadline,
        });
        let mesh = connect.await.map_err(PrepareError::Connect)?;
        let transport = MeshTransport::new(mesh, deadline);
        cancel.break_when_asked(transport.aborter());
        transport
    };
    Ok((collective, run))
}
