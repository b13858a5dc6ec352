//! Answers of any kind, and requests that change something.

use repoxy::upstream::{Act, Ask, Settings, Take};

use crate::support::Origin;
use crate::{ask, plain, settings, upstream, whole};

#[tokio::test]
async fn where_any_answer_is_one_an_error_is_tried_again_and_then_given_back_with_its_body() {
    let origin = Origin::start().await;
    origin.on("/x").status(503).body("out of order").always();
    origin.on("/gone").status(410).header("x-why", "moved").body("gone").always();
    let upstream = plain(&origin);
    let any = |path| Ask { take: Take::Any, ..ask(path) };
    let answer = upstream.send(&any("/x")).await.expect("an answer");
    assert_eq!((answer.status.as_u16(), whole(answer).await), (503, Ok(b"out of order".to_vec())));
    assert!(origin.count("GET", "/x") > 1, "it might have passed");
    let answer = upstream.send(&any("/gone")).await.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.header("x-why")), (410, Some("moved")));
    assert_eq!(origin.count("GET", "/gone"), 1, "it stands by that");
}

#[tokio::test]
async fn what_may_change_something_is_sent_once_and_follows_no_redirect() {
    let origin = Origin::start().await;
    origin.on("/x").status(503).always();
    origin.on("/moved").redirect("/x").always();
    let upstream = plain(&origin);
    for (path, status) in [("/x", 503), ("/moved", 302)] {
        let act = Act { method: http::Method::POST, body: "change it".into() };
        let answer =
            upstream.send(&Ask { act: Some(act), take: Take::Any, ..ask(path) }).await.expect("an answer");
        assert_eq!(answer.status, status);
    }
    assert_eq!((origin.count("POST", "/x"), origin.count("POST", "/moved")), (1, 1));
    assert_eq!(&origin.seen("POST", "/x")[0].body[..], b"change it");
}

#[tokio::test]
async fn what_the_client_sent_along_stays_with_the_base() {
    let (origin, other) = (Origin::start().await, Origin::start().await);
    other.file("/there", "text/plain", "content");
    origin.on("/here").redirect(&format!("{}/there", other.url_as("127.0.0.1"))).always();
    let allowed_hosts = vec![format!("127.0.0.1:{}", other.port())];
    let upstream = upstream(Settings { allowed_hosts, ..settings(&[origin.url()]) });
    let headers = http::HeaderMap::from_iter([(
        http::header::AUTHORIZATION,
        http::HeaderValue::from_static("Basic eA=="),
    )]);
    let answer = upstream.send(&Ask { headers: headers.clone(), ..ask("/here") }).await.expect("good");
    assert_eq!(whole(answer).await, Ok(b"content".to_vec()));
    assert_eq!(origin.seen("GET", "/here")[0].header("authorization"), Some("Basic eA=="));
    assert_eq!(other.seen("GET", "/there")[0].header("authorization"), None);
    let kept = Ask { headers, take: Take::Any, keep_redirects: true, ..ask("/here") };
    let kept = upstream.send(&kept).await.expect("an answer");
    assert_eq!(kept.header("location"), Some(&*format!("{}/there", other.url())), "it leads elsewhere");
}
