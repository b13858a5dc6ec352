//! HTTP outwards against a scripted origin: what is asked, how often, and what is made of the answers.

pub mod support;

use std::path::PathBuf;
use std::time::Duration;

use repoxy::upstream::{
    Act, Answer, Ask, BreakerLimits, Credentials, Limits, Resume, SecretSource, Settings, Take, Target,
    Upstream, UpstreamError,
};
use support::{Gate, Origin, Protection};

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

// ---- what is asked and what an answer says

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

// ---- bodies

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

// ---- time

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

// ---- trouble

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
        UpstreamError::RateLimited { retry_after } => retry_after.expect("a time").as_secs_f64().round(),
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

// ---- who we are

#[tokio::test]
async fn a_token_is_fetched_once_and_then_goes_along_at_once() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 2, 10);
    let other = origin.image("library/other", "1.0", 0, 0);
    origin.protect(Protection::bearer().realm(&format!("{}/token", origin.url())));
    let upstream = plain(&origin);
    upstream.send(&scoped(&image.path)).await.expect("good");
    assert_eq!((origin.count("GET", &image.path), origin.count("GET", "/token")), (2, 1));
    upstream.send(&scoped(&image.by_digest)).await.expect("good");
    upstream.send(&scoped(&image.blobs[1].path)).await.expect("good");
    assert_eq!(origin.total(), 5, "no detour by a denial");
    let scope = Some("repository:library/other:pull".to_owned());
    upstream.send(&Ask { token_scope: scope, ..ask(&other.path) }).await.expect("good");
    assert_eq!(origin.total(), 7, "only the token of the other scope");
    let token = &origin.seen("GET", "/token")[0];
    assert_eq!(token.query.as_deref(), Some("service=origin&scope=repository%3Alibrary%2Fapp%3Apull"));
    assert_eq!(token.header("authorization"), None);
}

#[tokio::test]
async fn the_scope_is_the_challenges_or_else_the_requests() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 0, 0);
    let realm = format!("{}/token", origin.url());
    origin.protect(Protection::bearer().realm(&realm).without_scope());
    plain(&origin).send(&scoped(&image.path)).await.expect("the request's");
    origin.protect(Protection::bearer().realm(&realm));
    plain(&origin).send(&ask(&image.path)).await.expect("the challenge's");
    assert_eq!(origin.total(), 6);
}

#[tokio::test]
async fn many_requests_at_once_share_one_token() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 0, 0);
    origin.protect(Protection::bearer().realm(&format!("{}/token", origin.url())));
    let gate = Gate::closed();
    origin.on("/token").hold(&gate).once();
    let upstream = plain(&origin);
    let asks = futures_util::future::join_all((0..20).map(|_| async {
        upstream.send(&scoped(&image.path)).await.expect("good");
    }));
    let open = async {
        origin.seen_at_least("GET", &image.path, 20).await;
        origin.seen_at_least("GET", "/token", 1).await;
        gate.open();
    };
    tokio::join!(asks, open);
    assert_eq!((origin.count("GET", &image.path), origin.count("GET", "/token")), (40, 1));
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_and_a_final_denial_is_bounded() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 0, 0);
    origin.protect(Protection::bearer().realm(&format!("{}/token", origin.url())));
    let upstream = plain(&origin);
    upstream.send(&scoped(&image.path)).await.expect("good");
    origin.revoke_tokens();
    upstream.send(&scoped(&image.path)).await.expect("renewed");
    assert_eq!((origin.count("GET", &image.path), origin.count("GET", "/token")), (4, 2));
    origin.on("/token").body(r#"{"token":"worthless"}"#).always();
    origin.revoke_tokens();
    let error = failure(&upstream, &scoped(&image.path)).await;
    assert_eq!(error, UpstreamError::Denied { status: 401, anonymous: true });
    assert_eq!((origin.count("GET", &image.path), origin.count("GET", "/token")), (6, 3));
}

#[tokio::test]
async fn credentials_go_to_a_realm_that_is_allowed_and_to_no_other() {
    let (origin, elsewhere) = (Origin::start().await, Origin::start().await);
    let image = origin.image("library/app", "1.0", 0, 0);
    origin.protect(Protection::bearer().login("me", "canary"));
    let mut mine = settings(&[origin.url()]);
    mine.credentials = basic("canary");
    // The realm is on `localhost`, which the configuration does not name: a private address.
    let error = failure(&upstream(mine.clone()), &scoped(&image.path)).await;
    assert_eq!(error, UpstreamError::Forbidden(origin.url_as("localhost")));
    assert_eq!(origin.count("GET", "/token"), 0);
    mine.allowed_hosts = vec!["localhost".to_owned()];
    upstream(mine.clone()).send(&scoped(&image.path)).await.expect("allowed by name");
    assert_eq!(origin.seen("GET", "/token")[0].header("authorization"), Some("Basic bWU6Y2FuYXJ5"));
    mine.allowed_hosts = Vec::new();
    origin.protect(Protection::bearer().realm(&format!("{}/token", elsewhere.url())));
    let error = failure(&upstream(mine), &scoped(&image.path)).await;
    assert_eq!(error, UpstreamError::Forbidden(elsewhere.url()));
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_token_service_that_says_no_denies_and_one_that_is_down_is_trouble() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 0, 0);
    origin.protect(Protection::bearer().realm(&format!("{}/token", origin.url())).login("me", "right"));
    let mut mine = settings(&[origin.url()]);
    mine.credentials = basic("wrong");
    let error = failure(&upstream(mine), &scoped(&image.path)).await;
    assert_eq!(error, UpstreamError::Denied { status: 401, anonymous: false });
    assert_eq!(origin.count("GET", "/token"), 1);
    origin.on("/token").status(503).always();
    let error = failure(&plain(&origin), &scoped(&image.path)).await;
    assert_eq!(error, UpstreamError::Status(503));
    assert_eq!(origin.count("GET", "/token"), 4);
}

#[tokio::test]
async fn basic_is_sent_when_asked_for_and_then_at_once() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 0, 0);
    origin.protect(Protection::basic("me", "secret"));
    let mut mine = settings(&[origin.url()]);
    mine.credentials = basic("secret");
    let upstream = upstream(mine);
    upstream.send(&scoped(&image.path)).await.expect("good");
    upstream.send(&scoped(&image.path)).await.expect("good");
    assert_eq!(origin.total(), 3);
    origin.protect(Protection::basic("me", "changed"));
    let error = failure(&upstream, &scoped(&image.path)).await;
    assert_eq!(error, UpstreamError::Denied { status: 401, anonymous: false });
    assert_eq!(origin.total(), 4);
    let error = failure(&plain(&origin), &scoped(&image.path)).await;
    assert_eq!(error, UpstreamError::Denied { status: 401, anonymous: true });
}

#[tokio::test]
async fn a_reload_reads_passwords_and_docker_files_again() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 0, 0);
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| -> PathBuf {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let password = SecretSource::File(write("password", "old\n"));
    let mut mine = settings(&[origin.url()]);
    mine.credentials = Credentials::Basic { username: "me".to_owned(), password };
    let with_file = upstream(mine.clone());
    origin.protect(Protection::basic("me", "new"));
    failure(&with_file, &scoped(&image.path)).await;
    write("password", "");
    assert!(with_file.reload().is_err());
    write("password", "new\n");
    with_file.reload().expect("good");
    with_file.send(&scoped(&image.path)).await.expect("the new password");

    let docker = format!(r#"{{"auths":{{"127.0.0.1:{}":{{"identitytoken":"idt"}}}}}}"#, origin.port());
    mine.credentials = Credentials::Docker { path: write("config.json", &docker) };
    origin.protect(Protection::bearer().realm(&format!("{}/token", origin.url())).refresh_token("idt"));
    upstream(mine).send(&scoped(&image.path)).await.expect("exchanged");
    assert_eq!((origin.count("POST", "/token"), origin.count("GET", "/token")), (1, 0));
}

// ---- where it may lead

#[tokio::test]
async fn a_redirect_to_another_origin_loses_all_credentials_and_never_gets_them_back() {
    let (origin, cdn) = (Origin::start().await, Origin::start().await);
    cdn.file("/signed", "application/octet-stream", "content");
    origin.file("/back", "text/plain", "content");
    let mut mine = settings(&[origin.url()]);
    mine.allowed_hosts = vec![format!("127.0.0.1:{}", cdn.port())];
    let canary = || SecretSource::from("canary");
    for credentials in [
        Credentials::Bearer(canary()),
        Credentials::Header { name: "private-token".parse().expect("a name"), value: canary() },
    ] {
        mine.credentials = credentials;
        let upstream = upstream(mine.clone());
        origin.on("/blob").redirect(&format!("{}/signed?sig=1#part", cdn.url())).once();
        let answer = upstream.send(&ask("/blob")).await.expect("followed");
        assert_eq!(answer.host, format!("127.0.0.1:{}", origin.port()), "of the base");
        assert_eq!(whole(answer).await.expect("whole"), b"content");
        origin.on("/blob").redirect(&format!("{}/hop", cdn.url())).once();
        cdn.on("/hop").redirect(&format!("{}/back", origin.url())).once();
        upstream.send(&ask("/blob")).await.expect("followed");
        origin.on("/blob").redirect("/back").once();
        upstream.send(&ask("/blob")).await.expect("followed");
    }
    let has_secret = |seen: &support::Seen| format!("{:?}", seen.headers).contains("canary");
    assert!(origin.seen("GET", "/blob").iter().all(has_secret));
    assert!(!cdn.seen("GET", "/*").iter().any(has_secret));
    let back: Vec<_> = origin.seen("GET", "/back").iter().map(has_secret).collect();
    assert_eq!(back, [false, true, false, true]);
    assert_eq!(cdn.seen("GET", "/signed")[0].query.as_deref(), Some("sig=1"));
    assert_eq!(cdn.seen("GET", "/signed")[0].header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn redirects_to_inner_addresses_are_refused_by_name_and_by_number() {
    let (origin, inner) = (Origin::start().await, Origin::start().await);
    let upstream = plain(&origin);
    for target in [
        inner.url(),
        inner.url_as("localhost"),
        inner.url_as("2130706433"),
        inner.url_as("0177.0.0.1"),
        inner.url_as("[::ffff:127.0.0.1]"),
        inner.url_as("[::1]"),
        inner.url_as("0.0.0.0"),
        "http://169.254.169.254".to_owned(),
        "file:///etc/passwd".to_owned(),
        format!("http://user:canary@127.0.0.1:{}", origin.port()),
    ] {
        origin.on("/x").redirect(&format!("{target}/y?canary")).once();
        let error = failure(&upstream, &ask("/x")).await;
        assert!(matches!(error, UpstreamError::Forbidden(_)), "{target}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        let url = format!("{target}/y").parse().expect("a URL");
        let error = failure(&upstream, &Ask { target: Target::Url(url), ..Ask::default() }).await;
        assert!(matches!(error, UpstreamError::Forbidden(_)), "{target}: {error:?}");
    }
    assert_eq!(inner.connections(), 0);
}

#[tokio::test]
async fn proxies_in_the_environment_are_not_used() {
    let proxy = Origin::start().await;
    let url = proxy.url().replace("http://", "http://user:canary@");
    let this = std::env::current_exe().expect("a path");
    let mut test = tokio::process::Command::new(this);
    test.args(["--exact", "a_request_says_who_we_are_and_an_answer_what_it_is"]);
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        test.env(name, &url);
    }
    test.env_remove("no_proxy").env_remove("NO_PROXY");
    let output = test.output().await.expect("run again");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    assert_eq!(proxy.connections(), 0);
}

#[tokio::test]
async fn redirects_end_somewhere() {
    let origin = Origin::start().await;
    origin.on("/loop").redirect("/loop").always();
    origin.on("/nowhere").status(302).once();
    let upstream = plain(&origin);
    assert!(matches!(failure(&upstream, &ask("/loop")).await, UpstreamError::Senseless(_)));
    assert_eq!(origin.count("GET", "/loop"), 6);
    assert!(matches!(failure(&upstream, &ask("/nowhere")).await, UpstreamError::Senseless(_)));
}

#[tokio::test]
async fn certificates_are_checked_and_https_never_becomes_http() {
    let (secure, plain) = (Origin::start_tls().await, Origin::start().await);
    secure.file("/x", "text/plain", "x");
    let mut mine = settings(&[secure.url()]);
    let error = failure(&upstream(mine.clone()), &ask("/x")).await;
    assert!(matches!(&error, UpstreamError::Unreachable(why) if why.contains("TLS")), "{error:?}");
    assert_eq!(secure.total(), 0);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ca.pem");
    std::fs::write(&path, secure.certificate()).expect("written");
    mine.ca_files = vec![path];
    mine.allowed_hosts = vec!["127.0.0.1".to_owned()];
    let upstream = upstream(mine);
    upstream.send(&ask("/x")).await.expect("trusted now");
    secure.on("/x").redirect(&format!("{}/y", plain.url())).once();
    assert_eq!(failure(&upstream, &ask("/x")).await, UpstreamError::Forbidden(plain.url()));
    assert_eq!(plain.connections(), 0);
}

// ---- what is said about it

#[tokio::test]
async fn no_secret_is_in_any_error_or_debug_output() {
    let (origin, cdn) = (Origin::start().await, Origin::start().await);
    let image = origin.image("library/app", "1.0", 0, 0);
    let mut mine = settings(&[origin.url()]);
    mine.credentials = basic("canary");
    mine.allowed_hosts = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    mine.limits.first_byte = MILLISECOND * 50;
    origin.protect(Protection::bearer().login("me", "canary"));
    let signed = format!("{}/canary?X-Amz-Signature=canary", cdn.url());
    let upstream = upstream(mine);
    let mut said = Vec::new();
    for body in ["canary", r#"{"token":""}"#, r#"{"token":"can\r\nary"}"#] {
        origin.on("/token").body(body).once();
        said.push(failure(&upstream, &scoped(&image.path)).await);
    }
    origin.on(&image.path).redirect(&signed).always();
    for fault in [cdn.on("/canary").status(403), cdn.on("/canary").redirect("ftp://canary:canary@x/canary")] {
        fault.once();
        said.push(failure(&upstream, &scoped(&image.path)).await);
    }
    cdn.on("/canary").hang().times(3);
    said.push(failure(&upstream, &scoped(&image.path)).await);
    cdn.on("/canary").body("x").cut_after(0).once();
    let mut answer = upstream.send(&scoped(&image.path)).await.expect("headers");
    let debug = format!("{answer:?}");
    said.push(answer.chunk().await.expect_err("cut"));
    cdn.stop().await;
    said.push(failure(&upstream, &scoped(&image.path)).await);
    let url = format!("http://me:canary@127.0.0.1:{}/canary?canary", origin.port()).parse().expect("a URL");
    said.push(failure(&upstream, &Ask { target: Target::Url(url), ..Ask::default() }).await);
    assert_eq!(said.len(), 9);
    for error in said {
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
    assert!(!debug.contains("canary"), "{debug}");
    let debug = format!("{upstream:?}");
    assert!(!debug.contains("canary") && !debug.contains("token-"), "{debug}");
}

#[test]
fn requests_bytes_and_errors_are_counted_by_proxy() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let page = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let origin = Origin::start().await;
            let blob = origin.blob("library/app", 1234);
            origin.on(&blob.path).header("ratelimit-remaining", "76;w=21600").once();
            let upstream = plain(&origin);
            whole(upstream.send(&ask(&blob.path)).await.expect("good")).await.expect("whole");
            failure(&upstream, &ask("/missing")).await;
        });
    });
    let page = page.render();
    for line in [
        r#"repoxy_upstream_requests_total{proxy="test"} 2"#,
        r#"repoxy_upstream_bytes_total{proxy="test"} 1234"#,
        r#"repoxy_upstream_errors_total{proxy="test",kind="not-found"} 1"#,
        r#"repoxy_upstream_ratelimit_remaining{proxy="test"} 76"#,
    ] {
        assert!(page.lines().any(|known| known == line), "{line}\n{page}");
    }
}

#[test]
fn settings_that_cannot_work_are_refused_at_once() {
    for base in ["ftp://x", "https://user@x", "https://x/?q", "https://x/#f", "data:x"] {
        assert!(Upstream::new(settings(&[base.to_owned()])).is_err(), "{base}");
    }
    assert!(Upstream::new(settings(&[])).is_err());
    let good = settings(&["https://registry.example".to_owned()]);
    assert!(Upstream::new(Settings { instance: "a b".to_owned(), ..good.clone() }).is_err());
    assert!(Upstream::new(Settings { allowed_hosts: vec!["http://x".to_owned()], ..good.clone() }).is_err());
    let missing = PathBuf::from("/nonexistent/file");
    assert!(Upstream::new(Settings { ca_files: vec![missing.clone()], ..good.clone() }).is_err());
    assert!(Upstream::new(Settings { credentials: Credentials::Docker { path: missing }, ..good }).is_err());
}

// ---- answers of any kind, and requests that change something

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
