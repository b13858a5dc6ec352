//! Statuses, what is not stored, and what clients' own headers come to.

use crate::support::{Gate, Origin};
use crate::{ask, assert_came, before, get, kept, refs};

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
