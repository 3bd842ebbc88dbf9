//! Whether devices compute the same bits: compared before a trial begins, and before it goes on from a checkpoint.

use super::{Engine, Failure};
use crate::collective::Peers;
use polestar_core::Rank;
use polestar_run::Trial;

/// Compares this rank's device with rank 0's; all ranks call it.
///
/// # Errors
/// [`Failure::OtherNumerics`], on every rank, unless the trial accepts it; a rank that is lost.
pub(super) fn agree<E: Engine>(
    trial: &Trial,
    engine: &E,
    peers: &mut impl Peers,
) -> Result<(), Failure> {
    // Of one recipe, on all ranks or on none.
    let Some(ours) = engine.numerics() else {
        return Ok(());
    };
    let all = peers.exchange(ours.as_bytes())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let Some(first) = all.first() else {
        return Ok(());
    };
    let other = (0..)
        .map(Rank)
        .zip(&all)
        .find(|(_, theirs)| *theirs != first);
    match other {
        None => Ok(()),
        Some((rank, theirs)) => refuse(
            trial,
            rank.to_string(),
            text(theirs),
            "rank 0's",
            &text(first),
        ),
    }
}

/// Compares this rank's device with what is written of those before it.
///
/// # Errors
/// [`Failure::OtherNumerics`], unless the trial accepts it.
pub(super) fn compare<E: Engine>(
    trial: &Trial,
    engine: &E,
    whose: &str,
    expected: Option<&str>,
) -> Result<(), Failure> {
    let ours = engine.numerics();
    match (ours, expected) {
        (Some(ours), Some(expected)) if ours != expected => {
            refuse(trial, "this worker".to_owned(), ours, whose, expected)
        }
        _ => Ok(()),
    }
}

fn refuse(
    trial: &Trial,
    who: String,
    found: String,
    whose: &str,
    expected: &str,
) -> Result<(), Failure> {
    let (whose, expected) = (whose.to_owned(), expected.to_owned());
    if trial.execution.accept_numerics {
        tracing::warn!(
            who,
            found,
            whose,
            expected,
            "devices differ, which was accepted: the result can't be repeated bit for bit"
        );
        return Ok(());
    }
    Err(Failure::OtherNumerics {
        who,
        found,
        whose,
        expected,
    })
}
