//! Which checkpoint somebody means: a run and a trial of it, or a folder in a store.

use super::{Run, RunError};
use crate::sweep::{PlannedTrial, TrialRole};
use polestar_core::Step;
use polestar_run::{
    Trial,
    checkpoint::{self, Manifest},
};
use polestar_store::Store;

/// What is asked for.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CheckpointArgs {
    /// Folder of a run, as `launch` prints it, or of a trial or checkpoint in its store
    #[arg(value_name = "CHECKPOINT_URL")]
    pub url: String,
    /// The trial, where the folder is a run's that has several
    #[arg(long, value_name = "TRIAL")]
    pub trial: Option<String>,
    /// The checkpoint after so many steps [default: the newest]; 0 for the weights that the trial begins with
    #[arg(long, value_name = "STEPS")]
    pub step: Option<u64>,
}

impl CheckpointArgs {
    /// Refuses options that say another trial or step than the folder does.
    fn agrees(&self, trial: &PlannedTrial, step: Option<Step>) -> Result<(), ChosenError> {
        let contradicts = |there: String, option| ChosenError::Contradicts {
            url: self.url.clone(),
            there,
            option,
        };
        let id = &trial.config.id.0;
        if self.trial.as_ref().is_some_and(|named| named != id) {
            return Err(contradicts(format!("trial {id}"), "--trial"));
        }
        match (self.step, step) {
            (Some(asked), Some(Step(there))) if asked != there => {
                Err(contradicts(format!("step {there}"), "--step"))
            }
            _ => Ok(()),
        }
    }
}

/// Why it can't be told.
#[derive(Debug, thiserror::Error)]
pub enum ChosenError {
    /// The run can't be read.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] polestar_store::Error),
    /// The checkpoint can't be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The folder is none of these.
    #[error(
        "{url} is no folder of a run, nor STORE/trials/ID, nor STORE/trials/ID/checkpoints/STEP; `coordinator status RUN` prints the folder of each trial"
    )]
    NoPlace {
        /// What was given.
        url: String,
    },
    /// No run of the store has that trial.
    #[error(
        "no run of {store} has the trial that {folder} is of; give the run's folder and --trial"
    )]
    NoRun {
        /// The store.
        store: String,
        /// The trial's folder.
        folder: String,
    },
    /// The run has several trials, or not that one.
    #[error("{run} has {what}; say with --trial which: {trials}")]
    Which {
        /// The run.
        run: String,
        /// Why it isn't clear.
        what: String,
        /// Those that there are.
        trials: String,
    },
    /// The folder says one thing and an option another.
    #[error(
        "{url} is of {there}, and {option} says another: leave it out, or give the run's folder"
    )]
    Contradicts {
        /// What was given.
        url: String,
        /// What the folder is of.
        there: String,
        /// The option.
        option: &'static str,
    },
    /// There is no checkpoint after that step.
    #[error("{trial} has no checkpoint{after}; {there}")]
    NoCheckpoint {
        /// The trial.
        trial: String,
        /// After which step, if it was said.
        after: String,
        /// What there is.
        there: String,
    },
}

/// A checkpoint of a trial of a run, or its beginning.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The run.
    pub run: Run,
    /// The trial.
    pub trial: PlannedTrial,
    /// Its checkpoint; none for the weights that it begins with.
    pub manifest: Option<Manifest>,
}

impl Chosen {
    /// Finds it.
    ///
    /// # Errors
    /// [`ChosenError`] says what there is instead.
    pub async fn find(args: &CheckpointArgs) -> Result<Chosen, ChosenError> {
        let (run, trial, step) = match args.url.split_once("/trials/") {
            Some((store, rest)) => {
                let (run, trial, step) = in_store(&args.url, store, rest).await?;
                args.agrees(&trial, step)?;
                (run, trial, args.step.map(Step).or(step))
            }
            None => {
                let run = Run::open(Store::open_existing(&args.url)?).await?;
                let trial = of_run(&run, args.trial.as_deref())?;
                (run, trial, args.step.map(Step))
            }
        };
        let manifest = match step {
            Some(Step(0)) => None,
            step => Some(manifest(&run, &trial.config, step).await?),
        };
        Ok(Chosen {
            run,
            trial,
            manifest,
        })
    }

    /// Steps done.
    pub fn step(&self) -> Step {
        self.manifest.as_ref().map_or(Step(0), |m| m.step)
    }
}

/// The trial of a run that is meant.
///
/// # Errors
/// [`ChosenError::Which`].
pub fn of_run(run: &Run, wanted: Option<&str>) -> Result<PlannedTrial, ChosenError> {
    let trials = &run.record.plan.trials;
    let points = trials.iter().filter(|t| t.role == TrialRole::Point);
    let found: Vec<&PlannedTrial> = match wanted {
        Some(name) => trials.iter().filter(|t| t.config.id.0 == name).collect(),
        None => points.collect(),
    };
    let names = trials.iter().map(|t| t.config.id.0.as_str());
    match (found[..].first(), found.len(), wanted) {
        (Some(only), 1, _) => Ok((*only).clone()),
        (_, count, wanted) => Err(ChosenError::Which {
            run: run.record.run.clone(),
            what: match wanted {
                Some(name) => format!("no trial '{name}'"),
                None => format!("{count} trials"),
            },
            trials: names.collect::<Vec<_>>().join(", "),
        }),
    }
}

/// The trial, and the step, of a folder `STORE/trials/ID[/checkpoints/STEP]`.
async fn in_store(
    url: &str,
    store: &str,
    rest: &str,
) -> Result<(Run, PlannedTrial, Option<Step>), ChosenError> {
    let parts: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
    let no_place = || ChosenError::NoPlace {
        url: url.to_owned(),
    };
    let (id, step) = match parts[..] {
        [id] | [id, "checkpoints"] => (id, None),
        [id, "checkpoints", step] => (id, Some(Step(step.parse().map_err(|_| no_place())?))),
        _ => return Err(no_place()),
    };
    let store = Store::open_existing(store)?;
    let folder = format!("trials/{id}");
    for name in store.folders().await? {
        let run = match Run::open(store.child(&name)).await {
            Ok(run) => run,
            Err(RunError::NoRun { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut trials = run.record.plan.trials.iter();
        if let Some(trial) = trials.find(|t| t.recipe_id.folder() == folder) {
            let trial = trial.clone();
            return Ok((run, trial, step));
        }
    }
    Err(ChosenError::NoRun {
        store: store.url().to_owned(),
        folder,
    })
}

async fn manifest(run: &Run, trial: &Trial, step: Option<Step>) -> Result<Manifest, ChosenError> {
    let recipe = trial.recipe_id();
    let committed = checkpoint::committed(&run.store, &recipe).await?;
    let found = match step {
        Some(step) => committed.contains(&step).then_some(step),
        None => committed.last().copied(),
    };
    match found {
        Some(step) => Ok(checkpoint::open(&run.store, &recipe, step).await?),
        None => {
            let steps: Vec<String> = committed.iter().map(|step| step.0.to_string()).collect();
            Err(ChosenError::NoCheckpoint {
                trial: trial.id.0.clone(),
                after: step.map_or_else(String::new, |step| format!(" after step {}", step.0)),
                there: match steps.is_empty() {
                    true => {
                        "it hasn't come that far yet; --step 0 is what it begins with".to_owned()
                    }
                    false => format!("there are those after steps {}", steps.join(", ")),
                },
            })
        }
    }
}
