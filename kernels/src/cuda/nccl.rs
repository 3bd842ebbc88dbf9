//! NCCL: bytes from one rank's device to another's, by communicators that never block the thread that uses them.
//!
//! Everything here is given out and then asked after: a [`Communicator`] says whether NCCL has taken the last call
//! ([`Communicator::progress`]), and the device's communication stream whether it has done it. Deadlines, and what else ends
//! a wait, are the caller's. A communicator may be aborted from any thread; it is of no use afterwards, and another
//! generation needs a fresh one with a fresh [`UniqueId`].
//!
//! The library is opened when it is asked for, as those of the [device](super) are.

use super::{
    device::{Device, Which},
    memory::{Span, View},
};
use cudarc::nccl::{result, sys};
use std::{
    ffi::{CStr, c_char, c_int, c_void},
    fmt,
    ops::Range,
    ptr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The oldest NCCL that has all that is called here.
const OLDEST: NcclVersion = NcclVersion(21_800);

/// What a configuration begins with, so that NCCL knows one.
const MAGIC: u32 = 0xcafe_beef;

/// "Not set", for a number of a configuration.
const UNSET: c_int = c_int::MIN;

/// Why NCCL can't be used, or could not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NcclError {
    /// The library is not on this machine.
    #[error(
        "this machine has no libnccl.so; install NCCL, or put a folder on LD_LIBRARY_PATH with a link of that name to libnccl.so.2"
    )]
    Absent,
    /// The library lacks what is called here.
    #[error("this machine has NCCL {0}, and {OLDEST} is the oldest that will do")]
    TooOld(NcclVersion),
    /// A call was refused.
    #[error("NCCL refused {call}: {reason}")]
    Call {
        /// What was asked.
        call: &'static str,
        /// What it said.
        reason: String,
    },
    /// Something failed after it was given out.
    #[error("NCCL failed: {0}")]
    Failed(String),
    /// The communicator was aborted.
    #[error("the NCCL communicator was aborted")]
    Aborted,
}

/// A version, as NCCL counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NcclVersion(pub i32);

impl fmt::Display for NcclVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NcclVersion(number) = self;
        write!(
            f,
            "{}.{}.{}",
            number / 10_000,
            number / 100 % 100,
            number % 100
        )
    }
}

/// The library's version.
///
/// # Errors
/// [`NcclError`] where there is none, or too old a one.
pub fn version() -> Result<NcclVersion, NcclError> {
    // SAFETY: this looks whether a library can be opened, which runs its initializers and nothing else.
    if !unsafe { sys::is_culib_present() } {
        return Err(NcclError::Absent);
    }
    let version = result::get_nccl_version().map_err(refused("ncclGetVersion"))?;
    match NcclVersion(version) {
        found if found < OLDEST => Err(NcclError::TooOld(found)),
        found => Ok(found),
    }
}

/// What the ranks of one communicator find each other by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniqueId([c_char; UniqueId::BYTES]);

impl UniqueId {
    /// Its length in bytes.
    pub const BYTES: usize = 128;

    /// A fresh one, to be given to all ranks. The process that makes it has to live until all have connected.
    ///
    /// # Errors
    /// [`NcclError`].
    pub fn new() -> Result<UniqueId, NcclError> {
        version()?;
        let id = result::get_uniqueid().map_err(refused("ncclGetUniqueId"))?;
        Ok(UniqueId(id.internal))
    }

    /// Its bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        self.0.iter().map(|byte| *byte as u8).collect()
    }

    /// The one with these bytes, if they are as many as it has.
    pub fn from_bytes(bytes: &[u8]) -> Option<UniqueId> {
        let bytes: [u8; UniqueId::BYTES] = bytes.try_into().ok()?;
        Some(UniqueId(bytes.map(|byte| byte as c_char)))
    }
}

/// One message of an [exchange](Communicator::exchange).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// These bytes go to a rank.
    Send {
        /// The rank.
        to: u32,
        /// Bytes of this device.
        from: Span,
    },
    /// What a rank sends arrives here.
    Receive {
        /// The rank.
        from: u32,
        /// Memory of this device.
        into: Span,
    },
}

/// One rank's end of a communicator.
pub struct Communicator {
    device: Device,
    handle: Mutex<Handle>,
}

/// None once it was aborted.
struct Handle(Option<sys::ncclComm_t>);

// SAFETY: a communicator may be used from any thread, by one at a time: its lock sees to that.
unsafe impl Send for Handle {}

impl fmt::Debug for Communicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Communicator({:?})", self.device)
    }
}

impl Communicator {
    /// Begins to connect rank `rank` of `world` to the others. It may be used once it has made
    /// [progress](Communicator::progress).
    ///
    /// # Errors
    /// [`NcclError`] when there is no library, or it refuses.
    pub fn begin(
        device: &Device,
        id: UniqueId,
        rank: u32,
        world: u32,
    ) -> Result<Communicator, NcclError> {
        version()?;
        device.context().enter();
        let mut config = configuration();
        // NCCL writes there again when it has connected, on a thread of its own: it stays.
        let place: &'static mut sys::ncclComm_t = Box::leak(Box::new(ptr::null_mut()));
        let place: *mut sys::ncclComm_t = place;
        let id = sys::ncclUniqueId { internal: id.0 };
        // SAFETY: the configuration is read before the call returns, and the place is never freed. The device's context is
        // this thread's.
        let begun = unsafe {
            result::comm_init_rank_config(place, world as c_int, id, rank as c_int, &raw mut config)
        };
        begun.map_err(refused("ncclCommInitRankConfig"))?;
        // SAFETY: the call has written the handle, which never changes.
        let handle = unsafe { place.read_volatile() };
        Ok(Communicator {
            device: device.clone(),
            handle: Mutex::new(Handle(Some(handle))),
        })
    }

    /// Whether NCCL has done with the last call: connected, or put what it was given on the stream. Nothing else may be asked
    /// of it before.
    ///
    /// # Errors
    /// [`NcclError`] when something has failed, in this call or in what was given out before.
    pub fn progress(&self) -> Result<bool, NcclError> {
        self.with(|comm| {
            let mut state = sys::ncclResult_t::ncclSuccess;
            // SAFETY: the communicator is alive for as long as it is locked.
            let asked = unsafe { sys::ncclCommGetAsyncError(comm, &raw mut state) };
            asked.result().map_err(refused("ncclCommGetAsyncError"))?;
            match state.result() {
                Ok(result::NcclStatus::InProgress) => Ok(false),
                Ok(_) => Ok(true),
                Err(error) => Err(NcclError::Failed(said(comm, &error))),
            }
        })
    }

    /// Gives out messages, all at once, on the communication stream. Between two ranks they are matched in order. The memory
    /// is to be left alone until the stream has done them.
    ///
    /// # Errors
    /// [`NcclError`] when a call is refused.
    pub fn exchange(&self, messages: &[Message]) -> Result<(), NcclError> {
        let stream = self.stream();
        self.group(|comm| {
            for message in messages {
                // NCCL doesn't look at what it moves.
                let bytes = sys::ncclDataType_t::ncclInt8;
                // SAFETY: spans are memory of this device, which its user leaves alone.
                let given = unsafe {
                    match *message {
                        Message::Send { to, from } => result::send(
                            pointer(from.address),
                            from.bytes,
                            bytes,
                            to as c_int,
                            comm,
                            stream,
                        ),
                        Message::Receive { from, into } => result::recv(
                            pointer(into.address),
                            into.bytes,
                            bytes,
                            from as c_int,
                            comm,
                            stream,
                        ),
                    }
                };
                given.map_err(refused("ncclSend or ncclRecv"))?;
            }
            Ok(())
        })
    }

    /// Has NCCL add up every rank's vector, in an order of its own, and give each rank its shard of the sum.
    ///
    /// # Errors
    /// [`NcclError`] when a call is refused.
    ///
    /// # Panics
    /// When the shards don't lie in the vector, or `out` isn't as long as one of them.
    pub fn reduce_to_shards(
        &self,
        vector: View<f32>,
        shards: &[Range<usize>],
        out: View<f32>,
    ) -> Result<(), NcclError> {
        let (float, sum) = (sys::ncclDataType_t::ncclFloat32, sys::ncclRedOp_t::ncclSum);
        let stream = self.stream();
        let length = out.len();
        if shards.iter().all(|shard| shard.len() == length) && !out.is_empty() {
            assert_eq!(vector.len(), shards.len() * length, "shards cover a vector");
            return self.group(|comm| {
                let (from, into) = (pointer(vector.address()), pointer(out.address()));
                // SAFETY: both are memory of this device of these lengths, which their user leaves alone.
                let given =
                    unsafe { result::reduce_scatter(from, into, length, float, sum, comm, stream) };
                given.map_err(refused("ncclReduceScatter")).map(drop)
            });
        }
        self.group(|comm| {
            for (root, shard) in shards.iter().enumerate() {
                let part = vector.slice(shard.clone());
                if part.is_empty() {
                    continue;
                }
                let (from, into) = (pointer(part.address()), pointer(out.address()));
                // SAFETY: as above; only the root, whose shard is as long as `out`, is written to.
                let given = unsafe {
                    let root = root as c_int;
                    result::reduce(from, into, part.len(), float, sum, root, comm, stream)
                };
                given.map_err(refused("ncclReduce"))?;
            }
            Ok(())
        })
    }

    /// Ends everything that was given out, from any thread; the stream goes on. May be called more than once.
    pub fn abort(&self) {
        // Kept locked, so that whoever sees that it is gone may use the memory again.
        let mut handle = self.handle();
        let Some(comm) = handle.0.take() else {
            return;
        };
        self.device.context().enter();
        // SAFETY: it is alive, and nobody sees it again. What NCCL says of an end that is an end anyway changes nothing.
        let _ = unsafe { result::comm_abort(comm) };
    }

    /// Runs calls as one.
    fn group(
        &self,
        calls: impl FnOnce(sys::ncclComm_t) -> Result<(), NcclError>,
    ) -> Result<(), NcclError> {
        self.device.context().enter();
        self.with(|comm| {
            result::group_start().map_err(refused("ncclGroupStart"))?;
            let called = calls(comm);
            // A group that was begun is ended, whatever became of its calls.
            let ended = result::group_end();
            called?;
            ended.map(drop).map_err(|error| NcclError::Call {
                call: "ncclGroupEnd",
                reason: said(comm, &error),
            })
        })
    }

    fn with<T>(
        &self,
        call: impl FnOnce(sys::ncclComm_t) -> Result<T, NcclError>,
    ) -> Result<T, NcclError> {
        match self.handle().0 {
            Some(comm) => call(comm),
            None => Err(NcclError::Aborted),
        }
    }

    /// Whoever panicked while holding it left the handle as it was.
    fn handle(&self) -> MutexGuard<'_, Handle> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stream(&self) -> sys::cudaStream_t {
        self.device.stream(Which::Communication).cast()
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        self.abort();
    }
}

/// A configuration of a communicator that doesn't block. It states an old version, whose fields all versions know, and
/// leaves the others unset.
fn configuration() -> sys::ncclConfig_t {
    sys::ncclConfig_t {
        size: size_of::<sys::ncclConfig_t>(),
        magic: MAGIC,
        version: OLDEST.0 as u32,
        blocking: 0,
        cgaClusterSize: UNSET,
        minCTAs: UNSET,
        maxCTAs: UNSET,
        netName: ptr::null(),
        splitShare: UNSET,
        trafficClass: UNSET,
        commName: ptr::null(),
        collnetEnable: UNSET,
        CTAPolicy: UNSET,
        shrinkShare: UNSET,
        nvlsCTAs: UNSET,
        nChannelsPerNetPeer: UNSET,
        nvlinkCentricSched: UNSET,
        graphUsageMode: UNSET,
        numRmaCtx: UNSET,
        maxP2pPeers: UNSET,
    }
}

fn pointer(address: u64) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address as usize)
}

fn refused(call: &'static str) -> impl FnOnce(result::NcclError) -> NcclError {
    move |error| NcclError::Call {
        call,
        reason: name(&error),
    }
}

fn name(error: &result::NcclError) -> String {
    // SAFETY: a text that the library keeps.
    text(unsafe { sys::ncclGetErrorString(error.0) })
}

/// An error's name, and what the library has to say besides.
fn said(comm: sys::ncclComm_t, error: &result::NcclError) -> String {
    // SAFETY: a text that the library keeps until it has another; the communicator is locked.
    let more = text(unsafe { sys::ncclGetLastError(comm) });
    match more.trim() {
        "" => name(error),
        more => format!("{} ({more})", name(error)),
    }
}

fn text(raw: *const c_char) -> String {
    if raw.is_null() {
        return String::new();
    }
    // SAFETY: NCCL's texts end with a zero, and stay until they are copied here.
    let text = unsafe { CStr::from_ptr(raw) };
    text.to_string_lossy().into_owned()
}
