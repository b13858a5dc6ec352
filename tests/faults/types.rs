//! What holds for every type there is, as a table of types: content that is damaged on disk or on its way,
//! an upstream that hangs, is slow or has not got what is asked for, hostile paths, and whom credentials reach.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use repoxy::model::Digest;
use serde_json::json;

use crate::security::{kept, status_of};
use crate::support::{Got, Origin, Repoxy, eventually};
use crate::trust::{CANARY, leaked};

pub(crate) const MIB: usize = 1 << 20;

/// A type: what upstream has of it, and what clients ask for.
#[derive(Debug)]
pub(crate) struct Type {
    pub(crate) name: &'static str,
    /// Further lines of its proxy, which is called `x`.
    pub(crate) config: &'static str,
    /// A document that may change, here and at upstream.
    pub(crate) document: (&'static str, &'static str),
    /// Something large that never changes and whose digest is known before it comes.
    pub(crate) content: (&'static str, &'static str),
    /// What upstream has not got.
    pub(crate) missing: (&'static str, &'static str),
    /// What a hostile path is appended to.
    pub(crate) mount: &'static str,
    /// Puts the document, the content and what names its digest where they are.
    pub(crate) publish: fn(&Origin, &Bytes),
    /// What a client asks for before the content.
    pub(crate) before: &'static [&'static str],
}

pub(crate) const TYPES: [Type; 4] = [
    Type {
        name: "container",
        config: "default = true\n",
        document: ("/v2/library/app/manifests/1.0", "/v2/library/app/manifests/1.0"),
        // What its name is follows from what is in it: the test puts that in.
        content: ("/v2/library/app/blobs/sha256:", "/v2/library/app/blobs/sha256:"),
        missing: ("/v2/library/app/manifests/none", "/v2/library/app/manifests/none"),
        mount: "/v2/library/app/",
        publish: |origin, content| {
            origin.image("library/app", "1.0", 1, 100);
            origin.blob_of("library/app", content.clone());
        },
        before: &[],
    },
    Type {
        name: "tf",
        config: "unsigned = true\n",
        document: ("/tf/x/v1/providers/a/demo/versions", "/v1/providers/a/demo/versions"),
        content: (
            "/tf/x/v1/providers/a/demo/1.0.0/download/linux/amd64/terraform-provider-demo_1.0.0_linux_amd64.zip",
            "/files/demo.zip",
        ),
        missing: ("/tf/x/v1/providers/a/none/versions", "/v1/providers/a/none/versions"),
        mount: "/tf/x/v1/providers/a/",
        publish: |origin, content| {
            publish_provider(origin, content, "/files/demo.zip", "/files/SHA256SUMS");
        },
        before: &[],
    },
    Type {
        name: "debian",
        config: "",
        document: ("/debian/x/dists/s/InRelease", "/dists/s/InRelease"),
        content: ("/debian/x/pool/demo_1.deb", "/pool/demo_1.deb"),
        missing: ("/debian/x/pool/none_1.deb", "/pool/none_1.deb"),
        mount: "/debian/x/pool/",
        publish: publish_archive,
        before: &["/debian/x/dists/s/main/binary-amd64/Packages"],
    },
    Type {
        name: "generic",
        config: "[[proxy.rules]]\nmatch = \"*.bin\"\nimmutable = true\nsidecar = \".sha256\"\n\
            [[proxy.rules]]\nmatch = \"list\"\nttl = \"0s\"\n",
        document: ("/generic/x/list", "/list"),
        content: ("/generic/x/demo.bin", "/demo.bin"),
        missing: ("/generic/x/none.bin", "/none.bin"),
        mount: "/generic/x/a/",
        publish: |origin, content| {
            origin.file("/list", "text/plain", "a list");
            origin.file("/demo.bin", "application/octet-stream", content.clone());
            origin.file("/demo.bin.sha256", "text/plain", Digest::of(content).hex());
        },
        before: &[],
    },
];

pub(crate) fn publish_provider(origin: &Origin, zip: &Bytes, at: &str, sums: &str) {
    origin.file("/.well-known/terraform.json", "application/json", r#"{"providers.v1":"/v1/providers/"}"#);
    origin.file("/v1/providers/a/demo/versions", "application/json", r#"{"versions":[{"version":"1.0.0"}]}"#);
    let (filename, digest) = ("terraform-provider-demo_1.0.0_linux_amd64.zip", Digest::of(zip).hex());
    let document = json!({
        "protocols": ["5.0"], "os": "linux", "arch": "amd64", "filename": filename, "download_url": at,
        "shasums_url": sums, "shasums_signature_url": "/files/none.sig", "shasum": digest,
        "signing_keys": {"gpg_public_keys": []},
    });
    let place = "/v1/providers/a/demo/1.0.0/download/linux/amd64";
    origin.file(place, "application/json", document.to_string());
    origin.file("/files/SHA256SUMS", "text/plain", format!("{digest}  {filename}\n"));
    origin.file("/files/demo.zip", "application/zip", zip.clone());
}

fn publish_archive(origin: &Origin, deb: &Bytes) {
    let (digest, size) = (Digest::of(deb).hex(), deb.len());
    let packages = format!("Package: demo\nFilename: pool/demo_1.deb\nSize: {size}\nSHA256: {digest}\n");
    publish_packages(origin, packages.into());
    origin.file("/pool/demo_1.deb", "application/octet-stream", deb.clone());
}

/// An archive with this index of packages.
fn publish_packages(origin: &Origin, packages: Bytes) {
    let (digest, size) = (Digest::of(&packages).hex(), packages.len());
    let release = format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: Test\nDate: 01 Nov 2025 10:00:00 UTC\nSHA256:\n \
         {digest} {size} main/binary-amd64/Packages\n-----BEGIN PGP SIGNATURE-----\n\nx\n-----END PGP SIGNATURE-----\n"
    );
    origin.file("/dists/s/InRelease", "text/plain", release);
    origin.file("/dists/s/main/binary-amd64/Packages", "application/octet-stream", packages);
}

impl Type {
    /// The line by which what may change is asked about each time.
    pub(crate) fn asks_each_time(&self) -> &'static str {
        if self.name == "generic" { "" } else { "ttl = \"0s\"" }
    }
}

/// A server with one proxy of a type, before an origin that has something of it.
pub(crate) struct World {
    pub(crate) of: &'static Type,
    pub(crate) origin: Origin,
    pub(crate) repoxy: Repoxy,
    pub(crate) content: Bytes,
    /// Where the content is, here and at upstream.
    pub(crate) ours: String,
    pub(crate) theirs: String,
}

impl World {
    pub(crate) async fn new(of: &'static Type, more: &str) -> Self {
        Self::with(of, more, "").await
    }

    /// The same with further tables behind the proxy's.
    pub(crate) async fn with(of: &'static Type, more: &str, tables: &str) -> Self {
        let origin = Origin::start().await;
        let content = origin.blob("elsewhere", MIB).bytes;
        (of.publish)(&origin, &content);
        let digest = Digest::of(&content).hex();
        let name = if of.name == "container" { digest.as_str() } else { "" };
        let (ours, theirs) = (format!("{}{name}", of.content.0), format!("{}{name}", of.content.1));
        let (url, Type { name, config, .. }) = (origin.url(), of);
        // Tables of rules come last.
        let repoxy = Repoxy::with(&format!(
            "[[proxy]]\ntype = \"{name}\"\nname = \"x\"\nupstream = \"{url}\"\n{more}\n{config}{tables}"
        ));
        Self { of, origin, repoxy, content, ours, theirs }
    }

    /// With the usual settings: what may change is asked about each time.
    pub(crate) async fn usual(of: &'static Type) -> Self {
        Self::new(of, of.asks_each_time()).await
    }

    /// Asks for what clients ask for before the content, and waits until it counts.
    pub(crate) async fn prepare(&self) {
        for path in self.of.before {
            assert_eq!(self.repoxy.get(path).await.status, StatusCode::OK, "{path}");
        }
        if self.of.name == "debian" {
            eventually("the index counts", || self.listed().contains("debian.packages")).await;
        }
    }

    /// Fetches the document and waits until it is published: what streams is that a moment after its last byte.
    pub(crate) async fn document(&self) -> Got {
        let got = self.repoxy.get(self.of.document.0).await;
        assert_eq!(got.status, StatusCode::OK, "{}", self.of.name);
        eventually("its ref is known", || !self.listed().is_empty()).await;
        got
    }

    /// The refs that there are, as JSON.
    pub(crate) fn listed(&self) -> String {
        String::from_utf8_lossy(&self.repoxy.run(&["ls", "refs", "--json"]).stdout).into_owned()
    }

    /// Fetches the content and waits until it is published.
    pub(crate) async fn fetched(&self) {
        self.prepare().await;
        assert_eq!(self.repoxy.get(&self.ours).await.bytes(), &self.content, "{}", self.of.name);
        eventually("the content and its ref are published", || {
            self.blob().exists() && self.listed().contains(&Digest::of(&self.content).hex())
        })
        .await;
    }

    pub(crate) fn blob(&self) -> std::path::PathBuf {
        let hex = Digest::of(&self.content).hex();
        let dir = format!("type/{}/blobs/sha256/{}/{}", self.of.name, &hex[..2], &hex[2..4]);
        self.repoxy.root().join(dir).join(hex)
    }

    pub(crate) async fn range(&self, from: usize, to: usize) -> Got {
        let range = format!("bytes={from}-{to}");
        self.repoxy.request(Method::GET, &self.ours, &[("range", &range)]).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d10_content_of_any_type_that_is_damaged_on_disk_is_a_miss_also_by_range_and_heals() {
    type Damage = fn(&std::path::Path, &[u8]) -> std::io::Result<()>;
    let damages: [(&str, Damage); 3] = [
        ("absent", |file, _| std::fs::remove_file(file)),
        ("empty", |file, _| std::fs::write(file, b"")),
        ("half", |file, bytes| std::fs::write(file, &bytes[..bytes.len() / 2])),
    ];
    for of in &TYPES {
        let mut world = World::usual(of).await;
        world.fetched().await;
        for (damage, spoil) in &damages {
            world.repoxy.terminate();
            std::fs::remove_file(world.blob()).expect("it is there");
            std::fs::write(world.blob(), &world.content).expect("a file of one's own");
            spoil(&world.blob(), &world.content).expect("damaged");
            world.repoxy.start();
            let what = format!("{} {damage}", of.name);
            // Across the middle, where half of it ends.
            let (from, to) = (MIB / 2 - 5, MIB / 2 + 4);
            let part = world.range(from, to).await;
            assert_eq!(part.status, StatusCode::PARTIAL_CONTENT, "{what}");
            assert_eq!(part.bytes(), &world.content[from..=to], "{what}");
            assert_eq!(world.repoxy.get(&world.ours).await.bytes(), &world.content, "{what}");
            eventually("it is whole again", || {
                std::fs::read(world.blob()).is_ok_and(|bytes| bytes == world.content)
            })
            .await;
        }
        world.repoxy.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_an_upstream_that_hangs_costs_a_document_of_any_type_little_and_only_once() {
    for of in &TYPES {
        let world = World::usual(of).await;
        let fresh = world.document().await;
        world.origin.on("/*").hang().always();
        let mut asked = None;
        for _ in 0..3 {
            let got = tokio::time::timeout(Duration::from_secs(30), world.repoxy.get(of.document.0)).await;
            assert_eq!(got.expect("long before upstream's own limit").bytes(), fresh.bytes(), "{}", of.name);
            let total = world.origin.total();
            assert_eq!(*asked.get_or_insert(total), total, "{}: one question, not three", of.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_a_download_of_any_type_that_takes_longer_than_silence_may_is_completed() {
    for of in &TYPES {
        let ttl = if of.name == "generic" { "" } else { "ttl = \"1h\"\n" };
        let world = World::new(of, &format!("{ttl}idle_timeout = \"2s\"")).await;
        world.prepare().await;
        // Sixteen pieces, and together twice what upstream may be silent.
        let slow = world.origin.on(&world.theirs).method("GET");
        slow.trickle(MIB / 16, Duration::from_millis(250)).always();
        assert_eq!(world.repoxy.get(&world.ours).await.bytes(), &world.content, "{}", of.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: forty seconds of download"]
async fn a2_a_download_of_forty_seconds_is_completed_for_any_type_with_the_usual_limits() {
    let download = async |of: &'static Type| {
        let world = World::new(of, of.asks_each_time()).await;
        world.prepare().await;
        let slow = world.origin.on(&world.theirs).method("GET");
        slow.trickle(MIB / 16, Duration::from_millis(2700)).always();
        let began = Instant::now();
        assert_eq!(world.repoxy.get(&world.ours).await.bytes(), &world.content, "{}", of.name);
        assert!(began.elapsed() >= Duration::from_secs(40), "{:?}", began.elapsed());
    };
    futures_util::future::join_all(TYPES.iter().map(download)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_content_of_any_type_that_is_not_what_its_name_or_document_says_is_cut_and_not_kept() {
    for of in &TYPES {
        let world = World::usual(of).await;
        world.prepare().await;
        world.origin.on(&world.theirs).method("GET").flip(MIB as u64 - 7).once();
        let got = world.repoxy.get(&world.ours).await;
        assert!(!got.status.is_success() || got.body.is_err(), "{}: {}", of.name, got.status);
        assert!(!world.blob().exists(), "{}", of.name);
        assert_eq!(world.repoxy.get(&world.ours).await.bytes(), &world.content, "{}", of.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a15_twenty_lookups_of_what_is_not_there_are_one_request_for_any_type() {
    for of in &TYPES {
        let world = World::new(of, if of.name == "generic" { "" } else { "ttl = \"1h\"" }).await;
        for _ in 0..20 {
            let got = world.repoxy.get(of.missing.0).await;
            assert_eq!(got.status, StatusCode::NOT_FOUND, "{}", of.name);
        }
        assert_eq!(world.origin.count("GET", of.missing.1), 1, "{}", of.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_no_path_of_any_type_leads_anywhere_and_upstream_is_not_asked() {
    let climbing = [
        "../../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "b/..",
        "b/%2e%2e/%2e%2e",
        "b\\..\\..\\passwd",
        "b%5c..%5cpasswd",
    ];
    // To plain HTTP these are names like any other, and go to upstream as they are.
    let odd = ["b%00/passwd", "b%0d%0ax:y", "%c0%ae%c0%ae/passwd"];
    for of in &TYPES {
        let world = World::usual(of).await;
        world.document().await;
        let (asked, files) = (world.origin.total(), kept(&world.repoxy));
        for path in climbing.into_iter().chain(odd.into_iter().filter(|_| of.name != "generic")) {
            let status = status_of(&world.repoxy, format!("GET {}{path}", of.mount).as_bytes()).await;
            assert!(matches!(status, 400 | 404), "{} {path}: {status}", of.name);
        }
        assert_eq!(world.origin.total(), asked, "{}: upstream was not asked", of.name);
        assert_eq!(kept(&world.repoxy), files, "{}: nothing was written", of.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_the_credentials_of_any_types_proxy_stay_with_its_origin() {
    for of in &TYPES {
        let cdn = Origin::start().await;
        let ttl = if of.name == "generic" { "" } else { "ttl = \"1h\"\n" };
        let host = format!("127.0.0.1:{}", cdn.port());
        let more = format!("{ttl}allowed_hosts = [\"{host}\"]\ncredentials = {{ token = \"{CANARY}\" }}");
        let world = World::new(of, &more).await;
        world.document().await;
        assert!(leaked(&world.origin), "{}: the test can tell", of.name);
        world.prepare().await;
        cdn.file("/signed", "application/octet-stream", world.content.clone());
        world.origin.on(&world.theirs).redirect(&format!("{}/signed", cdn.url())).always();
        assert_eq!(world.repoxy.get(&world.ours).await.bytes(), &world.content, "{}", of.name);
        assert!(cdn.total() > 0 && !leaked(&cdn), "{}", of.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_what_a_providers_document_names_elsewhere_gets_no_secret_and_inside_no_request() {
    let tf = TYPES.iter().find(|of| of.name == "tf").expect("it is there");
    let evil = Origin::start().await;
    let login = format!("credentials = {{ token = \"{CANARY}\" }}\n");
    let inside = format!("http://127.0.0.1:{}/files", evil.port());
    for place in [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://169.254.169.254/latest",
        "http://[::ffff:127.0.0.1]/x",
        &inside,
        &inside.replace("http://", "http://me:you@"),
    ] {
        for (zip, sums) in [(place, "/files/SHA256SUMS"), ("/files/demo.zip", place)] {
            let world = World::new(tf, &login).await;
            publish_provider(&world.origin, &world.content, zip, sums);
            let got = world.repoxy.get(&world.ours).await;
            assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{zip} {sums}");
            let shown = world.repoxy.get("/tf/x/v1/providers/a/demo/1.0.0/download/linux/amd64").await;
            let shown = String::from_utf8_lossy(shown.bytes()).into_owned();
            assert!(!shown.contains(place), "clients are led here and nowhere else: {shown}");
            assert!(!world.blob().exists(), "{zip} {sums}");
        }
    }
    assert_eq!(evil.connections(), 0, "not so much as a connection was made");
    // A host that the operator allows is asked, and sees no secret: neither the proxy's, nor one of the address.
    let allowed = format!("{login}allowed_hosts = [\"127.0.0.1:{}\"]\n", evil.port());
    let world = World::new(tf, &allowed).await;
    evil.file("/files/demo.zip", "application/zip", world.content.clone());
    publish_provider(&world.origin, &world.content, &format!("{inside}/demo.zip"), "/files/SHA256SUMS");
    assert_eq!(world.repoxy.get(&world.ours).await.bytes(), &world.content);
    assert!(evil.total() > 0 && !leaked(&evil));
}

#[tokio::test(flavor = "multi_thread")]
async fn s15_documents_of_registries_and_archives_are_bounded_as_manifests_are() {
    // To plain HTTP everything is a file.
    for of in TYPES.iter().filter(|of| matches!(of.name, "tf" | "debian")) {
        let world = World::usual(of).await;
        let before = world.repoxy.own_memory();
        let huge = Bytes::from(vec![b' '; 100 * MIB]);
        let deep = format!("{{\"versions\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        for (body, chunked) in [(huge.clone(), false), (huge, true), (deep.into(), false)] {
            let script = world.origin.on(of.document.1).method("GET").body(body);
            if chunked {
                script.chunked().once();
            } else {
                script.once();
            }
            let got = world.repoxy.get(of.document.0).await;
            assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{} {chunked}", of.name);
        }
        let grown = world.repoxy.own_memory().saturating_sub(before);
        assert!(grown < 100 * MIB as u64, "{}: {grown} bytes more", of.name);
        world.document().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s16_an_index_that_unpacks_without_end_is_read_in_bounded_memory() {
    let debian = TYPES.iter().find(|of| of.name == "debian").expect("it is there");
    let world = World::usual(debian).await;
    publish_packages(&world.origin, bomb(160));
    let before = world.repoxy.own_memory();
    assert_eq!(world.repoxy.get(debian.before[0]).await.status, StatusCode::OK);
    world.prepare().await;
    // Nobody vouches for it beyond the bounds, so it is served as any other is that no index names.
    assert_eq!(world.repoxy.get(&world.ours).await.bytes(), &world.content);
    let bounded = || world.repoxy.log().contains("could not be read to its end");
    eventually("the log says that it has bounds", bounded).await;
    let grown = world.repoxy.own_memory().saturating_sub(before);
    assert!(grown < 128 * MIB as u64, "{grown} bytes more");
}

/// A gzip file of this many MiB of packages, some hundred times smaller than they are.
fn bomb(mib: usize) -> Bytes {
    use std::io::Write as _;
    let digest = "ab".repeat(32);
    let line = format!("Filename: a\nSHA256: {digest}\n\n");
    let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    member.write_all(line.repeat(MIB / line.len()).as_bytes()).expect("memory");
    member.finish().expect("memory").repeat(mib).into()
}
