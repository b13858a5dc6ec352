//! The protocol reference's list of pitfalls, by its numbers.

use super::*;
use crate::protocol::Part;

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
