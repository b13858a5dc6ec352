//! What clients are given: documents, sources of modules, service discovery, hashes and refusals.

use super::*;

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
        (Refusal::Unreachable, 502),
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
