//! Documents that say what there is: the tags of a repository, what refers to a manifest, and which
//! repositories are cached.

use http::StatusCode;

use crate::support::{Origin, Repoxy, proxy};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const REFERRERS: &[u8] = include_bytes!("../../fixtures/oci/referrers.json");

/// Where upstream lists what refers to a manifest.
fn referrers(of: &crate::support::Manifest) -> String {
    of.by_digest.replace("/manifests/", "/referrers/")
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_listed_in_pages_whatever_upstream_makes_of_them() {
    let origin = Origin::start().await;
    for tag in ["b", "a", "d", "c"] {
        origin.image("library/app", tag, 1, 10);
    }
    let repoxy = Repoxy::before(&origin);
    let page = repoxy.get("/v2/hub/library/app/tags/list?n=2&last=a").await;
    assert_eq!(page.status, StatusCode::OK);
    let body: serde_json::Value = serde_json::from_slice(page.bytes()).expect("JSON");
    assert_eq!(body["tags"], serde_json::json!(["b", "c"]));
    assert_eq!(page.header("link"), "</v2/hub/library/app/tags/list?last=c&n=2>; rel=\"next\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_lists_what_is_cached() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::before(&origin);
    for name in ["b/x", "a/x"] {
        repoxy.get(&origin.image(name, "1", 1, 10).path).await;
    }
    let body: serde_json::Value =
        serde_json::from_slice(repoxy.get("/v2/_catalog").await.bytes()).expect("JSON");
    assert_eq!(body["repositories"], serde_json::json!(["a/x", "b/x"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_is_read_from_the_files_while_there_is_no_index() {
    let origin = Origin::start().await;
    let mut repoxy = Repoxy::stopped(&proxy(&origin, "ttl = \"1h\""));
    repoxy.set_env("REPOXY_INDEX", "/dev/null/index");
    repoxy.start();
    for name in ["c", "a/x", "b/tags"] {
        repoxy.get(&origin.image(name, "1", 1, 10).path).await;
    }
    for (query, expected, link) in [
        ("", &["a/x", "b/tags", "c"][..], ""),
        ("?n=2", &["a/x", "b/tags"], "</v2/_catalog?last=b%2Ftags&n=2>; rel=\"next\""),
        ("?last=b%2Ftags&n=2", &["c"], ""),
    ] {
        let got = repoxy.get(&format!("/v2/_catalog{query}")).await;
        let body: serde_json::Value = serde_json::from_slice(got.bytes()).expect("JSON");
        assert_eq!(
            (&body["repositories"], got.header("link")),
            (&serde_json::json!(expected), link),
            "{query}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_asked_for_once_a_minute_and_filtered_here_if_not_there() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 10);
    let path = referrers(&image);
    origin.file(&path, INDEX, REFERRERS);
    let mut repoxy = Repoxy::stopped(&format!("hot_bytes = \"0B\"\n{}", proxy(&origin, "ttl = \"1h\"")));
    repoxy.set_env("REPOXY_INDEX", "/dev/null/index");
    repoxy.start();
    for _ in 0..3 {
        let got = repoxy.get(&path).await;
        assert_eq!((got.bytes(), got.header("content-type")), (&REFERRERS.into(), INDEX));
        assert_eq!(origin.count("GET", &path), 1);
    }
    let query = "?artifactType=application/vnd.example.signature.v1";
    for _ in 0..3 {
        let got = repoxy.get(&format!("{path}{query}")).await;
        let body: serde_json::Value = serde_json::from_slice(got.bytes()).expect("JSON");
        assert_eq!(body["manifests"].as_array().map(Vec::len), Some(1), "{body}");
        assert_eq!(got.header("oci-filters-applied"), "artifactType");
        assert_eq!(origin.count("GET", &path), 2, "the filter is upstream's too, so that it is another list");
    }
    // A minute later. Without an index the file alone says when it was fetched.
    let list = repoxy.files("type/container/proxies/hub/cache/library/app/referrers");
    let list = list.iter().find(|file| file.ends_with("all.json")).expect("the whole list");
    let mut json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(list).expect("a ref")).expect("JSON");
    assert_eq!(json["ttlSeconds"], 60);
    json["fetchedAt"] = "2025-11-09T12:34:56Z".into();
    std::fs::write(list, json.to_string()).expect("writable");
    assert_eq!(repoxy.get(&path).await.status, StatusCode::OK);
    assert_eq!(origin.count("GET", &path), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_upstream_knows_no_referrers_its_404_is_passed_on_and_the_tag_stands_in() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 10);
    let tag = image.digest.to_string().replace(':', "-");
    let fallback = origin.manifest("library/app", &tag, INDEX, REFERRERS);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    for _ in 0..3 {
        let got = repoxy.get(&referrers(&image)).await;
        assert_eq!((got.status, got.error_code().as_str()), (StatusCode::NOT_FOUND, "NAME_UNKNOWN"));
        let got = repoxy.get(&fallback.path).await;
        assert_eq!((got.bytes(), got.header("content-type")), (&fallback.bytes, INDEX));
    }
    assert_eq!((origin.count("GET", &referrers(&image)), origin.count("GET", &fallback.path)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_upstream_is_gone_clients_are_sent_to_the_tag_that_is_cached_in_place_of_referrers() {
    let origin = Origin::start().await;
    let images = [origin.image("library/app", "1.0", 1, 10), origin.image("library/app", "2.0", 2, 10)];
    let tag = images[0].digest.to_string().replace(':', "-");
    let fallback = origin.manifest("library/app", &tag, INDEX, REFERRERS);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    assert_eq!(repoxy.get(&fallback.path).await.status, StatusCode::OK);
    repoxy.settle().await;
    origin.stop().await;
    let status = async |image| repoxy.get(&referrers(image)).await.status;
    assert_eq!(status(&images[0]).await, StatusCode::NOT_FOUND);
    let unknown = status(&images[1]).await;
    assert!(unknown.is_server_error(), "{unknown}: nobody knows of this one");
}
