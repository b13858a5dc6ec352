//! Blobs whose registry does not say how large they are, or answers no HEAD.

use http::{Method, StatusCode};

use crate::support::{Gate, Origin, Repoxy};

const SIZE: usize = 300_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_a_cold_blob_is_answered_by_a_get_where_upstream_answers_no_head() {
    for status in [405, 501] {
        let origin = Origin::start().await;
        let blob = origin.blob("library/app", SIZE);
        origin.on(&blob.path).method("HEAD").status(status).always();
        let repoxy = Repoxy::before(&origin);
        let got = repoxy.head(&blob.path).await;
        assert_eq!((got.status, got.bytes().len()), (StatusCode::OK, 0), "{status}");
        assert_eq!(got.header("content-length"), SIZE.to_string());
        assert_eq!(got.header("docker-content-digest"), blob.digest.to_string());
        repoxy.stored(1).await;
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
        assert_eq!(origin.count("GET", &blob.path), 1, "it was fetched for the HEAD");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_a_cold_blob_has_a_length_though_upstreams_has_none() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, SIZE);
    let blob = &image.blobs[1];
    origin.on(&blob.path).chunked().without("content-length").always();
    let repoxy = Repoxy::before(&origin);
    // Whatever has no length is fetched to learn it …
    let other = origin.blob("library/app", SIZE);
    origin.on(&other.path).chunked().without("content-length").always();
    assert_eq!(repoxy.head(&other.path).await.header("content-length"), SIZE.to_string());
    assert_eq!(origin.count("GET", &other.path), 1);
    // … but for what a manifest states.
    repoxy.get(&image.path).await;
    let got = repoxy.head(&blob.path).await;
    assert_eq!((got.status, got.header("content-length")), (StatusCode::OK, &*SIZE.to_string()));
    assert_eq!(origin.count("GET", &blob.path), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_a_blob_that_turns_out_wrong_says_so() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", SIZE);
    origin.on(&blob.path).chunked().without("content-length").flip(7).always();
    let repoxy = Repoxy::before(&origin);
    assert_eq!(repoxy.head(&blob.path).await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_blob_that_comes_without_a_length_has_the_one_that_its_manifest_states() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 2, SIZE);
    let gate = Gate::closed();
    let repoxy = Repoxy::before(&origin);
    repoxy.get(&image.path).await;
    for blob in &image.blobs[1..] {
        origin.on(&blob.path).chunked().hold_after(200_000, &gate).always();
    }
    let whole = repoxy.open(Method::GET, &image.blobs[1].path, &[]).await;
    assert_eq!((whole.status(), whole.content_length()), (StatusCode::OK, Some(SIZE as u64)));
    let part = repoxy.open(Method::GET, &image.blobs[2].path, &[("range", "bytes=1000-1999")]).await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], format!("bytes 1000-1999/{SIZE}"));
    assert_eq!(part.bytes().await.expect("a part"), image.blobs[2].bytes[1000..2000]);
    gate.open();
    assert_eq!(whole.bytes().await.expect("all of it"), image.blobs[1].bytes);
}
