//! How long anything may take, and how much goes on at once.

use repoxy::upstream::{Ask, UpstreamError};

use crate::support::{Gate, Origin};
use crate::{MILLISECOND, ask, failure, plain, settings, upstream, whole};

#[tokio::test]
async fn silence_ends_in_a_timeout_wherever_it_begins() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 1000);
    let mut quick = settings(&[origin.url()]);
    quick.limits.first_byte = MILLISECOND * 50;
    quick.limits.idle = MILLISECOND * 50;
    let upstream = upstream(quick);
    origin.on(&blob.path).hang().times(3);
    assert_eq!(failure(&upstream, &ask(&blob.path)).await, UpstreamError::Timeout("first byte"));
    assert_eq!(origin.count("GET", &blob.path), 3, "three tries");
    origin.on(&blob.path).stall_after(10).once();
    let stalled = upstream.send(&ask(&blob.path)).await.expect("headers");
    assert_eq!(whole(stalled).await, Err(UpstreamError::Timeout("idle")));
    origin.on(&blob.path).stall_after(10).once();
    let patience = Some(MILLISECOND * 20);
    let stalled = upstream.send(&Ask { patience, ..ask(&blob.path) }).await.expect("headers");
    assert_eq!(whole(stalled).await, Err(UpstreamError::Timeout("patience")));
}

#[tokio::test]
async fn a_deadline_bounds_all_tries_together() {
    let origin = Origin::start().await;
    origin.on("/x").hang().always();
    let deadline = Some(MILLISECOND * 50);
    let error = failure(&plain(&origin), &Ask { deadline, ..ask("/x") }).await;
    assert_eq!(error, UpstreamError::Timeout("deadline"));
    assert_eq!(origin.count("GET", "/x"), 1);
}

#[tokio::test]
async fn a_trickle_is_too_slow_though_it_is_never_idle() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 1000);
    origin.on(&blob.path).trickle(1, MILLISECOND * 2).once();
    let mut quick = settings(&[origin.url()]);
    quick.limits.rate_window = MILLISECOND * 50;
    quick.limits.min_rate = 1_000_000;
    let answer = upstream(quick).send(&ask(&blob.path)).await.expect("headers");
    assert_eq!(whole(answer).await, Err(UpstreamError::TooSlow));
}

#[tokio::test]
async fn requests_in_flight_are_bounded_and_an_answer_holds_its_place_until_dropped() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 1000);
    let gate = Gate::closed();
    origin.on(&blob.path).hold_after(10, &gate).once();
    let mut narrow = settings(&[origin.url()]);
    narrow.limits.in_flight = 1;
    narrow.limits.deadline = MILLISECOND * 500;
    let upstream = upstream(narrow);
    let held = upstream.send(&ask(&blob.path)).await.expect("headers");
    let second = Ask { deadline: Some(MILLISECOND * 20), ..ask(&blob.path) };
    assert_eq!(failure(&upstream, &second).await, UpstreamError::Timeout("queue"));
    assert_eq!(origin.count("GET", &blob.path), 1);
    // Who has no deadline of its own waits for its turn as long as it takes, and only then begins.
    let third = ask(&blob.path);
    let (third, ()) = tokio::join!(upstream.send(&third), async {
        tokio::time::sleep(MILLISECOND * 600).await;
        drop(held);
    });
    third.expect("there is room again");
}
