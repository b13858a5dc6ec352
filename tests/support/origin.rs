//! A registry in memory on `127.0.0.1`, over HTTP/1.1, that counts and misbehaves as told.

mod answers;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderMap;
use repoxy::model::Digest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::protection::Protection;
use super::script::{Rules, Script};
use super::wire::{self, After};

const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const IMAGE_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A fake upstream. Stops when dropped.
#[derive(Debug)]
pub struct Origin {
    shared: Arc<Shared>,
    port: u16,
    /// Keeps the port while nobody listens.
    _reserved: TcpSocket,
    server: Mutex<Option<JoinHandle<()>>>,
    tls: Option<Tls>,
}

/// How an origin speaks TLS.
#[derive(Clone)]
struct Tls {
    acceptor: TlsAcceptor,
    certificate: String,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// A blob that the origin holds.
#[derive(Debug, Clone)]
pub struct Blob {
    /// Its name.
    pub digest: Digest,
    /// `/v2/<repository>/blobs/<digest>`.
    pub path: String,
    /// Its content.
    pub bytes: Bytes,
}

/// A manifest or index that the origin holds under a tag and its digest.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The digest of its bytes.
    pub digest: Digest,
    /// `/v2/<repository>/manifests/<tag>`.
    pub path: String,
    /// `/v2/<repository>/manifests/<digest>`.
    pub by_digest: String,
    /// Its media type.
    pub media_type: String,
    /// Its content.
    pub bytes: Bytes,
    /// For an image: the config, then the layers.
    pub blobs: Vec<Blob>,
}

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path as sent, without the query.
    pub path: String,
    /// The query as sent, without the `?`.
    pub query: Option<String>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, of a POST to `/token`.
    pub body: Bytes,
}

impl Seen {
    /// A header's value, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

#[derive(Debug, Clone)]
struct File {
    media_type: String,
    digest: Digest,
    bytes: Bytes,
}

#[derive(Debug)]
struct Shared {
    port: u16,
    files: Mutex<HashMap<String, File>>,
    tags: Mutex<BTreeMap<String, Vec<String>>>,
    rules: Rules,
    seen: Mutex<Vec<Seen>>,
    arrivals: watch::Sender<usize>,
    sent: Mutex<HashMap<String, u64>>,
    protection: Mutex<Protection>,
    tokens: Mutex<HashSet<String>>,
    serial: AtomicU64,
    connections: AtomicUsize,
}

impl Origin {
    /// Starts an empty origin on a free port of `127.0.0.1`.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same over TLS, with a certificate for `localhost` and `127.0.0.1` that it signed itself.
    pub async fn start_tls() -> Self {
        Self::start_tls_as(&["localhost", "127.0.0.1"], 2020..4096).await
    }

    /// The same for other names, with a certificate that holds from one year to another.
    pub async fn start_tls_as(names: &[&str], years: std::ops::Range<i32>) -> Self {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = rcgen::CertificateParams::new(names).expect("good names");
        parameters.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        let signing_key = rcgen::KeyPair::generate().expect("a key");
        let cert = parameters.self_signed(&signing_key).expect("a certificate");
        let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(repoxy::upstream::crypto::provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("a certificate with its key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::start_with(Some(Tls { acceptor, certificate: cert.pem() })).await
    }

    #[expect(clippy::unused_async, reason = "what it spawns needs a runtime, as all who call it have")]
    async fn start_with(tls: Option<Tls>) -> Self {
        let reserved = bound(0);
        let port = reserved.local_addr().expect("bound").port();
        let shared = Arc::new(Shared {
            port,
            files: Mutex::default(),
            tags: Mutex::default(),
            rules: Rules::default(),
            seen: Mutex::default(),
            arrivals: watch::Sender::new(0),
            sent: Mutex::default(),
            protection: Mutex::default(),
            tokens: Mutex::default(),
            serial: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
        });
        let server = tokio::spawn(accept(listening(port), tls.clone(), Arc::clone(&shared)));
        Self { shared, port, _reserved: reserved, server: Mutex::new(Some(server)), tls }
    }

    /// Stops: connections are closed, and new ones are refused.
    pub async fn stop(&self) {
        let server = self.server.lock().expect("no panics").take();
        if let Some(server) = server {
            server.abort();
            let _ = server.await;
        }
    }

    /// Starts again on the same port, with the same content, rules and counts.
    pub async fn restart(&self) {
        self.stop().await;
        let server = tokio::spawn(accept(listening(self.port), self.tls.clone(), Arc::clone(&self.shared)));
        *self.server.lock().expect("no panics") = Some(server);
    }

    /// The certificate of an origin with TLS, in PEM form.
    pub fn certificate(&self) -> &str {
        &self.tls.as_ref().expect("started with TLS").certificate
    }

    /// `http://127.0.0.1:<port>` (`https` with TLS), without a slash at the end.
    pub fn url(&self) -> String {
        self.url_as("127.0.0.1")
    }

    /// The same origin under another host name, such as `localhost`.
    pub fn url_as(&self, host: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{host}:{}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Holds any file at any path.
    pub fn file(&self, path: &str, media_type: &str, bytes: impl Into<Bytes>) -> Blob {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let file = File { media_type: media_type.to_owned(), digest, bytes: bytes.clone() };
        self.shared.files.lock().expect("no panics").insert(path.to_owned(), file);
        Blob { digest, path: path.to_owned(), bytes }
    }

    /// Forgets the file at a path: 404 from now on.
    pub fn remove(&self, path: &str) {
        self.shared.files.lock().expect("no panics").remove(path);
    }

    /// Holds a blob of `size` bytes that look random and are the same in every run; two calls of
    /// one test give two blobs.
    pub fn blob(&self, repository: &str, size: usize) -> Blob {
        let seed = self.shared.serial.fetch_add(1, Ordering::SeqCst);
        self.blob_of(repository, noise(seed, size))
    }

    /// Holds a blob with this content.
    pub fn blob_of(&self, repository: &str, bytes: impl Into<Bytes>) -> Blob {
        let bytes = bytes.into();
        let path = format!("/v2/{repository}/blobs/{}", Digest::of(&bytes));
        self.file(&path, "application/octet-stream", bytes)
    }

    /// Holds a manifest under a tag (which may be used again) and its digest.
    pub fn manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Manifest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let path = format!("/v2/{repository}/manifests/{tag}");
        let by_digest = format!("/v2/{repository}/manifests/{digest}");
        self.file(&path, media_type, bytes.clone());
        self.file(&by_digest, media_type, bytes.clone());
        let mut tags = self.shared.tags.lock().expect("no panics");
        let tags = tags.entry(repository.to_owned()).or_default();
        if !tags.iter().any(|known| known == tag) {
            tags.push(tag.to_owned());
            tags.sort();
        }
        Manifest { digest, path, by_digest, media_type: media_type.to_owned(), bytes, blobs: Vec::new() }
    }

    /// Holds an image: a config, `layers` layers of `layer_size` bytes, and a manifest under the tag.
    pub fn image(&self, repository: &str, tag: &str, layers: usize, layer_size: usize) -> Manifest {
        let serial = self.shared.serial.fetch_add(1, Ordering::SeqCst);
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Labels":{{"serial":"{serial}"}}}},"rootfs":{{"type":"layers","diff_ids":[]}}}}"#
        );
        let mut blobs = vec![self.blob_of(repository, config)];
        blobs.extend((0..layers).map(|_| self.blob(repository, layer_size)));
        let describe = |media_type: &str, blob: &Blob| {
            format!(
                r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#,
                blob.digest,
                blob.bytes.len()
            )
        };
        let layers: Vec<_> = blobs[1..]
            .iter()
            .map(|blob| describe("application/vnd.oci.image.layer.v1.tar+gzip", blob))
            .collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{IMAGE_MANIFEST}","config":{},"layers":[{}]}}"#,
            describe("application/vnd.oci.image.config.v1+json", &blobs[0]),
            layers.join(",")
        );
        Manifest { blobs, ..self.manifest(repository, tag, IMAGE_MANIFEST, manifest) }
    }

    /// Holds an index over manifests under a tag; the first is `linux/amd64`, the others `linux/arm64`
    /// with a variant each.
    pub fn index(&self, repository: &str, tag: &str, manifests: &[Manifest]) -> Manifest {
        let entries: Vec<_> = manifests
            .iter()
            .enumerate()
            .map(|(at, manifest)| {
                let platform = match at {
                    0 => r#"{"os":"linux","architecture":"amd64"}"#.to_owned(),
                    at => format!(r#"{{"os":"linux","architecture":"arm64","variant":"v{}"}}"#, at + 7),
                };
                format!(
                    r#"{{"mediaType":"{}","digest":"{}","size":{},"platform":{platform}}}"#,
                    manifest.media_type,
                    manifest.digest,
                    manifest.bytes.len()
                )
            })
            .collect();
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{IMAGE_INDEX}","manifests":[{}]}}"#,
            entries.join(",")
        );
        self.manifest(repository, tag, IMAGE_INDEX, index)
    }

    /// Begins a script for a path; a `*` at its end stands for any rest.
    pub fn on(&self, path: &str) -> Script<'_> {
        Script::new(&self.shared.rules, path)
    }

    /// Takes back all scripts that were made for exactly this path.
    pub fn forget_scripts(&self, path: &str) {
        self.shared.rules.forget(path);
    }

    /// Protects everything under `/v2/`.
    pub fn protect(&self, protection: Protection) {
        *self.shared.protection.lock().expect("no panics") = protection;
    }

    /// Forgets the tokens it gave.
    pub fn revoke_tokens(&self) {
        self.shared.tokens.lock().expect("no panics").clear();
    }

    /// Requests that arrived with this method and path; a `*` at the path's end stands for any rest.
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.seen(method, path).len()
    }

    /// The same with exactly this `Range` header; `None` is without.
    pub fn count_range(&self, method: &str, path: &str, range: Option<&str>) -> usize {
        self.seen(method, path).iter().filter(|seen| seen.header("range") == range).count()
    }

    /// All requests that arrived.
    pub fn total(&self) -> usize {
        self.shared.seen.lock().expect("no panics").len()
    }

    /// The requests with this method and path, in order of arrival; a `*` at the path's end stands
    /// for any rest.
    pub fn seen(&self, method: &str, path: &str) -> Vec<Seen> {
        let seen = self.shared.seen.lock().expect("no panics");
        let fits = |seen: &&Seen| {
            seen.method == method
                && match path.strip_suffix('*') {
                    Some(prefix) => seen.path.starts_with(prefix),
                    None => seen.path == path,
                }
        };
        seen.iter().filter(fits).cloned().collect()
    }

    /// Waits until this many requests with method and path have arrived.
    pub async fn seen_at_least(&self, method: &str, path: &str, times: usize) {
        let mut arrivals = self.shared.arrivals.subscribe();
        while self.count(method, path) < times {
            arrivals.changed().await.expect("the origin lives");
        }
    }

    /// Body bytes sent for a path, over all answers.
    pub fn bytes_sent(&self, path: &str) -> u64 {
        self.shared.sent.lock().expect("no panics").get(path).copied().unwrap_or(0)
    }

    /// Connections accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(server) = self.server.lock().expect("no panics").take() {
            server.abort();
        }
    }
}

/// Bytes that look random and are the same for the same seed (splitmix64).
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// A socket that has a port, a free one for 0, but does not listen: whoever connects is refused, and nobody else is given
/// the port.
fn bound(port: u16) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("set");
    // The one that holds the port and the one that listens have it together.
    socket.set_reuseport(true).expect("set");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], port))).expect("a free port, or ours");
    socket
}

fn listening(port: u16) -> TcpListener {
    bound(port).listen(1024).expect("it listens")
}

async fn accept(listener: TcpListener, tls: Option<Tls>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(connection(stream, tls.clone(), Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(mut stream: TcpStream, tls: Option<Tls>, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let after = match tls {
        None => converse(&mut stream, &shared).await,
        Some(tls) => match tls.acceptor.accept(&mut stream).await {
            Ok(mut stream) => converse(&mut stream, &shared).await,
            Err(_) => After::Close,
        },
    };
    if after == After::Reset {
        let _ = stream.set_zero_linger();
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, shared: &Shared) -> After {
    let mut buffer = Vec::new();
    while let Ok(Some(request)) = wire::read(stream, &mut buffer).await {
        let faults = shared.rules.take(&request.method, &request.path);
        shared.note(&request);
        let response = shared.answer(&request, &faults);
        let sent = |bytes| {
            *shared.sent.lock().expect("no panics").entry(request.path.clone()).or_default() += bytes;
        };
        match wire::write(stream, request.method == "HEAD", response, &faults, sent).await {
            Ok(After::KeepAlive) => {}
            Ok(after) => return after,
            Err(_) => return After::Close,
        }
    }
    After::Close
}
