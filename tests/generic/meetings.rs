//! Requests for one address that meet: of several variants, of several versions, and beside what changes it.

use http::Method;

use crate::support::{Gate, Got, Origin, Repoxy, eventually};
use crate::{ask, assert_kept, before, get, kept, refs, rule};

const AN_HOUR: (&str, &str) = ("cache-control", "max-age=3600");

async fn of_kind(repoxy: &Repoxy, kind: &str) -> Got {
    ask(repoxy, "/x", &[("x-kind", kind)]).await
}

async fn put(repoxy: &Repoxy, path: &str) {
    let put = repoxy.request(Method::PUT, &format!("/generic/files{path}"), &[]).await;
    assert_eq!(put.status.as_u16(), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_that_come_at_the_same_time_are_fetched_once_each_and_all_count() {
    let origin = Origin::start().await;
    let gates = [Gate::closed(), Gate::closed()];
    for (body, gate) in ["first", "second"].into_iter().zip(&gates) {
        let script = origin.on("/x").header(AN_HOUR.0, AN_HOUR.1).header("vary", "X-Kind").body(body);
        script.hold_after(2, gate).once();
    }
    let repoxy = before(&origin, "");
    let one = repoxy.open(Method::GET, "/generic/files/x", &[("x-kind", "1")]).await;
    let other = repoxy.open(Method::GET, "/generic/files/x", &[("x-kind", "2")]).await;
    let opened = async {
        // They have joined when their first bytes are there.
        for _ in 0..3 {
            repoxy.open(Method::GET, "/generic/files/x", &[("x-kind", "2")]).await;
        }
        gates.iter().rev().for_each(Gate::open);
    };
    let (one, other, ()) = tokio::join!(one.text(), other.text(), opened);
    assert_eq!((one.expect("a body").as_str(), other.expect("a body").as_str()), ("first", "second"));
    assert_eq!(origin.total(), 2);
    kept(&repoxy, 3).await;
    for (kind, body) in [("1", "first"), ("2", "second")].repeat(2) {
        let got = of_kind(&repoxy, kind).await;
        assert_kept(&got);
        assert_eq!(got.bytes(), body);
    }
    assert_eq!(origin.total(), 2);
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_renews_the_variant_that_it_is_about() {
    let origin = Origin::start().await;
    let varies = |of: &str| {
        let script = origin.on("/x").header("cache-control", "max-age=0").header("vary", "X-Kind");
        script.header("etag", &format!("\"{of}\"")).header("x-of", of)
    };
    for of in ["1", "2"] {
        varies(of).body("the same").once();
    }
    origin.on("/x").status(304).header("cache-control", "max-age=0").always();
    let repoxy = before(&origin, "");
    for kind in ["1", "2", "1", "2", "1"] {
        let got = of_kind(&repoxy, kind).await;
        assert_eq!((got.header("x-of"), got.header("etag")), (kind, format!("\"{kind}\"").as_str()));
        repoxy.settle().await;
    }
    assert_eq!(origin.total(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_fetch_does_not_replace_what_was_fetched_after_it() {
    let origin = Origin::start().await;
    let gate = Gate::closed();
    origin.on("/x").header(AN_HOUR.0, AN_HOUR.1).body("old").hold_after(1, &gate).once();
    origin.on("/x").header(AN_HOUR.0, AN_HOUR.1).body("new").once();
    let repoxy = before(&origin, "");
    let old = repoxy.open(Method::GET, "/generic/files/x", &[]).await;
    let new = ask(&repoxy, "/x", &[("cache-control", "no-cache")]).await;
    assert_eq!(new.bytes(), "new");
    kept(&repoxy, 1).await;
    gate.open();
    assert_eq!(old.text().await.expect("a body"), "old");
    repoxy.settle().await;
    assert_eq!(get(&repoxy, "/x").await.bytes(), "new");
    assert_eq!(origin.total(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_fetch_from_before_a_change_brings_neither_counts_nor_takes_away_what_came_after() {
    let origin = Origin::start().await;
    let gate = Gate::closed();
    origin.on("/x").method("GET").header(AN_HOUR.0, AN_HOUR.1).body("old").hold_after(1, &gate).once();
    origin.on("/x").method("PUT").status(204).once();
    origin.on("/x").method("GET").header(AN_HOUR.0, AN_HOUR.1).body("new").once();
    let repoxy = before(&origin, "forward_unsafe = true");
    let old = repoxy.open(Method::GET, "/generic/files/x", &[]).await;
    put(&repoxy, "/x").await;
    assert_eq!(get(&repoxy, "/x").await.bytes(), "new");
    kept(&repoxy, 1).await;
    gate.open();
    assert_eq!(old.text().await.expect("a body"), "old");
    repoxy.settle().await;
    for _ in 0..2 {
        let got = get(&repoxy, "/x").await;
        assert_kept(&got);
        assert_eq!(got.bytes(), "new");
    }
    assert_eq!(origin.count("GET", "/x"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variant_on_its_way_from_before_a_change_is_for_nobody_after_it() {
    let origin = Origin::start().await;
    let gate = Gate::closed();
    let varies = |body: &'static str| {
        origin.on("/x").method("GET").header(AN_HOUR.0, AN_HOUR.1).header("vary", "X-Kind").body(body)
    };
    varies("1 old").once();
    varies("2 old").hold(&gate).once();
    varies("1 new").once();
    varies("2 new").once();
    origin.on("/x").method("PUT").status(204).once();
    let repoxy = before(&origin, "forward_unsafe = true");
    of_kind(&repoxy, "1").await;
    kept(&repoxy, 2).await;
    let other = async {
        origin.seen_at_least("GET", "/x", 2).await;
        put(&repoxy, "/x").await;
        assert_eq!(of_kind(&repoxy, "1").await.bytes(), "1 new");
        // The address has variants again.
        kept(&repoxy, 2).await;
        let new = of_kind(&repoxy, "2").await;
        gate.open();
        new
    };
    let (old, new) = tokio::join!(of_kind(&repoxy, "2"), other);
    assert_eq!((&old.bytes()[..], &new.bytes()[..]), (&b"2 old"[..], &b"2 new"[..]));
    repoxy.settle().await;
    assert_eq!(of_kind(&repoxy, "2").await.bytes(), "2 new");
    assert_eq!(origin.count("GET", "/x"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_upstream_has_been_given_is_no_longer_absent() {
    let origin = Origin::start().await;
    origin.on("/x").method("PUT").status(204).once();
    let repoxy = before(&origin, &format!("forward_unsafe = true\n{}", rule("/**", "ttl = \"1h\"")));
    for _ in 0..2 {
        assert_eq!(get(&repoxy, "/x").await.status.as_u16(), 404);
    }
    assert_eq!(origin.count("GET", "/x"), 1, "it is remembered");
    origin.file("/x", "text/plain", "content");
    put(&repoxy, "/x").await;
    assert_eq!(get(&repoxy, "/x").await.bytes(), "content");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_vary_at_an_address_too_long_for_variants_are_not_kept() {
    let origin = Origin::start().await;
    // The key of the address has room for no more than some characters.
    let path = format!("/{}{}", "directory/".repeat(400), "f".repeat(80));
    for body in ["one", "two"] {
        let script = origin.on(&path).header(AN_HOUR.0, AN_HOUR.1).header("vary", "X-Kind").body(body);
        script.once();
    }
    origin.on(&path).header(AN_HOUR.0, AN_HOUR.1).body("all").once();
    let repoxy = before(&origin, "");
    for (kind, body) in [("1", "one"), ("2", "two"), ("1", "all"), ("2", "all")] {
        assert_eq!(ask(&repoxy, &path, &[("x-kind", kind)]).await.bytes(), body);
        repoxy.settle().await;
    }
    eventually("only what does not vary is kept", || refs(&repoxy).len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_confirmation_says_is_not_for_all_is_asked_for_by_each() {
    let origin = Origin::start().await;
    origin.on("/x").header("cache-control", "max-age=0").header("etag", "\"a\"").body("for all").once();
    origin.on("/x").status(304).header(AN_HOUR.0, AN_HOUR.1).header("vary", "*").once();
    origin.on("/x").header(AN_HOUR.0, AN_HOUR.1).header("vary", "*").body("for one").always();
    let repoxy = before(&origin, "");
    for body in ["for all", "for all", "for one", "for one"] {
        assert_eq!(get(&repoxy, "/x").await.bytes(), body);
        repoxy.settle().await;
    }
    assert_eq!(origin.total(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_share_an_answer_does_not_renew_it_behind_others() {
    let origin = Origin::start().await;
    let control = |control: &str, body: &'static str| {
        origin.on("/x").header("cache-control", control).header("etag", "\"a\"").body(body)
    };
    control("public, max-age=0, stale-while-revalidate=3600", "for all").once();
    control("private", "for one").once();
    control("public, max-age=3600", "for all again").once();
    let repoxy = before(&origin, "forward_authorization = true");
    assert_eq!(get(&repoxy, "/x").await.bytes(), "for all");
    kept(&repoxy, 1).await;
    let alone = ask(&repoxy, "/x", &[("authorization", "Basic eA==")]).await;
    assert_eq!(alone.bytes(), "for one", "asked for, and its own");
    assert_eq!(get(&repoxy, "/x").await.bytes(), "for all", "while upstream is asked");
    origin.seen_at_least("GET", "/x", 3).await;
    repoxy.settle().await;
    assert_eq!(get(&repoxy, "/x").await.bytes(), "for all again");
}
