//! What one does with a run's best model: where its weights are, and the commands that go on from there.

use super::{Run, best, report::ReportError};
use crate::shell::quoted;
use polestar_laws::report::{BestTrial, ReportInput};
use polestar_run::checkpoint::{self, Error};

/// The best of the finished trials of a report.
pub(super) async fn best_trial(
    run: &Run,
    input: &ReportInput,
) -> Result<Option<BestTrial>, ReportError> {
    let Some(found) = best(&input.finished) else {
        return Ok(None);
    };
    let set = &input.fitted_set;
    let mut scores = input.validation.iter();
    let score = scores.find(|score| score.trial == found.name && score.set == *set);
    Ok(Some(BestTrial {
        trial: found.name.clone(),
        set: set.clone(),
        loss: found.loss,
        accuracy: score.map(|score| score.accuracy),
        checkpoint: newest(run, &found.name).await?,
        next: commands(run.folder.url(), &found.name),
    }))
}

/// URL of the newest checkpoint of a trial, if there is any.
async fn newest(run: &Run, trial: &str) -> Result<Option<String>, Error> {
    let mut trials = run.record.plan.trials.iter().map(|t| &t.config);
    let trial = trials
        .find(|config| config.id.0 == trial)
        .expect("finished trials were planned");
    let recipe = trial.recipe_id();
    let steps = checkpoint::committed(&run.store, &recipe).await?;
    let place = steps.last().map(|step| checkpoint::place(&recipe, *step));
    Ok(place.map(|place| format!("{}/{place}", run.store.url().trim_end_matches('/'))))
}

fn commands(run: &str, trial: &str) -> Vec<(String, String)> {
    let (run, trial) = (quoted(run), quoted(trial));
    // Within a word, it begins no comment.
    let model = format!("{run}#{trial}");
    [
        (
            "Export for transformers, vLLM, SGLang",
            format!("coordinator export {run} --trial {trial} --output exported"),
        ),
        (
            "Measure on a benchmark",
            format!("coordinator eval {model} BENCHMARK.jsonl"),
        ),
        ("Serve rewards", format!("coordinator serve {model}")),
    ]
    .map(|(what, command)| (what.to_owned(), command))
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_name_the_run_and_the_trial_as_a_shell_takes_them() {
        let plain = commands("s3://b/runs/first-1a", "nano-s1");
        assert_eq!(
            plain[0].1,
            "coordinator export s3://b/runs/first-1a --trial nano-s1 --output exported"
        );
        assert!(plain[1].1.contains("eval s3://b/runs/first-1a#nano-s1 "));
        let spaced = commands("/my runs/it's", "a");
        assert!(spaced[2].1.ends_with(r"serve '/my runs/it'\''s'#a"));
    }
}
