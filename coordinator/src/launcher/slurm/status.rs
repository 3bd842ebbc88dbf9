//! What a person sees of a sweep's jobs.

use super::state::{Phase, Row};
use std::collections::BTreeMap;

/// Jobs that are over, shown at most.
const MOST_OVER: usize = 10;

/// Whether one of these is a coordinator that waits or runs; says which.
pub(crate) fn is_at_work(rows: &[Row]) -> Option<&Row> {
    let mut coordinators = rows.iter().filter(|row| row.is_coordinator());
    coordinators.find(|row| row.state.phase() != Phase::Over)
}

/// A sweep's jobs by state, what each state means, and what to do. Jobs are in the order of the queue, `name` is that
/// of its workers' jobs.
pub(crate) fn describe(rows: &[Row], name: &str) -> String {
    if rows.is_empty() {
        return "no jobs of this sweep; `coordinator slurm submit` submits them\n".to_owned();
    }
    let mut text = String::new();
    let (over, active): (Vec<&Row>, Vec<&Row>) = rows
        .iter()
        .partition(|row| row.state.phase() == Phase::Over);
    // Many tasks of an array wait for one reason.
    let mut groups: BTreeMap<[String; 3], Vec<&Row>> = BTreeMap::new();
    for row in &active {
        let place = match row.nodes.as_str() {
            "" => row.state.0.clone(),
            nodes => format!("{} on {nodes}, {} left", row.state.0, row.time_left),
        };
        let key = [role(row).to_owned(), place, row.advice()];
        groups.entry(key).or_default().push(row);
    }
    for ([role, place, advice], rows) in &groups {
        text += &format!("{role} {}: {place}: {advice}\n", some_of(rows));
    }
    for row in over.iter().rev().take(MOST_OVER).rev() {
        let place = match row.nodes.as_str() {
            "" => String::new(),
            nodes => format!(" on {nodes}"),
        };
        let (role, id, state) = (role(row), row.id, &row.state.0);
        text += &format!("{role} {id}: {state}{place}: {}\n", row.advice());
    }
    if over.len() > MOST_OVER {
        text += &format!("… and {} more that are over\n", over.len() - MOST_OVER);
    }
    let workers = active.iter().any(|row| !row.is_coordinator());
    if workers && is_at_work(rows).is_none() {
        text += &format!(
            "no coordinator has a job here; if none runs on a login node either, its workers end by themselves, and \
             `scancel --name={name}` takes the rest out of the queue. `coordinator slurm submit` goes on with the sweep\n"
        );
    }
    text
}

fn role(row: &Row) -> &'static str {
    match row.is_coordinator() {
        true => "coordinator",
        false => "workers",
    }
}

/// The first jobs of a group, and how many more.
fn some_of(rows: &[&Row]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<String> = rows
        .iter()
        .take(SHOWN)
        .map(|row| row.id.to_string())
        .collect();
    let more = rows.len().saturating_sub(SHOWN);
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launcher::slurm::parse::queue;

    #[test]
    fn tasks_that_wait_for_one_reason_are_one_line_and_orphans_are_told() {
        let waiting: String = (0..9)
            .map(|task| format!("7|{task}|s-workers|PENDING|Priority|0|0||4:00:00|7|\n"))
            .collect();
        let running = "6|0|s-workers|RUNNING|None|1|0|n1|3:10:00|8|\n";
        let ended = "5|N/A|s-coordinator|TIMEOUT|None|0|0|n2|0:00|5|\n";
        let rows = queue(&format!("{waiting}{running}{ended}")).unwrap();
        let text = describe(&rows, "s-workers");
        for line in [
            "workers 7_0, 7_1, 7_2, 7_3 and 5 more: PENDING: waits behind jobs of higher priority\n",
            "workers 6_0: RUNNING on n1, 3:10:00 left: at work\n",
            "coordinator 5: TIMEOUT on n2: its time was over; `coordinator slurm submit` goes on",
            "no coordinator has a job here",
            "`scancel --name=s-workers`",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(is_at_work(&rows).is_none());
    }
}
