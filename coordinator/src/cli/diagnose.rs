//! `diagnose` and `replay`: what happened in a run, from the event journal in its store.

use super::{
    Error,
    inspect_run::{open, planned},
};
use crate::{
    describe::describe,
    diagnose::{Diagnosis, Incident, Outcome, Severity, diagnose},
    run::{EventHistory, Run},
    web::api::{EventPage, EventView},
};
use polestar_run::{
    Cause,
    failure::{Blame, Trouble},
};
use std::process::ExitCode;

/// What `diagnose` looks at.
#[derive(Debug, clap::Args)]
pub(super) struct DiagnoseArgs {
    /// Folder of the run, as `launch` prints it
    run: String,
    /// Only what concerns this trial
    #[arg(long, value_name = "NAME")]
    trial: Option<String>,
    /// Print JSON, as the page's API has it
    #[arg(long)]
    json: bool,
}

/// Says what went wrong. The exit code is that of the worst of it.
pub(super) async fn run(args: DiagnoseArgs) -> Result<ExitCode, Error> {
    let run = open(&args.run).await?;
    if let Some(trial) = &args.trial {
        planned(&run, trial)?;
    }
    let history = history(&run, &args.run).await?;
    let mut found = diagnose(&history);
    if let Some(trial) = &args.trial {
        found
            .incidents
            .retain(|incident| incident.trial.0 == *trial);
    }
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&found)?),
        false => print!("{}", page(&found)),
    }
    Ok(ExitCode::from(found.severity as u8))
}

/// Prints everything that happened, in order.
pub(super) async fn replay(url: &str, json: bool) -> Result<(), Error> {
    let history = history(&open(url).await?, url).await?;
    if json {
        let page = EventPage {
            entries: history.entries.into_iter().map(EventView::from).collect(),
            earlier: 0,
            unreadable: history.unreadable,
        };
        println!("{}", serde_json::to_string_pretty(&page)?);
        return Ok(());
    }
    let mut epoch = None;
    for recorded in &history.entries {
        if epoch != Some(recorded.epoch) {
            epoch = Some(recorded.epoch);
            println!("{}", recorded.epoch);
        }
        let seconds = recorded.entry.at.0.as_secs_f64();
        for line in describe(&recorded.entry.entry) {
            println!("{} {seconds:>9.3} s  {line}", recorded.time);
        }
    }
    for line in &history.unreadable {
        println!("{line} can't be read and is passed over");
    }
    Ok(())
}

async fn history(run: &Run, url: &str) -> Result<EventHistory, Error> {
    let history = run.event_history().await?;
    if history.entries.is_empty() && history.unreadable.is_empty() {
        return Err(
            format!("{url} has no event journal; `launch` writes one from its start on").into(),
        );
    }
    Ok(history)
}

fn page(found: &Diagnosis) -> String {
    let mut text = String::new();
    for incident in &found.incidents {
        text += &screen(incident);
        text.push('\n');
    }
    for fact in &found.not_stored {
        text += &format!("{fact}\n");
    }
    for line in &found.unreadable {
        text += &format!("{line} of the journal can't be read and is passed over\n");
    }
    let leaders = found.coordinators.len();
    text += &match found.severity {
        Severity::Sound => "nothing went wrong".to_owned(),
        Severity::Recovered => "everything that went wrong was made good, or will be tried again".to_owned(),
        Severity::NoEnd => {
            "the last coordinator ended without a word, or is still at work; `launch` goes on".to_owned()
        }
        Severity::Abandoned => {
            "a trial is abandoned; mend its cause and launch again, with --retry-abandoned if it can't be helped by trying again".to_owned()
        }
    };
    text += &format!(
        " ({} setbacks under {leaders} coordinators)\n",
        found.incidents.len()
    );
    text
}

/// One incident: its first cause on top, what else is known below.
fn screen(incident: &Incident) -> String {
    let Incident {
        trial,
        generation,
        time,
        cause,
        log_tail,
        outcome,
    } = incident;
    let mut text = format!("{time}  {trial}");
    if let Some(generation) = generation {
        text += &format!(", {generation}");
    }
    text += match outcome {
        Outcome::Done => ": done since\n",
        Outcome::Open => ": not done yet\n",
        Outcome::Abandoned => ": abandoned\n",
    };
    match cause {
        Cause::Ranks { first, collateral } => {
            text += &blame("first cause", first);
            for other in collateral {
                text += &blame("affected", other);
            }
        }
        cause => text += &format!("  first cause  {cause}\n"),
    }
    if let Some(tail) = log_tail {
        text += "  its log ended with\n";
        for line in tail.lines() {
            text += &format!("    {line}\n");
        }
    }
    text
}

fn blame(title: &str, blame: &Blame) -> String {
    let phase = match &blame.trouble {
        Trouble::Failed { failure } => format!(" in {}", failure.phase),
        Trouble::Stuck { stage, .. } => format!(" while {stage}"),
        Trouble::Lost => String::new(),
    };
    format!(
        "  {title:<11}  {} on {}{phase}\n               {blame}\n",
        blame.member.rank, blame.member.host
    )
}
