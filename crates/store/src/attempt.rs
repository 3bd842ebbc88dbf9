//! Trying again, within a deadline, at a bounded pace.

use backon::{BackoffBuilder, ExponentialBuilder};
use object_store::Error;
use std::{pin::pin, sync::Mutex, time::Duration};
use tokio::time::Instant;

/// How long an operation is tried again before its trouble is the caller's: well before a collective's
/// deadline, so that a rank with a bad store says so itself.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// Waiting is counted in slices of this: a clock that jumps, as on a machine that was stopped for a while, ends one
/// of them and not all patience.
const SLICE: Duration = Duration::from_secs(1);

/// How long one attempt may take: a fixed part, and one for the bytes at the least acceptable pace.
fn patience(bytes: u64) -> Duration {
    Duration::from_secs(20) + Duration::from_secs_f64(bytes as f64 / 2e6)
}

/// What an operation came to, and whether an attempt before the last may have had an effect.
pub(super) struct Attempted<T> {
    pub(super) value: Result<T, Error>,
    pub(super) repeated: bool,
}

/// Does something that moves about `bytes` bytes until it succeeds, fails for good, or the deadline
/// is over.
pub(super) async fn attempt<T, F: Future<Output = Result<T, Error>>>(
    pace: Option<&Pace>,
    bytes: u64,
    mut operation: impl FnMut() -> F,
) -> Attempted<T> {
    let mut spent = Duration::ZERO;
    let mut delays = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(5))
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build();
    let mut repeated = false;
    loop {
        if let Some(pace) = pace {
            pace.turn().await;
        }
        let limit = patience(bytes);
        let (answer, waited) = within(limit, operation()).await;
        let error = match answer {
            Some(Err(error)) if is_transient(&error) => error,
            Some(value) => return Attempted { value, repeated },
            None => Error::Generic {
                store: "store",
                source: format!("no answer within {} seconds", limit.as_secs()).into(),
            },
        };
        let delay = delays.next().unwrap_or(DEADLINE);
        spent += waited + delay;
        if spent > DEADLINE {
            return Attempted {
                value: Err(error),
                repeated,
            };
        }
        super::traffic::retried();
        tracing::info!(%error, polestar.wait = delay.as_secs_f64(), "the store is asked again");
        tokio::time::sleep(delay).await;
        repeated = true;
    }
}

/// What comes of something within a time, and how much of that it took; `None` if it takes longer.
async fn within<T>(limit: Duration, operation: impl Future<Output = T>) -> (Option<T>, Duration) {
    let mut operation = pin!(operation);
    let mut waited = Duration::ZERO;
    loop {
        let (begun, slice) = (Instant::now(), SLICE.min(limit - waited));
        match tokio::time::timeout(slice, operation.as_mut()).await {
            Ok(value) => return (Some(value), waited + begun.elapsed().min(slice)),
            Err(_) => waited += slice,
        }
        if waited >= limit {
            return (None, waited);
        }
    }
}

/// Whether the next attempt can end otherwise.
fn is_transient(error: &Error) -> bool {
    match error {
        // A local file system's answers don't change by themselves.
        Error::Generic { store, .. } => !matches!(*store, "LocalFileSystem" | "InMemory"),
        _ => false,
    }
}

/// Requests a second of one process to one place of a remote store. Services slow down who asks
/// more often than a few thousand times a second below one prefix, all processes together.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(per_second: u32) -> Pace {
        Pace {
            interval: Duration::from_secs(1) / per_second.max(1),
            next: Mutex::default(),
        }
    }

    /// Returns when it is this request's turn.
    async fn turn(&self) {
        let now = Instant::now();
        let turn = {
            let mut next = self
                .next
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            let turn = next.map_or(now, |next| next.max(now));
            *next = Some(turn + self.interval);
            turn
        };
        if turn > now {
            tokio::time::sleep_until(turn).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn trouble_that_stays_is_told_at_the_deadline() {
        let begun = Instant::now();
        let mut attempts = 0;
        let failing = attempt(None, 0, || {
            attempts += 1;
            async {
                Err::<(), _>(Error::Generic {
                    store: "S3",
                    source: "SlowDown".into(),
                })
            }
        });
        assert!(
            failing
                .await
                .value
                .unwrap_err()
                .to_string()
                .contains("SlowDown")
        );
        assert!(attempts > 5, "{attempts}");
        assert!(begun.elapsed() <= DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_hangs_is_given_up_and_repeated() {
        let mut attempts = 0;
        let hanging = attempt(None, 1 << 20, || {
            attempts += 1;
            let hangs = attempts == 1;
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok(7)
            }
        });
        let attempted = hanging.await;
        assert!(matches!(attempted.value, Ok(7)) && attempted.repeated);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_jumps_ends_no_patience() {
        let mut attempts = 0;
        let jumps = attempt(None, 0, || {
            attempts += 1;
            async {
                tokio::time::advance(10 * DEADLINE).await;
                tokio::time::sleep(Duration::from_secs(3)).await;
                Ok(7)
            }
        });
        let attempted = jumps.await;
        assert!(matches!(attempted.value, Ok(7)) && !attempted.repeated);
        assert_eq!(attempts, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_keep_their_pace() {
        let (pace, begun) = (Pace::new(10), Instant::now());
        for _ in 0..21 {
            pace.turn().await;
        }
        assert!(
            begun.elapsed() >= Duration::from_millis(1900),
            "{:?}",
            begun.elapsed()
        );
    }
}
