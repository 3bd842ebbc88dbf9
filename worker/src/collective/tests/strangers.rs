//! Connections that others can see and reach: sealed ones move the same bits, and strangers change nothing.

use super::*;
use crate::collective::{greet::PATIENCE, local::world};
use polestar_run::pool::{Tls, Token};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// More than may be unknown at a time, and few enough for any process's descriptors.
const IDLE: usize = 300;

fn tls() -> Tls {
    Tls::of(&Token::random().unwrap())
}

#[test]
fn sealed_connections_move_the_same_bits_and_memory_needs_no_seal() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tls = tls();
    for (locality, sealed) in [(Locality::Apart, true), (Locality::Machine, false)] {
        for elements in [1000, 70_000, 700_001] {
            let localities = [locality; 3];
            let meshes = runtime.block_on(world(&localities, DEADLINE, Some(&tls)));
            let meshes = meshes.unwrap();
            for link in meshes.iter().flat_map(|mesh| mesh.links.iter().flatten()) {
                assert!(!link.is_plain() && link.carries_data() == sealed);
            }
            let sums = each(meshes, DEADLINE, move |mut transport| {
                sum_and_gather(&mut transport, LANES, elements)
            });
            let expected = bits(&partials(0..LANES, LANES, elements)[0].1);
            for sum in sums {
                assert!(bits(&sum) == expected, "{locality:?}, {elements} elements");
            }
        }
    }
}

#[test]
fn whoever_stalls_or_dies_behind_tls_is_named() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tls = tls();
    let pair = || {
        let localities = [Locality::Apart; 2];
        let mut meshes = runtime
            .block_on(world(&localities, DEADLINE, Some(&tls)))
            .unwrap();
        (meshes.remove(0), meshes.remove(0))
    };
    // More than any buffer holds, to a rank that doesn't take it, and to one that is gone.
    let part = |mut transport: MeshTransport| {
        let own = HostBuffer::zeros(5_000_000);
        let whole = transport.all_gather(&engine(), vec![0..5_000_000, 5_000_000..10_000_000], own);
        whole.wait().unwrap_err().to_string()
    };
    let (first, stalls) = pair();
    let errors = each(vec![first], Duration::from_millis(300), part);
    assert!(
        errors[0].contains("rank 1 sent nothing for 1 s"),
        "{errors:?}"
    );
    drop(stalls);
    let (first, dies) = pair();
    let waiting = thread::spawn(move || each(vec![first], HOUR, part));
    drop(dies);
    let errors = waiting.join().unwrap();
    assert!(
        errors[0].contains("the connection to rank 1 broke"),
        "{errors:?}"
    );
}

fn join<'a>(
    rank: u32,
    listener: TcpListener,
    peers: &'a [SocketAddr],
    secret: &'a Secret,
    tls: Option<&'a Tls>,
) -> Join<'a> {
    Join {
        rank: Rank(rank),
        listener,
        peers,
        secret,
        tls,
        locality: Locality::Apart,
        deadline: DEADLINE,
    }
}

/// What the dialler of a mesh of two says, from its first byte to the end of the handshake.
async fn recorded(secret: &Secret, tls: Option<&Tls>) -> Vec<u8> {
    let [listens, dials, relay] = [(); 3].map(|()| async { listen(ANY).await.unwrap() });
    let (listens, dials, relay) = (listens.await, dials.await, relay.await);
    let real = [listens.local_addr().unwrap(), dials.local_addr().unwrap()];
    let through = [relay.local_addr().unwrap(), real[1]];
    let said = Arc::new(Mutex::new(Vec::new()));
    let record = said.clone();
    let relaying = tokio::spawn(async move {
        let (near, _) = relay.accept().await.unwrap();
        let far = TcpStream::connect(real[0]).await.unwrap();
        let ((mut near_in, mut near_out), (mut far_in, mut far_out)) =
            (near.into_split(), far.into_split());
        let back = tokio::spawn(async move { tokio::io::copy(&mut far_in, &mut near_out).await });
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = near_in.read(&mut buffer).await {
            record.lock().unwrap().extend_from_slice(&buffer[..n]);
            far_out.write_all(&buffer[..n]).await.unwrap();
        }
        back.abort();
    });
    let meshes = tokio::try_join!(
        Mesh::connect(join(0, listens, &real, secret, tls)),
        Mesh::connect(join(1, dials, &through, secret, tls)),
    );
    drop(meshes.unwrap());
    relaying.await.unwrap();
    let said = said.lock().unwrap();
    assert!(said.len() > 90, "a whole handshake: {}", said.len());
    said.clone()
}

/// Waits until the listener has ended a connection, whatever it says before.
async fn shown_out(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

async fn says(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // It may be shown out in the middle of that.
    let _ = stream.write_all(bytes).await;
    shown_out(stream).await;
}

#[test]
fn strangers_at_a_data_port_change_nothing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for tls in [None, Some(tls())] {
        let tls = tls.as_ref();
        runtime.block_on(async {
            let secret = Secret([7; 32]);
            let replay = recorded(&secret, tls).await;
            let (listens, dials) = (listen(ANY).await.unwrap(), listen(ANY).await.unwrap());
            let peers = [listens.local_addr().unwrap(), dials.local_addr().unwrap()];
            let port = peers[0];
            let strangers = async {
                let mut idle = Vec::new();
                for _ in 0..IDLE {
                    idle.push(TcpStream::connect(port).await.unwrap());
                }
                says(port, &replay).await;
                says(port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
                says(port, &[0xff; 100_000]).await;
                // Ranks of another generation, and of another pool.
                let other_pool = tls.map(|_| (Secret([7; 32]), Some(super::strangers::tls())));
                let other_generation = Some((Secret([8; 32]), tls.cloned()));
                for (secret, tls) in [other_generation, other_pool].into_iter().flatten() {
                    let listener = listen(ANY).await.unwrap();
                    let other = join(1, listener, &peers, &secret, tls.as_ref());
                    let refused = Mesh::connect(other).await.unwrap_err();
                    assert!(refused.to_string().contains("was refused"), "{refused}");
                }
                if let Some(tls) = tls {
                    // One who has the token, and not the generation's secret.
                    let stream = TcpStream::connect(port).await.unwrap();
                    let connector = TlsConnector::from(tls.data.client.clone());
                    let mut stream = connector.connect(Tls::data_name(), stream).await.unwrap();
                    stream.write_all(&[1; 200]).await.unwrap();
                    let mut rest = Vec::new();
                    let _ = stream.read_to_end(&mut rest).await;
                }
                // The first to come have gone, without anybody having waited for them.
                shown_out(idle.remove(0)).await;
                // Some are still there while the rank that is meant dials in.
                let begun = Instant::now();
                let mesh = Mesh::connect(join(1, dials, &peers, &secret, tls)).await;
                (mesh, begun.elapsed(), idle)
            };
            let zero = Mesh::connect(join(0, listens, &peers, &secret, tls));
            let (zero, (one, took, _idle)) = tokio::join!(zero, strangers);
            assert!(took < PATIENCE, "{took:?}");
            let part = |mut transport: MeshTransport| transport.exchange(&[5; 9]).unwrap();
            let told = tokio::task::spawn_blocking(move || {
                each(vec![zero.unwrap(), one.unwrap()], DEADLINE, part)
            });
            assert_eq!(told.await.unwrap(), vec![vec![vec![5; 9]; 2]; 2]);
        });
    }
}
