//! `status` and `report`: looking at a run from its store alone.

use super::{Error, table::table};
use crate::{
    report::{Law, Report},
    run::{Run, report_of, write_report},
};
use polestar_dataset::{Corpus, Store};
use polestar_worker::checkpoint;
use std::{collections::BTreeMap, sync::Arc};

/// Prints how far each trial of a run is.
pub(super) async fn status(url: &str) -> Result<(), Error> {
    let run = Run::open(Store::open(url)?).await?;
    let results = run.results().await?;
    let mut rows = Vec::new();
    for trial in &run.record.plan.trials {
        let id = &trial.config.id;
        let (state, step, digest) = match results.get(id) {
            Some(result) => (
                "done",
                trial.config.steps,
                result.outcome.digest.short().to_owned(),
            ),
            None => {
                let listed = checkpoint::list(&run.store, id).await?;
                let newest = listed.into_iter().find_map(|l| l.manifest?.ok());
                match newest {
                    Some(m) => ("begun", m.step.0, m.digest.short().to_owned()),
                    None => ("missing", 0, "-".to_owned()),
                }
            }
        };
        rows.push(vec![
            id.0.clone(),
            state.to_owned(),
            format!("{step}/{}", trial.config.steps),
            digest,
        ]);
    }
    println!(
        "{}: {} of {} trials done, corpus {}",
        run.record.run,
        results.len(),
        rows.len(),
        run.record.plan.fingerprint
    );
    print!(
        "{}",
        table(&["trial", "state", "steps saved", "digest"], &rows)
    );
    Ok(())
}

/// Writes the report again.
pub(super) async fn report(url: &str) -> Result<(), Error> {
    let (run, corpus) = open(url).await?;
    println!(
        "report {}",
        write_report(&run, &corpus, &BTreeMap::new()).await?
    );
    Ok(())
}

/// A run and its corpus.
pub(super) async fn open(url: &str) -> Result<(Run, Arc<Corpus>), Error> {
    let run = Run::open(Store::open(url)?).await?;
    let table = &run.record.sweep.corpus;
    let corpus = Corpus::open_without(&table.url, &table.quarantine).await?;
    Ok((run, corpus))
}

/// Prints the laws of two runs side by side, and whether they may be compared.
pub(super) async fn compare(one: &str, other: &str) -> Result<(), Error> {
    let mut reports = Vec::new();
    for url in [one, other] {
        let (run, corpus) = open(url).await?;
        reports.push(report_of(&run, &corpus, &BTreeMap::new()).await?);
    }
    let [a, b] = &reports[..] else {
        return Ok(());
    };
    print!("{}", side_by_side(a, b));
    Ok(())
}

fn side_by_side(a: &Report, b: &Report) -> String {
    let (one, two) = (a.input(), b.input());
    let mut rows = Vec::new();
    let mut row = |what: &str, a: String, b: String, verdict: String| {
        rows.push(vec![what.to_owned(), a, b, verdict]);
    };
    let same = |equal: bool| if equal { "same" } else { "DIFFERENT" }.to_owned();
    let (x, y) = (&one.corpus.fingerprint, &two.corpus.fingerprint);
    let short = |text: &str| text.chars().take(12).collect::<String>();
    row("corpus", short(x), short(y), same(x == y));
    let done = |r: &Report| {
        let input = r.input();
        let all = input.points.len() + input.failed.len() + input.missing.len();
        format!("{} of {all}", input.points.len())
    };
    row("trials", done(a), done(b), String::new());
    for (name, x, y) in [
        ("law in N", a.by_params(), b.by_params()),
        ("law in C", a.by_compute(), b.by_compute()),
    ] {
        let exponent = |law: &Law| match law.fitted() {
            Some(fit) => format!(
                "{:.4} ({:.4} to {:.4})",
                fit.exponent, fit.exponent_interval.lo, fit.exponent_interval.hi
            ),
            None => "none".to_owned(),
        };
        let verdict = match (x.fitted(), y.fitted()) {
            (Some(x), Some(y)) => {
                let (x, y) = (x.exponent_interval, y.exponent_interval);
                let apart = x.hi < y.lo || y.hi < x.lo;
                if apart { "apart" } else { "not told apart" }.to_owned()
            }
            _ => String::new(),
        };
        row(name, exponent(x), exponent(y), verdict);
    }
    let best = |r: &Report| {
        let losses = r.input().points.iter().map(|p| p.loss);
        losses
            .min_by(f64::total_cmp)
            .map_or_else(|| "none".to_owned(), |loss| format!("{loss:.4}"))
    };
    row("lowest loss", best(a), best(b), String::new());
    let shared: Vec<bool> = one
        .digests
        .iter()
        .filter_map(|(trial, digest)| {
            let (_, theirs) = two.digests.iter().find(|(name, _)| name == trial)?;
            Some(digest == theirs)
        })
        .collect();
    let equal = shared.iter().filter(|same| **same).count();
    let verdict = format!("{equal} of {} equal", shared.len());
    row("trials of one name", String::new(), String::new(), verdict);
    let mut text = table(&["", &one.run_id, &two.run_id, ""], &rows);
    if one.corpus.fingerprint != two.corpus.fingerprint {
        text += "The corpora differ, and with them the held-out triplets: compare slopes, not losses.\n";
    }
    if one.conventions != two.conventions {
        text += "The conventions differ; see the header of each report.\n";
    }
    text
}
