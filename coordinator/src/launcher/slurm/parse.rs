//! What SLURM's programs print.

use super::{
    calls::{CallError, SEPARATOR},
    state::{Exit, Row, State, TaskId},
};

/// The number of a job that `sbatch --parsable` has submitted: `12`, or `12;cluster`.
pub(crate) fn submitted(said: &str) -> Result<u64, CallError> {
    let last = said.lines().next_back().unwrap_or_default();
    let number = last.split(';').next().unwrap_or_default().trim();
    number.parse().map_err(|_| CallError::Strange {
        program: "sbatch",
        said: said.to_owned(),
    })
}

/// The jobs that `squeue` lists.
pub(crate) fn queue(said: &str) -> Result<Vec<Row>, CallError> {
    let lines = said.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            queued(line).ok_or_else(|| CallError::Strange {
                program: "squeue",
                said: line.to_owned(),
            })
        })
        .collect()
}

fn queued(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split(SEPARATOR).map(str::trim).collect();
    let [
        array,
        task,
        name,
        state,
        reason,
        restarts,
        exit,
        nodes,
        time_left,
        ..,
    ] = fields[..]
    else {
        return None;
    };
    Some(Row {
        id: TaskId {
            job: array.parse().ok()?,
            task: match task {
                "N/A" => None,
                number => Some(number.parse().ok()?),
            },
        },
        name: name.to_owned(),
        state: State(word(state)?),
        reason: reason.to_owned(),
        restarts: restarts.parse().ok()?,
        exit: exit_of(exit)?,
        nodes: nodes.to_owned(),
        time_left: time_left.to_owned(),
    })
}

/// A state without what may follow it, as in `CANCELLED by 1000` or `CANCELLED+`.
fn word(state: &str) -> Option<String> {
    let word = state.split([' ', '+']).next().unwrap_or_default();
    (!word.is_empty()).then(|| word.to_owned())
}

/// `CODE:SIGNAL`, or both in one number as wait(2) has them.
fn exit_of(text: &str) -> Option<Exit> {
    if let Some((code, signal)) = text.split_once(':') {
        return Some(Exit {
            code: code.parse().ok()?,
            signal: signal.parse().ok()?,
        });
    }
    let status: u32 = text.parse().ok()?;
    Some(Exit {
        code: (status >> 8 & 0xff) as u8,
        signal: (status & 0x7f) as u8,
    })
}

/// The starts of jobs that `sacct --duplicates` lists, each as a row: the oldest of a task has no restart, the next
/// one has 1. Steps, and tasks that have no number yet, are left out.
pub(crate) fn history(said: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for line in said.lines() {
        let Some(mut row) = accounted(line) else {
            continue;
        };
        row.restarts = rows.iter().filter(|r| r.id == row.id).count() as u32;
        rows.push(row);
    }
    rows
}

fn accounted(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split('|').collect();
    let [id, name, state, exit, nodes] = fields[..] else {
        return None;
    };
    let id = match id.split_once('_') {
        Some((job, task)) => TaskId {
            job: job.parse().ok()?,
            task: Some(task.parse().ok()?),
        },
        None => TaskId {
            job: id.parse().ok()?,
            task: None,
        },
    };
    Some(Row {
        id,
        name: name.to_owned(),
        state: State(word(state)?),
        reason: String::new(),
        restarts: 0,
        exit: exit_of(exit)?,
        nodes: match nodes {
            "None assigned" => String::new(),
            nodes => nodes.to_owned(),
        },
        time_left: String::new(),
    })
}

/// The most tasks that an array may have, by `scontrol show config`: numbers go up to one below MaxArraySize.
pub(crate) fn largest_array(said: &str) -> Option<u32> {
    said.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        let value = value.trim().parse().ok()?;
        (key.trim() == "MaxArraySize").then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launcher::slurm::state::Phase;

    /// As slurm-wlm 22.05.8 printed it: two tasks that were preempted and put back, one that waits and one that was
    /// cancelled, one that left on a warning, and a job that is no array.
    const SQUEUE: &str = "\
1|2|w|PENDING|Resources|0|0||1:00:00|1|
1|3|w|CANCELLED|BeginTime|1|0||1:00:00|1|
1|0|w|PENDING|BeginTime|1|0||1:00:00|2|
1|1|w|RUNNING|None|0|0|n[1-2]|59:58|3|
3|0|w|PREEMPTED|None|0|20480|n1|59:58|4|
5|N/A|c|COMPLETED|None|0|0|n[1-2]|59:58|5|
";

    #[test]
    fn a_queue_is_read_as_slurm_prints_it() {
        let rows = queue(SQUEUE).unwrap();
        let phases: Vec<Phase> = rows.iter().map(|row| row.state.phase()).collect();
        use Phase::{Over, Running, Waiting};
        assert_eq!(phases, [Waiting, Over, Waiting, Running, Over, Over]);
        assert_eq!(
            (rows[2].id.to_string(), rows[2].restarts),
            ("1_0".to_owned(), 1)
        );
        assert_eq!(
            rows[4].exit,
            Exit {
                code: 80,
                signal: 0
            }
        );
        assert_eq!(rows[5].id, TaskId { job: 5, task: None });
        assert!(queue("").unwrap().is_empty());
        let said = queue("slurm_load_jobs error: something new").unwrap_err();
        assert!(said.to_string().contains("something new"), "{said}");
    }

    /// As slurm-wlm 22.05.8 with accounts printed it: the tasks 0 and 2 were put back into the queue, by hand and
    /// because their node went down, and all three were cancelled in the end.
    const SACCT: &str = "\
1_0|w|REQUEUED|0:0|n1
1_1|w|CANCELLED by 0|0:0|n2
1_2|w|NODE_FAIL|0:0|n1
1_0|w|CANCELLED by 0|0:0|None assigned
1_2|w|CANCELLED by 0|0:0|None assigned
1_[3-4]|w|PENDING|0:0|None assigned
";

    #[test]
    fn a_task_that_was_requeued_is_looked_up_start_by_start() {
        let rows = history(SACCT);
        let short: Vec<String> = rows
            .iter()
            .map(|row| format!("{}.{} {}{}", row.id, row.restarts, row.state.0, row.nodes))
            .collect();
        assert_eq!(
            short,
            [
                "1_0.0 REQUEUEDn1",
                "1_1.0 CANCELLEDn2",
                "1_2.0 NODE_FAILn1",
                "1_0.1 CANCELLED",
                "1_2.1 CANCELLED",
            ]
        );
        let failed = history("9_0|w|FAILED|80:0|n2\n");
        assert_eq!(failed[0].exit.code, 80);
    }

    #[test]
    fn numbers_are_found_where_they_are() {
        assert_eq!(submitted("12").unwrap(), 12);
        assert_eq!(
            submitted("sbatch: a note of the site\n12;cluster").unwrap(),
            12
        );
        assert!(submitted("").is_err());
        let settings = "MailProg                = /usr/bin/mail\nMaxArraySize            = 4\n";
        assert_eq!(largest_array(settings), Some(4));
    }
}
