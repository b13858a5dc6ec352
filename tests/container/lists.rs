//! Lists of tags and referrers.

use http::StatusCode;

use crate::outdate;
use crate::support::{Got, Origin, Repoxy};

const TAGS: &str = "/v2/library/app/tags/list";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The same list as before, though upstream has nothing of use now.
#[track_caller]
fn assert_stale(got: &Got, before: &Got) {
    assert_eq!((got.status, got.bytes()), (StatusCode::OK, before.bytes()));
    assert!(got.header("cache-status").starts_with("repoxy; hit; ttl=-"), "{}", got.header("cache-status"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_list_does_not_take_the_place_of_one() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 0, 0);
    let referrers = format!("/v2/library/app/referrers/{}", image.digest);
    let subject =
        format!(r#"{{"mediaType":"x/y","digest":"{}","size":2,"artifactType":"a/b"}}"#, image.digest);
    origin.file(&referrers, INDEX, format!(r#"{{"schemaVersion":2,"manifests":[{subject}]}}"#));
    let mut repoxy = Repoxy::before(&origin);
    let typed = format!("{referrers}?artifactType=a/b");
    for (path, kind) in
        [(TAGS, "container.tags"), (&referrers, "container.referrers"), (&typed, "container.referrers")]
    {
        let source = path.split('?').next().expect("a path");
        let good = repoxy.get(path).await;
        assert_eq!(good.status, StatusCode::OK, "{path}");
        outdate(&mut repoxy, kind);
        // A proxy that asks for a login, on the way to the registry.
        origin.on(source).header("content-type", "text/html").body("<html>sign in</html>").always();
        assert_stale(&repoxy.get(path).await, &good);
        origin.forget_scripts(source);
        origin.on(source).status(500).always();
        outdate(&mut repoxy, kind);
        assert_stale(&repoxy.get(path).await, &good);
        origin.forget_scripts(source);
        outdate(&mut repoxy, kind);
        let again = repoxy.get(path).await;
        assert_eq!((again.status, again.bytes()), (StatusCode::OK, good.bytes()), "{path}");
        assert!(again.header("cache-status").contains("fwd=stale"), "{}", again.header("cache-status"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_list_is_upstreams_fault_where_there_is_nothing_else() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::before(&origin);
    let referrers = format!("/v2/library/app/referrers/sha256:{}", "0".repeat(64));
    let typed = format!("{referrers}?artifactType=a/b");
    origin.on("/v2/*").header("content-type", INDEX).body("<html>sign in</html>").always();
    for path in [TAGS, &referrers, &typed] {
        let got = repoxy.get(path).await;
        assert_eq!((got.status, got.error_code().as_str()), (StatusCode::BAD_GATEWAY, "UNKNOWN"), "{path}");
    }
    assert_eq!(repoxy.files("type/container/blobs"), [] as [std::path::PathBuf; 0], "none of it is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_that_this_is_a_registry_and_in_whose_place_it_stands() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 0, 0);
    let referrers = format!("/v2/library/app/referrers/{}", image.digest);
    origin.file(&referrers, INDEX, r#"{"schemaVersion":2,"manifests":[]}"#);
    let repoxy = Repoxy::with(&crate::support::proxy(&origin, "ns = [\"registry.example\"]\nttl = \"1h\""));
    for (path, status) in [
        (image.path.clone(), 200),
        (image.by_digest.clone(), 200),
        (image.blobs[0].path.clone(), 200),
        (TAGS.to_owned(), 200),
        (referrers.clone(), 200),
        (format!("{referrers}?artifactType=a/b"), 200),
        ("/v2/_catalog".to_owned(), 200),
        ("/v2/library/app/manifests/none".to_owned(), 404),
        ("/v2/library/app/tags/list?n=x".to_owned(), 400),
    ] {
        for (namespace, expected) in [("", ""), ("ns=registry.example", "registry.example")] {
            let join = if path.contains('?') { "&" } else { "?" };
            let got = repoxy.get(&format!("{path}{join}{namespace}")).await;
            assert_eq!(got.status, status, "{path} {namespace}");
            assert_eq!(got.header("docker-distribution-api-version"), "registry/2.0", "{path}");
            assert_eq!(got.header("oci-namespace"), expected, "{path}");
        }
    }
    let nobody = repoxy.get(&format!("{}?ns=other.example", image.path)).await;
    assert_eq!((nobody.status.as_u16(), nobody.header("oci-namespace")), (404, ""), "nobody stands for it");
}
