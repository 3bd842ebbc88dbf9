//! Vectors between devices by NCCL, over its stand-in: what is moved and added up, and how it ends when it can't go on.

use crate::{
    bf16,
    common::DEADLINE,
    standin::{Setting, StandIns, are_here},
};
use polestar_core::{
    Lane, Rank, WorldSize,
    tree::{Subtree, TreeSum, add_into, hosted, shard, subtrees},
};
use polestar_model::ModelConfig;
use polestar_run::{
    Trial,
    config::{Backend, DeviceTransport},
    placement::{Sharding, Zero},
};
use polestar_worker::{
    collective::{
        Aborter, CudaTransport, LaneSum, Locality, MeshTransport, Neighbours, Passed, Peers,
        Transport, local_world,
    },
    engine::{CudaEngine, Engine},
};
use std::{
    ops::Range,
    sync::{Arc, Barrier, Mutex, mpsc},
    thread,
    time::Duration,
};
use tokio::runtime::Runtime;

const LANES: u32 = 13;
/// More than the staging buffers hold of a sum at once.
const ELEMENTS: usize = 150_003;

/// A rank: its device, and how it talks.
struct Seat {
    transport: CudaTransport,
    engine: CudaEngine,
}

/// A model with room for some vectors of [`ELEMENTS`].
fn trial(runtime: &Runtime) -> Trial {
    let mut trial = bf16(runtime, Zero::None, Backend::Cuda);
    trial.recipe.model = ModelConfig {
        hidden_size: 64,
        num_hidden_layers: 2,
        intermediate_size: 256,
        ..trial.recipe.model
    };
    trial.recipe.batch.lanes = LANES;
    trial.recipe.batch.triplets = LANES;
    trial
}

/// Does a part on ranks at these hosts, each with a device of its own, and returns what they return.
fn each<T: Send + 'static>(
    hosts: &[u32],
    deadline: Duration,
    part: impl Fn(Seat) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let runtime = Runtime::new().expect("a runtime");
    let trial = trial(&runtime);
    let places: Vec<Locality> = hosts.iter().map(|&h| Locality::Simulated(h)).collect();
    let meshes = runtime.block_on(local_world(&places, DEADLINE));
    let world = WorldSize(hosts.len() as u32);
    // Devices are opened before anybody is waited for.
    let opened = Arc::new(Barrier::new(hosts.len()));
    let ranks = (0..).map(Rank).zip(meshes.expect("a mesh"));
    let ranks: Vec<_> = ranks
        .map(|(rank, mesh)| {
            let (trial, part, opened) = (trial.clone(), part.clone(), Arc::clone(&opened));
            thread::spawn(move || {
                let zero = Zero::None;
                let sharding = Sharding { zero, world, rank };
                let engine = CudaEngine::open(&trial, sharding, rank.0 as usize);
                let engine = engine.expect("a device");
                opened.wait();
                let mesh = MeshTransport::new(mesh, deadline);
                let setting = DeviceTransport::Nccl;
                let transport = CudaTransport::connect(mesh, setting, engine.device());
                let transport = transport.expect("a communicator");
                assert_eq!(transport.nccl().as_deref(), Some("NCCL 2.27.0"));
                part(Seat { transport, engine })
            })
        })
        .collect();
    let ends = ranks.into_iter().map(|rank| rank.join().expect("a rank"));
    ends.collect()
}

/// Sums of these depend on the order of addition.
fn lane(lane: u32) -> Vec<f32> {
    let sign = |i: usize| [1.0, -1.0][usize::from((lane as usize + i).is_multiple_of(3))];
    let value = |i: usize| sign(i) * 1e-3 * 1.7_f32.powi((lane as usize * 5 + i) as i32 % 23);
    (0..ELEMENTS).map(value).collect()
}

fn whole_sum() -> Vec<f32> {
    let mut tree = TreeSum::default();
    for l in 0..LANES {
        tree.push(Subtree::leaf(Lane(l), LANES), lane(l), |mut left, right| {
            add_into(&mut left, &right);
            left
        });
    }
    tree.into_root().expect("all lanes")
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn values(engine: &CudaEngine, vector: &<CudaEngine as Engine>::Flat) -> Vec<f32> {
    let mut values = vec![0.0; vector.len()];
    engine.read(vector, 0..vector.len(), &mut values);
    values
}

fn shards(elements: usize, world: WorldSize) -> Vec<Range<usize>> {
    let of = |rank| shard(elements, world, Rank(rank));
    (0..world.0).map(of).collect()
}

/// The canonical sum, gathered on every rank.
fn sum_and_gather(Seat { transport, engine }: &mut Seat) -> Vec<f32> {
    let (rank, world) = (transport.rank(), transport.world());
    let of_rank = |rank| subtrees(hosted(LANES, world, rank), LANES);
    let partials = (0..world.0).map(Rank).flat_map(|rank| {
        let nodes = of_rank(rank).into_iter();
        nodes.map(move |node| (rank, node))
    });
    let sum = LaneSum {
        partials: partials.collect(),
        shards: shards(ELEMENTS, world),
        gathered_next: true,
    };
    let own = hosted(LANES, world, rank).map(|l| {
        let leaf = Subtree::leaf(Lane(l), LANES);
        (leaf, engine.flat(lane(l)))
    });
    let local = engine.merge(own).into_iter().map(|(_, sum)| sum);
    let summed = transport.canonical_sum(engine, sum, local.collect());
    let [(root, own)] = <[_; 1]>::try_from(summed.wait().expect("a sum")).expect("one sum");
    assert!(root.is_root());
    let whole = transport.all_gather(engine, shards(ELEMENTS, world), own);
    values(engine, &whole.wait().expect("the whole"))
}

/// Sums in NCCL's own order: of equal shards, of shards that aren't, and of a rank that has nothing to add.
fn fast_sums(Seat { transport, engine }: &mut Seat) {
    let (rank, world) = (transport.rank(), transport.world());
    let ranks = world.0 as usize;
    for (elements, adding) in [(1000 * ranks, ranks), (9_001, ranks), (9_001, ranks - 1)] {
        let shards = match elements.is_multiple_of(1000) {
            true => (0..ranks).map(|r| 1000 * r..1000 * (r + 1)).collect(),
            false => shards(elements, world),
        };
        let own = shards[rank.0 as usize].clone();
        let leaf = |rank: Rank| Subtree::leaf(Lane(rank.0), world.0);
        let sum = LaneSum {
            partials: (0..adding as u32)
                .map(|r| (Rank(r), leaf(Rank(r))))
                .collect(),
            shards,
            gathered_next: false,
        };
        let value = |rank: usize, i: usize| (rank * elements + i) as f32;
        let local = (0..elements).map(|i| value(rank.0 as usize, i)).collect();
        let local = match (rank.0 as usize) < adding {
            true => vec![engine.flat(local)],
            false => Vec::new(),
        };
        let found = transport
            .fast_sum(engine, sum, local)
            .wait()
            .expect("a sum");
        // Whole numbers: every order has the same sum.
        let expected = own.map(|i| (0..adding).map(|rank| value(rank, i)).sum::<f32>());
        assert_eq!(values(engine, &found), expected.collect::<Vec<f32>>());
    }
}

/// Gives a vector to the next rank and takes one, of as many elements as are said to come.
fn pass_on(seat: &mut Seat, elements: usize, due: usize) -> Result<Vec<f32>, String> {
    let Seat { transport, engine } = seat;
    let (me, world) = (transport.rank().0, transport.world().0);
    let neighbours = Neighbours {
        to: Rank((me + 1) % world),
        from: Rank((me + world - 1) % world),
    };
    let own = engine.flat(vec![me as f32; elements]);
    let passed = transport.pass_on(engine, neighbours, own, due);
    let Passed { own, received } = passed.wait().map_err(|error| error.to_string())?;
    assert_eq!(values(engine, &own), vec![me as f32; elements]);
    Ok(values(engine, &received))
}

fn moves() {
    let expected = bits(&whole_sum());
    for hosts in [&[0, 0, 0, 0][..], &[0, 0, 1, 1], &[0, 1, 0]] {
        let sums = each(hosts, DEADLINE, |mut seat| {
            let sum = sum_and_gather(&mut seat);
            fast_sums(&mut seat);
            let world = seat.transport.world().0;
            let from = (seat.transport.rank().0 + world - 1) % world;
            assert_eq!(pass_on(&mut seat, 777, 777), Ok(vec![from as f32; 777]));
            // Nobody leaves before the others have all.
            seat.transport.barrier().expect("all are there");
            sum
        });
        for sum in sums {
            assert!(bits(&sum) == expected, "hosts {hosts:?}");
        }
    }
}

#[test]
fn what_nccl_moves_has_the_bits_of_one_device() {
    if are_here() {
        return moves();
    }
    run("nccl::what_nccl_moves_has_the_bits_of_one_device", None);
}

fn run(test: &str, nccl_fault: Option<&'static str>) {
    let Some(stand_ins) = StandIns::build(env!("CARGO_TARGET_TMPDIR")) else {
        return;
    };
    stand_ins.run(
        test,
        Setting {
            seed: 7,
            devices: 4,
            nccl_fault,
            ..Setting::default()
        },
    );
}

const HOUR: Duration = Duration::from_secs(3600);
const HINT: &str = "ncclras";

/// An error that NCCL finds out about on one rank, in the second operation. The ranks meet again afterwards.
fn asynchronous_error() {
    let errors = each(&[0, 0, 0], HOUR, |mut seat| {
        pass_on(&mut seat, 70_000, 70_000).expect("the first");
        pass_on(&mut seat, 70_000, 70_000).expect_err("the second")
    });
    assert!(
        errors[1].contains("an error that was planted"),
        "{errors:?}"
    );
    assert!(
        errors[1].contains("pass-on #") && errors[1].contains(HINT),
        "{errors:?}"
    );
    for rank in [0, 2] {
        let told = ["is gone", "broke"]
            .iter()
            .any(|what| errors[rank].contains(what));
        assert!(told, "{errors:?}");
    }
    each(&[0, 0, 0], DEADLINE, |mut seat| {
        for _ in 0..3 {
            pass_on(&mut seat, 70_000, 70_000).expect("a fresh communicator");
        }
        seat.transport.barrier().expect("all are there");
    });
}

/// Ranks that don't agree about a size.
fn sizes_that_dont_fit() {
    let errors = each(&[0, 0], HOUR, |mut seat| {
        let elements = [100, 200][seat.transport.rank().0 as usize];
        pass_on(&mut seat, elements, elements).expect_err("they don't fit")
    });
    let told = errors.iter().filter(|error| error.contains("bytes where"));
    assert!(told.count() > 0, "{errors:?}");
}

/// A rank that doesn't come: until the other is told to stop, or has waited long enough.
fn a_rank_that_stalls(deadline: Duration, aborts: bool) -> String {
    let (tell, told) = mpsc::channel::<Aborter>();
    let (end, ended) = mpsc::channel::<()>();
    let (told, ended) = (Arc::new(Mutex::new(told)), Arc::new(Mutex::new(ended)));
    let errors = each(&[0, 0], deadline, move |mut seat| {
        if seat.transport.rank() == Rank(0) {
            tell.send(seat.transport.aborter())
                .expect("it is listening");
            let error = pass_on(&mut seat, 70_000, 70_000).expect_err("nobody is there");
            end.send(()).expect("it is listening");
            return error;
        }
        let aborter = told.lock().expect("no panic").recv().expect("it is told");
        if aborts {
            aborter.abort();
        }
        ended.lock().expect("no panic").recv().expect("it is told");
        String::new()
    });
    errors[0].clone()
}

fn ends() {
    asynchronous_error();
    sizes_that_dont_fit();
    let aborted = a_rank_that_stalls(HOUR, true);
    assert!(aborted.contains("the generation was aborted"), "{aborted}");
    let late = a_rank_that_stalls(Duration::from_secs(2), false);
    assert!(
        late.contains("NCCL has not done what it was given for 2 s"),
        "{late}"
    );
    assert!(late.contains(HINT), "{late}");
}

#[test]
fn an_operation_that_cant_go_on_ends_on_every_rank_and_ranks_meet_again() {
    if are_here() {
        return ends();
    }
    let test = "nccl::an_operation_that_cant_go_on_ends_on_every_rank_and_ranks_meet_again";
    run(test, Some("error:1:2"));
}
