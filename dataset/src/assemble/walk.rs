//! Walking a source in order while its next parts are loaded on other threads.

use super::{Group, Source};
use futures::{Stream, StreamExt, stream};
use std::{panic, sync::Arc};

/// The parts of a source from `first` on, in order, each with its number. At most
/// [`Source::loads_ahead`] of them are loaded and not yet taken.
pub(super) fn walk<S: Source>(
    source: &Arc<S>,
    first: usize,
) -> impl Stream<Item = Result<(usize, Vec<Group>), S::Error>> + Unpin {
    let ahead = source.loads_ahead().max(1);
    let parts = first..source.parts();
    let source = Arc::clone(source);
    let load = move |part| {
        let source = Arc::clone(&source);
        let loading = tokio::task::spawn_blocking(move || source.load(part));
        async move {
            match loading
                .await
                .map_err(tokio::task::JoinError::try_into_panic)
            {
                Ok(groups) => Ok((part, groups?)),
                Err(Ok(panicked)) => panic::resume_unwind(panicked),
                // The runtime shuts down, and what waits here with it.
                Err(Err(_)) => std::future::pending().await,
            }
        }
    };
    stream::iter(parts).map(load).buffered(ahead)
}
