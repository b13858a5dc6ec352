//! What the operator adds: rules, checksums, redirects and requests that change something.

use std::path::PathBuf;

use http::Method;

use crate::support::Origin;
use crate::{ask, assert_came, assert_kept, before, get, kept, refs, rule};

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
        // Cut, or refused if the verdict is there before the first byte has gone out.
        let bad = get(&repoxy, "/bad.zip").await;
        assert!(!bad.status.is_success() || bad.body.is_err(), "it never ends well: {}", bad.status);
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
