//! SLURM's programs: what they are asked, and the one way to run them.

use super::state::TaskId;
use std::{collections::BTreeSet, path::Path, process::Stdio, time::Duration};

/// How long one program may take. squeue gives up on a deaf controller by itself after 10 s or so.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked of each job, in the order that [`parse::queue`](super::parse::queue) reads.
const FIELDS: [&str; 10] = [
    "ArrayJobID",
    "ArrayTaskID",
    "Name",
    "State",
    "Reason",
    "RestartCnt",
    "exit_code",
    "NodeList",
    "TimeLeft",
    "JobID",
];

/// What ends a field, there being no name, state or node with it in it.
pub(super) const SEPARATOR: char = '|';

/// One run of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) program: &'static str,
    pub(crate) arguments: Vec<String>,
}

impl Call {
    fn new<const N: usize>(program: &'static str, arguments: [&str; N]) -> Call {
        Call {
            program,
            arguments: arguments.map(str::to_owned).into(),
        }
    }

    /// Submits a script as an array of so many tasks.
    pub(super) fn submit_array(script: &Path, tasks: u32) -> Call {
        let mut call = Call::submit(script);
        let array = format!("--array=0-{}", tasks.saturating_sub(1));
        call.arguments.insert(1, array);
        call
    }

    /// Submits a script as it is.
    pub(crate) fn submit(script: &Path) -> Call {
        Call::new("sbatch", ["--parsable", &script.display().to_string()])
    }

    /// Lists this user's jobs of these names, those that are over included as long as SLURM keeps them.
    pub(crate) fn queue(names: &[&str]) -> Call {
        let fields: Vec<String> = FIELDS
            .iter()
            .map(|field| format!("{field}:{SEPARATOR}"))
            .collect();
        Call::new(
            "squeue",
            [
                "--noheader",
                "--array",
                "--states=all",
                &format!("--name={}", names.join(",")),
                "--Format",
                &fields.join(","),
            ],
        )
    }

    /// Looks jobs up in the accounts, every start of each: after a requeue the last one alone would be listed.
    pub(super) fn history(tasks: &BTreeSet<TaskId>) -> Call {
        let jobs: BTreeSet<String> = tasks.iter().map(|task| task.job.to_string()).collect();
        let jobs: Vec<String> = jobs.into_iter().collect();
        Call::new(
            "sacct",
            [
                "--noheader",
                "--parsable2",
                "--allocations",
                "--duplicates",
                "--format=JobID,JobName,State,ExitCode,NodeList",
                &format!("--jobs={}", jobs.join(",")),
            ],
        )
    }

    /// Ends tasks that are in such a state, and leaves others alone: one may have changed in between.
    pub(super) fn cancel(tasks: &[TaskId], state: &str) -> Call {
        let mut call = Call::new("scancel", [format!("--state={state}").as_str()]);
        call.arguments.extend(tasks.iter().map(TaskId::to_string));
        call
    }

    /// Ends all of this user's jobs of a name.
    pub(super) fn cancel_all(name: &str) -> Call {
        Call::new("scancel", [format!("--name={name}").as_str()])
    }

    /// The cluster's settings.
    pub(super) fn settings() -> Call {
        Call::new("scontrol", ["show", "config"])
    }
}

/// Why one of SLURM's programs did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It isn't there.
    #[error("{program} can't be run; is this a node of a SLURM cluster, and SLURM on its PATH?")]
    Missing {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It took too long.
    #[error("{program} did not answer in {} s", PATIENCE.as_secs())]
    Silent {
        /// Which.
        program: &'static str,
    },
    /// It said no.
    #[error("{program} failed: {said}")]
    Failed {
        /// Which.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// It said what can't be understood.
    #[error("{program} printed what can't be understood: {said:?}")]
    Strange {
        /// Which.
        program: &'static str,
        /// What it said.
        said: String,
    },
}

impl CallError {
    /// Whether it is SLURM that has trouble, and not what it was asked.
    pub(super) fn is_temporary(&self) -> bool {
        const SIGNS: [&str; 6] = [
            "timed out",
            "Unable to contact slurm controller",
            "Connection refused",
            "Zero Bytes were transmitted",
            "temporarily unable",
            "Slurm backup controller in standby mode",
        ];
        match self {
            CallError::Silent { .. } => true,
            CallError::Failed { said, .. } => SIGNS.iter().any(|sign| said.contains(sign)),
            CallError::Missing { .. } | CallError::Strange { .. } => false,
        }
    }
}

/// Runs SLURM's programs; a fake one answers in their place.
pub(crate) trait Commands: Send + Sync + 'static {
    /// Runs one and returns what it printed.
    fn run(&self, call: Call) -> impl Future<Output = Result<String, CallError>> + Send;
}

/// The real ones, on the PATH.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Programs;

impl Commands for Programs {
    async fn run(&self, call: Call) -> Result<String, CallError> {
        let program = call.program;
        let mut command = tokio::process::Command::new(program);
        command
            .args(&call.arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        // Inside a job, what that job was given would become what is asked for. And a token is for files.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let of_a_job = text.starts_with("SLURM_") && text != "SLURM_CONF";
            if of_a_job || text.starts_with("SBATCH_") || text == "POLESTAR_TOKEN" {
                command.env_remove(name);
            }
        }
        let output = match tokio::time::timeout(PATIENCE, command.output()).await {
            Err(_) => return Err(CallError::Silent { program }),
            Ok(output) => output.map_err(|source| CallError::Missing { program, source })?,
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(CallError::Failed {
                program,
                said: match text(&output.stderr) {
                    said if said.is_empty() => output.status.to_string(),
                    said => said.replace('\n', "; "),
                },
            }),
        }
    }
}

/// Cuts so many tasks into arrays that the cluster takes, `largest` tasks each.
pub(super) fn arrays(tasks: u32, largest: u32) -> Vec<u32> {
    let largest = largest.max(1);
    let whole = std::iter::repeat_n(largest, (tasks / largest) as usize);
    let rest = Some(tasks % largest).filter(|&rest| rest > 0);
    whole.chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_cut_into_arrays_of_the_size_that_the_cluster_takes() {
        assert_eq!(arrays(10, 4), [4, 4, 2]);
        assert_eq!(arrays(4, 4), [4]);
        assert!(arrays(0, 4).is_empty());
        let call = Call::submit_array(Path::new("/f/workers.sbatch"), 4);
        assert_eq!(
            call.arguments,
            ["--parsable", "--array=0-3", "/f/workers.sbatch"]
        );
    }

    #[test]
    fn only_trouble_of_slurm_itself_is_waited_out() {
        let failed = |said: &str| CallError::Failed {
            program: "sbatch",
            said: said.to_owned(),
        };
        for temporary in [
            "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
            "slurm_load_jobs error: Socket timed out on send/recv operation",
        ] {
            assert!(failed(temporary).is_temporary(), "{temporary}");
        }
        let refused =
            "sbatch: error: Batch job submission failed: Invalid partition name specified";
        assert!(!failed(refused).is_temporary());
    }
}
