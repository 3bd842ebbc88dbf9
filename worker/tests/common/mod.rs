//! Ranks in threads of one process, connected as processes would be.

use polestar_core::Rank;
use polestar_worker::collective::{Join, Locality, Mesh, MeshTransport, Secret, listen};
use std::{net::SocketAddr, time::Duration};

pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// One rank at each place. The runtime has to outlive them.
pub(crate) fn connect(
    runtime: &tokio::runtime::Runtime,
    places: &[Locality],
) -> Vec<MeshTransport> {
    if places.len() == 1 {
        return vec![MeshTransport::alone()];
    }
    let meshes = runtime.block_on(async {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
        for _ in places {
            let listener = listen(any).await.expect("a port");
            addresses.push(listener.local_addr().expect("an address"));
            listeners.push(listener);
        }
        let connect = listeners.into_iter().enumerate().map(|(rank, listener)| {
            let addresses = addresses.clone();
            async move {
                let join = Join {
                    rank: Rank(rank as u32),
                    listener,
                    peers: &addresses,
                    secret: &Secret([7; 32]),
                    locality: places[rank],
                    deadline: DEADLINE,
                };
                Mesh::connect(join).await
            }
        });
        futures::future::try_join_all(connect)
            .await
            .expect("a mesh")
    });
    let collectives = meshes
        .into_iter()
        .map(|mesh| MeshTransport::new(mesh, DEADLINE));
    collectives.collect()
}
