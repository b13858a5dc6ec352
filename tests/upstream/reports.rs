//! What is said about it: errors without secrets, metrics, and settings that are refused.

use std::path::PathBuf;

use repoxy::upstream::{Ask, Credentials, Settings, Target, Upstream};

use crate::support::{Origin, Protection};
use crate::{MILLISECOND, ask, basic, failure, plain, scoped, settings, upstream, whole};

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
