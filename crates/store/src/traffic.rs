//! What this process asked of object stores, counted for whoever watches it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    ops::Sub,
    sync::atomic::{AtomicU64, Ordering},
};

/// What was asked of object stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    /// Bytes of objects that were read.
    pub read: u64,
    /// Bytes of objects that were written.
    pub written: u64,
    /// Requests that were made again.
    pub retries: u64,
}

impl Sub for Traffic {
    type Output = Traffic;

    /// What came after an earlier look.
    fn sub(self, earlier: Traffic) -> Traffic {
        Traffic {
            read: self.read.saturating_sub(earlier.read),
            written: self.written.saturating_sub(earlier.written),
            retries: self.retries.saturating_sub(earlier.retries),
        }
    }
}

static READ: AtomicU64 = AtomicU64::new(0);
static WRITTEN: AtomicU64 = AtomicU64::new(0);
static RETRIES: AtomicU64 = AtomicU64::new(0);

/// What this process has asked of all object stores so far. Files of this machine that are read in place are not
/// among it.
pub fn traffic() -> Traffic {
    Traffic {
        read: READ.load(Ordering::Relaxed),
        written: WRITTEN.load(Ordering::Relaxed),
        retries: RETRIES.load(Ordering::Relaxed),
    }
}

pub(super) fn read(bytes: usize) {
    READ.fetch_add(bytes as u64, Ordering::Relaxed);
}

pub(super) fn written(bytes: usize) {
    WRITTEN.fetch_add(bytes as u64, Ordering::Relaxed);
}

pub(super) fn retried() {
    RETRIES.fetch_add(1, Ordering::Relaxed);
}
