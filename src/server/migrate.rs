//! Connections follow their packets.
//!
//! The kernel works on a packet on the processor where it arrives: that of the network card's queue or, on the same
//! machine, that of whoever sends it. A connection that lives elsewhere makes two processors wake each other for each
//! answer. Where it began may be the wrong place, or become it; so it moves between two requests, with all its state, to the
//! worker on that processor, if that has not too many already. The socket is then registered with the other worker's
//! runtime (`socket`) and the alarm set there (`accept`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::OwnedSemaphorePermit;

use super::watch::Watch;
use super::workers::Seat;

/// A connection's task.
#[derive(Debug)]
pub(super) struct Migrating<F>(Option<Stay<F>>);

/// A connection with the worker that it lives on at present.
#[derive(Debug)]
struct Stay<F> {
    /// Drives it to its end.
    life: Pin<Box<F>>,
    watch: Arc<Watch>,
    seat: Seat,
    /// Given back when the socket is closed.
    _slot: OwnedSemaphorePermit,
}

impl<F: Future<Output = ()> + Send + 'static> Migrating<F> {
    /// Starts what drives a connection, on the worker where its seat is.
    pub(super) fn start(life: F, watch: Arc<Watch>, (seat, slot): (Seat, OwnedSemaphorePermit)) {
        Stay { life: Box::pin(life), watch, seat, _slot: slot }.begin();
    }
}

impl<F: Future<Output = ()> + Send + 'static> Stay<F> {
    fn begin(self) {
        let worker = self.seat.handle().clone();
        worker.spawn(Migrating(Some(self)));
    }
}

impl<F: Future<Output = ()> + Send + 'static> Future for Migrating<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stay) = &mut self.0 else { return Poll::Ready(()) };
        if stay.life.as_mut().poll(cx).is_ready() {
            self.0 = None;
            return Poll::Ready(());
        }
        let Some(seat) = stay.watch.should_move().and_then(|processor| stay.seat.nearer(processor)) else {
            return Poll::Pending;
        };
        if let Some(stay) = self.0.take() {
            stay.watch.moved();
            Stay { seat, ..stay }.begin();
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread::{self, ThreadId};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Semaphore;

    use super::super::socket::Socket;
    use super::super::workers::tests::two;
    use super::*;

    /// Answers each byte with the same byte, and notes which thread did.
    async fn echo(mut socket: Socket, watch: Arc<Watch>, threads: Arc<Mutex<Vec<ThreadId>>>) {
        while let Ok(byte) = socket.read_u8().await {
            watch.began(false);
            threads.lock().expect("alive").push(thread::current().id());
            socket.write_u8(byte).await.expect("writes");
            watch.waits_for_us(false);
            watch.ended();
        }
    }

    #[tokio::test]
    async fn a_connection_moves_between_two_requests_and_goes_on() {
        let workers = two();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connects");
        let (stream, _) = listener.accept().await.expect("a connection");
        let (watch, slots) = (Arc::new(Watch::default()), Arc::new(Semaphore::new(1)));
        let threads = Arc::new(Mutex::new(Vec::new()));
        let life = echo(Socket::new(stream, Arc::clone(&watch)), Arc::clone(&watch), Arc::clone(&threads));
        let slot = Arc::clone(&slots).acquire_owned().await.expect("open");
        // As after accept on another runtime.
        watch.moved();
        Migrating::start(life, Arc::clone(&watch), (workers.places().seat(0, None), slot));

        // One request while packets arrive there, and who answered it.
        let mut ask = async |arrival| {
            watch.arrives_at(arrival);
            client.write_u8(7).await.expect("sends");
            assert_eq!(client.read_u8().await.expect("an answer"), 7);
            *threads.lock().expect("alive").last().expect("the one that answered")
        };
        let all = async {
            let first = ask(0).await;
            for _ in 0..10 {
                assert_eq!(ask(0).await, first);
            }
            // Answered where it was; it moves when the task has nothing more to do.
            let mut second = ask(1).await;
            while second == first {
                second = ask(1).await;
            }
            for arrival in [1, 1, 7, 7, 1, 7] {
                assert_eq!(ask(arrival).await, second, "where its packets arrive, or where it is");
            }
            while ask(0).await == second {}
            assert_eq!(ask(0).await, first);
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.expect("it moves");

        drop(client);
        let _back = slots.acquire().await.expect("given back when the socket is closed");
        workers.end().await;
    }

    #[tokio::test]
    async fn a_connection_stays_while_it_is_in_use() {
        let watch = Watch::default();
        let may = || {
            watch.arrives_at(1);
            watch.should_move() == Some(1)
        };
        assert!(!may(), "no request yet");
        watch.began(false);
        assert!(!may(), "it is being answered");
        watch.waits_for_us(false);
        watch.ended();
        assert_eq!(watch.should_move(), Some(1), "what was found out meanwhile still counts");
        assert!(may());
        assert_eq!(watch.should_move(), None, "told once");
        watch.received();
        assert!(!may(), "a head is half there");
        watch.began(false);
        watch.waits_for_us(false);
        watch.ended();
        watch.blocked();
        assert!(!may(), "an answer is on its way");
        watch.wrote(1);
        assert!(may());
        watch.left_unread();
        assert!(!may(), "it is ending");
    }
}
