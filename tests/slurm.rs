//! Launches on a SLURM cluster, which `scripts/slurm-cluster` starts: workers that are cancelled, preempted, requeued,
//! or lose their node or their time, and coordinators that are. The answer is always that of a run on this machine
//! that nobody disturbed.

mod refusals;

use crate::common::{Running, Sandbox, json, kill, pid_in, small_sweep, transcript};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc},
    time::{Duration, Instant},
};

const STEPS: u64 = 400;
const SUBMIT: [&str; 5] = ["slurm", "submit", "sweep.toml", "--workers-per-trial", "2"];
/// Nothing here takes longer, unless it is broken.
const DEADLINE: Duration = Duration::from_secs(120);

/// The cluster, for one test at a time: they take nodes down.
struct Cluster {
    _turn: MutexGuard<'static, ()>,
    sandbox: Sandbox,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // What a failed test leaves must not be the next one's.
        let _ = output("scancel", &["--me"]);
        for node in ["n1", "n2"] {
            let node = format!("NodeName={node}");
            let _ = output("scontrol", &["update", &node, "State=RESUME"]);
        }
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    transcript(&output)
}

/// The cluster and a folder, or nothing where there is no cluster.
fn cluster() -> Option<Cluster> {
    static TURN: Mutex<()> = Mutex::new(());
    if std::env::var_os("POLESTAR_SLURM").is_none() {
        println!(
            "skipped: no SLURM cluster for tests; scripts/slurm-cluster COMMAND runs this in one"
        );
        return None;
    }
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Some(Cluster {
        _turn: turn,
        sandbox: Sandbox::new(),
    })
}

/// Looks until there is something, or panics with what was waited for.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    let (_never, pause) = mpsc::channel::<()>();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "waited in vain for {what}");
        let _ = pause.recv_timeout(Duration::from_millis(100));
    }
}

/// A sweep whose two workers are SLURM's.
fn sweep(partition: &str, more: &str) -> String {
    let slurm = format!(
        "workers = 2\nlauncher = \"slurm\"\n[pool.slurm]\npartition = \"{partition}\"\ncpus_per_task = 2\n\
         poll_seconds = 0.5\n{more}"
    );
    small_sweep(STEPS).replace("workers = 1\n", &slurm)
}

/// The digest of the same steps, trained on this machine by one worker that nobody disturbs.
fn undisturbed() -> &'static Value {
    static DIGEST: OnceLock<Value> = OnceLock::new();
    DIGEST.get_or_init(|| {
        let sandbox = Sandbox::new();
        sandbox.write("sweep.toml", &small_sweep(STEPS));
        sandbox.succeed(&["launch", "sweep.toml"]);
        digest(&sandbox)
    })
}

fn digest(sandbox: &Sandbox) -> Value {
    let result = sandbox.result("runs", &format!("pico-{STEPS}steps-s1"));
    json(&result)["outcome"]["digest"].clone()
}

impl Cluster {
    /// Launches a sweep whose trial takes both workers, and waits until it trains.
    fn launch(&self, text: &str) -> Running {
        self.sandbox.write("sweep.toml", text);
        let arguments = ["launch", "sweep.toml", "--workers-per-trial", "2"];
        let mut launch = self.sandbox.start(&arguments);
        launch.wait_for("step 20:");
        launch
    }

    /// Waits for the end: the answer is what it would have been, and nothing is left in the queue.
    fn ends_well(&self, launch: Running) -> Vec<String> {
        let (success, lines) = launch.finish();
        assert!(success, "{}", lines.join("\n"));
        self.is_right();
        lines
    }

    fn is_right(&self) {
        assert_eq!(digest(&self.sandbox), *undisturbed());
        until("an empty queue", || self.queue().is_empty().then_some(()));
    }

    /// Active jobs of this sandbox as `ID STATE`.
    fn queue(&self) -> Vec<String> {
        let folder = self.sandbox.path("");
        let folder = folder.to_str().expect("a plain path").trim_end_matches('/');
        let said = output("squeue", &["--noheader", "--array", "--format=%i %T %Z"]);
        let mine = said.lines().filter_map(|line| line.strip_suffix(folder));
        mine.map(|line| line.trim().to_owned()).collect()
    }

    /// The id of a task that runs.
    fn a_worker(&self) -> String {
        until("a worker that runs", || {
            let queue = self.queue();
            let mut running = queue.iter().filter_map(|job| job.strip_suffix(" RUNNING"));
            running.find(|id| id.contains('_')).map(str::to_owned)
        })
    }

    /// Submits a coordinator; returns its job and its log.
    fn submit(&self) -> (String, Log) {
        let text = sweep("main", "").replace("workers = 2\n", "workers = 2\nlease_seconds = 2\n");
        self.sandbox.write("sweep.toml", &text);
        let job = job_of(&self.sandbox.succeed(&SUBMIT));
        let log = format!("slurm/small/logs/coordinator-{job}.log");
        let log = Log::follow(&self.sandbox.path(&log));
        (job, log)
    }

    fn log_of(&self, task: &str) -> String {
        let log = format!("slurm/small/logs/worker-{task}.log");
        std::fs::read_to_string(self.sandbox.path(&log)).unwrap_or_else(|error| error.to_string())
    }
}

/// Submits what isn't ours; returns its job.
fn submit_other(arguments: &[&str], wrapped: &str) -> String {
    let wrapped = format!("--wrap={wrapped}");
    let common = ["--parsable", "--output=/dev/null", &wrapped];
    let said = output("sbatch", &[&common[..], arguments].concat());
    let job = said.trim();
    assert!(job.parse::<u64>().is_ok(), "{said}");
    job.to_owned()
}

/// Takes all nodes for a moment, before whatever may be preempted.
fn preempt() {
    submit_other(
        &["--partition=urgent", "--exclusive", "--nodes=2"],
        "sleep 1",
    );
}

/// Other people's jobs on the places that two workers leave free: nobody can be replaced before a worker's own place
/// is free, so that the trial still runs when SLURM has said what became of that worker.
struct Crowd(Vec<String>);

impl Crowd {
    fn new() -> Crowd {
        let jobs = (0..2).map(|_| submit_other(&["--cpus-per-task=2"], "sleep 600"));
        let jobs: Vec<String> = jobs.collect();
        until("a cluster without a free place", || {
            let said = output("squeue", &["--noheader", "--format=%i %T"]);
            let runs = |job: &String| said.lines().any(|line| line == format!("{job} RUNNING"));
            jobs.iter().all(runs).then_some(())
        });
        Crowd(jobs)
    }

    fn leave(self) {
        for job in self.0 {
            output("scancel", &[&job]);
        }
    }
}

#[test]
fn a_pool_larger_than_cluster_and_arrays_goes_on_with_what_it_gets() {
    let Some(cluster) = cluster() else { return };
    // Eight processors are four places; arrays hold four.
    let text = sweep("main", "").replace("workers = 2\n", "workers = 6\n");
    let mut launch = cluster.launch(&text);
    let waiting = until("tasks that wait", || {
        let queue = cluster.queue();
        let waiting = queue.iter().filter(|job| job.ends_with(" PENDING")).count();
        (waiting > 0).then_some(queue)
    });
    let arrays = |queue: &[String]| {
        let jobs = queue.iter().filter_map(|job| job.split('_').next());
        jobs.map(str::to_owned)
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    assert_eq!(waiting.len(), 6, "{waiting:?}");
    assert_eq!(arrays(&waiting), 2, "{waiting:?}");
    let status = cluster.sandbox.succeed(&["slurm", "status", "sweep.toml"]);
    assert!(
        status.contains("PENDING: ")
            && status.contains("RUNNING on n1")
            && status.contains("left: at work"),
        "{status}"
    );
    launch.wait_for(" done, digest ");
    cluster.ends_well(launch);
    let token = cluster.sandbox.path("slurm/small/token");
    let token = std::fs::read_to_string(token).expect("it was written");
    for script in ["slurm/small/workers.sbatch", "slurm/small/url"] {
        let text = std::fs::read_to_string(cluster.sandbox.path(script)).expect("written");
        assert!(!text.contains(token.trim()), "{script} holds the token");
    }
}

#[test]
fn workers_of_one_node_have_a_gpu_each_and_are_replaced_together() {
    let Some(cluster) = cluster() else { return };
    let text =
        sweep("main", "gres = \"gpu:2\"\n").replace("cpus_per_task = 2", "cpus_per_task = 1");
    let mut launch = cluster.launch(&text);
    let worker = cluster.a_worker();
    let queue = cluster.queue();
    assert_eq!(queue, [format!("{worker} RUNNING")], "both are in one task");
    let mut joined = launch.seen.iter().filter(|line| line.contains(" joined"));
    kill(pid_in(joined.next().expect("it has joined")));
    launch.wait_for(&format!("job {worker}, FAILED"));
    cluster.ends_well(launch);
    let log = cluster.log_of(&worker);
    for (process, gpu) in [(0, 0), (1, 1)] {
        let start = format!("== slurm-{worker}.0.{process} starts on n");
        let line = log.lines().find(|line| line.contains(&start));
        assert!(
            line.is_some_and(|line| line.ends_with(&format!("GPUs: {gpu}"))),
            "{log}"
        );
    }
}

#[test]
fn a_place_is_given_back_while_the_last_trial_runs() {
    let Some(cluster) = cluster() else { return };
    let text = sweep("main", "").replace(&format!("[{STEPS}]"), "[40, 1500]");
    cluster.sandbox.write("sweep.toml", &text);
    let mut launch = cluster.sandbox.start(&["launch", "sweep.toml"]);
    launch.wait_for(" is let go");
    let queue = || Some(cluster.queue()).filter(|queue| queue.len() == 1);
    let left = until("a place to be free", queue).remove(0);
    assert!(left.ends_with(" RUNNING"), "{left}");
    launch.wait_for("pico-1500steps-s1 done");
    assert!(launch.finish().0);
}

#[test]
fn a_worker_that_is_cancelled_is_replaced() {
    let Some(cluster) = cluster() else { return };
    let mut launch = cluster.launch(&sweep("main", ""));
    let crowd = Crowd::new();
    let worker = cluster.a_worker();
    output("scancel", &[&worker]);
    let ended = launch.wait_for(&format!("job {worker}, CANCELLED"));
    crowd.leave();
    assert!(
        ended.contains("exit code 80"),
        "it was warned first: {ended}"
    );
    let lines = cluster.ends_well(launch);
    let joined = lines.iter().filter(|line| line.contains(" joined")).count();
    assert!(joined >= 3, "{}", lines.join("\n"));
}

#[test]
fn preempted_workers_are_requeued_and_join_under_new_names() {
    let Some(cluster) = cluster() else { return };
    let mut launch = cluster.launch(&sweep("requeue", ""));
    let worker = cluster.a_worker();
    preempt();
    launch.wait_for(&format!("job {worker}, put back into the queue"));
    cluster.ends_well(launch);
    let log = cluster.log_of(&worker);
    for start in [
        "slurm-",
        ".0.0 starts on",
        ".1.0 starts on",
        "DUE TO PREEMPTION",
    ] {
        assert!(log.contains(start), "{start} is not in {log}");
    }
}

#[test]
fn preempted_workers_that_are_not_requeued_are_submitted_anew() {
    let Some(cluster) = cluster() else { return };
    let mut launch = cluster.launch(&sweep("cancel", ""));
    let worker = cluster.a_worker();
    preempt();
    let ended = launch.wait_for(&format!("job {worker}, PREEMPTED"));
    assert!(ended.contains("exit code 80: it was warned"), "{ended}");
    cluster.ends_well(launch);
}

#[test]
fn a_requeue_by_hand_and_a_node_that_goes_down_are_survived() {
    let Some(cluster) = cluster() else { return };
    let mut launch = cluster.launch(&sweep("main", ""));
    let crowd = Crowd::new();
    let worker = cluster.a_worker();
    output("scontrol", &["requeue", &worker]);
    launch.wait_for_all(&[
        &format!("job {worker}, put back into the queue"),
        " resumes after step",
    ]);
    crowd.leave();
    let worker = cluster.a_worker();
    let node = output("squeue", &["--noheader", "--format=%N", "--jobs", &worker]);
    let node = format!("NodeName={}", node.trim());
    let down = ["update", &node, "State=DOWN", "Reason=test"];
    output("scontrol", &down);
    launch.wait_for("put back into the queue");
    cluster.ends_well(launch);
    let log = cluster.log_of(&worker);
    // Of the node's daemon or of srun, whichever comes to say it first.
    assert!(log.to_lowercase().contains("node failure"), "{log}");
}

#[test]
fn workers_whose_time_is_nearly_over_leave_and_are_replaced() {
    let Some(cluster) = cluster() else { return };
    // SLURM looks every half minute. A worker waits for the second one as long, which has no place.
    let occupied = submit_other(&["--exclusive", "--nodes=1"], "sleep 600");
    let whole = "time = \"1\"\nwarning_seconds = 55\nsbatch = [\"--exclusive\"]\n";
    cluster.sandbox.write("sweep.toml", &sweep("main", whole));
    let arguments = ["launch", "sweep.toml", "--workers-per-trial", "2"];
    let mut launch = cluster.sandbox.start(&arguments);
    launch.wait_for("will be gone soon");
    let ended = launch.wait_for("exit code 80: it was warned");
    assert!(ended.contains("FAILED"), "{ended}");
    output("scancel", &[&occupied]);
    launch.wait_for(" begins");
    cluster.ends_well(launch);
}

#[test]
fn a_coordinators_job_that_is_cancelled_ends_in_order_and_goes_on_later() {
    let Some(cluster) = cluster() else { return };
    let (first, log) = cluster.submit();
    log.wait_for("step 20:");
    let refused = cluster.sandbox.refuse(&SUBMIT);
    let told = format!("job {first} is this sweep's coordinator already");
    assert!(refused.contains(&told), "{refused}");
    output("scancel", &[&first]);
    log.wait_for("is saved at step");
    until("an empty queue", || {
        cluster.queue().is_empty().then_some(())
    });

    let (second, log) = cluster.submit();
    log.wait_for(" resumes after step");
    log.wait_for("report ");
    cluster.is_right();
    let status = cluster.sandbox.succeed(&["slurm", "status", "sweep.toml"]);
    for job in [
        format!("coordinator {first}: "),
        format!("coordinator {second}: COMPLETED"),
    ] {
        assert!(status.contains(&job), "{status}");
    }
}

#[test]
fn workers_outlive_a_coordinator_that_is_killed_and_are_its_successors() {
    let Some(cluster) = cluster() else { return };
    let (first, log) = cluster.submit();
    log.wait_for("step 20:");
    kill(program_of(&first));
    until("its end", || {
        let queue = cluster.queue();
        (!queue
            .iter()
            .any(|job| job.starts_with(&format!("{first} "))))
        .then_some(())
    });
    let arrays = cluster.queue();
    assert_eq!(arrays.len(), 2, "its workers are still there: {arrays:?}");
    let (_, log) = cluster.submit();
    log.wait_for("goes on: its 2 workers are back");
    log.wait_for("report ");
    cluster.is_right();
}

/// The process of `launch` in a job.
fn program_of(job: &str) -> u32 {
    let processes = std::fs::read_dir("/proc").expect("a system with /proc");
    let mut pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let has = |pid: &u32, file: &str, text: &str| {
        // It may have ended meanwhile.
        let Ok(bytes) = std::fs::read(format!("/proc/{pid}/{file}")) else {
            return false;
        };
        let mut parts = bytes.split(|&byte| byte == 0);
        parts.any(|part| part == text.as_bytes())
    };
    let id = format!("SLURM_JOB_ID={job}");
    let found = pids.find(|pid| has(pid, "environ", &id) && has(pid, "cmdline", "launch"));
    found.expect("it runs")
}

/// The number in `job 12 is submitted`.
fn job_of(said: &str) -> String {
    let number = said
        .strip_prefix("job ")
        .and_then(|rest| rest.split(' ').next());
    number.unwrap_or_else(|| panic!("{said}")).to_owned()
}

/// A file that grows, from its beginning.
struct Log {
    tail: std::process::Child,
    lines: mpsc::Receiver<String>,
}

impl Log {
    fn follow(path: &Path) -> Log {
        let mut tail = Command::new("tail")
            .args([
                "--lines=+1",
                "--follow=name",
                "--retry",
                "--sleep-interval=0.1",
            ])
            .arg(path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("tail is there");
        let output = BufReader::new(tail.stdout.take().expect("it was piped"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            // Nobody reads it any more when the test is over.
            lines.map(|line| sender.send(line)).find(Result::is_err)
        });
        Log { tail, lines }
    }

    fn wait_for(&self, text: &str) {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) if line.contains(text) => return,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no {text:?} in\n{}", seen.join("\n")),
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = self.tail.kill();
        let _ = self.tail.wait();
    }
}
