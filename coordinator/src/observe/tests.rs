use super::*;
use crate::control::core::{Inventory, Status, TrialState, TrialStatus, Warmth};
use polestar_core::Generation;
use polestar_run::{
    failure::Stage,
    pool::{Device, Machine},
};
use polestar_telemetry::text;
use std::time::Duration;

fn entry(seconds: f64, entry: Entry) -> JournalEntry {
    JournalEntry {
        at: Moment::from(seconds),
        entry,
    }
}

fn trial() -> TrialId {
    TrialId("t".to_owned())
}

fn progress(seconds: f64, event: Event) -> JournalEntry {
    let (trial, generation) = (trial(), Generation::default());
    entry(
        seconds,
        Entry::Progress {
            trial,
            generation,
            event,
        },
    )
}

fn begun(seconds: f64, step: u64) -> JournalEntry {
    progress(
        seconds,
        Event::Begun {
            step: Step(step),
            steps: 100,
            from: Default::default(),
            seconds: 1.0,
            passed_over: Vec::new(),
        },
    )
}

fn measured(seconds: f64, until: u64) -> JournalEntry {
    let measured = Measured {
        until: Step(until),
        steps: 10,
        seconds: 2.0,
        parts: StepParts {
            data: 0.25,
            forward: 0.5,
            backward: 1.0,
            ..StepParts::default()
        },
        tokens: 1000,
        flops_6nd: 4e14,
        world: 2,
        sent_away: 64,
        ..Measured::default()
    };
    progress(seconds, Event::Measured(measured))
}

fn status(seconds: f64) -> Status {
    Status {
        at: Moment::from(seconds),
        workers: 3,
        idle: 1,
        unsaved: 0,
        draining: false,
        warmth: Warmth::default(),
        left: Some(Duration::from_secs(9)),
        trials: vec![TrialStatus {
            trial: trial(),
            state: TrialState::Running {
                generation: Generation::default(),
                stage: Stage::Running,
                step: Step(20),
                steps: 100,
                pace: None,
                members: Vec::new(),
            },
            left: None,
        }],
    }
}

fn shown(observed: &Observed, seconds: f64) -> String {
    let samples = samples(&status(seconds), observed, Traffic::default());
    text(FAMILIES, &samples)
}

#[test]
fn steps_that_are_done_again_count_as_work_and_not_as_progress() {
    let mut observed = Observed::default();
    let joined = Entry::Joined {
        worker: WorkerId(1),
        inventory: Inventory {
            host: "h".to_owned(),
            pid: 1,
            launch: None,
            machine: Machine {
                devices: vec![Device {
                    kind: "NVIDIA H100 80GB HBM3".to_owned(),
                    count: 1,
                    gpu: Default::default(),
                }],
                ..Machine::default()
            },
        },
    };
    let retried = Entry::Retried {
        trial: trial(),
        generation: Generation::default(),
        cause: Cause::Stalled {
            stage: Stage::Running,
            seconds: 1,
        },
    };
    for entry in [
        entry(0.0, joined),
        begun(2.0, 0),
        measured(4.0, 10),
        measured(6.0, 20),
        entry(6.5, retried),
        begun(8.0, 10),
        // Steps 11 to 20 once more.
        measured(10.0, 20),
    ] {
        observed.note(&entry);
    }
    let shown = shown(&observed, 11.0);
    for line in [
        // Its first workers were started at 1 s; 4 of the 10 seconds since then count.
        "polestar_trial_goodput_ratio{trial=\"t\"} 0.4",
        "polestar_trial_steps_total{trial=\"t\"} 30.0",
        "polestar_trial_restarts_total{trial=\"t\",cause=\"stalled\"} 1.0",
        "polestar_trial_step_time_seconds_total{trial=\"t\",part=\"backward\"} 3.0",
        "polestar_trial_step_time_seconds_total{trial=\"t\",part=\"other\"} 0.75",
        "polestar_trial_tokens_per_second{trial=\"t\"} 500.0",
        "polestar_trial_sent_bytes_total{trial=\"t\",to=\"network\"} 192.0",
        "polestar_pool_workers{state=\"idle\"} 1.0",
    ] {
        assert!(shown.lines().any(|found| found == line), "{line}:\n{shown}");
    }
    // 2e14 FLOPs a second on two H100.
    let mfu = shown
        .lines()
        .find(|line| line.starts_with("polestar_trial_mfu_ratio{"));
    let mfu = mfu.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(
        mfu.is_some_and(|mfu| (mfu - 2e14 / (2.0 * 989e12)).abs() < 1e-9),
        "{mfu:?}"
    );
}

#[test]
fn every_sample_is_of_a_family_that_is_told() {
    let known: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
    let mut observed = Observed::default();
    for entry in [begun(1.0, 0), measured(2.0, 10)] {
        observed.note(&entry);
    }
    for sample in samples(&status(3.0), &observed, Traffic::default()) {
        assert!(known.contains(&sample.name), "{}", sample.name);
    }
}

#[test]
fn the_dashboard_and_the_page_name_metrics_that_there_are() {
    let names: Vec<String> = FAMILIES.iter().map(|f| f.prometheus_name()).collect();
    let dashboard = include_str!("../../../configs/grafana.json");
    let words = dashboard.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let asked = words.filter(|word| word.starts_with("polestar_"));
    for name in asked {
        assert!(
            names.iter().any(|known| known == name),
            "{name} is no metric"
        );
    }
    let page = include_str!("../../../docs/telemetry.md");
    for name in names {
        assert!(
            page.contains(&format!("| `{name}` |")),
            "{name} is not on the page"
        );
    }
}
