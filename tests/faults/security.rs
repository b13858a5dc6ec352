//! S: hostile requests, names, files and documents.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Origin, Repoxy, eventually, proxy};

const NOTHING: [PathBuf; 0] = [];
const NOWHERE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// What is stored: all files of the types, but for staging, where a server prepares itself.
pub(crate) fn kept(repoxy: &Repoxy) -> Vec<PathBuf> {
    let root = repoxy.root();
    // The root may itself be in a directory of that name.
    let below = |file: PathBuf| file.strip_prefix(&root).expect("below the root").to_path_buf();
    let staging = |file: &PathBuf| file.components().any(|part| part.as_os_str() == "tmp");
    repoxy.files("type").into_iter().map(below).filter(|file| !staging(file)).collect()
}

/// Sends a request line as it is, with a Host, and returns the status.
pub(crate) async fn status_of(repoxy: &Repoxy, line: &[u8]) -> u16 {
    let request = [line, b" HTTP/1.1\r\nhost: cache\r\nconnection: close\r\n\r\n"].concat();
    status(&repoxy.raw(&request).await)
}

/// The status of an answer as it came; 0 if there was none.
fn status(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer).into_owned();
    text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn s1_no_path_leads_out_of_the_root() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let mut repoxy = Repoxy::stopped(&proxy(&origin, "ttl = \"1h\""));
    let trace = repoxy.dir().join("trace");
    let output = trace.to_str().expect("text").to_owned();
    repoxy.run_under(&[
        "strace",
        "-D",
        "-f",
        "-qq",
        "-s",
        "4096",
        "-e",
        "trace=open,openat,openat2",
        "-o",
        &output,
    ]);
    repoxy.start();
    repoxy.get(&image.path).await;
    repoxy.stored(1).await;
    let (requests, files) = (origin.total(), kept(&repoxy));
    let from = std::fs::read_to_string(&trace).expect("a trace").len();
    let hostile: [&[u8]; 18] = [
        b"GET /v2/../../etc/passwd/manifests/x",
        b"GET /v2/..%2f..%2fetc%2fpasswd/manifests/x",
        b"GET /v2/%2e%2e/%2e%2e/etc/passwd/manifests/x",
        b"GET /v2/%252e%252e%252fetc/manifests/passwd",
        b"GET /v2/a/%2F%2F..%2f..%2fetc/manifests/passwd",
        b"GET /v2/\\..\\..\\etc/manifests/passwd",
        b"GET /v2/a%5c..%5c..%5cetc/manifests/passwd",
        b"GET /v2/a%00/manifests/passwd",
        b"GET /v2/a/manifests/passwd%00",
        b"GET /v2//etc/passwd/manifests/x",
        b"GET /v2/a//b/manifests/passwd",
        b"GET /v2/./a/./manifests/passwd",
        b"GET /v2/%c0%ae%c0%ae/manifests/passwd",
        b"GET /v2/%ff%fe/manifests/passwd",
        b"GET /v2/cafe%cc%81/manifests/passwd",
        b"GET /v2/caf%c3%a9/manifests/passwd",
        b"GET /../../../../etc/passwd",
        b"GET //etc/passwd",
    ];
    for line in hostile {
        let status = status_of(&repoxy, line).await;
        assert!(matches!(status, 400 | 404), "{status}: {}", String::from_utf8_lossy(line));
    }
    assert_eq!(origin.total(), requests, "upstream was not asked");
    assert_eq!(kept(&repoxy), files, "nothing was written");
    // What is in order is looked for on disk, which shows that the trace sees such things.
    repoxy.get("/v2/library/app/manifests/2.0").await;
    let trace = std::fs::read_to_string(&trace).expect("a trace");
    let dir = repoxy.dir().to_str().expect("text").to_owned();
    for line in trace[from..].lines().filter(|line| line.contains("open")) {
        let path = line.split('"').nth(1).unwrap_or_default();
        assert!(!path.contains("passwd") && !path.split('/').any(|part| part == ".."), "{line}");
        let inside = !path.starts_with('/') || path.starts_with(&dir) || path.starts_with("/proc/");
        assert!(inside, "{line}");
    }
    assert!(trace[from..].contains("library/app/tags/2.0.json"), "the trace goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_digests_that_are_none_are_refused_before_anything_is_asked() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"0s\""));
    let files = kept(&repoxy);
    let hex = "a".repeat(64);
    for digest in [
        "sha256:../../x".to_owned(),
        format!("sha256:{}", &hex[1..]),
        format!("sha256:{hex}a"),
        format!("sha256:{}", hex.to_uppercase()),
        format!("md5:{}", &hex[..32]),
        format!("sha256:{hex}/.."),
        format!("sha256:{hex}%2f.."),
        format!("sha512:{hex}"),
        format!("sha256:%00{}", &hex[3..]),
        "sha256:".to_owned(),
    ] {
        for noun in ["blobs", "manifests", "referrers"] {
            let got = status_of(&repoxy, format!("GET /v2/library/app/{noun}/{digest}").as_bytes()).await;
            assert!(matches!(got, 400 | 404), "{noun} {digest}: {got}");
        }
    }
    let refused = repoxy.get(&format!("/v2/library/app/blobs/sha256:{}", &hex[1..])).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (StatusCode::BAD_REQUEST, "DIGEST_INVALID"));
    assert_eq!((origin.total(), kept(&repoxy)), (0, files));
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_digests_in_upstreams_documents_and_in_files_are_checked_as_well() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"0s\""));
    let bad = String::from_utf8_lossy(&image.bytes)
        .replace(&image.blobs[1].digest.to_string(), "sha256:../../../../x");
    let manifest = origin.manifest("library/app", "inside", &image.media_type, bad);
    assert_eq!(repoxy.get(&manifest.path).await.status, StatusCode::BAD_GATEWAY);
    for stated in ["sha256:../../x", "md5:aaaa", "", NOWHERE] {
        origin.on(&image.path).header("docker-content-digest", stated).always();
        assert_eq!(repoxy.get(&image.path).await.status, StatusCode::BAD_GATEWAY, "{stated:?}");
        origin.forget_scripts(&image.path);
    }
    assert_eq!(repoxy.files("type/container/blobs"), NOTHING);
    let tags = repoxy.root().join("type/container/proxies/hub/refs/library/app/tags");
    std::fs::create_dir_all(&tags).expect("writable");
    let planted = r#"{"kind":"container.tag","targetDigest":"sha256:../../../../../../etc/passwd","size":9,"fetchedAt":"2025-11-09T12:34:56Z"}"#;
    std::fs::write(tags.join("planted.json"), planted).expect("writable");
    assert_eq!(repoxy.get("/v2/library/app/manifests/planted").await.status, StatusCode::NOT_FOUND);
    let fsck = repoxy.run(&["fsck"]);
    assert_eq!(fsck.status.code(), Some(3), "a finding");
    assert!(String::from_utf8_lossy(&fsck.stdout).contains("tags/planted.json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_names_and_tags_that_the_grammar_does_not_know_are_refused() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"0s\""));
    let long = "a".repeat(256);
    let names = [
        "library/-x",
        "library/_x",
        "library/x_",
        "library/x.",
        "library/x...y",
        "library/X",
        "library/CON",
        "library/a:b",
        "library/a%20b",
        &long,
    ];
    for name in names {
        let got = status_of(&repoxy, format!("GET /v2/{name}/manifests/1.0").as_bytes()).await;
        assert!(matches!(got, 400 | 404), "{name}: {got}");
    }
    let tag = "a".repeat(129);
    for tag in ["..", ".", "-x", ".x", "a%2fb", "a/b", "a%20b", "", &tag] {
        let got = status_of(&repoxy, format!("GET /v2/library/app/manifests/{tag}").as_bytes()).await;
        assert!(matches!(got, 400 | 404), "{tag}: {got}");
    }
    assert_eq!((origin.total(), repoxy.files("type/container/proxies/hub/refs")), (0, NOTHING.to_vec()));
    // What only looks dangerous is served: names of devices, reserved words, long tags.
    for (repository, tag) in
        [("library/con", "aux"), ("library/manifests/blobs", "nul.json"), ("library/a__b", &tag[1..])]
    {
        let image = origin.image(repository, tag, 0, 0);
        assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes, "{repository}:{tag}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_names_that_differ_in_case_never_share_a_file() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    let images: Vec<_> = ["Foo", "foo", "FOO", "%46oo"]
        .iter()
        .take(3)
        .map(|tag| origin.image("library/app", tag, 1, 10))
        .collect();
    for _ in 0..2 {
        for image in &images {
            assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes);
        }
    }
    let files = repoxy.files("type/container/proxies/hub/refs/library/app/tags");
    let folded: HashSet<_> = files.iter().map(|file| file.to_string_lossy().to_lowercase()).collect();
    assert_eq!((files.len(), folded.len()), (3, 3), "{files:?}");
}

/// Replaces a directory by a symlink to an empty directory elsewhere, and returns that one.
fn replaced(repoxy: &Repoxy, below: &str) -> PathBuf {
    let (own, elsewhere) = (repoxy.root().join(below), repoxy.dir().join(below.replace('/', "-")));
    std::fs::rename(&own, &elsewhere).expect("movable");
    std::os::unix::fs::symlink(&elsewhere, &own).expect("a symlink");
    elsewhere
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_symlinks_below_the_root_are_not_followed() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100_000);
    let mut repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    repoxy.get(&image.path).await;
    repoxy.get(&image.blobs[1].path).await;
    repoxy.stored(2).await;
    repoxy.kill();
    // What is behind the links is just what was there: to be followed would be to be served from it.
    let hex = image.digest.hex();
    let elsewhere = [
        replaced(&repoxy, "type/container/proxies/hub/refs/library"),
        replaced(&repoxy, &format!("type/container/blobs/sha256/{}", &hex[..2])),
    ];
    std::fs::remove_dir_all(repoxy.root().join("index")).expect("removable");
    let before: Vec<_> = elsewhere.iter().map(|dir| listed(dir)).collect();
    repoxy.start();
    let requests = origin.total();
    let got = repoxy.get(&image.path).await;
    assert!(got.status.is_server_error() || got.bytes() == &image.bytes, "{got:?}");
    assert!(origin.total() > requests, "it was not taken from behind the link");
    assert_eq!(
        elsewhere.iter().map(|dir| listed(dir)).collect::<Vec<_>>(),
        before,
        "nothing was written there"
    );
    eventually("the refusal is logged", || {
        repoxy.log().contains("\"level\":\"ERROR\"") || repoxy.log().contains("\"level\":\"WARN\"")
    })
    .await;
}

fn listed(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files.append(&mut listed(&path));
        } else {
            let size = path.metadata().expect("readable").len();
            files.push((path, size));
        }
    }
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_a_directory_that_is_swapped_for_a_symlink_during_requests_leads_nowhere() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 0, 0);
    let repoxy = Repoxy::with(&format!("hot_bytes = \"0B\"\n{}", proxy(&origin, "ttl = \"0s\"")));
    repoxy.get(&image.path).await;
    let own = repoxy.root().join("type/container/proxies/hub/refs/library/app");
    let (aside, evil) = (repoxy.dir().join("aside"), repoxy.dir().join("evil"));
    std::fs::create_dir_all(evil.join("tags")).expect("writable");
    let over = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (own, over, evil) = (own.clone(), Arc::clone(&over), evil.clone());
        std::thread::spawn(move || {
            let mut swaps = 0;
            while !over.load(Ordering::SeqCst) {
                // The server may have made the directory anew in between: then this round is over.
                if std::fs::rename(&own, &aside).is_ok() {
                    let linked = std::os::unix::fs::symlink(&evil, &own).is_ok();
                    std::thread::yield_now();
                    if linked {
                        let _ = std::fs::remove_file(&own);
                    }
                    let _ = std::fs::rename(&aside, &own);
                    let _ = std::fs::remove_dir_all(&aside);
                    swaps += 1;
                }
            }
            swaps
        })
    };
    for _ in 0..150 {
        let got = repoxy.get(&image.path).await;
        assert!(got.status.is_server_error() || got.bytes() == &image.bytes, "{got:?}");
    }
    over.store(true, Ordering::SeqCst);
    assert!(swapper.join().expect("no panic") > 0, "it was swapped");
    assert_eq!(listed(&evil), [], "no ref was written behind the link");
}

#[tokio::test(flavor = "multi_thread")]
async fn s17_paging_parameters_are_bounded_and_links_lead_nowhere_else() {
    let (origin, evil) = (Origin::start().await, Origin::start().await);
    origin.image("library/app", "1.0", 0, 0);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"0s\""));
    let list = "/v2/hub/library/app/tags/list";
    for (query, good) in [
        ("n=2147483647", true),
        ("n=99999999999999999999", true),
        ("n=-1", false),
        ("n=x", false),
        ("last=../", false),
        ("last=%00", false),
    ] {
        for path in [list, "/v2/_catalog"] {
            if path != list && query.starts_with("last") {
                continue;
            }
            let got = repoxy.get(&format!("{path}?{query}")).await;
            let fine = if good {
                matches!(got.status.as_u16(), 200 | 400)
            } else {
                got.status == StatusCode::BAD_REQUEST
            };
            assert!(fine, "{path}?{query}: {got:?}");
        }
    }
    for seen in origin.seen("GET", "/v2/library/app/tags/list") {
        let asked = seen.query.as_deref().unwrap_or("");
        let n = asked.split('&').find_map(|pair| pair.strip_prefix("n=")).map(str::parse::<u32>);
        assert!(n.is_none_or(|n| n.is_ok_and(|n| n <= 1000)), "{asked}");
    }
    let link = format!("<{}/v2/library/app/tags/list?last=1.0>; rel=\"next\"", evil.url());
    origin.on("/v2/library/app/tags/list").header("link", &link).always();
    let got = repoxy.get(&format!("{list}?n=1&last=0")).await;
    assert!(!got.header("link").contains(&evil.url()), "{}", got.header("link"));
    assert_eq!(evil.total(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn s18_requests_that_two_parsers_might_read_in_two_ways_are_refused() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::with(&proxy(&origin, ""));
    let next = "GET /-/health HTTP/1.1\r\nhost: cache\r\n\r\n";
    for (what, head) in [
        ("both lengths", "host: cache\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("two lengths", "host: cache\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcd"),
        ("a length that is none", "host: cache\r\ncontent-length: +4\r\n\r\nabcd"),
        ("a coding that is none", "host: cache\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("a folded line", "host: cache\r\nx-a: b\r\n c\r\n\r\n"),
        ("a bare CR", "host: cache\r\nx-a: b\rc\r\n\r\n"),
        ("a space before the colon", "host: cache\r\nx-a : b\r\n\r\n"),
        ("no Host", "x-a: b\r\n\r\n"),
        ("two Hosts", "host: cache\r\nhost: other\r\n\r\n"),
        ("a Host that is none", "host: a/b\r\n\r\n"),
    ] {
        let answer = repoxy.raw(format!("GET /-/health HTTP/1.1\r\n{head}{next}").as_bytes()).await;
        assert_eq!(status(&answer), 400, "{what}: {}", String::from_utf8_lossy(&answer));
        let answers = String::from_utf8_lossy(&answer).matches("HTTP/1.1 ").count();
        assert_eq!(answers, 1, "{what}: the connection ends with the refusal");
    }
    assert_eq!(repoxy.get("/-/health").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn s19_it_is_no_open_proxy() {
    let (origin, evil) = (Origin::start().await, Origin::start().await);
    let repoxy = Repoxy::with(&proxy(&origin, ""));
    let own = repoxy.url().strip_prefix("http://").expect("a URL").to_owned();
    let evil_host = evil.url().replace("http://", "");
    for (line, expected) in [
        (format!("GET {}/x", evil.url()), 421),
        (format!("GET http://{own}@{evil_host}/x"), 421),
        (format!("CONNECT {evil_host}"), 405),
        ("OPTIONS *".to_owned(), 405),
        (format!("GET http://{own}/-/health"), 200),
    ] {
        let got = status_of(&repoxy, line.as_bytes()).await;
        assert!(got == expected || (expected == 421 && got == 400), "{line}: {got}");
    }
    assert_eq!((origin.total(), evil.total()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn s20_no_header_of_upstreams_making_reaches_a_client() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 0, 0);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"0s\""));
    let allowed = [
        "accept-ranges",
        "age",
        "cache-control",
        "cache-status",
        "content-length",
        "content-type",
        "date",
        "docker-content-digest",
        "docker-distribution-api-version",
        "etag",
        "last-modified",
        "vary",
        "connection",
    ];
    for evil in [
        "etag: \"a\"\r\nset-cookie: evil=1\r\nlocation: http://evil/\r\nx-evil: 1\r\naccess-control-allow-origin: *",
        "etag: \"a\rset-cookie: evil=1\"",
        "etag: \"a\"\r\n set-cookie: evil=1",
        "last-modified: x\nset-cookie: evil=1",
        "content-disposition: attachment; filename=\"a\"\r\nrefresh: 0; url=http://evil/\r\nlink: <http://evil/>",
    ] {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {}\r\ncontent-length: {}\r\n{evil}\r\n\r\n",
            image.media_type,
            image.bytes.len()
        );
        origin.on(&image.path).raw([head.as_bytes(), &image.bytes].concat()).always();
        let got = repoxy.get(&image.path).await;
        for (name, value) in &got.headers {
            assert!(allowed.contains(&name.as_str()), "{name}: {value:?} after {evil:?}");
            assert!(!String::from_utf8_lossy(value.as_bytes()).contains("evil"), "{name}: {value:?}");
        }
        assert!(got.status.is_server_error() || got.bytes() == &image.bytes, "{got:?}");
        origin.forget_scripts(&image.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s21_what_clients_and_upstream_write_stays_on_its_line_of_the_log() {
    let origin = Origin::start().await;
    origin
        .on("/v2/library/app/manifests/*")
        .status(500)
        .body("\x1b[2Jowned\r\nforged line ".repeat(1000))
        .always();
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"0s\""));
    let requests: [Vec<u8>; 5] = [
        b"GET /v2/library/app/manifests/1 HTTP/1.1\r\nhost: c\r\nuser-agent: \x1b[2Jowned\r\nconnection: close\r\n\r\n".to_vec(),
        b"GET /v2/%1b%5b2J%0d%0aforged/manifests/1 HTTP/1.1\r\nhost: c\r\nconnection: close\r\n\r\n".to_vec(),
        b"GET /v2/\x1b[2J/manifests/1 HTTP/1.1\r\nhost: c\r\nconnection: close\r\n\r\n".to_vec(),
        format!("GET /v2/{}/manifests/1 HTTP/1.1\r\nhost: c\r\nconnection: close\r\n\r\n", "a".repeat(7000)).into_bytes(),
        format!("GET / HTTP/1.1\r\nhost: c\r\nuser-agent: {}\r\nconnection: close\r\n\r\n", "a".repeat(1 << 20)).into_bytes(),
    ];
    for request in &requests {
        repoxy.raw(request).await;
    }
    eventually("the requests are logged", || repoxy.log().contains("%1b%5b2J%0d%0aforged")).await;
    for line in repoxy.log().lines() {
        assert!(line.len() <= 4096, "{} bytes: {}…", line.len(), &line[..200]);
        assert!(!line.contains('\x1b'), "{line}");
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "not a line of ours: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s28_names_that_are_not_there_leave_nothing_behind() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    repoxy.get("/v2/library/app/manifests/first").await;
    let files = kept(&repoxy);
    for n in 0..500 {
        assert_eq!(
            repoxy.get(&format!("/v2/library/app{n}/manifests/missing")).await.status,
            StatusCode::NOT_FOUND
        );
    }
    assert_eq!(kept(&repoxy), files, "no file for a miss");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: more names than are remembered"]
async fn s28_memory_for_names_that_are_not_there_is_bounded() {
    let origin = Origin::start().await;
    let repoxy = Arc::new(Repoxy::with(&proxy(&origin, "ttl = \"1h\"")));
    let ask = async |from: usize| {
        let mut tasks = tokio::task::JoinSet::new();
        for lane in 0..8 {
            let repoxy = Arc::clone(&repoxy);
            tasks.spawn(async move {
                for n in 0..15_000 {
                    let path = format!("/v2/library/app/manifests/n{}", from + lane * 15_000 + n);
                    assert_eq!(repoxy.get(&path).await.status, StatusCode::NOT_FOUND);
                }
            });
        }
        tasks.join_all().await;
    };
    ask(0).await;
    let full = repoxy.own_memory();
    ask(1_000_000).await;
    let more = repoxy.own_memory();
    assert!(more < full + (64 << 20), "from {full} to {more} bytes for as many names again");
}

#[tokio::test(flavor = "multi_thread")]
async fn s31_a_manifest_of_two_kinds_or_of_another_type_is_refused_or_kept_byte_for_byte() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"0s\""));
    let text = String::from_utf8_lossy(&image.bytes).into_owned();
    let both = text.replace("\"schemaVersion\":2,", "\"schemaVersion\":2,\n  \"manifests\":[],");
    let index = "application/vnd.oci.image.index.v1+json";
    for (tag, media_type, body) in
        [("both", &*image.media_type, both.clone()), ("other", index, text), ("both-other", index, both)]
    {
        let manifest = origin.manifest("library/app", tag, media_type, body);
        for path in [&manifest.path, &manifest.by_digest, &manifest.path] {
            let got = repoxy.get(path).await;
            if got.status == StatusCode::OK {
                assert_eq!((got.bytes(), got.header("content-type")), (&manifest.bytes, media_type), "{tag}");
            } else {
                assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{tag}: {got:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s32_files_are_for_the_owner_and_a_root_that_anybody_may_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100_000);
    let secret = "credentials = { username = \"me\", password = \"secret\" }";
    let mut repoxy = Repoxy::stopped(&proxy(&origin, secret));
    let config = repoxy.dir().join("repoxy.toml");
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o644)).expect("ours");
    repoxy.run_under(&["sh", "-c", "umask 0; exec \"$@\"", "sh"]);
    repoxy.start();
    assert!(repoxy.log().contains("\"level\":\"WARN\""), "a config with a password that all may read");
    repoxy.get(&image.path).await;
    repoxy.get(&image.blobs[1].path).await;
    repoxy.stored(2).await;
    let mut dirs = vec![repoxy.root()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("readable") {
            let path = entry.expect("readable").path();
            let mode = path.symlink_metadata().expect("readable").permissions().mode() & 0o7777;
            let wanted = if path.is_dir() { 0o750 } else { 0o640 };
            assert_eq!(mode & !wanted, 0, "{mode:o} {}", path.display());
            if path.is_dir() {
                dirs.push(path);
            }
        }
    }
    repoxy.kill();
    std::fs::set_permissions(repoxy.root(), std::fs::Permissions::from_mode(0o777)).expect("ours");
    let refused = repoxy.run(&["serve"]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("error: "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s34_caches_that_ask_each_other_in_a_circle_notice() {
    // The first asks a door whose other side is known only when the second is there.
    let door = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let table = |url: &str| {
        format!("[[proxy]]\ntype = \"container\"\nname = \"hub\"\nupstream = \"{url}\"\ndefault = true\n")
    };
    let first = Repoxy::with(&table(&format!("http://{}", door.local_addr().expect("bound"))));
    let second = Repoxy::with(&table(first.url()));
    let behind = second.url().strip_prefix("http://").expect("a URL").to_owned();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = door.accept().await {
            let behind = behind.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(behind).await.expect("it listens");
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    let began = Instant::now();
    let got = first.get("/v2/library/app/manifests/1.0").await;
    assert!(matches!(got.status.as_u16(), 502 | 508), "{got:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "at once, not after a timeout: {:?}", began.elapsed());
    // The same with a circle of one.
    let own =
        first.request(http::Method::GET, "/v2/library/app/manifests/2.0", &[("via", &*via_of(&first))]).await;
    assert_eq!(own.status, StatusCode::LOOP_DETECTED);
}

/// What a server calls itself in `Via`; its request ids in the log begin with the same word.
fn via_of(repoxy: &Repoxy) -> String {
    let log = repoxy.log();
    let at = log.find("\"id\":\"repoxy-").expect("a request was logged") + 6;
    let id = &log[at..at + log[at..].find('"').expect("the end of a string")];
    format!("1.1 {}", id.rsplit_once('-').expect("a number").0)
}
