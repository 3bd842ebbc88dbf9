//! A byte stream to one peer: a connection, or shared memory with a connection beside it.

use super::{LinkError, shared::Shared};
use polestar_core::Rank;
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
};

/// One end of the way to a peer. Nothing here waits: what can't be moved now is moved later.
///
/// With shared memory, the connection carries no data: a byte on it wakes a peer that sleeps, and
/// its end says that the peer is gone.
#[derive(Debug)]
pub(super) struct Link {
    peer: Rank,
    pub(super) stream: TcpStream,
    shared: Option<Shared>,
    hung_up: bool,
    /// Bytes that went to the peer, wake-ups aside.
    pub(super) sent: u64,
}

impl Link {
    /// A link over an authenticated connection, which must not block.
    pub(super) fn new(peer: Rank, stream: TcpStream, shared: Option<Shared>) -> Link {
        Link {
            peer,
            stream,
            shared,
            hung_up: false,
            sent: 0,
        }
    }

    /// Hands over bytes, as many as go.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<usize, LinkError> {
        let n = self.try_write(bytes)?;
        self.sent += n as u64;
        Ok(n)
    }

    fn try_write(&mut self, bytes: &[u8]) -> Result<usize, LinkError> {
        let Some(shared) = &mut self.shared else {
            return match self.stream.write(bytes) {
                Ok(n) => Ok(n),
                Err(error) if would_block(error.kind()) => Ok(0),
                Err(_) => Err(self.lost()),
            };
        };
        let (n, wake) = shared.out.write(bytes)?;
        if wake {
            self.wake_peer();
        }
        if n == 0 && self.hung_up {
            return Err(self.lost());
        }
        Ok(n)
    }

    /// Takes bytes that have come, as many as there are.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, LinkError> {
        let Some(shared) = &mut self.shared else {
            return match self.stream.read(out) {
                Ok(0) => Err(self.lost()),
                Ok(n) => Ok(n),
                Err(error) if would_block(error.kind()) => Ok(0),
                Err(_) => Err(self.lost()),
            };
        };
        let (n, wake) = shared.inward.read(out)?;
        if wake {
            self.wake_peer();
        }
        // What a peer wrote before it left still counts.
        if n == 0 && self.hung_up {
            return Err(self.lost());
        }
        Ok(n)
    }

    /// Prepares for sleep until bytes come (`reads`) or go (`writes`). False: there is something to
    /// do at once.
    pub(super) fn may_sleep(&self, reads: bool, writes: bool) -> Result<bool, LinkError> {
        let Some(shared) = &self.shared else {
            return Ok(true);
        };
        let busy =
            (reads && shared.inward.reader_sleeps()?) || (writes && shared.out.writer_sleeps()?);
        Ok(!(busy || self.hung_up && (reads || writes)))
    }

    /// Whether the connection can still tell something.
    pub(super) fn is_open(&self) -> bool {
        !self.hung_up
    }

    /// Whether the connection is to be watched for room to write, rather than for a wake-up.
    pub(super) fn is_plain(&self) -> bool {
        self.shared.is_none()
    }

    /// After a sleep: takes the wake-ups that have come, unless the connection carries data.
    pub(super) fn drain_wakeups(&mut self) {
        if self.shared.is_none() {
            return;
        }
        let mut wakeups = [0; 64];
        loop {
            match self.stream.read(&mut wakeups) {
                Ok(0) => break self.hung_up = true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break self.hung_up = true,
            }
        }
    }

    fn wake_peer(&mut self) {
        // No room means that wake-ups enough are on their way; a broken connection is noticed by its
        // reader.
        let _ = self.stream.write(&[1]);
    }

    fn lost(&self) -> LinkError {
        LinkError::PeerLost(self.peer)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Only this direction: closing both would throw away what the peer hasn't read yet.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

fn would_block(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
