//! Debian archives through the real binary from a scripted origin. Each usual fault of an APT cache
//! has a test that names it; those that need no server are tests of the dialect itself.

#[path = "../support/mod.rs"]
pub mod support;

mod generations;
mod packages;
mod signatures;
mod transport;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};

use bytes::Bytes;
use http::StatusCode;
use repoxy::model::Digest;
use support::{Origin, Repoxy};

const DISTS: &str = "/a/dists/stable";
const OURS: &str = "/debian/d/dists/stable";
const PACKAGES: &str = "main/binary-amd64/Packages";

/// A configuration with the archive at `<origin>/a` as proxy `d`.
fn archive(origin: &Origin, more: &str) -> String {
    format!(
        "[[proxy]]\ntype = \"debian\"\nname = \"d\"\nupstream = \"{}/a\"\nns = \"deb.example.test\"\n{more}\n",
        origin.url()
    )
}

/// What an origin publishes at one moment.
#[derive(Debug, Clone)]
struct Generation {
    packages: Bytes,
    translation: Bytes,
    by_hash: bool,
    /// The day of November 2025 in its `Date`.
    day: u8,
    more: &'static str,
}

impl Generation {
    fn new(day: u8) -> Self {
        let packages = format!("Package: p{day}\nVersion: {day}\n").into();
        let translation = Bytes::from_static(b"Package: p\n");
        Self { packages, translation, by_hash: true, day, more: "" }
    }

    fn names(mut self, path: &str, content: &[u8]) -> Self {
        let (digest, size) = (Digest::of(content).hex(), content.len());
        self.packages = format!("Package: p\nFilename: {path}\nSize: {size}\nSHA256: {digest}\n").into();
        self
    }

    fn without_by_hash(self) -> Self {
        Self { by_hash: false, ..self }
    }

    fn release(&self) -> String {
        let mut text = format!("Origin: Test\nSuite: stable\nDate: {:02} Nov 2025 10:00:00 UTC\n", self.day);
        text.push_str(if self.by_hash { "Acquire-By-Hash: yes\n" } else { "" });
        text.push_str(self.more);
        text.push_str("SHA256:\n");
        for (path, content) in self.files() {
            writeln!(text, " {} {} {path}", Digest::of(content).hex(), content.len()).expect("memory");
        }
        text
    }

    fn inrelease(&self) -> Bytes {
        let text = self.release();
        format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{text}-----BEGIN PGP SIGNATURE-----\n\nxxxx\n-----END PGP SIGNATURE-----\n"
        )
        .into()
    }

    fn files(&self) -> [(&'static str, &Bytes); 2] {
        [(PACKAGES, &self.packages), ("main/i18n/Translation-en", &self.translation)]
    }

    /// Where upstream has its `Packages`, by digest or by name.
    fn packages_path(&self) -> String {
        if self.by_hash { by_hash(&self.packages) } else { PACKAGES.to_owned() }
    }

    fn publish(&self, origin: &Origin) {
        self.publish_files(origin);
        origin.file(&format!("{DISTS}/InRelease"), "text/plain", self.inrelease());
    }

    fn publish_files(&self, origin: &Origin) {
        for (path, content) in self.files() {
            origin.file(&format!("{DISTS}/{path}"), "text/plain", content.clone());
            if self.by_hash {
                let dir = path.rsplit_once('/').expect("a directory").0;
                let path = format!("{DISTS}/{dir}/by-hash/SHA256/{}", Digest::of(content).hex());
                origin.file(&path, "text/plain", content.clone());
            }
        }
    }
}

fn by_hash(packages: &[u8]) -> String {
    format!("main/binary-amd64/by-hash/SHA256/{}", Digest::of(packages).hex())
}

/// Waits until there are this many refs below a directory of the proxy, and lists them: what a client has
/// got is written down a moment later.
async fn refs(repoxy: &Repoxy, dir: &str, count: usize) -> Vec<std::path::PathBuf> {
    loop {
        let files = repoxy.files(&format!("type/debian/proxies/d/{dir}"));
        if files.len() >= count {
            return files;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Waits until so many `Packages` are known: what they say of packages counts from then on.
async fn catalogued(repoxy: &Repoxy, count: usize) {
    loop {
        let rows = repoxy.run(&["ls", "refs", "--kind", "debian.packages", "--json"]).stdout;
        if String::from_utf8_lossy(&rows).lines().count() >= count {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// What a client that updates gets: the `InRelease` and the index.
async fn update(repoxy: &Repoxy, index: &str) -> (Bytes, Bytes) {
    let inrelease = repoxy.get(&format!("{OURS}/InRelease")).await.bytes().clone();
    let index = repoxy.get(&format!("{OURS}/{index}")).await;
    assert_eq!(index.status, StatusCode::OK, "{:?}", index.body);
    (inrelease, index.bytes().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_and_an_installation_are_served_again_with_upstream_gone_and_the_index_deleted() {
    let origin = Origin::start().await;
    let deb = origin.blob_of("x", vec![7; 300_000]).bytes;
    let old = Generation::new(1).names("pool/h/hello_1_amd64.deb", &deb);
    old.publish(&origin);
    origin.file("/a/pool/h/hello_1_amd64.deb", "application/vnd.debian.binary-package", deb.clone());
    let mut repoxy = Repoxy::with(&archive(&origin, ""));
    for round in 0..3 {
        assert_eq!(update(&repoxy, PACKAGES).await, (old.inrelease(), old.packages.clone()), "{round}");
        assert_eq!(update(&repoxy, &by_hash(&old.packages)).await.1, old.packages, "{round}");
        assert_eq!(repoxy.get("/debian/d/pool/h/hello_1_amd64.deb").await.bytes(), &deb);
        if round == 0 {
            // InRelease, Packages once for its two names, the package.
            assert_eq!(origin.total(), 3);
            origin.stop().await;
        }
        if round == 1 {
            refs(&repoxy, "refs", 1).await;
            repoxy.terminate();
            for file in repoxy.files("index") {
                std::fs::remove_file(file).expect("removed");
            }
            repoxy.start();
        }
    }
    assert!(repoxy.run(&["fsck", "--read-data"]).status.success());
}

/// Sends a request line and reads the answer to its end.
fn raw(repoxy: &Repoxy, line: &str, host: &str) -> String {
    let address = repoxy.url().strip_prefix("http://").expect("plain");
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    write!(stream, "{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn as_an_http_proxy_it_serves_what_is_configured_and_nothing_else() {
    let origin = Origin::start().await;
    let old = Generation::new(1);
    old.publish(&origin);
    // The archive's address as clients know it has its path from the upstream: `deb.example.test/a`.
    let repoxy = Repoxy::with(&archive(&origin, ""));
    let get = |url: &str| {
        let host = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap_or("x");
        raw(&repoxy, &format!("GET {url}"), host)
    };
    for url in [
        "http://deb.example.test/a/dists/stable/InRelease",
        "http://HTTPS///deb.example.test/a/dists/stable/InRelease",
        "/HTTPS///deb.example.test/a/dists/stable/InRelease",
        "/debian/HTTPS///deb.example.test/a/dists/stable/InRelease",
        "/debian/d/dists/stable/InRelease",
    ] {
        let answer = get(url);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("Suite: stable"), "{url}: {answer}");
    }
    assert_eq!(origin.total(), 1, "five ways to the same file");
    for (url, status) in [
        ("http://deb.example.test/b/dists/stable/InRelease", 404),
        ("http://other.example.test/a/dists/stable/InRelease", 421),
        ("http://HTTPS///other.example.test/a/dists/stable/InRelease", 421),
        ("http://127.0.0.1:1/a/dists/stable/InRelease", 421),
        ("http://deb.example.test/debian/d/dists/stable/InRelease", 404),
    ] {
        assert!(get(url).starts_with(&format!("HTTP/1.1 {status}")), "{url}: {}", get(url));
    }
    let connect = raw(&repoxy, "CONNECT deb.example.test:443", "deb.example.test:443");
    assert!(connect.starts_with("HTTP/1.1 405"), "{connect}");
    assert_eq!(origin.total(), 1);
}
