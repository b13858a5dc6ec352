//! When upstream fails: stale content, and who allows it.

use crate::support::{Gate, Origin};
use crate::{ask, before, get};

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
