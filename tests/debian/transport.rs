//! What HTTP and those on the way do to it: validators, portals, mirrors, codings and sizes.

use std::io::Read as _;

use http::{Method, StatusCode};

use crate::support::{Gate, Origin, Repoxy};
use crate::{DISTS, Generation, OURS, PACKAGES, archive, by_hash, catalogued, refs, update};

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_3_a_304_keeps_the_body_and_upstreams_last_modified_also_after_a_restart() {
    const MODIFIED: &str = "Sat, 01 Nov 2025 09:00:00 GMT";
    let origin = Origin::start().await;
    let old = Generation::new(1);
    old.publish(&origin);
    origin.on(&format!("{DISTS}/InRelease")).header("last-modified", MODIFIED).always();
    let mut repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
    let path = format!("{OURS}/InRelease");
    assert_eq!(repoxy.get(&path).await.header("last-modified"), MODIFIED);
    for round in 0..3 {
        let known = [("if-modified-since", MODIFIED), ("cache-control", "max-age=0")];
        let unchanged = repoxy.request(Method::GET, &path, &known).await;
        assert_eq!(unchanged.status, StatusCode::NOT_MODIFIED, "{round}");
        let before = [("if-modified-since", "Sat, 01 Nov 2025 08:59:59 GMT")];
        let whole = repoxy.request(Method::GET, &path, &before).await;
        assert_eq!((whole.status, whole.bytes()), (StatusCode::OK, &old.inrelease()));
        assert_eq!(whole.header("last-modified"), MODIFIED);
        if round == 1 {
            repoxy.terminate();
            repoxy.start();
        }
    }
    let asked = origin.seen("GET", &format!("{DISTS}/InRelease"));
    assert!(asked[1..].iter().all(|seen| seen.header("if-modified-since") == Some(MODIFIED)));
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_4_a_captive_portals_page_is_not_stored_and_what_is_held_goes_on() {
    let origin = Origin::start().await;
    let old = Generation::new(1);
    let page = || {
        origin
            .on(&format!("{DISTS}/*"))
            .body("<html>Please log in</html>")
            .header("content-type", "text/html")
    };
    page().always();
    let repoxy = Repoxy::with(&archive(&origin, "ttl = \"0s\""));
    for name in ["InRelease", "Release"] {
        let refused = repoxy.get(&format!("{OURS}/{name}")).await;
        assert_eq!(refused.status, StatusCode::BAD_GATEWAY);
        assert!(!refused.bytes().starts_with(b"<html>"));
    }
    assert!(repoxy.files("type/debian/proxies/d/cache").is_empty());
    origin.forget_scripts(&format!("{DISTS}/*"));
    old.publish(&origin);
    update(&repoxy, PACKAGES).await;
    page().always();
    assert_eq!(update(&repoxy, PACKAGES).await, (old.inrelease(), old.packages.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_5_a_group_of_mirrors_is_one_archive() {
    let (first, second) = (Origin::start().await, Origin::start().await);
    let old = Generation::new(1);
    old.publish(&first);
    old.publish(&second);
    let both = format!(
        "[[proxy]]\ntype = \"debian\"\nname = \"d\"\nupstream = [\"{}/a\", \"{}/a\"]\nttl = \"0s\"\n",
        first.url(),
        second.url()
    );
    let repoxy = Repoxy::with(&both);
    repoxy.get(&format!("{OURS}/InRelease")).await;
    first.stop().await;
    assert_eq!(repoxy.get(&format!("{OURS}/{PACKAGES}")).await.bytes(), &old.packages, "the second has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_7_a_redirecting_mirror_is_followed_and_its_address_is_no_key() {
    let (front, mirror) = (Origin::start().await, Origin::start().await);
    mirror.file("/elsewhere/hello.deb", "x/y", "package");
    let location = format!("{}/elsewhere/hello.deb?signature=1", mirror.url());
    front.on("/a/pool/hello.deb").redirect(&location).always();
    let repoxy =
        Repoxy::with(&archive(&front, &format!("allowed_hosts = [\"127.0.0.1:{}\"]", mirror.port())));
    for _ in 0..2 {
        assert_eq!(&repoxy.get("/debian/d/pool/hello.deb").await.bytes()[..], b"package");
    }
    assert_eq!(mirror.total(), 1);
    let files = refs(&repoxy, "refs", 1).await;
    assert!(files.len() == 1 && files[0].ends_with("refs/pool/hello.deb.json"), "{files:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_8_a_compressed_file_that_is_labelled_content_encoding_is_not_unpacked() {
    let mut gzip = Vec::new();
    flate2::read::GzEncoder::new(&b"Package: x\n"[..], flate2::Compression::fast())
        .read_to_end(&mut gzip)
        .expect("memory");
    let origin = Origin::start().await;
    let old = Generation { packages: gzip.into(), ..Generation::new(1) };
    old.publish(&origin);
    origin.on(&format!("{DISTS}/main/*")).header("content-encoding", "gzip").always();
    let repoxy = Repoxy::with(&archive(&origin, ""));
    assert_eq!(update(&repoxy, PACKAGES).await.1, old.packages);
    let asked = &origin.seen("GET", &format!("{DISTS}/{}", old.packages_path()))[0];
    assert!(matches!(asked.header("accept-encoding"), None | Some("identity")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_12_no_cache_has_upstream_asked_about_what_may_change_and_about_nothing_else() {
    let origin = Origin::start().await;
    let deb = origin.blob("x", 1000).bytes;
    let old = Generation::new(1).names("pool/h_1.deb", &deb);
    old.publish(&origin);
    origin.file("/a/pool/h_1.deb", "x/y", deb.clone());
    origin.file("/a/pool/unnamed_1.deb", "x/y", deb);
    origin.file("/a/key.asc", "text/plain", "a key");
    let repoxy = Repoxy::with(&archive(&origin, "ttl = \"1h\""));
    let targets = [
        format!("{OURS}/InRelease"),
        "/debian/d/key.asc".to_owned(),
        format!("{OURS}/{PACKAGES}"),
        format!("{OURS}/{}", by_hash(&old.packages)),
        "/debian/d/pool/h_1.deb".to_owned(),
        "/debian/d/pool/unnamed_1.deb".to_owned(),
    ];
    let all = async |headers: &'static [(&str, &str)]| {
        for target in &targets {
            assert_eq!(repoxy.request(Method::GET, target, headers).await.status, StatusCode::OK, "{target}");
        }
    };
    all(&[]).await;
    refs(&repoxy, "refs", 2).await;
    catalogued(&repoxy, 1).await;
    // Now the hot map has what it may have.
    all(&[]).await;
    let before = origin.total();
    all(&[("cache-control", "max-age=0")]).await;
    assert_eq!(origin.total(), before, "apt says this each time");
    all(&[("cache-control", "no-cache"), ("pragma", "no-cache")]).await;
    all(&[("pragma", "no-cache")]).await;
    assert_eq!(origin.total(), before + 4, "the InRelease and the key, twice");
    let asked = origin.seen("GET", &format!("{DISTS}/InRelease"));
    assert_eq!(asked.len(), 3);
    assert!(asked[1..].iter().all(|seen| seen.header("if-none-match").is_some()), "it is a question");
    // The answer counts, and if there is none, what is cached does.
    Generation { more: "Label: new\n", ..old.clone() }.publish(&origin);
    let no_cache = [("cache-control", "no-cache")];
    let new = repoxy.request(Method::GET, &targets[0], &no_cache).await;
    assert_ne!(new.bytes(), &old.inrelease());
    origin.stop().await;
    assert_eq!(repoxy.request(Method::GET, &targets[0], &no_cache).await.bytes(), new.bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_13_a_large_inrelease_is_taken_and_a_large_index_flows_before_it_is_whole() {
    let origin = Origin::start().await;
    let mut old = Generation::new(1);
    old.packages = origin.blob("x", 4 << 20).bytes;
    old.more = Box::leak(format!("Description: {}\n", "x".repeat(300_000)).into_boxed_str());
    old.publish(&origin);
    let gate = Gate::closed();
    origin.on(&format!("{DISTS}/{}", old.packages_path())).hold_after(1 << 20, &gate).once();
    let repoxy = Repoxy::with(&archive(&origin, ""));
    assert_eq!(repoxy.get(&format!("{OURS}/InRelease")).await.bytes().len(), old.inrelease().len());
    let mut response = repoxy.open(Method::GET, &format!("{OURS}/{PACKAGES}"), &[]).await;
    let first = response.chunk().await.expect("it flows").expect("some bytes");
    assert_eq!(first, old.packages[..first.len()]);
    gate.open();
    let mut body = first.to_vec();
    while let Some(bytes) = response.chunk().await.expect("it flows") {
        body.extend_from_slice(&bytes);
    }
    assert_eq!(body, old.packages);
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_14_differences_are_answered_here_with_404() {
    let origin = Origin::start().await;
    Generation::new(1).publish(&origin);
    let repoxy = Repoxy::with(&archive(&origin, ""));
    let path = format!("{OURS}/main/binary-amd64/Packages.diff/Index");
    assert_eq!(repoxy.get(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(origin.total(), 0);
}
