//! Connections that have not said who they are: bounded in number and in time, so that strangers can't use up the
//! descriptors that the store and the workers need.
//!
//! Under TLS that follows from the token, whoever is through the handshake is known by that; strangers never get to
//! HTTP. Otherwise a call has to show it.

use polestar_run::pool::Tls;
use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::{Sleep, Timeout},
};
use tokio_rustls::{Accept, TlsAcceptor, server::TlsStream};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

/// Connections that may be unknown at a time. One more, and the oldest of them is closed: a worker is known within
/// milliseconds.
pub(super) const UNKNOWN: usize = 64;
/// How long a connection may stay unknown.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How long nobody is let in after that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether whoever is at the other end of a connection has shown that it has the token.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission(Arc<AtomicBool>);

impl Admission {
    /// It has.
    pub(super) fn admit(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_admitted(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Takes connections in.
pub(super) struct Connections {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    /// Whether a handshake is all the proof that it takes.
    proves_token: bool,
    /// Oldest first. Whoever is dropped here is shown out.
    unknown: VecDeque<(Admission, oneshot::Sender<()>)>,
    /// After a connection that could not be accepted.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Connections {
    pub(super) fn new(listener: TcpListener, tls: Option<&Tls>) -> Connections {
        Connections {
            listener,
            tls: tls.map(|tls| TlsAcceptor::from(tls.control.server.clone())),
            proves_token: tls.is_some_and(Tls::proves_token),
            unknown: VecDeque::new(),
            pause: None,
        }
    }
}

impl Stream for Connections {
    type Item = io::Result<Connection>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let connections = self.get_mut();
        let stream = loop {
            if let Some(pause) = &mut connections.pause {
                ready!(pause.as_mut().poll(context));
                connections.pause = None;
            }
            match ready!(connections.listener.poll_accept(context)) {
                Ok((stream, _)) => break stream,
                // Most likely all descriptors are taken. Other connections are to end for that, not the pool.
                Err(error) => {
                    tracing::warn!("a connection can't be accepted: {error}");
                    connections.unknown.pop_front();
                    connections.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
                }
            }
        };
        let unknown = |(admission, stays): &(Admission, oneshot::Sender<()>)| {
            !admission.is_admitted() && !stays.is_closed()
        };
        connections.unknown.retain(unknown);
        while connections.unknown.len() >= UNKNOWN {
            connections.unknown.pop_front();
        }
        let (stays, shown_out) = oneshot::channel();
        let admission = Admission::default();
        connections.unknown.push_back((admission.clone(), stays));
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("a connection stays slow: {error}");
        }
        Poll::Ready(Some(Ok(Connection {
            wire: match &connections.tls {
                None => Wire::Plain(stream),
                Some(tls) => Wire::Greeting(Box::new(tls.accept(stream))),
            },
            admission,
            proves_token: connections.proves_token,
            end: Some(Box::pin(tokio::time::timeout(PATIENCE, shown_out))),
        })))
    }
}

/// What bytes go over.
enum Wire {
    Plain(TcpStream),
    /// In the handshake, which goes on whenever somebody wants to read or write.
    Greeting(Box<Accept<TcpStream>>),
    Sealed(Box<TlsStream<TcpStream>>),
    /// The handshake failed.
    Refused,
}

/// A connection, which ends if it stays unknown.
pub(super) struct Connection {
    wire: Wire,
    admission: Admission,
    proves_token: bool,
    /// `None` once it has come.
    end: Option<Pin<Box<Timeout<oneshot::Receiver<()>>>>>,
}

impl Connection {
    /// Whether it is unknown, and has been for too long or is one too many.
    fn has_ended(&mut self, context: &mut Context<'_>) -> bool {
        if self.admission.is_admitted() {
            return false;
        }
        if let Some(end) = &mut self.end
            && end.as_mut().poll(context).is_ready()
        {
            self.end = None;
        }
        self.end.is_none()
    }
}

impl Connected for Connection {
    type ConnectInfo = Admission;

    fn connect_info(&self) -> Admission {
        self.admission.clone()
    }
}

impl Connection {
    /// The bytes' way, once there is one.
    fn poll_wire(&mut self, context: &mut Context<'_>) -> Poll<io::Result<&mut Wire>> {
        if self.has_ended(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if let Wire::Greeting(greeting) = &mut self.wire {
            match ready!(Pin::new(greeting.as_mut()).poll(context)) {
                Ok(stream) => {
                    self.wire = Wire::Sealed(Box::new(stream));
                    if self.proves_token {
                        self.admission.admit();
                    }
                }
                Err(error) => {
                    self.wire = Wire::Refused;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(&mut self.wire))
    }
}

/// What is left to say on a connection whose handshake failed.
fn refused() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(self.get_mut().poll_wire(context))? {
            Wire::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Wire::Sealed(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
            Wire::Greeting(_) | Wire::Refused => Poll::Ready(Err(refused())),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match ready!(self.get_mut().poll_wire(context))? {
            Wire::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Wire::Sealed(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
            Wire::Greeting(_) | Wire::Refused => Poll::Ready(Err(refused())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.get_mut().poll_wire(context))? {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(context),
            Wire::Sealed(stream) => Pin::new(stream.as_mut()).poll_flush(context),
            Wire::Greeting(_) | Wire::Refused => Poll::Ready(Err(refused())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Wire::Sealed(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            // It ends when it is dropped.
            Wire::Greeting(_) | Wire::Refused => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polestar_run::pool::Token;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_stream::StreamExt;

    async fn listening(tls: Option<&Tls>) -> (Connections, std::net::SocketAddr) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (Connections::new(listener, tls), address)
    }

    #[tokio::test]
    async fn one_stranger_too_many_shows_the_oldest_out_and_nobody_admitted() {
        let (mut connections, address) = listening(None).await;
        let (mut strangers, mut taken) = (Vec::new(), Vec::new());
        for i in 0..=UNKNOWN + 1 {
            strangers.push(TcpStream::connect(address).await.unwrap());
            taken.push(connections.next().await.unwrap().unwrap());
            if i == 0 {
                taken[0].admission.admit();
            }
        }
        let refused = taken[1].read_u8().await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        for (i, connection) in taken.iter_mut().enumerate() {
            let mut context = Context::from_waker(std::task::Waker::noop());
            assert_eq!(connection.has_ended(&mut context), i == 1, "{i}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection_unless_it_was_admitted() {
        let (mut connections, address) = listening(None).await;
        let (_stranger, _admitted) = (
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
        );
        let mut stranger = connections.next().await.unwrap().unwrap();
        let mut admitted = connections.next().await.unwrap().unwrap();
        admitted.admission.admit();
        let begun = tokio::time::Instant::now();
        let refused = stranger.read_u8().await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= PATIENCE);
        let reading = tokio::time::timeout(10 * PATIENCE, admitted.read_u8()).await;
        assert!(reading.is_err(), "it may be silent: {reading:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_at_a_sealed_port_gets_no_further_and_no_longer() {
        let ours = Token::random().unwrap();
        let (mut connections, address) = listening(Some(&Tls::of(&ours))).await;
        let mut dial = async || {
            let stream = TcpStream::connect(address).await.unwrap();
            (stream, connections.next().await.unwrap().unwrap())
        };
        // Plain HTTP/2, HTTP/1, and noise.
        let long = [7; 20_000];
        for said in [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            &long,
        ] {
            let (mut stream, mut connection) = dial().await;
            stream.write_all(said).await.unwrap();
            let error = connection.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
            assert!(!connection.admission.is_admitted());
        }
        // One that says nothing, for whoever only writes to it too.
        let begun = tokio::time::Instant::now();
        let (_stream, mut silent) = dial().await;
        let error = silent.write_u8(1).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= PATIENCE);
        // Another pool's worker, and one of this pool's.
        for (token, welcome) in [(Token::random().unwrap(), false), (ours, true)] {
            let (stream, mut connection) = dial().await;
            let connector = tokio_rustls::TlsConnector::from(Tls::of(&token).control.client);
            let dialled = connector.connect(Tls::data_name(), stream);
            let (dialled, read) = tokio::join!(
                async {
                    let mut stream = dialled.await?;
                    stream.write_u8(9).await?;
                    stream.flush().await?;
                    Ok::<_, io::Error>(stream)
                },
                connection.read_u8()
            );
            assert_eq!(dialled.is_ok(), welcome);
            assert_eq!(read.ok(), welcome.then_some(9));
            assert_eq!(connection.admission.is_admitted(), welcome);
        }
    }
}
