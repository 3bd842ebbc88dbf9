//! Ranks in threads of one process, connected as processes would be.

use polestar_worker::collective::{Locality, MeshTransport, local_world};
use std::time::Duration;

pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// One rank at each place. The runtime has to outlive them.
pub(crate) fn connect(
    runtime: &tokio::runtime::Runtime,
    places: &[Locality],
) -> Vec<MeshTransport> {
    let meshes = runtime
        .block_on(local_world(places, DEADLINE))
        .expect("a mesh");
    let transports = meshes
        .into_iter()
        .map(|mesh| MeshTransport::new(mesh, DEADLINE));
    transports.collect()
}
