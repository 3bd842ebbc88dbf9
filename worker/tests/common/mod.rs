//! Ranks in threads of one process, connected as processes would be.

use polestar_core::Rank;
use polestar_worker::collective::{Collective, Mesh, Secret, SharedMemory, listen};
use std::{net::SocketAddr, time::Duration};

pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// One collective a rank. The runtime has to outlive them.
pub(crate) fn connect(runtime: &tokio::runtime::Runtime, world: u32) -> Vec<Collective> {
    if world == 1 {
        return vec![Collective::alone()];
    }
    let meshes = runtime.block_on(async {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
        for _ in 0..world {
            let listener = listen(any).await.expect("a port");
            addresses.push(listener.local_addr().expect("an address"));
            listeners.push(listener);
        }
        let connect = listeners.into_iter().enumerate().map(|(rank, listener)| {
            let addresses = addresses.clone();
            async move {
                let (secret, memory) = (Secret([7; 32]), SharedMemory::Auto);
                let rank = Rank(rank as u32);
                Mesh::connect(rank, listener, &addresses, &secret, memory, DEADLINE).await
            }
        });
        futures::future::try_join_all(connect)
            .await
            .expect("a mesh")
    });
    let collectives = meshes
        .into_iter()
        .map(|(mesh, _)| Collective::new(mesh, DEADLINE));
    collectives.collect()
}
