//! A process that stops at any operation of its store loses nothing that was committed, and what goes
//! on from there ends with the same weights.

mod common;

use common::connect;
use polestar_dataset::{
    Corpus, HeldOut, SampleConfig, Store, SynthOptions, Weighting,
    store::faults::{FaultLog, Faults, Stop},
    synth,
};
use polestar_model::ModelConfig;
use polestar_worker::{
    Step, TrialConfig, TrialId,
    checkpoint::{self, committed},
    engine::{self, Environment, Event, Failure, Outcome},
    sharding::Zero,
};
use std::{
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};
use tokio::runtime::Runtime;

const STEPS: u64 = 8;

fn trial(runtime: &Runtime, zero: Zero) -> TrialConfig {
    let corpus = "memory://crash-points-corpus";
    let options = SynthOptions {
        output: corpus.to_owned(),
        policies: 4,
        prompts: 40,
        samples: 2,
        heldout_prompts: HeldOut::Count(8),
        heldout_policies: 1,
        ..SynthOptions::default()
    };
    let corpus = runtime.block_on(async {
        synth(options).await.expect("a corpus");
        Corpus::open(corpus).await.expect("a corpus")
    });
    let model = ModelConfig {
        vocab_size: corpus.tokenizer().vocab_size(),
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        intermediate_size: 32,
        ..polestar_model::Preset::Nano.config(0)
    };
    let train = serde_json::json!({
        "batch": 8,
        "lanes": 4,
        "pack_tokens": 128,
        "zero": u8::from(zero),
        "optimizer": {"lr": 3e-3},
        "validation": {"triplets": 8},
        "checkpoint": {"every": 2, "keep_every": 4},
    });
    TrialConfig {
        id: TrialId("crash".to_owned()),
        objective: polestar_worker::Objective::Polar,
        seed: 1,
        model,
        steps: STEPS,
        corpus: corpus.url().to_owned(),
        fingerprint: corpus.fingerprint().to_string(),
        quarantine: vec![],
        samples: SampleConfig {
            max_prompt: 8,
            max_response: 16,
            ..SampleConfig::default()
        },
        weighting: Weighting::Uniform,
        window: 64,
        train: serde_json::from_value(train).expect("a configuration"),
        start: None,
    }
}

/// What every rank came to, and where the generation began.
struct Generation {
    ends: Vec<Result<Outcome, Failure>>,
    begun: Option<Step>,
}

/// One generation; each rank has a store of its own to look through.
fn run(runtime: &Runtime, trial: &TrialConfig, stores: Vec<Store>) -> Generation {
    let begun = Arc::new(Mutex::new(None));
    let collectives = connect(runtime, stores.len() as u32);
    let ranks: Vec<_> = collectives
        .into_iter()
        .zip(stores)
        .map(|(collective, run)| {
            let told = Arc::clone(&begun);
            let env = Environment {
                collective,
                run,
                runtime: runtime.handle().clone(),
                abort: Arc::default(),
                events: Box::new(move |event| {
                    if let Event::Begun { step, .. } = event {
                        *told.lock().expect("no panic") = Some(step);
                    }
                }),
                slice: None,
            };
            let trial = trial.clone();
            thread::spawn(move || engine::run(&trial, env))
        })
        .collect();
    let ends = ranks.into_iter().map(|rank| rank.join().expect("a rank"));
    let ends = ends.collect();
    let begun = *begun.lock().expect("no panic");
    Generation { ends, begun }
}

fn store(name: &str) -> Store {
    Store::open(&format!("memory://{name}")).expect("a store")
}

/// The operations of an undisturbed run, and its digest.
fn undisturbed(runtime: &Runtime, trial: &TrialConfig, world: u32) -> (Vec<Vec<String>>, String) {
    let base = store(&format!(
        "undisturbed-{world}-{}",
        u8::from(trial.train.zero)
    ));
    let watched: Vec<(Store, Arc<FaultLog>)> = (0..world)
        .map(|_| base.with_faults(Faults::default()))
        .collect();
    let stores = watched.iter().map(|(store, _)| store.clone()).collect();
    let mut ends = run(runtime, trial, stores).ends;
    let outcome = ends.remove(0).expect("nothing disturbs it");
    assert!(
        ends.into_iter()
            .all(|end| end.is_ok_and(|o| o.digest == outcome.digest))
    );
    let operations = watched.iter().map(|(_, log)| log.operations()).collect();
    (operations, outcome.digest.0)
}

fn enumerate(zero: Zero, world: u32) {
    let runtime = Runtime::new().expect("a runtime");
    let trial = trial(&runtime, zero);
    let (operations, expected) = undisturbed(&runtime, &trial, world);
    let mut went_on_from = Vec::new();
    for (rank, of_rank) in operations.iter().enumerate() {
        for operation in 0..of_rank.len() as u64 {
            for after in [false, true] {
                let what = format!(
                    "rank {rank} stops at {operation} ({}), after: {after}",
                    of_rank[operation as usize]
                );
                let base = store(&format!(
                    "{}-{world}-{rank}-{operation}-{after}",
                    u8::from(zero)
                ));
                let stop = Faults {
                    stop: Some(Stop { operation, after }),
                    ..Faults::default()
                };
                let (stopping, log) = base.with_faults(stop);
                let mut stores = vec![base.clone(); world as usize];
                stores[rank] = stopping;
                let died = run(&runtime, &trial, stores);
                if !log.has_stopped() {
                    // Which operations there are depends a little on who is faster.
                    continue;
                }
                // The very last answer may be one that nobody waits for.
                if let Err(failure) = &died.ends[rank] {
                    assert_eq!(failure.phase(), "storage", "{what}: {failure}");
                }
                let newest = runtime
                    .block_on(committed(&base, &trial.id))
                    .expect("a listing")
                    .pop();
                let resumed = run(&runtime, &trial, vec![base.clone(); 1 + world as usize % 2]);
                assert_eq!(resumed.begun, Some(newest.unwrap_or_default()), "{what}");
                went_on_from.push(newest.unwrap_or_default().0);
                for end in resumed.ends {
                    assert_eq!(
                        end.expect("nothing disturbs it").digest.0,
                        expected,
                        "{what}"
                    );
                }
                let listed = runtime
                    .block_on(checkpoint::list(&base, &trial.id))
                    .expect("a listing");
                let whole: Vec<u64> = listed
                    .iter()
                    .filter(|l| l.manifest.is_some())
                    .map(|l| l.step.0)
                    .collect();
                assert_eq!(whole, [8, 6, 4], "{what}");
                assert_eq!(listed.len(), 3, "{what}: nothing half written stays");
            }
        }
    }
    went_on_from.sort_unstable();
    went_on_from.dedup();
    assert_eq!(
        went_on_from,
        [0, 2, 4, 6, 8],
        "stops fell before, between and after all saves"
    );
}

#[test]
fn one_process_may_stop_at_any_operation() {
    enumerate(Zero::None, 1);
}

#[test]
fn either_of_two_sharded_ranks_may_stop_at_any_operation() {
    enumerate(Zero::Optimizer, 2);
}

#[test]
fn storage_trouble_of_one_rank_is_told_as_its_own_and_at_once() {
    let runtime = Runtime::new().expect("a runtime");
    let trial = trial(&runtime, Zero::Weights);
    let base = store("trouble");
    let (operations, _) = undisturbed(&runtime, &trial, 3);
    let second = operations[2]
        .iter()
        .position(|o| o.starts_with("put"))
        .expect("it saves");
    let (bad, log) = base.with_faults(Faults {
        stop: Some(Stop {
            operation: second as u64,
            after: false,
        }),
        ..Faults::default()
    });
    let begun = Instant::now();
    let ended = run(&runtime, &trial, vec![base.clone(), base, bad]);
    assert!(log.has_stopped());
    let failures: Vec<Failure> = ended
        .ends
        .into_iter()
        .map(|end| end.expect_err("it can't go on"))
        .collect();
    assert_eq!(failures[2].phase(), "storage");
    assert!(!failures[2].is_collateral());
    let told = engine::with_causes(&failures[2]);
    assert!(
        told.contains("00003-of-00003.safetensors") && told.contains("memory://trouble"),
        "{told}"
    );
    assert!(
        failures[..2].iter().all(Failure::is_collateral),
        "{failures:?}"
    );
    assert!(begun.elapsed() < common::DEADLINE / 2);
}
