//! Who we are: tokens, passwords and whom they are sent to.

use std::path::PathBuf;

use repoxy::upstream::{Ask, Credentials, SecretSource, UpstreamError};

use crate::support::{Gate, Origin, Protection};
use crate::{ask, basic, failure, plain, scoped, settings, upstream};

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
