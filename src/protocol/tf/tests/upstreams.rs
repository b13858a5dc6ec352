//! What upstream's own documents say: where things are, for how long, and what is no document.

use super::*;

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
