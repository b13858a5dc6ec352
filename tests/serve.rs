//! The server as its operator sees it: signals, the log, the counters.

pub mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use http::Method;
use rustix::process::Signal;
use serde_json::Value;
use support::{Gate, Origin, Protection, Repoxy, eventually, proxy};

const OPERATIONS: &str = include_str!("../docs/operations.md");

/// The lines of a server's log in JSON.
fn lines(repoxy: &Repoxy) -> Vec<Value> {
    repoxy.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What is said of requests for a resource, once there are as many lines as there should be.
async fn told(repoxy: &Repoxy, resource: &str, count: usize) -> Vec<Value> {
    let of = || lines(repoxy).into_iter().filter(|line| line["resource"] == resource).collect::<Vec<_>>();
    eventually("the requests are logged", || of().len() >= count).await;
    let told = of();
    assert_eq!(told.len(), count, "one line each: {told:?}");
    told
}

/// What a metric says.
async fn metric(repoxy: &Repoxy, name: &str) -> String {
    repoxy.metric(name).await.to_string()
}

/// Whose a request was, its status and its outcome, as its line says.
fn in_short(line: &Value) -> String {
    ["proxy", "status", "outcome"].map(|field| line[field].to_string().replace('"', "")).join(" ")
}

/// A plain file's proxy, `files`.
fn files(origin: &Origin) -> String {
    proxy(origin, "").replace("container", "generic").replace("hub", "files").replace("default = true\n", "")
}

/// One request was answered in this way, and both counters and log say so.
async fn assert_told(repoxy: &Repoxy, resource: &str, proxy: &str, outcome: &str, bytes: usize) {
    let name = format!("repoxy_responses_total{{proxy=\"{proxy}\",outcome=\"{outcome}\"}}");
    assert_eq!(metric(repoxy, &name).await, "1", "{name}");
    let all = lines(repoxy).into_iter().filter(|line| line["resource"] == resource).count();
    let told = told(repoxy, resource, all.max(1)).await;
    let told: Vec<_> = told.iter().filter(|line| line["outcome"] == outcome).collect();
    assert_eq!(told.len(), 1, "{resource}: {told:?}");
    assert_eq!(in_short(told[0]), format!("{proxy} 200 {outcome}"));
    assert_eq!((&told[0]["bytes"], &told[0]["whole"]), (&bytes.into(), &true.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fetched_is_told_as_filled_and_then_as_hit_with_the_bytes_that_were_sent() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 100_000);
    let repoxy = Repoxy::before(&origin);
    assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    repoxy.settle().await;
    assert_told(&repoxy, &blob.path, "container/hub", "filled", 100_000).await;
    assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    told(&repoxy, &blob.path, 2).await;
    assert_told(&repoxy, &blob.path, "container/hub", "hit", 100_000).await;
    assert_eq!(metric(&repoxy, "repoxy_sent_bytes_total{proxy=\"container/hub\"}").await, "200000");
    assert_eq!(metric(&repoxy, "repoxy_upstream_bytes_total{proxy=\"container/hub\"}").await, "100000");
    assert_eq!(metric(&repoxy, "repoxy_http_answers_total{class=\"4xx\"}").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_upstream_confirms_is_told_as_revalidated_and_what_it_cannot_as_stale() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 0, 0);
    let repoxy = Repoxy::before(&origin);
    repoxy.get(&image.path).await;
    repoxy.settle().await;
    repoxy.get(&image.path).await;
    told(&repoxy, &image.path, 2).await;
    assert_told(&repoxy, &image.path, "container/hub", "revalidated", image.bytes.len()).await;
    origin.stop().await;
    assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes);
    told(&repoxy, &image.path, 3).await;
    assert_told(&repoxy, &image.path, "container/hub", "stale", image.bytes.len()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_another_fetches_is_told_as_joined() {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", 200_000);
    let gate = Gate::closed();
    origin.on(&blob.path).hold_after(100_000, &gate).once();
    let repoxy = Repoxy::before(&origin);
    let first = repoxy.open(Method::GET, &blob.path, &[]).await;
    assert_eq!(metric(&repoxy, "repoxy_fills{proxy=\"container/hub\"}").await, "1");
    let second = repoxy.open(Method::GET, &blob.path, &[]).await;
    gate.open();
    for answer in [first, second] {
        assert_eq!(answer.bytes().await.expect("whole"), blob.bytes);
    }
    told(&repoxy, &blob.path, 2).await;
    assert_told(&repoxy, &blob.path, "container/hub", "filled", 200_000).await;
    assert_told(&repoxy, &blob.path, "container/hub", "joined", 200_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_stored_is_told_as_passed() {
    let origin = Origin::start().await;
    origin.file("/mine", "text/plain", "for you alone");
    origin.on("/mine").header("cache-control", "private").always();
    let repoxy = Repoxy::with(&files(&origin));
    assert_eq!(repoxy.get("/generic/files/mine").await.bytes(), "for you alone");
    assert_told(&repoxy, "/generic/files/mine", "generic/files", "passed", 13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_and_derived_answers_are_told_with_the_proxy_that_they_are_of() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 0, 0);
    let repoxy = Repoxy::with(&format!("{}{}", proxy(&origin, "ttl = \"0s\""), files(&origin)));
    repoxy.get(&image.path).await;
    for (resource, expected) in [
        ("/v2/library/none/manifests/1.0", "container/hub 404 refused"),
        ("/generic/files/none", "generic/files 404 passed"),
        ("/v2/hub/_catalog", "container/hub 200 derived"),
        ("/v2/_catalog", "null 200 derived"),
        ("/v2/library/app/tags/list", "container/hub 200 filled"),
        ("/v2/", "null 200 local"),
        ("/v2/library/app/manifests/%00", "null 400 refused"),
    ] {
        repoxy.get(resource).await;
        assert_eq!(in_short(&told(&repoxy, resource, 1).await[0]), expected, "{resource}");
    }
    origin.stop().await;
    let resource = "/v2/library/app/manifests/2.0";
    let refused = repoxy.get(resource).await;
    assert_eq!(refused.error_code(), "UNAVAILABLE");
    assert!(
        String::from_utf8_lossy(refused.bytes()).contains("upstream cannot be reached and"),
        "{refused:?}"
    );
    assert_eq!(in_short(&told(&repoxy, resource, 1).await[0]), "container/hub 502 refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_line_for_people_and_the_same_one_for_programs() {
    let origin = Origin::start().await;
    let blob = origin.blob_of("library/app", "content");
    let mut repoxy = Repoxy::stopped(&proxy(&origin, ""));
    let mut lines = Vec::new();
    for format in ["text", "json"] {
        repoxy.set_env("REPOXY_LOG_FORMAT", format);
        repoxy.start();
        assert_eq!(repoxy.get(&format!("{}?{format}", blob.path)).await.bytes(), &blob.bytes);
        repoxy.settle().await;
        let of = || {
            repoxy
                .log()
                .lines()
                .filter(|line| line.contains(&format!("?{format}")))
                .map(str::to_owned)
                .collect()
        };
        let mut found: Vec<String> = Vec::new();
        eventually("it is logged", || {
            found = of();
            !found.is_empty()
        })
        .await;
        assert_eq!(found.len(), 1);
        lines.append(&mut found);
        repoxy.terminate();
    }
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "<time>");
    settings.add_filter(r"repoxy-\w{26}-[0-9a-f]+", "<id>");
    settings.add_filter(r"127\.0\.0\.1:\d+", "<client>");
    settings.add_filter(r#"(milliseconds"?[=:])\d+"#, "$1<n>");
    settings.bind(|| insta::assert_snapshot!(lines.join("\n"), @r#"
    <time>  INFO repoxy::access: id="<id>" client=<client> method=GET resource=/v2/library/app/blobs/sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73?text proxy=container/hub status=200 outcome="filled" bytes=7 whole=true milliseconds=<n>
    {"timestamp":"<time>","level":"INFO","id":"<id>","client":"<client>","method":"GET","resource":"/v2/library/app/blobs/sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73?json","proxy":"container/hub","status":200,"outcome":"hit","bytes":7,"whole":true,"milliseconds":<n>,"target":"repoxy::access"}
    "#));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_line_may_name_the_host_of_the_public_url_and_no_other() {
    let origin = Origin::start().await;
    let public = "public_url = \"http://packages.example.org\"\n";
    for (line, own, other) in [("", "421", "421"), (public, "200", "421")] {
        let repoxy = Repoxy::with(&format!("{line}{}", proxy(&origin, "")));
        for (host, expected) in [("packages.example.org", own), ("other.example.org", other)] {
            let request =
                format!("GET http://{host}/-/health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            let answer = repoxy.raw(request.as_bytes()).await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{line}, {host}: {answer}");
        }
    }
}

/// Puts a fresh certificate for 127.0.0.1 and its key into a directory; a client that trusts no other.
fn certified(dir: &Path) -> reqwest::Client {
    let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    std::fs::write(dir.join("cert.pem"), issued.cert.pem()).expect("writable");
    std::fs::write(dir.join("key.pem"), issued.signing_key.serialize_pem()).expect("writable");
    let root = reqwest::Certificate::from_pem(issued.cert.pem().as_bytes()).expect("a certificate");
    // A connection that is kept would show the certificate of its beginning.
    let client = reqwest::Client::builder().tls_certs_only([root]).no_proxy().pool_max_idle_per_host(0);
    client.build().expect("a client")
}

/// Who the last request for a path said that it was: the first is to fetch, those after it are to confirm.
fn login(origin: &Origin, path: &str) -> String {
    let seen = [origin.seen("GET", path), origin.seen("HEAD", path)].concat();
    let logins: Vec<_> = seen.iter().filter_map(|seen| seen.header("authorization")).collect();
    (*logins.last().expect("it was asked")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_has_files_read_again_and_what_cannot_be_read_stays_in_use() {
    let origin = Origin::start().await;
    // Both see the same upstream.
    let [of_file, of_config] = ["hub", "inline"].map(|name| (name, origin.image("library/app", name, 0, 0)));
    let mut repoxy = Repoxy::stopped("");
    let old = certified(repoxy.dir());
    let password = repoxy.dir().join("password");
    std::fs::write(&password, "old\n").expect("writable");
    let path = |name: &str| repoxy.dir().join(name).display().to_string();
    let table = |name: &str, password: &str| {
        let credentials = format!("ttl = \"0s\"\ncredentials = {{ username = \"me\", {password} }}");
        proxy(&origin, &credentials).replace("hub", name).replace("default = true\n", "")
    };
    let config = format!(
        "root = \"{}\"\nlisten = \"127.0.0.1:0\"\n{}{}[tls]\nlisten = \"127.0.0.1:0\"\ncert = \"{}\"\nkey = \"{}\"\n",
        path("root"),
        table(of_file.0, &format!("password_file = \"{}\"", password.display())),
        table(of_config.0, "password = \"old\""),
        path("cert.pem"),
        path("key.pem"),
    );
    std::fs::write(repoxy.dir().join("repoxy.toml"), config).expect("writable");
    origin.protect(Protection::basic("me", "old"));
    repoxy.start();
    let mut address = String::new();
    eventually("it says where it speaks TLS", || {
        let log = repoxy.log();
        let after = log.split_once("https://").map_or("", |(_, after)| after);
        address = after.split(['"', ' ']).next().unwrap_or_default().to_owned();
        !address.is_empty()
    })
    .await;
    let trusts = async |client: &reqwest::Client| {
        client.get(format!("https://{address}/-/health")).send().await.is_ok()
    };
    // The password that upstream was told last, through either proxy.
    let logins = async || {
        let mut logins = Vec::new();
        for (name, image) in [&of_file, &of_config] {
            repoxy.get(&image.path.replace("/v2/", &format!("/v2/{name}/"))).await;
            logins.push(login(&origin, &image.path));
        }
        logins
    };
    let [before, after] = ["bWU6b2xk", "bWU6bmV3"].map(|login| format!("Basic {login}"));
    assert_eq!(logins().await, [&before, &before].map(String::as_str));
    assert!(trusts(&old).await);

    // What is in the files by now is not used before that is said.
    origin.protect(Protection::basic("me", "new"));
    std::fs::write(&password, "new\n").expect("writable");
    let new = certified(repoxy.dir());
    assert_eq!(logins().await, [&before, &before].map(String::as_str));
    assert!(trusts(&old).await && !trusts(&new).await);

    let said = |what: &str| {
        let word = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
        let all = lines(&repoxy).into_iter().filter(|line| word(line, "message").contains(what));
        all.map(|line| word(&line, "level")).collect::<Vec<_>>()
    };
    repoxy.signal(Signal::HUP);
    eventually("it is read again", || said("were read again") == ["INFO"]).await;
    assert_eq!(logins().await, [&after, &before].map(String::as_str), "the configuration is not read again");
    assert!(trusts(&new).await && !trusts(&old).await);

    std::fs::remove_file(&password).expect("it is there");
    std::fs::write(repoxy.dir().join("key.pem"), "not a key").expect("writable");
    repoxy.signal(Signal::HUP);
    eventually("it is tried", || {
        said("not all credentials and certificates could be read again") == ["ERROR"]
    })
    .await;
    assert_eq!(said("this proxy's credentials and certificates stay as they were"), ["ERROR"]);
    assert_eq!(said("the server's own certificate stays as it was"), ["ERROR"]);
    assert_eq!(said("were read again"), ["INFO"], "success is told of the first time alone");
    assert_eq!(logins().await, [&after, &before].map(String::as_str));
    assert!(trusts(&new).await);
}

/// The metrics that the page for operators knows, each with the names of its labels.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let names = OPERATIONS.lines().filter_map(|line| line.strip_prefix("| `repoxy_")?.split('`').next());
    let entry = |name: &str| {
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        (format!("repoxy_{name}"), labels.map(str::to_owned).collect())
    };
    names.map(entry).collect()
}

/// All names of metrics in the sources below a directory.
fn named_in(dir: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).expect("the sources are here") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            named_in(&path, names);
        } else {
            let text = std::fs::read_to_string(&path).expect("text");
            for after in text.split("\"repoxy_").skip(1) {
                let name = after.split('"').next().unwrap_or_default();
                if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
                    names.insert(format!("repoxy_{name}"));
                }
            }
        }
    }
}

#[test]
fn the_page_for_operators_names_each_metric_and_no_other() {
    let mut named = BTreeSet::new();
    for dir in ["src", "cli"] {
        named_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut named);
    }
    assert_eq!(documented().into_keys().collect::<BTreeSet<_>>(), named);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_metric_that_a_server_shows_is_on_the_page_for_operators_with_its_labels() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 0, 0);
    origin.on(&image.path).header("ratelimit-remaining", "76;w=21600").once();
    let repoxy = Repoxy::before(&origin);
    let remaining = "repoxy_upstream_ratelimit_remaining";
    let page = async || String::from_utf8(repoxy.get("/-/metrics").await.bytes().to_vec()).expect("text");
    assert!(!page().await.contains(remaining), "0 would say that nothing is left");
    repoxy.get(&image.path).await;
    repoxy.get("/v2/library/none/manifests/1.0").await;
    assert_eq!(metric(&repoxy, &format!("{remaining}{{proxy=\"container/hub\"}}")).await, "76");
    let documented = documented();
    let page = page().await;
    let mut kinds = BTreeMap::new();
    for line in page.lines().filter(|line| !line.is_empty() && !line.starts_with("# HELP")) {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            kinds.insert(name.to_owned(), kind.to_owned());
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            continue;
        }
        let name = line.split(['{', ' ']).next().expect("a name");
        let labels = line.split_once('{').map_or("", |(_, rest)| rest.split('}').next().unwrap_or(rest));
        let labels: BTreeSet<_> =
            labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned())).collect();
        assert_eq!(documented.get(name), Some(&labels), "{line}");
        assert!(kinds.contains_key(name), "{line}");
    }
    assert!(kinds.len() > 12, "{kinds:?}");
}
