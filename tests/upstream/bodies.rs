//! Bodies: their ends, and transfers that go on where they broke.

use repoxy::upstream::{Ask, Resume, UpstreamError};

use crate::support::Origin;
use crate::{ask, failure, plain, whole};

#[tokio::test]
async fn a_body_that_is_cut_is_an_error_now_and_ever_after() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 100_000);
    origin.on(&blob.path).cut_after(40_000).once();
    origin.on(&blob.path).reset_after(40_000).once();
    origin.on(&blob.path).chunked().cut_after(40_000).once();
    let upstream = plain(&origin);
    for _ in 0..3 {
        let mut answer = upstream.send(&ask(&blob.path)).await.expect("headers");
        let error = loop {
            match answer.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it was not whole"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, UpstreamError::Broken(_)), "{error:?}");
        assert_eq!(answer.chunk().await, Err(error));
    }
    assert_eq!(origin.count("GET", &blob.path), 3, "bodies are never asked for again here");
}

#[tokio::test]
async fn a_body_ends_where_its_length_says() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 1000);
    origin.on(&blob.path).extra(500).once();
    origin.on(&blob.path).chunked().once();
    let upstream = plain(&origin);
    for _ in 0..2 {
        let answer = upstream.send(&ask(&blob.path)).await.expect("good");
        assert!(answer.marks_end());
        assert_eq!(whole(answer).await.expect("whole"), blob.bytes);
    }
}

#[tokio::test]
async fn a_body_whose_end_is_not_marked_says_so() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 1000);
    origin.on(&blob.path).close_delimited().cut_after(400).once();
    let answer = plain(&origin).send(&ask(&blob.path)).await.expect("good");
    assert!(!answer.marks_end());
    assert_eq!(answer.content_length(), None);
    assert_eq!(whole(answer).await.expect("as far as HTTP can tell").len(), 400);
}

#[tokio::test]
async fn a_transfer_goes_on_where_it_broke() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 1000);
    let etag = format!("\"{}\"", blob.digest);
    let upstream = plain(&origin);
    let resume = |validator: &str| Ask {
        resume: Some(Resume { from: 400, validator: Some(validator.to_owned()) }),
        ..ask(&blob.path)
    };
    let answer = upstream.send(&resume(&etag)).await.expect("good");
    assert_eq!((answer.status.as_u16(), answer.content_length()), (206, Some(1000)));
    assert_eq!(whole(answer).await.expect("whole"), blob.bytes.slice(400..));
    upstream.send(&resume("W/\"weak\"")).await.expect("good");
    let seen = origin.seen("GET", &blob.path);
    assert_eq!((seen[0].header("range"), seen[0].header("if-range")), (Some("bytes=400-"), Some(&*etag)));
    assert_eq!((seen[1].header("range"), seen[1].header("if-range")), (Some("bytes=400-"), None));
    origin.on(&blob.path).ignore_range().once();
    let answer = upstream.send(&resume(&etag)).await.expect("good");
    assert_eq!((answer.status.as_u16(), answer.content_length()), (200, Some(1000)));
}

#[tokio::test]
async fn a_part_that_does_not_fit_is_never_taken_for_the_rest() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 1000);
    origin.on(&blob.path).header("content-range", "bytes 300-899/900").once();
    origin.on(&blob.path).header("etag", "\"other\"").once();
    origin.on(&blob.path).status(416).header("content-range", "bytes */100").once();
    let resume = Resume { from: 400, validator: Some(format!("\"{}\"", blob.digest)) };
    let ask = Ask { resume: Some(resume), ..ask(&blob.path) };
    let upstream = plain(&origin);
    for _ in 0..3 {
        assert_eq!(failure(&upstream, &ask).await, UpstreamError::NotResumable);
    }
}
