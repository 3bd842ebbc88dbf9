//! Workers that somebody else starts: they join by themselves, and leave when they are told to.

use super::{Ending, LaunchEvent, LaunchId, Launcher};
use std::time::Duration;

/// Starts nothing.
#[derive(Debug)]
pub struct Join;

impl Launcher for Join {
    /// How many there are is up to whoever starts them.
    fn scale(&mut self, _workers: u32) {}

    fn retire(&mut self, launch: &LaunchId, _ending: Ending) {
        tracing::debug!(%launch, "not a process of this launch; the end of its stream ends it");
    }

    async fn next(&mut self) -> LaunchEvent {
        std::future::pending().await
    }

    async fn close(&mut self, _grace: Duration) -> usize {
        0
    }
}
