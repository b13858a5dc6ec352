//! The dialect as the server sees it: requests in, resources, documents and refusals out.

mod lists;
mod properties;
mod refusals;
mod resources;

use std::time::Duration;

use http::HeaderMap;

use super::*;
use crate::model::{Digest, ProxyFacts, ProxyId, RefKey, Resource, Source, Timestamp};

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
fn a_blobs_sibling_is_what_its_own_request_leads_to() {
    for repository in ["alpine", "ghcr/org/app", "library/blobs/sha256"] {
        let other = Digest::of(b"other");
        let resource =
            |noun: &str, digest: &str| get(&format!("/v2/{repository}/{noun}/{digest}")).fetch().resource;
        let link = Claim { digest: other, size: Some(7) };
        let own = resource("blobs", &other.to_string());
        for digest in [format!("sha256:{HEX}"), format!("sha512:{}", sha512())] {
            assert_eq!(Oci.sibling(&resource("blobs", &digest), &link).as_ref(), Some(&own), "{repository}");
        }
        assert_eq!(Oci.sibling(&resource("manifests", &format!("sha256:{HEX}")), &link), None);
    }
}
