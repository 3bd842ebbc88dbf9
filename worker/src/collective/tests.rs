use super::*;
use polestar_core::tree::{Counter, add_into, hosted, shard, subtrees};
use std::{net::SocketAddr, thread, time::Instant};

const LANES: u32 = 8;

/// A mesh of `world` ranks in this process.
fn meshes(world: u32, memory: impl Fn(u32) -> SharedMemory) -> Vec<(Mesh, Aborter)> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
        for _ in 0..world {
            let listener = listen(any).await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            listeners.push(listener);
        }
        let connect = listeners.into_iter().enumerate().map(|(rank, listener)| {
            let (addresses, memory) = (addresses.clone(), memory(rank as u32));
            async move {
                let (rank, secret) = (Rank(rank as u32), Secret([7; 32]));
                let deadline = Duration::from_secs(20);
                Mesh::connect(rank, listener, &addresses, &secret, memory, deadline).await
            }
        });
        futures::future::try_join_all(connect).await.unwrap()
    })
}

/// Runs a rank's part in a thread each and returns what they return, by rank.
fn each<T: Send + 'static>(
    meshes: Vec<(Mesh, Aborter)>,
    deadline: Duration,
    part: impl Fn(Collective) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let ranks: Vec<_> = meshes
        .into_iter()
        .map(|(mesh, _)| {
            let part = part.clone();
            thread::spawn(move || part(Collective::new(mesh, deadline)))
        })
        .collect();
    ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
}

/// A lane's vector: sums of these depend on the order of addition.
fn lane(lane: u32, elements: usize) -> Vec<f32> {
    let value = |i: usize| {
        let sign = if (lane + i as u32).is_multiple_of(3) {
            -1.0
        } else {
            1.0
        };
        sign * 1e-3 * 1.7_f32.powi((lane as usize * 5 + i) as i32 % 23)
    };
    (0..elements).map(value).collect()
}

fn add(mut left: Vec<f32>, right: Vec<f32>) -> Vec<f32> {
    add_into(&mut left, &right);
    left
}

fn tree(lanes: Range<u32>, elements: usize) -> Partials {
    let mut counter = Counter::default();
    for l in lanes {
        let leaf = Node::leaf(polestar_core::Lane(l), LANES);
        counter.push(leaf, lane(l, elements), add);
    }
    counter.into_partials()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn every_world_and_link_moves_the_same_bits() {
    let mixed = |rank| match rank {
        1 => SharedMemory::Off,
        _ => SharedMemory::Auto,
    };
    let links: [fn(u32) -> SharedMemory; 3] =
        [|_| SharedMemory::Auto, |_| SharedMemory::Off, mixed];
    for world in 1..=5 {
        for memory in links {
            // Nothing, less than a block, more than a chunk, more than a queue holds.
            for elements in [0, 1000, 70_000, 700_001] {
                let sums = each(
                    meshes(world, memory),
                    Duration::from_secs(20),
                    move |mut c| {
                        let me = c.rank();
                        let world = c.world();
                        let cuts: Vec<_> = (0..world.0)
                            .map(|r| shard(elements, world, Rank(r)))
                            .collect();
                        let holders = (0..world.0).flat_map(|r| {
                            let nodes = subtrees(hosted(LANES, world, Rank(r)), LANES);
                            nodes.into_iter().map(move |node| (Rank(r), node))
                        });
                        let pieces: Vec<_> = holders.collect();
                        let partials = tree(hosted(LANES, world, me), elements);
                        let mine: Vec<_> = partials.into_iter().map(|(_, sum)| sum).collect();
                        // Two in flight, and others behind them.
                        let first =
                            c.start_reduce_scatter(pieces.clone(), cuts.clone(), mine.clone());
                        let second = c.start_reduce_scatter(pieces, cuts.clone(), mine);
                        let sizes = c
                            .gather_bytes(&vec![me.0 as u8; 3 * me.0 as usize])
                            .unwrap();
                        for (rank, bytes) in sizes.iter().enumerate() {
                            assert_eq!(*bytes, vec![rank as u8; 3 * rank]);
                        }
                        let [(root, sum)] = &first.wait().unwrap()[..] else {
                            panic!("siblings are left over");
                        };
                        assert_eq!((root.first, 1 << root.level), (0, LANES));
                        assert_eq!(bits(&second.wait().unwrap()[0].1), bits(sum));
                        let mut told = vec![me.0 as f32; 9];
                        c.broadcast(Rank(world.0 - 1), &mut told).unwrap();
                        assert_eq!(told, vec![(world.0 - 1) as f32; 9]);
                        let whole = c.all_gather(&cuts, sum).unwrap();
                        if world.0.is_power_of_two() {
                            // One subtree a rank: the same sum, in place.
                            let holder = |r| subtrees(hosted(LANES, world, Rank(r)), LANES)[0];
                            let pieces: Vec<_> =
                                (0..world.0).map(|r| (Rank(r), holder(r))).collect();
                            let mut values = tree(hosted(LANES, world, me), elements).remove(0).1;
                            c.all_reduce(&pieces, &cuts, &mut values).unwrap();
                            assert!(bits(&values) == bits(&whole), "{world:?} in place");
                        }
                        whole
                    },
                );
                let expected = bits(&tree(0..LANES, elements)[0].1);
                for sum in sums {
                    assert!(bits(&sum) == expected, "{world} ranks, {elements} elements");
                }
            }
        }
    }
}

#[test]
fn shared_memory_is_used_and_leaves_no_name_behind() {
    let names = || {
        let entries = std::fs::read_dir("/dev/shm").unwrap().flatten();
        let ours = |e: &std::fs::DirEntry| e.file_name().to_string_lossy().starts_with("polestar-");
        entries.filter(ours).count()
    };
    let pair = meshes(2, |_| SharedMemory::Auto);
    assert!(
        pair.iter()
            .all(|(mesh, _)| !mesh.links.iter().flatten().any(|l| l.is_plain()))
    );
    // Other tests of this process may be in the middle of their handshakes.
    let begun = Instant::now();
    while names() > 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "a name is left in /dev/shm"
        );
        thread::yield_now();
    }
}

#[test]
fn whoever_stalls_is_named_by_all_others_within_the_deadline() {
    for memory in [SharedMemory::Auto, SharedMemory::Off] {
        let begun = Instant::now();
        let mut all = meshes(3, move |_| memory);
        // It lives, it just doesn't come.
        let _third = all.remove(2);
        let errors = each(all, Duration::from_millis(300), |mut c| {
            c.barrier()
                .and_then(|()| c.barrier())
                .unwrap_err()
                .to_string()
        });
        assert!(begun.elapsed() < Duration::from_secs(10));
        for error in errors {
            assert!(error.contains("gather #0"), "{error}");
            assert!(error.contains("rank 2 sent nothing for 1 s"), "{error}");
            assert!(
                error.contains("last operations here: #0 gather of 0 bytes not done"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_rank_that_dies_or_aborts_frees_all_others_at_once() {
    const HOUR: Duration = Duration::from_secs(3600);
    for memory in [SharedMemory::Auto, SharedMemory::Off] {
        for aborts in [false, true] {
            let mut all = meshes(3, move |_| memory);
            let (mesh, aborter) = all.remove(2);
            // More than fits into any buffer: they are in the middle of it.
            let part = |mut c: Collective| {
                let values = vec![1.0; 5_000_000];
                let cuts = [0..5_000_000, 5_000_000..10_000_000, 10_000_000..15_000_000];
                c.all_gather(&cuts, &values).unwrap_err().to_string()
            };
            let waiting = thread::spawn(move || each(all, HOUR, part));
            if aborts {
                let mut c = Collective::new(mesh, HOUR);
                // It takes part until it is told to stop: the transfer is under way.
                let third = thread::spawn(move || c.broadcast(Rank(1), &mut [0.0; 3]));
                aborter.abort();
                assert!(third.join().unwrap().is_err());
            } else {
                drop(mesh);
                drop(aborter);
            }
            for error in waiting.join().unwrap() {
                assert!(
                    error.contains("broke") || error.contains("not in step"),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn ranks_out_of_step_are_told_so() {
    let errors = each(
        meshes(2, |_| SharedMemory::Auto),
        Duration::from_secs(20),
        |mut c| {
            let cuts = [0..4, 4..8];
            let result = match c.rank().0 {
                0 => c.barrier(),
                _ => c.all_gather(&cuts, &[0.0; 4]).map(drop),
            };
            result.unwrap_err().to_string()
        },
    );
    for error in errors {
        assert!(
            error.contains("not in step") || error.contains("broke"),
            "{error}"
        );
    }
}
