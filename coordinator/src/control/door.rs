//! Connections that have not said who they are: bounded in number and in time, so that strangers can't use up the
//! descriptors that the store and the workers need.

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
use tokio_stream::Stream;
use tonic::transport::server::Connected;

/// Connections that may be unknown at a time. One more, and the oldest of them is closed: a worker is known within
/// milliseconds.
pub(super) const UNKNOWN: usize = 64;
/// How long a connection may stay unknown.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How long nobody is let in after that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether whoever is at the other end of a connection has shown the token.
#[derive(Clone, Debug, Default)]
pub(super) struct Guest(Arc<AtomicBool>);

impl Guest {
    /// It has.
    pub(super) fn admit(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_admitted(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Takes connections in.
pub(super) struct Door {
    listener: TcpListener,
    /// Oldest first. Whoever is dropped here is shown out.
    unknown: VecDeque<(Guest, oneshot::Sender<()>)>,
    /// After a connection that could not be accepted.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Door {
    pub(super) fn new(listener: TcpListener) -> Door {
        Door {
            listener,
            unknown: VecDeque::new(),
            pause: None,
        }
    }
}

impl Stream for Door {
    type Item = io::Result<Visit>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let door = self.get_mut();
        let stream = loop {
            if let Some(pause) = &mut door.pause {
                ready!(pause.as_mut().poll(context));
                door.pause = None;
            }
            match ready!(door.listener.poll_accept(context)) {
                Ok((stream, _)) => break stream,
                // Most likely all descriptors are taken. Other connections are to end for that, not the pool.
                Err(error) => {
                    tracing::warn!("a connection can't be accepted: {error}");
                    door.unknown.pop_front();
                    door.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
                }
            }
        };
        let unknown = |(guest, stays): &(Guest, oneshot::Sender<()>)| {
            !guest.is_admitted() && !stays.is_closed()
        };
        door.unknown.retain(unknown);
        while door.unknown.len() >= UNKNOWN {
            door.unknown.pop_front();
        }
        let (stays, shown_out) = oneshot::channel();
        let guest = Guest::default();
        door.unknown.push_back((guest.clone(), stays));
        Poll::Ready(Some(Ok(Visit {
            stream,
            guest,
            end: Some(Box::pin(tokio::time::timeout(PATIENCE, shown_out))),
        })))
    }
}

/// A connection, which ends if it stays unknown.
pub(super) struct Visit {
    stream: TcpStream,
    guest: Guest,
    /// `None` once it has come.
    end: Option<Pin<Box<Timeout<oneshot::Receiver<()>>>>>,
}

impl Visit {
    /// Whether it is unknown, and has been for too long or is one too many.
    fn has_ended(&mut self, context: &mut Context<'_>) -> bool {
        if self.guest.is_admitted() {
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

impl Connected for Visit {
    type ConnectInfo = Guest;

    fn connect_info(&self) -> Guest {
        self.guest.clone()
    }
}

impl AsyncRead for Visit {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let visit = self.get_mut();
        if visit.has_ended(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut visit.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Visit {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio_stream::StreamExt;

    async fn a_door() -> (Door, std::net::SocketAddr) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (Door::new(listener), address)
    }

    #[tokio::test]
    async fn one_stranger_too_many_shows_the_oldest_out_and_no_guest() {
        let (mut door, address) = a_door().await;
        let (mut strangers, mut visits) = (Vec::new(), Vec::new());
        for i in 0..=UNKNOWN + 1 {
            strangers.push(TcpStream::connect(address).await.unwrap());
            visits.push(door.next().await.unwrap().unwrap());
            if i == 0 {
                visits[0].guest.admit();
            }
        }
        let refused = visits[1].read_u8().await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        for (i, visit) in visits.iter_mut().enumerate() {
            let mut context = Context::from_waker(std::task::Waker::noop());
            assert_eq!(visit.has_ended(&mut context), i == 1, "{i}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_visit_unless_it_is_a_guest() {
        let (mut door, address) = a_door().await;
        let (_stranger, _guest) = (
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
        );
        let mut stranger = door.next().await.unwrap().unwrap();
        let mut guest = door.next().await.unwrap().unwrap();
        guest.guest.admit();
        let begun = tokio::time::Instant::now();
        let refused = stranger.read_u8().await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= PATIENCE);
        let reading = tokio::time::timeout(10 * PATIENCE, guest.read_u8()).await;
        assert!(reading.is_err(), "it may be silent: {reading:?}");
    }
}
