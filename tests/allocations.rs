//! What a ready answer asks of the allocator, counted.
//!
//! The server runs in this process, so that its allocations can be counted; whoever asks writes and reads with a
//! buffer that was there before, and so has none.

#![expect(unsafe_code, reason = "an allocator cannot be written without")]

pub mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use metrics_exporter_prometheus::PrometheusBuilder;
use repoxy::cache::{Cache, Parts};
use repoxy::index::{Handle, Options, Writer};
use repoxy::model::{ArtifactType, Clock as _, ProxyFacts, ProxyId, ProxyTable, SystemClock};
use repoxy::protocol;
use repoxy::server::{App, Lifecycle, Server, Settings};
use repoxy::store::Store;
use repoxy::upstream::{self, Credentials, Upstream};
use support::Origin;

/// Counts what is asked of the system's allocator.
struct Counting;

static ASKED: AtomicU64 = AtomicU64::new(0);

// SAFETY: all is done by `System`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Requests that are counted together.
const REQUESTS: u64 = 1000;

/// A server on `root` as a cache of `origin`, until the process ends; where it listens.
async fn serve(origin: &Origin, root: &str) -> SocketAddr {
    let id = ProxyId { artifact_type: ArtifactType::Container, name: "hub".parse().expect("a name") };
    let base: url::Url = origin.url().parse().expect("a URL");
    let facts = ProxyFacts { upstream: Some(base.clone()), default: true, ..ProxyFacts::new(id.clone()) };
    let proxies = ProxyTable::new(vec![facts]);
    let upstream = Upstream::new(upstream::Settings {
        proxy: id.to_string(),
        bases: vec![base],
        credentials: Credentials::None,
        allowed_hosts: Vec::new(),
        ca_files: Vec::new(),
        instance: "test".to_owned(),
        limits: upstream::Limits::default(),
    });
    let store = Arc::new(Store::create(&format!("file://{root}")).await.expect("a root"));
    let index = Arc::new(Handle::open(Some(format!("{root}/index").into()), Options::default()));
    let cache = Cache::new(Parts {
        store,
        index: Arc::clone(&index),
        writer: Writer::start(index).expect("a thread"),
        upstreams: HashMap::from([(id, upstream.expect("an upstream"))]),
        proxies: proxies.clone(),
        clock: Arc::new(SystemClock),
        proofs_since: SystemClock.now(),
        hot_bytes: 64 << 20,
    });
    let app = App {
        cache: Arc::new(cache),
        protocols: protocol::ALL,
        proxies,
        metrics: PrometheusBuilder::new().build_recorder().handle(),
        lifecycle: Arc::new(Lifecycle::default()),
    };
    let listen = vec!["127.0.0.1:0".parse().expect("an address")];
    let settings = Settings { listen, instance: "test".to_owned(), ..Settings::default() };
    let server = Server::bind(settings, Arc::new(app)).expect("bound");
    let address = server.local_addrs()[0].0;
    tokio::spawn(server.run(futures_util::stream::pending()));
    address
}

/// Sends a request and reads its answer of so many bytes of body, allocating nothing.
fn ask(stream: &mut TcpStream, request: &[u8], status: &[u8], buffer: &mut [u8], body: usize) {
    stream.write_all(request).expect("sent");
    let (mut filled, mut head) = (0, None);
    while head.is_none_or(|head| filled < head + body) {
        let read = stream.read(&mut buffer[filled..]).expect("read");
        assert!(read > 0, "the connection ended");
        filled += read;
        let ends = || buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n");
        head = head.or_else(|| Some(ends()? + 4));
    }
    assert_eq!(filled, head.unwrap_or(0) + body);
    assert!(buffer.starts_with(status), "{}", buffer[..100].escape_ascii());
}

/// How often each of many equal requests allocates, those that begin a connection and make the answer ready aside.
fn count(address: SocketAddr, request: &str, status: &str, body: usize) -> u64 {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_nodelay(true).expect("set");
    let mut buffer = vec![0; body + 4096];
    let mut rounds = |rounds: u64| {
        let before = ASKED.load(Relaxed);
        for _ in 0..rounds {
            ask(&mut stream, request.as_bytes(), status.as_bytes(), &mut buffer, body);
        }
        ASKED.load(Relaxed) - before
    };
    rounds(100);
    // What else this process does is far less than once a request.
    rounds(REQUESTS) / REQUESTS
}

/// What each ready answer allocates, and nothing else:
/// * the request's head, which hyper shares among its fields, names of fields that it does not know, and now and then
///   a buffer for what comes next, since the head has the one before;
/// * the exchange, which the log and the body's account need for longer than the handler;
/// * the answer's fields: two, as a map of headers has them;
/// * the box in which warp has a body, if there is one, and for one out of an open file its stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_ready_answer_allocates_what_it_is_made_of_and_nothing_else() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "latest", 1, 1000);
    let large = origin.blob("library/app", 1 << 20);
    let root = tempfile::tempdir().expect("a directory");
    let address = serve(&origin, root.path().to_str().expect("text")).await;
    let counted = tokio::task::spawn_blocking(move || {
        let layer = &image.blobs[1];
        let tag = format!("If-None-Match: \"{}\"\r\n", image.digest);
        let known = "User-Agent: client/1.0\r\nAccept: */*\r\nAccept-Encoding: identity\r\n";
        let cases = [
            ("tag", "GET", &image.path, known, "200", image.bytes.len(), 6),
            (
                "tag, with a field that nobody knows",
                "GET",
                &image.path,
                "X-A: b\r\n",
                "200",
                image.bytes.len(),
                7,
            ),
            ("head of a tag", "HEAD", &image.path, known, "200", 0, 5),
            ("tag that the client has", "GET", &image.path, &tag, "304", 0, 5),
            ("blob in memory", "GET", &layer.path, known, "200", layer.bytes.len(), 6),
            ("blob in a file", "GET", &large.path, known, "200", large.bytes.len(), 7),
        ];
        for (name, method, path, fields, status, body, most) in cases {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
            let counted = count(address, &request, &format!("HTTP/1.1 {status}"), body);
            assert!((1..=most).contains(&counted), "{name}: {counted} and not {most}");
        }
    });
    counted.await.expect("counted");
}
