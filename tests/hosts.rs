//! A pool over two hosts: one answer, whatever the network between them does.

use crate::common::{
    Running, Sandbox, json, kill,
    network::{Host, Network},
    small_sweep,
};
use std::time::Duration;

const STEPS: u64 = 60;

/// A sandbox with a sweep that was trained without a network, or why there are no hosts.
fn hosts(steps: u64, pool: &str) -> Option<(Network, Sandbox)> {
    let network = match Network::new() {
        Ok(network) => network,
        Err(why) => {
            println!("skipped: no two hosts can be made here: {why}");
            return None;
        }
    };
    let sandbox = Sandbox::new();
    let pool = format!("workers = 1\n{pool}");
    sandbox.write(
        "sweep.toml",
        &small_sweep(steps).replace("workers = 1", &pool),
    );
    sandbox.succeed(&["launch", "sweep.toml", "--store", "alone"]);
    Some((network, sandbox))
}

/// Waits for the end of a launch and of its workers, and compares its digest with that of the launch alone. Returns
/// how often the trial lost a worker.
fn ends_well(sandbox: &Sandbox, store: &str, launch: Running, workers: Vec<Running>) -> u64 {
    let (success, lines) = launch.finish();
    let lines = lines.join("\n");
    assert!(success, "{lines}");
    for mut worker in workers {
        worker.wait_for_end();
    }
    let result = |store: &str| {
        let steps = json(&sandbox.only_run(store).join("run.json"));
        let trial = steps["plan"]["trials"][0]["config"]["id"].clone();
        json(&sandbox.result(store, trial.as_str().expect("a name")))
    };
    let (here, alone) = (result(store), result("alone"));
    assert_eq!(
        here["outcome"]["digest"], alone["outcome"]["digest"],
        "{lines}"
    );
    here["losses"].as_u64().expect("a number")
}

#[test]
fn one_trial_over_two_hosts_gives_the_digest_of_one() {
    let Some((network, sandbox)) = hosts(STEPS, "") else {
        return;
    };
    let (launch, line) = network.launch(&sandbox, "runs");
    assert!(line.contains("--coordinator https://10.99.7.1:"), "{line}");
    let workers = [&network.a, &network.b].map(|host| host.join(&sandbox, &line));
    assert_eq!(ends_well(&sandbox, "runs", launch, workers.into()), 0);
    // Half of every gradient went over the cable, and half of all weights came back.
    let sent = network.cable.line.carried();
    assert!(sent.iter().all(|&bytes| bytes > STEPS * 10_000), "{sent:?}");
}

#[test]
fn a_trial_over_two_hosts_survives_a_partition() {
    let Some((network, sandbox)) = hosts(STEPS, "deadline_seconds = 5.0") else {
        return;
    };
    let line = &network.cable.line;
    let (mut launch, join) = network.launch(&sandbox, "runs");
    let workers = [&network.a, &network.b].map(|host| host.join(&sandbox, &join));
    launch.wait_for("step 20:");
    // Nothing is refused, nothing is closed: what is sent never arrives.
    line.cut(true);
    launch.wait_for(" left");
    line.cut(false);
    launch.wait_for(" joined");
    assert!(line.lost() > 0, "something was sent meanwhile");
    let losses = ends_well(&sandbox, "runs", launch, workers.into());
    assert!(losses > 0, "a worker was lost");
}

#[test]
fn a_bad_network_costs_time_and_nothing_else() {
    const FEW: u64 = 25;
    const LATE: Duration = Duration::from_millis(200);
    let Some((network, sandbox)) = hosts(FEW, "") else {
        return;
    };
    let line = &network.cable.line;
    for (store, per_mille, delay) in [("lossy", 50, Duration::ZERO), ("long", 0, LATE / 2)] {
        line.lose(per_mille);
        line.delay(delay);
        let before = line.lost();
        let (launch, join) = network.launch(&sandbox, store);
        let workers = [&network.a, &network.b].map(|host| host.join(&sandbox, &join));
        assert_eq!(
            ends_well(&sandbox, store, launch, workers.into()),
            0,
            "{store}"
        );
        let (lost, delayed) = (line.lost() - before, line.delayed());
        println!("{store}: {lost} packets lost, {delayed} delayed");
        match per_mille {
            0 => assert!(delayed > FEW, "{delayed}"),
            _ => assert!(lost > 5, "{lost}"),
        }
    }
}

#[test]
fn a_host_that_vanishes_and_comes_back_without_its_memory_is_another_worker() {
    let Some((network, sandbox)) = hosts(STEPS, "deadline_seconds = 5.0") else {
        return;
    };
    let (mut launch, join) = network.launch(&sandbox, "runs");
    let here = network.a.join(&sandbox, &join);
    let there = network.b.join(&sandbox, &join);
    launch.wait_for("step 20:");
    // Its connections stay open at this end: nothing that it says gets out any more, not even that it ends.
    let reborn = Host::new("c", "10.99.7.2").expect("a third host can be made as two could");
    network.cable.plug_into(&reborn);
    kill(there.pid());
    let again = reborn.join(&sandbox, &join);
    launch.wait_for(" left");
    let losses = ends_well(&sandbox, "runs", launch, vec![here, again]);
    assert!(losses > 0, "a worker was lost");
    assert!(!there.finish().0, "it was killed");
}
