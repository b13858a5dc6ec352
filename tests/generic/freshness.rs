//! Freshness and validation: how long an answer is used, and how it is confirmed.

use crate::support::{Gate, Origin};
use crate::{ask, assert_came, assert_kept, before, get, kept, refs};

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
async fn an_answer_says_its_age_once_however_often_it_is_given() {
    let origin = Origin::start().await;
    origin.file("/x", "text/plain", "content");
    origin.on("/x").header("cache-control", "max-age=3600").header("age", "30").always();
    let repoxy = before(&origin, "");
    for round in 0..5 {
        let got = get(&repoxy, "/x").await;
        assert!(got.header("age").parse::<u64>().expect("a number") >= 30, "round {round}");
        assert!(!got.header("cache-status").is_empty());
        // From then on it is found in the store, and after that in memory.
        kept(&repoxy, 1).await;
    }
    assert_eq!(origin.total(), 1);
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

/// How many files there are: so many that most wait before they are written, and so few that a disk that takes a tenth
/// of a second for each sync has them before a client's patience ends.
const FILES: u8 = 16;

/// An origin of files, `/x/0` and so on.
async fn many_files() -> Origin {
    let origin = Origin::start().await;
    for n in 0..FILES {
        origin.file(&format!("/x/{n}"), "text/plain", vec![n; 100_000]);
    }
    origin.on("/x/*").header("cache-control", "max-age=3600").always();
    origin
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_got_is_stored_for_its_next_request_whatever_that_demands() {
    let origin = many_files().await;
    let repoxy = before(&origin, "");
    futures_util::future::join_all((0..FILES).map(|n| {
        let (repoxy, path) = (&repoxy, format!("/x/{n}"));
        async move {
            get(repoxy, &path).await;
            let demand = if n % 2 == 0 { "only-if-cached" } else { "no-store" };
            let got = ask(repoxy, &path, &[("cache-control", demand)]).await;
            assert_eq!((got.status.as_u16(), got.bytes().len()), (200, 100_000), "{demand}");
        }
    }))
    .await;
    assert_eq!(origin.total(), usize::from(FILES));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_have_got_is_stored_before_a_server_stops() {
    let origin = many_files().await;
    let mut repoxy = before(&origin, "");
    let paths: Vec<_> = (0..FILES).map(|n| format!("/x/{n}")).collect();
    futures_util::future::join_all(paths.iter().map(|path| get(&repoxy, path))).await;
    assert!(repoxy.terminate().success());
    assert_eq!(refs(&repoxy).len(), usize::from(FILES));
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
