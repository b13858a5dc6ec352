//! Taking connections and driving each to its end.
//!
//! A connection is one task that owns its socket. It holds a slot from before accept until the socket
//! is closed, so that at the cap new clients wait in the kernel's queue and no file descriptor is
//! spent on them.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{self, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use super::answer::ResponseBody;
use super::exchange::Tracked;
use super::listen::{Order, Shared};
use super::migrate::Migrating;
use super::service::{Edge, Line, respond};
use super::socket::{Socket, arrival};
use super::tls::Tls;
use super::watch::{Patience, Verdict, Vigil, Watch};
use super::workers::Places;

/// How long to leave the listening socket alone after it failed for lack of something, such as file
/// descriptors: long enough to spend no time on it, short enough to recover within a second.
const PAUSE: Duration = Duration::from_millis(200);

/// A listening socket.
#[derive(Debug)]
pub(super) struct Door {
    /// The socket, of no runtime yet.
    pub(super) listener: net::TcpListener,
    /// Present if connections to it begin with a handshake.
    pub(super) tls: Option<Arc<Tls>>,
}

impl Door {
    /// The same door for two workers, so that one that waits for a disk keeps nobody out.
    pub(super) fn twice(self) -> impl Iterator<Item = Self> {
        let second = self.listener.try_clone().map(|listener| Self { listener, tls: self.tls.clone() });
        if let Err(error) = &second {
            tracing::warn!(%error, "only one worker takes connections");
        }
        std::iter::once(self).chain(second)
    }
}

/// Takes connections until told to drain, and deals them out among the workers; then closes the listening socket.
/// Runs on the worker with number `here`.
pub(super) async fn accept<E: Edge>(
    door: Door,
    here: usize,
    places: Arc<Places>,
    shared: Arc<Shared>,
    edge: E,
) where
    E::Later: 'static,
{
    let listener = match TcpListener::from_std(door.listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot listen"),
    };
    let mut told = pin!(told(shared.orders.subscribe(), Order::Drain));
    // Said once for a row of failures, not five times a second.
    let mut failing = false;
    loop {
        let taken = tokio::select! {
            biased;
            () = &mut told => return,
            taken = take(&listener, &shared) => taken,
        };
        match taken {
            Ok((stream, peer, slot)) => {
                failing = false;
                let (tls, shared, edge) = (door.tls.clone(), Arc::clone(&shared), edge.clone());
                let seat = places.seat(here, arrival(&stream));
                let watch = Arc::new(Watch::default());
                let socket = Socket::new(stream, Arc::clone(&watch));
                if seat.number() != here {
                    watch.moved();
                }
                let life = serve(socket, peer, Arc::clone(&watch), tls, shared, edge);
                Migrating::start(life, watch, (seat, slot));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "cannot take connections for now");
                    failing = true;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Waits for a slot, then for a connection. Cancel safe.
async fn take(
    listener: &TcpListener,
    shared: &Shared,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(&shared.slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, slot))
}

/// Whether accept failed because a client had gone already, so that the next may be tried at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Serves one connection.
async fn serve<E: Edge>(
    socket: Socket,
    peer: SocketAddr,
    watch: Arc<Watch>,
    tls: Option<Arc<Tls>>,
    shared: Arc<Shared>,
    edge: E,
) where
    E::Later: 'static,
{
    let _counted = shared.meters.connection();
    // Fails only on a connection that is gone.
    let Ok(local) = socket.prepare(peer) else { return };
    let line = Line { peer, local, tls: tls.is_some(), watch: Arc::clone(&watch), shared };
    let shared = Arc::clone(&line.shared);
    let service = service_fn(move |request| respond(&line, &edge, request));

    let Some(tls) = tls else {
        return drive(socket, service, &watch, &shared).await;
    };
    let shaken = tokio::select! {
        shaken = tls.accept(socket, shared.limits.handshake_timeout) => shaken,
        () = told(shared.orders.subscribe(), Order::Drain) => return,
    };
    match shaken {
        Ok(stream) => drive(stream, service, &watch, &shared).await,
        Err(error) => {
            tracing::debug!(%peer, %error, "tls handshake failed");
            shared.meters.handshakes_failed.increment(1);
        }
    }
}

/// Drives a connection until it ends, is told to, or is found wanting.
async fn drive<I, S>(io: I, service: S, watch: &Watch, shared: &Shared)
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<Tracked<ResponseBody>>, Error = Infallible>,
    S::Future: Send + 'static,
{
    let limits = &shared.limits;
    let patience =
        Patience { head: limits.head_timeout, idle: limits.idle_timeout, stall: limits.stall_timeout };
    let mut vigil = Vigil::new(patience, Instant::now());
    let mut connection = pin!(shared.http.serve_connection(TokioIo::new(io), service));
    let mut alarm = pin!(sleep_until(Instant::now() + patience.head));
    let mut drain = pin!(told(shared.orders.subscribe(), Order::Drain));
    let mut cut = pin!(told(shared.orders.subscribe(), Order::Cut));
    let orders = shared.orders.subscribe();
    let (mut first, mut leaving, mut closing) = (true, false, false);
    let mut moves = watch.moves();

    poll_fn(|cx: &mut Context<'_>| {
        if moves != watch.moves() {
            moves = watch.moves();
            // This task has left no waker anywhere yet.
            first = true;
            // With this worker's timer: that of the other may end first.
            let deadline = alarm.deadline();
            alarm.set(sleep_until(deadline));
        }
        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
            if let Err(error) = result {
                tracing::debug!(%error, "connection ended");
            }
            return Poll::Ready(());
        }

        // Polled once to leave our waker there, then only when there is something to hear: each poll
        // takes a lock that all connections share. From the first order on that is always, for we may
        // be here before the futures have been told of a change that can be seen already.
        if first || orders.has_changed().unwrap_or(true) {
            first = false;
            if cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if !leaving && drain.as_mut().poll(cx).is_ready() {
                leaving = true;
                connection.as_mut().graceful_shutdown();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }

        loop {
            let now = Instant::now();
            let next = match vigil.look(watch.seen(), now) {
                Verdict::LookAt(moment) => moment,
                Verdict::Cut(reason) => {
                    tracing::debug!(reason, "connection cut");
                    shared.meters.cut.increment(1);
                    return Poll::Ready(());
                }
                Verdict::Close if closing => alarm.deadline(),
                Verdict::Close => {
                    // On HTTP/2 the client has a say in it, but not for ever.
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                    alarm.as_mut().reset(now + patience.head);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            };
            if next < alarm.deadline() || (alarm.is_elapsed() && !closing) {
                alarm.as_mut().reset(next);
            }
            match alarm.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) if closing => return Poll::Ready(()),
                Poll::Ready(()) => {}
            }
        }
    })
    .await;
}

/// Waits until connections are told an order, or a stricter one.
async fn told(mut orders: watch::Receiver<Order>, order: Order) {
    // The sender outlives every connection; were it gone, there would be nobody to serve for.
    let _ = orders.wait_for(|told| *told >= order).await;
}
