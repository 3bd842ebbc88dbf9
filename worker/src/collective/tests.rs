mod strangers;

use super::*;
use crate::{
    engine::{BurnEngine, Engine},
    host::HostBuffer,
};
use burn::tensor::Device;
use polestar_core::{
    Lane, Precision,
    tree::{BLOCK, hosted, shard, subtrees},
};
use polestar_model::{HeadKind, ModelLayout, Preset};
use std::{
    thread,
    time::{Duration, Instant},
};

const LANES: u32 = 8;
const DEADLINE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

/// A mesh of `world` ranks in this process.
fn meshes(world: u32, locality: impl Fn(u32) -> Locality) -> Vec<Mesh> {
    let localities: Vec<Locality> = (0..world).map(locality).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(local_world(&localities, DEADLINE))
        .unwrap()
}

/// Runs a rank's part in a thread each and returns what they return, by rank.
fn each<T: Send + 'static>(
    meshes: Vec<Mesh>,
    deadline: Duration,
    part: impl Fn(MeshTransport) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let ranks: Vec<_> = meshes
        .into_iter()
        .map(|mesh| {
            let part = part.clone();
            thread::spawn(move || part(MeshTransport::new(mesh, deadline)))
        })
        .collect();
    ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
}

/// Any engine over host memory.
fn engine() -> BurnEngine {
    let model = ModelLayout::new(&Preset::Nano.config(300), HeadKind::Reward);
    BurnEngine::new(model, &Device::flex(), false, Precision::F32)
}

/// A lane's vector: sums of these depend on the order of addition.
fn lane(lane: u32, elements: usize) -> HostBuffer {
    let value = |i: usize| {
        let sign = if (lane + i as u32).is_multiple_of(3) {
            -1.0
        } else {
            1.0
        };
        sign * 1e-3 * 1.7_f32.powi((lane as usize * 5 + i) as i32 % 23)
    };
    (0..elements).map(value).collect::<Vec<f32>>().into()
}

/// Partial sums over some lanes of `of`.
fn partials(lanes: Range<u32>, of: u32, elements: usize) -> Partials<HostBuffer> {
    engine().merge(lanes.map(|l| (Subtree::leaf(Lane(l), of), lane(l, elements))))
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn shards(elements: usize, world: WorldSize) -> Vec<Range<usize>> {
    let of = |rank| shard(elements, world, Rank(rank));
    (0..world.0).map(of).collect()
}

/// Contiguous lanes, as many of the lanes' subtrees as a rank holds of them.
fn lane_sum(lanes: u32, elements: usize, world: WorldSize, gathered_next: bool) -> LaneSum {
    let of_rank = |rank| {
        let nodes = subtrees(hosted(lanes, world, Rank(rank)), lanes);
        nodes.into_iter().map(move |node| (Rank(rank), node))
    };
    LaneSum {
        partials: (0..world.0).flat_map(of_rank).collect(),
        shards: shards(elements, world),
        gathered_next,
    }
}

/// This rank's vectors of such a sum.
fn local(lanes: u32, elements: usize, transport: &MeshTransport) -> Vec<HostBuffer> {
    let own = hosted(lanes, transport.world(), transport.rank());
    let partials = partials(own, lanes, elements);
    partials.into_iter().map(|(_, sum)| sum).collect()
}

/// Sums and gathers, in every way that there is, and returns the whole.
fn sum_and_gather(transport: &mut MeshTransport, lanes: u32, elements: usize) -> Vec<f32> {
    let (engine, world) = (engine(), transport.world());
    let mut wholes = Vec::new();
    for gathered_next in [false, true] {
        let sum = lane_sum(lanes, elements, world, gathered_next);
        let own = local(lanes, elements, transport);
        // Two in flight, and others behind them.
        let first = transport.canonical_sum(&engine, sum.clone(), own.clone());
        let second = transport.canonical_sum(&engine, sum, own);
        let me = transport.rank().0 as usize;
        let sizes = transport.exchange(&vec![me as u8; 3 * me]).unwrap();
        for (rank, bytes) in sizes.iter().enumerate() {
            assert_eq!(*bytes, vec![rank as u8; 3 * rank]);
        }
        let mut sum = first.wait().unwrap();
        assert_eq!(sum.len(), 1, "siblings are left over");
        let (root, sum) = sum.remove(0);
        assert!(root.is_root());
        assert_eq!(bits(&second.wait().unwrap()[0].1), bits(&sum));
        let shards = shards(elements, world);
        let whole = transport.all_gather(&engine, shards, sum).wait().unwrap();
        wholes.push(whole.to_vec());
    }
    assert_eq!(bits(&wholes[0]), bits(&wholes[1]), "in place");
    wholes.remove(0)
}

#[test]
fn every_world_and_link_moves_the_same_bits() {
    let mixed = |rank| match rank {
        1 => Locality::Apart,
        _ => Locality::Machine,
    };
    let links: [fn(u32) -> Locality; 3] = [|_| Locality::Machine, |_| Locality::Apart, mixed];
    for world in 1..=5 {
        for locality in links {
            // Nothing, less than a block, more than a chunk, more than a queue holds.
            for elements in [0, 1000, 70_000, 700_001] {
                let sums = each(meshes(world, locality), DEADLINE, move |mut transport| {
                    let root = Rank(world - 1);
                    let ours = [transport.rank().0 as u8; 9];
                    let told = transport.broadcast(root, &ours).unwrap();
                    assert_eq!(told, [root.0 as u8; 9]);
                    sum_and_gather(&mut transport, LANES, elements)
                });
                let expected = bits(&partials(0..LANES, LANES, elements)[0].1);
                for sum in sums {
                    assert!(bits(&sum) == expected, "{world} ranks, {elements} elements");
                }
            }
        }
    }
}

#[test]
fn hosts_with_any_number_of_ranks_move_the_same_bits() {
    let cases: [&[u32]; 7] = [
        &[0, 0, 1, 1],
        &[0, 1, 0, 1],
        &[0, 0, 0, 1],
        &[0, 1, 1, 2, 2],
        &[0, 0, 1, 1, 2, 2],
        &[0, 0, 1, 2, 2, 2, 2],
        &[0, 0, 0, 0, 1, 1, 1, 1],
    ];
    for hosts in cases {
        for lanes in [8, 11, 13, 16] {
            for elements in [3 * BLOCK + 5, 70_000] {
                let world = hosts.len() as u32;
                let meshes = meshes(world, |rank| Locality::Simulated(hosts[rank as usize]));
                let sums = each(meshes, DEADLINE, move |mut transport| {
                    sum_and_gather(&mut transport, lanes, elements)
                });
                let expected = bits(&partials(0..lanes, lanes, elements)[0].1);
                for sum in sums {
                    assert!(bits(&sum) == expected, "hosts {hosts:?}, {lanes} lanes");
                }
            }
        }
    }
}

#[test]
fn hosts_send_each_other_a_sum_once_and_not_once_a_rank() {
    const ELEMENTS: usize = 64 * BLOCK;
    const HEADERS: u64 = 4096;
    let part = |mut transport: MeshTransport| {
        sum_and_gather(&mut transport, 8, ELEMENTS);
        transport.sent()
    };
    let two_hosts = |rank| Locality::Simulated(rank / 4);
    let sent = each(meshes(8, two_hosts), DEADLINE, part);
    // Four sums and two gathers; each host owns half, and sends the other half's.
    let once = 6 * 4 * ELEMENTS as u64 / 2;
    for host in sent.chunks(4) {
        let [_, away] = host
            .iter()
            .fold([0, 0], |all, s| [all[0] + s[0], all[1] + s[1]]);
        assert!(
            (once..once + 4 * HEADERS).contains(&away),
            "a host sends {away} bytes to the other where {once} would do"
        );
    }
}

#[test]
fn what_is_gathered_to_one_rank_goes_to_nobody_else() {
    const BYTES: usize = 100_000;
    for root in [0, 2] {
        let all = each(
            meshes(3, |_| Locality::Machine),
            DEADLINE,
            move |mut transport| {
                let before = transport.sent()[0];
                let local = vec![transport.rank().0 as u8; BYTES];
                let gathered = transport.gather(Rank(root), &local).unwrap();
                (gathered, transport.sent()[0] - before)
            },
        );
        for (rank, (gathered, sent)) in all.into_iter().enumerate() {
            if rank as u32 == root {
                let expected: Vec<_> = (0..3).map(|rank| vec![rank; BYTES]).collect();
                assert_eq!(gathered, Some(expected));
                assert!(sent < 100, "only headers: {sent}");
            } else {
                assert_eq!(gathered, None);
                // A header, and its bytes once.
                assert!(
                    (sent as usize) < BYTES + 100,
                    "{sent} bytes left rank {rank}"
                );
            }
        }
    }
}

#[test]
fn each_gets_what_is_for_it_and_passes_on_what_it_has() {
    for locality in [Locality::Machine, Locality::Apart] {
        for world in [2, 3, 5] {
            let ranks = each(
                meshes(world, move |_| locality),
                DEADLINE,
                move |mut transport| {
                    let me = transport.rank().0;
                    // Of lengths that differ, and nothing at all for some.
                    let to = |rank: u32| vec![me as u8; (10_000 * rank * me) as usize];
                    let to: Vec<_> = (0..world).map(to).collect();
                    let got = transport.all_to_all(&to).unwrap();
                    let length = |rank: u32| 70_000 + rank as usize;
                    let from = (me + world - 1) % world;
                    let neighbours = Neighbours {
                        to: Rank((me + 1) % world),
                        from: Rank(from),
                    };
                    let own: HostBuffer = vec![me as f32; length(me)].into();
                    let passed =
                        transport.pass_on(&engine(), neighbours, own.clone(), length(from));
                    // Behind what was started.
                    transport.barrier().unwrap();
                    let Passed {
                        own: back,
                        received,
                    } = passed.wait().unwrap();
                    assert!(back == own, "it comes back");
                    assert_eq!(received.to_vec(), vec![from as f32; length(from)]);
                    got
                },
            );
            for (me, got) in ranks.into_iter().enumerate() {
                for (from, bytes) in got.into_iter().enumerate() {
                    assert_eq!(bytes, vec![from as u8; 10_000 * from * me]);
                }
            }
        }
    }
}

#[test]
fn a_panic_in_a_started_operation_ends_every_wait() {
    for locality in [Locality::Machine, Locality::Apart] {
        let errors = each(meshes(3, move |_| locality), HOUR, |mut transport| {
            if transport.rank() != Rank(1) {
                // It hears nothing of the panic but its end.
                return vec![transport.barrier().unwrap_err().to_string()];
            }
            let background = transport.background();
            let panics = background.start::<()>(|_| panic!("on purpose"));
            let behind = background.start(|core| core.exchange(&[]));
            let mut errors = vec![panics.wait().unwrap_err(), behind.wait().unwrap_err()];
            errors.push(transport.barrier().unwrap_err());
            let late = transport.background().start(|core| core.exchange(&[]));
            errors.push(late.wait().unwrap_err());
            errors.iter().map(ToString::to_string).collect()
        });
        for (rank, errors) in errors.iter().enumerate() {
            let expected = if rank == 1 { "panicked" } else { "broke" };
            assert!(errors.iter().all(|e| e.contains(expected)), "{errors:?}");
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
    let pair = meshes(2, |_| Locality::Machine);
    assert!(
        pair.iter()
            .all(|mesh| !mesh.links.iter().flatten().any(|l| l.carries_data()))
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
    for locality in [Locality::Machine, Locality::Apart] {
        let begun = Instant::now();
        let mut all = meshes(3, move |_| locality);
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
            assert!(error.contains("exchange #0"), "{error}");
            assert!(error.contains("rank 2 sent nothing for 1 s"), "{error}");
            assert!(
                error.contains("last operations here: #0 exchange of 0 bytes not done"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_rank_that_dies_or_aborts_frees_all_others_at_once() {
    for locality in [Locality::Machine, Locality::Apart] {
        for aborts in [false, true] {
            let mut all = meshes(3, move |_| locality);
            let mesh = all.remove(2);
            let aborter = mesh.aborter();
            // More than fits into any buffer: they are in the middle of it.
            let part = |mut transport: MeshTransport| {
                let own = HostBuffer::zeros(5_000_000);
                let shards = vec![0..5_000_000, 5_000_000..10_000_000, 10_000_000..15_000_000];
                let whole = transport.all_gather(&engine(), shards, own);
                whole.wait().unwrap_err().to_string()
            };
            let waiting = thread::spawn(move || each(all, HOUR, part));
            if aborts {
                let mut transport = MeshTransport::new(mesh, HOUR);
                // It takes part until it is told to stop: the transfer is under way.
                let third = thread::spawn(move || transport.exchange(&[0; 9]));
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
    let meshes = meshes(2, |_| Locality::Machine);
    let errors = each(meshes, DEADLINE, |mut transport| {
        let error = match transport.rank().0 {
            0 => transport.barrier().unwrap_err(),
            _ => {
                let own = HostBuffer::zeros(4);
                let whole = transport.all_gather(&engine(), vec![0..4, 4..8], own);
                whole.wait().unwrap_err()
            }
        };
        error.to_string()
    });
    // The one that notices first leaves, which the other may see before it has read the message.
    let told = errors.iter().filter(|e| e.contains("not in step")).count();
    let left = errors.iter().filter(|e| e.contains("broke")).count();
    assert!(told > 0 && told + left == 2, "{errors:?}");
}
