//! The dialect as the server sees it: requests in, resources, documents and refusals out.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderMap;
use proptest::prelude::*;

use super::*;
use crate::model::{
    Area, Delivery, Digest, MediaType, ProxyFacts, ProxyId, RefKey, Resource, Source, Timestamp,
};
use crate::protocol::Part;

const HEX: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn sha512() -> String {
    "0123456789abcdef".repeat(8)
}

fn proxy(name: &str, namespaces: &[&str], default: bool) -> ProxyFacts {
    ProxyFacts {
        namespaces: namespaces.iter().map(|&namespace| namespace.to_owned()).collect(),
        default,
        ..ProxyFacts::new(ProxyId {
            artifact_type: ArtifactType::Container,
            name: name.parse().expect("valid"),
        })
    }
}

fn proxies() -> ProxyTable {
    let hub = ProxyFacts { ttl: Some(Duration::from_secs(3600)), ..proxy("hub", &["docker.io"], true) };
    ProxyTable::new(vec![hub, proxy("ghcr", &["ghcr.io"], false), proxy("lan", &["reg.lan:5000"], false)])
}

/// A request head of method and target.
struct Asked {
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

impl Asked {
    fn new(method: &str, target: &str) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let method = method.parse().expect("a method");
        Self { method, path: path.to_owned(), query, headers: HeaderMap::new() }
    }

    fn head(&self) -> Head<'_> {
        Head {
            method: &self.method,
            authority: None,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
        }
    }

    fn route(&self) -> Result<Route, Refusal> {
        self.route_with(&proxies())
    }

    fn route_with(&self, proxies: &ProxyTable) -> Result<Route, Refusal> {
        Oci.route(&self.head(), proxies, &Gathered::default()).map_err(|unrouted| match unrouted {
            Unrouted::Refused(refusal) => refusal,
            Unrouted::Needs(needs) => panic!("nothing is needed here: {needs:?}"),
        })
    }

    fn fetch(&self) -> Fetch {
        match self.route() {
            Ok(Route::Fetch(fetch)) => *fetch,
            other => panic!("{} leads to {other:?}", self.path),
        }
    }

    fn refuse(&self, refusal: &Refusal) -> (u16, String, Reply) {
        let reply = Oci.refuse(&self.head(), refusal);
        let body: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
        let code = body["errors"][0]["code"].as_str().expect("a code").to_owned();
        assert!(body["errors"][0]["message"].as_str().is_some_and(|message| !message.is_empty()));
        (reply.status.as_u16(), code, reply)
    }
}

fn get(target: &str) -> Asked {
    Asked::new("GET", target)
}

fn reference(headers: &[(&str, &str)]) -> Ref {
    Ref {
        kind: String::new(),
        target_digest: Digest::of(b"{}"),
        media_type: None,
        size: 2,
        upstream: None,
        fetched_at: Timestamp::UNIX_EPOCH,
        ttl_seconds: None,
        etag: None,
        last_modified: None,
        links: None,
        headers: headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
        http: None,
        unknown: serde_json::Map::new(),
    }
}

fn header<'h>(headers: &'h [(HeaderName, HeaderValue)], name: &str) -> Option<&'h str> {
    let mut found = headers.iter().filter(|(own, _)| own.as_str() == name);
    let value = found.next().map(|(_, value)| value.to_str().expect("text"));
    assert!(found.next().is_none(), "`{name}` is there twice");
    value
}

fn kept(resource: &Resource) -> (String, &str) {
    let Source::Path(source) = &resource.source else { panic!("{:?}", resource.source) };
    (resource.key.to_string(), source)
}

#[test]
fn a_request_leads_to_one_key_and_one_upstream_path() {
    let long = sha512();
    for (target, key, source) in [
        // The default proxy, with and without `library/`.
        ("/v2/alpine/manifests/3.20", "hub/refs/library/alpine/tags/3.20", "library/alpine/manifests/3.20"),
        (
            "/v2/library/alpine/manifests/3.20",
            "hub/refs/library/alpine/tags/3.20",
            "library/alpine/manifests/3.20",
        ),
        ("/v2/a/b/c/d/manifests/x", "hub/refs/a/b/c/d/tags/x", "a/b/c/d/manifests/x"),
        // A proxy by its name or a namespace.
        (
            "/v2/hub/alpine/manifests/3.20",
            "hub/refs/library/alpine/tags/3.20",
            "library/alpine/manifests/3.20",
        ),
        (
            "/v2/docker.io/alpine/manifests/3.20",
            "hub/refs/library/alpine/tags/3.20",
            "library/alpine/manifests/3.20",
        ),
        ("/v2/ghcr/app/manifests/x", "ghcr/refs/app/tags/x", "app/manifests/x"),
        ("/v2/ghcr.io/org/app/manifests/x", "ghcr/refs/org/app/tags/x", "org/app/manifests/x"),
        ("/v2/reg.lan:5000/app/manifests/x", "lan/refs/app/tags/x", "app/manifests/x"),
        // A namespace given aside; the path then has no proxy in it.
        (
            "/v2/alpine/manifests/x?ns=docker.io",
            "hub/refs/library/alpine/tags/x",
            "library/alpine/manifests/x",
        ),
        ("/v2/org/app/manifests/x?ns=GHCR.io", "ghcr/refs/org/app/tags/x", "org/app/manifests/x"),
        ("/v2/hub/app/manifests/x?ns=ghcr.io", "ghcr/refs/hub/app/tags/x", "hub/app/manifests/x"),
        ("/v2/app/manifests/x?ns=reg.lan%3A5000", "lan/refs/app/tags/x", "app/manifests/x"),
        // A name of one component is a repository even if a proxy is called so.
        ("/v2/ghcr/manifests/x", "hub/refs/library/ghcr/tags/x", "library/ghcr/manifests/x"),
        // Components called like endpoints.
        ("/v2/a/manifests/manifests/x", "hub/refs/a/manifests/tags/x", "a/manifests/manifests/x"),
        ("/v2/a/tags/list/manifests/list", "hub/refs/a/tags/list/tags/list", "a/tags/list/manifests/list"),
        (
            "/v2/a/blobs/uploads/manifests/_catalog",
            "hub/refs/a/blobs/uploads/tags/_catalog",
            "a/blobs/uploads/manifests/_catalog",
        ),
        // Decoded once.
        (
            "/v2/library%2Falpine/manifests/3%2e20",
            "hub/refs/library/alpine/tags/3.20",
            "library/alpine/manifests/3.20",
        ),
        // The fallback tag for referrers is an ordinary tag.
        ("/v2/a/b/manifests/sha256-4413", "hub/refs/a/b/tags/sha256-4413", "a/b/manifests/sha256-4413"),
        // What a client sends beside is no part of anything.
        ("/v2/a/b/manifests/x?token=1&n=-5", "hub/refs/a/b/tags/x", "a/b/manifests/x"),
        // Digests.
        (
            &format!("/v2/a/b/manifests/sha256:{HEX}"),
            &format!("hub/refs/a/b/manifests/sha256/{HEX}"),
            &format!("a/b/manifests/sha256:{HEX}"),
        ),
        (
            &format!("/v2/a/b/manifests/sha256%3A{HEX}"),
            &format!("hub/refs/a/b/manifests/sha256/{HEX}"),
            &format!("a/b/manifests/sha256:{HEX}"),
        ),
        (
            &format!("/v2/a/b/manifests/sha512:{long}"),
            &format!("hub/refs/a/b/manifests/sha512/{long}"),
            &format!("a/b/manifests/sha512:{long}"),
        ),
        (
            &format!("/v2/alpine/blobs/sha256:{HEX}"),
            &format!("hub/refs/library/alpine/blobs/sha256/{HEX}"),
            &format!("library/alpine/blobs/sha256:{HEX}"),
        ),
        (
            &format!("/v2/a/b/blobs/sha512:{long}"),
            &format!("hub/refs/a/b/blobs/sha512/{long}"),
            &format!("a/b/blobs/sha512:{long}"),
        ),
        // Lists: the page is part of the key, in one canonical form.
        ("/v2/a/b/tags/list", "hub/cache/a/b/tags-list/all", "a/b/tags/list"),
        ("/v2/a/b/tags/list?last=&n=", "hub/cache/a/b/tags-list/all", "a/b/tags/list"),
        (
            "/v2/a/b/tags/list?n=007&last=v1",
            "hub/cache/a/b/tags-list/last=v1&n=7",
            "a/b/tags/list?last=v1&n=7",
        ),
        (
            "/v2/a/b/tags/list?last=v1&n=7&ns=docker.io",
            "hub/cache/a/b/tags-list/last=v1&n=7",
            "a/b/tags/list?last=v1&n=7",
        ),
        ("/v2/a/b/tags/list?n=2147483647", "hub/cache/a/b/tags-list/n=1000", "a/b/tags/list?n=1000"),
        ("/v2/a/b/tags/list?n=0", "hub/cache/a/b/tags-list/n=1", "a/b/tags/list?n=1"),
        ("/v2/a/tags/tags/list", "hub/cache/a/tags/tags-list/all", "a/tags/tags/list"),
        // The token of a registry that pages in its own way.
        (
            "/v2/a/b/tags/list?next_page=g%2FA%3D",
            "hub/cache/a/b/tags-list/next_page=g%2FA%3D",
            "a/b/tags/list?next_page=g%2FA%3D",
        ),
        (
            &format!("/v2/a/b/referrers/sha256:{HEX}"),
            &format!("hub/cache/a/b/referrers/sha256/{HEX}/all"),
            &format!("a/b/referrers/sha256:{HEX}"),
        ),
        (
            &format!("/v2/a/b/referrers/sha256:{HEX}?artifactType=application/x+json"),
            &format!("hub/cache/a/b/referrers/sha256/{HEX}/artifactType=application%2Fx%2Bjson"),
            &format!("a/b/referrers/sha256:{HEX}?artifactType=application%2Fx%2Bjson"),
        ),
    ] {
        for method in ["GET", "HEAD"] {
            let fetch = Asked::new(method, target).fetch();
            let (found, from) = kept(&fetch.resource);
            assert_eq!(
                (found, from),
                (format!("container/{key}"), format!("/v2/{source}").as_str()),
                "{target}"
            );
            assert_eq!(found_again(&fetch.resource.key), fetch.resource.key, "{target}");
        }
    }
}

fn found_again(key: &RefKey) -> RefKey {
    key.to_string().parse().expect("a key reads what it writes")
}

#[test]
fn what_is_not_a_request_of_the_protocol_is_refused_before_anything_is_looked_up() {
    use Part::{Digest, Name, Path, Query, Reference};
    let upper = HEX.to_uppercase();
    for (target, part) in [
        ("/v2/../../etc/passwd/manifests/x", Path),
        ("/v2/..%2f..%2fetc/manifests/x", Path),
        ("/v2/a/%2e%2e/manifests/x", Path),
        ("/v2/a//b/manifests/x", Path),
        ("/v2/a%2F%2Fb/manifests/x", Path),
        ("/v2/a\\..\\b/manifests/x", Path),
        ("/v2/a%5Cb/manifests/x", Path),
        ("/v2/a%00/manifests/x", Path),
        ("/v2/a%c0%af/manifests/x", Path),
        ("/v2/a/./manifests/x", Path),
        ("/v2/a/manifests/..", Path),
        ("/v2/%252e%252e/b/manifests/x", Name),
        ("/v2/A/b/manifests/x", Name),
        ("/v2/hub/_a/manifests/x", Name),
        ("/v2/a-/manifests/x", Name),
        ("/v2/CON/x/manifests/x", Name),
        ("/v2/u:p@h/b/manifests/x", Name),
        (&format!("/v2/{}/manifests/x", "a".repeat(256)), Name),
        // `library/` makes it too long.
        (&format!("/v2/{}/manifests/x", "a".repeat(250)), Name),
        ("/v2/a/manifests/-x", Reference),
        ("/v2/a/manifests/.x", Reference),
        ("/v2/a/manifests/a+b", Reference),
        (&format!("/v2/a/manifests/{}", "x".repeat(129)), Reference),
        ("/v2/a/manifests/sha256:", Digest),
        ("/v2/a/manifests/sha256:totallywrong", Digest),
        ("/v2/a/blobs/sha256:..", Digest),
        (&format!("/v2/a/blobs/sha256:{upper}"), Digest),
        (&format!("/v2/a/blobs/SHA256:{HEX}"), Digest),
        (&format!("/v2/a/blobs/sha256:{}", &HEX[1..]), Digest),
        (&format!("/v2/a/blobs/sha256:{HEX}0"), Digest),
        (&format!("/v2/a/blobs/sha512:{HEX}"), Digest),
        (&format!("/v2/a/blobs/md5:{}", &HEX[..32]), Digest),
        (&format!("/v2/a/blobs/{HEX}"), Digest),
        ("/v2/a/blobs/uploads", Digest),
        ("/v2/a/referrers/x", Digest),
        ("/v2/a/tags/list?n=-1", Query),
        ("/v2/a/tags/list?n=x", Query),
        ("/v2/a/tags/list?last=../", Query),
        (&format!("/v2/a/tags/list?last={}", "x".repeat(129)), Query),
        ("/v2/a/tags/list?n=1&n=2", Query),
        ("/v2/a/manifests/x?ns=docker.io&ns=evil.example", Query),
        (&format!("/v2/a/referrers/sha256:{HEX}?artifactType={}", "x".repeat(256)), Query),
        ("/v2/_catalog?n=-1", Query),
        (&format!("/v2/_catalog?last={}", "x".repeat(321)), Query),
    ] {
        match get(target).route() {
            Err(Refusal::Invalid { what, .. }) => assert_eq!(what, part, "{target}"),
            other => panic!("{target} leads to {other:?}"),
        }
    }
}

#[test]
fn what_is_not_there_is_said_to_be_so() {
    for target in [
        "/v2/a",
        "/v2/a/b/c",
        "/v2/manifests/x",
        "/v2/tags/list",
        "/v2/a/tags/other",
        "/v2/a/blobs/uploads/7c4f",
        "/v2/a/b/_catalog",
        "/v2x",
    ] {
        assert_eq!(get(target).route().err(), Some(Refusal::NoEndpoint), "{target}");
    }
    for target in [
        "/v2/a/manifests/x?ns=evil.example",
        "/v2/hub/a/manifests/x?ns=hub",
        "/v2/_catalog?ns=evil.example",
        "/v2/nope/_catalog",
    ] {
        assert_eq!(get(target).route().err(), Some(Refusal::NoProxy), "{target}");
    }
    let none = ProxyTable::new(vec![proxy("ghcr", &["ghcr.io"], false)]);
    let asked = get("/v2/org/app/manifests/x");
    assert_eq!(asked.route_with(&none).err(), Some(Refusal::NoProxy), "there is no default");
}

#[test]
fn everything_but_get_and_head_is_refused_as_read_only() {
    for method in ["PUT", "POST", "PATCH", "DELETE", "OPTIONS", "CONNECT", "BREW"] {
        for target in ["/v2/", "/v2/a/blobs/uploads/", "/v2/a/manifests/x", "/v2/../x", "/v2/A//"] {
            let asked = Asked::new(method, target);
            assert_eq!(asked.route().err(), Some(Refusal::ReadOnly), "{method} {target}");
            let (status, code, reply) = asked.refuse(&Refusal::ReadOnly);
            assert_eq!((status, code.as_str()), (405, "UNSUPPORTED"));
            assert_eq!(header(&reply.headers, "allow"), Some("GET, HEAD"));
        }
    }
}

#[test]
fn the_dialect_owns_v2_and_nothing_else() {
    for (path, owned) in [
        ("/v2", true),
        ("/v2/", true),
        ("/v2/a/b", true),
        ("/v2x", false),
        ("/v1/", false),
        ("/", false),
        ("/-/health", false),
        ("/generic/v2/", false),
    ] {
        assert_eq!(Oci.owns(&get(path).head(), &proxies()), owned, "{path}");
    }
}

#[test]
fn the_base_answers_by_itself() {
    for (method, target) in
        [("GET", "/v2/"), ("HEAD", "/v2/"), ("GET", "/v2"), ("GET", "/v2/?ns=evil.example")]
    {
        let Ok(Route::Local(reply)) = Asked::new(method, target).route() else { panic!("{target}") };
        assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"{}"[..]));
        assert_eq!(header(&reply.headers, "docker-distribution-api-version"), Some("registry/2.0"));
        assert_eq!(header(&reply.headers, "content-type"), Some("application/json"));
    }
}

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
        let etag = digest.map(|_| format!("\"{target}\""));
        assert_eq!(header(&headers, "etag"), etag.as_deref(), "{target_path}");
        assert_eq!(header(&headers, "cache-control"), cache_control, "{target_path}");
        assert_eq!(header(&headers, "docker-distribution-api-version"), Some("registry/2.0"));
        assert_eq!(header(&headers, "oci-namespace"), None);
    }
    let asked = get("/v2/a/manifests/x?ns=docker.io");
    let headers = Oci.headers(&asked.head(), &asked.fetch(), &reference);
    assert_eq!(header(&headers, "oci-namespace"), Some("docker.io"));
}

/// A rewritten list as its body and its `Link`.
fn rewritten(
    target: &str,
    upstream_link: Option<&str>,
    document: &str,
) -> (serde_json::Value, Option<String>) {
    let asked = get(target);
    let link: Vec<_> = upstream_link.map(|link| ("link", link)).into_iter().collect();
    let document = Oci.rewrite(&asked.head(), &reference(&link), document.as_bytes()).expect(target);
    let link = header(&document.headers, "link").map(str::to_owned);
    (serde_json::from_slice(&document.body).expect("JSON"), link)
}

#[test]
fn a_list_of_tags_holds_to_n_and_last_even_if_upstream_does_not() {
    let all = r#"{"name":"library/alpine","tags":["d","b","c","a","b"]}"#;
    let page2 = r#"{"name":"x","tags":["c","d"]}"#;
    let by_age = r#"{"name":"x","tags":["9","10","1"]}"#;
    let next = Some("</v2/library/alpine/tags/list?n=2&last=d>; rel=\"next\"");
    for (target, link, document, tags, expected) in [
        // Upstream knows neither `n` nor `last`.
        ("/v2/alpine/tags/list", None, all, "a b c d", None),
        ("/v2/alpine/tags/list?n=2", None, all, "a b", Some("alpine/tags/list?last=b&n=2")),
        ("/v2/alpine/tags/list?n=2&last=b", None, all, "c d", None),
        ("/v2/alpine/tags/list?n=1&last=b", None, all, "c", Some("alpine/tags/list?last=c&n=1")),
        ("/v2/alpine/tags/list?n=5&last=d", None, all, "", None),
        ("/v2/alpine/tags/list?n=0", None, all, "", None),
        ("/v2/alpine/tags/list?n=4", None, all, "a b c d", None),
        // The client's own name for it is kept, in the link too.
        ("/v2/hub/alpine/tags/list?n=3", None, all, "a b c", Some("hub/alpine/tags/list?last=c&n=3")),
        (
            "/v2/alpine/tags/list?n=3&ns=docker.io",
            None,
            all,
            "a b c",
            Some("alpine/tags/list?last=c&n=3&ns=docker.io"),
        ),
        // Upstream pages itself.
        ("/v2/alpine/tags/list?n=2&last=b", next, page2, "c d", Some("alpine/tags/list?last=d&n=2")),
        ("/v2/alpine/tags/list?last=b", next, page2, "c d", Some("alpine/tags/list?last=d")),
        // … by age: nothing is dropped, and the next page is where upstream says.
        (
            "/v2/a/tags/list?n=3&last=5",
            Some("<https://h/v2/a/tags/list?last=9&n=0>; rel=\"next\""),
            by_age,
            "1 10 9",
            Some("a/tags/list?last=9&n=3"),
        ),
        // … with a token of its own.
        (
            "/v2/a/tags/list?n=3",
            Some("<https://h/api?next_page=g%2FA%3D%3D&n=3>; rel=next"),
            by_age,
            "1 10 9",
            Some("a/tags/list?n=3&next_page=g%2FA%3D%3D"),
        ),
        // … with a link that cannot be used: by name, if that leads forward.
        ("/v2/a/tags/list", Some("</x?last=%ff>; rel=\"next\""), page2, "c d", Some("a/tags/list?last=d")),
        ("/v2/a/tags/list?last=x", Some("</x?last=x>; rel=\"next\""), page2, "c d", None),
        // … and ignores `last`: the link would lead in a circle.
        ("/v2/a/tags/list?last=d&n=2", next, page2, "", None),
        ("/v2/a/tags/list", Some("</x?last=d>; rel=\"prev\""), page2, "c d", None),
        // Odd but valid.
        ("/v2/a/tags/list", None, r#"{"tags":null}"#, "", None),
        ("/v2/a/tags/list", None, r#"{"name":"a","tags":["ok","../x","-no",""]}"#, "ok", None),
    ] {
        let (body, link) = rewritten(target, link, document);
        let tags: Vec<_> = tags.split_terminator(' ').collect();
        let name = target.trim_start_matches("/v2/").split("/tags/").next();
        assert_eq!(body, serde_json::json!({"name": name, "tags": tags}), "{target}");
        let expected = expected.map(|page| format!("</v2/{page}>; rel=\"next\""));
        assert_eq!(link, expected, "{target} with {document}");
    }
}

#[test]
fn the_link_to_the_next_page_is_a_request_that_is_understood() {
    let (_, link) = rewritten("/v2/hub/alpine/tags/list?n=1&ns=", None, r#"{"tags":["a","b"]}"#);
    let link = link.expect("a next page");
    let target = link.strip_prefix('<').and_then(|link| link.split_once('>')).expect("a link").0;
    assert_eq!(
        get(target).fetch().resource.key.to_string(),
        "container/hub/cache/library/alpine/tags-list/last=a&n=1"
    );
}

#[test]
fn what_is_no_list_is_upstreams_fault() {
    for bad in ["", "<html>", "[]", r#"{"tags":{}}"#, r#"{"tags":[1]}"#] {
        let asked = get("/v2/a/tags/list");
        let refusal = Oci.rewrite(&asked.head(), &reference(&[]), bad.as_bytes());
        assert!(matches!(refusal, Err(Refusal::BadUpstream(_))), "{bad}");
        if bad != r#"{"tags":{}}"# && bad != r#"{"tags":[1]}"# {
            let asked = get(&format!("/v2/a/referrers/sha256:{HEX}?artifactType=x/y"));
            let refusal = Oci.rewrite(&asked.head(), &reference(&[]), bad.as_bytes());
            assert!(matches!(refusal, Err(Refusal::BadUpstream(_))), "{bad}");
        }
    }
}

#[test]
fn referrers_are_filtered_here_only_if_upstream_did_not() {
    let document = include_bytes!("../../../fixtures/oci/referrers.json");
    let asked =
        get(&format!("/v2/a/referrers/sha256:{HEX}?artifactType=application/vnd.example.sbom.v1%2Bjson"));
    let filtered = Oci.rewrite(&asked.head(), &reference(&[]), document).expect("filtered");
    assert_eq!(filtered.media_type, "application/vnd.oci.image.index.v1+json");
    assert_eq!(header(&filtered.headers, "oci-filters-applied"), Some("artifactType"));
    let body: serde_json::Value = serde_json::from_slice(&filtered.body).expect("JSON");
    let original: serde_json::Value = serde_json::from_slice(document).expect("JSON");
    let kept = serde_json::json!([original["manifests"][0], original["manifests"][2]]);
    assert_eq!(body["manifests"], kept);
    assert_eq!(
        (&body["annotations"], &body["schemaVersion"]),
        (&original["annotations"], &original["schemaVersion"])
    );

    let done = reference(&[("oci-filters-applied", "artifactType")]);
    let untouched = Oci.rewrite(&asked.head(), &done, document).expect("as it is");
    assert_eq!(untouched.body, &document[..]);
    assert_eq!(header(&untouched.headers, "oci-filters-applied"), Some("artifactType"));
}

#[test]
fn the_next_page_of_referrers_is_asked_for_as_upstream_says() {
    let link = ("link", "</v2/x/referrers/y?nextToken=a%2Bb&n=5>; rel=\"next\"");
    let plain = get(&format!("/v2/hub/a/referrers/sha256:{HEX}"));
    let headers = Oci.headers(&plain.head(), &plain.fetch(), &reference(&[link]));
    let expected = format!("</v2/hub/a/referrers/sha256:{HEX}?nextToken=a%2Bb>; rel=\"next\"");
    assert_eq!(header(&headers, "link"), Some(expected.as_str()));

    let typed = get(&format!("/v2/hub/a/referrers/sha256:{HEX}?artifactType=x/y"));
    let fetch = typed.fetch();
    assert_eq!(
        header(&Oci.headers(&typed.head(), &fetch, &reference(&[link])), "link"),
        None,
        "it comes with the document"
    );
    let document = Oci.rewrite(&typed.head(), &reference(&[link]), b"{\"manifests\":[]}").expect("a list");
    let expected =
        format!("</v2/hub/a/referrers/sha256:{HEX}?artifactType=x%2Fy&nextToken=a%2Bb>; rel=\"next\"");
    assert_eq!(header(&document.headers, "link"), Some(expected.as_str()));
}

#[test]
fn the_catalog_lists_what_is_cached_in_pages() {
    let names = |names: &str| names.split_terminator(' ').map(str::to_owned).collect::<Vec<_>>();
    let scopes = |proxy: Option<&str>, after: Option<&str>, limit| Derive::Scopes {
        proxy: proxy.map(|name| ProxyId {
            artifact_type: ArtifactType::Container,
            name: name.parse().expect("valid"),
        }),
        after: after.map(str::to_owned),
        limit,
    };
    for (target, derive, gathered, expected, next) in [
        ("/v2/_catalog", scopes(None, None, 100), "a hub/b", "a hub/b", None),
        ("/v2/_catalog?n=2", scopes(None, None, 2), "a b c", "a b", Some("_catalog?last=b&n=2")),
        ("/v2/_catalog?n=2&last=hub/b", scopes(None, Some("hub/b"), 2), "", "", None),
        ("/v2/_catalog?n=99999", scopes(None, None, 1000), "a", "a", None),
        ("/v2/_catalog?n=0", scopes(None, None, 0), "a", "", None),
        ("/v2/hub/_catalog?n=1", scopes(Some("hub"), None, 1), "a b", "a", Some("hub/_catalog?last=a&n=1")),
        ("/v2/ghcr.io/_catalog", scopes(Some("ghcr"), None, 100), "", "", None),
        (
            "/v2/_catalog?ns=ghcr.io&n=1",
            scopes(Some("ghcr"), None, 1),
            "a/b c",
            "a/b",
            Some("_catalog?last=a%2Fb&n=1&ns=ghcr.io"),
        ),
    ] {
        let asked = get(target);
        let Ok(Route::Derive(found)) = asked.route() else { panic!("{target}") };
        assert_eq!(found, derive, "{target}");
        let document = Oci.derive(&asked.head(), &found, &names(gathered)).expect(target);
        let body: serde_json::Value = serde_json::from_slice(&document.body).expect("JSON");
        assert_eq!(body, serde_json::json!({"repositories": names(expected)}), "{target}");
        let next = next.map(|page| format!("</v2/{page}>; rel=\"next\""));
        assert_eq!(header(&document.headers, "link"), next.as_deref(), "{target}");
    }
}

#[test]
fn every_refusal_has_a_status_a_code_and_a_message() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let invalid = |what| Refusal::Invalid { what, why: "it is wrong" };
    let manifest = "/v2/a/manifests/x".to_owned();
    let digest = format!("/v2/a/manifests/sha256:{HEX}");
    let blob = format!("/v2/a/blobs/sha256:{HEX}");
    let referrers = format!("/v2/a/referrers/sha256:{HEX}");
    let tags = "/v2/a/tags/list".to_owned();
    for (target, refusal, status, code, retry_after) in [
        (&manifest, Refusal::NotFound, 404, "MANIFEST_UNKNOWN", None),
        (&digest, Refusal::NotFound, 404, "MANIFEST_UNKNOWN", None),
        (&blob, Refusal::NotFound, 404, "BLOB_UNKNOWN", None),
        (&tags, Refusal::NotFound, 404, "NAME_UNKNOWN", None),
        (&referrers, Refusal::NotFound, 404, "NAME_UNKNOWN", None),
        (&manifest, Refusal::NoEndpoint, 404, "UNSUPPORTED", None),
        (&manifest, Refusal::NoProxy, 404, "NAME_UNKNOWN", None),
        (&manifest, invalid(Part::Path), 400, "NAME_INVALID", None),
        (&manifest, invalid(Part::Name), 400, "NAME_INVALID", None),
        (&manifest, invalid(Part::Reference), 404, "MANIFEST_UNKNOWN", None),
        (&manifest, invalid(Part::Digest), 400, "DIGEST_INVALID", None),
        (&manifest, invalid(Part::Query), 400, "UNSUPPORTED", None),
        (&manifest, Refusal::Denied { anonymous: true }, 404, "NAME_UNKNOWN", None),
        (&manifest, Refusal::Denied { anonymous: false }, 403, "DENIED", None),
        (&manifest, Refusal::RateLimited { retry_after: None }, 429, "TOOMANYREQUESTS", Some("10")),
        (&manifest, Refusal::RateLimited { retry_after: seconds(60) }, 429, "TOOMANYREQUESTS", Some("60")),
        (
            &manifest,
            Refusal::Unavailable { retry_after: Some(Duration::ZERO) },
            503,
            "UNAVAILABLE",
            Some("1"),
        ),
        (
            &manifest,
            Refusal::Unavailable { retry_after: Some(Duration::from_millis(1500)) },
            503,
            "UNAVAILABLE",
            Some("2"),
        ),
        (&manifest, Refusal::Timeout, 504, "UNAVAILABLE", None),
        (&manifest, Refusal::BadUpstream("status 500"), 502, "UNKNOWN", None),
        (&manifest, Refusal::TooLarge { limit: 16 }, 502, "SIZE_INVALID", None),
        (&manifest, Refusal::Loop, 508, "UNKNOWN", None),
        (&manifest, Refusal::Internal, 500, "UNKNOWN", None),
    ] {
        let (found, found_code, reply) = get(target).refuse(&refusal);
        assert_eq!((found, found_code.as_str()), (status, code), "{target}: {refusal:?}");
        assert_eq!(header(&reply.headers, "retry-after"), retry_after, "{refusal:?}");
        assert_eq!(header(&reply.headers, "content-type"), Some("application/json"));
        assert_eq!(header(&reply.headers, "docker-distribution-api-version"), Some("registry/2.0"));
        assert_eq!(header(&reply.headers, "www-authenticate"), None, "clients have no login here");
    }
}

#[test]
fn a_refusal_says_what_it_is_about_and_nothing_that_is_not_in_the_grammar() {
    let body = |target: &str, refusal: &Refusal| {
        let (_, _, reply) = get(target).refuse(refusal);
        String::from_utf8(reply.body.to_vec()).expect("text")
    };
    assert_eq!(
        body("/v2/hub/alpine/manifests/3.99", &Refusal::NotFound),
        r#"{"errors":[{"code":"MANIFEST_UNKNOWN","detail":{"name":"hub/alpine","tag":"3.99"},"message":"upstream has no such manifest in this repository"}]}"#
    );
    let bad = get("/v2/%1b[2J/manifests/x");
    let refusal = bad.route().expect_err("refused");
    assert!(!body(&bad.path, &refusal).contains("2J"));
    let message = body("/v2/a/manifests/x?ns=evil.example", &Refusal::NoProxy);
    assert!(["hub", "ghcr", "lan"].iter().all(|name| !message.contains(name)), "{message}");
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
    let document = include_bytes!("../../../fixtures/oci/image.json");
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

/// Targets that are often right and always nearly so.
fn targets() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        "[a-z0-9]{1,4}([._-]{1,2}[a-z0-9]{1,3})?",
        Just("hub".to_owned()),
        Just("docker.io".to_owned()),
        Just("tags".to_owned()),
        Just("list".to_owned()),
        Just("manifests".to_owned()),
        Just("blobs".to_owned()),
        Just("referrers".to_owned()),
        Just("_catalog".to_owned()),
        Just("tags-list".to_owned()),
        Just("sha256".to_owned()),
        Just(HEX.to_owned()),
        Just(format!("sha256:{HEX}")),
        Just(format!("sha512:{}", sha512())),
        "%[0-9a-f]{2}",
        "\\PC{0,6}",
        Just("..".to_owned()),
    ];
    let query = prop_oneof![
        Just(String::new()),
        "\\?(n|last|ns|artifactType|x)=[a-z0-9.%+/-]{0,8}(&(n|ns|y)=[0-9a-z.]{0,9})?",
        Just("?ns=docker.io".to_owned()),
        "\\?\\PC{0,20}",
    ];
    (prop::collection::vec(segment, 0..7), query)
        .prop_map(|(segments, query)| format!("/v2/{}{query}", segments.join("/")))
}

fn check(target: &str) {
    let asked = get(target);
    match asked.route() {
        Ok(Route::Fetch(fetch)) => {
            let key = &fetch.resource.key;
            assert_eq!(&found_again(key), key, "{target}");
            let scope = Oci.scope(&key.path);
            assert!(grammar::is_name(scope), "{target} leads to `{key}` of `{scope}`");
            assert_eq!(fetch.resource.token_scope, Some(format!("repository:{scope}:pull")), "{target}");
            let (_, source) = kept(&fetch.resource);
            assert!(source.starts_with(&format!("/v2/{scope}/")), "{target}");
            assert!(
                source.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'),
                "{target} asks `{source}`"
            );
            let allowed = |c: char| !c.is_control() && c != '\\';
            assert!(key.path.as_str().chars().all(allowed), "{target}");
            let headers: BTreeMap<_, _> = Oci
                .headers(&asked.head(), &fetch, &reference(&[]))
                .into_iter()
                .map(|(n, v)| (n.to_string(), v))
                .collect();
            assert!(headers.contains_key("docker-distribution-api-version"));
        }
        Ok(_) => {}
        Err(refusal) => {
            let (status, _, _) = asked.refuse(&refusal);
            assert!((400..500).contains(&status), "{target}: {refusal:?}");
        }
    }
}

proptest! {
    #[test]
    fn no_path_panics_or_leads_out_of_the_grammar(path in "\\PC*", query in proptest::option::of("\\PC*")) {
        check(&format!("/v2/{path}{}", query.map(|query| format!("?{query}")).unwrap_or_default()));
    }

    #[test]
    fn no_nearly_right_target_panics_or_leads_out_of_the_grammar(target in targets()) {
        check(&target);
    }

    #[test]
    fn no_document_panics(document in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}:,\"a-z0-9 ]{0,80}") {
        for document in [document.as_slice(), text.as_bytes()] {
            let _ = Oci.links("container.tag", None, document);
            for target in ["/v2/a/tags/list?n=1", &format!("/v2/a/referrers/sha256:{HEX}?artifactType=x")] {
                let _ = Oci.rewrite(&get(target).head(), &reference(&[("link", &text)]), document);
            }
        }
    }
}
