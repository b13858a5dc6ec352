//! The socket of one connection: a TCP stream that leaves marks in a [`Watch`].
//!
//! It sits below TLS, so that what it counts is what the client's side really took.
//!
//! A socket that is closed while the client still sends makes its kernel throw away what it has received but not read,
//! the answer that says why. So one whose client was refused before it had sent its whole request is shut in one
//! direction first, and what comes is read and dropped for a while (RFC 9112 section 9.6).

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{self, SocketAddr};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::sockopt::{set_socket_send_buffer_size, socket_incoming_cpu};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::watch::Watch;

/// How long a client may go on sending what nobody reads, in all and without a byte.
const LINGER: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(5));

/// After how many reads it is asked where the packets arrive. A short answer costs some microseconds, the question
/// a tenth of one.
const READS_PER_LOOK: u32 = 64;

/// The size of the send buffer for a client on this machine. As set: Linux takes twice that, for what it keeps of each
/// packet. What waits for so near a client is best still in a processor's cache when that reads it; the kernel's own
/// measure, up to 4 MiB, is for long ways (`docs/decisions/warm-bodies.md`).
const NEAR_SEND_BUFFER: usize = 256 << 10;

/// The processor that the packets of a connection arrive at, if the kernel knows.
pub(super) fn arrival(stream: &TcpStream) -> Option<usize> {
    // It says -1 if it does not.
    let processor = socket_incoming_cpu(stream).ok().filter(|&processor| processor != u32::MAX)?;
    usize::try_from(processor).ok()
}

/// A TCP stream under watch.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    watch: Arc<Watch>,
    /// Reads since it was asked where the packets arrive.
    reads: u32,
    /// Where they did when it was asked last.
    arrival: Option<usize>,
    /// How often the connection had moved when the stream was registered with a runtime.
    moves: u32,
    /// Present from when nothing more is sent and the client still may.
    lingering: Option<Lingering>,
}

/// The end of a connection whose client is still sending.
#[derive(Debug)]
struct Lingering {
    /// At the latest.
    until: Instant,
    /// If nothing comes before.
    silence: Pin<Box<Sleep>>,
}

impl Socket {
    /// Puts a stream under watch.
    pub(super) fn new(stream: TcpStream, watch: Arc<Watch>) -> Self {
        let moves = watch.moves();
        Self { stream, watch, reads: 0, arrival: None, moves, lingering: None }
    }

    /// Prepares the stream for answers to a peer, and tells the address that it came to.
    pub(super) fn prepare(&self, peer: SocketAddr) -> io::Result<SocketAddr> {
        // Answers are written whole; waiting for more to fill a segment costs 40 ms.
        self.stream.set_nodelay(true)?;
        let own = self.stream.local_addr()?;
        if peer.ip() == own.ip() {
            set_socket_send_buffer_size(&self.stream, NEAR_SEND_BUFFER)?;
        }
        Ok(own)
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(bytes)) => self.watch.wrote(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.watch.blocked(),
        }
    }

    /// Registers the stream with the runtime that the connection has moved to. If that fails, for lack of a file
    /// descriptor, it goes on being told by the other.
    fn settle(&mut self) {
        if self.moves == self.watch.moves() {
            return;
        }
        self.moves = self.watch.moves();
        let again = self.stream.as_fd().try_clone_to_owned().map(net::TcpStream::from);
        if let Ok(stream) = again.and_then(TcpStream::from_std) {
            self.stream = stream;
        }
    }

    /// Notes where packets arrive; two looks in a row must agree.
    fn look(&mut self) {
        self.reads += 1;
        if self.reads < READS_PER_LOOK {
            return;
        }
        self.reads = 0;
        let arrival = arrival(&self.stream);
        if let Some(processor) = arrival.filter(|_| arrival == self.arrival) {
            self.watch.arrives_at(processor);
        }
        self.arrival = arrival;
    }

    /// Drops what comes until the client ends, or has had its time.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let lingering = self.lingering.get_or_insert_with(|| Lingering {
            until: Instant::now() + LINGER.0,
            silence: Box::pin(sleep(LINGER.1)),
        });
        let mut space = [MaybeUninit::uninit(); 16 * 1024];
        loop {
            let mut dropped = ReadBuf::uninit(&mut space);
            match Pin::new(&mut self.stream).poll_read(cx, &mut dropped) {
                Poll::Ready(Ok(())) if !dropped.filled().is_empty() => {
                    // Asked here too: a client that is always ready leaves the timer no turn.
                    let now = Instant::now();
                    if now >= lingering.until {
                        return Poll::Ready(());
                    }
                    lingering.silence.as_mut().reset((now + LINGER.1).min(lingering.until));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return lingering.silence.as_mut().poll(cx),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.settle();
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.watch.received();
            self.look();
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.settle();
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.settle();
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        if self.watch.is_unread() { self.poll_linger(cx).map(Ok) } else { Poll::Ready(Ok(())) }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::socket_send_buffer_size;
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// A prepared socket to a client that comes from an address of 127.0.0.0/8 to 127.0.0.1.
    async fn prepared(from: [u8; 4]) -> Socket {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let client = TcpSocket::new_v4().expect("a socket");
        client.bind((from, 0).into()).expect("all of them are this machine's");
        let address = listener.local_addr().expect("bound");
        let (_client, taken) = tokio::join!(client.connect(address), listener.accept());
        let (stream, peer) = taken.expect("taken");
        let socket = Socket::new(stream, Arc::new(Watch::default()));
        socket.prepare(peer).expect("prepared");
        socket
    }

    #[tokio::test]
    async fn a_client_of_the_same_address_has_a_small_send_buffer_and_others_have_the_kernels() {
        let most = std::fs::read_to_string("/proc/sys/net/core/wmem_max").expect("readable");
        let most: usize = most.trim().parse().expect("a number");
        let near = 2 * NEAR_SEND_BUFFER.min(most);
        let send_buffer = async |from| socket_send_buffer_size(&prepared(from).await.stream).expect("asked");
        assert_eq!(send_buffer([127, 0, 0, 1]).await, near);
        assert_ne!(send_buffer([127, 0, 0, 2]).await, near);
    }

    #[tokio::test]
    async fn answers_to_clients_near_and_far_wait_for_no_segment_to_fill() {
        for from in [[127, 0, 0, 1], [127, 0, 0, 2]] {
            assert!(prepared(from).await.stream.nodelay().expect("asked"), "{from:?}");
        }
    }
}
