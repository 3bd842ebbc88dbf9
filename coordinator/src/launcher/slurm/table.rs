//! What a sweep file says of SLURM.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How workers are submitted to SLURM, for `launcher = "slurm"` and `coordinator slurm`. What is left out is up to
/// the cluster. Nothing here changes a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SlurmTable {
    /// Partition (`--partition`), or several with commas between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Account that is charged (`--account`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Quality of service (`--qos`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<String>,
    /// Features that nodes must have (`--constraint`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraint: Option<String>,
    /// Longest time of a worker's job (`--time`): minutes, `HH:MM:SS` or `D-HH:MM:SS`. A job whose time is over is
    /// replaced, so short ones, which get a place sooner, do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Cores of a worker (`--cpus-per-task`), and its threads unless `pool.threads` says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus_per_task: Option<u32>,
    /// Memory of a node's workers together (`--mem`), such as `64G`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Generic resources of a node (`--gres`), such as `gpu:4`. Where they have GPUs, a node gets one worker a GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gres: Option<String>,
    /// Nodes of one job. With 1, each node is a task of a job array: it starts as soon as there is a place for it, and
    /// ends alone. With more, a job waits until it can have all of them, and ends as a whole.
    pub nodes: u32,
    /// Workers on each node; without it one, or one a GPU of `gres`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks_per_node: Option<u32>,
    /// Container image that workers run in; the program and the folders of the run must be in it by the same paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// What runs a command in the container; the image and the command follow.
    pub container_command: Vec<String>,
    /// Lines of bash before the workers start: modules, environment variables.
    pub prologue: Vec<String>,
    /// More options for sbatch, such as `--reservation=mine`: one `#SBATCH` line each.
    pub sbatch: Vec<String>,
    /// How long before the end of its time a worker is warned, so that it leaves in order. SLURM may warn up to 60 s
    /// sooner.
    pub warning_seconds: u32,
    /// Whether SLURM may put a job that it preempted, or whose node broke, back into its queue (`--requeue`). Without,
    /// or where the cluster doesn't, another job is submitted in its place.
    pub requeue: bool,
    /// Folder for scripts, logs, the pool's address and its token: on a file system that all nodes have, by the same
    /// path. A relative one is in the folder that the command runs in.
    pub folder: String,
    /// How often SLURM is asked what became of the jobs.
    pub poll_seconds: f64,
    /// This program's path on the nodes; without it, as here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// The coordinator's own job.
    pub coordinator: CoordinatorJob,
}

/// The job that `coordinator slurm submit` runs `launch` in. It computes next to nothing, and has to last as long as
/// the sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CoordinatorJob {
    /// Partition, if not that of the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Quality of service, if not that of the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<String>,
    /// Longest time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Cores.
    pub cpus: u32,
    /// Memory, such as `4G`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// More options for sbatch.
    pub sbatch: Vec<String>,
}

impl Default for SlurmTable {
    fn default() -> Self {
        SlurmTable {
            partition: None,
            account: None,
            qos: None,
            constraint: None,
            time: None,
            cpus_per_task: None,
            memory: None,
            gres: None,
            nodes: 1,
            tasks_per_node: None,
            container: None,
            container_command: ["apptainer", "exec"].map(str::to_owned).into(),
            prologue: Vec::new(),
            sbatch: Vec::new(),
            warning_seconds: 90,
            requeue: true,
            folder: "slurm".to_owned(),
            poll_seconds: 10.0,
            program: None,
            coordinator: CoordinatorJob::default(),
        }
    }
}

impl Default for CoordinatorJob {
    fn default() -> Self {
        CoordinatorJob {
            partition: None,
            qos: None,
            time: None,
            cpus: 1,
            memory: None,
            sbatch: Vec::new(),
        }
    }
}

impl SlurmTable {
    /// Workers on each node.
    pub fn workers_per_node(&self) -> u32 {
        let gpus = self.gres.as_deref().map_or(0, gpus);
        self.tasks_per_node.unwrap_or_else(|| gpus.max(1))
    }

    /// Workers of one job, or of one task of a job array.
    pub fn workers_per_job(&self) -> u32 {
        self.nodes * self.workers_per_node()
    }

    /// Whether each worker has a GPU of its own.
    pub(super) fn has_gpus(&self) -> bool {
        self.gres.as_deref().map_or(0, gpus) > 0
    }

    /// Checks what the types don't.
    ///
    /// # Errors
    /// A sentence that names the key and what to do.
    pub fn check(&self) -> Result<(), String> {
        let own = &self.coordinator;
        let words = [
            ("partition", &self.partition),
            ("account", &self.account),
            ("qos", &self.qos),
            ("constraint", &self.constraint),
            ("memory", &self.memory),
            ("gres", &self.gres),
            ("coordinator.partition", &own.partition),
            ("coordinator.qos", &own.qos),
            ("coordinator.memory", &own.memory),
        ];
        for (key, value) in words {
            let is_word = |v: &String| !v.is_empty() && !v.contains(char::is_whitespace);
            if let Some(value) = value.as_ref().filter(|v| !is_word(v)) {
                return Err(format!(
                    "pool.slurm.{key} = {value:?}: an option of sbatch has no spaces; leave the key out to have none"
                ));
            }
        }
        for (key, value) in [("time", &self.time), ("coordinator.time", &own.time)] {
            if let Some(value) = value.as_ref().filter(|value| !is_time(value)) {
                return Err(format!(
                    "pool.slurm.{key} = {value:?} is no time for sbatch; write minutes, HH:MM:SS, D-HH:MM:SS or UNLIMITED"
                ));
            }
        }
        for (key, lines) in [
            ("sbatch", &self.sbatch),
            ("coordinator.sbatch", &own.sbatch),
        ] {
            if let Some(line) = lines
                .iter()
                .find(|line| !line.starts_with('-') || line.contains('\n'))
            {
                return Err(format!(
                    "pool.slurm.{key} has {line:?}; give one option each, such as \"--reservation=mine\""
                ));
            }
        }
        if self.nodes == 0 || self.workers_per_node() == 0 || self.cpus_per_task == Some(0) {
            return Err(
                "pool.slurm.nodes, tasks_per_node and cpus_per_task must be at least 1".into(),
            );
        }
        if own.cpus == 0 {
            return Err("pool.slurm.coordinator.cpus must be at least 1".into());
        }
        if self.container.is_some() && self.container_command.is_empty() {
            return Err(
                "pool.slurm.container needs container_command, such as [\"apptainer\", \"exec\"]"
                    .into(),
            );
        }
        if self.warning_seconds > 65535 {
            return Err("pool.slurm.warning_seconds: SLURM takes at most 65535".into());
        }
        if self.folder.is_empty() || self.folder.contains(['\n', '%']) {
            return Err(
                "pool.slurm.folder must be a path without `%`, which SLURM replaces".into(),
            );
        }
        if !(0.1..=3600.0).contains(&self.poll_seconds) {
            return Err("pool.slurm.poll_seconds must be between 0.1 and 3600".into());
        }
        Ok(())
    }
}

/// GPUs of a node in what `--gres` says: `gpu`, `gpu:4`, `gpu:a100:4`, with others before or after.
fn gpus(gres: &str) -> u32 {
    let each = gres.split(',').map(|one| {
        // `gpu:a100:2(S:0-1)` is how SLURM itself writes it.
        let one = one.split('(').next().unwrap_or_default();
        let mut parts = one.split([':', '=']);
        match parts.next() {
            Some("gpu") => parts.next_back().and_then(|n| n.parse().ok()).unwrap_or(1),
            _ => 0,
        }
    });
    each.sum()
}

/// Whether sbatch takes it for a time: `[D-]H[:M[:S]]`, `M[:S]` or no limit.
fn is_time(text: &str) -> bool {
    let number = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(days), rest),
        None => (None, text),
    };
    let clock: Vec<&str> = rest.split(':').collect();
    let clocked = clock.len() <= 3 && clock.into_iter().all(number);
    matches!(text, "UNLIMITED" | "infinite") || days.is_none_or(number) && clocked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_counted_as_gres_says_them() {
        for (gres, count) in [
            ("gpu", 1),
            ("gpu:4", 4),
            ("gpu:a100:8", 8),
            ("gpu:a100", 1),
            ("shard:3", 0),
            ("nvme:1,gpu:h100:2,gpu:a100:1", 3),
            ("gpu:h100:4(S:0-1)", 4),
        ] {
            assert_eq!(gpus(gres), count, "{gres}");
        }
        let table = SlurmTable {
            gres: Some("gpu:4".into()),
            nodes: 2,
            ..SlurmTable::default()
        };
        assert_eq!(table.workers_per_job(), 8);
    }

    #[test]
    fn values_that_sbatch_would_take_for_something_else_are_refused_by_key() {
        let with = |change: fn(&mut SlurmTable)| {
            let mut table = SlurmTable::default();
            change(&mut table);
            table.check()
        };
        with(|t| t.time = Some("1-12:30:00".into())).unwrap();
        with(|t| t.time = Some("90".into())).unwrap();
        for (refused, key) in [
            (with(|t| t.time = Some("4 hours".into())), "pool.slurm.time"),
            (with(|t| t.time = Some("4h".into())), "pool.slurm.time"),
            (
                with(|t| t.partition = Some("a b".into())),
                "pool.slurm.partition",
            ),
            (
                with(|t| t.sbatch = vec!["reservation=x".into()]),
                "pool.slurm.sbatch",
            ),
            (with(|t| t.nodes = 0), "pool.slurm.nodes"),
            (with(|t| t.folder = "a%j".into()), "pool.slurm.folder"),
        ] {
            let said = refused.unwrap_err();
            assert!(said.contains(key), "{said}");
        }
    }
}
