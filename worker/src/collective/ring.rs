//! A byte queue between two processes: one writes, one reads, nobody locks.

use super::LinkError;
use polestar_core::Rank;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Bytes that a queue holds. Small enough to stay in the cache that both cores share, large enough
/// that neither side waits for the other's every chunk.
pub(super) const CAPACITY: usize = 1 << 20;

/// Bytes of a queue in memory.
pub(super) const SIZE: usize = size_of::<Control>() + CAPACITY;

/// A counter on a cache line of its own (two: processors fetch them in pairs), so that one side's
/// writes don't slow down the other's.
#[repr(C, align(128))]
struct Line<T>(T);

/// What both sides know of a queue. Counters only grow; their difference is what lies in it.
#[repr(C)]
struct Control {
    written: Line<AtomicU64>,
    read: Line<AtomicU64>,
    reader_sleeps: Line<AtomicU32>,
    writer_sleeps: Line<AtomicU32>,
}

/// One end of a queue in memory that two processes share.
#[derive(Debug)]
pub(super) struct Ring {
    control: *mut u8,
    peer: Rank,
}

// SAFETY: the memory behind the pointer is shared between processes anyway; all of its control words
// are atomics, and each end of the queue belongs to one `Ring` that is used by one thread at a time.
unsafe impl Send for Ring {}

impl Ring {
    /// An end of the queue at `memory`.
    ///
    /// # Safety
    /// `memory` must be aligned to 128 bytes, valid for [`SIZE`] bytes for as long as the ring lives,
    /// zero when it was made, and used by no more than one writer and one reader, both rings.
    pub(super) unsafe fn new(memory: *mut u8, peer: Rank) -> Ring {
        Ring {
            control: memory,
            peer,
        }
    }

    fn control(&self) -> &Control {
        // SAFETY: by the contract of `new` the memory is valid, aligned, and begins with a `Control`,
        // which consists of atomics and was zero at first, a value that all of them may have.
        unsafe { &*self.control.cast::<Control>() }
    }

    fn data(&self) -> *mut u8 {
        // SAFETY: `SIZE` bytes are valid, of which the control words are the first.
        unsafe { self.control.add(size_of::<Control>()) }
    }

    /// Bytes in the queue, and where its ends are. The other side is another process: what it wrote
    /// is checked before it becomes an address.
    fn extent(&self) -> Result<(u64, u64, usize), LinkError> {
        let written = self.control().written.0.load(Ordering::Acquire);
        let read = self.control().read.0.load(Ordering::Acquire);
        let used = written.wrapping_sub(read);
        if used > CAPACITY as u64 {
            return Err(LinkError::PeerLost(self.peer));
        }
        Ok((written, read, used as usize))
    }

    /// Moves bytes in, as many as there is room for. True: the reader sleeps and has to be woken.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(usize, bool), LinkError> {
        let (written, _, used) = self.extent()?;
        let n = bytes.len().min(CAPACITY - used);
        if n == 0 {
            return Ok((0, false));
        }
        let at = written as usize % CAPACITY;
        let first = n.min(CAPACITY - at);
        // SAFETY: `at + first` and `n - first` are at most CAPACITY, so that both parts lie in the
        // data area; the reader doesn't touch them until `written` covers them.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.data().add(at), first);
            std::ptr::copy_nonoverlapping(bytes.as_ptr().add(first), self.data(), n - first);
        }
        let control = self.control();
        control
            .written
            .0
            .store(written.wrapping_add(n as u64), Ordering::Release);
        Ok((n, wake(&control.reader_sleeps.0)))
    }

    /// Moves bytes out, as many as are there. True: the writer sleeps and has to be woken.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<(usize, bool), LinkError> {
        let (_, read, used) = self.extent()?;
        let n = out.len().min(used);
        if n == 0 {
            return Ok((0, false));
        }
        let at = read as usize % CAPACITY;
        let first = n.min(CAPACITY - at);
        // SAFETY: as in `write`; the writer doesn't touch these bytes until `read` has passed them.
        unsafe {
            std::ptr::copy_nonoverlapping(self.data().add(at), out.as_mut_ptr(), first);
            std::ptr::copy_nonoverlapping(self.data(), out.as_mut_ptr().add(first), n - first);
        }
        let control = self.control();
        control
            .read
            .0
            .store(read.wrapping_add(n as u64), Ordering::Release);
        Ok((n, wake(&control.writer_sleeps.0)))
    }

    /// Announces that the reader is about to sleep. True: it mustn't, there is something to read.
    pub(super) fn reader_sleeps(&self) -> Result<bool, LinkError> {
        announce(&self.control().reader_sleeps.0);
        Ok(self.extent()?.2 > 0)
    }

    /// Announces that the writer is about to sleep. True: it mustn't, there is room.
    pub(super) fn writer_sleeps(&self) -> Result<bool, LinkError> {
        announce(&self.control().writer_sleeps.0);
        Ok(self.extent()?.2 < CAPACITY)
    }
}

/// Sets a flag, before its owner looks at the queue for the last time.
fn announce(flag: &AtomicU32) {
    flag.store(1, Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

/// Whether the other side has announced that it sleeps, after the queue was changed. The fences on
/// both sides rule out that each misses what the other has just done.
fn wake(flag: &AtomicU32) -> bool {
    fence(Ordering::SeqCst);
    flag.load(Ordering::Relaxed) == 1 && flag.swap(0, Ordering::Relaxed) == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_and_a_broken_counter_is_noticed() {
        let mut memory = vec![Line([0_u8; 128]); SIZE.div_ceil(128)];
        let start = memory.as_mut_ptr().cast::<u8>();
        // SAFETY: aligned, large enough, zero, and alive until the end of the test.
        let (mut writer, mut reader) =
            unsafe { (Ring::new(start, Rank(1)), Ring::new(start, Rank(0))) };
        let sent: Vec<u8> = (0..3 * CAPACITY + 12_345)
            .map(|i| (i * 7 % 251) as u8)
            .collect();
        let mut received = vec![0; sent.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut at = 0;
                while at < sent.len() {
                    let end = (at + 70_001).min(sent.len());
                    at += writer.write(&sent[at..end]).expect("a sane queue").0;
                }
            });
            let mut at = 0;
            while at < received.len() {
                let end = (at + 50_003).min(received.len());
                at += reader.read(&mut received[at..end]).expect("a sane queue").0;
            }
        });
        assert!(sent == received);

        let control = reader.control();
        control
            .written
            .0
            .fetch_add(CAPACITY as u64 + 1, Ordering::Relaxed);
        assert!(reader.read(&mut [0; 8]).is_err());
    }

    impl Clone for Line<[u8; 128]> {
        fn clone(&self) -> Self {
            Line(self.0)
        }
    }
}
