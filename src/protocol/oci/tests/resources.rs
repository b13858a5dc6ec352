//! What a resource is to the engine: its freshness, checks, labels, scope and links.

use super::*;
use crate::model::{Area, Delivery, MediaType};

#[test]
fn each_endpoint_has_its_own_rules_of_freshness_and_checking() {
    let tag = get("/v2/alpine/manifests/3").fetch();
    assert_eq!(tag.resource.freshness, Freshness::For(Duration::from_secs(3600)), "the proxy's own");
    assert_eq!(tag.resource.digest_header, Some("docker-content-digest"));
    assert_eq!((tag.resource.expect, tag.resource.linked, tag.rewrite), (None, false, false));
    assert!(matches!(tag.resource.delivery, Delivery::Whole { limit } if limit >= 4 << 20));
    assert_eq!(tag.resource.media_type, MediaType::Upstream);
    assert_eq!(tag.resource.token_scope.as_deref(), Some("repository:library/alpine:pull"));
    let accept = tag.resource.accept.expect("given");
    for media_type in
        ["oci.image.index", "oci.image.manifest", "manifest.list.v2", "manifest.v2", "v1+prettyjws", "*/*"]
    {
        assert!(accept.contains(media_type), "{media_type}");
    }
    assert!(!accept.contains("  "), "the header is one line without gaps: {accept}");

    let other = get("/v2/ghcr/a/manifests/3").fetch();
    assert_eq!(other.resource.freshness, Freshness::For(Duration::from_secs(300)), "the dialect's own");

    let manifest = get(&format!("/v2/a/manifests/sha512:{}", sha512())).fetch();
    assert_eq!(manifest.resource.kind, "container.manifest");
    assert_eq!(manifest.resource.expect, format!("sha512:{}", sha512()).parse().ok());
    assert_eq!((manifest.resource.freshness, manifest.resource.linked), (Freshness::Immutable, true));
    assert_eq!((manifest.resource.accept, manifest.resource.media_type), (Some(accept), MediaType::Upstream));
    assert!(matches!(manifest.resource.delivery, Delivery::Whole { .. }));

    let blob = get(&format!("/v2/a/blobs/sha256:{HEX}")).fetch();
    assert_eq!((blob.resource.kind, blob.resource.linked), ("container.blob", true));
    assert_eq!((blob.resource.freshness, blob.resource.delivery), (Freshness::Immutable, Delivery::Streamed));
    assert_eq!(blob.resource.expect, format!("sha256:{HEX}").parse().ok());
    assert_eq!(blob.resource.media_type, MediaType::Fixed("application/octet-stream"));

    let tags = get("/v2/a/tags/list").fetch();
    assert_eq!(
        (tags.resource.kind, tags.resource.key.area, tags.rewrite),
        ("container.tags", Area::Cache, true)
    );
    assert_eq!(tags.resource.freshness, Freshness::For(Duration::from_secs(60)), "not the proxy's");
    assert_eq!(tags.resource.keep_headers, ["link"]);

    let referrers = get(&format!("/v2/a/referrers/sha256:{HEX}")).fetch();
    assert_eq!((referrers.resource.kind, referrers.rewrite), ("container.referrers", false));
    assert_eq!(referrers.resource.media_type, MediaType::Fixed("application/vnd.oci.image.index.v1+json"));
    assert!(get(&format!("/v2/a/referrers/sha256:{HEX}?artifactType=x/y")).fetch().rewrite);
}

#[test]
fn content_is_labelled_with_the_digest_that_was_asked_for() {
    let reference = reference(&[]);
    let target = reference.target_digest.to_string();
    let sha512 = format!("sha512:{}", sha512());
    for (target_path, digest, cache_control) in [
        ("/v2/a/manifests/x".to_owned(), Some(&target), None),
        (format!("/v2/a/manifests/{target}"), Some(&target), Some("max-age=31536000")),
        (format!("/v2/a/blobs/{target}"), Some(&target), Some("max-age=31536000")),
        (format!("/v2/a/blobs/{sha512}"), Some(&sha512), Some("max-age=31536000")),
        ("/v2/a/tags/list".to_owned(), None, None),
        (format!("/v2/a/referrers/{target}"), None, None),
    ] {
        let asked = get(&target_path);
        let headers = Oci.headers(&asked.head(), &asked.fetch(), &reference);
        assert_eq!(header(&headers, "docker-content-digest"), digest.map(String::as_str), "{target_path}");
        let etag = digest.map(|digest| format!("\"{digest}\""));
        assert_eq!(header(&headers, "etag"), etag.as_deref(), "{target_path}");
        assert_eq!(header(&headers, "cache-control"), cache_control, "{target_path}");
        assert_eq!(header(&headers, "docker-distribution-api-version"), Some("registry/2.0"));
        assert_eq!(header(&headers, "oci-namespace"), None);
    }
    let asked = get("/v2/a/manifests/x?ns=docker.io");
    let headers = Oci.headers(&asked.head(), &asked.fetch(), &reference);
    assert_eq!(header(&headers, "oci-namespace"), Some("docker.io"));
}

#[test]
fn a_path_that_no_request_leads_to_has_no_scope() {
    let scope = |path: &str| resource::scope(&path.parse().expect(path)).to_owned();
    let long = sha512();
    for (path, expected) in [
        ("a/tags/x", "a"),
        ("a/tags/tags/tags/tags", "a/tags/tags"),
        ("a/tags-list/tags/tags-list", "a/tags-list"),
        (&format!("a/tags/x/manifests/sha256/{HEX}"), "a/tags/x"),
        (&format!("a/blobs/sha512/{long}"), "a"),
        (&format!("a/manifests/sha256/{HEX}/tags/x"), &format!("a/manifests/sha256/{HEX}")),
        (&format!("a/referrers/sha256/{HEX}/all"), "a"),
        (&format!("a/manifests/sha256/tags-list/{HEX}"), "a/manifests/sha256"),
        (&format!("blobs/manifests/sha256/{HEX}"), "blobs"),
        ("a", ""),
        ("tags/x", ""),
        ("A/tags/x", ""),
        ("a/tags/-x", ""),
        ("a/other/x", ""),
        (&format!("manifests/sha256/{HEX}"), ""),
        (&format!("a/manifests/sha512/{HEX}"), ""),
        (&format!("a/manifests/sha256/{HEX}0"), ""),
        (&format!("a/other/sha256/{HEX}"), ""),
        (&format!("a/other/sha256/{HEX}/all"), ""),
    ] {
        assert_eq!(scope(path), expected, "{path}");
    }
}

#[test]
fn only_tags_and_manifests_are_read_for_links() {
    let document = include_bytes!("../../../../fixtures/oci/image.json");
    for (kind, links) in [
        ("container.tag", Some(4)),
        ("container.manifest", Some(4)),
        ("container.blob", Some(0)),
        ("container.tags", Some(0)),
        ("container.referrers", Some(0)),
        ("generic.file", Some(0)),
    ] {
        assert_eq!(Oci.links(kind, None, document).map(|links| links.len()), links, "{kind}");
        assert_eq!(Oci.is_document(kind), links == Some(4), "{kind}");
    }
}
