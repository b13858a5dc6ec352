//! Content that is named by its sha512. It is kept under its sha256, which nobody knows before all of it is there:
//! to clients it is the same as any other content all the while.

use http::{Method, StatusCode};

use crate::support::{Blob, Gate, Origin, Repoxy, eventually, proxy, sha512};

/// A blob that upstream has under its sha512.
fn blob(origin: &Origin, size: usize) -> Blob {
    let bytes = origin.blob("elsewhere", size).bytes;
    let path = format!("/v2/library/app/blobs/{}", sha512(&bytes));
    origin.file(&path, "application/octet-stream", bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn its_first_bytes_are_seen_before_upstream_has_sent_the_last() {
    let origin = Origin::start().await;
    let blob = blob(&origin, 1 << 20);
    let gate = Gate::closed();
    origin.on(&blob.path).hold_after(200_000, &gate).once();
    let repoxy = Repoxy::before(&origin);
    let mut response = repoxy.open(Method::GET, &blob.path, &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    let named = sha512(&blob.bytes);
    assert_eq!(response.headers()["docker-content-digest"], named);
    assert_eq!(response.headers()["etag"], format!("\"{named}\""));
    let mut body = response.chunk().await.expect("it flows").expect("some bytes").to_vec();
    // And a slice of it, from the same fill.
    let part = repoxy.request(Method::GET, &blob.path, &[("range", "bytes=1000-1999")]).await;
    assert_eq!(
        (part.status, part.header("content-range")),
        (StatusCode::PARTIAL_CONTENT, "bytes 1000-1999/1048576")
    );
    assert_eq!(part.bytes(), &blob.bytes[1000..2000]);
    gate.open();
    while let Some(bytes) = response.chunk().await.expect("it flows") {
        body.extend_from_slice(&bytes);
    }
    assert_eq!(body, blob.bytes);
    assert_eq!(origin.count("GET", &blob.path), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_the_ones_named_never_end_well_and_are_not_kept() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::before(&origin);
    for size in [1 << 20, 10_000] {
        let blob = blob(&origin, size);
        origin.on(&blob.path).flip(5000).once();
        let got = repoxy.get(&blob.path).await;
        assert!(!got.status.is_success() || got.body.is_err(), "{size}: {}", got.status);
        assert!(!repoxy.blob_file(&blob.digest.hex()).exists());
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes, "{size}");
    }
    repoxy.stored(2).await;
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_and_a_manifest_are_the_same_cold_and_warm_by_get_head_and_range() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 200_000);
    let manifest = format!("/v2/library/app/manifests/{}", sha512(&image.bytes));
    let manifest = origin.file(&manifest, &image.media_type, image.bytes.clone());
    let blob = blob(&origin, 200_000);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    for (of, media_type) in [(&blob, "application/octet-stream"), (&manifest, &*image.media_type)] {
        let named = sha512(&of.bytes);
        let (etag, size) = (format!("\"{named}\""), of.bytes.len().to_string());
        let expected = [
            ("content-type", media_type),
            ("docker-content-digest", &named),
            ("etag", &etag),
            ("content-length", &size),
            ("accept-ranges", "bytes"),
        ];
        let assert_named = |got: &crate::support::Got, when: &str| {
            for (name, value) in expected {
                assert_eq!(got.header(name), value, "{name} {when}");
            }
        };
        assert_named(&repoxy.head(&of.path).await, "of a cold HEAD");
        let cold = repoxy.get(&of.path).await;
        assert_named(&cold, "cold");
        assert_eq!(cold.bytes(), &of.bytes);
        let file = of.path.replace("/v2/", "type/container/proxies/hub/refs/").replace("sha512:", "sha512/");
        eventually("it has a ref", || repoxy.root().join(format!("{file}.json")).exists()).await;
        origin.stop().await;
        let warm = repoxy.get(&of.path).await;
        assert_named(&warm, "warm");
        assert_eq!(warm.bytes(), &of.bytes);
        assert_named(&repoxy.head(&of.path).await, "of a warm HEAD");
        let range = [("range", "bytes=10-99"), ("if-range", &*etag)];
        let part = repoxy.request(Method::GET, &of.path, &range).await;
        assert_eq!((part.status, part.bytes()), (StatusCode::PARTIAL_CONTENT, &of.bytes.slice(10..100)));
        let same = repoxy.request(Method::GET, &of.path, &[("if-none-match", &*etag)]).await;
        assert_eq!(same.status, StatusCode::NOT_MODIFIED);
        origin.restart().await;
        assert_eq!(origin.count("GET", &of.path), 1);
    }
    repoxy.assert_sound().await;
}
