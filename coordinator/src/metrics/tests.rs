//! Whatever happens to coordinators, generations and disks: every step is in the files once, with its numbers.

use super::{
    Followed, tables,
    tensorboard::{Content, PREFIX, Records},
};
use crate::sweep::{PlannedTrial, fixture, plan, read_str};
use polestar_core::Step;
use polestar_run::{
    RewardSpread, SetScore,
    metrics::{self, Row},
};
use polestar_store::Store;
use std::{collections::BTreeMap, path::Path};

fn planned() -> PlannedTrial {
    let text = fixture::text("sizes = [\"nano\"]\nsteps = [20]\n");
    let sweep = read_str("t.toml", &text).expect("a sweep");
    let plan = plan(&sweep, &fixture::facts()).expect("a plan");
    plan.trials.into_iter().next().expect("a trial")
}

fn row(step: u64) -> Row {
    let score = SetScore {
        loss: 0.7 - 0.01 * step as f64,
        accuracy: Some(0.5),
        triplets: 32,
        margin: Some(0.125),
        rewards: RewardSpread::of(&[0.5, -1.5]),
        ..SetScore::default()
    };
    let scored = step.is_multiple_of(5);
    let scores = scored.then(|| ("heldout_prompts".to_owned(), score));
    Row {
        step: Step(step),
        triplets: 8 * step,
        plain_tokens: 800 * step,
        flops_6nd: 1e9 * step as f64,
        loss: 1.0 / step as f64,
        accuracy: Some(0.5),
        margin: Some(0.25),
        lr: 1e-3,
        grad_norm: 3.0,
        seconds: 2.0 * step as f64,
        validation: scores.into_iter().collect(),
    }
}

fn rows(steps: std::ops::RangeInclusive<u64>) -> Vec<Row> {
    steps.map(row).collect()
}

struct Place {
    folder: tempfile::TempDir,
    store: Store,
    planned: PlannedTrial,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().display().to_string()).expect("a store");
        let planned = planned();
        Place {
            folder,
            store,
            planned,
        }
    }

    fn files(&self) -> std::path::PathBuf {
        self.folder.path().join("run/metrics/t")
    }

    fn follow(&self) -> Followed {
        let folder = self.store.child("run/metrics/t");
        Followed::new(self.store.clone(), folder, self.planned.clone())
    }

    /// What rank 0 does before it commits a checkpoint.
    async fn checkpoint(&self, steps: std::ops::RangeInclusive<u64>) {
        let rows = rows(steps);
        let written = metrics::write(&self.store, &self.planned.config, &rows);
        written.await.expect("a store");
    }

    /// Everything that all event files say of a tag, in their order.
    fn scalars(&self, tag: &str) -> Vec<(i64, f32)> {
        let mut found = Vec::new();
        for path in event_files(&self.files()) {
            let bytes = std::fs::read(path).expect("readable");
            for event in Records(&bytes) {
                let Some(Content::Summary(summary)) = event.content else {
                    continue;
                };
                let values = summary.values.into_iter().filter(|value| value.tag == tag);
                found.extend(values.filter_map(|value| Some((event.step, value.scalar?))));
            }
        }
        found
    }

    fn csv(&self) -> String {
        std::fs::read_to_string(self.files().join("metrics.csv")).expect("readable")
    }

    fn assert_has(&self, last: u64) {
        let losses: Vec<(i64, f32)> = rows(1..=last)
            .iter()
            .map(|row| (row.step.0 as i64, row.loss as f32))
            .collect();
        assert_eq!(self.scalars("train/loss"), losses);
        let trial = &self.planned.config;
        let lines: String = std::iter::once(tables::head(trial))
            .chain(rows(1..=last).iter().map(|row| tables::line(trial, row)))
            .collect();
        assert_eq!(self.csv(), lines);
    }
}

fn event_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<_> = entries.map(|e| e.expect("readable").path()).collect();
    paths.retain(|path| {
        let name = path.file_name().expect("a name").to_string_lossy();
        name.starts_with(PREFIX)
    });
    paths.sort();
    paths
}

/// Loses the end of a file, as a host does that dies.
fn tear(path: &Path, bytes: u64) {
    let file = std::fs::File::options().write(true).open(path);
    let file = file.expect("writable");
    let length = file.metadata().expect("it is there").len();
    file.set_len(length - bytes).expect("writable");
}

#[tokio::test]
async fn every_step_is_there_once_whatever_dies() {
    let place = Place::new();
    let mut first = place.follow();
    first.begun().await;
    first.told(&rows(1..=7)).await;
    place.assert_has(7);
    place.checkpoint(1..=5).await;
    first.saved(Step(5)).await;
    // The generation dies, and the next one takes two steps again.
    first.begun().await;
    first.told(&rows(6..=9)).await;
    place.assert_has(9);
    // Three rows get lost on the way: what comes behind them waits for the checkpoint that has them.
    first.told(&rows(13..=14)).await;
    place.assert_has(9);
    place.checkpoint(6..=10).await;
    first.saved(Step(10)).await;
    place.assert_has(10);
    place.checkpoint(11..=12).await;
    first.saved(Step(12)).await;
    place.assert_has(14);
    // The coordinator's host dies. What its files lost at their ends, they get back.
    drop(first);
    tear(event_files(&place.files()).last().expect("a file"), 3);
    tear(&place.files().join("metrics.csv"), 3);
    let mut second = place.follow();
    place.checkpoint(13..=15).await;
    second.begun().await;
    place.assert_has(15);
    second.told(&rows(16..=20)).await;
    place.checkpoint(16..=20).await;
    second.saved(Step(20)).await;
    place.assert_has(20);
    second.done().await;
    place.assert_has(20);
    assert_eq!(event_files(&place.files()).len(), 2, "one a coordinator");
    let rewards = place.scalars("heldout_prompts/reward_min");
    assert_eq!(rewards, [5, 10, 15, 20].map(|step| (step, -1.5)));
    let parquet = std::fs::read(place.files().join("metrics.parquet")).expect("readable");
    assert_eq!(
        metrics::decode("metrics.parquet", parquet.into()).expect("a table"),
        rows(1..=20)
    );
}

#[tokio::test]
async fn a_trial_that_leaves_a_trunk_has_its_own_steps() {
    let place = Place::new();
    let mut followed = place.follow();
    followed.begun().await;
    followed.told(&rows(11..=14)).await;
    followed.told(&rows(16..=17)).await;
    let steps: Vec<i64> = place.scalars("train/loss").iter().map(|s| s.0).collect();
    assert_eq!(steps, [11, 12, 13, 14], "and no gap");
}

#[tokio::test]
async fn files_that_have_no_room_are_written_when_there_is() {
    let place = Place::new();
    let mut followed = place.follow();
    std::fs::create_dir_all(place.folder.path().join("run/metrics")).expect("writable");
    std::fs::write(place.files(), "in the way").expect("writable");
    followed.begun().await;
    followed.told(&rows(1..=5)).await;
    place.checkpoint(1..=5).await;
    followed.saved(Step(5)).await;
    followed.told(&rows(6..=7)).await;
    std::fs::remove_file(place.files()).expect("writable");
    place.checkpoint(6..=10).await;
    followed.saved(Step(10)).await;
    place.assert_has(10);
}

#[tokio::test]
async fn an_object_store_gets_whole_objects() {
    let store = Store::open("memory://metrics-files").expect("a store");
    let planned = planned();
    let folder = store.child("run/metrics/t");
    let mut followed = Followed::new(store.clone(), folder.clone(), planned);
    followed.begun().await;
    followed.told(&rows(1..=3)).await;
    followed.told(&rows(4..=5)).await;
    followed.end().await;
    let objects = folder.list("").await.expect("a store");
    let events: Vec<&str> = objects
        .iter()
        .map(|object| &*object.key)
        .filter(|key| key.starts_with(PREFIX))
        .collect();
    let [events] = &events[..] else {
        panic!("one object: {objects:?}");
    };
    let bytes = folder.get(events).await.expect("it is there");
    let mut steps = BTreeMap::new();
    for event in Records(&bytes) {
        if matches!(&event.content, Some(Content::Summary(s)) if s.values.iter().any(|v| v.scalar.is_some()))
        {
            *steps.entry(event.step).or_insert(0) += 1;
        }
    }
    assert_eq!(steps, (1..=5).map(|step| (step, 1)).collect());
}
