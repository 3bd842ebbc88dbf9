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

/// What goes to one peer: a header, then slices in order.
pub(super) struct SendQueue<'a> {
    header: [u8; HEADER],
    sent: usize,
    current: &'a [u8],
    slices: Box<dyn Iterator<Item = &'a [u8]> + 'a>,
}

impl<'a> SendQueue<'a> {
    pub(super) fn new(
        header: Header,
        slices: impl Iterator<Item = &'a [u8]> + 'a,
    ) -> SendQueue<'a> {
        let mut queue = SendQueue {
            header: header.encode(),
            sent: 0,
            current: &[],
            slices: Box::new(slices),
        };
        queue.refill();
        queue
    }

    fn refill(&mut self) {
        if self.current.is_empty() {
            let more = self.slices.find(|slice| !slice.is_empty());
            self.current = more.unwrap_or(&[]);
        }
    }

    /// The next bytes in one run; empty when all are gone.
    fn next(&self) -> &[u8] {
        if self.sent < HEADER {
            return &self.header[self.sent..];
        }
        self.current
    }

    fn advance(&mut self, n: usize) {
        if self.sent < HEADER {
            self.sent += n;
            return;
        }
        self.current = &self.current[n..];
        self.refill();
    }
}

/// Bytes that are to come from one peer.
pub(super) struct Receive<'b> {
    pub(super) from: Rank,
    pub(super) into: &'b mut [u8],
}

/// One operation's traffic.
pub(super) struct Exchange<'a, 'q> {
    links: &'a mut [Option<Link>],
    queues: Vec<Option<SendQueue<'q>>>,
    aborted: &'a AtomicBool,
    deadline: Duration,
    moved: Instant,
}

/// Turns of the loop without progress before the processor is offered to others, and before sleep.
/// A peer on another core answers within a few hundred turns (some microseconds); with more busy
/// ranks than cores it can only answer once this one steps aside.
const TURNS: u32 = 300;
const YIELDS: u32 = 200;

impl<'a, 'q> Exchange<'a, 'q> {
    /// `queues[r]` is what goes to rank `r`; none: nothing passes between it and this one.
    pub(super) fn new(
        links: &'a mut [Option<Link>],
        queues: Vec<Option<SendQueue<'q>>>,
        aborted: &'a AtomicBool,
        deadline: Duration,
    ) -> Exchange<'a, 'q> {
        Exchange {
            links,
            queues,
            aborted,
            deadline,
            moved: Instant::now(),
        }
    }

    /// How many bytes each peer of this operation announces that it sends, by rank.
    pub(super) fn headers(&mut self, ours: Header) -> Result<Vec<usize>, Cause> {
        let mut buffers = vec![[0; HEADER]; self.links.len()];
        let each = self.queues.iter().zip(&mut buffers).enumerate();
        let mut due: Vec<Receive<'_>> = each
            .filter(|(_, (queue, _))| queue.is_some())
            .map(|(rank, (_, into))| Receive {
                from: Rank(rank as u32),
                into,
            })
            .collect();
        self.fill(&mut due)?;
        let mut sizes = vec![0; self.links.len()];
        for (rank, buffer) in buffers.iter().enumerate() {
            if self.queues[rank].is_none() {
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

    /// Waits until all that is due has come, from each peer in the order given. What is to be sent goes
    /// meanwhile.
    pub(super) fn fill(&mut self, due: &mut [Receive<'_>]) -> Result<(), Cause> {
        let mut got = vec![0; due.len()];
        self.until(due, &mut got, |_, due, got| {
            due.iter().zip(got).all(|(d, got)| *got == d.into.len())
        })
    }

    /// Waits until all is sent.
    pub(super) fn flush(&mut self) -> Result<(), Cause> {
        self.until(&mut [], &mut [], |exchange, _, _| {
            (0..exchange.queues.len()).all(|rank| !exchange.is_sending(rank))
        })
    }

    fn until(
        &mut self,
        due: &mut [Receive<'_>],
        got: &mut [usize],
        done: impl Fn(&Self, &[Receive<'_>], &[usize]) -> bool,
    ) -> Result<(), Cause> {
        let mut idle = 0;
        loop {
            let mut moved = false;
            let mut incomplete = None;
            for (due, got) in due.iter_mut().zip(got.iter_mut()) {
                // A peer's bytes belong to the first buffer that isn't full.
                if incomplete == Some(due.from) {
                    continue;
                }
                moved |= take(self.links, due, got)?;
                incomplete = (*got < due.into.len()).then_some(due.from);
            }
            for (link, queue) in self.links.iter_mut().zip(&mut self.queues) {
                if let (Some(link), Some(queue)) = (link, queue) {
                    moved |= link.push()?;
                    while !queue.next().is_empty() {
                        let n = link.write(queue.next())?;
                        if n == 0 {
                            break;
                        }
                        queue.advance(n);
                        moved = true;
                    }
                }
            }
            if done(self, due, got) {
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

    /// Whether something is still to go to a rank.
    fn is_sending(&self, rank: usize) -> bool {
        let queue = self.queues[rank].as_ref();
        let link = self.links[rank].as_ref();
        queue.is_some_and(|queue| !queue.next().is_empty()) || link.is_some_and(Link::holds)
    }

    /// Sleeps until a peer has done something, or fails when none has for too long.
    fn sleep(&mut self, due: &[Receive<'_>], got: &[usize]) -> Result<(), Cause> {
        let waited = self.moved.elapsed();
        let writes = |rank: usize| self.is_sending(rank);
        let late = due.iter().zip(got).find(|(d, got)| **got < d.into.len());
        let stuck = || (0..self.queues.len()).find(|&rank| writes(rank));
        let late = late
            .map(|(d, _)| d.from)
            .or_else(|| stuck().map(|rank| Rank(rank as u32)))
            .expect("only an exchange that has something to receive or to send sleeps");
        let Some(left) = self.deadline.checked_sub(waited).filter(|l| !l.is_zero()) else {
            return Err(LinkError::Deadline {
                from: late,
                seconds: self.deadline.as_secs_f64().ceil() as u64,
            }
            .into());
        };
        let reads = |rank: usize| {
            let each = due.iter().zip(got);
            each.filter(|(d, _)| d.from.0 as usize == rank)
                .any(|(d, got)| *got < d.into.len())
        };
        let waits: Vec<(bool, bool)> = (0..self.queues.len())
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
            // Data of an operation that we aren't waiting for must not keep us awake; a wake-up must.
            flags.set(PollFlags::IN, reads || !link.carries_data());
            flags.set(PollFlags::OUT, writes && link.carries_data());
            watched.push(PollFd::new(&link.stream, flags));
        }
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut watched, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Err(LinkError::PeerLost(late).into()),
        }
        for link in self.links.iter_mut().flatten() {
            link.drain_wakeups();
        }
        Ok(())
    }
}

/// Reads what has come of what is due from one peer.
fn take(
    links: &mut [Option<Link>],
    due: &mut Receive<'_>,
    got: &mut usize,
) -> Result<bool, LinkError> {
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
