//! Bodies: on their way, cut, and coded.

use futures_util::StreamExt as _;
use http::Method;

use crate::support::{Gate, Origin};
use crate::{before, get, refs, rule};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_bytes_arrive_while_the_rest_is_on_its_way() {
    let origin = Origin::start().await;
    let content: Vec<u8> = (0..8 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
    origin.file("/big", "application/octet-stream", content.clone());
    let gate = Gate::closed();
    origin.on("/big").chunked().hold_after(100_000, &gate).once();
    let repoxy = before(&origin, "");
    let mut body = repoxy.open(Method::GET, "/generic/files/big", &[]).await.bytes_stream();
    let first = body.next().await.expect("it has begun").expect("good");
    assert!(content.starts_with(&first), "before upstream has sent the rest");
    gate.open();
    let mut got = first.to_vec();
    while let Some(bytes) = body.next().await {
        got.extend(bytes.expect("good"));
    }
    assert!(got == content);
    origin.stop().await;
    assert!(get(&repoxy, "/big").await.bytes() == &content, "and it is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_cut_is_not_stored() {
    let origin = Origin::start().await;
    origin.file("/open-ended", "text/plain", vec![1; 10_000]);
    origin.file("/cut", "text/plain", vec![1; 10_000]);
    origin.on("/open-ended").header("cache-control", "max-age=60").close_delimited().cut_after(5_000).once();
    origin.on("/cut").header("cache-control", "max-age=60").without("etag").chunked().cut_after(5_000).once();
    let repoxy = before(&origin, "");
    assert_eq!(get(&repoxy, "/open-ended").await.bytes().len(), 5_000, "nobody can tell");
    let cut = repoxy.client().get(format!("{}/generic/files/cut", repoxy.url())).send().await;
    let whole = async { cut?.error_for_status()?.bytes().await };
    assert!(whole.await.is_err(), "the client sees that it was cut");
    assert_eq!(refs(&repoxy).len(), 0);
    for path in ["/open-ended", "/cut"] {
        assert_eq!(get(&repoxy, path).await.bytes().len(), 10_000, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn codings_are_kept_as_upstream_chose_them() {
    let origin = Origin::start().await;
    origin.file("/x.gz", "application/gzip", "not really");
    origin.on("/x.gz").header("content-encoding", "gzip").header("cache-control", "max-age=60").always();
    let repoxy = before(&origin, &rule("*.gz", "immutable = true"));
    for path in ["/x.gz", "/x.gz?plain"] {
        for _ in 0..2 {
            let got = get(&repoxy, path).await;
            assert_eq!((got.header("content-encoding"), &got.bytes()[..]), ("gzip", &b"not really"[..]));
        }
    }
    assert_eq!(origin.total(), 2);
}
