//! The server as a whole: its sockets from bind to drain.

use std::net::{self, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::SockRef;
use tokio::net::TcpSocket;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::accept::{Door, accept};
use super::app::{App, Application};
use super::health::Lifecycle;
use super::limits::{Limits, raise_open_files};
use super::log::Journal;
use super::meters::ServerMeters;
use super::service::edge;
use super::tls::{Tls, TlsError, TlsFiles};
use super::workers::Workers;

/// How often an HTTP/2 client is asked whether it still lives, and how long it has to answer.
const PING: (std::time::Duration, std::time::Duration) =
    (std::time::Duration::from_secs(30), std::time::Duration::from_secs(20));

/// The most bytes that are buffered for one HTTP/2 answer.
const STREAM_BUFFER: usize = 128 * 1024;

/// How many new connections wait in the kernel until they are taken, if its own limit (`net.core.somaxconn`) allows so
/// many. One that finds no room there tries again after a second.
const BACKLOG: u32 = 4096;

/// The most bytes of a connection that wait in the kernel and have not been sent once. Without a bound that is all of
/// its send buffer, 4 MiB by default, in memory for each slow client, and out of the processor's cache before it goes out.
/// What was sent and is not yet confirmed has the rest of that buffer, so that a long way is filled as before.
const UNSENT: u32 = 128 * 1024;

/// How long content that clients have got whole may take to be stored when the server has drained.
const FINISHING: Duration = Duration::from_secs(5);

/// Where and how to serve.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Addresses for plain HTTP.
    pub listen: Vec<SocketAddr>,
    /// Addresses for HTTPS; need [`Self::tls`].
    pub listen_tls: Vec<SocketAddr>,
    /// Certificate and key.
    pub tls: Option<TlsFiles>,
    /// Authorities by which clients may call this server in absolute-form targets, such as that of the
    /// public URL: `packages.example.org` or `packages.example.org:7443`.
    pub authorities: Vec<String>,
    /// What this instance calls itself in `Via` and in front of request ids. One word.
    pub instance: String,
    /// Bounds.
    pub limits: Limits,
}

/// Why a server cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Threads for the connections cannot be started.
    #[error("cannot start threads for connections")]
    Workers(#[source] std::io::Error),
    /// An address cannot be listened on.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// There are addresses for HTTPS but neither certificate nor key.
    #[error("an address for https needs a certificate and a key")]
    NoCertificate,
    /// Certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What connections are told, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// Go on.
    Serve,
    /// Finish what is under way.
    Drain,
    /// End now.
    Cut,
}

/// What all connections of a server have in common.
#[derive(Debug)]
pub(super) struct Shared {
    /// See [`Settings`].
    pub(super) instance: String,
    /// See [`Settings`].
    pub(super) authorities: Vec<String>,
    /// See [`Settings`].
    pub(super) limits: Limits,
    /// One permit for each connection that may be open.
    pub(super) slots: Arc<Semaphore>,
    /// How hyper treats connections.
    pub(super) http: auto::Builder<TokioExecutor>,
    /// Counters.
    pub(super) meters: ServerMeters,
    /// The access log.
    pub(super) journal: Journal,
    /// What connections are told.
    pub(super) orders: watch::Sender<Order>,
}

/// A server that owns its listening sockets. They take connections from [`Self::run`] on; until then
/// these wait in the kernel.
#[derive(Debug)]
pub struct Server<A = App> {
    doors: Vec<Door>,
    workers: Workers,
    tls: Option<Arc<Tls>>,
    slots: usize,
    shared: Arc<Shared>,
    lifecycle: Arc<Lifecycle>,
    application: Arc<A>,
}

/// Re-reads certificate and key of a running server.
#[derive(Debug, Clone)]
pub struct TlsReload(Option<Arc<Tls>>);

impl TlsReload {
    /// Uses what is in the files now for new connections. Does nothing without TLS. Blocks on two
    /// small files.
    ///
    /// # Errors
    /// If the files cannot be used; then the old ones stay in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.0.as_ref().map_or(Ok(()), |tls| tls.reload())
    }
}

impl Server {
    /// Binds the addresses, reads the certificate, raises the limit of open files, and starts the workers. Must be
    /// called within a runtime; port 0 takes a free one.
    ///
    /// # Errors
    /// [`ServerError`]: nothing is listening then.
    pub fn bind(settings: Settings, app: Arc<App>) -> Result<Self, ServerError> {
        let lifecycle = Arc::clone(&app.lifecycle);
        Self::with(settings, app, lifecycle)
    }
}

#[expect(private_bounds, reason = "outside this module there is one application")]
impl<A: Application> Server<A> {
    /// Like [`Server::bind`], for any application.
    pub(super) fn with(
        settings: Settings,
        application: Arc<A>,
        lifecycle: Arc<Lifecycle>,
    ) -> Result<Self, ServerError> {
        let tls = settings.tls.map(Tls::load).transpose()?.map(Arc::new);
        let mut doors = Vec::new();
        for &address in &settings.listen {
            doors.push(Door { listener: bind(address)?, tls: None });
        }
        for &address in &settings.listen_tls {
            let tls = tls.clone().ok_or(ServerError::NoCertificate)?;
            doors.push(Door { listener: bind(address)?, tls: Some(tls) });
        }

        let slots = settings.limits.connections_with(raise_open_files());
        let shared = Arc::new(Shared {
            slots: Arc::new(Semaphore::new(slots)),
            http: http(&settings.limits),
            meters: ServerMeters::new(),
            journal: Journal::new(&settings.instance),
            orders: watch::Sender::new(Order::Serve),
            instance: settings.instance,
            authorities: settings.authorities,
            limits: settings.limits,
        });
        let workers = Workers::start().map_err(ServerError::Workers)?;
        Ok(Self { doors, workers, tls, slots, shared, lifecycle, application })
    }

    /// The addresses that are listened on, and whether with TLS; plain ones first, each kind in the order of
    /// the settings.
    pub fn local_addrs(&self) -> Vec<(SocketAddr, bool)> {
        let address = |door: &Door| Some((door.listener.local_addr().ok()?, door.tls.is_some()));
        self.doors.iter().filter_map(address).collect()
    }

    /// A handle that re-reads certificate and key.
    pub fn tls_reload(&self) -> TlsReload {
        TlsReload(self.tls.clone())
    }

    /// Serves until asked to stop.
    ///
    /// The first item of `stops` begins the drain: the listening sockets are closed at once, idle
    /// connections end, `/-/ready` says 503, and answers under way have
    /// [`Limits::drain_timeout`] to end. The second item, or the end of that time, cuts what is left.
    /// If the stream ends first, the server runs for ever.
    ///
    /// What goes on without a client, such as fills, ends with the last connection, but what clients have got whole is
    /// stored first. Dropping the future ends everything at once.
    pub async fn run(self, stops: impl Stream<Item = ()>) {
        let Self { doors, workers, slots, shared, lifecycle, application, .. } = self;
        let mut stops = pin!(stops.chain(futures_util::stream::pending()));
        let edge = edge(Arc::clone(&application), Arc::clone(&shared));

        let mut accepting = JoinSet::new();
        let twice = doors.into_iter().flat_map(Door::twice);
        for (door, here) in twice.zip(workers.numbers()) {
            let places = Arc::clone(workers.places());
            let accept = accept(door, here, places, Arc::clone(&shared), edge.clone());
            accepting.spawn_on(accept, workers.handle(here));
        }
        tokio::select! {
            _ = stops.next() => {}
            // They end when they are told, which is later.
            Some(_) = accepting.join_next() => tracing::error!("a listening socket is lost"),
        }

        tracing::info!("stopping: no new connections, answers under way may end");
        lifecycle.set_draining();
        shared.orders.send_replace(Order::Drain);
        // Each task gives its listener up as soon as it is told.
        while accepting.join_next().await.is_some() {}

        let all = u32::try_from(slots).unwrap_or(u32::MAX);
        let drained = tokio::select! {
            _ = shared.slots.acquire_many(all) => true,
            _ = stops.next() => false,
            () = tokio::time::sleep(shared.limits.drain_timeout) => false,
        };
        if drained {
            // In vain only if a disk hangs.
            let _ = tokio::time::timeout(FINISHING, application.finish()).await;
        } else {
            // Counted now that nobody waits for all slots, which takes the free ones meanwhile.
            tracing::warn!(open = slots - shared.slots.available_permits(), "cutting connections");
            shared.orders.send_replace(Order::Cut);
            // Connections never block on anything but their own poll; this ends at once.
            let _ = shared.slots.acquire_many(all).await;
        }
        workers.end().await;
    }
}

/// Listens on an address. Needs a runtime, but the socket does not stay with it.
fn bind(address: SocketAddr) -> Result<net::TcpListener, ServerError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Else the address could not be had again for a minute after a server that had clients.
        socket.set_reuseaddr(true)?;
        // The sockets of its connections begin with what it has.
        SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    listen().map_err(|source| ServerError::Listen { address, source })
}

fn http(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Head and idle times are the vigil's (see `watch`); hyper's own timer would also end idle
    // connections. 100 header fields is hyper's default. The buffer also bounds what waits for a slow
    // client beside the frame that is being sent.
    builder.http1().header_read_timeout(None).max_buf_size(limits.head_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(STREAM_BUFFER);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_keeps_little_in_the_kernel_that_was_not_sent() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("bound");
        let _client = net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let listener = tokio::net::TcpListener::from_std(listener).expect("registered");
        let (taken, _) = listener.accept().await.expect("taken");
        assert_eq!(SockRef::from(&taken).tcp_notsent_lowat().expect("asked"), UNSENT);
    }
}
