//! Keeps the journal in the store while the loop runs. The loop never waits for it.

use super::{
    Handle,
    journal::{Entry, JournalEntry, Subscription},
};
use crate::run::{EventLog, Run};
use polestar_run::Event;
use std::time::Duration;
use tokio_stream::StreamExt;

/// How long an entry that isn't urgent may wait to be stored.
const LATER: Duration = Duration::from_secs(5);

/// Records a journal until it ends.
pub(super) async fn record(mut journal: Subscription, mut log: EventLog) {
    loop {
        let next = match log.is_stored() {
            true => Ok(journal.next().await),
            false => tokio::time::timeout(LATER, journal.next()).await,
        };
        match next {
            Ok(Some(entry)) if !is_kept(&entry) => continue,
            Ok(Some(entry)) => {
                let is_urgent = is_urgent(&entry.entry);
                log.append(entry);
                if !is_urgent {
                    continue;
                }
            }
            Ok(None) => break,
            Err(_) => {}
        }
        store(&mut log).await;
    }
    store(&mut log).await;
}

/// Keeps in the store how far everything is, for `status`, until the loop ends.
pub(super) async fn keep_status(handle: Handle, run: Run) {
    while let Some(status) = handle.status().await {
        if let Err(error) = run.record_status(&status.to_string()).await {
            tracing::warn!("the status could not be stored: {error}");
        }
        tokio::time::sleep(LATER).await;
    }
}

async fn store(log: &mut EventLog) {
    if let Err(error) = log.flush().await {
        // It is for people; nothing that is trained depends on it.
        tracing::warn!("the event journal could not be stored: {error}");
    }
}

/// Single steps are what metrics are for, and the store has those.
fn is_kept(entry: &JournalEntry) -> bool {
    !entry.entry.is_superseded()
}

/// What somebody may ask for soon, or what the end may come right after.
fn is_urgent(entry: &Entry) -> bool {
    !matches!(
        entry,
        Entry::Progress {
            event: Event::Validated { .. } | Event::Underway { .. },
            ..
        } | Entry::Joined { .. }
    )
}
