//! `runs`: what is in a store of runs.

use super::{Error, table::table};
use crate::run::Run;
use polestar_core::ByteCount;
use polestar_run::lease;
use polestar_store::{Object, Store};

/// The object that makes a folder a run's.
const RECORD: &str = "/run.json";

/// Prints every run of a store.
pub(super) async fn list(url: &str) -> Result<(), Error> {
    let store = Store::open_existing(url)?;
    let objects = store.list("").await?;
    let names = objects.iter().filter_map(|o| o.key.strip_suffix(RECORD));
    let names: Vec<&str> = names.filter(|name| !name.contains('/')).collect();
    if names.is_empty() {
        println!("{} holds no run", store.url());
        return Ok(());
    }
    let mut rows = Vec::new();
    let mut troubles = Vec::new();
    for name in &names {
        match row(&store, name, &objects).await {
            Ok(row) => rows.push(row),
            // One that can't be read hides no other.
            Err(error) => {
                troubles.push(format!("{name}: {}", polestar_core::chain(error.as_ref())))
            }
        }
    }
    let head = ["run", "trials done", "state", "best loss", "of", "size"];
    print!("{}", table(&head, &rows));
    for trouble in troubles {
        println!("{trouble}");
    }
    if rows.len() > 1 {
        println!(
            "best losses are comparable within a corpus; trials that runs share count in each one's size"
        );
    }
    Ok(())
}

async fn row(store: &Store, name: &str, objects: &[Object]) -> Result<Vec<String>, Error> {
    let run = Run::open(store.child(name)).await?;
    let results = run.results().await?;
    let abandoned = run.abandoned(&results).await?.len();
    let trials = &run.record.plan.trials;
    let open = trials.len() - results.len() - abandoned;
    let led = match open {
        0 => false,
        _ => lease::read(&run.folder)
            .await?
            .is_some_and(|seen| !seen.record.is_free()),
    };
    let mut state = match (open, led) {
        (0, _) => "done".to_owned(),
        (_, true) => "led".to_owned(),
        (_, false) => "unfinished".to_owned(),
    };
    if abandoned > 0 {
        state += &format!(", {abandoned} abandoned");
    }
    let best = results
        .iter()
        .filter_map(|(id, result)| Some((id, result.outcome.validation.values().next_back()?.loss)))
        .min_by(|a, b| a.1.total_cmp(&b.1));
    let folders: Vec<String> = std::iter::once(format!("{name}/"))
        .chain(trials.iter().map(|t| format!("{}/", t.recipe_id.folder())))
        .collect();
    let is_of = |key: &str| folders.iter().any(|folder| key.starts_with(&**folder));
    let size = objects.iter().filter(|object| is_of(&object.key));
    Ok(vec![
        name.to_owned(),
        format!("{}/{}", results.len(), trials.len()),
        state,
        best.map_or_else(|| "-".to_owned(), |(_, loss)| format!("{loss:.4}")),
        best.map_or_else(|| "-".to_owned(), |(id, _)| id.to_string()),
        ByteCount(size.map(|object| object.size).sum()).to_string(),
    ])
}
