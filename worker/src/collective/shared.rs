//! Memory that the two processes at the ends of a connection share, if they are on one host.
//!
//! ```text
//! listener                                    dialler
//! makes /dev/shm/polestar-<random>, writes
//! a nonce into it
//!        ── name, nonce ──▶                   opens it, compares the nonce
//!        ◀── yes or no ──
//! removes the name; both have it mapped,
//! and nobody else will
//! ```
//! Another host, another container, a full /dev/shm: the answer is no and the connection stays as it
//! is. The name exists for the moment of the handshake only, so that nothing is left behind by
//! whoever is killed later.

use super::ring::{self, Ring};
use memmap2::{MmapOptions, MmapRaw};
use polestar_core::Rank;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Two queues, one a direction, in memory of both processes.
#[derive(Debug)]
pub(super) struct Shared {
    /// To the peer.
    pub(super) out: Ring,
    /// From the peer.
    pub(super) inward: Ring,
    /// Keeps the rings' memory. Dropped last: fields are dropped in order.
    _memory: MmapRaw,
}

const NONCE: usize = 16;
/// The nonce has a place of its own before the queues.
const BEFORE: usize = 128;
const SIZE: usize = BEFORE + 2 * ring::SIZE;

/// Memory under a name, which goes when the offer does.
struct Offer {
    name: Name,
    memory: MmapRaw,
}

struct Name(PathBuf);

impl Drop for Name {
    fn drop(&mut self) {
        // If it can't be removed there is nothing more to do.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn path(name: u128) -> PathBuf {
    PathBuf::from(format!("/dev/shm/polestar-{name:032x}"))
}

fn map(file: &File) -> io::Result<MmapRaw> {
    MmapOptions::new().len(SIZE).map_raw(file)
}

impl Offer {
    fn new(name: u128, nonce: &[u8; NONCE]) -> io::Result<Offer> {
        let path = path(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let name = Name(path);
        // Not by a hole: a full /dev/shm has to be an error here, not a signal later.
        let mode = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&file, mode, 0, SIZE as u64)?;
        let memory = map(&file)?;
        // SAFETY: the mapping is larger than a nonce and not yet known to anybody else.
        unsafe { std::ptr::copy_nonoverlapping(nonce.as_ptr(), memory.as_mut_ptr(), NONCE) };
        Ok(Offer { name, memory })
    }

    /// The memory without its name.
    fn into_memory(self) -> MmapRaw {
        drop(self.name);
        self.memory
    }
}

fn open(name: u128, nonce: &[u8; NONCE]) -> io::Result<MmapRaw> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path(name))?;
    if file.metadata()?.len() != SIZE as u64 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let memory = map(&file)?;
    let mut found = [0; NONCE];
    // SAFETY: the mapping is larger than a nonce, which nobody changes after it was written.
    unsafe { std::ptr::copy_nonoverlapping(memory.as_ptr(), found.as_mut_ptr(), NONCE) };
    if found != *nonce {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(memory)
}

fn queues(memory: MmapRaw, peer: Rank, listener: bool) -> Shared {
    // SAFETY: the mapping has room for both queues; it begins on a page, so that both are aligned;
    // it was zero, and each of the two processes takes the other end of each queue.
    let (first, second) = unsafe {
        let start = memory.as_mut_ptr().add(BEFORE);
        (
            Ring::new(start, peer),
            Ring::new(start.add(ring::SIZE), peer),
        )
    };
    let (out, inward) = if listener {
        (first, second)
    } else {
        (second, first)
    };
    Shared {
        out,
        inward,
        _memory: memory,
    }
}

/// The listener's part, on an authenticated connection. `None`: the peer can't or won't.
pub(super) async fn offer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    peer: Rank,
    wanted: bool,
) -> io::Result<Option<Shared>> {
    let (name, nonce): (u128, [u8; NONCE]) = (rand::random(), rand::random());
    let offer = wanted.then(|| Offer::new(name, &nonce).ok()).flatten();
    let mut message = vec![u8::from(offer.is_some())];
    message.extend_from_slice(&name.to_le_bytes());
    message.extend_from_slice(&nonce);
    stream.write_all(&message).await?;
    stream.flush().await?;
    let taken = stream.read_u8().await? == 1;
    let memory = offer.map(Offer::into_memory);
    Ok(memory
        .filter(|_| taken)
        .map(|memory| queues(memory, peer, true)))
}

/// The dialler's part.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    peer: Rank,
    wanted: bool,
) -> io::Result<Option<Shared>> {
    let offered = stream.read_u8().await? == 1;
    let name = stream.read_u128_le().await?;
    let mut nonce = [0; NONCE];
    stream.read_exact(&mut nonce).await?;
    let memory = (offered && wanted)
        .then(|| open(name, &nonce).ok())
        .flatten();
    stream.write_u8(u8::from(memory.is_some())).await?;
    stream.flush().await?;
    Ok(memory.map(|memory| queues(memory, peer, false)))
}
