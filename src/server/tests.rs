//! The server over real sockets, with an application that does on demand what handlers may do.

mod bodies;
mod ending;
mod moving;
mod patience;
mod tls;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use warp::Reply as _;

use super::app::{Answering, Application};
use super::exchange::Exchange;
use super::listen::{Server, Settings};
use super::{Lifecycle, Limits, TlsReload, answer, health};

/// What a test would wait for in vain for if it failed.
const TOO_LONG: Duration = Duration::from_secs(20);

/// Short enough not to wait for, long enough for a slow machine to answer a request within.
const SOON: Duration = Duration::from_millis(200);

/// Does what the path says.
#[derive(Debug, Default)]
struct Fake {
    /// Who has answered.
    threads: Mutex<HashSet<ThreadId>>,
    /// Told when a request for `/slow` has come in.
    begun: Notify,
    /// Lets it end.
    gate: Notify,
}

impl Application for Fake {
    fn stands_for(&self, _: &Exchange) -> bool {
        false
    }

    fn ready(&self, exchange: &Exchange) -> Option<answer::Response> {
        assert_ne!(exchange.uri.path(), "/panic/ready", "as asked");
        None
    }

    fn answer(self: Arc<Self>, exchange: Arc<Exchange>) -> Answering {
        self.threads.lock().expect("not poisoned").insert(thread::current().id());
        let ok = |text| answer::reply(exchange.is_head(), health::text(StatusCode::OK, text));
        match exchange.uri.path() {
            "/slow" => Answering::Later(Box::pin(async move {
                self.begun.notify_one();
                self.gate.notified().await;
                answer::reply(false, health::text(StatusCode::OK, "at last"))
            })),
            "/later" => Answering::Later(Box::pin(async {
                // Long enough for the connection to have been polled in vain.
                tokio::time::sleep(Duration::from_millis(1)).await;
                answer::reply(false, health::text(StatusCode::OK, "at last"))
            })),
            "/endless" => {
                let zeros = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![0; 1 << 16])));
                Answering::Now(warp::reply::stream(zeros).into_response())
            }
            "/broken" => {
                let half = stream::iter([Ok(Bytes::from_static(b"half"))]);
                let failure = stream::once(async {
                    // Gives the half a chance to be sent.
                    tokio::task::yield_now().await;
                    Err(std::io::Error::other("gone"))
                });
                let mut response = warp::reply::stream(half.chain(failure)).into_response();
                response.headers_mut().insert(CONTENT_LENGTH, 8.into());
                Answering::Now(response)
            }
            "/panic" => panic!("as asked"),
            "/panic/later" => Answering::Later(Box::pin(async { panic!("as asked") })),
            "/ten" => {
                let mut headers = HeaderMap::new();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/x"));
                headers.insert(CONTENT_LENGTH, 10.into());
                let content = answer::Content::Memory(Bytes::from_static(b"0123456789"));
                Answering::Now(answer::content(&exchange, headers, Some(10), content))
            }
            _ => Answering::Now(ok("hello")),
        }
    }
}

/// A server that runs.
struct Running {
    address: SocketAddr,
    fake: Arc<Fake>,
    lifecycle: Arc<Lifecycle>,
    stop: mpsc::UnboundedSender<()>,
    reload: TlsReload,
    ended: JoinHandle<()>,
}

impl Running {
    fn start(settings: Settings) -> Self {
        let (fake, lifecycle) = (Arc::new(Fake::default()), Arc::new(Lifecycle::default()));
        let server = Server::with(settings, Arc::clone(&fake), Arc::clone(&lifecycle)).expect("binds");
        let (stop, stops) = mpsc::unbounded_channel();
        let stops = stream::unfold(stops, |mut stops| async { stops.recv().await.map(|()| ((), stops)) });
        Self {
            address: server.local_addrs()[0].0,
            fake,
            lifecycle,
            stop,
            reload: server.tls_reload(),
            ended: tokio::spawn(server.run(stops)),
        }
    }

    fn plain(limits: Limits) -> Self {
        Self::start(Settings {
            listen: vec!["127.0.0.1:0".parse().expect("an address")],
            authorities: vec!["packages.example.org".to_owned()],
            instance: "repoxy-1".to_owned(),
            limits,
            ..Settings::default()
        })
    }

    async fn connect(&self) -> Wire {
        Wire(TcpStream::connect(self.address).await.expect("connects"))
    }

    /// Everything the server says to `text` before it closes the connection.
    async fn ask(&self, text: impl AsRef<[u8]>) -> String {
        let mut wire = self.connect().await;
        wire.send(text).await;
        wire.rest().await
    }

    fn stop(&self) {
        self.stop.send(()).expect("the server runs");
    }

    async fn ended(self) {
        within(self.ended).await.expect("no panic");
    }
}

/// A client's end of a connection.
struct Wire(TcpStream);

impl Wire {
    async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.0.write_all(text.as_ref()).await.expect("sends");
    }

    /// What comes until the server closes or cuts the connection.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        // A cut may show as a reset; what came before it counts.
        let _ = within(self.0.read_to_end(&mut bytes)).await;
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What comes until `end`.
    async fn until(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end.as_bytes()) {
            let byte = within(self.0.read_u8()).await;
            bytes.push(byte.unwrap_or_else(|_| panic!("closed after {:?}", String::from_utf8_lossy(&bytes))));
        }
        String::from_utf8(bytes).expect("text")
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(TOO_LONG, future).await.expect("in time")
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

const HELLO: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn a_request_is_answered_and_the_connection_kept() {
    let server = Running::plain(Limits::default());
    let mut wire = server.connect().await;
    for _ in 0..3 {
        wire.send(HELLO).await;
        let answer = wire.until("hello").await;
        assert_eq!(status(&answer), "200");
        assert!(answer.contains("content-length: 5\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn head_has_a_length_and_no_body() {
    let server = Running::plain(Limits::default());
    let answer = server.ask("HEAD /ten HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("content-length: 10\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_range_is_cut_out_on_the_wire() {
    let server = Running::plain(Limits::default());
    let answer =
        server.ask("GET /ten HTTP/1.1\r\nHost: x\r\nRange: bytes=-3\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), "206");
    assert!(
        answer.contains("content-range: bytes 7-9/10\r\n") && answer.ends_with("\r\n\r\n789"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let server = Running::plain(Limits::default());
    let second = "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n";
    for (what, head) in [
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (
            "length and coding",
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "coding and length",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        ),
        ("two lengths", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n"),
        ("unknown coding", "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n"),
        ("coding on 1.0", "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("folded line", "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n"),
        ("space before colon", "GET / HTTP/1.1\r\nHost : x\r\n\r\n"),
        ("bare cr", "GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n"),
        ("nul", "GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n"),
    ] {
        let answer = server.ask(format!("{head}{second}")).await;
        assert_eq!(status(&answer), "400", "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{what}: {answer}");
    }
}

#[tokio::test]
async fn a_client_that_speaks_tls_to_the_plain_port_gets_400() {
    let server = Running::plain(Limits::default());
    let client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".iter().chain(&[7; 512]);
    let answer = server.ask(client_hello.copied().collect::<Vec<u8>>()).await;
    assert_eq!(status(&answer), "400");
}

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let server = Running::plain(Limits::default());
    let get = |uri: &str, fields: &str| format!("GET {uri} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    for (expected, request) in [
        ("414", get(&format!("/{}", "a".repeat(10_000)), "")),
        ("431", get("/", &"a: b\r\n".repeat(200))),
        ("431", get("/", &format!("a: {}\r\n", "b".repeat(500_000)))),
    ] {
        let mut wire = server.connect().await;
        // The server may answer and close before it has read everything.
        let _ = wire.0.write_all(request.as_bytes()).await;
        assert_eq!(status(&wire.until("\r\n").await), expected);
    }
}

#[tokio::test]
async fn it_is_no_open_proxy() {
    let server = Running::plain(Limits::default());
    let port = server.address.port();
    for (expected, line) in [
        ("421", "GET http://evil/x HTTP/1.1".to_owned()),
        ("405", "CONNECT evil:443 HTTP/1.1".to_owned()),
        ("405", "OPTIONS * HTTP/1.1".to_owned()),
        ("200", format!("GET http://127.0.0.1:{port}/x HTTP/1.1")),
        ("200", "GET http://packages.example.org/x HTTP/1.1".to_owned()),
    ] {
        let answer = server.ask(format!("{line}\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(status(&answer), expected, "{line}");
    }
}

#[tokio::test]
async fn a_slow_handler_is_waited_for() {
    let limits = Limits { head_timeout: SOON, idle_timeout: SOON, stall_timeout: SOON, ..Limits::default() };
    let server = Running::plain(limits);
    let mut wire = server.connect().await;
    wire.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    tokio::time::sleep(2 * SOON).await;
    server.fake.gate.notify_one();
    wire.until("at last").await;
}

#[tokio::test]
async fn a_body_that_fails_cuts_the_connection() {
    let server = Running::plain(Limits::default());
    let answer = server.ask("GET /broken HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("content-length: 8\r\n") && answer.ends_with("half"), "{answer}");
}

#[tokio::test]
async fn a_panic_is_one_clients_500() {
    let server = Running::plain(Limits::default());
    let mut wire = server.connect().await;
    for path in ["/panic/ready", "/panic", "/panic/later"] {
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert_eq!(status(&wire.until("details\n").await), "500");
    }
    wire.send(HELLO).await;
    wire.until("hello").await;
}

#[tokio::test]
async fn at_the_cap_a_client_waits_for_a_slot() {
    let server = Running::plain(Limits { connections: 1, ..Limits::default() });
    let mut first = server.connect().await;
    first.send(HELLO).await;
    first.until("hello").await;
    let mut second = server.connect().await;
    second.send(HELLO).await;
    assert!(tokio::time::timeout(SOON, second.0.read_u8()).await.is_err());
    drop(first);
    second.until("hello").await;
}

#[tokio::test]
async fn http2_is_spoken_without_tls_too() {
    let server = Running::plain(Limits::default());
    tls::install_provider();
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().expect("a client");
    let answer = client.get(format!("http://{}/ten", server.address)).send().await.expect("answers");
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, http::Version::HTTP_2));
    assert_eq!(answer.bytes().await.expect("a body"), "0123456789");
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_request_is_one_line_with_the_bytes_that_were_sent() {
    let lines = Lines::default();
    let writer = lines.clone();
    let _logging = tracing::subscriber::set_default(
        tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish(),
    );
    let server = Running::plain(Limits::default());
    // Another test that comes to the place of the line at the same moment, and listens to nothing, may have it
    // remembered that nobody does.
    server.ask("HEAD /ten HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    tracing::callsite::rebuild_interest_cache();
    lines.0.lock().expect("not poisoned").clear();
    server.ask("GET /ten?a=b HTTP/1.1\r\nHost: x\r\nRange: bytes=0-3\r\nConnection: close\r\n\r\n").await;
    server.ask("HEAD /ten HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    server.ask("GET /broken HTTP/1.1\r\nHost: x\r\n\r\n").await;
    server.ask("GET / HTTP/1.1\r\n\r\n").await;
    server.ask("GET /panic HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let mut gone = server.connect().await;
    gone.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    server.fake.begun.notified().await;
    drop(gone);
    server.stop();
    server.ended().await;

    let written = lines.0.lock().expect("not poisoned").clone();
    let access: Vec<_> = String::from_utf8(written)
        .expect("text")
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("json"))
        .filter(|line| line["method"].is_string())
        .map(|line| {
            assert!(line["id"].as_str().is_some_and(|id| id.starts_with("repoxy-1-")), "{line}");
            assert!(line["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")), "{line}");
            assert!(line["milliseconds"].is_u64(), "{line}");
            let word = |name: &str| line[name].to_string().replace('"', "");
            ["method", "resource", "status", "outcome", "bytes", "whole"].map(word).join(" ")
        })
        .collect();
    assert_eq!(
        access,
        [
            "GET /ten?a=b 206 null 4 true",
            "HEAD /ten 200 null 0 true",
            "GET /broken 200 null 4 false",
            "GET / 400 refused 14 true",
            "GET /panic 500 panicked 40 true",
            "GET /slow 499 null 0 false",
        ]
    );
}
