//! The launcher on a SLURM that is played.

use super::super::{
    super::{LaunchEvent, LaunchId, Launcher},
    Folder, Slurm, SlurmTable,
    calls::{Call, CallError, Commands},
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// A queue that does what a test says.
#[derive(Clone, Default)]
struct Played(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    /// `array|task`, state, restarts, nodes.
    rows: Vec<Job>,
    jobs: u64,
    /// The controller is deaf.
    deaf: bool,
    /// It takes the next submission, and its answer is lost.
    loses_answer: bool,
    /// It takes none.
    refuses: Option<&'static str>,
    calls: Vec<String>,
}

struct Job {
    id: String,
    state: &'static str,
}

impl Played {
    fn change(&self, change: impl FnOnce(&mut Queue)) {
        change(&mut self.0.lock().unwrap());
    }

    fn count(&self, program: &str) -> usize {
        let queue = self.0.lock().unwrap();
        queue
            .calls
            .iter()
            .filter(|c| c.starts_with(program))
            .count()
    }
}

impl Commands for Played {
    async fn run(&self, call: Call) -> Result<String, CallError> {
        let mut queue = self.0.lock().unwrap();
        let Call { program, arguments } = call;
        queue
            .calls
            .push(format!("{program} {}", arguments.join(" ")));
        let failed = |said: &str| CallError::Failed {
            program,
            said: said.to_owned(),
        };
        if queue.deaf {
            return Err(failed(
                "Unable to contact slurm controller (connect failure)",
            ));
        }
        match program {
            "squeue" => {
                let lines = queue.rows.iter().map(|job| {
                    let nodes = if job.state == "RUNNING" { "n1" } else { "" };
                    format!("{}|w|{}|None|0|0|{nodes}|1:00|1|\n", job.id, job.state)
                });
                Ok(lines.collect())
            }
            "sbatch" => {
                if let Some(why) = queue.refuses {
                    return Err(failed(why));
                }
                queue.jobs += 1;
                let job = queue.jobs;
                let last: u32 = arguments[1].rsplit('-').next().unwrap().parse().unwrap();
                queue.rows.extend((0..=last).map(|task| Job {
                    id: format!("{job}|{task}"),
                    state: "PENDING",
                }));
                match std::mem::take(&mut queue.loses_answer) {
                    true => Err(failed("Socket timed out on send/recv operation")),
                    false => Ok(job.to_string()),
                }
            }
            "scancel" => {
                let only = arguments[0].strip_prefix("--state=");
                for job in &mut queue.rows {
                    let named = only.is_none_or(|state| {
                        state == job.state && arguments.contains(&job.id.replace('|', "_"))
                    });
                    if named {
                        job.state = "CANCELLED";
                    }
                }
                Ok(String::new())
            }
            _ => Err(failed("Slurm accounting storage is disabled")),
        }
    }
}

fn launcher(played: &Played) -> (Slurm, tempfile::TempDir) {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::of(&place.path().display().to_string(), "t").unwrap();
    let slurm = Slurm::with(played.clone(), &SlurmTable::default(), &folder, 4);
    (slurm, place)
}

fn name(text: &str) -> LaunchId {
    LaunchId(text.to_owned())
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_is_no_second_pool() {
    let played = Played::default();
    played.change(|queue| queue.loses_answer = true);
    let (mut slurm, _place) = launcher(&played);
    slurm.scale(3);
    while played.count("squeue") < 8 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(played.count("sbatch"), 1);
    played.change(|queue| queue.rows[1].state = "RUNNING");
    let launch = name("slurm-1_1.0.0");
    assert_eq!(slurm.next().await, LaunchEvent::Started { launch });
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_is_deaf_is_no_end_of_any_job() {
    let played = Played::default();
    let (mut slurm, _place) = launcher(&played);
    slurm.scale(1);
    while played.count("sbatch") < 1 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    played.change(|queue| queue.rows[0].state = "RUNNING");
    let launch = name("slurm-1_0.0.0");
    assert_eq!(slurm.next().await, LaunchEvent::Started { launch });
    played.change(|queue| queue.deaf = true);
    let hours = Duration::from_secs(7200);
    let silence = tokio::time::timeout(hours, slurm.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    assert_eq!(played.count("sbatch"), 1);
    played.change(|queue| {
        queue.deaf = false;
        queue.rows.clear();
    });
    let LaunchEvent::Ended { launch, status, .. } = slurm.next().await else {
        panic!("it is gone from the queue");
    };
    assert_eq!(launch, name("slurm-1_0.0.0"));
    assert!(status.contains("doesn't know its end"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn what_slurm_refuses_is_told_unless_workers_are_there() {
    let played = Played::default();
    played.change(|queue| queue.refuses = Some("Invalid partition name specified"));
    let (mut slurm, _place) = launcher(&played);
    slurm.scale(5);
    let LaunchEvent::Failed { message } = slurm.next().await else {
        panic!("it was refused");
    };
    assert!(message.contains("Invalid partition name"), "{message}");

    played.change(|queue| queue.refuses = None);
    slurm.scale(5);
    while played.count("sbatch") < 3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let arrays: Vec<String> = {
        let queue = played.0.lock().unwrap();
        let sbatch = queue.calls.iter().filter(|c| c.starts_with("sbatch"));
        sbatch
            .map(|c| c.split(' ').nth(2).unwrap().to_owned())
            .collect()
    };
    assert_eq!(arrays[1..], ["--array=0-3", "--array=0-0"]);
    // The rest of a pool that is at its limit is waited for in silence.
    played.change(|queue| queue.refuses = Some("Job violates accounting/QOS policy"));
    slurm.scale(9);
    let silence = tokio::time::timeout(Duration::from_secs(3600), slurm.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    assert!(played.count("sbatch") < 30, "with growing waits");
}

#[tokio::test(start_paused = true)]
async fn the_end_takes_what_waits_and_kills_what_stays() {
    let played = Played::default();
    let (mut slurm, _place) = launcher(&played);
    slurm.scale(3);
    while played.count("sbatch") < 1 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    played.change(|queue| queue.rows[0].state = "RUNNING");
    assert_eq!(slurm.close(Duration::from_secs(10)).await, 1);
    let queue = played.0.lock().unwrap();
    assert!(queue.rows.iter().all(|job| job.state == "CANCELLED"));
    let withdrawn = queue.calls.iter().find(|c| c.starts_with("scancel"));
    assert_eq!(withdrawn.unwrap(), "scancel --state=PENDING 1_2 1_1");
}
