//! Variants of one address, by `Vary`.

use crate::support::{Gate, Origin};
use crate::{ask, before, kept, refs};

#[tokio::test(flavor = "multi_thread")]
async fn variants_are_kept_side_by_side() {
    let origin = Origin::start().await;
    for body in ["one", "two"] {
        origin.on("/x").header("cache-control", "max-age=3600").header("vary", "X-Kind").body(body).once();
    }
    let repoxy = before(&origin, "");
    for round in 0..2 {
        for (kind, body) in [("1", "one"), ("2", "two")] {
            let got = ask(&repoxy, "/x", &[("x-kind", kind), ("x-other", &round.to_string())]).await;
            assert_eq!(got.bytes(), body, "round {round}");
        }
    }
    assert_eq!(origin.total(), 2);
    let mut repoxy = repoxy;
    kept(&repoxy, 3).await;
    repoxy.kill();
    repoxy.start();
    origin.stop().await;
    assert_eq!(ask(&repoxy, "/x", &[("x-kind", "1")]).await.bytes(), "one", "after a restart, too");
    assert_eq!(ask(&repoxy, "/x", &[("x-kind", "3")]).await.status.as_u16(), 502);
    assert_eq!(refs(&repoxy).len(), 3, "the address and two variants");
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn to_be_asked_for_changes_no_variant() {
    let origin = Origin::start().await;
    for body in ["one", "two"] {
        origin.on("/x").header("cache-control", "max-age=3600").header("vary", "X-Kind").body(body).once();
    }
    let repoxy = before(&origin, "");
    for kind in ["1", "2"] {
        ask(&repoxy, "/x", &[("x-kind", kind)]).await;
        repoxy.settle().await;
    }
    let read =
        || refs(&repoxy).iter().map(|file| std::fs::read_to_string(file).expect("a ref")).collect::<Vec<_>>();
    let before = read();
    for (kind, body) in [("1", "one"), ("2", "two")].repeat(50) {
        assert_eq!(ask(&repoxy, "/x", &[("x-kind", kind)]).await.bytes(), body);
    }
    assert_eq!((read(), origin.total()), (before, 2), "neither the older nor the newest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waited_for_another_variant_gets_its_own() {
    let origin = Origin::start().await;
    let gate = Gate::closed();
    let vary = |body: &'static str| {
        origin.on("/x").header("cache-control", "max-age=3600").header("vary", "X-Kind").body(body)
    };
    vary("first").hold(&gate).once();
    vary("second").once();
    let repoxy = before(&origin, "");
    let opened = async {
        origin.seen_at_least("GET", "/x", 1).await;
        gate.open();
    };
    let (one, other) = ([("x-kind", "1")], [("x-kind", "2")]);
    let (one, other, ()) = tokio::join!(ask(&repoxy, "/x", &one), ask(&repoxy, "/x", &other), opened);
    assert_ne!(one.bytes(), other.bytes());
    assert_eq!(origin.total(), 2);
}
