//! Upstreams in trouble: what is tried again, where else it is asked for, and when nobody is asked.

use repoxy::upstream::{BreakerLimits, UpstreamError};

use crate::support::Origin;
use crate::{ask, failure, plain, settings, upstream};

#[tokio::test]
async fn trouble_is_tried_again_three_times_and_what_upstream_stands_by_is_not() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 10);
    let upstream = plain(&origin);
    for status in [500, 502, 503, 504] {
        origin.on(&blob.path).status(status).times(2);
        upstream.send(&ask(&blob.path)).await.expect("the third try");
    }
    origin.on(&blob.path).hang_up().once();
    upstream.send(&ask(&blob.path)).await.expect("the second try");
    assert_eq!(origin.count("GET", &blob.path), 14);
    origin.on(&blob.path).status(503).times(3);
    let error = failure(&plain(&origin), &ask(&blob.path)).await;
    assert_eq!(error, UpstreamError::Status(503));
    assert_eq!(origin.count("GET", &blob.path), 17);
    let upstream = plain(&origin);
    for (status, expect) in [
        (404, UpstreamError::NotFound),
        (410, UpstreamError::NotFound),
        (403, UpstreamError::Denied { status: 403, anonymous: true }),
        (400, UpstreamError::Status(400)),
        (501, UpstreamError::Status(501)),
        (508, UpstreamError::Status(508)),
    ] {
        origin.on("/x").status(status).once();
        assert_eq!(failure(&upstream, &ask("/x")).await, expect);
    }
    assert_eq!(origin.count("GET", "/x"), 6);
}

#[tokio::test]
async fn a_closed_port_is_unreachable() {
    let origin = Origin::start().await;
    let upstream = plain(&origin);
    origin.stop().await;
    assert!(matches!(failure(&upstream, &ask("/x")).await, UpstreamError::Unreachable(_)));
    origin.restart().await;
    origin.file("/x", "text/plain", "x");
    upstream.send(&ask("/x")).await.expect("back again");
}

#[tokio::test]
async fn the_next_base_is_asked_when_one_is_in_trouble_or_limits_us_but_not_when_it_says_no() {
    let (first, second) = (Origin::start().await, Origin::start().await);
    second.file("/x", "text/plain", "second");
    let upstream = upstream(settings(&[first.url(), second.url()]));
    assert_eq!(failure(&upstream, &ask("/x")).await, UpstreamError::NotFound);
    assert_eq!(second.total(), 0);
    first.on("/x").status(500).once();
    let answer = upstream.send(&ask("/x")).await.expect("the second has it");
    assert_eq!(answer.host, format!("127.0.0.1:{}", second.port()));
    assert_eq!((first.total(), second.total()), (2, 1));
    first.on("/x").rate_limited("60").once();
    upstream.send(&ask("/x")).await.expect("the second has it");
    assert_eq!((first.total(), second.total()), (3, 2));
    upstream.send(&ask("/x")).await.expect("the first is left alone");
    assert_eq!((first.total(), second.total()), (3, 3));
    second.stop().await;
    let error = failure(&upstream, &ask("/x")).await;
    assert!(matches!(error, UpstreamError::RateLimited { .. }), "{error:?}");
}

#[tokio::test]
async fn a_429_is_not_tried_again_and_upstream_is_left_alone_as_long_as_it_asked() {
    let origin = Origin::start().await;
    origin.file("/y", "text/plain", "y");
    origin.on("/x").rate_limited("120").once();
    let upstream = plain(&origin);
    let limited = |error: &UpstreamError| match error {
        UpstreamError::RateLimited { retry_after, .. } => retry_after.expect("a time").as_secs_f64().round(),
        other => panic!("{other:?}"),
    };
    assert!((limited(&failure(&upstream, &ask("/x")).await) - 120.0).abs() < f64::EPSILON);
    assert!(limited(&failure(&upstream, &ask("/y")).await) > 60.0);
    assert_eq!(origin.total(), 1);
}

#[tokio::test]
async fn after_failures_in_a_row_upstream_is_not_asked_at_all() {
    let origin = Origin::start().await;
    origin.file("/good", "text/plain", "x");
    origin.on("/bad").status(500).always();
    let mut fragile = settings(&[origin.url()]);
    fragile.limits.breaker = BreakerLimits::default();
    let upstream = upstream(fragile);
    for _ in 0..2 {
        assert_eq!(failure(&upstream, &ask("/bad")).await, UpstreamError::Status(500));
    }
    let asked = origin.total();
    assert_eq!(asked, 5, "three tries, then two");
    assert!(matches!(failure(&upstream, &ask("/good")).await, UpstreamError::Open { .. }));
    assert_eq!(origin.total(), asked);
}
