//! Batch scripts: what is submitted, as a person would write it.

use super::{CoordinatorJob, Folder, SlurmTable};
use crate::{shell::quoted, sweep::WorkersPerTrial};
use polestar_worker::{agent::LAUNCH_VARIABLE, allocator::allocator};
use std::path::{Path, PathBuf};

/// How `launch` is run in the coordinator's job.
#[derive(Clone, Debug, Default)]
pub struct LaunchOptions {
    /// The sweep file.
    pub sweep: PathBuf,
    /// The folder to run in: relative paths of the sweep file begin there.
    pub directory: PathBuf,
    /// `--store`, if one is given.
    pub store: Option<String>,
    /// `--workers`, if given.
    pub workers: Option<u32>,
    /// `--workers-per-trial`, if given.
    pub workers_per_trial: Option<WorkersPerTrial>,
}

/// The script of the workers' jobs: a job array of so many tasks.
pub fn worker_script(table: &SlurmTable, folder: &Folder, threads: usize, tasks: u32) -> String {
    let each = table.workers_per_job();
    let mut script = Script::new(&folder.job_name("workers"));
    script.says("Workers of a Polestar pool. Each task of the array is one place for workers; each start of it is new ones.");
    let logs = folder.logs().join("worker-%A_%a.log");
    script.option("output", &quoted(&logs.display().to_string()));
    script.option("open-mode", "append");
    script.option("array", &format!("0-{}", tasks.max(1) - 1));
    script.option("nodes", &table.nodes.to_string());
    script.option("ntasks-per-node", &table.workers_per_node().to_string());
    script.options(&[
        ("partition", &table.partition),
        ("account", &table.account),
        ("qos", &table.qos),
        ("constraint", &table.constraint),
        ("time", &table.time),
        ("cpus-per-task", &table.cpus_per_task.map(|n| n.to_string())),
        ("mem", &table.memory),
        ("gres", &table.gres),
    ]);
    script.flag(match table.requeue {
        true => "requeue",
        false => "no-requeue",
    });
    // To the workers, not to this script: without `B:`.
    script.option("signal", &format!("TERM@{}", table.warning_seconds));
    script.lines_of_options(&table.sbatch);
    script.blank();
    script.line("set -euo pipefail");
    script.prologue(&table.prologue);
    script.blank();
    let wait = "Where the coordinator is; it writes this when it listens.";
    script.says(wait);
    let url = quoted(&folder.url().display().to_string());
    script.line(&format!(
        "for _ in $(seq 300); do [ ! -s {url} ] || break; sleep 1; done"
    ));
    script.line(&format!(
        "POLESTAR_URL=\"$(cat {url})\"; export POLESTAR_URL"
    ));
    script.line(&threads_line(threads, table.workers_per_node()));
    let (variable, value) = allocator();
    let value = quoted(&value.to_string_lossy());
    script.line(&format!("export {variable}={value}"));
    script.blank();
    script.says("Each start has a name of its own: a task that was put back into the queue is another worker. srun, so that");
    script.says("SLURM's warnings reach the workers; when one of a job's workers fails, the job ends and is replaced.");
    let mut srun = vec![
        "exec srun".to_owned(),
        format!("--ntasks={each}"),
        "--kill-on-bad-exit=1".to_owned(),
    ];
    if let Some(cpus) = table.cpus_per_task {
        // Since 22.05 srun doesn't take it from the job.
        srun.push(format!("--cpus-per-task={cpus}"));
    }
    if table.has_gpus() && table.workers_per_node() > 1 {
        srun.push("--gpu-bind=single:1".to_owned());
    }
    script.line(&format!("{} bash -c '", srun.join(" ")));
    script.line(&format!(
        "  export {LAUNCH_VARIABLE}=\"slurm-${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}.${{SLURM_RESTART_COUNT:-0}}.${{SLURM_PROCID}}\""
    ));
    script.line(&format!(
        "  echo \"== ${LAUNCH_VARIABLE} starts on $SLURMD_NODENAME at $(date -Is), GPUs: ${{CUDA_VISIBLE_DEVICES:-none}}\""
    ));
    script.line("  exec \"$@\" --coordinator \"$POLESTAR_URL\"");
    script.line(&format!("' worker {}", worker_command(table, folder)));
    script.text
}

/// What runs a worker, but for where the coordinator is.
fn worker_command(table: &SlurmTable, folder: &Folder) -> String {
    let mut words: Vec<String> = Vec::new();
    if let Some(image) = &table.container {
        words.extend(table.container_command.iter().map(|word| quoted(word)));
        words.push(quoted(image));
    }
    let token = quoted(&folder.token().display().to_string());
    words.extend([
        program(table),
        "worker join".to_owned(),
        format!("--leave-within {}", leave_within(table)),
        format!("--token-file {token}"),
    ]);
    words.join(" ")
}

/// How long leaving may take: as long as the warning comes before the end, but for a moment to end in. A preemption may
/// leave less; then SLURM ends it.
fn leave_within(table: &SlurmTable) -> u32 {
    table.warning_seconds.saturating_sub(5).max(5)
}

/// The script of the coordinator's job.
pub fn coordinator_script(table: &SlurmTable, folder: &Folder, options: &LaunchOptions) -> String {
    let CoordinatorJob {
        partition,
        qos,
        time,
        cpus,
        memory,
        sbatch,
    } = &table.coordinator;
    let mut script = Script::new(&folder.job_name("coordinator"));
    script.says("The coordinator of a Polestar launch. It submits its workers by itself, and takes up where an earlier start");
    script.says("of it was ended.");
    let logs = folder.logs().join("coordinator-%j.log");
    script.option("output", &quoted(&logs.display().to_string()));
    script.option("open-mode", "append");
    script.option("ntasks", "1");
    script.option("cpus-per-task", &cpus.to_string());
    script.options(&[
        (
            "partition",
            partition.as_ref().map_or(&table.partition, |_| partition),
        ),
        ("account", &table.account),
        ("qos", qos.as_ref().map_or(&table.qos, |_| qos)),
        ("time", time),
        ("mem", memory),
    ]);
    script.flag("requeue");
    // To this script, whose place the program takes.
    script.option("signal", &format!("B:TERM@{}", table.warning_seconds));
    script.lines_of_options(sbatch);
    script.blank();
    script.line("set -euo pipefail");
    script.prologue(&table.prologue);
    script.line(&format!(
        "cd {}",
        quoted(&options.directory.display().to_string())
    ));
    script.line(&format!("exec {}", launch_command(table, options)));
    script.text
}

/// `launch`, as it runs in the coordinator's job.
fn launch_command(table: &SlurmTable, options: &LaunchOptions) -> String {
    let mut words = vec![
        program(table),
        "launch".to_owned(),
        quoted(&options.sweep.display().to_string()),
        "--launcher slurm".to_owned(),
    ];
    if let Some(store) = &options.store {
        words.push(format!("--store {}", quoted(store)));
    }
    let workers = options.workers;
    words.extend(workers.map(|number| format!("--workers {number}")));
    let together = options.workers_per_trial;
    words.extend(together.map(|number| format!("--workers-per-trial {number}")));
    words.join(" ")
}

/// Threads of a worker: as many as it is told, or its share of the node's cores that the job has.
fn threads_line(threads: usize, workers_per_node: u32) -> String {
    match threads {
        0 => format!(
            "cores=\"${{SLURM_CPUS_PER_TASK:-$((SLURM_CPUS_ON_NODE / {workers_per_node}))}}\"; \
             export RAYON_NUM_THREADS=\"$((cores > 0 ? cores : 1))\""
        ),
        threads => format!("export RAYON_NUM_THREADS={threads}"),
    }
}

/// This program, as nodes find it.
fn program(table: &SlurmTable) -> String {
    let own = || std::env::current_exe().unwrap_or_else(|_| Path::new("coordinator").to_owned());
    let path = table.program.clone();
    quoted(&path.unwrap_or_else(|| own().display().to_string()))
}

/// A batch script as it grows. Options come first: sbatch reads them up to the first command.
struct Script {
    text: String,
}

impl Script {
    fn new(name: &str) -> Script {
        Script {
            text: format!("#!/bin/bash\n#SBATCH --job-name={name}\n"),
        }
    }

    fn line(&mut self, line: &str) {
        self.text += line;
        self.text += "\n";
    }

    fn blank(&mut self) {
        self.line("");
    }

    fn says(&mut self, comment: &str) {
        self.line(&format!("# {comment}"));
    }

    fn option(&mut self, name: &str, value: &str) {
        self.line(&format!("#SBATCH --{name}={value}"));
    }

    fn options(&mut self, options: &[(&str, &Option<String>)]) {
        for (name, value) in options {
            if let Some(value) = value {
                self.option(name, value);
            }
        }
    }

    fn flag(&mut self, name: &str) {
        self.line(&format!("#SBATCH --{name}"));
    }

    fn lines_of_options(&mut self, options: &[String]) {
        for option in options {
            self.line(&format!("#SBATCH {option}"));
        }
    }

    fn prologue(&mut self, lines: &[String]) {
        for line in lines {
            self.line(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> Folder {
        Folder::of("/shared/it's", "small").unwrap()
    }

    /// Whether bash takes it for a script.
    fn is_bash(text: &str) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        std::fs::write(&path, text).unwrap();
        let status = std::process::Command::new("bash")
            .arg("-n")
            .arg(path)
            .status();
        status.unwrap().success()
    }

    #[test]
    fn a_node_of_gpus_gets_a_worker_each_and_the_script_no_secret() {
        let table = SlurmTable {
            gres: Some("gpu:a100:4".into()),
            nodes: 2,
            cpus_per_task: Some(8),
            time: Some("04:00:00".into()),
            prologue: vec!["module load cuda".into()],
            sbatch: vec!["--reservation=mine".into()],
            container: Some("/images/polestar.sif".into()),
            program: Some("/opt/coordinator".into()),
            ..SlurmTable::default()
        };
        let text = worker_script(&table, &folder(), 0, 3);
        for line in [
            "#SBATCH --array=0-2",
            "#SBATCH --nodes=2",
            "#SBATCH --ntasks-per-node=4",
            "#SBATCH --gres=gpu:a100:4",
            "#SBATCH --signal=TERM@90",
            "#SBATCH --reservation=mine",
            "module load cuda",
            "exec srun --ntasks=8 --kill-on-bad-exit=1 --cpus-per-task=8 --gpu-bind=single:1 bash -c '",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(
            text.contains("' worker apptainer exec /images/polestar.sif"),
            "{text}"
        );
        assert!(is_bash(&text), "{text}");
        let options = text.lines().position(|l| l == "set -euo pipefail").unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines
            .iter()
            .rposition(|l| l.starts_with("#SBATCH"))
            .unwrap();
        assert!(last < options, "an option after the first command is none");
    }

    #[test]
    fn the_coordinators_job_launches_the_sweep_where_it_was_submitted() {
        let options = LaunchOptions {
            sweep: "my sweep.toml".into(),
            directory: "/home/me".into(),
            workers: Some(8),
            ..LaunchOptions::default()
        };
        let table = SlurmTable {
            partition: Some("gpus".into()),
            program: Some("/opt/coordinator".into()),
            ..SlurmTable::default()
        };
        let text = coordinator_script(&table, &folder(), &options);
        assert!(
            text.ends_with(
                "cd /home/me\nexec /opt/coordinator launch 'my sweep.toml' --launcher slurm --workers 8\n"
            ),
            "{text}"
        );
        assert!(text.contains("#SBATCH --partition=gpus\n"), "{text}");
        assert!(is_bash(&text), "{text}");
    }
}
