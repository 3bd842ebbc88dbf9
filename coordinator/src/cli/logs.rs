//! `logs`: what a run's workers logged, rank by rank, with what several say said once.

use super::{Error, inspect_run};
use crate::{
    control::Entry,
    run::{KeptLog, Run, kept_logs},
};
use polestar_core::Rank;
use polestar_run::{lease, logged::Section};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

#[derive(Debug, clap::Args)]
pub(super) struct LogsArgs {
    /// Folder of the run, as `launch` prints it
    run: String,
    /// Only of this trial
    #[arg(long, value_name = "TRIAL")]
    trial: Option<String>,
    /// Only of this rank
    #[arg(long, value_name = "N")]
    rank: Option<u32>,
    /// Go on with what comes, as long as a coordinator leads the run
    #[arg(long)]
    follow: bool,
}

/// As often as a launch keeps more of its logs.
const PACE: Duration = Duration::from_secs(2);

/// Prints what was logged.
pub(super) async fn run(args: &LogsArgs) -> Result<(), Error> {
    let run = inspect_run::open(&args.run).await?;
    if let Some(trial) = &args.trial {
        inspect_run::planned(&run, trial)?;
    }
    let mut printed = BTreeMap::new();
    loop {
        let led = lease::read(&run.folder).await?;
        let led = led.is_some_and(|seen| !seen.record.is_free());
        let hosts = hosts(&run).await?;
        let logs = kept_logs(&run.folder).await?;
        let none = logs.is_empty();
        let mut lines: Vec<Line> = Vec::new();
        for log in &logs {
            let host = hosts.get(&log.process).cloned();
            let from = printed.insert(log.process.clone(), end(log)).unwrap_or(0);
            lines.extend(lines_of(log, host.unwrap_or_default(), from));
        }
        lines.retain(|line| args.wants(line));
        for text in collapsed(lines) {
            println!("{text}");
        }
        if none && !args.follow {
            eprintln!(
                "no logs are kept of this run: `launch` keeps those of workers that it starts on its own machine"
            );
        }
        if !args.follow || !led {
            return Ok(());
        }
        tokio::time::sleep(PACE).await;
    }
}

impl LogsArgs {
    fn wants(&self, line: &Line) -> bool {
        let section = line.section.as_ref();
        let trial = self.trial.as_ref();
        let rank = self.rank;
        trial.is_none_or(|trial| section.is_some_and(|s| s.trial.0 == *trial))
            && rank.is_none_or(|rank| section.is_some_and(|s| s.rank.0 == rank))
    }
}

/// The hosts of processes, by the launcher's names of these.
async fn hosts(run: &Run) -> Result<BTreeMap<String, String>, Error> {
    let history = run.event_history().await?;
    let joined = history.entries.into_iter().filter_map(|recorded| {
        let Entry::Joined { inventory, .. } = recorded.entry.entry else {
            return None;
        };
        Some((inventory.launch?.0, inventory.host))
    });
    Ok(joined.collect())
}

/// Bytes of a log, with those that are not kept.
fn end(log: &KeptLog) -> u64 {
    log.missing + log.text.len() as u64
}

/// A line of a log, and whose it is.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    process: String,
    host: String,
    /// The rank that the process was; none before it was one.
    section: Option<Section>,
    /// When, as the log says; of a line that doesn't, that of the one before.
    time: String,
    text: String,
}

/// The lines of a log behind so many bytes.
fn lines_of(log: &KeptLog, host: String, from: u64) -> Vec<Line> {
    let (mut at, mut section, mut time) = (log.missing, None, String::new());
    let mut lines = Vec::new();
    for text in log.text.split_inclusive('\n') {
        at += text.len() as u64;
        let text = text.trim_end();
        if let Some(begins) = Section::parse(text) {
            section = Some(begins);
            continue;
        }
        if let (Some(found), _) = timed(text) {
            time = found.to_owned();
        }
        if at > from && !text.is_empty() {
            lines.push(Line {
                process: log.process.clone(),
                host: host.clone(),
                section: section.clone(),
                time: time.clone(),
                text: text.to_owned(),
            });
        }
    }
    lines
}

/// A line's time, if it begins with one, and the rest.
fn timed(text: &str) -> (Option<&str>, &str) {
    let word = text.split(' ').next().unwrap_or_default();
    let is_time =
        word.ends_with('Z') && word.contains('T') && word.starts_with(|c: char| c.is_ascii_digit());
    match is_time {
        true => (Some(word), text[word.len()..].trim_start()),
        false => (None, text),
    }
}

/// The lines in the order of their times. What several ranks of a generation say is there once, where the first
/// says it.
fn collapsed(mut lines: Vec<Line>) -> Vec<String> {
    lines.sort_by(|a, b| a.time.cmp(&b.time));
    // How often a rank has said it: what it says again is a line of its own.
    let mut times = BTreeMap::new();
    let mut places = BTreeMap::new();
    let mut groups: Vec<(Line, BTreeSet<u32>)> = Vec::new();
    for line in lines {
        let Some(section) = &line.section else {
            groups.push((line, BTreeSet::new()));
            continue;
        };
        let what = (
            section.trial.0.clone(),
            section.generation.clone(),
            timed(&line.text).1.to_owned(),
        );
        let Rank(rank) = section.rank;
        let nth = times.entry((what.clone(), rank)).or_insert(0);
        *nth += 1;
        let place = *places.entry((what, *nth)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, ranks)) => {
                ranks.insert(rank);
            }
            None => groups.push((line, BTreeSet::from([rank]))),
        }
    }
    groups
        .iter()
        .map(|(line, ranks)| told(line, ranks))
        .collect()
}

fn told(line: &Line, ranks: &BTreeSet<u32>) -> String {
    let host = match &*line.host {
        "" => &line.process,
        host => host,
    };
    let text = &line.text;
    let Some(section) = &line.section else {
        return format!("{host}:-: {text}");
    };
    let trial = &section.trial;
    match ranks.len() {
        0 | 1 => format!("{trial} {host}:{}: {text}", section.rank.0),
        all if all == section.world as usize => format!("{trial} all {all} ranks: {text}"),
        _ => format!("{trial} ranks {}: {text}", ranges(ranks)),
    }
}

/// Numbers with runs of them drawn together: `0, 2–7`.
fn ranges(numbers: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let told = ranges.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first}–{last}"),
    });
    told.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(rank: u32, lines: &str) -> Vec<Line> {
        let text = format!("starting\n==== t: rank {rank} of 4, generation 1.1\n{lines}");
        let log = KeptLog {
            process: format!("local-7-{rank}"),
            missing: 0,
            text,
        };
        lines_of(&log, "vm".to_owned(), 9)
    }

    #[test]
    fn what_ranks_have_in_common_is_said_once_and_nothing_is_lost() {
        let slow = "2026-01-01T00:00:01Z  WARN the store is slow\n";
        let lost = "2026-01-01T00:00:02Z  WARN rank 2 is gone\n";
        let mut lines = Vec::new();
        for rank in [0, 1, 3] {
            lines.extend(log(rank, &format!("{slow}{lost}")));
        }
        let fails = "2026-01-01T00:00:00Z ERROR out of memory\n  at allocation 7\n";
        lines.extend(log(2, &format!("{fails}{slow}{slow}")));
        assert_eq!(
            collapsed(lines),
            [
                "t vm:2: 2026-01-01T00:00:00Z ERROR out of memory",
                "t vm:2:   at allocation 7",
                "t all 4 ranks: 2026-01-01T00:00:01Z  WARN the store is slow",
                "t vm:2: 2026-01-01T00:00:01Z  WARN the store is slow",
                "t ranks 0, 1, 3: 2026-01-01T00:00:02Z  WARN rank 2 is gone",
            ]
        );
        assert_eq!(ranges(&BTreeSet::from([0, 2, 3, 4, 7])), "0, 2–4, 7");
    }

    #[test]
    fn a_line_before_any_rank_has_its_process_and_what_was_printed_is_not_again() {
        let log = KeptLog {
            process: "local-7-1".to_owned(),
            missing: 100,
            text: "one\ntwo\n".to_owned(),
        };
        let texts = collapsed(lines_of(&log, String::new(), 104));
        assert_eq!(texts, ["local-7-1:-: two"]);
    }
}
