//! Terraform's protocols through the real binary from a scripted registry: what clients get, what is
//! kept, and what upstream is asked for it.

pub mod support;

use std::time::Duration;

use http::StatusCode;
use repoxy::model::Digest;
use serde_json::{Value, json};
use support::{Got, Origin, Repoxy};

const SUMS: &[u8] = include_bytes!("../fixtures/tf/terraform-provider-demo_1.1.0_SHA256SUMS");
const LINUX: &[u8] = include_bytes!("../fixtures/tf/terraform-provider-demo_1.1.0_linux_amd64.zip");
const DARWIN: &[u8] = include_bytes!("../fixtures/tf/terraform-provider-demo_1.1.0_darwin_arm64.zip");
/// A zip that can be unpacked, and its hash as `src/protocol/tf/hashes.rs` has it from elsewhere.
const PACKED: &[u8] = include_bytes!("../fixtures/tf/h1/package.zip");
const PACKED_H1: &str = "h1:l7We/CGFPHvPM1rnFDsNab+SsbjnqB48Il9yj1BclNI=";
const KEY: &str = include_str!("../fixtures/tf/ed25519.asc");
const SIGNATURE: &[u8] = include_bytes!("../fixtures/tf/ed25519.sig");
const BY_STRANGER: &[u8] = include_bytes!("../fixtures/tf/stranger.sig");

const VERSIONS: &str = "/tf/acme/v1/providers/acme/demo/versions";
const DOWNLOAD: &str = "/tf/acme/v1/providers/acme/demo/1.1.0/download/linux/amd64";
const MIRROR: &str = "/tf/acme/mirror/registry.acme.example/acme/demo";
const ZIP: &str =
    "/tf/acme/mirror/registry.acme.example/acme/demo/terraform-provider-demo_1.1.0_linux_amd64.zip";
const MODULE: &str = "/tf/acme/v1/modules/acme/net/aws";
const MODULE_DOWNLOAD: &str = "/v1/modules/acme/net/aws/1.2.0/download";
const TREE: &str = "type/tf/proxies/acme";

fn hex(bytes: &[u8]) -> String {
    Digest::of(bytes).hex()
}

/// A registry with one signed provider; it has no service discovery.
async fn registry() -> Origin {
    let origin = Origin::start().await;
    origin.file(
        "/v1/providers/acme/demo/versions",
        "application/json",
        r#"{"versions":[{"version":"1.1.0","protocols":["5.0"],"platforms":[{"os":"linux","arch":"amd64"},{"os":"darwin","arch":"arm64"}]}],"warnings":["old"]}"#,
    );
    put_download(&origin, "linux", "amd64", &hex(LINUX), Some(KEY));
    put_download(&origin, "darwin", "arm64", &hex(DARWIN), Some(KEY));
    origin.file("/files/SHA256SUMS", "text/plain", SUMS);
    origin.file("/files/SHA256SUMS.sig", "application/octet-stream", SIGNATURE);
    origin.file("/files/linux_amd64.zip", "application/zip", LINUX);
    origin.file("/files/darwin_arm64.zip", "application/zip", DARWIN);
    origin
}

fn put_download(origin: &Origin, os: &str, arch: &str, shasum: &str, key: Option<&str>) {
    let keys: Vec<_> = key.iter().map(|key| json!({"key_id": "x", "ascii_armor": key})).collect();
    let document = json!({
        "protocols": ["5.0"], "os": os, "arch": arch,
        "filename": format!("terraform-provider-demo_1.1.0_{os}_{arch}.zip"),
        "download_url": format!("/files/{os}_{arch}.zip"),
        "shasums_url": format!("{}/files/SHA256SUMS", origin.url()),
        "shasums_signature_url": "../../../../../../../../files/SHA256SUMS.sig",
        "shasum": shasum,
        "signing_keys": {"gpg_public_keys": keys},
    });
    let path = format!("/v1/providers/acme/demo/1.1.0/download/{os}/{arch}");
    origin.file(&path, "application/json", document.to_string());
}

fn before(origin: &Origin, more: &str) -> Repoxy {
    Repoxy::with(&format!(
        "[[proxy]]\ntype = \"tf\"\nname = \"acme\"\nupstream = \"{}\"\nns = [\"registry.acme.example\"]\ndefault = true\n{more}\n",
        origin.url()
    ))
}

fn json_of(got: &Got) -> Value {
    assert_eq!(got.status, StatusCode::OK, "{:?}", got.body);
    assert_eq!(got.header("content-type"), "application/json");
    serde_json::from_slice(got.bytes()).expect("JSON")
}

/// All that clients of the registry protocol ask for, as they find it.
async fn assert_provider(repoxy: &Repoxy) {
    let versions = json_of(&repoxy.get(VERSIONS).await);
    assert_eq!(versions["warnings"][0], "old", "unknown fields pass");
    let document = json_of(&repoxy.get(DOWNLOAD).await);
    assert_eq!(document["shasum"], hex(LINUX));
    let directory = DOWNLOAD.rsplit_once('/').expect("a path").0;
    for (field, bytes) in
        [("shasums_url", SUMS), ("shasums_signature_url", SIGNATURE), ("download_url", LINUX)]
    {
        let path = format!("{directory}/{}", document[field].as_str().expect("relative"));
        let head = repoxy.head(&path).await;
        assert_eq!((head.status, head.header("content-length")), (StatusCode::OK, &*bytes.len().to_string()));
        assert_eq!(repoxy.get(&path).await.bytes(), bytes, "{field}");
    }
}

async fn assert_mirror(repoxy: &Repoxy) {
    assert_eq!(
        json_of(&repoxy.get(&format!("{MIRROR}/index.json")).await),
        json!({"versions": {"1.1.0": {}}})
    );
    let document = json_of(&repoxy.get(&format!("{MIRROR}/1.1.0.json")).await);
    for (platform, zip) in [("linux_amd64", LINUX), ("darwin_arm64", DARWIN)] {
        let archive = &document["archives"][platform];
        assert_eq!(archive["hashes"], json!([format!("zh:{}", hex(zip))]));
        let got = repoxy.get(&format!("{MIRROR}/{}", archive["url"].as_str().expect("relative"))).await;
        assert_eq!(got.bytes(), zip);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_gives_the_h1_of_zips_that_are_cached_and_fetches_none_for_it() {
    let origin = registry().await;
    let sums = format!("{}  terraform-provider-demo_1.1.0_linux_amd64.zip\n", hex(PACKED));
    origin.file("/files/SHA256SUMS", "text/plain", sums);
    origin.file("/files/linux_amd64.zip", "application/zip", PACKED);
    put_download(&origin, "linux", "amd64", &hex(PACKED), None);
    let repoxy = before(&origin, "ttl = \"1h\"\nunsigned = true");
    let zh = format!("zh:{}", hex(PACKED));
    let hashes = async || {
        let document = json_of(&repoxy.get(&format!("{MIRROR}/1.1.0.json")).await);
        document["archives"]["linux_amd64"]["hashes"].clone()
    };
    for _ in 0..3 {
        assert_eq!(hashes().await, json!([zh]));
    }
    assert_eq!(origin.count("GET", "/files/linux_amd64.zip"), 0);
    assert_eq!(repoxy.get(ZIP).await.bytes(), PACKED);
    eventually("the zip was read", async || hashes().await == json!([zh, PACKED_H1])).await;
    assert_eq!(origin.count("GET", "/files/linux_amd64.zip"), 1);
    let facts = format!("{TREE}/meta/providers/acme/demo/1.1.0/hashes/linux_amd64.json");
    let facts = std::fs::read(repoxy.root().join(facts)).expect("written down");
    let facts: Value = serde_json::from_slice(&facts).expect("JSON");
    assert_eq!((&facts["h1"], &facts["kind"]), (&json!(PACKED_H1), &json!("tf.hashes")));
    repoxy.assert_sound().await;
}

/// Names of the files below a tree of the proxy.
fn names(repoxy: &Repoxy, tree: &str) -> Vec<String> {
    let below = repoxy.root().join(TREE).join(tree);
    let files = repoxy.files(&format!("{TREE}/{tree}"));
    files.iter().map(|file| file.strip_prefix(&below).expect("below").display().to_string()).collect()
}

/// Waits until something holds: content is published a moment after its last byte was sent.
async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..3000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("in a minute it never came about that {what}");
}

/// Waits until exactly these refs are there.
async fn refs_are(repoxy: &Repoxy, expected: &[&str]) {
    eventually(&format!("the refs are {expected:?}"), async || names(repoxy, "refs") == expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_fetched_once_for_both_protocols_and_outlives_upstream_and_index() {
    let origin = registry().await;
    let mut repoxy = before(&origin, "ttl = \"1h\"");
    for _ in 0..2 {
        assert_provider(&repoxy).await;
        assert_mirror(&repoxy).await;
    }
    for path in ["SHA256SUMS", "SHA256SUMS.sig", "linux_amd64.zip", "darwin_arm64.zip"] {
        assert_eq!(origin.count("GET", &format!("/files/{path}")), 1, "{path}");
    }
    assert_eq!(origin.count("GET", "/v1/*"), 3, "versions and two download documents");
    let [darwin, linux] =
        ["darwin_arm64", "linux_amd64"].map(|platform| format!("providers/acme/demo/{platform}/1.1.0.json"));
    refs_are(&repoxy, &[&darwin, &linux]).await;
    let file = repoxy.root().join(TREE).join("refs/providers/acme/demo/linux_amd64/1.1.0.json");
    let reference: Value = serde_json::from_slice(&std::fs::read(file).expect("a ref")).expect("JSON");
    assert_eq!((&reference["kind"], &reference["size"]), (&json!("tf.provider"), &json!(LINUX.len())));
    assert_eq!(reference["zipDigest"], format!("sha256:{}", hex(LINUX)));

    let facts = names(&repoxy, "meta");
    assert!(facts.contains(&"providers/acme/demo/1.1.0/signature.json".to_owned()), "{facts:?}");
    let file = repoxy.root().join(TREE).join("meta/providers/acme/demo/1.1.0/signature.json");
    let verdict: Value = serde_json::from_slice(&std::fs::read(file).expect("a verdict")).expect("JSON");
    assert_eq!((&verdict["verdict"], &verdict["kind"]), (&json!("valid"), &json!("tf.verdict")));
    assert_eq!(verdict["keyId"].as_str().map(str::len), Some(16));

    origin.stop().await;
    assert_provider(&repoxy).await;
    assert_mirror(&repoxy).await;
    repoxy.terminate();
    for file in repoxy.files("index") {
        std::fs::remove_file(file).expect("an index file");
    }
    repoxy.start();
    assert_provider(&repoxy).await;
    assert_mirror(&repoxy).await;
    for command in [&["fsck", "--read-data"][..], &["reindex"], &["gc", "--dry-run"]] {
        assert!(repoxy.run(command).status.success(), "{command:?}");
    }
    for name in ["acme/demo:1.1.0", "registry.acme.example/acme/demo:1.1.0"] {
        let shown = repoxy.run(&["show", name]);
        assert!(String::from_utf8_lossy(&shown.stdout).contains("linux_amd64/1.1.0"), "{shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_past_its_time_is_served_stale_when_upstream_is_gone() {
    let origin = registry().await;
    let repoxy = before(&origin, "ttl = \"0s\"");
    assert_provider(&repoxy).await;
    origin.stop().await;
    assert_provider(&repoxy).await;
    let versions = repoxy.get(VERSIONS).await;
    assert!(versions.header("cache-status").contains("detail="), "{}", versions.header("cache-status"));
    assert_eq!(
        json_of(&repoxy.get(&format!("{MIRROR}/index.json")).await),
        json!({"versions": {"1.1.0": {}}})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_of_what_is_not_signed_by_a_key_that_the_registry_names() {
    for (what, sums, signature) in [
        ("changed", [SUMS, b"\n"].concat(), Some(SIGNATURE)),
        ("a stranger's", SUMS.to_vec(), Some(BY_STRANGER)),
        ("unsigned", SUMS.to_vec(), None),
    ] {
        let origin = registry().await;
        origin.file("/files/SHA256SUMS", "text/plain", sums);
        match signature {
            Some(signature) => {
                drop(origin.file("/files/SHA256SUMS.sig", "application/octet-stream", signature));
            }
            None => origin.remove("/files/SHA256SUMS.sig"),
        }
        let repoxy = before(&origin, "");
        let (sums, json) =
            (format!("{DOWNLOAD}/terraform-provider-demo_1.1.0_SHA256SUMS"), format!("{MIRROR}/1.1.0.json"));
        for path in [&sums, &format!("{sums}.sig"), &json, ZIP] {
            let got = repoxy.get(path).await;
            assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{what}: {path}");
            let body: Value = serde_json::from_slice(got.bytes()).expect("JSON");
            let why = body["errors"][0].as_str().expect("a sentence");
            assert!(why.contains("cannot be trusted") && why.contains("key"), "{what}: {why}");
        }
        assert_eq!(names(&repoxy, "refs"), [""; 0], "{what}");
        assert_eq!(names(&repoxy, "meta"), [""; 0], "{what}");
        let cached = names(&repoxy, "cache");
        assert!(!cached.iter().any(|name| name.contains("sums")), "{what}: {cached:?}");
        assert_eq!(origin.count("GET", "/files/linux_amd64.zip"), 0, "{what}");
        assert_eq!(origin.count("HEAD", "*"), 0, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zip_that_is_not_the_signed_one_is_cut_off_and_not_kept() {
    let origin = registry().await;
    let mut other = LINUX.to_vec();
    other[0] ^= 1;
    origin.file("/files/linux_amd64.zip", "application/zip", other);
    let repoxy = before(&origin, "");
    let got = repoxy.get(ZIP).await;
    assert!(got.body.is_err() || got.status == StatusCode::BAD_GATEWAY, "{got:?}");
    assert_eq!(names(&repoxy, "refs"), [""; 0]);
    let blobs = repoxy.files("type/tf/blobs");
    assert!(!blobs.iter().any(|blob| blob.metadata().is_ok_and(|data| data.len() == LINUX.len() as u64)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zip_whose_sum_the_signed_list_does_not_have_is_not_asked_for() {
    let origin = registry().await;
    put_download(&origin, "linux", "amd64", &hex(b"another zip"), Some(KEY));
    origin.file("/files/linux_amd64.zip", "application/zip", "another zip");
    let repoxy = before(&origin, "");
    assert_eq!(repoxy.get(ZIP).await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(origin.count("GET", "/files/linux_amd64.zip"), 0);
    assert_eq!(names(&repoxy, "refs"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_signature_is_fetched_anew_and_judged_by_the_cached_sums() {
    let origin = registry().await;
    let repoxy = before(&origin, "");
    let sums = format!("{DOWNLOAD}/terraform-provider-demo_1.1.0_SHA256SUMS");
    assert_eq!(repoxy.get(&sums).await.bytes(), SUMS);
    let signature = repoxy.root().join(TREE).join("cache/providers/acme/demo/1.1.0/sums.sig.json");
    std::fs::remove_file(&signature).expect("the signature's ref");
    for file in repoxy.files("index") {
        std::fs::remove_file(file).expect("an index file");
    }
    origin.file("/files/SHA256SUMS.sig", "application/octet-stream", BY_STRANGER);
    // The server has the row until it sees that its index is gone.
    let path = format!("{sums}.sig");
    eventually("the forged signature is seen", async || !repoxy.get(&path).await.status.is_success()).await;
    assert_eq!(repoxy.get(&format!("{sums}.sig")).await.status, StatusCode::BAD_GATEWAY);
    assert!(!signature.exists());
    origin.file("/files/SHA256SUMS.sig", "application/octet-stream", SIGNATURE);
    assert_eq!(repoxy.get(&format!("{sums}.sig")).await.bytes(), SIGNATURE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_written_by_hand_is_served_without_upstream() {
    let origin = registry().await;
    let mut repoxy = before(&origin, "");
    repoxy.terminate();
    origin.stop().await;
    let hex = hex(LINUX);
    let blob = repoxy.root().join(format!("type/tf/blobs/sha256/{}/{}/{hex}", &hex[..2], &hex[2..4]));
    let file = repoxy.root().join(TREE).join("refs/providers/acme/demo/linux_amd64/9.9.9.json");
    for path in [&blob, &file] {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    }
    std::fs::write(&blob, LINUX).expect("written");
    let reference = json!({
        "kind": "tf.provider", "zipDigest": format!("sha256:{hex}"), "size": LINUX.len(),
        "upstream": "registry.terraform.io", "fetchedAt": "2025-11-09T12:34:56Z", "ttlSeconds": 604_800,
    });
    std::fs::write(&file, reference.to_string()).expect("written");
    repoxy.start();
    for _ in 0..2 {
        let got = repoxy.get(&ZIP.replace("1.1.0", "9.9.9")).await;
        assert_eq!((got.status, got.bytes().as_ref()), (StatusCode::OK, LINUX));
        assert_eq!(got.header("content-length"), LINUX.len().to_string());
    }
    let other = repoxy.get(&ZIP.replace("1.1.0", "9.9.8")).await;
    assert!(other.status.is_server_error(), "what is neither here nor reachable is no 404: {}", other.status);
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_8_a_redirect_to_a_signed_address_is_followed_here_and_leaves_no_trace() {
    let origin = registry().await;
    origin.file("/cdn/signed.zip", "application/zip", LINUX);
    origin.on("/files/linux_amd64.zip").redirect("/cdn/signed.zip?X-Signature=secret").always();
    let repoxy = before(&origin, "");
    for _ in 0..2 {
        let got = repoxy.get(ZIP).await;
        assert_eq!((got.status, got.bytes().as_ref()), (StatusCode::OK, LINUX));
    }
    assert_eq!(origin.seen("GET", "/cdn/signed.zip").len(), 1);
    assert_eq!(origin.seen("GET", "/cdn/signed.zip")[0].query.as_deref(), Some("X-Signature=secret"));
    refs_are(&repoxy, &["providers/acme/demo/linux_amd64/1.1.0.json"]).await;
    for file in repoxy.files(TREE) {
        let text = String::from_utf8_lossy(&std::fs::read(&file).expect("readable")).into_owned();
        assert!(!text.contains("X-Signature"), "{}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_token_never_leaves_and_the_proxys_own_goes_to_its_registry_alone() {
    let (origin, elsewhere) = (registry().await, registry().await);
    // A second document, whose files are on another host.
    origin.file(
        "/v1/providers/acme/demo/1.1.0/download/linux/amd64",
        "application/json",
        json!({
            "filename": "terraform-provider-demo_1.1.0_linux_amd64.zip", "shasum": hex(LINUX),
            "download_url": format!("{}/files/linux_amd64.zip", elsewhere.url_as("localhost")),
            "shasums_url": "/files/SHA256SUMS", "shasums_signature_url": "/files/SHA256SUMS.sig",
            "signing_keys": {"gpg_public_keys": [{"ascii_armor": KEY}]},
        })
        .to_string(),
    );
    let repoxy =
        before(&origin, "allowed_hosts = [\"localhost\"]\ncredentials = { token = \"the-proxys-own\" }");
    let token = [("authorization", "Bearer the-clients-own"), ("cookie", "a=b")];
    for path in [VERSIONS, DOWNLOAD, ZIP] {
        let got = repoxy.request(http::Method::GET, path, &token).await;
        assert_eq!(got.status, StatusCode::OK, "{path}");
    }
    let seen = origin.seen("GET", "*");
    assert!(seen.iter().all(|seen| seen.header("authorization") == Some("Bearer the-proxys-own")));
    assert!(seen.iter().all(|seen| seen.header("cookie").is_none()));
    let seen = elsewhere.seen("GET", "*");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("authorization"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modules_archive_comes_from_here_and_outlives_upstream() {
    let origin = Origin::start().await;
    origin.file(
        "/v1/modules/acme/net/aws/versions",
        "application/json",
        r#"{"modules":[{"source":"acme/net/aws","versions":[{"version":"1.2.0"}]}]}"#,
    );
    origin
        .on(MODULE_DOWNLOAD)
        .status(204)
        .header("x-terraform-get", "/archives/net.tgz//sub?archive=tar.gz")
        .without("content-length")
        .always();
    origin.file("/archives/net.tgz", "application/gzip", "an archive");
    let repoxy = before(&origin, "ttl = \"0s\"");
    for round in 0..3 {
        if round == 2 {
            origin.stop().await;
        }
        assert_eq!(
            json_of(&repoxy.get(&format!("{MODULE}/versions")).await)["modules"][0]["source"],
            "acme/net/aws"
        );
        let got = repoxy.get(&format!("{MODULE}/1.2.0/download")).await;
        assert_eq!(got.status, StatusCode::NO_CONTENT, "round {round}: {:?}", got.body);
        assert_eq!(got.header("x-terraform-get"), "./archive.tar.gz//sub?archive=tar.gz");
        assert_eq!(
            repoxy.head(&format!("{MODULE}/1.2.0/archive.tar.gz")).await.header("content-length"),
            "10"
        );
        let archive = repoxy.get(&format!("{MODULE}/1.2.0/archive.tar.gz")).await;
        assert_eq!(archive.bytes().as_ref(), b"an archive");
    }
    assert_eq!(origin.count("GET", "/archives/net.tgz"), 1);
    refs_are(&repoxy, &["modules/acme/net/aws/1.2.0.json"]).await;
    assert!(repoxy.run(&["fsck", "--read-data"]).status.success());
    let shown = repoxy.run(&["show", "acme/net/aws:1.2.0"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("modules/acme/net/aws/1.2.0"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_no_archive_passes_unchanged_from_header_or_body() {
    let origin = Origin::start().await;
    let source = "git::https://github.com/acme/net?ref=v1.2.0";
    origin.on(MODULE_DOWNLOAD).status(204).header("x-terraform-get", source).always();
    origin.file(
        "/v1/modules/acme/net/gcp/1.2.0/download",
        "application/json",
        json!({ "location": source }).to_string(),
    );
    let repoxy = before(&origin, "");
    for module in [MODULE, "/tf/acme/v1/modules/acme/net/gcp"] {
        let got = repoxy.get(&format!("{module}/1.2.0/download")).await;
        assert_eq!((got.status, got.header("x-terraform-get")), (StatusCode::NO_CONTENT, source));
    }
    assert_eq!(repoxy.get(&format!("{MODULE}/1.2.0/archive.zip")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn service_discovery_is_answered_for_the_server_and_for_each_proxy() {
    let origin = registry().await;
    let repoxy = before(&origin, "");
    let root = json_of(&repoxy.get("/.well-known/terraform.json").await);
    assert_eq!(root["providers.v1"], "../tf/acme/v1/providers/");
    let own = json_of(&repoxy.get("/tf/acme/.well-known/terraform.json").await);
    assert_eq!(own["modules.v1"], "../v1/modules/");
    assert_eq!(origin.total(), 0);
}
