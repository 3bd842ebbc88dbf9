//! A byte stream to one peer: a connection, plain or under TLS, or shared memory with a connection beside it.

use super::{LinkError, sealed::Sealed, shared::Shared};
use polestar_core::Rank;
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
};

/// How data goes to the peer and comes from it.
#[derive(Debug)]
pub(super) enum Way {
    /// Over the connection as it is.
    Plain,
    /// Over the connection, under TLS.
    Sealed(Sealed),
    /// Through memory. The connection carries no data then: a byte on it wakes a peer that sleeps, and its end says
    /// that the peer is gone.
    Shared(Shared),
}

/// One end of the way to a peer. Nothing here waits: what can't be moved now is moved later.
#[derive(Debug)]
pub(super) struct Link {
    peer: Rank,
    pub(super) stream: TcpStream,
    way: Way,
    hung_up: bool,
    /// Bytes that went to the peer, wake-ups and what TLS adds aside.
    pub(super) sent: u64,
}

impl Link {
    /// A link over an authenticated connection, which must not block.
    pub(super) fn new(peer: Rank, stream: TcpStream, way: Way) -> Link {
        Link {
            peer,
            stream,
            way,
            hung_up: false,
            sent: 0,
        }
    }

    /// Hands over bytes, as many as go. Under TLS, what was handed over may have to be [pushed](Link::push) yet.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<usize, LinkError> {
        let n = self.try_write(bytes)?;
        self.sent += n as u64;
        Ok(n)
    }

    fn try_write(&mut self, bytes: &[u8]) -> Result<usize, LinkError> {
        let shared = match &mut self.way {
            Way::Plain => {
                let written = self.stream.write(bytes);
                return self.moved(written);
            }
            Way::Sealed(sealed) => {
                let taken = sealed.write(&mut self.stream, bytes);
                return self.moved(taken);
            }
            Way::Shared(shared) => shared,
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

    /// Sends what was handed over and is not sent yet. True: something went.
    pub(super) fn push(&mut self) -> Result<bool, LinkError> {
        match &mut self.way {
            Way::Sealed(sealed) if sealed.holds() => {
                let pushed = sealed.push(&mut self.stream);
                pushed.map_err(|_| self.lost())
            }
            _ => Ok(false),
        }
    }

    /// Whether something that was handed over is not sent yet.
    pub(super) fn holds(&self) -> bool {
        matches!(&self.way, Way::Sealed(sealed) if sealed.holds())
    }

    /// Takes bytes that have come, as many as there are.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, LinkError> {
        let shared = match &mut self.way {
            Way::Plain => {
                return match self.stream.read(out) {
                    Ok(0) => Err(self.lost()),
                    read => self.moved(read),
                };
            }
            Way::Sealed(sealed) => {
                let read = sealed.read(&mut self.stream, out);
                return self.moved(read);
            }
            Way::Shared(shared) => shared,
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
        let Way::Shared(shared) = &self.way else {
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

    /// Whether the connection carries the data, and is to be watched for room to write rather than for a wake-up.
    pub(super) fn carries_data(&self) -> bool {
        !matches!(self.way, Way::Shared(_))
    }

    /// Whether what it carries is encrypted.
    #[cfg(feature = "cuda")]
    pub(super) fn is_sealed(&self) -> bool {
        matches!(self.way, Way::Sealed(_))
    }

    /// Whether what the connection carries can be read on its way.
    #[cfg(test)]
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.way, Way::Plain)
    }

    /// After a sleep: takes the wake-ups that have come, unless the connection carries data.
    pub(super) fn drain_wakeups(&mut self) {
        if self.carries_data() {
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

    /// What came of moving bytes over the connection.
    fn moved(&self, moved: std::io::Result<usize>) -> Result<usize, LinkError> {
        match moved {
            Ok(n) => Ok(n),
            Err(error) if would_block(error.kind()) => Ok(0),
            Err(_) => Err(self.lost()),
        }
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
