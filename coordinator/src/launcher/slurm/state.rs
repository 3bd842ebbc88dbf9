//! What SLURM says of a job: where it is in its life, how it ended, and what that means to whoever submitted it.

use polestar_worker::agent::exit;
use std::fmt;

/// A job, or a task of a job array, by the array's number and the task's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TaskId {
    /// The array's job number, which all of its tasks share.
    pub(crate) job: u64,
    /// The task's number; none for a job that is no array.
    pub(crate) task: Option<u32>,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.task {
            Some(task) => write!(f, "{}_{task}", self.job),
            None => write!(f, "{}", self.job),
        }
    }
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has no nodes, or none that is ready yet.
    Waiting,
    /// Its processes run.
    Running,
    /// Its processes are being ended, or it is in a state that this version doesn't know.
    Between,
    /// It comes to nothing any more.
    Over,
}

/// A job's state, by SLURM's word for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State(pub(crate) String);

impl State {
    pub(crate) fn phase(&self) -> Phase {
        match self.0.as_str() {
            "PENDING" | "REQUEUED" | "REQUEUE_FED" | "REQUEUE_HOLD" | "RESV_DEL_HOLD"
            | "SPECIAL_EXIT" | "CONFIGURING" => Phase::Waiting,
            "RUNNING" | "SUSPENDED" | "STOPPED" | "RESIZING" | "SIGNALING" => Phase::Running,
            "COMPLETED" | "CANCELLED" | "FAILED" | "TIMEOUT" | "NODE_FAIL" | "PREEMPTED"
            | "BOOT_FAIL" | "DEADLINE" | "OUT_OF_MEMORY" | "REVOKED" | "LAUNCH_FAILED"
            | "RECONFIG_FAIL" => Phase::Over,
            _ => Phase::Between,
        }
    }
}

/// How a job's processes ended: an exit code and a signal, as SLURM writes `CODE:SIGNAL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: u8,
    pub(crate) signal: u8,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (code, 0) => match exit::meaning(code) {
                Some(meaning) => write!(f, "exit code {code}: {meaning}"),
                None => write!(f, "exit code {code}"),
            },
            (_, signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

/// One job as `squeue` or `sacct` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: TaskId,
    /// Its name, by which a run's jobs are told from others.
    pub(crate) name: String,
    pub(crate) state: State,
    /// Why it waits, or ended.
    pub(crate) reason: String,
    /// How often it was put back into the queue.
    pub(crate) restarts: u32,
    pub(crate) exit: Exit,
    /// Its nodes, as in `n[1-2]`; empty for one that has none.
    pub(crate) nodes: String,
    /// What is left of its time, as SLURM writes it; empty where that isn't known.
    pub(crate) time_left: String,
}

impl Row {
    /// Whether it is a coordinator's job, and not one of workers.
    pub(crate) fn is_coordinator(&self) -> bool {
        self.name.ends_with("-coordinator")
    }

    /// How it is, or how it ended, for people.
    pub(crate) fn outcome(&self) -> String {
        let mut text = self.state.0.clone();
        if self.exit != Exit::default() || text == "COMPLETED" {
            text += &format!(", {}", self.exit);
        }
        if !self.nodes.is_empty() {
            text += &format!(", on {}", self.nodes);
        }
        text
    }

    /// What this means, and what to do about it if anything.
    pub(crate) fn advice(&self) -> String {
        match self.state.phase() {
            Phase::Waiting => waiting(&self.state.0, &self.reason).to_owned(),
            Phase::Running => "at work".to_owned(),
            Phase::Between => "its processes are being ended".to_owned(),
            Phase::Over => self.ended(),
        }
    }

    fn ended(&self) -> String {
        match (self.state.0.as_str(), self.exit.code) {
            ("COMPLETED", _) => "done; nothing to do".into(),
            ("FAILED", code) => match exit::meaning(code).filter(|_| !self.is_coordinator()) {
                Some(meaning) => meaning.into(),
                None => "it failed; its log says why".into(),
            },
            ("CANCELLED", _) if self.is_coordinator() => {
                "somebody cancelled it; `coordinator slurm submit` goes on".into()
            }
            ("CANCELLED", _) => "its coordinator, or somebody else, cancelled it".into(),
            ("TIMEOUT", _) if self.is_coordinator() => {
                "its time was over; `coordinator slurm submit` goes on, pool.slurm.coordinator.time gives it more".into()
            }
            ("TIMEOUT", _) => "its time was over; a longer pool.slurm.time makes that rarer".into(),
            ("NODE_FAIL" | "BOOT_FAIL", _) => "its node broke; nothing to do".into(),
            ("PREEMPTED", _) => "another job took its nodes; nothing to do".into(),
            ("OUT_OF_MEMORY", _) => {
                "it needed more memory than it asked for; raise pool.slurm.memory".into()
            }
            ("DEADLINE", _) => "it could not have ended before its deadline".into(),
            _ => format!("it ended as {}", self.state.0),
        }
    }
}

/// Why a job waits, and what to do, by SLURM's word for the reason.
fn waiting(state: &str, reason: &str) -> &'static str {
    if state == "CONFIGURING" {
        return "its nodes are being made ready";
    }
    match reason {
        "Resources" => "next in line: waits until enough nodes are free",
        "Priority" => "waits behind jobs of higher priority",
        "BeginTime" => {
            "was put back into the queue; SLURM starts it again after a pause of two minutes or so"
        }
        "Dependency" => "waits for another job",
        "JobHeldUser" | "JobHeldAdmin" => "held; `scontrol release` lets it go",
        "PartitionTimeLimit" => {
            "asks for more time than its partition gives and will never start; lower pool.slurm.time"
        }
        "PartitionNodeLimit" => {
            "asks for more nodes than its partition gives and will never start; lower pool.slurm.nodes"
        }
        "PartitionDown" | "PartitionInactive" => "its partition takes no jobs at the moment",
        "ReqNodeNotAvail" | "Reservation" => {
            "the nodes that it could have are down or reserved; see `sinfo`"
        }
        "BadConstraints" => "no node is what it asks for; see pool.slurm.constraint",
        "launch_failed_requeued_held" | "JobHoldMaxRequeue" => {
            "could not be started and is held; the node's slurmd log says why, `scontrol release` tries again"
        }
        "None" | "" => "has just come in",
        reason if reason.starts_with("QOS") || reason.starts_with("Assoc") => {
            "waits because of a limit of its account or quality of service; `sacctmgr show qos` lists them"
        }
        _ => "waits in the queue; `man squeue` explains the reason",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_from_the_future_is_no_end() {
        for word in ["COMPLETING", "HIBERNATING"] {
            assert_eq!(State(word.into()).phase(), Phase::Between, "{word}");
        }
    }

    #[test]
    fn a_limit_that_can_never_be_met_is_told_with_its_key() {
        let row = Row {
            id: TaskId {
                job: 7,
                task: Some(0),
            },
            name: "n".into(),
            state: State("PENDING".into()),
            reason: "PartitionTimeLimit".into(),
            restarts: 0,
            exit: Exit::default(),
            nodes: String::new(),
            time_left: String::new(),
        };
        assert!(row.advice().contains("pool.slurm.time"), "{}", row.advice());
        let failed = Row {
            state: State("FAILED".into()),
            exit: Exit {
                code: exit::REFUSED,
                signal: 0,
            },
            ..row
        };
        assert!(failed.outcome().contains("exit code 78"), "{failed:?}");
    }
}
