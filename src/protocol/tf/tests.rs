//! The dialect as the engine sees it: requests in, needs, resources, documents and refusals out. The
//! tests that begin with `pitfall` are those of the protocol reference's list, by its numbers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderMap;
use proptest::prelude::*;

use super::*;
use crate::model::{Area, Freshness, ProxyId, Source, Timestamp};
use crate::protocol::openpgp::Keyring;
use crate::protocol::{Gotten, Need, Part};

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
fn a_proxys_ttl_is_that_of_lists_and_shortens_that_of_documents() {
    for (ttl, list, document) in [(5, 5, 5), (7200, 7200, 3600)] {
        let mut world = World::new();
        world.proxies[0].ttl = Some(Duration::from_secs(ttl));
        let of = |path: &str| world.resource(path).freshness.ttl_seconds();
        assert_eq!(of(&format!("{REGISTRY}/versions")), Some(list));
        assert_eq!(of(&format!("{REGISTRY}/1.1.0/download/linux/amd64")), Some(document));
    }
}

#[test]
fn upstreams_service_discovery_says_where_things_are() {
    for (services, place) in [
        (Some(r#"{"providers.v1":"/p/"}"#), Ok("/p/acme/demo/versions")),
        (Some(r#"{"providers.v1":"p"}"#), Ok("/.well-known/p/acme/demo/versions")),
        (
            Some(r#"{"providers.v1":"https://api.example/v1/"}"#),
            Ok("https://api.example/v1/acme/demo/versions"),
        ),
        (None, Ok("/v1/providers/acme/demo/versions")),
        (Some(r#"{"modules.v1":"/m/"}"#), Err("NotFound")),
        (Some(r#"{"providers.v1":"file:///etc/"}"#), Err("BadUpstream")),
        (Some(r#"{"providers.v1":"git::/p/"}"#), Err("BadUpstream")),
        (Some(r#"{"providers.v1":"mailto:me@x.example"}"#), Err("BadUpstream")),
        (Some("<html>"), Err("BadUpstream")),
    ] {
        let mut world = World::new();
        match services {
            Some(services) => world.put("/.well-known/terraform.json", services),
            None => drop(world.there.remove("/.well-known/terraform.json")),
        }
        match (world.get(&format!("{REGISTRY}/versions")), place) {
            (Ok(Route::Fetch(fetch)), Ok(place)) => {
                let (Source::Path(found) | Source::Url(found)) = fetch.resource.source;
                assert_eq!(found, place);
            }
            (Ok(Route::Held { otherwise, .. }), Err(name)) => {
                assert!(format!("{otherwise:?}").starts_with(name), "{services:?}: {otherwise:?}");
            }
            (other, _) => panic!("{services:?} leads to {other:?}"),
        }
    }
}

#[test]
fn addresses_below_upstreams_own_are_paths_so_that_its_other_places_and_credentials_count() {
    let upstream = "https://reg.example/base/".parse().expect("a URL");
    for (url, expected) in [
        ("https://reg.example/base/v1/x?y=1#z", Source::Path("/v1/x?y=1".into())),
        ("https://reg.example/v1/x", Source::Url("https://reg.example/v1/x".into())),
        ("https://reg.example/basement/x", Source::Url("https://reg.example/basement/x".into())),
        ("https://reg.example:444/base/x", Source::Url("https://reg.example:444/base/x".into())),
    ] {
        assert_eq!(documents::source(url.parse().expect("a URL"), &upstream), Ok(expected), "{url}");
    }
    for url in ["file:///etc/passwd", "ftp://x/y", "git::https://x/y"] {
        let url = url.parse().expect("a URL");
        assert!(matches!(documents::source(url, &upstream), Err(Refusal::BadUpstream(_))));
    }
}

#[test]
fn what_is_cached_is_used_when_upstreams_own_documents_cannot_be_had() {
    let mut world = World::new();
    world.put_module("", Some("https://x.example/net.tgz"));
    world.failing.insert("/.well-known/terraform.json".into(), Refusal::Timeout);
    for (path, key) in [
        (zip_path(), "refs/providers/acme/demo/linux_amd64/1.1.0"),
        (format!("{REGISTRY}/versions"), "cache/providers/acme/demo/versions"),
        (format!("{MODULE}/1.2.0/archive.tgz"), "refs/modules/acme/net/aws/1.2.0"),
    ] {
        let Ok(Route::Held { fetch, otherwise }) = world.get(&path) else { panic!("{path} is held") };
        assert_eq!((fetch.resource.key.to_string(), otherwise), (format!("tf/acme/{key}"), Refusal::Timeout));
    }
    assert!(matches!(world.get(&format!("{MIRROR}/index.json")), Err(Refusal::Timeout)));
}

#[test]
fn download_documents_name_this_server_and_are_otherwise_untouched() {
    let world = World::new();
    let document = world.rewritten(&format!("{REGISTRY}/1.1.0/download/linux/amd64"));
    assert_eq!(document["download_url"], "amd64/terraform-provider-demo_1.1.0_linux_amd64.zip");
    assert_eq!(document["shasums_url"], "amd64/terraform-provider-demo_1.1.0_SHA256SUMS");
    assert_eq!(document["shasums_signature_url"], "amd64/terraform-provider-demo_1.1.0_SHA256SUMS.sig");
    let (body, _) = &world.there["/p/acme/demo/1.1.0/download/linux/amd64"];
    let upstream: Value = serde_json::from_slice(body).expect("JSON");
    for field in ["shasum", "filename", "signing_keys", "protocols", "os", "arch", "later", "packages"] {
        assert_eq!(document[field], upstream[field], "{field}");
    }
    // Resolved as clients do, they are requests for what they should be.
    let at: url::Url = format!("http://any:1{REGISTRY}/1.1.0/download/linux/amd64").parse().expect("a URL");
    for field in ["download_url", "shasums_url", "shasums_signature_url"] {
        let place = at.join(document[field].as_str().expect("text")).expect("relative");
        assert!(world.get(place.path()).is_ok(), "{place}");
    }
}

#[test]
fn a_signature_that_proves_nothing_is_refused_and_the_key_is_named() {
    type Change = fn(&mut World);
    let cases: [(&str, Change, &str); 4] = [
        (
            "changed",
            |world| world.put("https://releases.example/SHA256SUMS", [SUMS, b"\n"].concat()),
            "does not fit",
        ),
        (
            "stranger",
            |world| world.put("https://releases.example/SHA256SUMS.sig", BY_STRANGER),
            "not by one of",
        ),
        (
            "missing",
            |world| drop(world.there.remove("https://releases.example/SHA256SUMS.sig")),
            "there is no signature",
        ),
        ("keyless", |world| world.put_download("linux", "amd64", LINUX, None), "no key"),
    ];
    let key = Keyring::read(KEY.as_bytes()).expect("keys").ids().remove(0);
    for (name, change, expected) in cases {
        let mut world = World::new();
        change(&mut world);
        let sums = format!("{REGISTRY}/1.1.0/download/linux/amd64/terraform-provider-demo_1.1.0_SHA256SUMS");
        for path in [zip_path(), format!("{MIRROR}/1.1.0.json"), format!("{sums}.sig"), sums] {
            // The sums themselves are judged when they are fetched.
            let refusal = match world.get(&path) {
                Ok(Route::Fetch(fetch)) => world.fetch(&fetch.resource).expect_err(name),
                Err(refusal) => refusal,
                other => panic!("{name}: {path} leads to {other:?}"),
            };
            let Refusal::Untrusted { why } = refusal else { panic!("{name}: {path}: {refusal}") };
            assert!(why.contains(expected), "{name}: {why}");
            assert!(why.contains(&key) || name == "keyless", "{name}: {why}");
        }
    }
}

#[test]
fn a_registry_without_keys_is_accepted_where_the_operator_says_so_and_nowhere_else() {
    let mut world = World::new();
    world.put_download("linux", "amd64", LINUX, None);
    world.there.remove("https://releases.example/SHA256SUMS.sig");
    assert!(matches!(world.get(&zip_path()), Err(Refusal::Untrusted { .. })));
    world.proxies[0].unsigned = true;
    assert_eq!(world.resource(&zip_path()).expect, Some(Digest::of(LINUX).into()));
    // Where there are keys, they count all the same.
    world.put_download("linux", "amd64", LINUX, Some(KEY));
    assert!(matches!(world.get(&zip_path()), Err(Refusal::Untrusted { .. })));
}

#[test]
fn the_verdict_on_a_signature_is_written_down() {
    let world = World::new();
    let sums = world
        .resource(&format!("{REGISTRY}/1.1.0/download/linux/amd64/terraform-provider-demo_1.1.0_SHA256SUMS"));
    let mut companions = Gathered::default();
    for companion in Tf.companions(&sums, None, SUMS).expect("a signature") {
        let found = world.bring(&companion.resource);
        companions.add_document(companion.resource.key, found);
    }
    let descriptors = Tf.vet(&sums, SUMS, &companions).expect("valid");
    let [Descriptor { path, kind, facts }] = descriptors.as_slice() else { panic!("one verdict") };
    assert_eq!((path.as_str(), *kind), ("providers/acme/demo/1.1.0/signature", "tf.verdict"));
    assert_eq!(facts["verdict"], "valid");
    assert_eq!(facts["keyId"], Keyring::read(KEY.as_bytes()).expect("keys").ids()[0]);
}

#[test]
fn a_zip_whose_sum_is_not_in_the_signed_list_is_never_asked_for() {
    let mut world = World::new();
    world.put_download("linux", "amd64", b"another zip", Some(KEY));
    let Err(Refusal::Untrusted { why }) = world.get(&zip_path()) else { panic!("untrusted") };
    assert!(why.contains("terraform-provider-demo_1.1.0_linux_amd64.zip"), "{why}");
}

#[test]
fn error_pages_never_take_a_documents_place() {
    let world = World::new();
    for path in ["versions", "1.1.0/download/linux/amd64"] {
        let resource = world.resource(&format!("{REGISTRY}/{path}"));
        for page in [&b"<html>log in</html>"[..], b"", b"[]", b"{}", b"null", b"{\"versions\":7}"] {
            let vetted = Tf.vet(&resource, page, &Gathered::default());
            assert!(matches!(vetted, Err(Refusal::BadUpstream(_))), "{path}: {page:?}");
        }
    }
    let resource = world.resource(&format!("{MODULE}/versions"));
    for page in [&b"<html>"[..], b"", b"{}", b"[]"] {
        assert!(matches!(Tf.vet(&resource, page, &Gathered::default()), Err(Refusal::BadUpstream(_))));
    }
}

#[test]
fn modules_are_answered_with_204_and_a_header_whatever_upstream_does() {
    for (body, header, expected) in [
        ("", Some("https://x.example/n.tgz//sub?archive=tar.gz"), "./archive.tar.gz//sub?archive=tar.gz"),
        (r#"{"location":"https://x.example/n.zip"}"#, None, "./archive.zip"),
        (r#"{"location":"https://x.example/n.zip"}"#, Some("https://x.example/n.tgz"), "./archive.zip"),
        (r"{}", Some("/n.tgz"), "./archive.tgz"),
        ("", Some("git::https://github.com/o/r?ref=v1.2.0"), "git::https://github.com/o/r?ref=v1.2.0"),
        ("", Some("./page"), "https://m.example/m/acme/net/aws/1.2.0/page"),
    ] {
        let mut world = World::new();
        world.put_module(body, header);
        let reply = world.local(&format!("{MODULE}/1.2.0/download"));
        assert_eq!(reply.status, StatusCode::NO_CONTENT);
        let source = reply.headers.iter().find(|(name, _)| name == "x-terraform-get").expect("a source");
        assert_eq!(source.1, expected);
        assert!(reply.body.is_empty());
    }
    let mut world = World::new();
    world.put_module("", None);
    assert!(matches!(world.get(&format!("{MODULE}/1.2.0/download")), Err(Refusal::BadUpstream(_))));
    world.put_module("", Some("https://x.example/n.tgz"));
    let other = world.get(&format!("{MODULE}/1.2.0/archive.zip"));
    assert!(matches!(other, Err(Refusal::NotFound)), "only under the name that was given");
}

#[test]
fn service_discovery_leads_to_the_services_of_this_server() {
    let world = World::new();
    for (path, proxy) in [
        ("/.well-known/terraform.json", "acme"),
        ("/tf/acme/.well-known/terraform.json", "acme"),
        ("/tf/other.example/.well-known/terraform.json", "other.example"),
    ] {
        let reply = world.local(path);
        let services: BTreeMap<String, String> = serde_json::from_slice(&reply.body).expect("JSON");
        let at: url::Url = format!("https://cache.example{path}").parse().expect("a URL");
        for (service, rest) in [("providers.v1", "providers"), ("modules.v1", "modules")] {
            let place = at.join(&services[service]).expect("relative");
            assert_eq!(place.path(), format!("/tf/{proxy}/v1/{rest}/"), "{path}");
        }
    }
    let mut world = world;
    world.proxies[0].default = false;
    assert!(matches!(world.get("/.well-known/terraform.json"), Err(Refusal::NoProxy)));
}

#[test]
fn pitfall_1_mirror_addresses_are_relative_to_this_server() {
    let world = World::new();
    let document = world.made(&format!("{MIRROR}/1.1.0.json"));
    for (platform, zip) in [("linux_amd64", LINUX), ("darwin_arm64", DARWIN)] {
        let archive = &document["archives"][platform];
        let url = archive["url"].as_str().expect("text");
        assert_eq!(url, format!("terraform-provider-demo_1.1.0_{platform}.zip"));
        let resource = world.resource(&format!("{MIRROR}/{url}"));
        assert_eq!(resource.key.path.as_str(), format!("providers/acme/demo/{platform}/1.1.0"));
        assert_eq!(archive["hashes"][0], format!("zh:{}", Digest::of(zip).hex()));
    }
    // What upstream knows beside it goes along; its `zh:` does not, for it is not signed.
    let hashes = &document["archives"]["linux_amd64"]["hashes"];
    assert_eq!(hashes.as_array().expect("a list").len(), 2, "{hashes}");
    assert_eq!(hashes[1], "h1:abc=");
}

#[test]
fn a_zip_that_was_read_adds_its_h1_where_upstream_says_none() {
    let mut world = World::new();
    let path = |platform: &str| format!("providers/acme/demo/{platform}/1.1.0");
    world.read.insert(path("linux_amd64"), ("h1".to_owned(), json!("h1:other=")));
    world.read.insert(path("darwin_arm64"), ("h1".to_owned(), json!("h1:known=")));
    let document = world.made(&format!("{MIRROR}/1.1.0.json"));
    let hashes = |platform: &str| document["archives"][platform]["hashes"].clone();
    assert_eq!(hashes("linux_amd64")[1], "h1:abc=", "upstream's own word counts");
    assert_eq!(hashes("darwin_arm64"), json!([format!("zh:{}", Digest::of(DARWIN).hex()), "h1:known="]));
    // Of a zip that has no such hash, that is known.
    world.read.insert(path("darwin_arm64"), ("x".to_owned(), json!(1)));
    let document = world.made(&format!("{MIRROR}/1.1.0.json"));
    assert_eq!(document["archives"]["darwin_arm64"]["hashes"].as_array().map(Vec::len), Some(1));
    let zips = world.asked.borrow().iter().filter(|place| place.contains(".zip")).count();
    assert_eq!(zips, 0, "none is fetched for it");
}

#[test]
fn pitfall_2_both_protocols_are_served_and_share_what_is_cached() {
    let world = World::new();
    let by_registry = world.resource(&zip_path());
    let by_mirror = world.resource(&format!("{MIRROR}/terraform-provider-demo_1.1.0_linux_amd64.zip"));
    assert_eq!(by_registry, by_mirror);
    assert!(world.get(&format!("{REGISTRY}/versions")).is_ok());
    assert!(world.get(&format!("{MIRROR}/index.json")).is_ok());
}

#[test]
fn pitfall_3_upstreams_addresses_are_no_part_of_keys_and_only_http() {
    let mut world = World::new();
    let key = world.resource(&zip_path()).key;
    let document = |url: &str| {
        let (body, _) = &World::new().there["/p/acme/demo/1.1.0/download/linux/amd64"];
        let mut document: Value = serde_json::from_slice(body).expect("JSON");
        document["download_url"] = json!(url);
        document.to_string()
    };
    world
        .put("/p/acme/demo/1.1.0/download/linux/amd64", document("http://elsewhere.example/../a//b?token=x"));
    assert_eq!(world.resource(&zip_path()).key, key);
    for bad in ["file:///etc/passwd", "git::https://x/y", "http://"] {
        world.put("/p/acme/demo/1.1.0/download/linux/amd64", document(bad));
        let route = world.get(&zip_path());
        assert!(
            matches!(route, Ok(Route::Held { otherwise: Refusal::BadUpstream(_), .. })),
            "{bad}: {route:?}"
        );
    }
}

#[test]
fn pitfall_4_a_versions_document_takes_one_download_document_and_one_list_of_sums() {
    let world = World::new();
    world.made(&format!("{MIRROR}/1.1.0.json"));
    assert_eq!(
        *world.asked.borrow(),
        [
            "/.well-known/terraform.json",
            "/p/acme/demo/versions",
            "/p/acme/demo/1.1.0/download/linux/amd64",
            "https://releases.example/SHA256SUMS",
            "https://releases.example/SHA256SUMS.sig",
        ]
    );
    // One that is not there any more does not hide the others, nor is it listed without a sum.
    let mut world = World::new();
    world.there.remove("/p/acme/demo/1.1.0/download/linux/amd64");
    assert!(world.made(&format!("{MIRROR}/1.1.0.json"))["archives"]["darwin_arm64"].is_object());
}

#[test]
fn pitfall_5_the_host_name_in_a_mirrors_path_leads_only_to_what_is_configured() {
    let world = World::new();
    for host in ["registry.acme.example", "Registry.ACME.example", "lan:8443", "lan%3A8443"] {
        let path = format!("/tf/other/mirror/{host}/acme/demo/index.json");
        assert!(matches!(world.get(&path), Ok(Route::Made(_))), "{host}");
    }
    for host in ["registry.terraform.io", "acme", "lan", "127.0.0.1", "..", "a%2fb"] {
        let path = format!("/tf/acme/mirror/{host}/acme/demo/index.json");
        assert!(matches!(world.get(&path), Err(Refusal::NoProxy)), "{host}");
    }
    assert!(matches!(world.get("/tf/nobody/mirror/lan:8443/acme/demo/index.json"), Err(Refusal::NoProxy)));
}

#[test]
fn pitfall_6_no_version_is_listed_that_cannot_be_asked_for() {
    let world = World::new();
    let index = world.made(&format!("{MIRROR}/index.json"));
    assert_eq!(index, json!({"versions": {"1.1.0": {}, "1.0.0+build.7": {}}}), "`v0.9.0` is no version");
    for path in ["v0.9.0.json", "2.0.0.json"] {
        assert!(world.get(&format!("{MIRROR}/{path}")).is_err(), "{path}");
    }
}

#[test]
fn pitfall_7_what_upstream_has_not_is_404_and_what_cannot_be_asked_is_not() {
    let mut world = World::new();
    let missing = "/tf/acme/mirror/registry.acme.example/acme/nothing/index.json";
    assert!(matches!(world.get(missing), Err(Refusal::NotFound)));
    world.failing.insert("/p/acme/demo/versions".into(), Refusal::Unavailable { retry_after: None });
    let refusal = world.get(&format!("{MIRROR}/index.json")).expect_err("unavailable");
    let headers = HeaderMap::new();
    let head = Head { method: &Method::GET, authority: None, path: "/tf/", query: None, headers: &headers };
    assert_eq!(Tf.refuse(&head, &refusal).status, 503, "a 404 would send clients elsewhere");
}

#[test]
fn pitfall_9_versions_have_no_v_and_a_build_may_come_encoded() {
    let mut world = World::new();
    let (body, source) = world.there["/p/acme/demo/1.1.0/download/linux/amd64"].clone();
    world.there.insert("/p/acme/demo/1.0.0+build.7/download/linux/amd64".into(), (body, source));
    let keys = ["1.0.0+build.7", "1.0.0%2Bbuild.7", "1.0.0%2bbuild.7"].map(|version| {
        let resource = world.resource(&format!("{REGISTRY}/{version}/download/linux/amd64"));
        assert_eq!(resource.source, Source::Path("/p/acme/demo/1.0.0+build.7/download/linux/amd64".into()));
        resource.key
    });
    assert!(keys.iter().all(|key| *key == keys[0]));
    for bad in ["v1.1.0", "latest", "", "..", "1..0", "1.0.0%20", "1.0.0%2f..", "1.0.0;x"] {
        let route = world.get(&format!("{REGISTRY}/{bad}/download/linux/amd64"));
        assert!(matches!(route, Err(Refusal::Invalid { what: Part::Reference, .. })), "{bad}: {route:?}");
    }
}

#[test]
fn pitfall_10_head_is_routed_like_get_and_everything_else_is_refused() {
    let mut world = World::new();
    world.put_module("", Some("https://x.example/net.tgz"));
    for path in [
        "/.well-known/terraform.json".to_owned(),
        format!("{REGISTRY}/versions"),
        format!("{REGISTRY}/1.1.0/download/linux/amd64"),
        zip_path(),
        format!("{MIRROR}/index.json"),
        format!("{MIRROR}/1.1.0.json"),
        format!("{MODULE}/1.2.0/download"),
        format!("{MODULE}/1.2.0/archive.tgz"),
    ] {
        let [get, head] = ["GET", "HEAD"].map(|method| format!("{:?}", world.route(method, &path)));
        assert_eq!(get, head, "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            assert!(matches!(world.route(method, &path), Err(Refusal::ReadOnly)), "{method} {path}");
        }
    }
}

#[test]
fn pitfall_11_tool_releases_are_not_a_registrys_business() {
    let world = World::new();
    for path in
        ["/tf/acme/terraform/index.json", "/tf/acme/terraform/1.11.4/terraform_1.11.4_linux_amd64.zip"]
    {
        assert!(matches!(world.get(path), Err(Refusal::NoEndpoint)), "{path}");
    }
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
fn refusals_are_worded_as_registries_do() {
    let headers = HeaderMap::new();
    let head = Head { method: &Method::GET, authority: None, path: "/tf/", query: None, headers: &headers };
    for (refusal, status) in [
        (Refusal::NotFound, 404),
        (Refusal::NoProxy, 404),
        (Refusal::Denied { anonymous: true }, 404),
        (Refusal::Denied { anonymous: false }, 403),
        (Refusal::ReadOnly, 405),
        (Refusal::RateLimited { retry_after: None }, 429),
        (Refusal::Timeout, 504),
        (Refusal::Untrusted { why: "the signature by key 1234 is not valid".to_owned() }, 502),
    ] {
        let reply = Tf.refuse(&head, &refusal);
        assert_eq!(reply.status, status, "{refusal}");
        let body: BTreeMap<String, Vec<String>> = serde_json::from_slice(&reply.body).expect("JSON");
        assert_eq!(body["errors"].len(), 1);
        assert!(!matches!(refusal, Refusal::Untrusted { .. }) || body["errors"][0].contains("1234"));
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
