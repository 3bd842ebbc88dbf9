//! A world whose ranks are threads of one process, connected as processes are: for replays and tests.

use super::{
    handshake::Secret,
    mesh::{Join, Locality, Mesh, MeshError, listen},
};
use polestar_core::Rank;
use polestar_run::pool::Tls;
use std::{net::SocketAddr, time::Duration};

/// One mesh for each rank, where `localities` has a place for each. The runtime that this is awaited on
/// has to outlive them.
///
/// # Errors
/// A port of this machine that can't be had, or a rank that isn't connected within `deadline`.
pub async fn local_world(
    localities: &[Locality],
    deadline: Duration,
) -> Result<Vec<Mesh>, MeshError> {
    world(localities, deadline, None).await
}

/// [`local_world`], with connections that may be sealed.
pub(super) async fn world(
    localities: &[Locality],
    deadline: Duration,
    tls: Option<&Tls>,
) -> Result<Vec<Mesh>, MeshError> {
    if localities.len() == 1 {
        return Ok(vec![Mesh::alone()]);
    }
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
    for _ in localities {
        let listener = listen(any).await?;
        addresses.push(listener.local_addr()?);
        listeners.push(listener);
    }
    let secret = Secret(rand::random());
    let ranks = (0..).map(Rank).zip(listeners).zip(localities);
    let connects = ranks.map(|((rank, listener), &locality)| {
        Mesh::connect(Join {
            rank,
            listener,
            peers: &addresses,
            secret: &secret,
            tls,
            locality,
            deadline,
        })
    });
    futures::future::try_join_all(connects).await
}
