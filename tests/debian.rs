//! Debian archives through the real binary from a scripted origin. Each usual fault of an APT cache
//! has a test that names it; those that need no server are tests of the dialect itself.

pub mod support;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};

use bytes::Bytes;
use http::{Method, StatusCode};
use repoxy::model::Digest;
use support::{Gate, Origin, Repoxy};

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

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_1_a_new_inrelease_is_shown_only_with_the_index_files_that_belong_to_it() {
    let origin = Origin::start().await;
    let (old, new) = (Generation::new(1), Generation::new(2));
    old.publish(&origin);
    let repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
    update(&repoxy, PACKAGES).await;
    new.publish(&origin);
    let packages = format!("{DISTS}/{}", new.packages_path());
    let gate = Gate::closed();
    origin.on(&packages).hold(&gate).always();
    // The new index is on its way: nobody waits for it, and nobody sees half of the change.
    assert_eq!(update(&repoxy, PACKAGES).await, (old.inrelease(), old.packages.clone()));
    assert_eq!(origin.count("GET", &packages), 1, "it is fetched before anybody asks for it");
    assert_eq!(origin.count("GET", &format!("{DISTS}/main/i18n/*")), 0, "what nobody used is not");
    gate.open();
    let path = format!("{OURS}/InRelease");
    while repoxy.get(&path).await.bytes() != &new.inrelease() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(update(&repoxy, PACKAGES).await, (new.inrelease(), new.packages.clone()));
    assert_eq!(origin.count("GET", &packages), 1);
    // A client that still holds the old InRelease gets the old index by its digest.
    origin.stop().await;
    assert_eq!(repoxy.get(&format!("{OURS}/{}", by_hash(&old.packages))).await.bytes(), &old.packages);
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_1_an_index_that_upstream_has_not_got_yet_keeps_the_old_generation() {
    for by_hash in [true, false] {
        let origin = Origin::start().await;
        let (mut old, mut new) = (Generation::new(1), Generation::new(2));
        if !by_hash {
            (old, new) = (old.without_by_hash(), new.without_by_hash());
        }
        old.publish(&origin);
        let repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
        update(&repoxy, PACKAGES).await;
        // A mirror in the middle of its sync: the new InRelease, the old rest.
        origin.file(&format!("{DISTS}/InRelease"), "text/plain", new.inrelease());
        let stale = repoxy.get(&format!("{OURS}/InRelease")).await;
        assert_eq!(stale.bytes(), &old.inrelease(), "by hash: {by_hash}");
        assert!(stale.header("cache-status").contains("hit; ttl=-"), "{}", stale.header("cache-status"));
        assert_eq!(repoxy.get(&format!("{OURS}/{PACKAGES}")).await.bytes(), &old.packages);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_1_where_nothing_can_be_stored_a_new_generation_is_passed_on_as_one() {
    for by_hash in [true, false] {
        let generation = |day| {
            let generation = Generation::new(day);
            if by_hash { generation } else { generation.without_by_hash() }
        };
        let (old, new) = (generation(1), generation(2));
        let origin = Origin::start().await;
        old.publish(&origin);
        let mut repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
        update(&repoxy, PACKAGES).await;
        refs(&repoxy, "cache", 2).await;
        repoxy.kill();
        let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
        let root = repoxy.root();
        let root = root.to_str().expect("text");
        repoxy.run_under(&["unshare", "--map-root-user", "--mount", "sh", "-c", script, root]);
        repoxy.start();
        assert_eq!(update(&repoxy, PACKAGES).await, (old.inrelease(), old.packages.clone()));
        let new = new.names("pool/p.deb", b"a package");
        new.publish(&origin);
        origin.file("/a/pool/p.deb", "text/plain", "a package");
        for index in [PACKAGES.to_owned(), new.packages_path()] {
            assert_eq!(update(&repoxy, &index).await, (new.inrelease(), new.packages.clone()), "{index}");
        }
        assert_eq!(repoxy.get("/debian/d/pool/p.deb").await.bytes(), "a package");
        // What is cached stands in when upstream is away.
        origin.stop().await;
        assert_eq!(repoxy.get(&format!("{OURS}/InRelease")).await.bytes(), &old.inrelease());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_1_a_plain_name_never_runs_ahead_of_the_inrelease_that_clients_have() {
    let origin = Origin::start().await;
    let (old, new) = (Generation::new(1).without_by_hash(), Generation::new(2).without_by_hash());
    old.publish(&origin);
    let repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
    assert_eq!(update(&repoxy, PACKAGES).await, (old.inrelease(), old.packages.clone()));
    new.publish(&origin);
    // Past its ttl, upstream has a newer one, and yet: this is the one that the client's InRelease names.
    assert_eq!(repoxy.get(&format!("{OURS}/{PACKAGES}")).await.bytes(), &old.packages);
    // One that nobody used is not there any more; what is there in its place is not served.
    let translation = format!("{OURS}/main/i18n/Translation-en");
    origin.file(&format!("{DISTS}/main/i18n/Translation-en"), "text/plain", "something newer");
    assert_eq!(repoxy.get(&translation).await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(update(&repoxy, PACKAGES).await, (new.inrelease(), new.packages.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_2_a_by_hash_name_that_upstream_has_dropped_is_taken_from_the_plain_name_if_that_fits() {
    let origin = Origin::start().await;
    let old = Generation::new(1);
    old.publish(&origin);
    origin.on(&format!("{DISTS}/main/binary-amd64/by-hash/*")).status(404).always();
    let repoxy = Repoxy::with(&archive(&origin, ""));
    let (_, packages) = update(&repoxy, &by_hash(&old.packages)).await;
    assert_eq!(packages, old.packages);
    // The same where the content is here already, for another suite.
    for (path, content) in [("InRelease", old.inrelease()), (PACKAGES, old.packages.clone())] {
        origin.file(&format!("/a/dists/testing/{path}"), "text/plain", content);
    }
    let other = repoxy.get(&format!("/debian/d/dists/testing/{PACKAGES}")).await;
    assert_eq!(other.bytes(), &old.packages);
    let translation = Digest::of(&old.translation).hex();
    let by_hash = format!("main/i18n/by-hash/SHA256/{translation}");
    origin.on(&format!("{DISTS}/{by_hash}")).status(404).always();
    origin.file(&format!("{DISTS}/main/i18n/Translation-en"), "text/plain", "longer than the right ones");
    let refused = repoxy.get(&format!("{OURS}/{by_hash}")).await;
    assert_eq!(refused.status, StatusCode::BAD_GATEWAY, "nothing of it is sent");
    origin.file(&format!("{DISTS}/main/i18n/Translation-en"), "text/plain", "other bytes");
    let cut = repoxy.get(&format!("{OURS}/{by_hash}")).await;
    assert!(cut.status != StatusCode::OK || cut.body.is_err(), "the same size does not help");
    // Without a Release that knows it there is nowhere else to look.
    let unknown = format!("{OURS}/main/binary-amd64/by-hash/SHA256/{translation}");
    assert_eq!(repoxy.get(&unknown).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_3_a_304_keeps_the_body_and_upstreams_last_modified_also_after_a_restart() {
    const MODIFIED: &str = "Sat, 01 Nov 2025 09:00:00 GMT";
    let origin = Origin::start().await;
    let old = Generation::new(1);
    old.publish(&origin);
    origin.on(&format!("{DISTS}/InRelease")).header("last-modified", MODIFIED).always();
    let mut repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
    let path = format!("{OURS}/InRelease");
    assert_eq!(repoxy.get(&path).await.header("last-modified"), MODIFIED);
    for round in 0..3 {
        let known = [("if-modified-since", MODIFIED), ("cache-control", "max-age=0")];
        let unchanged = repoxy.request(Method::GET, &path, &known).await;
        assert_eq!(unchanged.status, StatusCode::NOT_MODIFIED, "{round}");
        let before = [("if-modified-since", "Sat, 01 Nov 2025 08:59:59 GMT")];
        let whole = repoxy.request(Method::GET, &path, &before).await;
        assert_eq!((whole.status, whole.bytes()), (StatusCode::OK, &old.inrelease()));
        assert_eq!(whole.header("last-modified"), MODIFIED);
        if round == 1 {
            repoxy.terminate();
            repoxy.start();
        }
    }
    let asked = origin.seen("GET", &format!("{DISTS}/InRelease"));
    assert!(asked[1..].iter().all(|seen| seen.header("if-modified-since") == Some(MODIFIED)));
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_4_a_captive_portals_page_is_not_stored_and_what_is_held_goes_on() {
    let origin = Origin::start().await;
    let old = Generation::new(1);
    let page = || {
        origin
            .on(&format!("{DISTS}/*"))
            .body("<html>Please log in</html>")
            .header("content-type", "text/html")
    };
    page().always();
    let repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
    for name in ["InRelease", "Release"] {
        let refused = repoxy.get(&format!("{OURS}/{name}")).await;
        assert_eq!(refused.status, StatusCode::BAD_GATEWAY);
        assert!(!refused.bytes().starts_with(b"<html>"));
    }
    assert!(repoxy.files("type/debian/proxies/d/cache").is_empty());
    origin.forget_scripts(&format!("{DISTS}/*"));
    old.publish(&origin);
    update(&repoxy, PACKAGES).await;
    page().always();
    assert_eq!(update(&repoxy, PACKAGES).await, (old.inrelease(), old.packages.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inrelease_that_goes_back_in_time_is_not_taken() {
    let origin = Origin::start().await;
    let (old, new) = (Generation::new(1), Generation::new(2));
    new.publish(&origin);
    let repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
    update(&repoxy, PACKAGES).await;
    old.publish(&origin);
    assert_eq!(update(&repoxy, PACKAGES).await, (new.inrelease(), new.packages.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_5_a_group_of_mirrors_is_one_archive() {
    let (first, second) = (Origin::start().await, Origin::start().await);
    let old = Generation::new(1);
    old.publish(&first);
    old.publish(&second);
    let both = format!(
        "[[proxy]]\ntype = \"debian\"\nname = \"d\"\nupstream = [\"{}/a\", \"{}/a\"]\nttl = \"0s\"\n",
        first.url(),
        second.url()
    );
    let repoxy = Repoxy::with(&both);
    repoxy.get(&format!("{OURS}/InRelease")).await;
    first.stop().await;
    assert_eq!(repoxy.get(&format!("{OURS}/{PACKAGES}")).await.bytes(), &old.packages, "the second has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_6_two_encodings_of_a_name_are_fetched_once() {
    let origin = Origin::start().await;
    origin.file("/a/pool/p/pp%2B%2B_2~3_amd64.deb", "x/y", "package");
    let repoxy = Repoxy::with(&archive(&origin, ""));
    for path in ["pp++_2~3_amd64.deb", "pp%2b%2b_2%7e3_amd64.deb", "pp%2B%2B_2~3%5famd64.deb"] {
        let got = repoxy.get(&format!("/debian/d/pool/p/{path}")).await;
        assert_eq!(&got.bytes()[..], b"package", "{path}");
    }
    assert_eq!(origin.total(), 1);
    let climbing = raw(&repoxy, "GET /debian/d/pool/%2e%2e/x", "x");
    assert!(climbing.starts_with("HTTP/1.1 400"), "{climbing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_7_a_redirecting_mirror_is_followed_and_its_address_is_no_key() {
    let (front, mirror) = (Origin::start().await, Origin::start().await);
    mirror.file("/elsewhere/hello.deb", "x/y", "package");
    let location = format!("{}/elsewhere/hello.deb?signature=1", mirror.url());
    front.on("/a/pool/hello.deb").redirect(&location).always();
    let repoxy =
        Repoxy::with(&archive(&front, &format!("allowed_hosts = [\"127.0.0.1:{}\"]", mirror.port())));
    for _ in 0..2 {
        assert_eq!(&repoxy.get("/debian/d/pool/hello.deb").await.bytes()[..], b"package");
    }
    assert_eq!(mirror.total(), 1);
    let files = refs(&repoxy, "refs", 1).await;
    assert!(files.len() == 1 && files[0].ends_with("refs/pool/hello.deb.json"), "{files:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_8_a_compressed_file_that_is_labelled_content_encoding_is_not_unpacked() {
    let mut gzip = Vec::new();
    flate2::read::GzEncoder::new(&b"Package: x\n"[..], flate2::Compression::fast())
        .read_to_end(&mut gzip)
        .expect("memory");
    let origin = Origin::start().await;
    let old = Generation { packages: gzip.into(), ..Generation::new(1) };
    old.publish(&origin);
    origin.on(&format!("{DISTS}/main/*")).header("content-encoding", "gzip").always();
    let repoxy = Repoxy::with(&archive(&origin, ""));
    assert_eq!(update(&repoxy, PACKAGES).await.1, old.packages);
    let asked = &origin.seen("GET", &format!("{DISTS}/{}", old.packages_path()))[0];
    assert!(matches!(asked.header("accept-encoding"), None | Some("identity")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_9_a_package_without_a_length_gets_it_from_the_index() {
    let origin = Origin::start().await;
    let deb = origin.blob("x", 200_000).bytes;
    let old = Generation::new(1).names("pool/hello.deb", &deb);
    old.publish(&origin);
    origin.file("/a/pool/hello.deb", "x/y", deb.clone());
    origin.on("/a/pool/hello.deb").close_delimited().always();
    let repoxy = Repoxy::with(&archive(&origin, ""));
    update(&repoxy, PACKAGES).await;
    catalogued(&repoxy, 1).await;
    let got = repoxy.get("/debian/d/pool/hello.deb").await;
    assert_eq!(got.header("content-length"), "200000");
    assert_eq!(got.bytes(), &deb);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_not_what_the_index_says_is_not_served_whole_and_not_kept() {
    let origin = Origin::start().await;
    let deb = origin.blob("x", 200_000).bytes;
    Generation::new(1).names("pool/hello.deb", &deb).publish(&origin);
    origin.file("/a/pool/hello.deb", "x/y", deb.clone());
    origin.on("/a/pool/hello.deb").flip(150_000).once();
    let repoxy = Repoxy::with(&archive(&origin, ""));
    update(&repoxy, PACKAGES).await;
    catalogued(&repoxy, 1).await;
    let got = repoxy.get("/debian/d/pool/hello.deb").await;
    assert!(got.body.is_err(), "cut, so that no client takes it for complete");
    assert!(repoxy.files("type/debian/proxies/d/refs").is_empty());
    assert_eq!(repoxy.get("/debian/d/pool/hello.deb").await.bytes(), &deb);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_whose_name_a_newer_index_gives_other_content_is_fetched_again() {
    let origin = Origin::start().await;
    let (first, second) = (Bytes::from_static(b"first build"), Bytes::from_static(b"second build, longer"));
    Generation::new(1).names("pool/hello.deb", &first).publish(&origin);
    origin.file("/a/pool/hello.deb", "x/y", first.clone());
    let repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
    update(&repoxy, PACKAGES).await;
    assert_eq!(repoxy.get("/debian/d/pool/hello.deb").await.bytes(), &first);
    let new = Generation::new(2).names("pool/hello.deb", &second);
    new.publish(&origin);
    origin.file("/a/pool/hello.deb", "x/y", second.clone());
    assert_eq!(update(&repoxy, PACKAGES).await.1, new.packages);
    while repoxy.get("/debian/d/pool/hello.deb").await.bytes() != &second {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(repoxy.get("/debian/d/pool/hello.deb").await.bytes(), &second);
    assert_eq!(origin.count("GET", "/a/pool/hello.deb"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_10_ranges_are_answered_here_and_upstream_sends_all() {
    let origin = Origin::start().await;
    let deb = origin.blob("x", 100_000).bytes;
    origin.file("/a/pool/hello.deb", "x/y", deb.clone());
    let repoxy = Repoxy::with(&archive(&origin, ""));
    let path = "/debian/d/pool/hello.deb";
    let range = |range, condition| [("range", range), ("if-range", condition)];
    let cold = repoxy.request(Method::GET, path, &[("range", "bytes=60000-")]).await;
    assert_eq!((cold.status, cold.bytes()), (StatusCode::PARTIAL_CONTENT, &deb.slice(60_000..)));
    assert_eq!(origin.count_range("GET", "/a/pool/hello.deb", None), 1);
    let modified = repoxy.get(path).await.header("last-modified").to_owned();
    let resumed = repoxy.request(Method::GET, path, &range("bytes=99999-", &modified)).await;
    assert_eq!((resumed.status, resumed.bytes().len()), (StatusCode::PARTIAL_CONTENT, 1));
    let other = repoxy.request(Method::GET, path, &range("bytes=5-", "Sat, 01 Nov 2025 09:00:00 GMT")).await;
    assert_eq!((other.status, other.bytes()), (StatusCode::OK, &deb));
    // apt asks so for what it has completely, and takes this for a yes.
    let complete = repoxy.request(Method::GET, path, &range("bytes=100000-", &modified)).await;
    assert_eq!(complete.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(complete.header("content-range"), "bytes */100000");
    assert_eq!(origin.total(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_12_no_cache_has_upstream_asked_about_what_may_change_and_about_nothing_else() {
    let origin = Origin::start().await;
    let deb = origin.blob("x", 1000).bytes;
    let old = Generation::new(1).names("pool/h_1.deb", &deb);
    old.publish(&origin);
    origin.file("/a/pool/h_1.deb", "x/y", deb.clone());
    origin.file("/a/pool/unnamed_1.deb", "x/y", deb);
    origin.file("/a/key.asc", "text/plain", "a key");
    let repoxy = Repoxy::with(&archive(&origin, "ttl = \"1h\""));
    let targets = [
        format!("{OURS}/InRelease"),
        "/debian/d/key.asc".to_owned(),
        format!("{OURS}/{PACKAGES}"),
        format!("{OURS}/{}", by_hash(&old.packages)),
        "/debian/d/pool/h_1.deb".to_owned(),
        "/debian/d/pool/unnamed_1.deb".to_owned(),
    ];
    let all = async |headers: &'static [(&str, &str)]| {
        for target in &targets {
            assert_eq!(repoxy.request(Method::GET, target, headers).await.status, StatusCode::OK, "{target}");
        }
    };
    all(&[]).await;
    refs(&repoxy, "refs", 2).await;
    catalogued(&repoxy, 1).await;
    // Now the hot map has what it may have.
    all(&[]).await;
    let before = origin.total();
    all(&[("cache-control", "max-age=0")]).await;
    assert_eq!(origin.total(), before, "apt says this each time");
    all(&[("cache-control", "no-cache"), ("pragma", "no-cache")]).await;
    all(&[("pragma", "no-cache")]).await;
    assert_eq!(origin.total(), before + 4, "the InRelease and the key, twice");
    let asked = origin.seen("GET", &format!("{DISTS}/InRelease"));
    assert_eq!(asked.len(), 3);
    assert!(asked[1..].iter().all(|seen| seen.header("if-none-match").is_some()), "it is a question");
    // The answer counts, and if there is none, what is cached does.
    Generation { more: "Label: new\n", ..old.clone() }.publish(&origin);
    let no_cache = [("cache-control", "no-cache")];
    let new = repoxy.request(Method::GET, &targets[0], &no_cache).await;
    assert_ne!(new.bytes(), &old.inrelease());
    origin.stop().await;
    assert_eq!(repoxy.request(Method::GET, &targets[0], &no_cache).await.bytes(), new.bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_13_a_large_inrelease_is_taken_and_a_large_index_flows_before_it_is_whole() {
    let origin = Origin::start().await;
    let mut old = Generation::new(1);
    old.packages = origin.blob("x", 4 << 20).bytes;
    old.more = Box::leak(format!("Description: {}\n", "x".repeat(300_000)).into_boxed_str());
    old.publish(&origin);
    let gate = Gate::closed();
    origin.on(&format!("{DISTS}/{}", old.packages_path())).hold_after(1 << 20, &gate).once();
    let repoxy = Repoxy::with(&archive(&origin, ""));
    assert_eq!(repoxy.get(&format!("{OURS}/InRelease")).await.bytes().len(), old.inrelease().len());
    let mut response = repoxy.open(Method::GET, &format!("{OURS}/{PACKAGES}"), &[]).await;
    let first = response.chunk().await.expect("it flows").expect("some bytes");
    assert_eq!(first, old.packages[..first.len()]);
    gate.open();
    let mut body = first.to_vec();
    while let Some(bytes) = response.chunk().await.expect("it flows") {
        body.extend_from_slice(&bytes);
    }
    assert_eq!(body, old.packages);
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_14_differences_are_answered_here_with_404() {
    let origin = Origin::start().await;
    Generation::new(1).publish(&origin);
    let repoxy = Repoxy::with(&archive(&origin, ""));
    let path = format!("{OURS}/main/binary-amd64/Packages.diff/Index");
    assert_eq!(repoxy.get(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(origin.total(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn release_and_its_signature_switch_as_a_pair() {
    let origin = Origin::start().await;
    let publish = |generation: &Generation, signature: &'static str| {
        generation.publish_files(&origin);
        origin.file(&format!("{DISTS}/Release"), "text/plain", generation.release());
        origin.file(&format!("{DISTS}/Release.gpg"), "text/plain", signature);
    };
    let (old, new) = (Generation::new(1), Generation::new(2));
    publish(&old, "old signature");
    let repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
    let get = |name: &'static str| {
        let repoxy = &repoxy;
        async move { repoxy.get(&format!("{OURS}/{name}")).await.bytes().clone() }
    };
    assert_eq!(repoxy.get(&format!("{OURS}/InRelease")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        (get("Release").await, get("Release.gpg").await),
        (old.release().into(), "old signature".into())
    );
    assert_eq!(get(PACKAGES).await, old.packages, "the Release says what the name means");
    publish(&new, "new signature");
    // While the new signature cannot be had, nothing changes.
    let signature = format!("{DISTS}/Release.gpg");
    origin.on(&signature).status(500).always();
    assert_eq!(
        (get("Release").await, get("Release.gpg").await),
        (old.release().into(), "old signature".into())
    );
    assert_eq!(get(PACKAGES).await, old.packages);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_without_any_signature_is_served_too() {
    let origin = Origin::start().await;
    let old = Generation::new(1);
    old.publish_files(&origin);
    origin.file(&format!("{DISTS}/Release"), "text/plain", old.release());
    let repoxy = Repoxy::with(&archive(&origin, ""));
    assert_eq!(repoxy.get(&format!("{OURS}/Release")).await.bytes(), &old.release());
    assert_eq!(repoxy.get(&format!("{OURS}/Release.gpg")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(repoxy.get(&format!("{OURS}/{PACKAGES}")).await.bytes(), &old.packages);
    // Not even a Release: plain files.
    origin.file("/a/flat/Packages", "text/plain", "Package: x\n");
    assert_eq!(&repoxy.get("/debian/d/flat/./Packages").await.bytes()[..], b"Package: x\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_keyring_only_what_it_signed_is_served() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/openpgp");
    let read = |name: &str| Bytes::from(std::fs::read(format!("{fixtures}/{name}")).expect("a fixture"));
    let origin = Origin::start().await;
    let inrelease = format!("{DISTS}/InRelease");
    origin.file(&inrelease, "text/plain", read("stranger.inrelease"));
    let keyring = format!("ttl = \"0s\"\nkeyring = \"{fixtures}/ring.asc\"");
    let repoxy = Repoxy::with(&archive(&origin, &keyring));
    let refused = repoxy.get(&format!("{OURS}/InRelease")).await;
    assert_eq!(refused.status, StatusCode::BAD_GATEWAY);
    let body = String::from_utf8(refused.bytes().to_vec()).expect("text");
    assert!(body.contains("AEC2DEDBD87826D1, not by one of the keys"), "{body}");
    assert!(repoxy.files("type/debian/proxies/d/cache").is_empty(), "nothing of it is kept");

    origin.file(&inrelease, "text/plain", read("archive.inrelease"));
    assert_eq!(repoxy.get(&format!("{OURS}/InRelease")).await.bytes(), &read("archive.inrelease"));
    let shown = repoxy.run(&["show", "debian/d/meta/dists/stable/InRelease", "--json"]);
    let shown = String::from_utf8(shown.stdout).expect("text");
    assert!(
        shown.contains(r#""signedBy":"567D4F8EF8D7E452""#) && shown.contains(r#""verified":true"#),
        "{shown}"
    );
    origin.file(&inrelease, "text/plain", read("stranger.inrelease"));
    assert_eq!(repoxy.get(&format!("{OURS}/InRelease")).await.bytes(), &read("archive.inrelease"));

    for (name, file) in [("Release", "message"), ("Release.gpg", "sub.sig")] {
        origin.file(&format!("{DISTS}/{name}"), "text/plain", read(file));
    }
    assert_eq!(repoxy.get(&format!("{OURS}/Release")).await.bytes(), &read("message"));
    assert_eq!(repoxy.get(&format!("{OURS}/Release.gpg")).await.bytes(), &read("sub.sig"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_past_its_valid_until_is_served_and_shown_as_lapsed() {
    let origin = Origin::start().await;
    let old = Generation { more: "Valid-Until: Sat, 08 Nov 2025 10:00:00 UTC\n", ..Generation::new(1) };
    old.publish(&origin);
    let mut repoxy = Repoxy::with(&archive(&origin, ""));
    assert_eq!(repoxy.get(&format!("{OURS}/InRelease")).await.bytes(), &old.inrelease());
    // 2025-11-08T10:00:00Z.
    let metric = r#"repoxy_valid_until_seconds{proxy="debian/d",path="dists/stable/InRelease"} 1762596000"#;
    while !String::from_utf8_lossy(repoxy.get("/-/metrics").await.bytes()).contains(metric) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    repoxy.terminate();
    let verdict = "debian/d/meta/dists/stable/InRelease";
    let run = |arguments: &[&str]| {
        let output = repoxy.run(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    assert!(run(&["show", verdict]).contains("2025-11-08T10:00:00Z, lapsed"));
    let listed = run(&["ls", "refs", "--type", "debian", "--json"]);
    let line = listed.lines().find(|line| line.contains(verdict)).expect("listed");
    assert!(line.contains(r#""validUntil":"2025-11-08T10:00:00Z""#), "{line}");
    let table = run(&["ls", "refs", "--type", "debian"]);
    assert!(table.lines().any(|line| line.contains(verdict) && line.contains("lapsed")), "{table}");
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

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_11_under_a_byte_limit_packages_that_no_index_names_go_first() {
    let origin = Origin::start().await;
    let (old_deb, new_deb) = (origin.blob("x", 50_000).bytes, origin.blob("x", 50_000).bytes);
    Generation::new(1).names("pool/hello_1.deb", &old_deb).publish(&origin);
    origin.file("/a/pool/hello_1.deb", "x/y", old_deb);
    origin.file("/a/pool/hello_2.deb", "x/y", new_deb.clone());
    let mut repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
    update(&repoxy, PACKAGES).await;
    Generation::new(2).names("pool/hello_2.deb", &new_deb).publish(&origin);
    update(&repoxy, PACKAGES).await;
    catalogued(&repoxy, 2).await;
    // The old one was used last.
    for name in ["hello_2.deb", "hello_1.deb"] {
        assert_eq!(repoxy.get(&format!("/debian/d/pool/{name}")).await.status, StatusCode::OK);
    }
    refs(&repoxy, "refs", 2).await;
    repoxy.terminate();
    let gc = repoxy.run(&["gc", "--max-bytes", "60kB", "--force", "--grace", "0s"]);
    assert!(gc.status.success(), "{gc:?}");
    let files = repoxy.files("type/debian/proxies/d/refs");
    assert!(files.len() == 1 && files[0].ends_with("hello_2.deb.json"), "{files:?}");
}
