//! D: blobs that cannot be read, or were damaged by hand while nobody served them and while one did.

use bytes::Bytes;
use http::StatusCode;

use crate::disk::{MIB, at_rest};
use crate::support::{Blob, Manifest, Origin, Repoxy, proxy};

/// What a request brings, if the connection is not cut before the answer is whole.
pub(crate) async fn attempt(
    repoxy: &Repoxy,
    path: &str,
    range: Option<&str>,
) -> Option<(u16, String, Bytes)> {
    let mut request = repoxy.client().get(format!("{}{path}", repoxy.url()));
    if let Some(range) = range {
        request = request.header("range", range);
    }
    let answer = request.send().await.ok()?;
    let part =
        answer.headers().get("content-range").and_then(|part| part.to_str().ok()).unwrap_or("").to_owned();
    Some((answer.status().as_u16(), part, answer.bytes().await.ok()?))
}

/// Asks for a blob in every way: answers that end well must be right.
async fn assert_never_wrong(repoxy: &Repoxy, blob: &Blob) {
    for range in
        [Some("bytes=100-199"), Some("bytes=149990-150010"), Some("bytes=-10"), Some("bytes=0-"), None]
    {
        match attempt(repoxy, &blob.path, range).await {
            Some((200, _, bytes)) => assert!(bytes == blob.bytes, "a wrong body"),
            Some((206, part, bytes)) => {
                let part = part.trim_start_matches("bytes ").split('/').next().unwrap_or("");
                let (from, to) = part.split_once('-').expect("a part");
                let (from, to): (usize, usize) =
                    (from.parse().expect("a number"), to.parse().expect("a number"));
                assert!(
                    blob.bytes.get(from..=to).is_some_and(|right| right == bytes),
                    "a wrong part: {range:?}"
                );
            }
            Some((status, ..)) => assert!(status >= 500, "{status}"),
            None => {}
        }
    }
}

/// A server that cannot read one blob of an image.
async fn unreadable(origin: &Origin) -> (Repoxy, Manifest) {
    let (mut repoxy, image) = at_rest(origin).await;
    let file = repoxy.blob_file(&image.blobs[1].digest.hex());
    let calls = "pread64,preadv2,mmap";
    let (what, inject) = (format!("trace={calls}"), format!("inject={calls}:error=EIO"));
    let file = file.to_str().expect("text");
    let only = ["-P", file, "-e", &what, "-e", &inject, "-o", "/dev/null"];
    repoxy.run_under(&[&["strace", "-D", "-f", "-qq"][..], &only].concat());
    repoxy.start();
    (repoxy, image)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn d8_a_blob_that_cannot_be_read_is_never_served_wrong() {
    let origin = Origin::start().await;
    let (repoxy, image) = unreadable(&origin).await;
    assert_eq!(attempt(&repoxy, &image.blobs[1].path, None).await.map(|got| got.0), None, "it is cut");
    assert_never_wrong(&repoxy, &image.blobs[1]).await;
    assert_eq!(
        repoxy.get(&image.blobs[2].path).await.bytes(),
        &image.blobs[2].bytes,
        "the others are served"
    );
    assert_eq!(repoxy.get("/-/health").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn d8_the_next_request_for_a_blob_that_could_not_be_read_is_a_miss() {
    let origin = Origin::start().await;
    let (repoxy, image) = unreadable(&origin).await;
    attempt(&repoxy, &image.blobs[1].path, None).await;
    assert_eq!(repoxy.get(&image.blobs[1].path).await.bytes(), &image.blobs[1].bytes);
}

/// Puts other bytes in a blob's place, as a new file: the old one may be mapped by a server.
fn replaced(repoxy: &Repoxy, blob: &Blob, bytes: &[u8]) {
    let file = repoxy.blob_file(&blob.digest.hex());
    std::fs::remove_file(&file).expect("it is there");
    std::fs::write(&file, bytes).expect("writable");
}

fn flipped(blob: &Blob) -> Vec<u8> {
    let mut bytes = blob.bytes.to_vec();
    bytes[150_000] ^= 1;
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_after_an_unclean_start_a_flipped_bit_is_never_served() {
    let origin = Origin::start().await;
    let (mut repoxy, image) = at_rest(&origin).await;
    for blob in &image.blobs[1..] {
        replaced(&repoxy, blob, &flipped(blob));
    }
    let mut manifest = image.bytes.to_vec();
    manifest[20] ^= 1;
    let own = Blob { digest: image.digest, path: image.path.clone(), bytes: image.bytes.clone() };
    replaced(&repoxy, &own, &manifest);
    repoxy.start();
    assert_eq!(
        repoxy.get(&image.path).await.bytes(),
        &image.bytes,
        "nothing has gone out, so it is fetched again"
    );
    let parts = [None, Some("bytes=0-9"), Some("bytes=149990-150010"), Some("bytes=-1")];
    for (blob, part) in image.blobs[1..].iter().zip(parts) {
        let first = attempt(&repoxy, &blob.path, part).await;
        assert!(first.is_none(), "cut before its end: {part:?}");
        // It has been set aside by then.
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
        assert_never_wrong(&repoxy, blob).await;
    }
    repoxy.becomes_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_after_a_clean_end_nothing_is_read_twice_and_after_an_unclean_one_everything_once() {
    let origin = Origin::start().await;
    let (mut repoxy, image) = at_rest(&origin).await;
    let blob = &image.blobs[1];
    let file = repoxy.blob_file(&blob.digest.hex());
    let proved_at = || file.metadata().expect("there").modified().expect("a time");
    let fetched_at = proved_at();
    repoxy.start();
    assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    assert!(proved_at() > fetched_at, "the server before was killed");
    let read_at = proved_at();
    for unclean in [false, true] {
        if unclean {
            repoxy.kill();
        } else {
            assert!(repoxy.terminate().success());
        }
        repoxy.start();
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
        assert_eq!(proved_at() > read_at, unclean);
    }
    origin.stop().await;
    assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_fsck_finds_every_flipped_bit_and_repair_makes_each_a_miss() {
    let origin = Origin::start().await;
    let (mut repoxy, image) = at_rest(&origin).await;
    for blob in &image.blobs[1..] {
        replaced(&repoxy, blob, &flipped(blob));
    }
    repoxy.start();
    let fsck = repoxy.run(&["fsck", "--read-data", "--json"]);
    assert_eq!(fsck.status.code(), Some(3));
    let found = String::from_utf8_lossy(&fsck.stdout).into_owned();
    for blob in &image.blobs[1..] {
        assert!(
            found.lines().any(|line| line.contains("corrupt-blob") && line.contains(&blob.digest.hex())),
            "{found}"
        );
    }
    assert!(repoxy.run(&["fsck", "--read-data", "--repair"]).status.success());
    for blob in &image.blobs {
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
        assert_eq!(
            origin.count("GET", &blob.path),
            1 + usize::from(blob.bytes.len() > 1000),
            "fetched again"
        );
    }
    repoxy.stored(4).await;
    repoxy.assert_sound().await;
}

/// Cuts blobs short at rest, with and without an index: each is a miss and heals.
async fn cut_short(linked_too: bool, kept: fn(usize) -> usize) {
    for index in [true, false] {
        let origin = Origin::start().await;
        let (mut repoxy, image) = at_rest(&origin).await;
        let mut blobs =
            vec![Blob { digest: image.digest, path: image.path.clone(), bytes: image.bytes.clone() }];
        if linked_too {
            blobs.extend(image.blobs.iter().cloned());
        }
        for blob in &blobs {
            replaced(&repoxy, blob, &blob.bytes[..kept(blob.bytes.len())]);
        }
        if !index {
            std::fs::remove_dir_all(repoxy.root().join("index")).expect("removable");
        }
        repoxy.start();
        for blob in &blobs {
            assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes, "with an index: {index}");
        }
        repoxy.becomes_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d10_a_blob_that_has_become_empty_is_a_miss() {
    cut_short(true, |_| 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d10_half_of_what_a_ref_targets_is_a_miss() {
    cut_short(false, |length| length / 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d10_half_of_what_a_manifest_links_is_a_miss() {
    cut_short(true, |length| length / 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d10_a_blob_that_is_cut_short_while_it_is_hot_ends_no_server() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    let blob = origin.blob("library/app", 4 * MIB);
    for _ in 0..3 {
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
        repoxy.stored(1).await;
    }
    // In place, so that every open file and every mapping of it becomes shorter.
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(repoxy.blob_file(&blob.digest.hex()))
        .expect("it is there");
    for length in [3 * MIB + 1, MIB + 77, 0] {
        file.set_len(length as u64).expect("writable");
        for _ in 0..3 {
            let got = repoxy.get(&blob.path).await;
            assert!(
                got.body.as_ref().is_err() || got.status.is_server_error() || got.bytes() == &blob.bytes,
                "{:?}",
                got.status
            );
        }
        assert_eq!(repoxy.get("/-/health").await.status, StatusCode::OK);
    }
    repoxy.becomes_sound().await;
    assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
}
