//! Read-ahead: small layers are fetched along with those that they follow.

use http::StatusCode;

use crate::support::{Gate, Manifest, Origin, Repoxy, eventually, proxy};

const SMALL: usize = 50_000;
const READ_AHEAD: &str = "repoxy_read_ahead_total{proxy=\"container/hub\"}";

/// Of which blobs upstream has been asked for the content, and how often.
fn fetched(origin: &Origin, image: &Manifest) -> Vec<usize> {
    image.blobs.iter().map(|blob| origin.count("GET", &blob.path)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn small_layers_that_follow_are_fetched_along_and_once() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 12, SMALL);
    let repoxy = Repoxy::before(&origin);
    repoxy.get(&image.path).await;
    assert_eq!(repoxy.get(&image.blobs[0].path).await.bytes(), &image.blobs[0].bytes);
    assert_eq!(fetched(&origin, &image)[1..], [0; 12], "who asks for the first may only be looking");
    // The second part; eight follow it.
    assert_eq!(repoxy.get(&image.blobs[1].path).await.bytes(), &image.blobs[1].bytes);
    let window = || fetched(&origin, &image) == [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0];
    eventually("eight more come", window).await;
    repoxy.stored(11).await;
    assert_eq!(repoxy.metric(READ_AHEAD).await.to_bits(), 8.0_f64.to_bits());
    for blob in &image.blobs {
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    }
    assert_eq!(fetched(&origin, &image), [1; 13]);
    repoxy.stored(14).await;
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_what_is_fetched_ahead_joins() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 2, SMALL);
    let gate = Gate::closed();
    origin.on(&image.blobs[2].path).hold_after(1, &gate).always();
    let repoxy = Repoxy::before(&origin);
    repoxy.get(&image.path).await;
    repoxy.get(&image.blobs[1].path).await;
    eventually("it is under way", || origin.count("GET", &image.blobs[2].path) == 1).await;
    let (answer, ()) = tokio::join!(repoxy.get(&image.blobs[2].path), async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        gate.open();
    });
    assert_eq!(answer.bytes(), &image.blobs[2].bytes);
    assert_eq!(origin.count("GET", &image.blobs[2].path), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_find_a_turn_where_upstream_is_asked_little_at_a_time() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 5, SMALL);
    let gate = Gate::closed();
    for blob in &image.blobs[2..=3] {
        origin.on(&blob.path).hold_after(1, &gate).always();
    }
    let repoxy = Repoxy::with(&proxy(&origin, "max_connections = 3"));
    repoxy.get(&image.path).await;
    repoxy.get(&image.blobs[1].path).await;
    eventually("one is under way", || fetched(&origin, &image)[2] == 1).await;
    assert_eq!(repoxy.get(&image.blobs[5].path).await.bytes(), &image.blobs[5].bytes, "nobody is in its way");
    assert_eq!(fetched(&origin, &image)[3..], [0, 0, 1], "half of three is one");
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_large_and_what_upstream_has_not_are_no_ones_loss() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 3, SMALL);
    let large = origin.image("library/large", "1.0", 2, (4 << 20) + 1);
    origin.on(&image.blobs[2].path).status(404).always();
    let repoxy = Repoxy::before(&origin);
    for image in [&image, &large] {
        repoxy.get(&image.path).await;
        assert_eq!(repoxy.get(&image.blobs[1].path).await.bytes(), &image.blobs[1].bytes);
    }
    eventually("the others come", || fetched(&origin, &image)[3] == 1).await;
    repoxy.stored(2 + 3).await;
    assert_eq!(fetched(&origin, &large), [0, 1, 0]);
    assert_eq!(repoxy.get(&image.blobs[2].path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(repoxy.get(&image.blobs[3].path).await.bytes(), &image.blobs[3].bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_fetched_ahead_for_a_head_or_where_it_is_switched_off() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 3, SMALL);
    for (repoxy, is_off) in
        [(Repoxy::before(&origin), false), (Repoxy::with(&proxy(&origin, "read_ahead = false")), true)]
    {
        repoxy.get(&image.path).await;
        let before = fetched(&origin, &image);
        if is_off {
            repoxy.get(&image.blobs[1].path).await;
        } else {
            repoxy.head(&image.blobs[1].path).await;
        }
        // What would have been asked for by now, has been: one that comes later is there.
        let last = origin.blob("library/app", SMALL);
        repoxy.get(&last.path).await;
        let mut expected = before;
        expected[1] += usize::from(is_off);
        assert_eq!(fetched(&origin, &image), expected, "{is_off}");
        assert_eq!(repoxy.metric(READ_AHEAD).await.to_bits(), 0.0_f64.to_bits());
    }
}
