//! What a person sees of a sweep's jobs.

use super::state::{Phase, Row};
use std::collections::BTreeMap;

/// What jobs of the coordinator's role are named by in the end.
const COORDINATOR: &str = "-coordinator";

/// Jobs that are over, shown at most.
const MOST_OVER: usize = 10;

/// Whether one of these is a coordinator that waits or runs; says which.
pub(crate) fn is_at_work(rows: &[Row]) -> Option<&Row> {
    let mut coordinators = rows.iter().filter(|row| row.name.ends_with(COORDINATOR));
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
    let mut groups: BTreeMap<(&str, bool, &str, String), Vec<&Row>> = BTreeMap::new();
    for row in &active {
        let is_worker = !row.name.ends_with(COORDINATOR);
        let place = match row.nodes.as_str() {
            "" => String::new(),
            nodes => format!(" on {nodes}, {} left", row.time_left),
        };
        let key = (role(row), is_worker, row.state.0.as_str(), place);
        groups.entry(key).or_default().push(row);
    }
    for ((role, _, state, place), rows) in &groups {
        let jobs = some_of(rows);
        let advice = rows[0].advice();
        text += &format!("{role} {jobs}: {state}{place}: {advice}\n");
    }
    for row in over.iter().rev().take(MOST_OVER).rev() {
        text += &format!(
            "{} {}: {}: {}\n",
            role(row),
            row.id,
            row.outcome(),
            row.advice()
        );
    }
    if over.len() > MOST_OVER {
        text += &format!("… and {} more that are over\n", over.len() - MOST_OVER);
    }
    let workers = active.iter().any(|row| !row.name.ends_with(COORDINATOR));
    if workers && is_at_work(rows).is_none() {
        text += &format!(
            "no coordinator has a job here; if none runs on a login node either, its workers end by themselves, and \
             `scancel --name={name}` takes the rest out of the queue. `coordinator slurm submit` goes on with the sweep\n"
        );
    }
    text
}

fn role(row: &Row) -> &'static str {
    match row.name.ends_with(COORDINATOR) {
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
