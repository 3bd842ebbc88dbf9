//! Moving bytes to and from all peers at once, on the thread that needs them.

use super::{Cause, LinkError, link::Link};
use polestar_core::Rank;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// What precedes the bytes of an operation on every link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u32,
    pub(super) sequence: u64,
    pub(super) bytes: u64,
}

const MAGIC: u32 = 0x504c_5232;
const HEADER: usize = 24;

impl Header {
    fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.kind.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..].copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    /// None: not a header, the streams are out of step.
    fn decode(bytes: &[u8; HEADER]) -> Option<Header> {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let first = word(0);
        (first as u32 == MAGIC).then(|| Header {
            kind: (first >> 32) as u32,
            sequence: word(8),
            bytes: word(16),
        })
    }
}

/// What goes to one peer: a header, then pieces of equal length. They are interleaved chunk by
/// chunk, so that the peer can merge the first chunk of all of them before the second comes.
pub(super) struct Feed<'a> {
    header: [u8; HEADER],
    sent: usize,
    pieces: Vec<&'a [u8]>,
    chunk: usize,
    /// Chunk, piece and byte inside it that are next.
    at: (usize, usize, usize),
}

impl<'a> Feed<'a> {
    pub(super) fn new(header: Header, pieces: Vec<&'a [u8]>, chunk: usize) -> Feed<'a> {
        Feed {
            header: header.encode(),
            sent: 0,
            pieces,
            chunk: chunk.max(1),
            at: (0, 0, 0),
        }
    }

    /// The next bytes in one run; empty when all are gone.
    fn next(&self) -> &[u8] {
        if self.sent < HEADER {
            return &self.header[self.sent..];
        }
        let (chunk, piece, byte) = self.at;
        let Some(piece) = self.pieces.get(piece) else {
            return &[];
        };
        let from = chunk.saturating_mul(self.chunk).min(piece.len());
        let to = from.saturating_add(self.chunk).min(piece.len());
        &piece[from + byte..to]
    }

    fn advance(&mut self, n: usize) {
        if self.sent < HEADER {
            self.sent += n;
            return;
        }
        self.at.2 += n;
        if self.next().is_empty() {
            self.at = (self.at.0, self.at.1 + 1, 0);
            if self.at.1 == self.pieces.len() {
                self.at = (self.at.0 + 1, 0, 0);
            }
        }
    }
}

/// Bytes that are due from one peer.
pub(super) struct Due<'b> {
    pub(super) from: Rank,
    pub(super) into: &'b mut [u8],
}

/// One operation's traffic.
pub(super) struct Exchange<'a> {
    links: &'a mut [Option<Link>],
    feeds: Vec<Option<Feed<'a>>>,
    aborted: &'a AtomicBool,
    deadline: Duration,
    moved: Instant,
}

/// Turns of the loop without progress before the processor is offered to others, and before sleep.
/// A peer on another core answers within a few hundred turns (some microseconds); with more busy
/// ranks than cores it can only answer once this one steps aside.
const TURNS: u32 = 300;
const YIELDS: u32 = 200;

impl<'a> Exchange<'a> {
    /// `feeds[r]` is what goes to rank `r`.
    pub(super) fn new(
        links: &'a mut [Option<Link>],
        feeds: Vec<Option<Feed<'a>>>,
        aborted: &'a AtomicBool,
        deadline: Duration,
    ) -> Exchange<'a> {
        Exchange {
            links,
            feeds,
            aborted,
            deadline,
            moved: Instant::now(),
        }
    }

    /// Every peer's announcement of how many bytes it sends in operation `ours`, by rank.
    pub(super) fn headers(&mut self, ours: Header) -> Result<Vec<usize>, Cause> {
        let mut buffers = vec![[0; HEADER]; self.links.len()];
        let each = self.links.iter().zip(&mut buffers).enumerate();
        let mut due: Vec<Due<'_>> = each
            .filter(|(_, (link, _))| link.is_some())
            .map(|(rank, (_, into))| Due {
                from: Rank(rank as u32),
                into,
            })
            .collect();
        self.fill(&mut due)?;
        let mut sizes = vec![0; self.links.len()];
        for (rank, buffer) in buffers.iter().enumerate() {
            if self.links[rank].is_none() {
                continue;
            }
            let from = Rank(rank as u32);
            let header = Header::decode(buffer);
            let found = header.map_or(u64::MAX, |h| h.sequence);
            sizes[rank] = match header {
                Some(h) if (h.sequence, h.kind) == (ours.sequence, ours.kind) => h.bytes as usize,
                _ => return Err(Cause::OutOfStep { from, found }),
            };
        }
        Ok(sizes)
    }

    /// Waits until all that is due has come. What is to be sent goes meanwhile.
    pub(super) fn fill(&mut self, due: &mut [Due<'_>]) -> Result<(), Cause> {
        let mut got = vec![0; due.len()];
        self.until(due, &mut got, |_, due, got| {
            due.iter().zip(got).all(|(d, got)| *got == d.into.len())
        })
    }

    /// Waits until all is sent.
    pub(super) fn flush(&mut self) -> Result<(), Cause> {
        self.until(&mut [], &mut [], |feeds, _, _| {
            feeds.iter().flatten().all(|feed| feed.next().is_empty())
        })
    }

    fn until(
        &mut self,
        due: &mut [Due<'_>],
        got: &mut [usize],
        done: impl Fn(&[Option<Feed<'_>>], &[Due<'_>], &[usize]) -> bool,
    ) -> Result<(), Cause> {
        let mut idle = 0;
        loop {
            let mut moved = false;
            for (due, got) in due.iter_mut().zip(got.iter_mut()) {
                moved |= take(self.links, due, got)?;
            }
            for (link, feed) in self.links.iter_mut().zip(&mut self.feeds) {
                if let (Some(link), Some(feed)) = (link, feed) {
                    while !feed.next().is_empty() {
                        let n = link.write(feed.next())?;
                        if n == 0 {
                            break;
                        }
                        feed.advance(n);
                        moved = true;
                    }
                }
            }
            if done(&self.feeds, due, got) {
                return Ok(());
            }
            if moved {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle == 1 {
                self.moved = Instant::now();
            }
            if self.aborted.load(Ordering::Relaxed) {
                return Err(LinkError::Aborted.into());
            }
            if idle < TURNS {
                std::hint::spin_loop();
            } else if idle < TURNS + YIELDS {
                std::thread::yield_now();
            } else {
                self.sleep(due, got)?;
            }
        }
    }

    /// Sleeps until a peer has done something, or fails when none has for too long.
    fn sleep(&mut self, due: &[Due<'_>], got: &[usize]) -> Result<(), Cause> {
        let waited = self.moved.elapsed();
        let late = due.iter().zip(got).find(|(d, got)| **got < d.into.len());
        let late = late.map(|(d, _)| d.from);
        let writes = |rank: usize| {
            let feed = self.feeds[rank].as_ref();
            feed.is_some_and(|feed| !feed.next().is_empty())
        };
        let Some(left) = self.deadline.checked_sub(waited).filter(|l| !l.is_zero()) else {
            let stuck = (0..self.feeds.len()).find(|&r| writes(r));
            let from = late.or_else(|| stuck.map(|r| Rank(r as u32)));
            let from = from.unwrap_or_default();
            return Err(LinkError::Deadline {
                from,
                seconds: self.deadline.as_secs_f64().ceil() as u64,
            }
            .into());
        };
        let reads = |rank: usize| {
            let each = due.iter().zip(got);
            each.filter(|(d, _)| d.from.0 as usize == rank)
                .any(|(d, got)| *got < d.into.len())
        };
        let waits: Vec<(bool, bool)> = (0..self.feeds.len())
            .map(|rank| (reads(rank), writes(rank)))
            .collect();
        for (link, &(reads, writes)) in self.links.iter().zip(&waits) {
            if let Some(link) = link
                && !link.may_sleep(reads, writes)?
            {
                return Ok(());
            }
        }
        let mut watched = Vec::with_capacity(self.links.len());
        for (link, &(reads, writes)) in self.links.iter().zip(&waits) {
            let Some(link) = link.as_ref().filter(|l| l.is_open()) else {
                continue;
            };
            let mut flags = PollFlags::empty();
            // Data of an operation that we aren't waiting for must not keep us awake; a bell must.
            flags.set(PollFlags::IN, reads || !link.is_plain());
            flags.set(PollFlags::OUT, writes && link.is_plain());
            watched.push(PollFd::new(&link.stream, flags));
        }
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut watched, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Err(LinkError::PeerLost(late.unwrap_or_default()).into()),
        }
        for link in self.links.iter_mut().flatten() {
            link.listen();
        }
        Ok(())
    }
}

/// Reads what has come of what is due from one peer.
fn take(links: &mut [Option<Link>], due: &mut Due<'_>, got: &mut usize) -> Result<bool, LinkError> {
    let Some(Some(link)) = links.get_mut(due.from.0 as usize) else {
        return Err(LinkError::PeerLost(due.from));
    };
    let before = *got;
    while *got < due.into.len() {
        match link.read(&mut due.into[*got..])? {
            0 => break,
            n => *got += n,
        }
    }
    Ok(*got > before)
}
