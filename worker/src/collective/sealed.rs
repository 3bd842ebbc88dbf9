//! The bytes of a connection under TLS, without ever waiting.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
};
use tokio_rustls::rustls::Connection;

/// Bytes that are taken before the connection has sent those from before: several records, so that one system call
/// moves many, and few enough to stay in the cache.
const AHEAD: usize = 256 << 10;

/// An end of a TLS session whose handshake is done. One thread reads and writes; each goes as far as it can, so that
/// neither waits for the other.
#[derive(Debug)]
pub(super) struct Sealed(Box<Connection>);

impl Sealed {
    pub(super) fn new(mut connection: Connection) -> Sealed {
        connection.set_buffer_limit(Some(AHEAD));
        Sealed(Box::new(connection))
    }

    /// Takes bytes, as many as there is room for, and sends what can be sent.
    pub(super) fn write(&mut self, stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<usize> {
        self.push(stream)?;
        let taken = self.0.writer().write(bytes)?;
        self.push(stream)?;
        Ok(taken)
    }

    /// Sends what was taken, as much as goes. True: something went.
    pub(super) fn push(&mut self, stream: &mut TcpStream) -> std::io::Result<bool> {
        let mut moved = false;
        while self.0.wants_write() {
            match self.0.write_tls(stream) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => moved = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }

    /// Whether something that was taken is not sent yet.
    pub(super) fn holds(&self) -> bool {
        self.0.wants_write()
    }

    /// Gives bytes that have come: 0 when there are none now.
    ///
    /// # Errors
    /// The end of the connection too, and a record that the peer didn't write.
    pub(super) fn read(
        &mut self,
        stream: &mut TcpStream,
        out: &mut [u8],
    ) -> std::io::Result<usize> {
        loop {
            match self.0.reader().read(out) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            match self.0.read_tls(stream) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {
                    let processed = self.0.process_new_packets();
                    processed
                        .map_err(|error| std::io::Error::new(ErrorKind::InvalidData, error))?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
