//! `Cache-Status` (RFC 9211) and `Age`: what an answer says of how it came about is what happened.

use std::sync::Arc;

use http::Method;

use crate::support::{Gate, Got, Origin, Repoxy, proxy};
use crate::{change, outdate};

const TAGS: &str = "/v2/library/app/tags/list";

#[track_caller]
fn assert_says(got: &Got, status: u16, expected: &str) {
    assert_eq!((got.status.as_u16(), got.header("cache-status")), (status, expected), "{got:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_says_what_happened() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 300_000);
    let layer = &image.blobs[1];
    let config = &image.blobs[0];
    let mut repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));

    // Nothing is cached.
    assert_says(&repoxy.get(&image.path).await, 200, "repoxy; fwd=uri-miss; fwd-status=200; stored");
    assert_says(&repoxy.head(&layer.path).await, 200, "repoxy; fwd=uri-miss; fwd-status=200");
    assert_eq!(origin.count("GET", &layer.path), 0, "nothing is stored for a HEAD");
    let blob = repoxy.get(&layer.path).await;
    assert_says(&blob, 200, "repoxy; fwd=uri-miss; fwd-status=200");
    repoxy.stored(2).await;
    // It is; twice, because the second time the answer was made ready by the first.
    for path in [&image.path, &image.path, &layer.path, &layer.path] {
        assert_says(&repoxy.get(path).await, 200, "repoxy; hit");
        assert_says(&repoxy.head(path).await, 200, "repoxy; hit");
    }
    assert_says(&repoxy.get("/v2/_catalog").await, 200, "repoxy; hit; detail=\"derived\"");

    // Another repository asks for what is stored.
    let elsewhere = origin.blob_of("library/other", layer.bytes.clone());
    assert_says(&repoxy.get(&elsewhere.path).await, 200, "repoxy; fwd=uri-miss; fwd-status=200");
    assert_eq!(origin.count("GET", &elsewhere.path), 0);
    assert_says(&repoxy.get(&elsewhere.path).await, 200, "repoxy; hit");

    // Past its time: confirmed by HEAD, by a condition, moved, and gone.
    assert_says(&repoxy.get(TAGS).await, 200, "repoxy; fwd=uri-miss; fwd-status=200; stored");
    outdate(&mut repoxy, "container.tag");
    assert_says(&repoxy.get(&image.path).await, 200, "repoxy; fwd=stale; fwd-status=200");
    assert_says(&repoxy.get(&image.path).await, 200, "repoxy; hit");
    outdate(&mut repoxy, "container.tags");
    origin.on(TAGS).status(304).once();
    change(&mut repoxy, "container.tags", |fields| {
        fields.insert("etag".to_owned(), "\"1\"".into());
    });
    assert_says(&repoxy.get(TAGS).await, 200, "repoxy; fwd=stale; fwd-status=304");
    let moved = origin.image("library/app", "1.0", 0, 0);
    outdate(&mut repoxy, "container.tag");
    let got = repoxy.get(&image.path).await;
    assert_says(&got, 200, "repoxy; fwd=stale; fwd-status=200; stored");
    assert_eq!(got.bytes(), &moved.bytes);
    outdate(&mut repoxy, "container.tag");
    // A status that is not tried again, which would take its time.
    origin.on(&image.path).status(400).once();
    let stale = repoxy.get(&image.path).await;
    assert!(stale.header("cache-status").starts_with("repoxy; hit; ttl=-"), "{stale:?}");
    assert!(stale.header("cache-status").ends_with("; detail=\"upstream status\""), "{stale:?}");
    outdate(&mut repoxy, "container.tag");
    origin.on(&image.path).status(404).times(2);
    let gone = repoxy.get(&image.path).await;
    assert_says(&gone, 404, "repoxy; fwd=stale; fwd-status=404; detail=\"not-found\"");
    // Small content is stored behind its clients, as large content is: it is on its way.
    assert_says(&repoxy.get(&config.path).await, 200, "repoxy; fwd=uri-miss; fwd-status=200");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_says_what_happened() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    let path = |tag: &str| format!("/v2/library/app/manifests/{tag}");
    let missing = path("missing");
    assert_says(
        &repoxy.get(&missing).await,
        404,
        "repoxy; fwd=uri-miss; fwd-status=404; detail=\"not-found\"",
    );
    assert_says(&repoxy.get(&missing).await, 404, "repoxy; hit; detail=\"not-found\"");
    assert_eq!(origin.total(), 1);

    let html = path("html");
    origin.on(&html).body("<html>").always();
    assert_says(&repoxy.get(&html).await, 502, "repoxy; fwd=uri-miss; fwd-status=200; detail=\"malformed\"");
    let broken = path("broken");
    origin.on(&broken).status(500).always();
    assert_says(&repoxy.get(&broken).await, 502, "repoxy; fwd=uri-miss; fwd-status=500; detail=\"status\"");
    let denied = path("denied");
    origin.on(&denied).status(403).always();
    assert_says(&repoxy.get(&denied).await, 404, "repoxy; fwd=uri-miss; fwd-status=403; detail=\"denied\"");
    let limited = path("limited");
    origin.on(&limited).rate_limited("120").once();
    assert_says(
        &repoxy.get(&limited).await,
        429,
        "repoxy; fwd=uri-miss; fwd-status=429; detail=\"rate-limited\"",
    );
    let asked = origin.total();
    assert_says(&repoxy.get(&limited).await, 429, "repoxy; detail=\"rate-limited\"");
    assert_eq!(origin.total(), asked, "upstream is left alone");

    assert_says(&repoxy.get("/v2/library/app/manifests/-x").await, 404, "repoxy; detail=\"refused\"");
    let put = repoxy.request(Method::PUT, &missing, &[]).await;
    assert_says(&put, 405, "repoxy; detail=\"refused\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_another_clients_fetch_says_so() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 300_000);
    let gate = Gate::closed();
    origin.on(&blob.path).hold_after(200_000, &gate).always();
    let repoxy = Arc::new(Repoxy::before(&origin));
    let first = repoxy.open(Method::GET, &blob.path, &[]).await;
    assert_eq!(first.headers()["cache-status"], "repoxy; fwd=uri-miss; fwd-status=200");
    let second = repoxy.open(Method::GET, &blob.path, &[]).await;
    assert_eq!(second.headers()["cache-status"], "repoxy; fwd=uri-miss; fwd-status=200; collapsed");
    gate.open();
    for answer in [first, second] {
        assert_eq!(answer.bytes().await.expect("all of it"), blob.bytes);
    }
    assert_eq!(origin.count("GET", &blob.path), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_to_be_stored_where_nothing_can_be() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 300_000);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    let blobs = repoxy.root().join("type/container/blobs");
    std::fs::write(&blobs, "no directory").expect("writable");
    for path in [&image.path, &image.blobs[0].path, &image.blobs[1].path] {
        let got = repoxy.get(path).await;
        assert!(got.header("cache-status").contains("; fwd-status=200"), "{path}: {got:?}");
        assert!(!got.header("cache-status").contains("stored"), "{path}: {got:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_hit_says_how_old_it_is() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 300_000);
    let mut repoxy = Repoxy::with(&proxy(&origin, "ttl = \"100000h\""));
    repoxy.get(&image.path).await;
    repoxy.get(&image.blobs[1].path).await;
    repoxy.stored(2).await;
    outdate(&mut repoxy, "container.tag");
    let stated = |got: &Got| got.header("age").parse::<u64>().expect("a number");
    // From the store, and as a ready answer.
    for _ in 0..2 {
        let got = repoxy.get(&image.path).await;
        assert_says(&got, 200, "repoxy; hit");
        assert!(stated(&got) > 24 * 3600, "{got:?}");
    }
}
