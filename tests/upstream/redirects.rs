//! Where it may lead: redirects, inner addresses, proxies and certificates.

use repoxy::upstream::{Ask, Credentials, SecretSource, Target, UpstreamError};

use crate::support::{self, Origin};
use crate::{ask, failure, plain, settings, upstream, whole};

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
