//! Plain files through the real binary from a scripted origin: HTTP's caching rules as clients see them,
//! and what the operator may add to them.

pub mod support;

use std::path::PathBuf;

use futures_util::StreamExt as _;
use http::Method;
use support::{Gate, Got, Origin, Repoxy};

/// A server with one proxy `files` in front of `origin`, with further lines.
fn before(origin: &Origin, more: &str) -> Repoxy {
    Repoxy::with(&format!(
        "[[proxy]]\ntype = \"generic\"\nname = \"files\"\nupstream = \"{}\"\n{more}\n",
        origin.url()
    ))
}

/// A rule of that proxy.
fn rule(pattern: &str, lines: &str) -> String {
    format!("[[proxy.rules]]\nmatch = \"{pattern}\"\n{lines}\n")
}

async fn ask(repoxy: &Repoxy, path: &str, headers: &[(&str, &str)]) -> Got {
    repoxy.request(Method::GET, &format!("/generic/files{path}"), headers).await
}

async fn get(repoxy: &Repoxy, path: &str) -> Got {
    ask(repoxy, path, &[]).await
}

fn refs(repoxy: &Repoxy) -> Vec<PathBuf> {
    repoxy.files("type/generic/proxies/files/refs")
}

/// Waits until this many refs are written: a client has its bytes a little earlier.
async fn kept(repoxy: &Repoxy, count: usize) {
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while refs(repoxy).len() != count {
        assert!(std::time::Instant::now() < limit, "{count} refs, not {:?}", refs(repoxy));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// From the store, or about to get there.
#[track_caller]
fn assert_kept(got: &Got) {
    let status = got.header("cache-status");
    assert!(status.starts_with("repoxy; hit") || status.ends_with("collapsed"), "{status}");
}

/// What `Cache-Status` begins with.
#[track_caller]
fn assert_came(got: &Got, how: &str) {
    assert!(got.header("cache-status").starts_with(how), "{how}: {}", got.header("cache-status"));
}

// ---- freshness and validation

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_used_for_as_long_as_upstream_says() {
    let origin = Origin::start().await;
    origin.file("/a/x.bin", "application/x-thing; v=1", vec![7; 100_000]);
    origin
        .on("/a/*")
        .header("cache-control", "max-age=3600")
        .header("x-own", "1")
        .header("age", "30")
        .always();
    let repoxy = before(&origin, "");
    for round in 0..3 {
        let got = get(&repoxy, "/a/x.bin").await;
        assert_eq!((got.status.as_u16(), got.bytes().len()), (200, 100_000), "round {round}");
        assert_eq!(got.header("content-type"), "application/x-thing; v=1", "with its parameters");
        assert_eq!((got.header("x-own"), got.header("cache-control")), ("1", "max-age=3600"));
        assert!(got.header("age").parse::<u64>().expect("a number") >= 30);
        if round > 0 {
            assert_kept(&got);
        }
    }
    let head = repoxy.head("/generic/files/a/x.bin").await;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (200, "100000"));
    assert_eq!(origin.total(), 1);
    get(&repoxy, "/a/x.bin?v=1").await;
    get(&repoxy, "/a/x.bin?v=2").await;
    get(&repoxy, "/a/x.bin?v=1").await;
    assert_eq!(origin.total(), 3, "each query is an address of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stale_is_confirmed_by_its_validators_and_renewed_by_the_confirmation() {
    let origin = Origin::start().await;
    let file = origin.file("/x", "text/plain", "content");
    origin.on("/x").header("cache-control", "max-age=0").header("x-a", "1").header("x-b", "1").once();
    origin.on("/x").header("cache-control", "max-age=0").header("x-a", "2").once();
    origin.on("/x").header("cache-control", "max-age=3600").always();
    let repoxy = before(&origin, "");
    get(&repoxy, "/x").await;
    let confirmed = get(&repoxy, "/x").await;
    assert_came(&confirmed, "repoxy; fwd=stale; fwd-status=304");
    assert_eq!((confirmed.header("x-a"), confirmed.header("x-b")), ("2", "1"));
    assert_eq!(confirmed.bytes(), "content");
    let etag = format!("\"{}\"", file.digest);
    let seen = &origin.seen("GET", "/x")[1];
    assert_eq!(seen.header("if-none-match"), Some(&*etag));
    assert_eq!(seen.header("if-modified-since"), Some("Sun, 09 Nov 2025 12:34:56 GMT"));
    get(&repoxy, "/x").await;
    assert_kept(&get(&repoxy, "/x").await);
    assert_eq!(origin.total(), 3, "the third answer holds for an hour");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_conditions_are_answered_from_the_whole() {
    let origin = Origin::start().await;
    let file = origin.file("/x", "text/plain", "0123456789");
    origin.on("/x").header("cache-control", "max-age=3600").always();
    let repoxy = before(&origin, "");
    let etag = format!("\"{}\"", file.digest);
    for (header, value, status, body) in [
        ("range", "bytes=2-4", 206, "234"),
        ("range", "bytes=-3", 206, "789"),
        ("range", "bytes=10-", 416, ""),
        ("if-none-match", &*etag, 304, ""),
        ("if-modified-since", "Sun, 09 Nov 2025 12:34:56 GMT", 304, ""),
        ("if-match", "\"other\"", 412, ""),
    ] {
        let got = ask(&repoxy, "/x", &[(header, value)]).await;
        assert_eq!((got.status.as_u16(), &got.bytes()[..]), (status, body.as_bytes()), "{header}: {value}");
    }
    let resumed = ask(&repoxy, "/x", &[("range", "bytes=5-"), ("if-range", &etag)]).await;
    assert_eq!((resumed.status.as_u16(), &resumed.bytes()[..]), (206, &b"56789"[..]));
    assert_eq!(resumed.header("content-range"), "bytes 5-9/10");
    assert_eq!(origin.count_range("GET", "/x", None), 1, "upstream was asked for the whole, once");
    assert_eq!(origin.total(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_want_it_newer_or_not_from_upstream_at_all_are_heard() {
    let origin = Origin::start().await;
    origin.file("/x", "text/plain", "content");
    origin.on("/x").header("cache-control", "max-age=3600").always();
    let repoxy = before(&origin, "");
    let only = ask(&repoxy, "/x", &[("cache-control", "only-if-cached")]).await;
    assert_eq!((only.status.as_u16(), origin.total()), (504, 0));
    get(&repoxy, "/x").await;
    kept(&repoxy, 1).await;
    get(&repoxy, "/x").await;
    assert_eq!(origin.total(), 1);
    assert_came(&ask(&repoxy, "/x", &[("cache-control", "only-if-cached")]).await, "repoxy; hit");
    for (name, value) in
        [("cache-control", "no-cache"), ("cache-control", "max-age=0"), ("pragma", "no-cache")]
    {
        let asked = origin.total();
        assert_came(&ask(&repoxy, "/x", &[(name, value)]).await, "repoxy; fwd=stale; fwd-status=304");
        assert_eq!(origin.total(), asked + 1, "{name}: {value}");
    }
    let deaf = before(&origin, "honour_client_directives = false");
    get(&deaf, "/x").await;
    let asked = origin.total();
    assert_kept(&ask(&deaf, "/x", &[("cache-control", "no-cache")]).await);
    assert_eq!(origin.total(), asked);
}

/// An origin of 64 files, `/x/0` and so on, so many that some wait before they are written.
async fn many_files() -> Origin {
    let origin = Origin::start().await;
    for n in 0..64 {
        origin.file(&format!("/x/{n}"), "text/plain", vec![n; 100_000]);
    }
    origin.on("/x/*").header("cache-control", "max-age=3600").always();
    origin
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_got_is_stored_for_its_next_request_whatever_that_demands() {
    let origin = many_files().await;
    let repoxy = before(&origin, "");
    futures_util::future::join_all((0..64).map(|n| {
        let (repoxy, path) = (&repoxy, format!("/x/{n}"));
        async move {
            get(repoxy, &path).await;
            let demand = if n % 2 == 0 { "only-if-cached" } else { "no-store" };
            let got = ask(repoxy, &path, &[("cache-control", demand)]).await;
            assert_eq!((got.status.as_u16(), got.bytes().len()), (200, 100_000), "{demand}");
        }
    }))
    .await;
    assert_eq!(origin.total(), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_have_got_is_stored_before_a_server_stops() {
    let origin = many_files().await;
    let mut repoxy = before(&origin, "");
    let paths: Vec<_> = (0..64).map(|n| format!("/x/{n}")).collect();
    futures_util::future::join_all(paths.iter().map(|path| get(&repoxy, path))).await;
    assert!(repoxy.terminate().success());
    assert_eq!(refs(&repoxy).len(), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_share_one_fetch() {
    let origin = Origin::start().await;
    origin.file("/x", "text/plain", vec![1; 300_000]);
    let gate = Gate::closed();
    origin.on("/x").hold(&gate).always();
    let repoxy = before(&origin, "");
    let all = futures_util::future::join_all((0..20).map(|_| get(&repoxy, "/x")));
    let opened = async {
        origin.seen_at_least("GET", "/x", 1).await;
        gate.open();
    };
    let (all, ()) = tokio::join!(all, opened);
    assert!(all.iter().all(|got| got.bytes().len() == 300_000));
    assert_eq!(origin.total(), 1);
}

// ---- statuses and what is not stored

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_says_so_is_kept_whatever_its_status() {
    let origin = Origin::start().await;
    origin.on("/gone").status(410).header("cache-control", "max-age=3600").body("it was here").always();
    origin.on("/none").status(204).header("cache-control", "max-age=3600").always();
    let repoxy = before(&origin, "");
    for _ in 0..2 {
        let gone = get(&repoxy, "/gone").await;
        assert_eq!((gone.status.as_u16(), &gone.bytes()[..]), (410, &b"it was here"[..]));
        let none = get(&repoxy, "/none").await;
        assert_eq!((none.status.as_u16(), none.bytes().len()), (204, 0));
        assert!(!none.headers.contains_key("content-length"));
    }
    assert_eq!(origin.total(), 2);
    assert_eq!(repoxy.head("/generic/files/gone").await.status.as_u16(), 410);
    assert_eq!(origin.total(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_that_says_nothing_is_passed_on_each_time() {
    let origin = Origin::start().await;
    origin.on("/x").status(404).body("not here yet").times(2);
    origin.file("/x", "text/plain", "here");
    let repoxy = before(&origin, "");
    for _ in 0..2 {
        let got = get(&repoxy, "/x").await;
        assert_eq!((got.status.as_u16(), &got.bytes()[..]), (404, &b"not here yet"[..]));
        assert_came(&got, "repoxy; fwd=miss; fwd-status=404");
    }
    assert_eq!(get(&repoxy, "/x").await.bytes(), "here");
    kept(&repoxy, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_one_client_is_neither_stored_nor_given_to_another() {
    let origin = Origin::start().await;
    let gate = Gate::closed();
    for n in 0..3 {
        let script = origin.on("/x").header("cache-control", "private, max-age=60").body(format!("for {n}"));
        if n == 0 { script.hold(&gate).once() } else { script.once() }
    }
    let repoxy = before(&origin, "");
    let opened = async {
        origin.seen_at_least("GET", "/x", 1).await;
        gate.open();
    };
    let (one, other, ()) = tokio::join!(get(&repoxy, "/x"), get(&repoxy, "/x"), opened);
    assert_ne!(one.bytes(), other.bytes());
    assert_eq!(get(&repoxy, "/x").await.bytes(), "for 2");
    assert_eq!(origin.total(), 3);
    assert_eq!(refs(&repoxy).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_may_not_be_stored_takes_the_place_of_one_that_was() {
    let origin = Origin::start().await;
    origin.file("/x", "text/plain", "old");
    origin.on("/x").header("cache-control", "max-age=0").once();
    origin.on("/x").header("cache-control", "no-store").body("new").once();
    let repoxy = before(&origin, "");
    get(&repoxy, "/x").await;
    assert_eq!(get(&repoxy, "/x").await.bytes(), "new");
    kept(&repoxy, 0).await;
    origin.stop().await;
    assert_eq!(get(&repoxy, "/x").await.status.as_u16(), 502, "the old one does not come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_client_itself_goes_along() {
    let origin = Origin::start().await;
    origin.file("/x", "text/plain", "content");
    let repoxy = before(&origin, "");
    let headers = [
        ("accept-language", "de"),
        ("x-custom", "1"),
        ("cookie", "a=b"),
        ("authorization", "Basic eA=="),
        ("user-agent", "somebody/1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("accept-encoding", "br"),
        ("te", "trailers"),
        ("if-none-match", "\"x\""),
        ("range", "bytes=0-1"),
    ];
    ask(&repoxy, "/x", &headers).await;
    let seen = &origin.seen("GET", "/x")[0];
    for (name, value) in [
        ("accept-language", Some("de")),
        ("x-custom", Some("1")),
        ("cookie", None),
        ("authorization", None),
        ("user-agent", Some(concat!("repoxy/", env!("CARGO_PKG_VERSION")))),
        ("x-forwarded-for", None),
        ("accept-encoding", Some("identity")),
        ("te", None),
        ("if-none-match", None),
        ("range", None),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    assert!(seen.header("via").is_some_and(|via| via.starts_with("1.1 repoxy-")));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_go_along_if_the_operator_says_so_and_what_they_open_is_not_shared() {
    let origin = Origin::start().await;
    origin.on("/x").status(401).header("www-authenticate", "Basic realm=\"x\"").times(2);
    origin.on("/x").header("cache-control", "max-age=60").body("secret").always();
    let closed = before(&origin, "");
    let refused = ask(&closed, "/x", &[]).await;
    assert_eq!((refused.status.as_u16(), refused.header("www-authenticate")), (401, ""));
    let open = before(&origin, "forward_authorization = true");
    assert_eq!(get(&open, "/x").await.header("www-authenticate"), "Basic realm=\"x\"");
    let answered = ask(&open, "/x", &[("authorization", "Basic eA==")]).await;
    assert_eq!(answered.bytes(), "secret");
    assert_eq!(origin.seen("GET", "/x")[2].header("authorization"), Some("Basic eA=="));
    assert_eq!(refs(&open).len(), 0);
}

// ---- variants

#[tokio::test(flavor = "multi_thread")]
async fn variants_are_kept_side_by_side() {
    let origin = Origin::start().await;
    for body in ["one", "two"] {
        origin.on("/x").header("cache-control", "max-age=3600").header("vary", "X-Kind").body(body).once();
    }
    let repoxy = before(&origin, "");
    for round in 0..2 {
        for (kind, body) in [("1", "one"), ("2", "two")] {
            let got = ask(&repoxy, "/x", &[("x-kind", kind), ("x-other", &round.to_string())]).await;
            assert_eq!(got.bytes(), body, "round {round}");
        }
    }
    assert_eq!(origin.total(), 2);
    let mut repoxy = repoxy;
    kept(&repoxy, 3).await;
    repoxy.kill();
    repoxy.start();
    origin.stop().await;
    assert_eq!(ask(&repoxy, "/x", &[("x-kind", "1")]).await.bytes(), "one", "after a restart, too");
    assert_eq!(ask(&repoxy, "/x", &[("x-kind", "3")]).await.status.as_u16(), 502);
    assert_eq!(refs(&repoxy).len(), 3, "the address and two variants");
    assert!(repoxy.run(&["fsck", "--read-data"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waited_for_another_variant_gets_its_own() {
    let origin = Origin::start().await;
    let gate = Gate::closed();
    let vary = |body: &'static str| {
        origin.on("/x").header("cache-control", "max-age=3600").header("vary", "X-Kind").body(body)
    };
    vary("first").hold(&gate).once();
    vary("second").once();
    let repoxy = before(&origin, "");
    let opened = async {
        origin.seen_at_least("GET", "/x", 1).await;
        gate.open();
    };
    let (one, other) = ([("x-kind", "1")], [("x-kind", "2")]);
    let (one, other, ()) = tokio::join!(ask(&repoxy, "/x", &one), ask(&repoxy, "/x", &other), opened);
    assert_ne!(one.bytes(), other.bytes());
    assert_eq!(origin.total(), 2);
}

// ---- when upstream fails

#[tokio::test(flavor = "multi_thread")]
async fn stale_content_stands_in_for_an_upstream_that_is_away() {
    let origin = Origin::start().await;
    origin.file("/x", "text/plain", "content");
    origin.file("/strict", "text/plain", "content");
    origin.on("/x").header("cache-control", "max-age=0").always();
    origin.on("/strict").header("cache-control", "max-age=0, must-revalidate").always();
    let repoxy = before(&origin, "retries = 0");
    get(&repoxy, "/x").await;
    get(&repoxy, "/strict").await;
    origin.stop().await;
    let stale = get(&repoxy, "/x").await;
    assert_eq!((stale.status.as_u16(), &stale.bytes()[..]), (200, &b"content"[..]));
    assert!(stale.header("cache-status").contains("detail=\"upstream unreachable\""));
    assert_eq!(get(&repoxy, "/strict").await.status.as_u16(), 502, "upstream forbids it");
    assert_eq!(
        ask(&repoxy, "/x", &[("cache-control", "no-cache")]).await.status.as_u16(),
        502,
        "so does a client"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_upstream_is_passed_on_unless_somebody_allows_stale_content() {
    let origin = Origin::start().await;
    for (path, control) in [("/x", "max-age=0"), ("/allowed", "max-age=0, stale-if-error=3600")] {
        origin.file(path, "text/plain", "content");
        origin.on(path).header("cache-control", control).times(2);
        origin.on(path).status(503).body("out of order").always();
    }
    let strict = before(&origin, "retries = 0");
    let lenient = before(&origin, "retries = 0\nstale_if_error = \"30d\"");
    for repoxy in [&strict, &lenient] {
        get(repoxy, "/x").await;
        get(repoxy, "/allowed").await;
    }
    let error = get(&strict, "/x").await;
    assert_eq!((error.status.as_u16(), &error.bytes()[..]), (503, &b"out of order"[..]));
    assert_eq!(get(&strict, "/allowed").await.bytes(), "content");
    assert_eq!(get(&lenient, "/x").await.bytes(), "content");
    origin.forget_scripts("/x");
    assert_eq!(get(&strict, "/x").await.bytes(), "content", "an error takes nothing away");
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_is_asked_behind_the_clients_back_where_it_allows_that() {
    let origin = Origin::start().await;
    origin.file("/x", "text/plain", "old");
    let gate = Gate::closed();
    let control = "max-age=0, stale-while-revalidate=3600";
    origin.on("/x").header("cache-control", control).once();
    origin.on("/x").header("cache-control", "max-age=3600").body("new").hold(&gate).always();
    let repoxy = before(&origin, "");
    get(&repoxy, "/x").await;
    for _ in 0..3 {
        let stale = get(&repoxy, "/x").await;
        assert_eq!(stale.bytes(), "old", "nobody waits");
        assert!(stale.header("cache-status").contains("asked meanwhile"));
    }
    origin.seen_at_least("GET", "/x", 2).await;
    gate.open();
    while get(&repoxy, "/x").await.bytes() != "new" {
        tokio::task::yield_now().await;
    }
    assert_eq!(origin.total(), 2, "once for all");
}

// ---- bodies

#[tokio::test(flavor = "multi_thread")]
async fn the_first_bytes_arrive_while_the_rest_is_on_its_way() {
    let origin = Origin::start().await;
    let content: Vec<u8> = (0..8 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
    origin.file("/big", "application/octet-stream", content.clone());
    let gate = Gate::closed();
    origin.on("/big").chunked().hold_after(100_000, &gate).once();
    let repoxy = before(&origin, "");
    let mut body = repoxy.open(Method::GET, "/generic/files/big", &[]).await.bytes_stream();
    let first = body.next().await.expect("it has begun").expect("good");
    assert!(content.starts_with(&first), "before upstream has sent the rest");
    gate.open();
    let mut got = first.to_vec();
    while let Some(bytes) = body.next().await {
        got.extend(bytes.expect("good"));
    }
    assert!(got == content);
    origin.stop().await;
    assert!(get(&repoxy, "/big").await.bytes() == &content, "and it is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_cut_is_not_stored() {
    let origin = Origin::start().await;
    origin.file("/open-ended", "text/plain", vec![1; 10_000]);
    origin.file("/cut", "text/plain", vec![1; 10_000]);
    origin.on("/open-ended").header("cache-control", "max-age=60").close_delimited().cut_after(5_000).once();
    origin.on("/cut").header("cache-control", "max-age=60").without("etag").chunked().cut_after(5_000).once();
    let repoxy = before(&origin, "");
    assert_eq!(get(&repoxy, "/open-ended").await.bytes().len(), 5_000, "nobody can tell");
    let cut = repoxy.client().get(format!("{}/generic/files/cut", repoxy.url())).send().await;
    let whole = async { cut?.error_for_status()?.bytes().await };
    assert!(whole.await.is_err(), "the client sees that it was cut");
    assert_eq!(refs(&repoxy).len(), 0);
    for path in ["/open-ended", "/cut"] {
        assert_eq!(get(&repoxy, path).await.bytes().len(), 10_000, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn codings_are_kept_as_upstream_chose_them() {
    let origin = Origin::start().await;
    origin.file("/x.gz", "application/gzip", "not really");
    origin.on("/x.gz").header("content-encoding", "gzip").header("cache-control", "max-age=60").always();
    let repoxy = before(&origin, &rule("*.gz", "immutable = true"));
    for path in ["/x.gz", "/x.gz?plain"] {
        for _ in 0..2 {
            let got = get(&repoxy, path).await;
            assert_eq!((got.header("content-encoding"), &got.bytes()[..]), ("gzip", &b"not really"[..]));
        }
    }
    assert_eq!(origin.total(), 2);
}

// ---- what the operator adds

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_wins_over_what_upstream_and_clients_say() {
    let origin = Origin::start().await;
    for path in ["/a.tgz", "/list", "/never"] {
        origin.file(path, "text/plain", path.to_owned());
        origin.on(path).header("cache-control", "no-store, private").always();
    }
    origin.on("/never").header("cache-control", "max-age=3600").always();
    let rules =
        [rule("*.tgz", "immutable = true"), rule("/list", "ttl = \"1h\""), rule("never*", "store = false")];
    let repoxy = before(&origin, &rules.concat());
    for _ in 0..3 {
        for path in ["/a.tgz", "/list", "/never"] {
            let got = ask(&repoxy, path, &[("cache-control", "no-cache")]).await;
            assert_eq!((got.status.as_u16(), &got.bytes()[..]), (200, path.as_bytes()));
        }
    }
    assert_eq!((origin.count("GET", "/a.tgz"), origin.count("GET", "/list")), (1, 1));
    assert_eq!(origin.count("GET", "/never"), 3);
    kept(&repoxy, 2).await;
    assert_eq!(get(&repoxy, "/missing.tgz").await.status.as_u16(), 404);
    assert_eq!(refs(&repoxy).len(), 2, "only content is kept for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_compared_with_the_checksum_beside_it() {
    let origin = Origin::start().await;
    let good = origin.file("/good.zip", "application/zip", vec![1; 200_000]);
    origin.file("/good.zip.sha256", "text/plain", format!("{}  good.zip\n", good.digest.hex()));
    origin.file("/bad.zip", "application/zip", vec![2; 200_000]);
    origin.file("/bad.zip.sha256", "text/plain", format!("{}  bad.zip\n", "0".repeat(64)));
    origin.file("/alone.zip", "application/zip", vec![3; 200_000]);
    let repoxy = before(&origin, &rule("*.zip", "immutable = true\nsidecar = \".sha256\""));
    for _ in 0..2 {
        assert_eq!(get(&repoxy, "/good.zip").await.bytes(), &good.bytes);
        assert!(get(&repoxy, "/bad.zip").await.body.is_err(), "it never ends well");
        assert_eq!(get(&repoxy, "/alone.zip").await.bytes().len(), 200_000);
    }
    assert_eq!((origin.count("GET", "/good.zip"), origin.count("GET", "/good.zip.sha256")), (1, 1));
    let kept: Vec<_> = refs(&repoxy).into_iter().filter(|path| path.ends_with("bad.zip.json")).collect();
    assert_eq!(kept, Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_followed_unless_clients_are_to_see_them() {
    let origin = Origin::start().await;
    origin.file("/there", "text/plain", "content");
    origin
        .on("/here")
        .redirect(&format!("{}/there", origin.url()))
        .header("cache-control", "max-age=60")
        .always();
    let follows = before(&origin, "");
    assert_eq!(get(&follows, "/here").await.bytes(), "content");
    let shows = before(&origin, "follow_redirects = false");
    for _ in 0..2 {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
        let url = format!("{}/generic/files/here", shows.url());
        let shown = client.build().expect("a client").get(url).send().await.expect("an answer");
        assert_eq!(shown.status().as_u16(), 302);
        assert_eq!(shown.headers()["location"], "there", "it leads back here");
    }
    assert_eq!(get(&shows, "/here").await.bytes(), "content");
    assert_eq!(origin.count("GET", "/here"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_change_something_is_refused_unless_the_operator_says_so() {
    let origin = Origin::start().await;
    for path in ["/x", "/y"] {
        origin.file(path, "text/plain", "content");
        origin.on(path).method("GET").header("cache-control", "max-age=3600").always();
    }
    let closed = before(&origin, "");
    let refused = closed.request(Method::POST, "/generic/files/x", &[]).await;
    assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, "GET, HEAD"));
    assert_eq!(origin.total(), 0);

    let open = before(&origin, "forward_unsafe = true");
    let post = async |status: u16| {
        origin.on("/x").method("POST").status(status).header("location", "/y").body("done").once();
        let request = open.client().post(format!("{}/generic/files/x", open.url())).body("change it");
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status);
        assert_eq!(answer.text().await.expect("a body"), "done");
    };
    get(&open, "/x").await;
    get(&open, "/y").await;
    post(500).await;
    assert_kept(&get(&open, "/x").await);
    post(201).await;
    assert_came(&get(&open, "/x").await, "repoxy; fwd=uri-miss");
    assert_came(&get(&open, "/y").await, "repoxy; fwd=uri-miss");
    let posts = origin.seen("POST", "/x");
    assert_eq!((posts.len(), &posts[1].body[..]), (2, &b"change it"[..]));
    let large = open.client().post(format!("{}/generic/files/x", open.url())).body(vec![0; 5 << 20]);
    assert!(
        large.send().await.is_ok_and(|answer| answer.status().as_u16() == 400)
            || origin.count("POST", "/x") == 2
    );
}

// ---- files and index

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_an_answer_survives_restart_and_the_loss_of_the_index() {
    let origin = Origin::start().await;
    let file = origin.file("/dir/x", "text/plain; charset=latin1", "content");
    origin.on("/dir/x").header("cache-control", "max-age=0").header("x-own", "1").always();
    origin.on("/gone").status(404).header("cache-control", "max-age=3600").body("no").always();
    let mut repoxy = before(&origin, "");
    get(&repoxy, "/dir/x").await;
    get(&repoxy, "/gone").await;
    kept(&repoxy, 2).await;
    let asked = origin.total();
    for loses_index in [false, true] {
        repoxy.kill();
        if loses_index {
            std::fs::remove_dir_all(repoxy.root().join("index")).expect("it is there");
        }
        repoxy.start();
        let got = get(&repoxy, "/dir/x").await;
        assert_came(&got, "repoxy; fwd=stale; fwd-status=304");
        assert_eq!((got.header("content-type"), got.header("x-own")), ("text/plain; charset=latin1", "1"));
        assert_eq!(get(&repoxy, "/gone").await.status.as_u16(), 404);
    }
    assert_eq!(origin.total(), asked + 2, "validators and statuses were kept");
    let etag = format!("\"{}\"", file.digest);
    assert_eq!(origin.seen("GET", "/dir/x")[2].header("if-none-match"), Some(&*etag));

    let show = repoxy.run(&["show", "generic/files/dir/x", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&show.stdout).expect("JSON");
    assert_eq!(shown["ref"], "generic/files/refs/dir/x");
    assert_eq!(shown["kind"], "generic.file");
    let list = repoxy.run(&["ls", "refs", "--json"]);
    assert!(String::from_utf8_lossy(&list.stdout).contains("dir/x"), "{list:?}");
    for command in [&["fsck", "--read-data"][..], &["reindex"], &["gc"]] {
        let done = repoxy.run(command);
        assert!(done.status.success(), "{command:?}: {done:?}");
    }
    assert_eq!(get(&repoxy, "/dir/x").await.bytes(), "content", "it is not taken away");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_differ_are_different_files_and_strange_ones_are_served() {
    let origin = Origin::start().await;
    let paths = ["/", "/dir/", "/dir", "/a//b", "/100%25", "/x?y=/z", "/x?y", "/sp%20ace", "/A", "/a"];
    for path in paths {
        let (bare, _) = path.split_once('?').unwrap_or((path, ""));
        origin.on(bare).header("cache-control", "max-age=3600").body(format!("{path} of upstream")).once();
        assert_eq!(origin.total(), 0);
    }
    let repoxy = before(&origin, "");
    for round in 0..2 {
        for path in paths {
            let got = get(&repoxy, path).await;
            assert_eq!(got.bytes(), &format!("{path} of upstream"), "round {round}");
        }
    }
    assert_eq!(origin.total(), paths.len());
    assert!(repoxy.run(&["fsck", "--read-data"]).status.success());
    for bad in ["/generic/none/x", "/generic/files"] {
        assert_eq!(repoxy.get(bad).await.status.as_u16(), 404, "{bad}");
    }
    assert_eq!(origin.total(), paths.len());
}
