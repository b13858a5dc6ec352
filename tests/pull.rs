//! Pulls through the real binary from a scripted origin: what clients get, and what upstream is
//! asked for it. What happens when something goes wrong is in `tests/faults/`.

pub mod support;

#[path = "pull/grants.rs"]
mod grants;
#[path = "pull/lists.rs"]
mod lists;
#[path = "pull/sha512.rs"]
mod sha512;

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use support::{Gate, Got, Manifest, Origin, Protection, Repoxy, proxy};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_fetched_once_and_then_served_with_upstream_gone() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 3, 200_000);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    for round in 0..2 {
        let manifest = repoxy.get("/v2/library/app/manifests/1.0").await;
        assert_eq!(manifest.status, StatusCode::OK, "round {round}");
        assert_eq!(manifest.bytes(), &image.bytes);
        assert_eq!(manifest.header("content-type"), image.media_type);
        assert_eq!(manifest.header("docker-content-digest"), image.digest.to_string());
        for blob in &image.blobs {
            let got = repoxy.get(&blob.path).await;
            assert_eq!(got.bytes(), &blob.bytes);
            assert_eq!(got.header("content-length"), blob.bytes.len().to_string());
            assert_eq!(origin.count("GET", &blob.path), 1);
        }
        assert_eq!(origin.count("GET", &image.path), 1);
        assert_eq!(origin.count("HEAD", "*"), 0, "nothing else is asked");
    }
    origin.stop().await;
    assert_eq!(repoxy.get("/v2/library/app/manifests/1.0").await.bytes(), &image.bytes);
    let digest = &image.digest;
    let by_digest = repoxy.get(&format!("/v2/library/app/manifests/{digest}")).await;
    assert_eq!(by_digest.bytes(), &image.bytes, "the tag vouches for its target");
    assert_eq!(by_digest.header("content-type"), image.media_type);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_past_its_time_is_confirmed_by_head_and_fetched_only_when_it_moved() {
    let origin = Origin::start().await;
    let old = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::before(&origin);
    repoxy.get(&old.path).await;
    let again = repoxy.get(&old.path).await;
    assert_eq!(again.bytes(), &old.bytes);
    assert_eq!((origin.count("HEAD", &old.path), origin.count("GET", &old.path)), (1, 1));
    let new = origin.image("library/app", "1.0", 2, 100);
    let moved = repoxy.get(&new.path).await;
    assert_eq!(moved.bytes(), &new.bytes);
    assert_eq!(moved.header("docker-content-digest"), new.digest.to_string());
    assert_eq!((origin.count("HEAD", &old.path), origin.count("GET", &old.path)), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_served_by_digest_stays_when_its_tag_moves_on_and_upstream_is_gone() {
    let origin = Origin::start().await;
    let old = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::before(&origin);
    repoxy.get(&old.path).await;
    repoxy.get(&old.by_digest).await;
    let own = || repoxy.files("type/container/proxies/hub/refs/library/app/manifests").len();
    while own() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let new = origin.image("library/app", "1.0", 1, 100);
    assert_eq!(repoxy.get(&new.path).await.bytes(), &new.bytes);
    origin.stop().await;
    assert_eq!(repoxy.get(&old.by_digest).await.bytes(), &old.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_sees_the_first_bytes_before_upstream_has_sent_the_last() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 1 << 20);
    let gate = Gate::closed();
    origin.on(&blob.path).hold_after(200_000, &gate).once();
    let repoxy = Repoxy::before(&origin);
    let mut response = repoxy.open(Method::GET, &blob.path, &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    let first = response.chunk().await.expect("it flows").expect("some bytes");
    assert_eq!(first, blob.bytes[..first.len()]);
    gate.open();
    let mut body = first.to_vec();
    while let Some(bytes) = response.chunk().await.expect("it flows") {
        body.extend_from_slice(&bytes);
    }
    assert_eq!(body, blob.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_lookups_of_a_missing_name_are_one_request() {
    let origin = Origin::start().await;
    origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    for _ in 0..20 {
        let got = repoxy.get("/v2/library/app/manifests/2.0").await;
        assert_eq!((got.status, got.error_code().as_str()), (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"));
    }
    assert_eq!(origin.count("*", "*") + origin.count("GET", "/v2/library/app/manifests/2.0"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn gc_beside_a_running_server_takes_what_nothing_names_and_nothing_else() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 2, 100_000);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    for path in [&image.path].into_iter().chain(image.blobs.iter().map(|blob| &blob.path)) {
        repoxy.get(path).await;
    }
    // Clients have all bytes a moment before the blob is durable and published.
    let kept = 1 + image.blobs.len();
    while repoxy.files("type/container/blobs").len() < kept {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stray = stray(&repoxy);
    for round in 0..2 {
        let gc = repoxy.run(&["gc", "--grace", "0s"]);
        assert!(gc.status.success(), "round {round}: {}", String::from_utf8_lossy(&gc.stderr));
    }
    assert!(!stray.exists());
    assert_eq!(repoxy.files("type/container/blobs").len(), kept);
    assert_eq!(repoxy.files("type/container/trash"), [] as [std::path::PathBuf; 0]);
    origin.stop().await;
    for blob in &image.blobs {
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    }
}

/// A server with two tags of which the first is hot, and upstream gone.
async fn hot() -> (Repoxy, [Manifest; 2]) {
    let origin = Origin::start().await;
    let images = ["1.0", "2.0"].map(|tag| origin.image("library/app", tag, 1, 100));
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    for image in &images {
        assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes);
    }
    repoxy.stored(2).await;
    origin.stop().await;
    for _ in 0..3 {
        assert_eq!(repoxy.get(&images[0].path).await.bytes(), &images[0].bytes);
    }
    (repoxy, images)
}

/// Asks until the answer is another one, for as long as that may take.
async fn next_answer(repoxy: &Repoxy, image: &Manifest) -> Got {
    let began = Instant::now();
    loop {
        let got = repoxy.get(&image.path).await;
        if got.status != StatusCode::OK || got.bytes() != &image.bytes {
            return got;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it is still answered from memory");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_removes_is_soon_not_answered_from_memory_either() {
    let (repoxy, [image, _]) = hot().await;
    let gc = repoxy.run(&["gc", "--unused-for", "0s", "--force"]);
    assert!(gc.status.success(), "{gc:?}");
    assert_eq!(repoxy.files("type/container/proxies/hub/refs"), [] as [std::path::PathBuf; 0]);
    assert!(next_answer(&repoxy, &image).await.status.is_server_error());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_edited_by_hand_and_indexed_again_is_soon_not_answered_from_memory_as_it_was() {
    let (repoxy, [image, other]) = hot().await;
    let tags = repoxy.root().join("type/container/proxies/hub/refs/library/app/tags");
    std::fs::copy(tags.join("2.0.json"), tags.join("1.0.json")).expect("edited");
    let reindex = repoxy.run(&["reindex"]);
    assert!(reindex.status.success(), "{reindex:?}");
    assert_eq!(next_answer(&repoxy, &image).await.bytes(), &other.bytes);
}

/// A blob that no ref names.
fn stray(repoxy: &Repoxy) -> std::path::PathBuf {
    let file = repoxy.blob_file(&repoxy::model::Digest::of(b"stray").hex());
    std::fs::create_dir_all(file.parent().expect("a shard")).expect("writable");
    std::fs::write(&file, b"stray").expect("writable");
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn files_written_by_hand_are_served_without_upstream() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 50_000);
    origin.stop().await;
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    for (digest, bytes) in std::iter::once((image.digest, &image.bytes))
        .chain(image.blobs.iter().map(|blob| (blob.digest, &blob.bytes)))
    {
        let file = repoxy.blob_file(&digest.hex());
        std::fs::create_dir_all(file.parent().expect("a shard")).expect("writable");
        std::fs::write(&file, bytes).expect("writable");
    }
    let tags = repoxy.root().join("type/container/proxies/hub/refs/library/app/tags");
    std::fs::create_dir_all(&tags).expect("writable");
    let json = format!(
        r#"{{"kind":"container.tag","targetDigest":"{}","mediaType":"{}","size":{},"upstream":"registry-1.docker.io","fetchedAt":"2025-11-09T12:34:56Z","ttlSeconds":604800000}}"#,
        image.digest,
        image.media_type,
        image.bytes.len()
    );
    std::fs::write(tags.join("1.0.json"), json).expect("writable");
    for (path, bytes) in [(&image.path, &image.bytes), (&image.by_digest, &image.bytes)]
        .into_iter()
        .chain(image.blobs.iter().map(|blob| (&blob.path, &blob.bytes)))
    {
        assert_eq!(repoxy.get(path).await.bytes(), bytes, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_show_how_the_last_gc_and_fsck_ended() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 50_000);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    repoxy.get(&image.path).await;
    assert!(repoxy.run(&["gc"]).status.success());
    let rotten = repoxy.blob_file(&image.digest.hex());
    while !rotten.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    std::fs::write(&rotten, b"").expect("writable");
    assert!(!repoxy.run(&["fsck"]).status.success());
    let wanted = [
        "repoxy_upkeep_last_ok{task=\"gc\"} 1",
        "repoxy_upkeep_last_ok{task=\"fsck\"} 0",
        "repoxy_upkeep_last_figure{task=\"fsck\",figure=\"errors\"} ",
    ];
    // The server looks every few seconds.
    let found = async {
        loop {
            let metrics = String::from_utf8_lossy(repoxy.get("/-/metrics").await.bytes()).into_owned();
            if wanted.iter().all(|line| metrics.contains(line)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.expect("the results are shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_configuration_asks_the_helper_that_is_found_through_path() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 0, 0);
    origin.protect(Protection::basic("me", "canary"));
    let mut repoxy =
        Repoxy::stopped(&proxy(&origin, "credentials = { docker_config = \"docker/config.json\" }"));
    let write = |name: &str, text: &str| {
        let path = repoxy.dir().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("made executable");
    };
    // Beside the configuration file, for that is what relative paths in it count from.
    write("docker/config.json", r#"{"credsStore":"of-test"}"#);
    let helper = r#"#!/bin/sh
read -r server
printf '%s' "$server" > "$0.asked"
printf '{"Username":"me","Secret":"canary"}'
"#;
    write("bin/docker-credential-of-test", helper);
    let bin = repoxy.dir().join("bin");
    repoxy.set_env("PATH", &format!("{}:/usr/bin:/bin", bin.display()));
    repoxy.start();
    assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes);
    let asked = std::fs::read_to_string(bin.join("docker-credential-of-test.asked")).expect("it was asked");
    assert_eq!(asked, format!("127.0.0.1:{}", origin.port()));
    repoxy.assert_nowhere("canary").await;
}
