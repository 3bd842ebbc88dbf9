//! Reading a sweep file, with errors that name file, line and key, and the nearest known key.

use super::{
    EvaluationSet, PoolTable, StartTable, Sweep, Workers, WorkersPerTrial, explain,
    variants::MAX_STEPS,
};
use crate::{control::ListenAddress, evaluate, launcher::LauncherKind};
use polestar_core::{Objective, near};
use polestar_dataset::Wrapper;
use polestar_run::placement::Reduction;
use std::path::{Path, PathBuf};

/// Letters of a name: folders are named by it and a digest, and file systems end at 255.
const LONGEST_NAME: usize = 100;

/// Why a sweep file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file can't be opened.
    #[error("{}: can't be read", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text is not a sweep.
    #[error("{file}:{line}: {message}")]
    Parse {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong and, for an unknown key, what was probably meant.
        message: String,
    },
    /// A value that can't be.
    #[error("{file}: {message}")]
    Value {
        /// The file.
        file: String,
        /// Which key and what to do.
        message: String,
    },
}

/// Reads and checks a sweep file.
///
/// # Errors
/// [`ReadError`] names file, line and key.
pub fn read(path: &Path) -> Result<Sweep, ReadError> {
    let text = std::fs::read_to_string(path).map_err(|source| ReadError::Open {
        path: path.to_owned(),
        source,
    })?;
    read_str(&path.display().to_string(), &text)
}

/// [`read`] on a text; `file` is its name in errors.
///
/// # Errors
/// [`ReadError`] names file, line and key.
pub fn read_str(file: &str, text: &str) -> Result<Sweep, ReadError> {
    let sweep: Sweep = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |s| s.start).min(text.len());
        ReadError::Parse {
            file: file.to_owned(),
            line: text[..at].matches('\n').count() + 1,
            message: explain::wrong_type(text, at, error.message())
                .unwrap_or_else(|| with_nearest(error.message())),
        }
    })?;
    let sweep = wrapped(sweep, text);
    check(&sweep).map_err(|message| ReadError::Value {
        file: file.to_owned(),
        message,
    })?;
    Ok(sweep)
}

/// Serde lists all known keys, or values of one; a person wants the one that was meant first.
fn with_nearest(message: &str) -> String {
    let unknown = [("unknown field `", "key"), ("unknown variant `", "value")];
    let found = unknown.into_iter().find_map(|(prefix, what)| {
        let mut names = message.strip_prefix(prefix)?.split('`').step_by(2);
        Some((what, names.next()?, names.filter(|name| !name.is_empty())))
    });
    let Some((what, unknown, known)) = found else {
        return message.to_owned();
    };
    let known: Vec<&str> = known.collect();
    let hint =
        nearest(unknown, &known).map_or(String::new(), |name| format!("; did you mean `{name}`?"));
    format!(
        "unknown {what} `{unknown}`{hint} (known here: {})",
        known.join(", ")
    )
}

/// The known name that was probably meant.
pub(super) fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    near::nearest(unknown, known.iter().copied(), 0.7)
        .first()
        .copied()
}

/// Checks what the types don't: for whoever changes a sweep after it was [read].
///
/// # Errors
/// A sentence that names the key and what to do.
pub fn check(sweep: &Sweep) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if sweep.name.is_empty() || !sweep.name.chars().all(plain) {
        return Err(format!(
            "name = {:?}: use letters, digits, `-` and `_`",
            sweep.name
        ));
    }
    if sweep.name.len() > LONGEST_NAME {
        return Err(format!(
            "name has {} letters; it is part of a folder's name, so at most {LONGEST_NAME} can be",
            sweep.name.len()
        ));
    }
    if sweep.corpus.synth.is_some() && sweep.corpus.import.is_some() {
        return Err("corpus.synth and corpus.import are both there; keep one".into());
    }
    if sweep
        .corpus
        .synth
        .as_ref()
        .is_some_and(|s| !s.output.is_empty())
    {
        return Err("corpus.synth.output: leave it out, corpus.url says where".into());
    }
    check_start(sweep)?;
    sweep.sweep.check()?;
    sweep.train.validate().map_err(|e| e.to_string())?;
    let pool = &sweep.pool;
    pool.workers.check()?;
    if pool.workers == Workers::Gpus && pool.launcher_kind() != LauncherKind::Local {
        return Err(
            "pool.workers = \"gpus\" counts the GPUs of this machine, and workers come from elsewhere; give their number (and, of SLURM, pool.slurm.gres)".into(),
        );
    }
    check_entrance(pool)?;
    sweep.telemetry.check()?;
    match pool.workers_per_trial {
        WorkersPerTrial::Fixed(number) if number.get() > pool.workers.number() => {
            return Err(format!(
                "pool.workers_per_trial = {number} but the pool has only {} workers",
                pool.workers.number()
            ));
        }
        WorkersPerTrial::Fixed(number) if number.get() > sweep.train.lanes => {
            return Err(format!(
                "pool.workers_per_trial = {number} but train.lanes = {}; raise train.lanes",
                sweep.train.lanes
            ));
        }
        WorkersPerTrial::Auto if sweep.train.reduction == Reduction::Fast => {
            return Err(
                "pool.workers_per_trial = \"auto\" with train.reduction = \"fast\": there the answer depends on the number of workers; give a number, or train.reduction = \"canonical\"".into(),
            );
        }
        WorkersPerTrial::Fixed(_) | WorkersPerTrial::Auto => {}
    }
    check_evaluations(&sweep.evaluation)?;
    let positive = |x: Option<f64>| x.is_none_or(|x| x.is_finite() && x > 0.0);
    if ![pool.memory_gib, pool.worker_flops, pool.worker_price]
        .into_iter()
        .all(positive)
    {
        return Err(
            "pool.memory_gib, pool.worker_flops and pool.worker_price must be above 0".into(),
        );
    }
    if !(1.0..=1e6).contains(&pool.deadline_seconds) {
        return Err("pool.deadline_seconds must be between 1 and 1e6".into());
    }
    if let Some(slurm) = &pool.slurm {
        slurm.check()?;
    }
    match sweep.warm_start.as_ref().map(|warm| warm.steps) {
        Some(0) => return Err("warm_start.steps is 0; leave [warm_start] out instead".into()),
        Some(steps) if steps as f64 > MAX_STEPS => {
            return Err(format!(
                "warm_start.steps is {steps}; more than {MAX_STEPS:.0e} can't be trained"
            ));
        }
        _ => {}
    }
    if let Some(name) = sweep
        .models
        .keys()
        .find(|name| name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(plain))
    {
        return Err(format!(
            "models.{name:?}: use letters, digits, `-` and `_`, at most {LONGEST_NAME}"
        ));
    }
    if sweep.store.starts_with("memory:") || sweep.corpus.url.starts_with("memory:") {
        return Err(
            "memory:// lives in one process; a run has several. Use a folder or s3://".into(),
        );
    }
    Ok(())
}

/// Where the shape of models comes from, and where their first weights.
fn check_start(sweep: &Sweep) -> Result<(), String> {
    let sizes = &sweep.sweep.sizes;
    if let Some(start) = &sweep.start {
        start.check()?;
    }
    if !sweep.start.as_ref().is_some_and(StartTable::names_trials) {
        return match sizes.is_empty() {
            true => Err("sweep.sizes needs at least one entry".into()),
            false => Ok(()),
        };
    }
    if !sizes.is_empty() {
        return Err(
            "sweep.sizes: the shapes of start.checkpoint and start.run come with their weights; leave sizes out"
                .into(),
        );
    }
    if sweep.warm_start.is_some() {
        return Err(
            "[warm_start] makes weights to start from, and start.checkpoint and start.run name some; keep one".into(),
        );
    }
    Ok(())
}

/// Names that can be those of objects, each once.
fn check_evaluations(sets: &[EvaluationSet]) -> Result<(), String> {
    for (at, set) in sets.iter().enumerate() {
        let name = &set.name;
        if !evaluate::is_plain(name) || name.len() > LONGEST_NAME {
            return Err(format!(
                "evaluation.name = {name:?}: use letters, digits, `-`, `_` and `.`, at most {LONGEST_NAME}"
            ));
        }
        if sets[..at].iter().any(|other| other.name == *name) {
            return Err(format!("evaluation.name = {name:?} is there twice"));
        }
        if set.url.is_empty() {
            return Err(format!(
                "evaluation {name:?} has no url; name its file, folder or URL"
            ));
        }
    }
    Ok(())
}

/// A newline between prompt and answer is what fine-tuning adds to the layout, unless the file says what it wants.
fn wrapped(mut sweep: Sweep, text: &str) -> Sweep {
    let says = || -> Option<bool> {
        let file: toml::Table = text.parse().ok()?;
        Some(file.get("samples")?.as_table()?.contains_key("wrapper"))
    };
    if sweep.sweep.objective == Objective::Sft && says() != Some(true) {
        sweep.samples.wrapper = Wrapper::Sft;
    }
    sweep
}

/// A pool that others join listens somewhere, and nothing is said of one that doesn't.
fn check_entrance(pool: &PoolTable) -> Result<(), String> {
    if let Some(listen) = &pool.listen {
        let address = listen.parse::<ListenAddress>();
        address.map_err(|error| format!("pool.listen: {error}"))?;
    } else if pool.launcher_kind() == LauncherKind::Join {
        return Err(
            "pool.launcher = \"join\" waits for workers of other hosts; say in pool.listen (or --listen) where"
                .into(),
        );
    } else if pool.token_file.is_some() || pool.tls.is_some() {
        return Err(
            "pool.token_file and pool.tls let workers of other hosts in; say in pool.listen (or --listen) where they join"
                .into(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::smallest;
    use super::*;

    fn refusal(text: &str) -> String {
        read_str("t.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_refused_with_file_line_and_the_nearest_key() {
        read_str("t.toml", &smallest()).unwrap();
        let text = refusal(&smallest().replace("batch = 8", "batch = 8\nlaness = 8"));
        assert!(
            text.starts_with("t.toml:7: unknown key `laness`; did you mean `lanes`?"),
            "{text}"
        );
    }

    #[test]
    fn an_unknown_value_is_refused_with_the_nearest_one() {
        let text = refusal(&smallest().replace("batch = 8", "batch = 8\nprecision = \"bf61\""));
        assert!(
            text.starts_with("t.toml:7: unknown value `bf61`; did you mean `bf16`?"),
            "{text}"
        );
        let text = refusal(&(smallest() + "lr = \"polr\"\n"));
        assert!(
            text.starts_with("t.toml:12: sweep.lr = \"polr\" is no law; did you mean \"polar\"?"),
            "{text}"
        );
    }

    #[test]
    fn fine_tuning_wraps_answers_in_newlines_unless_the_file_says_otherwise() {
        let sft = smallest().replace("steps = [10]", "steps = [10]\nobjective = \"sft\"");
        let wrapper = |text: &str| read_str("t.toml", text).unwrap().samples.wrapper;
        assert_eq!(wrapper(&smallest()), Wrapper::Pretrain);
        assert_eq!(wrapper(&sft), Wrapper::Sft);
        let said = sft.replace("[train]", "[samples]\nwrapper = \"pretrain\"\n[train]");
        assert_eq!(wrapper(&said), Wrapper::Pretrain);
        let other = sft.replace("[train]", "[samples]\nmax_prompt = 9\n[train]");
        assert_eq!(wrapper(&other), Wrapper::Sft);
    }

    #[test]
    fn values_that_cant_be_are_refused_with_their_key() {
        for (from, to, says) in [
            ("batch = 8", "batch = 9", "multiple of train.lanes"),
            ("batch = 8", "batch = 8\nlanes = 0", "at least one lane"),
            ("steps = [10]", "steps = [10]\nbudgets = [1e9]", "not both"),
            ("sizes = [\"nano\"]", "sizes = []", "at least one entry"),
            (
                "[sweep]",
                "[start]\ncheckpoint = \"runs/trials/0\"\n[sweep]",
                "leave sizes out",
            ),
            ("lr = 1e-3", "lr = -1.0", "train.optimizer.lr"),
            (
                "name = \"t\"",
                format!("name = \"{}\"", "x".repeat(101)).as_str(),
                "name has 101 letters",
            ),
            (
                "[train.optimizer]",
                "schedule = { kind = \"wsd\", warmup = 0.6, decay = 0.6 }\n[train.optimizer]",
                "train.schedule: warmup = 0.6 and decay = 0.6",
            ),
            (
                "steps = [10]",
                "steps = [10]\n[pool]\nlauncher = \"join\"",
                "say in pool.listen",
            ),
            (
                "steps = [10]",
                "steps = [10]\n[pool]\ntoken_file = \"t\"",
                "say in pool.listen",
            ),
            (
                "steps = [10]",
                "steps = [10]\n[pool]\nlisten = \"here and there\"",
                "no address to listen on",
            ),
        ] {
            let text = refusal(&smallest().replace(from, to));
            assert!(text.contains(says), "{text}");
        }
    }
}
