//! A: an upstream that is away, slow, in trouble, or not who it should be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::{Blob, Gate, Got, Manifest, Origin, Protection, Repoxy, eventually, proxy, sha512};

const REFERRERS: &[u8] = include_bytes!("../../fixtures/oci/referrers.json");

/// What "at once" may take at most: ten times what is promised, for a busy machine.
const AT_ONCE: Duration = Duration::from_millis(500);

/// A refusal in the protocol's own form.
fn assert_refused(got: &Got, status: StatusCode) {
    assert_eq!(got.status, status, "{got:?}");
    assert!(got.header("content-type").starts_with("application/json"));
    got.error_code();
}

/// A configuration with this upstream and further lines.
fn config(upstream: &str, more: &str) -> String {
    format!(
        "[[proxy]]\ntype = \"container\"\nname = \"hub\"\nupstream = \"{upstream}\"\ndefault = true\n{more}\n"
    )
}

/// An address whose connections are never established: nobody accepts, and there is no room to wait.
struct BlackHole {
    port: u16,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    async fn at(address: &str) -> Self {
        let address: std::net::SocketAddr = address.parse().expect("an address");
        let socket =
            if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.expect("a socket");
        socket.bind(address).expect("a free port");
        let listener = socket.listen(1).expect("it listens");
        let address = listener.local_addr().expect("bound");
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await
        {
            waiting.push(stream);
            assert!(waiting.len() < 100, "the queue has an end");
        }
        Self { port: address.port(), _listener: listener, _waiting: waiting }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_a_connection_that_is_never_made_ends_in_504_after_three_tries() {
    let hole = BlackHole::at("127.0.0.1:0").await;
    let repoxy =
        Repoxy::with(&config(&format!("http://127.0.0.1:{}", hole.port), "connect_timeout = \"200ms\""));
    let began = Instant::now();
    let got = repoxy.get("/v2/library/app/manifests/1.0").await;
    assert_refused(&got, StatusCode::GATEWAY_TIMEOUT);
    assert!(began.elapsed() >= Duration::from_millis(3 * 200), "three tries");
    let asked = repoxy.metric("repoxy_upstream_requests_total{proxy=\"container/hub\"}").await;
    assert!(asked <= 3.0, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_an_upstream_that_hangs_costs_a_cached_tag_little_and_only_once() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::before(&origin);
    repoxy.get(&image.path).await;
    origin.on("/v2/*").hang().always();
    for _ in 0..3 {
        let got = tokio::time::timeout(Duration::from_secs(20), repoxy.get(&image.path)).await;
        let got = got.expect("long before upstream's own limit");
        assert_eq!(got.bytes(), &image.bytes);
        assert!(got.header("cache-status").contains("detail="), "{}", got.header("cache-status"));
    }
    assert_eq!(origin.count("HEAD", &image.path), 1, "one question is under way, not three");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a minute of silence"]
async fn a1_a_cold_request_to_an_upstream_that_hangs_ends_in_504_within_a_minute() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    origin.on("/v2/*").hang().always();
    let repoxy = Repoxy::before(&origin);
    let began = Instant::now();
    let got = repoxy.get(&image.path).await;
    assert_refused(&got, StatusCode::GATEWAY_TIMEOUT);
    assert!((25..90).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert!((1..=3).contains(&origin.total()), "{}", origin.total());
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_an_upstream_in_trouble_is_asked_three_times_and_its_trouble_is_not_remembered() {
    for status in [500, 502, 503, 504] {
        let origin = Origin::start().await;
        let image = origin.image("library/app", "1.0", 1, 100);
        let repoxy = Repoxy::before(&origin);
        origin.on(&image.path).status(status).times(3);
        let began = Instant::now();
        let got = repoxy.get(&image.path).await;
        assert!(matches!(got.status.as_u16(), 502 | 503), "{got:?}");
        got.error_code();
        assert_eq!(origin.count("GET", &image.path), 3);
        assert!(began.elapsed() >= Duration::from_millis(125 + 250), "with pauses between");
        assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes, "{status} was not cached");
        origin.on(&image.path).status(status).always();
        let stale = repoxy.get(&image.path).await;
        assert_eq!(stale.bytes(), &image.bytes, "what is there stands in");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_rate_limit_is_passed_on_and_upstream_is_left_alone_as_long_as_it_asked() {
    let origin = Origin::start().await;
    let cached = origin.image("library/app", "1.0", 1, 100);
    let missing = origin.image("library/app", "2.0", 1, 100);
    let repoxy = Repoxy::before(&origin);
    repoxy.get(&cached.path).await;
    let before = origin.total();
    // In force however much is asked for later: the script takes one request, the others would get through.
    origin.on("/v2/*").rate_limited("120").once();
    for path in [&missing.path, &missing.by_digest, &missing.blobs[0].path, "/v2/library/app/tags/list"] {
        let got = repoxy.get(path).await;
        assert_refused(&got, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(got.error_code(), "TOOMANYREQUESTS");
        let wait: u64 = got.header("retry-after").parse().expect("seconds");
        assert!((1..=120).contains(&wait), "{wait}");
    }
    let stale = repoxy.get(&cached.path).await;
    assert_eq!(stale.bytes(), &cached.bytes);
    assert!(stale.header("cache-status").contains("detail="), "{}", stale.header("cache-status"));
    assert_eq!(origin.total(), before + 1, "not tried again, and not asked for anything else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_of_a_tag_that_moved_the_old_image_stands_in_while_the_new_one_is_limited() {
    let origin = Origin::start().await;
    let old = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::before(&origin);
    repoxy.get(&old.path).await;
    let new = origin.image("library/app", "1.0", 2, 100);
    origin.on(&new.path).method("GET").rate_limited("120").once();
    for asked in ["while it says so", "while it is left alone"] {
        let got = repoxy.get(&old.path).await;
        assert_eq!((got.status, got.bytes()), (StatusCode::OK, &old.bytes), "{asked}");
    }
    assert_eq!((origin.count("HEAD", &old.path), origin.count("GET", &old.path)), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_pause_of_years_is_ten_minutes_and_checks_are_not_skipped_for_it() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::before(&origin);
    repoxy.get(&image.path).await;
    // A 429 with a body that could pass for the blob is a refusal all the same.
    let blob = &image.blobs[1];
    origin.on(&blob.path).status(429).header("retry-after", "99999999").body(blob.bytes.clone()).always();
    let got = repoxy.get(&blob.path).await;
    assert_refused(&got, StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = got.header("retry-after").parse().expect("seconds");
    assert!((500..=600).contains(&wait), "{wait}");
    assert_eq!(repoxy.files("type/container/blobs").len(), 1, "the manifest alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_of_two_rate_limits_the_longer_one_holds_whichever_comes_last() {
    let origin = Origin::start().await;
    for longer_first in [true, false] {
        let repoxy = Arc::new(Repoxy::before(&origin));
        let waits = if longer_first { ["300", "60"] } else { ["60", "300"] };
        // Both are under way before either is answered.
        let mut asked = Vec::new();
        for (n, wait) in waits.iter().enumerate() {
            let (gate, path) = (Gate::closed(), format!("/v2/library/app/manifests/{longer_first}-{n}"));
            origin.on(&path).hold(&gate).rate_limited(wait).once();
            let (repoxy, of) = (Arc::clone(&repoxy), path.clone());
            asked.push((gate, tokio::spawn(async move { repoxy.get(&of).await })));
            origin.seen_at_least("GET", &path, 1).await;
        }
        for (gate, answer) in asked {
            gate.open();
            assert_refused(&answer.await.expect("no panic"), StatusCode::TOO_MANY_REQUESTS);
        }
        let before = origin.total();
        let got = repoxy.get("/v2/library/app/manifests/later").await;
        assert_refused(&got, StatusCode::TOO_MANY_REQUESTS);
        let wait: u64 = got.header("retry-after").parse().expect("seconds");
        assert!((200..=300).contains(&wait), "{longer_first}: {wait}");
        assert_eq!(origin.total(), before);
    }
}

/// Brings an upstream down so far that it is left alone; `image` is cached before.
async fn broken_down(origin: &Origin, repoxy: &Repoxy, image: &Manifest) {
    repoxy.get(&image.path).await;
    origin.on("/v2/*").status(500).always();
    for n in 0..2 {
        let got = repoxy.get(&format!("/v2/library/missing/manifests/{n}")).await;
        assert!(got.status.is_server_error(), "{got:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a11_after_five_failures_upstream_is_left_alone_and_answers_come_at_once() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::before(&origin);
    broken_down(&origin, &repoxy, &image).await;
    let before = origin.total();
    let began = Instant::now();
    let missed = repoxy.get("/v2/library/missing/manifests/9").await;
    assert_refused(&missed, StatusCode::SERVICE_UNAVAILABLE);
    assert!(missed.header("retry-after").parse::<u64>().is_ok_and(|wait| wait <= 10), "{missed:?}");
    let stale = repoxy.get(&image.path).await;
    assert_eq!(stale.bytes(), &image.bytes);
    assert!(began.elapsed() < 2 * AT_ONCE, "{:?}", began.elapsed());
    // Five failures are five requests; the sixth try of the second name was not made.
    assert_eq!((before, origin.total()), (1 + 5, before));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: the breaker opens for ten seconds and then for twenty"]
async fn a11_one_probe_after_ten_seconds_decides() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::before(&origin);
    broken_down(&origin, &repoxy, &image).await;
    let down = origin.total();
    // The one probe fails and the wait doubles; the one after that succeeds.
    let waited = Instant::now();
    while origin.total() == down {
        repoxy.get("/v2/library/missing/manifests/probe").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(waited.elapsed().as_secs() < 100, "no probe was made");
    }
    assert_eq!(origin.total(), down + 1);
    let waited = Instant::now();
    origin.forget_scripts("/v2/*");
    let fresh = origin.image("library/app", "2.0", 1, 100);
    while repoxy.get(&fresh.path).await.status != StatusCode::OK {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(waited.elapsed().as_secs() < 200, "upstream was never asked again");
    }
    assert!(waited.elapsed().as_secs() >= 15, "{:?}", waited.elapsed());
    assert_eq!(repoxy.get(&fresh.path).await.bytes(), &fresh.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_redirects_that_lead_nowhere_end_in_502() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::with(&proxy(&origin, "allowed_hosts = [\"127.0.0.1\"]"));
    let circle = "/v2/library/circle/manifests/1";
    origin.on(circle).redirect(&format!("{}{circle}", origin.url())).always();
    for hop in 0..11 {
        let to = format!("{}/v2/library/app/blobs/{}", origin.url(), hop + 1);
        origin.on(&format!("/v2/library/app/blobs/{hop}")).redirect(&to).always();
    }
    let chain = "/v2/library/chain/manifests/1";
    origin.on(chain).redirect(&format!("{}/v2/library/app/blobs/0", origin.url())).always();
    let file = "/v2/library/file/manifests/1";
    origin.on(file).redirect("file:///etc/passwd").always();
    let own = "/v2/library/own/manifests/1";
    origin.on(own).redirect(&format!("{}{own}", repoxy.url())).always();
    for path in [circle, chain, file, own] {
        assert_refused(&repoxy.get(path).await, StatusCode::BAD_GATEWAY);
    }
    assert_eq!(origin.count("GET", circle), 6, "five redirects are followed");
    assert_eq!(origin.count("GET", "/v2/library/app/blobs/*"), 5, "and of a chain too");
    // Our own request came back to us and went no further.
    assert_eq!(origin.count("GET", own), 1);
    assert_eq!(repoxy.files("type/container/blobs"), [] as [std::path::PathBuf; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_certificates_that_are_not_right_end_in_502_and_never_in_plain_http() {
    let good = Origin::start_tls().await;
    let expired = Origin::start_tls_as(&["localhost"], 2020..2021).await;
    let elsewhere = Origin::start_tls_as(&["registry.example"], 2020..4096).await;
    for (origin, trusted, works) in
        [(&good, true, true), (&good, false, false), (&expired, true, false), (&elsewhere, true, false)]
    {
        let image = origin.image("library/app", "1.0", 1, 100);
        let ca = if trusted { "ca_files = [\"ca.pem\"]" } else { "" };
        let mut repoxy = Repoxy::stopped(&config(&origin.url_as("localhost"), ca));
        std::fs::write(repoxy.dir().join("ca.pem"), origin.certificate()).expect("writable");
        repoxy.start();
        let got = repoxy.get(&image.path).await;
        if works {
            assert_eq!(got.bytes(), &image.bytes);
        } else {
            assert_refused(&got, StatusCode::BAD_GATEWAY);
            assert_eq!(
                origin.count("GET", "*"),
                usize::from(origin.port() == good.port()),
                "nothing was said"
            );
            eventually("the log says why", || repoxy.log().to_lowercase().contains("certificate")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_authorities_of_the_system_are_trusted_beside_those_of_the_configuration() {
    let (public, private) = (Origin::start_tls().await, Origin::start_tls().await);
    let proxies = [
        ("hub", &public, ""),
        ("inner", &private, "ca_files = [\"ca.pem\"]"),
        ("both", &public, "ca_files = [\"ca.pem\"]"),
    ];
    let tables = proxies.map(|(name, origin, ca)| {
        let table = config(&origin.url(), ca).replace("hub", name);
        if name == "hub" { table } else { table.replace("default = true", "") }
    });
    let mut repoxy = Repoxy::stopped(&tables.concat());
    std::fs::write(repoxy.dir().join("ca.pem"), private.certificate()).expect("writable");
    // Instead of what the machine has: what OpenSSL's programs look for too.
    let system = repoxy.dir().join("system.pem");
    std::fs::write(&system, public.certificate()).expect("writable");
    repoxy.set_env("SSL_CERT_FILE", system.to_str().expect("text"));
    repoxy.start();
    for (name, origin, _) in proxies {
        let image = origin.image("library/app", "1.0", 1, 100);
        let path = image.path.replace("/v2/", &format!("/v2/{name}/"));
        assert_eq!(repoxy.get(&path).await.bytes(), &image.bytes, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_an_upstream_is_trusted_from_when_its_authority_is_read_again() {
    let (origin, other) = (Origin::start_tls().await, Origin::start_tls().await);
    let image = origin.image("library/app", "1.0", 1, 100);
    for (ca, is_system) in [("ca_files = [\"ca.pem\"]", false), ("", true)] {
        // It is left alone by then.
        let mut repoxy = Repoxy::stopped(&config(&origin.url(), &format!("breaker_after = 1\n{ca}")));
        let file = repoxy.dir().join("ca.pem");
        std::fs::write(&file, other.certificate()).expect("writable");
        if is_system {
            repoxy.set_env("SSL_CERT_FILE", file.to_str().expect("text"));
        }
        repoxy.start();
        let before = origin.total();
        assert_refused(&repoxy.get(&image.path).await, StatusCode::BAD_GATEWAY);
        std::fs::write(&file, origin.certificate()).expect("writable");
        assert_refused(&repoxy.get(&image.path).await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(origin.total(), before, "nothing was said");
        repoxy.signal(Signal::HUP);
        eventually("it is read again", || repoxy.log().contains("certificates were read again")).await;
        assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_an_upstream_that_speaks_tls_1_0_only_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut hello = [0; 2048];
            let _ = stream.read(&mut hello).await;
            // RFC 2246, section 7.4.1.3: version 3.1, a random, no session, TLS_RSA_WITH_AES_128_CBC_SHA.
            let mut answer = vec![22, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1];
            answer.extend_from_slice(&[7; 32]);
            answer.extend_from_slice(&[0, 0, 0x2f, 0]);
            let _ = stream.write_all(&answer).await;
            let _ = stream.read(&mut hello).await;
        }
    });
    let repoxy = Repoxy::with(&config(&format!("https://localhost:{port}"), ""));
    assert_refused(&repoxy.get("/v2/library/app/manifests/1.0").await, StatusCode::BAD_GATEWAY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_a_name_that_does_not_exist_ends_in_502() {
    // RFC 6761, section 6.4: never a name of anybody.
    let repoxy = Repoxy::with(&config("http://registry.invalid", ""));
    let got = repoxy.get("/v2/library/app/manifests/1.0").await;
    // 504 where the resolver itself does not answer in time.
    assert!(matches!(got.status.as_u16(), 502 | 504), "{got:?}");
    got.error_code();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: three times the five seconds that a name may take"]
async fn a14_a_resolver_that_hangs_ends_in_504_and_holds_up_nobody() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let second = "[[proxy]]\ntype = \"container\"\nname = \"lost\"\nupstream = \"http://registry.test\"\n";
    let mut repoxy = Repoxy::stopped(&format!("{}{second}", proxy(&origin, "ttl = \"0s\"")));
    // A table of hosts that is never there to be read.
    let hosts = repoxy.dir().join("hosts");
    let hosts = hosts.to_str().expect("text");
    let script = "mkfifo \"$0\" && mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    repoxy.run_under(&["unshare", "--map-root-user", "--mount", "sh", "-c", script, hosts]);
    repoxy.start();
    let began = Instant::now();
    let lost = repoxy.get("/v2/lost/library/app/manifests/1.0");
    let other = async {
        for _ in 0..20 {
            assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes);
        }
        began.elapsed()
    };
    let (lost, other) = tokio::join!(lost, other);
    assert_refused(&lost, StatusCode::GATEWAY_TIMEOUT);
    assert!((4..60).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert!(other < Duration::from_secs(4), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a15_what_was_not_there_is_found_soon_after_it_is_published() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"2s\""));
    let path = "/v2/library/app/manifests/1.0";
    for _ in 0..5 {
        assert_refused(&repoxy.get(path).await, StatusCode::NOT_FOUND);
    }
    assert!(origin.count("GET", path) <= 3, "the no holds for a while");
    let image = origin.image("library/app", "1.0", 1, 100);
    let began = Instant::now();
    while repoxy.get(path).await.status == StatusCode::NOT_FOUND {
        assert!(began.elapsed() < Duration::from_secs(60), "the no holds for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(repoxy.get(path).await.bytes(), &image.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a15_a_no_of_upstream_takes_nothing_away_that_is_cached() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::before(&origin);
    repoxy.get(&image.path).await;
    repoxy.get(&image.blobs[1].path).await;
    repoxy.stored(2).await;
    origin.remove(&image.path);
    // The tag is what upstream says; its content is not touched, and is there again with the tag.
    assert_refused(&repoxy.get(&image.path).await, StatusCode::NOT_FOUND);
    let file = repoxy.root().join("type/container/proxies/hub/refs/library/app/tags/1.0.json");
    assert!(file.exists(), "the ref is stale, not gone");
    let before = origin.total();
    assert_eq!(repoxy.get(&image.by_digest).await.bytes(), &image.bytes);
    assert_eq!(repoxy.get(&image.blobs[1].path).await.bytes(), &image.blobs[1].bytes);
    assert_eq!(origin.total(), before);
    origin.file(&image.path, &image.media_type, image.bytes.clone());
    assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes);
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a16_a_token_that_is_refused_is_renewed_once_and_a_denial_is_neither_kept_nor_a_404() {
    let origin = Origin::start().await;
    origin.protect(Protection::bearer().login("me", "right"));
    let image = origin.image("library/app", "1.0", 1, 100);
    let login = |password: &str| {
        let realm = format!("allowed_hosts = [\"localhost:{}\"]", origin.port());
        proxy(
            &origin,
            &format!(
                "ttl = \"0s\"\n{realm}\ncredentials = {{ username = \"me\", password = \"{password}\" }}"
            ),
        )
    };
    let repoxy = Repoxy::with(&login("right"));
    assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes);
    let tokens = origin.count("GET", "/token");
    origin.revoke_tokens();
    let again = repoxy.get(&image.path).await;
    assert_eq!(again.bytes(), &image.bytes);
    assert!(!again.header("cache-status").contains("detail="), "with a new token, not stale");
    assert_eq!(origin.count("GET", "/token"), tokens + 1);
    // Upstream says no whatever the token: that is said to the client, asked anew each time.
    for status in [401, 403] {
        let path = format!("/v2/library/app/manifests/no-{status}");
        origin.on(&path).status(status).times(2);
        let got = repoxy.get(&path).await;
        assert!(matches!(got.status.as_u16(), 401 | 403), "{got:?}");
        assert!(origin.count("GET", &path) <= 2);
        origin.forget_scripts(&path);
        let appeared = origin.image("library/app", &format!("no-{status}"), 1, 10);
        assert_eq!(repoxy.get(&path).await.bytes(), &appeared.bytes, "{status} was not kept");
    }
    let wrong = Repoxy::with(&login("wrong"));
    let got = wrong.get(&image.path).await;
    assert!(matches!(got.status.as_u16(), 401 | 403), "{got:?}");
    assert!(matches!(got.error_code().as_str(), "UNAUTHORIZED" | "DENIED"), "{got:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a22_an_address_that_is_dead_is_passed_over_for_the_next() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let hole = BlackHole::at(&format!("[::1]:{}", origin.port())).await;
    let mut repoxy =
        Repoxy::stopped(&config(&format!("http://two.test:{}", hole.port), "connect_timeout = \"60s\""));
    // A name with both addresses, for this process alone.
    let hosts = repoxy.dir().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n::1 two.test\n127.0.0.1 two.test\n").expect("writable");
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
    let began = Instant::now();
    assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// The tag at which clients look for what refers to an image, if upstream lists no referrers.
fn fallback_tag(of: &Manifest) -> String {
    of.digest.to_string().replace(':', "-")
}

/// What is named by a sha512, and what refers to an image, both as upstream lists it and at the tag.
fn named_otherwise(origin: &Origin, image: &Manifest) -> Vec<Blob> {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const NONE: &str = r#"{"schemaVersion":2,"manifests":[]}"#;
    let manifest = format!("/v2/library/app/manifests/{}", sha512(&image.bytes));
    let blob = origin.blob("elsewhere", 20_000).bytes;
    let fallback = origin.manifest("library/app", &fallback_tag(image), INDEX, REFERRERS);
    vec![
        origin.file(&manifest, &image.media_type, image.bytes.clone()),
        origin.file(&format!("/v2/library/app/blobs/{}", sha512(&blob)), "application/octet-stream", blob),
        origin.file(&format!("/v2/library/app/referrers/{}", image.digest), INDEX, NONE),
        Blob { digest: fallback.digest, path: fallback.path, bytes: fallback.bytes },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a23_with_upstream_down_everything_that_is_warm_is_served() {
    let origin = Origin::start().await;
    let images: Vec<_> = (0..10).map(|n| origin.image("library/app", &format!("v{n}"), 2, 20_000)).collect();
    let index = origin.index("library/app", "all", &images[..3]);
    let mut repoxy = Repoxy::before(&origin);
    let mut warm = vec![(index.path.clone(), index.bytes.clone())];
    for image in &images {
        warm.push((image.path.clone(), image.bytes.clone()));
        warm.push((image.by_digest.clone(), image.bytes.clone()));
        warm.extend(image.blobs.iter().map(|blob| (blob.path.clone(), blob.bytes.clone())));
    }
    let files = named_otherwise(&origin, &images[0]);
    warm.extend(files.into_iter().map(|file| (file.path, file.bytes)));
    let tags =
        r#"{"name":"library/app","tags":["all",TAG,"v0","v1","v2","v3","v4","v5","v6","v7","v8","v9"]}"#;
    let tags = tags.replace("TAG", &format!("\"{}\"", fallback_tag(&images[0])));
    warm.push(("/v2/library/app/tags/list".to_owned(), tags.into()));
    for (path, bytes) in &warm {
        assert_eq!(repoxy.get(path).await.bytes(), bytes, "{path}");
    }
    repoxy.stored(1 + 10 + 30 + 3 + 1).await;
    origin.stop().await;
    // Also after a restart, which forgets everything that is only in memory.
    for round in 0..3 {
        for (path, bytes) in &warm {
            let got = repoxy.get(path).await;
            assert_eq!((got.status, got.bytes()), (StatusCode::OK, bytes), "{path} in round {round}");
        }
        if round == 1 {
            repoxy.kill();
            repoxy.start();
        }
    }
    let repoxy = Arc::new(repoxy);
    repoxy.assert_sound().await;
}
