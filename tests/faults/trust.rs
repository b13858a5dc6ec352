//! S: whom upstream leads to, who sees a secret, and who may have what is stored.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use crate::support::{Origin, Protection, Repoxy, eventually, proxy};

pub(crate) const CANARY: &str = "canary-7f3a9";
const LOGIN: &str = "credentials = { username = \"me\", password = \"canary-7f3a9\" }";

/// Whether any request that an origin has seen holds the secret, as it is or in base64.
pub(crate) fn leaked(origin: &Origin) -> bool {
    // `me:canary-7f3a9`
    let basic = "bWU6Y2FuYXJ5LTdmM2E5";
    let seen = ["GET", "HEAD", "POST"].into_iter().flat_map(|method| origin.seen(method, "*"));
    seen.into_iter().any(|seen| {
        let text = format!("{:?} {:?} {:?} {:?}", seen.headers, seen.path, seen.query, seen.body);
        text.contains(CANARY) || text.contains(basic)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_a_token_realm_elsewhere_gets_no_credentials_and_inside_no_request() {
    let (origin, evil) = (Origin::start().await, Origin::start().await);
    let image = origin.image("library/app", "1.0", 1, 100);
    for realm in [
        format!("{}/token", evil.url()),
        format!("{}/token", evil.url_as("localhost")),
        format!("{}/token", evil.url_as("[::ffff:127.0.0.1]")),
        format!("http://user@127.0.0.1:{}/token", evil.port()),
        "https://registry.invalid/token".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        origin.protect(Protection::bearer().realm(&realm));
        for login in [LOGIN, ""] {
            let repoxy = Repoxy::with(&proxy(&origin, &format!("ttl = \"0s\"\n{login}")));
            let got = repoxy.get(&image.path).await;
            assert!(got.status.is_client_error() || got.status.is_server_error(), "{realm}: {got:?}");
        }
    }
    assert_eq!(evil.total(), 0);
    assert!(!leaked(&origin), "the password is for the token service");
    // One that the operator names sees them: the test can tell.
    origin.protect(Protection::bearer().realm(&format!("{}/token", evil.url())));
    let named = format!("ttl = \"0s\"\nallowed_hosts = [\"127.0.0.1:{}\"]\n{LOGIN}", evil.port());
    Repoxy::with(&proxy(&origin, &named)).get(&image.path).await;
    assert!(leaked(&evil));
}

#[tokio::test(flavor = "multi_thread")]
async fn s7_redirects_to_inner_addresses_are_refused_by_name_and_by_number() {
    let (origin, inner) = (Origin::start().await, Origin::start().await);
    let blob = origin.blob("library/app", 100_000);
    inner.file("/inner", "application/octet-stream", blob.bytes.clone());
    let start = async |allowed: &str| {
        let mut repoxy = Repoxy::stopped(&proxy(&origin, &format!("ttl = \"0s\"\n{allowed}")));
        // Names that anybody may let point at any address.
        let hosts = repoxy.dir().join("hosts");
        std::fs::write(&hosts, "127.0.0.1 localhost rebound.test\n").expect("writable");
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        repoxy.run_under(&[
            "unshare",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            hosts.to_str().expect("text"),
        ]);
        repoxy.start();
        repoxy
    };
    let repoxy = start("").await;
    let hosts = [
        "127.0.0.1",
        "localhost",
        "rebound.test",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
    ];
    let targets = hosts.iter().map(|host| format!("{}/inner", inner.url_as(host)));
    for target in
        targets.chain(["http://169.254.169.254/latest/meta-data".to_owned(), "http://10.0.0.1/".to_owned()])
    {
        origin.on(&blob.path).redirect(&target).once();
        let got = repoxy.get(&blob.path).await;
        assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{target}");
        got.error_code();
    }
    assert_eq!(inner.connections(), 0, "not so much as a connection was made");
    assert_eq!(repoxy.files("type/container/blobs").len(), 0);
    // An allowed host is allowed, by its name.
    let repoxy = start("allowed_hosts = [\"rebound.test\"]").await;
    origin.on(&blob.path).redirect(&format!("{}/inner", inner.url_as("rebound.test"))).once();
    assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_credentials_stay_with_their_origin_through_redirects_and_back() {
    let (origin, cdn) = (Origin::start().await, Origin::start().await);
    let back = "/back";
    for (protection, login) in [
        (Protection::default(), "credentials = { token = \"canary-7f3a9\" }"),
        (Protection::basic("me", CANARY), LOGIN),
    ] {
        origin.protect(protection);
        let blob = origin.blob("library/app", 50_000);
        cdn.file("/signed", "application/octet-stream", blob.bytes.clone());
        cdn.on("/hop").redirect(&format!("{}{back}", origin.url())).once();
        origin.file(back, "application/octet-stream", blob.bytes.clone());
        let more = format!("ttl = \"0s\"\nallowed_hosts = [\"127.0.0.1:{}\"]\n{login}", cdn.port());
        for hop in ["/signed", "/hop"] {
            let repoxy = Repoxy::with(&proxy(&origin, &more));
            let to = format!("{}{hop}", cdn.url());
            // The first question is refused where a login has to be asked for.
            let script = origin.on(&blob.path).redirect(&to);
            if login == LOGIN {
                script.method("GET").always();
            } else {
                script.always();
            }
            let got = repoxy.get(&blob.path).await;
            assert_eq!(got.bytes(), &blob.bytes, "{hop}");
            origin.forget_scripts(&blob.path);
        }
    }
    assert!(leaked(&origin) && !leaked(&cdn));
    let returned = origin.seen("GET", back);
    assert_eq!(returned.len(), 2);
    assert!(
        returned.iter().all(|seen| seen.header("authorization").is_none()),
        "not restored on the way back"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_redirect_from_https_to_http_is_refused() {
    let (origin, plain) = (Origin::start_tls().await, Origin::start().await);
    let blob = origin.blob("library/app", 50_000);
    plain.file("/plain", "application/octet-stream", blob.bytes.clone());
    let mut repoxy =
        Repoxy::stopped(&proxy(&origin, "allowed_hosts = [\"127.0.0.1\"]\nca_files = [\"ca.pem\"]"));
    std::fs::write(repoxy.dir().join("ca.pem"), origin.certificate()).expect("writable");
    repoxy.start();
    origin.on(&blob.path).redirect(&format!("{}/plain", plain.url())).once();
    assert_eq!(repoxy.get(&blob.path).await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(plain.total(), 0);
    assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_the_urls_of_a_foreign_layer_are_not_followed() {
    let (origin, evil) = (Origin::start().await, Origin::start().await);
    let layer = evil.file("/l", "application/octet-stream", vec![7; 1000]);
    evil.on("/l").status(401).header("www-authenticate", "Basic realm=\"evil\"").always();
    let image = origin.image("library/app", "1.0", 1, 100);
    let text = String::from_utf8_lossy(&image.bytes).into_owned();
    let urls = format!("\"urls\":[\"{}/l\"],\"digest\":\"{}\"", evil.url(), layer.digest);
    let text = text.replace(&format!("\"digest\":\"{}\"", image.blobs[1].digest), &urls);
    assert!(text.contains("/l"), "{text}");
    let foreign = origin.manifest("library/app", "foreign", &image.media_type, text);
    let repoxy =
        Repoxy::with(&proxy(&origin, &format!("ttl = \"0s\"\nallowed_hosts = [\"127.0.0.1\"]\n{LOGIN}")));
    assert_eq!(repoxy.get(&foreign.path).await.bytes(), &foreign.bytes);
    let got = repoxy.get(&format!("/v2/library/app/blobs/{}", layer.digest)).await;
    assert_eq!(got.status, StatusCode::NOT_FOUND, "upstream itself has it not");
    assert_eq!(evil.total(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn s10_a_namespace_that_is_not_configured_is_asked_nowhere() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::with(&proxy(&origin, "ns = [\"registry.test\"]"));
    for namespace in
        ["evil.example", "127.0.0.1", "registry.test.evil.example", "registry.test%2f..", "registry.test:81"]
    {
        let got = repoxy.get(&format!("{}?ns={namespace}", image.path)).await;
        assert!(matches!(got.status.as_u16(), 400 | 404), "{namespace}: {got:?}");
    }
    assert_eq!(origin.total(), 0);
    assert_eq!(repoxy.get(&format!("{}?ns=registry.test", image.path)).await.bytes(), &image.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn s12_a_blob_is_served_only_to_a_repository_that_upstream_lets_have_it() {
    let origin = Origin::start().await;
    let secret = origin.blob("private/app", 300_000);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"0s\""));
    assert_eq!(repoxy.get(&secret.path).await.bytes(), &secret.bytes);
    repoxy.stored(1).await;
    let nowhere = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    for (method, range) in
        [(Method::GET, ""), (Method::HEAD, ""), (Method::GET, "bytes=0-9"), (Method::HEAD, "bytes=0-9")]
    {
        // One that is stored for another repository, and one that is nowhere, look the same.
        let mut told = Vec::new();
        for digest in [secret.digest.to_string(), nowhere.to_owned()] {
            let before = origin.total();
            let repository = format!("public/{}{}", method.as_str().to_lowercase(), range.len());
            let path = format!("/v2/{repository}/blobs/{digest}");
            let headers = if range.is_empty() { vec![] } else { vec![("range", range)] };
            let got = repoxy.request(method.clone(), &path, &headers).await;
            let body = String::from_utf8_lossy(got.bytes()).replace(&digest, "…");
            told.push((got.status, body, origin.total() - before));
        }
        assert_eq!(told[0].0, StatusCode::NOT_FOUND);
        assert_eq!(told[0].2, 1, "upstream was asked");
        assert_eq!(told[0], told[1], "{method} {range}");
    }
    // Once upstream has it there too, one HEAD is enough: its bytes are not fetched again.
    let shared = origin.blob_of("public/other", secret.bytes.clone());
    assert_eq!(repoxy.get(&shared.path).await.bytes(), &secret.bytes);
    assert_eq!((origin.count("HEAD", &shared.path), origin.count("GET", &shared.path)), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn s12_what_one_proxy_may_read_is_not_what_another_may() {
    let (open, closed) = (Origin::start().await, Origin::start().await);
    let image = open.image("library/app", "1.0", 1, 300_000);
    closed.protect(Protection::basic("me", "unknown to us"));
    for path in [&image.path, &image.by_digest] {
        closed.file(path, &image.media_type, image.bytes.clone());
    }
    closed.blob_of("library/app", image.blobs[1].bytes.clone());
    let second =
        format!("[[proxy]]\ntype = \"container\"\nname = \"closed\"\nupstream = \"{}\"\n", closed.url());
    let repoxy = Repoxy::with(&format!("{}{second}", proxy(&open, "ttl = \"1h\"")));
    for path in [&image.path, &image.by_digest, &image.blobs[1].path] {
        assert_eq!(repoxy.get(path).await.status, StatusCode::OK);
        for method in [Method::GET, Method::HEAD] {
            let other = path.replace("/v2/", "/v2/closed/");
            let got = repoxy.request(method, &other, &[]).await;
            assert!(matches!(got.status.as_u16(), 401 | 403 | 404), "{other}: {got:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s15_documents_beyond_all_measure_are_refused_in_bounded_memory() {
    let origin = Origin::start().await;
    let small = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"0s\""));
    repoxy.get(&small.path).await;
    let before = repoxy.own_memory();
    let deep = format!("{{\"schemaVersion\":2,\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let huge = origin.manifest("library/app", "huge", &small.media_type, vec![b' '; 50 << 20]);
    let deep = origin.manifest("library/app", "deep", &small.media_type, deep);
    let tags = "\"a-tag-of-twenty-bytes\",".repeat(1_000_000);
    let list = format!("{{\"name\":\"library/app\",\"tags\":[{tags}\"z\"]}}");
    origin.on("/v2/library/app/tags/list").header("content-type", "application/json").body(list).always();
    // The same without a length: what is too much is noticed on the way.
    origin.on(&huge.by_digest).chunked().always();
    let began = Instant::now();
    for path in [&huge.path, &huge.by_digest, &deep.path, &deep.by_digest, "/v2/library/app/tags/list"] {
        let got = repoxy.get(path).await;
        assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{path}");
        got.error_code();
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let after = repoxy.own_memory();
    assert!(after < before + (100 << 20), "{before} {after}");
    assert_eq!(repoxy.get(&small.path).await.bytes(), &small.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn s22_a_secret_is_nowhere_to_be_seen() {
    let (origin, cdn) = (Origin::start().await, Origin::start().await);
    origin.protect(Protection::bearer().realm(&format!("{}/token", origin.url())).login("me", CANARY));
    let image = origin.image("library/app", "1.0", 1, 100_000);
    cdn.file("/signed", "application/octet-stream", image.blobs[1].bytes.clone());
    let more = format!("ttl = \"0s\"\nallowed_hosts = [\"127.0.0.1\"]\n{LOGIN}\n[log]\nlevel = \"trace\"");
    let repoxy = Repoxy::with(&proxy(&origin, &more));
    let mut shown = String::new();
    let ask = async |path: &str| {
        let got = repoxy.get(path).await;
        format!("{:?} {}", got.headers, String::from_utf8_lossy(got.body.as_deref().unwrap_or_default()))
    };
    shown += &ask(&image.path).await;
    // A signed URL, one with a user in it, a realm with both, trouble of each kind.
    let blob = &image.blobs[1].path;
    origin.on(blob).redirect(&format!("{}/signed?X-Amz-Signature={CANARY}", cdn.url())).once();
    repoxy.get(blob).await;
    repoxy.stored(2).await;
    for to in [
        format!("http://me:{CANARY}@127.0.0.1:{}/x", cdn.port()),
        format!("http://10.0.0.1/{CANARY}?s={CANARY}"),
    ] {
        origin.on("/v2/library/other/*").redirect(&to).once();
        shown += &ask("/v2/library/other/manifests/1").await;
    }
    origin.on("/v2/library/down/*").status(500).body(CANARY).always();
    shown += &ask("/v2/library/down/manifests/1").await;
    origin
        .on("/v2/library/denied/*")
        .status(401)
        .header("www-authenticate", &format!("Basic realm=\"{CANARY}\""))
        .always();
    shown += &ask("/v2/library/denied/manifests/1").await;
    origin.on("/token").status(500).body(CANARY).always();
    origin.revoke_tokens();
    shown += &ask(&image.path).await;
    shown += &ask("/-/metrics").await;
    shown += &ask("/v2/_catalog").await;
    for arguments in [
        &["ls", "refs", "--json"][..],
        &["ls", "proxies"],
        &["config", "show"],
        &["fsck", "--json"],
        &["config", "check"],
    ] {
        let output = repoxy.run(arguments);
        shown += &String::from_utf8_lossy(&[output.stdout, output.stderr].concat());
    }
    shown += &repoxy.proc("cmdline");
    repoxy.assert_nowhere(CANARY).await;
    assert!(!shown.contains(CANARY), "{shown}");
    eventually("all of it is logged", || repoxy.log().contains("/-/metrics")).await;
    let log = repoxy.log();
    for secret in [CANARY, "bWU6Y2FuYXJ5LTdmM2E5", "Bearer token-", "\"token-"] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
    assert!(
        origin.seen("GET", "/token").iter().any(|seen| seen.header("authorization").is_some()),
        "it was used"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn s33_proxies_in_the_environment_are_not_used() {
    let (origin, evil) = (Origin::start().await, Origin::start().await);
    let image = origin.image("library/app", "1.0", 1, 100);
    let mut repoxy = Repoxy::stopped(&proxy(&origin, "ttl = \"0s\""));
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        repoxy.set_env(name, &format!("http://me:{CANARY}@127.0.0.1:{}", evil.port()));
    }
    repoxy.start();
    assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes);
    assert_eq!((origin.total(), evil.connections()), (1, 0));
    assert!(!repoxy.log().contains(CANARY));
}
