//! HTTP outwards against a scripted origin: what is asked, how often, and what is made of the answers.

#[path = "../support/mod.rs"]
pub mod support;

mod bodies;
mod credentials;
mod forwarded;
mod redirects;
mod reports;
mod time;
mod trouble;

use std::time::Duration;

use repoxy::upstream::{
    Answer, Ask, BreakerLimits, Credentials, Limits, Settings, Target, Upstream, UpstreamError,
};
use support::Origin;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Settings for bases, without waits between tries and with a breaker that never opens.
fn settings(bases: &[String]) -> Settings {
    Settings {
        proxy: "test".to_owned(),
        bases: bases.iter().map(|base| base.parse().expect("a URL")).collect(),
        credentials: Credentials::None,
        allowed_hosts: Vec::new(),
        ca_files: Vec::new(),
        instance: "01TEST".to_owned(),
        limits: Limits {
            backoff: MILLISECOND,
            breaker: BreakerLimits { in_row: u32::MAX, at_least: u32::MAX, ..BreakerLimits::default() },
            ..Limits::default()
        },
    }
}

fn upstream(settings: Settings) -> Upstream {
    Upstream::new(settings).expect("good settings")
}

fn plain(origin: &Origin) -> Upstream {
    upstream(settings(&[origin.url()]))
}

fn ask(path: &str) -> Ask {
    Ask { target: Target::Path(path.to_owned()), ..Ask::default() }
}

fn scoped(path: &str) -> Ask {
    Ask { token_scope: Some("repository:library/app:pull".to_owned()), ..ask(path) }
}

fn basic(password: &str) -> Credentials {
    Credentials::Basic { username: "me".to_owned(), password: password.into() }
}

async fn whole(mut answer: Answer) -> Result<Vec<u8>, UpstreamError> {
    let mut body = Vec::new();
    while let Some(bytes) = answer.chunk().await? {
        body.extend_from_slice(&bytes);
    }
    Ok(body)
}

async fn failure(upstream: &Upstream, ask: &Ask) -> UpstreamError {
    upstream.send(ask).await.expect_err("a failure")
}

#[tokio::test]
async fn a_request_says_who_we_are_and_an_answer_what_it_is() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 10);
    let mut answer = plain(&origin)
        .send(&Ask { accept: Some("a/b, c/d"), via: Some("1.1 client".to_owned()), ..ask(&image.path) })
        .await
        .expect("good");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.host, format!("127.0.0.1:{}", origin.port()));
    assert_eq!(answer.content_length(), Some(image.bytes.len() as u64));
    assert_eq!(answer.content_type(), Some("application/vnd.oci.image.manifest.v1+json"));
    assert_eq!(answer.etag(), Some(&*format!("\"{}\"", image.digest)));
    assert_eq!(answer.last_modified(), Some("Sun, 09 Nov 2025 12:34:56 GMT"));
    assert_eq!(answer.header("docker-content-digest"), Some(&*image.digest.to_string()));
    assert!(answer.marks_end());
    assert_eq!(answer.chunk().await.expect("good"), Some(image.bytes.clone()));
    assert_eq!(answer.chunk().await, Ok(None));
    assert_eq!(answer.chunk().await, Ok(None));
    let seen = &origin.seen("GET", &image.path)[0];
    for (name, value) in [
        ("user-agent", Some(concat!("repoxy/", env!("CARGO_PKG_VERSION")))),
        ("accept-encoding", Some("identity")),
        ("accept", Some("a/b, c/d")),
        ("via", Some("1.1 client, 1.1 repoxy-01TEST")),
        ("authorization", None),
        ("referer", None),
        ("range", None),
        ("cookie", None),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
}

#[tokio::test]
async fn a_head_has_the_length_and_no_body() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 5000);
    let answer = plain(&origin).send(&Ask { head: true, ..ask(&blob.path) }).await.expect("good");
    assert_eq!(answer.content_length(), Some(5000));
    assert_eq!(whole(answer).await, Ok(Vec::new()));
    assert_eq!((origin.count("HEAD", &blob.path), origin.total()), (1, 1));
}

#[tokio::test]
async fn what_is_unchanged_is_confirmed_without_a_body() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 5000);
    let etag = Some(format!("\"{}\"", blob.digest));
    let answer = plain(&origin).send(&Ask { if_none_match: etag, ..ask(&blob.path) }).await.expect("good");
    assert_eq!(answer.status, 304);
    assert_eq!(whole(answer).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_base_may_have_a_path_and_an_absolute_url_need_not_be_below_it() {
    let origin = Origin::start().await;
    origin.file("/mirror/hub/v2/x", "text/plain", "below");
    origin.file("/elsewhere", "text/plain", "beside");
    let upstream = upstream(settings(&[format!("{}/mirror/hub/", origin.url())]));
    let below = upstream.send(&ask("/v2/x")).await.expect("good");
    assert_eq!(whole(below).await.expect("whole"), b"below");
    let url = format!("{}/elsewhere", origin.url()).parse().expect("a URL");
    let beside = upstream.send(&Ask { target: Target::Url(url), ..Ask::default() }).await.expect("good");
    assert_eq!(whole(beside).await.expect("whole"), b"beside");
}

#[tokio::test]
async fn answers_that_make_no_sense_are_refused() {
    let origin = Origin::start().await;
    origin.on("/gzip").body("x").header("content-encoding", "gzip").once();
    origin.on("/part").body("x").status(206).header("content-range", "bytes 0-0/1").once();
    origin.on("/unchanged").status(304).once();
    let upstream = plain(&origin);
    for path in ["/gzip", "/part", "/unchanged"] {
        assert!(matches!(failure(&upstream, &ask(path)).await, UpstreamError::Senseless(_)), "{path}");
    }
    assert_eq!(origin.total(), 3, "and not asked for again");
}
