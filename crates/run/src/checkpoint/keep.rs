//! Which checkpoints there are, and which of them stay.

use super::{Error, Manifest, folder, place};
use polestar_core::{RecipeId, Step};
use polestar_store::{Object, Store};
use std::collections::BTreeMap;

/// Which checkpoints stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// How many of the newest; never fewer than two, so that a damaged one has another before it.
    pub last: usize,
    /// Those after each multiple of so many steps, too; 0 for none.
    pub every: u64,
    /// These, too.
    pub at: Vec<Step>,
}

impl Keep {
    /// What of `committed`, ascending, is to be removed once `newest` is committed. Later ones are
    /// left alone: they are damaged, or of a run that went further.
    pub fn removes(&self, committed: &[Step], newest: Step) -> Vec<Step> {
        let older: Vec<Step> = committed.iter().copied().filter(|s| *s < newest).collect();
        let last = older.len().saturating_sub(self.last.max(2) - 1);
        let kept = |step: &Step| {
            self.at.contains(step) || (self.every > 0 && step.0.is_multiple_of(self.every))
        };
        older[..last].iter().copied().filter(|s| !kept(s)).collect()
    }
}

/// A checkpoint's folder and what is in it.
#[derive(Debug)]
pub struct Listed {
    /// Steps done.
    pub step: Step,
    /// Its manifest: none if it was never committed.
    pub manifest: Option<Result<Manifest, Error>>,
    /// Every object, the manifest included.
    pub objects: Vec<Object>,
}

/// Everything under a trial's checkpoints, newest first, whole or not. A manifest that can't be read
/// is an error in its place, not of the whole listing.
///
/// # Errors
/// The store's.
pub async fn list(store: &Store, trial: &RecipeId) -> Result<Vec<Listed>, Error> {
    let mut found = Vec::new();
    for (step, objects) in places(store, trial).await?.into_iter().rev() {
        let mut manifest = None;
        if let Some(object) = objects.iter().find(|o| is_manifest(&o.key)) {
            manifest = match store.get_opt(&object.key).await {
                Ok(Some(bytes)) => Some(Manifest::parse(&object.key, &bytes)),
                // Removed since it was listed.
                Ok(None) => None,
                Err(error) => Some(Err(error.into())),
            };
        }
        found.push(Listed {
            step,
            manifest,
            objects,
        });
    }
    Ok(found)
}

/// Steps that have a manifest, ascending. One request.
///
/// # Errors
/// The store's.
pub async fn committed(store: &Store, trial: &RecipeId) -> Result<Vec<Step>, Error> {
    let places = places(store, trial).await?;
    let committed = places
        .into_iter()
        .filter(|(_, objects)| is_committed(objects));
    Ok(committed.map(|(step, _)| step).collect())
}

/// A checkpoint that goes, or what is left of one.
#[derive(Debug)]
pub struct Removal {
    /// Steps done.
    pub step: Step,
    /// Whether it is a whole checkpoint, and not what an interrupted save or removal left.
    pub committed: bool,
    /// What goes, its manifest first: what then remains is no checkpoint, and goes the next time.
    pub objects: Vec<Object>,
}

/// What goes once `newest` is committed: checkpoints that the rule doesn't keep, and what interrupted saves and
/// removals before it left.
///
/// # Errors
/// The store's.
pub async fn removals(
    store: &Store,
    trial: &RecipeId,
    newest: Step,
    keep: &Keep,
) -> Result<Vec<Removal>, Error> {
    let places = places(store, trial).await?;
    let committed = places.iter().filter(|(_, objects)| is_committed(objects));
    let committed: Vec<Step> = committed.map(|(&step, _)| step).collect();
    let removed = keep.removes(&committed, newest);
    let mut removals = Vec::new();
    for (step, mut objects) in places {
        let committed = is_committed(&objects);
        if removed.contains(&step) || (step < newest && !committed) {
            objects.sort_by_key(|o| !is_manifest(&o.key));
            removals.push(Removal {
                step,
                committed,
                objects,
            });
        }
    }
    Ok(removals)
}

/// Removes [what goes](removals). Returns how many objects that were.
///
/// # Errors
/// The store's.
pub async fn prune(
    store: &Store,
    trial: &RecipeId,
    newest: Step,
    keep: &Keep,
) -> Result<usize, Error> {
    let mut count = 0;
    for removal in removals(store, trial, newest, keep).await? {
        for object in removal.objects {
            store.delete(&object.key).await?;
            count += 1;
        }
        store.remove_empty_folder(&place(trial, removal.step)).await;
    }
    Ok(count)
}

fn is_manifest(key: &str) -> bool {
    key.ends_with("/manifest.json")
}

fn is_committed(objects: &[Object]) -> bool {
    objects.iter().any(|o| is_manifest(&o.key))
}

async fn places(store: &Store, trial: &RecipeId) -> Result<BTreeMap<Step, Vec<Object>>, Error> {
    let folder = folder(trial);
    let mut places: BTreeMap<Step, Vec<Object>> = BTreeMap::new();
    for object in store.list(&folder).await? {
        let step = object
            .key
            .strip_prefix(&folder)
            .and_then(|rest| rest.trim_start_matches('/').split('/').next())
            .and_then(|step| step.parse().ok());
        if let Some(step) = step {
            places.entry(Step(step)).or_default().push(object);
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_their_predecessor_and_milestones_stay() {
        let steps = |numbers: &[u64]| numbers.iter().map(|&n| Step(n)).collect::<Vec<_>>();
        let committed = steps(&[100, 150, 200, 250, 300, 350]);
        let keep = |last, every| {
            let at = vec![];
            Keep { last, every, at }.removes(&committed, Step(300))
        };
        assert_eq!(keep(2, 0), steps(&[100, 150, 200]));
        assert_eq!(keep(0, 0), keep(2, 0), "never fewer than one older");
        assert_eq!(keep(3, 100), steps(&[150]));
        assert_eq!(keep(9, 0), steps(&[]));
        let started_from = Keep {
            last: 2,
            every: 0,
            at: steps(&[100]),
        };
        assert_eq!(
            started_from.removes(&committed, Step(300)),
            steps(&[150, 200])
        );
    }
}
