//! The dialect as the engine sees it: requests in, needs, resources, documents and refusals out.

mod answers;
mod pitfalls;
mod signatures;
mod upstreams;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderMap;
use proptest::prelude::*;

use super::*;
use crate::model::{Area, Freshness, ProxyId, Source, Timestamp};
use crate::protocol::{Gotten, Need};

const SUMS: &[u8] = include_bytes!("../../../fixtures/tf/terraform-provider-demo_1.1.0_SHA256SUMS");
const LINUX: &[u8] = include_bytes!("../../../fixtures/tf/terraform-provider-demo_1.1.0_linux_amd64.zip");
const DARWIN: &[u8] = include_bytes!("../../../fixtures/tf/terraform-provider-demo_1.1.0_darwin_arm64.zip");
const KEY: &str = include_str!("../../../fixtures/tf/rsa.asc");
const SIGNATURE: &[u8] = include_bytes!("../../../fixtures/tf/rsa.sig");
const BY_STRANGER: &[u8] = include_bytes!("../../../fixtures/tf/stranger.sig");

const REGISTRY: &str = "/tf/acme/v1/providers/acme/demo";
const MIRROR: &str = "/tf/acme/mirror/registry.acme.example/acme/demo";
const MODULE: &str = "/tf/acme/v1/modules/acme/net/aws";

fn proxy(name: &str, upstream: &str, namespaces: &[&str], default: bool) -> ProxyFacts {
    ProxyFacts {
        namespaces: namespaces.iter().map(|&namespace| namespace.to_owned()).collect(),
        default,
        upstream: Some(upstream.parse().expect("a URL")),
        ..ProxyFacts::new(ProxyId { artifact_type: ArtifactType::Tf, name: name.parse().expect("valid") })
    }
}

fn gotten(resource: &Resource, body: &[u8]) -> Gotten {
    let (digest, size) = (Digest::of(body), body.len() as u64);
    let reference = Ref::new(resource.kind.to_owned(), digest, size, Timestamp::UNIX_EPOCH);
    Gotten { reference, body: Bytes::copy_from_slice(body) }
}

/// A registry upstream, as far as a dialect can see: what is where, and what was asked for.
struct World {
    proxies: Vec<ProxyFacts>,
    there: BTreeMap<String, (Vec<u8>, Option<String>)>,
    failing: BTreeMap<String, Refusal>,
    /// What was found in cached content, by its path.
    read: BTreeMap<String, (String, Value)>,
    asked: RefCell<Vec<String>>,
}

impl World {
    /// One with a signed provider for two platforms, behind the service discovery of its host.
    fn new() -> Self {
        let mut world = Self {
            proxies: vec![
                proxy("acme", "https://registry.acme.example", &["registry.acme.example", "lan:8443"], true),
                proxy("other", "https://other.example/base", &["other.example"], false),
            ],
            there: BTreeMap::new(),
            failing: BTreeMap::new(),
            read: BTreeMap::new(),
            asked: RefCell::default(),
        };
        world.put(
            "/.well-known/terraform.json",
            r#"{"providers.v1":"/p/","modules.v1":"https://m.example/m"}"#,
        );
        world.put(
            "/p/acme/demo/versions",
            r#"{"id":"acme/demo","versions":[
                {"version":"1.1.0","protocols":["5.0"],"platforms":[{"os":"darwin","arch":"arm64"},{"os":"linux","arch":"amd64"}]},
                {"version":"1.0.0+build.7","platforms":[{"os":"linux","arch":"amd64"}]},
                {"version":"v0.9.0","platforms":[{"os":"linux","arch":"amd64"}]}],"warnings":null}"#,
        );
        world.put_download("linux", "amd64", LINUX, Some(KEY));
        world.put_download("darwin", "arm64", DARWIN, Some(KEY));
        world.put("https://releases.example/SHA256SUMS", SUMS);
        world.put("https://releases.example/SHA256SUMS.sig", SIGNATURE);
        world
    }

    fn put(&mut self, place: &str, body: impl AsRef<[u8]>) {
        self.there.insert(place.to_owned(), (body.as_ref().to_vec(), None));
    }

    fn put_module(&mut self, body: &str, source: Option<&str>) {
        let place = "https://m.example/m/acme/net/aws/1.2.0/download".to_owned();
        self.there.insert(place, (body.into(), source.map(str::to_owned)));
    }

    fn put_download(&mut self, os: &str, arch: &str, zip: &[u8], key: Option<&str>) {
        let keys: Vec<_> =
            key.iter().map(|key| json!({"key_id": "AB", "ascii_armor": key, "source": "Acme"})).collect();
        let filename = format!("terraform-provider-demo_1.1.0_{os}_{arch}.zip");
        let document = json!({
            "protocols": ["5.0"], "os": os, "arch": arch, "filename": filename, "later": 1.50,
            "download_url": format!("https://releases.example/{filename}?X-Signature=a%2Fb"),
            "shasums_url": "https://releases.example/SHA256SUMS",
            "shasums_signature_url": "https://releases.example/SHA256SUMS.sig",
            "shasum": Digest::of(zip).hex(), "signing_keys": {"gpg_public_keys": keys},
            "packages": {"linux_amd64": {"hashes": ["zh:00", "h1:abc="], "package_size": 1}},
        });
        self.put(&format!("/p/acme/demo/1.1.0/download/{os}/{arch}"), document.to_string());
    }

    fn table(&self) -> ProxyTable {
        ProxyTable::new(self.proxies.clone())
    }

    /// What the engine does with a request, but for keeping anything.
    fn route(&self, method: &str, path: &str) -> Result<Route, Refusal> {
        let (method, headers) = (method.parse().expect("a method"), HeaderMap::new());
        let head = Head { method: &method, authority: None, path, query: None, headers: &headers };
        let mut gathered = Gathered::default();
        for _ in 0..8 {
            match Tf.route(&head, &self.table(), &gathered) {
                Ok(route) => return Ok(route),
                Err(Unrouted::Refused(refusal)) => return Err(refusal),
                Err(Unrouted::Needs(needs)) => {
                    for need in needs {
                        let (resource, found) = match need {
                            Need::Document(resource) => (resource.clone(), self.fetch(&resource)),
                            // This engine keeps nothing.
                            Need::Held(resource, otherwise) => (resource, Err(otherwise)),
                            Need::Fact(inquiry) => {
                                let Inquiry { content, fact, .. } = *inquiry;
                                let known = self.read.get(content.key.path.as_str()).map(|facts| {
                                    let mut known = gotten(&content, b"").reference;
                                    known.unknown = Map::from_iter([facts.clone()]);
                                    known
                                });
                                gathered.add_fact(fact, known);
                                continue;
                            }
                            Need::Recent(..) | Need::Entry(_) => panic!("nothing here asks for these"),
                        };
                        gathered.add_document(resource.key, found);
                    }
                }
            }
        }
        panic!("{path}: never has enough")
    }

    fn get(&self, path: &str) -> Result<Route, Refusal> {
        self.route("GET", path)
    }

    /// A document, judged together with its companions.
    fn fetch(&self, resource: &Resource) -> Result<Gotten, Refusal> {
        let gotten = self.bring(resource)?;
        let mut companions = Gathered::default();
        for Companion { resource, optional, .. } in Tf.companions(resource, None, &gotten.body)? {
            match self.bring(&resource) {
                Err(Refusal::NotFound) if optional => {}
                found => companions.add_document(resource.key, Ok(found?)),
            }
        }
        Tf.vet(resource, &gotten.body, &companions)?;
        Ok(gotten)
    }

    fn bring(&self, resource: &Resource) -> Result<Gotten, Refusal> {
        let (Source::Path(place) | Source::Url(place)) = &resource.source;
        self.asked.borrow_mut().push(place.clone());
        if let Some(refusal) = self.failing.get(place) {
            return Err(refusal.clone());
        }
        let (body, source) = self.there.get(place).ok_or(Refusal::NotFound)?;
        let mut gotten = gotten(resource, body);
        gotten.reference.headers =
            source.iter().map(|source| (resource::TERRAFORM_GET.to_owned(), source.clone())).collect();
        Ok(gotten)
    }

    fn resource(&self, path: &str) -> Resource {
        match self.get(path) {
            Ok(Route::Fetch(fetch)) => fetch.resource,
            other => panic!("{path} leads to {other:?}"),
        }
    }

    fn made(&self, path: &str) -> Value {
        match self.get(path) {
            Ok(Route::Made(document)) => {
                assert_eq!(document.media_type, "application/json", "mirrors must say so");
                serde_json::from_slice(&document.body).expect("JSON")
            }
            other => panic!("{path} leads to {other:?}"),
        }
    }

    fn local(&self, path: &str) -> Reply {
        match self.get(path) {
            Ok(Route::Local(reply)) => reply,
            other => panic!("{path} leads to {other:?}"),
        }
    }

    /// The download document as clients get it.
    fn rewritten(&self, path: &str) -> Value {
        let fetch = match self.get(path) {
            Ok(Route::Fetch(fetch)) => fetch,
            other => panic!("{path} leads to {other:?}"),
        };
        assert!(fetch.rewrite);
        let gotten = self.fetch(&fetch.resource).expect("there");
        let headers = HeaderMap::new();
        let head = Head { method: &Method::GET, authority: None, path, query: None, headers: &headers };
        let document = Tf.rewrite(&head, &gotten.reference, &gotten.body).expect("a document");
        serde_json::from_slice(&document.body).expect("JSON")
    }
}

fn zip_path() -> String {
    format!("{REGISTRY}/1.1.0/download/linux/amd64/terraform-provider-demo_1.1.0_linux_amd64.zip")
}

#[test]
fn every_resource_has_its_key_place_and_life() {
    let mut world = World::new();
    world.put_module("", Some("https://x.example/net.tgz//sub?sig=1"));
    let of = |path: &str| {
        let resource = world.resource(path);
        let (Source::Path(place) | Source::Url(place)) = resource.source;
        let key = resource.key.to_string();
        (key.strip_prefix("tf/acme/").expect("of the proxy").to_owned(), place, resource.freshness)
    };
    let minutes = |minutes: u64| Freshness::For(Duration::from_secs(minutes * 60));
    let download = format!("{REGISTRY}/1.1.0/download/linux/amd64");
    for (path, key, place, freshness) in [
        (
            format!("{REGISTRY}/versions"),
            "cache/providers/acme/demo/versions",
            "/p/acme/demo/versions",
            minutes(10),
        ),
        (
            download.clone(),
            "cache/providers/acme/demo/1.1.0/download/linux_amd64",
            "/p/acme/demo/1.1.0/download/linux/amd64",
            minutes(60),
        ),
        (
            format!("{download}/terraform-provider-demo_1.1.0_SHA256SUMS"),
            "cache/providers/acme/demo/1.1.0/sums",
            "https://releases.example/SHA256SUMS",
            Freshness::Immutable,
        ),
        (
            format!("{download}/terraform-provider-demo_1.1.0_SHA256SUMS.sig"),
            "cache/providers/acme/demo/1.1.0/sums.sig",
            "https://releases.example/SHA256SUMS.sig",
            Freshness::Immutable,
        ),
        (
            zip_path(),
            "refs/providers/acme/demo/linux_amd64/1.1.0",
            "https://releases.example/terraform-provider-demo_1.1.0_linux_amd64.zip?X-Signature=a%2Fb",
            Freshness::Immutable,
        ),
        (
            format!("{MODULE}/versions"),
            "cache/modules/acme/net/aws/versions",
            "https://m.example/m/acme/net/aws/versions",
            minutes(10),
        ),
        (
            format!("{MODULE}/1.2.0/archive.tgz"),
            "refs/modules/acme/net/aws/1.2.0",
            "https://x.example/net.tgz?sig=1",
            Freshness::Immutable,
        ),
    ] {
        assert_eq!(of(&path), (key.to_owned(), place.to_owned(), freshness), "{path}");
    }
    let zip = world.resource(&zip_path());
    assert_eq!((zip.kind, zip.key.area), ("tf.provider", Area::Refs), "as the layout fixes it");
    assert_eq!(zip.expect, Some(Digest::of(LINUX).into()), "the sum is known before a byte arrives");
}

#[test]
fn no_other_path_leads_anywhere() {
    let world = World::new();
    for path in [
        "/tf",
        "/tf/",
        "/tf/acme",
        "/tf/acme/",
        "/tf/acme/v1/providers",
        "/tf/acme/v1/providers/acme/demo",
        "/tf/acme/v1/providers/acme/demo/versions/",
        "/tf/acme/v1/providers/acme/demo/1.1.0/download/linux/amd64/other.zip",
        "/tf/acme/v1/modules/acme/net/aws/1.2.0/archive.exe",
        "/tf/acme/v1/modules/acme/net/aws",
        "/tf/acme/mirror/registry.acme.example/acme/demo/terraform-provider-other_1.1.0_linux_amd64.zip",
        "/tf/acme/mirror/registry.acme.example/acme/demo/terraform-provider-demo_1.1.0.zip",
        "/tf//v1/providers/acme/demo/versions/x",
    ] {
        assert!(matches!(world.get(path), Err(Refusal::NoEndpoint)), "{path}: {:?}", world.get(path));
    }
    for path in ["/tf/acme/v1/providers/../demo/versions", "/tf/acme/v1/providers/a%2fb/demo/versions"] {
        assert!(matches!(world.get(path), Err(Refusal::Invalid { .. })), "{path}");
    }
    assert!(matches!(world.get("/tf/nobody/v1/providers/acme/demo/versions"), Err(Refusal::NoProxy)));
}

proptest! {
    #[test]
    fn no_path_makes_the_dialect_panic_or_leaves_the_grammar_of_keys(
        mount in "(v1/providers|v1/modules|mirror/registry\\.acme\\.example)",
        rest in "[-a-z0-9._+%/ \\\\\u{0}ä]{0,60}",
        file in "(versions|index\\.json|1\\.0\\.json|download/linux/amd64|archive\\.zip|)",
    ) {
        let world = World::new();
        let _ = world.get(&format!("/tf/acme/{mount}/{rest}/{file}"));
        // What was asked for on the way stays below the places of the registry.
        for place in world.asked.borrow().iter() {
            prop_assert!(!place.contains(".."), "{}", place);
        }
    }
}

#[test]
fn the_dialect_owns_its_mount_and_service_discovery_and_no_other_servers_targets() {
    let headers = HeaderMap::new();
    let head =
        |authority, path| Head { method: &Method::GET, authority, path, query: None, headers: &headers };
    let table = World::new().table();
    for (authority, path, owned) in [
        (None, "/tf", true),
        (None, "/tf/acme/v1/providers/a/b/versions", true),
        (None, "/.well-known/terraform.json", true),
        (None, "/tfx", false),
        (None, "/v2/", false),
        (Some("registry.terraform.io"), "/tf/acme", false),
    ] {
        assert_eq!(Tf.owns(&head(authority, path), &table), owned, "{authority:?} {path}");
    }
}

#[test]
fn a_refs_scope_is_its_provider_or_module() {
    for (path, scope) in [
        ("providers/acme/demo/linux_amd64/1.1.0", "providers/acme/demo"),
        ("providers/acme/demo/versions", "providers/acme/demo"),
        ("modules/acme/net/aws/1.2.0", "modules/acme/net/aws"),
        ("modules/acme/net/aws/1.2.0/download", "modules/acme/net/aws"),
        ("services", ""),
        ("providers/acme", ""),
        ("providers/a.b/c/d/e", ""),
        ("other/a/b/c", ""),
    ] {
        let path: RefPath = path.parse().expect("valid");
        assert_eq!(Tf.scope(&path), scope, "{path}");
    }
}

#[test]
fn what_an_operator_names_leads_to_refs() {
    let proxy = &World::new().proxies[0];
    let named = |what, version| -> Vec<String> {
        Tf::named(proxy, what, version).iter().map(ToString::to_string).collect()
    };
    assert_eq!(named("acme/demo", "1.1.0")[0], "tf/acme/refs/providers/acme/demo/linux_amd64/1.1.0");
    assert_eq!(named("acme/net/aws", "1.2.0"), ["tf/acme/refs/modules/acme/net/aws/1.2.0"]);
    for (what, version) in
        [("demo", "1.1.0"), ("a/b/c/d", "1.0.0"), ("acme/demo", "latest"), ("a/../b", "1.0")]
    {
        assert!(named(what, version).is_empty(), "{what}");
    }
}
