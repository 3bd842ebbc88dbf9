//! What happened, in words: as `launch` prints it, and `replay` afterwards.

use crate::{control::Entry, run::set_title};
use polestar_core::{Generation, TrialId};
use polestar_run::{
    Event,
    failure::{Blame, Member, Trouble},
};

/// The lines that an entry is told in; none for what is only for bars.
pub(crate) fn describe(entry: &Entry) -> Vec<String> {
    let line = match entry {
        Entry::Progress {
            trial,
            generation,
            event,
        } => return progress(trial, *generation, event),
        Entry::ProcessEnded {
            status, log_tail, ..
        } => {
            let mut lines = vec![format!("a worker process ended ({status})")];
            lines.extend(log_tail.lines().map(|line| format!("  {line}")));
            return lines;
        }
        Entry::RankFailed {
            trial,
            blame,
            members,
            ..
        } => return failed(trial, blame, members),
        Entry::Began {
            epoch,
            leader,
            trials,
        } => format!("a coordinator leads in {epoch} ({leader}); {trials} trials are unfinished"),
        Entry::Ended { verdict, .. } => format!("the coordinator ended: {verdict}"),
        Entry::Joined { worker, inventory } => format!("{worker} joined ({inventory})"),
        Entry::Left { worker } => format!("{worker} left"),
        Entry::Retired {
            worker,
            launch,
            reason,
        } => {
            let process = launch.as_ref().map(|launch| format!("process {launch}"));
            let who = worker.map(|worker| worker.to_string()).or(process);
            let who = who.unwrap_or_else(|| "a worker".to_owned());
            format!("{who} is ended: {reason}")
        }
        Entry::SpawnFailed { message } => {
            format!("a worker process could not be started: {message}")
        }
        Entry::Done { trial, digest } => format!("{trial} done, digest {digest}"),
        Entry::Retried { trial, cause, .. } => {
            format!("{trial} is tried again: {cause}")
        }
        Entry::Abandoned { trial, cause } => format!("{trial} is abandoned: {cause}"),
        Entry::Reopened { trial } => format!("{trial} is tried again: somebody asked for it"),
        Entry::Leaving { worker } => {
            format!("{worker} will be gone soon; what it trains is saved")
        }
        Entry::LetGo { worker } => format!("{worker} is let go: what is left can't use it"),
        Entry::Drained { trial, step, .. } => {
            format!("{trial} is saved at step {} and waits", step.0)
        }
        Entry::TakenOver {
            trial,
            generation,
            members,
        } => format!(
            "{trial} goes on: its {} workers are back ({generation})",
            members.len()
        ),
        Entry::Paused => {
            "the store doesn't answer; what trains goes on, and nothing new begins until it does"
                .to_owned()
        }
        Entry::Resumed => "the store answers again".to_owned(),
        Entry::NotStored {
            fact,
            message,
            again_in,
        } => {
            let then = match again_in {
                Some(seconds) => format!("tried again in {seconds} s"),
                None => "not tried again".to_owned(),
            };
            format!("{fact} could not be stored, {then}: {message}")
        }
    };
    vec![line]
}

fn failed(trial: &TrialId, blame: &Blame, members: &[Member]) -> Vec<String> {
    let Trouble::Failed { failure } = &blame.trouble else {
        return Vec::new();
    };
    let ranks: Vec<String> = members
        .iter()
        .map(|member| format!("{} is {}", member.rank, member.place()))
        .collect();
    vec![
        format!("{trial}: {} {failure}", blame.member.worker),
        format!("({})", ranks.join(", ")),
    ]
}

fn progress(trial: &TrialId, generation: Generation, event: &Event) -> Vec<String> {
    match event {
        Event::Begun {
            step,
            steps,
            from,
            seconds,
            passed_over,
        } => {
            let damages = passed_over
                .iter()
                .map(|damage| format!("{trial}: a damaged checkpoint is passed over: {damage}"));
            let how = match step.0 {
                0 => "begins".to_owned(),
                done => format!("resumes after step {done} from {from}"),
            };
            let begins =
                format!("{trial} {how} ({steps} steps, {generation}, ready in {seconds:.1} s)");
            damages.chain([begins]).collect()
        }
        Event::Validated { step, scores } => {
            let parts: Vec<String> = scores
                .iter()
                .map(|(set, score)| format!("{} {score}", set_title(set)))
                .collect();
            vec![format!("{trial} step {}: {}", step.0, parts.join("; "))]
        }
        Event::Underway { parts } => {
            let total: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
            let parts: Vec<String> = parts
                .iter()
                .map(|(name, seconds)| format!("{name} {seconds:.2}"))
                .collect();
            let parts = parts.join(", ");
            vec![format!(
                "{trial}: first step {total:.2} s after the start ({parts})"
            )]
        }
        Event::Stepped { .. } | Event::Rows { .. } | Event::Saved { .. } | Event::Measured(_) => {
            Vec::new()
        }
    }
}
