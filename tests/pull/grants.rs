//! What a repository's own refs grant it, and that a digest is granted under its own noun alone: a registry
//! has a manifest under `manifests/` and content under `blobs/`, and knows neither under the other.
//!
//! Each case with the index and without it, for the files must grant the same.

use http::{Method, StatusCode};

use crate::support::{Blob, Got, Manifest, Origin, Repoxy, eventually, proxy};

const REFS: &str = "type/container/proxies/hub/refs/library/app";

/// A server that has an index, and one that can make none and answers from the files.
fn servers(origin: &Origin) -> [Repoxy; 2] {
    let config = proxy(origin, "ttl = \"1h\"");
    let mut without = Repoxy::stopped(&config);
    without.set_env("REPOXY_INDEX", "/dev/null/index");
    without.start();
    [Repoxy::with(&config), without]
}

fn as_manifest(blob: &Blob) -> String {
    blob.path.replace("/blobs/", "/manifests/")
}

fn as_blob(manifest: &Manifest) -> String {
    manifest.by_digest.replace("/manifests/", "/blobs/")
}

fn assert_unknown(got: &Got, code: &str) {
    assert_eq!((got.status, got.error_code().as_str()), (StatusCode::NOT_FOUND, code), "{got:?}");
}

/// What a client asked for has left nothing that gc stops at or fsck finds.
async fn assert_kept_well(repoxy: &Repoxy) {
    let gc = repoxy.run(&["gc", "--grace", "0s"]);
    assert!(gc.status.success(), "{}", String::from_utf8_lossy(&gc.stderr));
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_is_no_manifest_because_it_is_cached_as_content() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 300_000);
    for repoxy in servers(&origin) {
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
        repoxy.stored(1).await;
        let asked = origin.count("GET", &as_manifest(&blob));
        assert_eq!(repoxy.head(&as_manifest(&blob)).await.status, StatusCode::NOT_FOUND);
        assert_unknown(&repoxy.get(&as_manifest(&blob)).await, "MANIFEST_UNKNOWN");
        let heads = origin.count("HEAD", &as_manifest(&blob));
        assert!(heads + origin.count("GET", &as_manifest(&blob)) > asked, "upstream was asked");
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
        assert_eq!(repoxy.files(&format!("{REFS}/manifests")).len(), 0);
        assert_kept_well(&repoxy).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_no_content_because_it_is_cached_as_a_manifest() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    for repoxy in servers(&origin) {
        // By a tag, and by a ref of its own.
        for path in [&image.path, &image.by_digest] {
            assert_eq!(repoxy.get(path).await.bytes(), &image.bytes);
        }
        eventually("it has a ref of its own", || repoxy.files(&format!("{REFS}/manifests")).len() == 1).await;
        assert_unknown(&repoxy.get(&as_blob(&image)).await, "BLOB_UNKNOWN");
        assert_eq!(repoxy.head(&as_blob(&image)).await.status, StatusCode::NOT_FOUND);
        assert_eq!(repoxy.get(&image.by_digest).await.header("content-type"), image.media_type);
        assert_kept_well(&repoxy).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_an_index_links_is_no_content_either() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "amd64", 1, 100);
    let index = origin.index("library/app", "1.0", std::slice::from_ref(&image));
    for repoxy in servers(&origin) {
        for (path, bytes) in [(&index.path, &index.bytes), (&image.by_digest, &image.bytes)] {
            assert_eq!(repoxy.get(path).await.bytes(), bytes);
        }
        assert_unknown(&repoxy.get(&as_blob(&image)).await, "BLOB_UNKNOWN");
        assert_eq!(repoxy.get(&image.by_digest).await.header("content-type"), image.media_type);
        assert_kept_well(&repoxy).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_upstream_has_a_digest_under_both_nouns_each_is_what_upstream_says() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let blob = origin.blob_of("library/app", image.bytes.clone());
    for blob_first in [true, false] {
        for repoxy in servers(&origin) {
            let mut asked =
                [(&image.by_digest, &*image.media_type), (&blob.path, "application/octet-stream")];
            if blob_first {
                asked.reverse();
            }
            for round in 0..2 {
                for (path, media_type) in asked {
                    let got = repoxy.get(path).await;
                    assert_eq!(got.bytes(), &image.bytes);
                    assert_eq!(got.header("content-type"), media_type, "{path} in round {round}");
                }
            }
            // With a ref of either sort there, the tag's manifest is found among them.
            assert_eq!(repoxy.get(&image.path).await.header("content-type"), image.media_type);
            assert_kept_well(&repoxy).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_grants_its_manifest_though_the_same_bytes_are_cached_as_content_too() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let blob = origin.blob_of("library/app", image.bytes.clone());
    for tag_first in [true, false] {
        for repoxy in servers(&origin) {
            let mut asked = [&image.path, &blob.path];
            if !tag_first {
                asked.reverse();
            }
            for (path, refs) in asked.into_iter().zip(1..) {
                assert_eq!(repoxy.get(path).await.bytes(), &image.bytes);
                eventually("it is recorded", || repoxy.files(REFS).len() == refs).await;
            }
            let before = origin.total();
            let got = repoxy.get(&image.by_digest).await;
            assert_eq!((got.bytes(), got.header("content-type")), (&image.bytes, &*image.media_type));
            assert_eq!(origin.total(), before, "the tag vouches for it, whatever came first");
            assert_kept_well(&repoxy).await;
        }
    }
}

/// Puts a blob and a ref of it there by hand.
fn by_hand(repoxy: &Repoxy, path: &str, kind: &str, media_type: &str, bytes: &[u8]) {
    let digest = repoxy::model::Digest::of(bytes);
    let json = format!(
        r#"{{"kind":"{kind}","targetDigest":"{digest}","mediaType":"{media_type}","size":{},"upstream":"registry","fetchedAt":"2025-11-09T12:34:56Z","ttlSeconds":604800000}}"#,
        bytes.len()
    );
    let file = repoxy.root().join(REFS).join(path);
    for (file, bytes) in [(repoxy.blob_file(&digest.hex()), bytes), (file, json.as_bytes())] {
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("writable");
        std::fs::write(file, bytes).expect("writable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_beyond_all_measure_is_as_good_as_not_cached() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    for mut repoxy in servers(&origin) {
        let large = vec![b' '; (16 << 20) + 1];
        by_hand(&repoxy, "tags/1.0.json", "container.tag", &image.media_type, &large);
        let by_digest = format!("/v2/library/app/manifests/{}", repoxy::model::Digest::of(&large));
        // Whoever asks for it by its digest asks upstream, which has no such thing.
        assert_unknown(&repoxy.get(&by_digest).await, "MANIFEST_UNKNOWN");
        let got = repoxy.request(Method::GET, &image.path, &[]).await;
        assert_eq!(got.bytes(), &image.bytes, "upstream has a better one");
        repoxy.terminate();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_gets_a_ref_of_its_own_only_if_its_links_can_be_read() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "good", 1, 100);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    by_hand(&repoxy, "tags/bad.json", "container.tag", &image.media_type, b"not a manifest");
    by_hand(&repoxy, "tags/good.json", "container.tag", &image.media_type, &image.bytes);
    let bad = repoxy::model::Digest::of(b"not a manifest");
    for tag in ["bad", "good"] {
        assert_eq!(repoxy.get(&format!("/v2/library/app/manifests/{tag}")).await.status, StatusCode::OK);
    }
    for _ in 0..20 {
        let got = repoxy.get(&format!("/v2/library/app/manifests/{bad}")).await;
        assert_eq!(got.bytes(), &b"not a manifest"[..], "what was put there by hand is served");
    }
    assert_eq!(repoxy.get(&image.by_digest).await.bytes(), &image.bytes);
    let own = || repoxy.files(&format!("{REFS}/manifests"));
    eventually("a good one gets its ref", || !own().is_empty()).await;
    assert!(own().iter().all(|file| file.ends_with(format!("{}.json", image.digest.hex()))), "{:?}", own());
    let json = std::fs::read_to_string(&own()[0]).expect("a ref");
    assert!(json.contains("\"links\""), "with its links, which the tag's file has not got: {json}");
}
