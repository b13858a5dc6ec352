//! Packages: their names, lengths and bytes, as requests and indexes have them.

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::support::{Origin, Repoxy};
use crate::{Generation, PACKAGES, archive, catalogued, raw, refs, update};

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
