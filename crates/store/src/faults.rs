//! A store with trouble in it: for tests that say what must not be lost.
//!
//! Trouble is drawn from a seed, so that a run can be repeated, and counted, so that a test can prove
//! that it happened.

use super::Store;
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart, path::Path,
};
use polestar_core::random::Stream;
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// What goes wrong. Budgets are numbers of operations; an operation gets at most one kind of
/// trouble, in the order of the fields.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Decides which operations.
    pub seed: u64,
    /// One operation in so many is in trouble while there is budget; 0 and 1: every one.
    pub one_in: u64,
    /// Operations that fail without an effect.
    pub errors: u32,
    /// Operations that are done and whose answer is lost.
    pub lost_answers: u32,
    /// Operations that are answered with 503 SlowDown.
    pub slow_downs: u32,
    /// Writes that never end.
    pub stalled_uploads: u32,
    /// Uploads in parts whose parts arrive and whose completion fails.
    pub torn_multiparts: u32,
    /// Every operation takes up to so much longer.
    pub latency: Duration,
    /// Listings come in another order.
    pub shuffled_listings: bool,
    /// Conditional puts overwrite.
    pub ignores_conditions: bool,
    /// The process stops at this operation, counted from 0: it and all later ones fail for good.
    pub stop: Option<Stop>,
}

/// Where a process stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Number of the operation.
    pub operation: u64,
    /// Whether that operation still has its effect.
    pub after: bool,
}

/// What happened.
#[derive(Debug, Default)]
pub struct FaultLog {
    entries: Mutex<Entries>,
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct Entries {
    operations: Vec<String>,
    fired: Vec<&'static str>,
    spent: [u32; 5],
}

impl FaultLog {
    /// Every operation so far, such as `put trials/a/result.json`.
    pub fn operations(&self) -> Vec<String> {
        self.entries().operations.clone()
    }

    /// How often a kind of trouble happened: `error`, `lost answer`, `slow down`, `stalled upload`,
    /// `torn multipart`, `shuffled listing`, `ignored condition`, `stop`.
    pub fn fired(&self, kind: &str) -> usize {
        self.entries().fired.iter().filter(|k| **k == kind).count()
    }

    /// Whether the process has stopped.
    pub fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn fire(&self, kind: &'static str) {
        self.entries().fired.push(kind);
    }
}

/// What is to happen to one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Before,
    LostAnswer,
    SlowDown,
    Stall,
    Tear,
    StopBefore,
    StopAfter,
}

/// An object store with trouble in it.
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    faults: Arc<Faults>,
    log: Arc<FaultLog>,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty")
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with faults", self.inner)
    }
}

fn transient(what: &str) -> Error {
    Error::Generic {
        store: "Faulty",
        source: what.to_owned().into(),
    }
}

/// Not tried again, like anything that a dead process does.
fn stopped() -> Error {
    Error::NotImplemented {
        operation: "anything".to_owned(),
        implementer: "the process has stopped".to_owned(),
    }
}

impl Faulty {
    /// Puts trouble in front of a store.
    pub fn new(inner: Arc<dyn ObjectStore>, faults: Faults) -> (Faulty, Arc<FaultLog>) {
        let log = Arc::new(FaultLog::default());
        let faulty = Faulty {
            inner,
            faults: Arc::new(faults),
            log: Arc::clone(&log),
        };
        (faulty, log)
    }

    /// Notes an operation and says what happens to it.
    async fn enter(&self, kind: &str, key: &str, writes: bool) -> Trouble {
        let (trouble, wait) = draw(&self.faults, &self.log, kind, key, writes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        trouble
    }

    /// Does an operation with what is to happen to it.
    async fn carry_out<T>(
        &self,
        trouble: Trouble,
        operation: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        carry_out(trouble, operation).await
    }
}

fn draw(
    faults: &Faults,
    log: &FaultLog,
    kind: &str,
    key: &str,
    writes: bool,
) -> (Trouble, Duration) {
    let mut entries = log.entries();
    let number = entries.operations.len() as u64;
    entries.operations.push(format!("{kind} {key}"));
    let mut stream = Stream::new("faults", &[faults.seed, number]);
    let wait = match faults.latency.as_micros() as u64 {
        0 => Duration::ZERO,
        most => Duration::from_micros(stream.below(most + 1)),
    };
    if log.stopped.load(Ordering::SeqCst) {
        return (Trouble::StopBefore, Duration::ZERO);
    }
    if let Some(stop) = faults.stop.filter(|stop| stop.operation == number) {
        log.stopped.store(true, Ordering::SeqCst);
        entries.fired.push("stop");
        let trouble = if stop.after {
            Trouble::StopAfter
        } else {
            Trouble::StopBefore
        };
        return (trouble, wait);
    }
    if faults.one_in > 1 && stream.below(faults.one_in) != 0 {
        return (Trouble::None, wait);
    }
    let budgets = [
        (faults.errors, Trouble::Before, "error", true),
        (
            faults.lost_answers,
            Trouble::LostAnswer,
            "lost answer",
            true,
        ),
        (faults.slow_downs, Trouble::SlowDown, "slow down", true),
        (
            faults.stalled_uploads,
            Trouble::Stall,
            "stalled upload",
            writes,
        ),
        (
            faults.torn_multiparts,
            Trouble::Tear,
            "torn multipart",
            kind == "put in parts",
        ),
    ];
    let open: Vec<usize> = (0..budgets.len())
        .filter(|&i| budgets[i].3 && entries.spent[i] < budgets[i].0)
        .collect();
    let Some(&chosen) = open.first() else {
        return (Trouble::None, wait);
    };
    entries.spent[chosen] += 1;
    entries.fired.push(budgets[chosen].2);
    (budgets[chosen].1, wait)
}

async fn carry_out<T>(
    trouble: Trouble,
    operation: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    match trouble {
        Trouble::None | Trouble::Tear => operation.await,
        Trouble::Before => Err(transient("connection reset")),
        Trouble::SlowDown => Err(transient("503 SlowDown: please reduce your request rate")),
        Trouble::Stall => std::future::pending().await,
        Trouble::StopBefore => Err(stopped()),
        Trouble::LostAnswer => {
            operation.await?;
            Err(transient("connection reset before the answer"))
        }
        Trouble::StopAfter => {
            operation.await?;
            Err(stopped())
        }
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        let kind = match options.mode {
            PutMode::Overwrite => "put",
            PutMode::Create => "put if absent",
            PutMode::Update(_) => "put if unchanged",
        };
        let trouble = self.enter(kind, location.as_ref(), true).await;
        if self.faults.ignores_conditions && options.mode != PutMode::Overwrite {
            self.log.fire("ignored condition");
            options.mode = PutMode::Overwrite;
        }
        self.carry_out(trouble, self.inner.put_opts(location, payload, options))
            .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let trouble = self.enter("put in parts", location.as_ref(), false).await;
        let begin = self.inner.put_multipart_opts(location, options);
        let inner = self.carry_out(trouble, begin).await?;
        Ok(Box::new(FaultyUpload {
            inner,
            key: location.to_string(),
            torn: trouble == Trouble::Tear,
            faults: Arc::clone(&self.faults),
            log: Arc::clone(&self.log),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let kind = if options.head { "head" } else { "get" };
        let trouble = self.enter(kind, location.as_ref(), false).await;
        self.carry_out(trouble, self.inner.get_opts(location, options))
            .await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, faults, log) = (
            Arc::clone(&self.inner),
            Arc::clone(&self.faults),
            Arc::clone(&self.log),
        );
        let deletes = locations.and_then(move |path| {
            let (inner, faults, log) = (Arc::clone(&inner), Arc::clone(&faults), Arc::clone(&log));
            async move {
                let (trouble, _) = draw(&faults, &log, "delete", path.as_ref(), false);
                let one = futures::stream::once({
                    let path = path.clone();
                    async move { Ok(path) }
                });
                let delete = async move {
                    let done: Vec<Path> = inner.delete_stream(one.boxed()).try_collect().await?;
                    Ok(done)
                };
                carry_out(trouble, delete).await?;
                Ok(path)
            }
        });
        deletes.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let key = prefix.map(|p| p.to_string()).unwrap_or_default();
        let (trouble, _) = draw(&self.faults, &self.log, "list", &key, false);
        let listing = self.inner.list(prefix);
        let shuffled = self.faults.shuffled_listings;
        let (seed, log) = (self.faults.seed, Arc::clone(&self.log));
        let list = async move {
            let mut found: Vec<ObjectMeta> = listing.try_collect().await?;
            if shuffled {
                let mut stream = Stream::new("shuffled listing", &[seed, found.len() as u64]);
                stream.shuffle(&mut found);
                log.fire("shuffled listing");
            }
            Ok(found)
        };
        let listed = futures::stream::once(async move { carry_out(trouble, list).await });
        let each = listed.map_ok(|found| futures::stream::iter(found.into_iter().map(Ok)));
        each.try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let key = prefix.map(|p| p.to_string()).unwrap_or_default();
        let trouble = self.enter("list", &key, false).await;
        self.carry_out(trouble, self.inner.list_with_delimiter(prefix))
            .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let trouble = self.enter("copy", to.as_ref(), true).await;
        self.carry_out(trouble, self.inner.copy_opts(from, to, options))
            .await
    }
}

/// An upload in parts: every part and the completion are operations.
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    key: String,
    torn: bool,
    faults: Arc<Faults>,
    log: Arc<FaultLog>,
}

impl fmt::Debug for FaultyUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyUpload")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (trouble, wait) = draw(&self.faults, &self.log, "put part", &self.key, true);
        let part = self.inner.put_part(data);
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            carry_out(trouble, part).await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (trouble, _) = draw(&self.faults, &self.log, "complete", &self.key, true);
        if std::mem::take(&mut self.torn) {
            return Err(transient("connection reset before the parts were joined"));
        }
        carry_out(trouble, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        if self.log.has_stopped() {
            return Err(stopped());
        }
        self.inner.abort().await
    }
}

impl Store {
    /// This store, with smaller parts: so that a test needs no large objects to have an upload torn.
    pub fn with_parts_of(&self, bytes: usize) -> Self {
        Self {
            part: bytes.max(1),
            ..self.clone()
        }
    }

    /// This store with trouble in it, and the record of the trouble.
    pub fn with_faults(&self, faults: Faults) -> (Self, Arc<FaultLog>) {
        let (inner, log) = Faulty::new(Arc::clone(&self.inner), faults);
        let inner: Arc<dyn ObjectStore> = Arc::new(inner);
        (
            Self {
                inner,
                ..self.clone()
            },
            log,
        )
    }
}
