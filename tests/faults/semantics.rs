//! C: what a cache may keep, share and say.

use http::{Method, StatusCode};

use crate::support::{Got, Origin, Repoxy, proxy};

const REFERRERS: &[u8] = include_bytes!("../../fixtures/oci/referrers.json");
const MODIFIED: &str = "Sun, 09 Nov 2025 12:34:56 GMT";

/// The headers that must not depend on who asked before.
fn lasting(got: &Got) -> Vec<(String, String)> {
    let varies = ["age", "cache-status", "date"];
    let headers = got.headers.iter().filter(|(name, _)| !varies.contains(&name.as_str()));
    headers.map(|(name, value)| (name.to_string(), format!("{value:?}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_head_and_get_say_the_same_in_either_order() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 2, 100_000);
    let referrers = image.by_digest.replace("/manifests/", "/referrers/");
    origin.file(&referrers, "application/vnd.oci.image.index.v1+json", REFERRERS);
    let filtered = format!("{referrers}?artifactType=application/vnd.example.signature.v1");
    let [tags, page] = ["", "?n=1"].map(|query| format!("/v2/library/app/tags/list{query}"));
    let content = [&image.path, &image.by_digest, &image.blobs[0].path, &image.blobs[1].path];
    let lists = [&tags, &page, &referrers, &filtered].map(String::as_str);
    for head_first in [true, false] {
        let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
        for path in content.map(String::as_str).into_iter().chain(lists).chain(["/v2/_catalog"]) {
            let mut answers = Vec::new();
            for round in 0..4 {
                let got = if (round % 2 == 0) == head_first {
                    repoxy.head(path).await
                } else {
                    repoxy.get(path).await
                };
                assert_eq!(got.status, StatusCode::OK, "{path}");
                answers.push((lasting(&got), got.bytes().len()));
            }
            for (headers, length) in &answers {
                assert_eq!(headers, &answers[0].0, "{path}");
                // A HEAD has no body, and none was kept for a GET.
                let size: usize = repoxy.head(path).await.header("content-length").parse().expect("a number");
                assert!(*length == 0 || *length == size, "{path}");
            }
            assert_eq!(answers.iter().filter(|(_, length)| *length > 0).count(), 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_what_a_client_accepts_changes_nothing_of_what_is_kept() {
    let origin = Origin::start().await;
    let images = [origin.image("library/app", "amd64", 1, 10), origin.image("library/app", "arm64", 1, 10)];
    let index = origin.index("library/app", "1.0", &images);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"0s\""));
    for accept in
        ["application/vnd.docker.distribution.manifest.v2+json", &index.media_type, "*/*", "text/html"]
    {
        let got = repoxy.request(Method::GET, &index.path, &[("accept", accept)]).await;
        assert_eq!((got.bytes(), got.header("content-type")), (&index.bytes, &*index.media_type), "{accept}");
        assert_eq!(got.header("docker-content-digest"), index.digest.to_string());
    }
    // Upstream is always asked for the same, so that there is one variant and no more.
    let mut accepts: Vec<_> = ["GET", "HEAD"]
        .into_iter()
        .flat_map(|method| origin.seen(method, &index.path))
        .map(|seen| seen.header("accept").map(str::to_owned))
        .collect();
    assert!(accepts.len() > 3, "{accepts:?}");
    accepts.dedup();
    assert_eq!(accepts.len(), 1, "{accepts:?}");
    assert!(accepts[0].as_ref().is_some_and(|accept| accept.contains(&index.media_type)));
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_no_host_and_no_parameter_of_a_clients_making_reaches_a_key_or_an_answer() {
    let origin = Origin::start().await;
    for tag in ["a", "b", "c"] {
        origin.image("library/app", tag, 0, 0);
    }
    let image = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    for query in ["", "?a=1&b=2", "?b=2&a=1", "?utm=x", "?X-Amz-Signature=1"] {
        for (name, value) in [
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "gopher"),
            ("forwarded", "host=evil.example"),
            ("x-original-url", "/v2/evil/manifests/1"),
            ("host", "evil.example"),
        ] {
            let got = repoxy.request(Method::GET, &format!("{}{query}", image.path), &[(name, value)]).await;
            assert_eq!(got.bytes(), &image.bytes);
            assert!(!format!("{:?}", got.headers).contains("evil"), "{:?}", got.headers);
            let list = format!("/v2/hub/library/app/tags/list?n=1{}", query.replace('?', "&"));
            let got = repoxy.request(Method::GET, &list, &[(name, value)]).await;
            assert_eq!(got.status, StatusCode::OK, "{list}");
            assert!(
                got.header("link").starts_with("</v2/"),
                "relative, so that it holds under any name: {}",
                got.header("link")
            );
            assert!(!format!("{got:?}").contains("evil"), "{got:?}");
        }
    }
    assert_eq!(origin.count("GET", &image.path), 1, "one key for all of them");
    assert!(origin.seen("GET", "*").iter().all(|seen| !format!("{seen:?}").contains("evil")));
    assert_eq!(origin.seen("GET", &image.path)[0].query, None, "nothing of the query went along");
    let refs = repoxy.files("type/container/proxies/hub/refs");
    assert_eq!(refs.len(), 1, "{refs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_a_cookie_of_upstreams_is_neither_kept_nor_passed_on() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    origin.on("/v2/*").header("set-cookie", "session=canary-1; Path=/").always();
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"0s\""));
    for path in [&*image.path, &*image.path, &*image.blobs[1].path, "/v2/library/app/tags/list"] {
        let got = repoxy.get(path).await;
        assert_eq!((got.status, got.header("set-cookie")), (StatusCode::OK, ""), "{path}");
    }
    let seen = ["GET", "HEAD"].into_iter().flat_map(|method| origin.seen(method, "*"));
    assert!(seen.into_iter().all(|seen| seen.header("cookie").is_none()), "nor sent back");
    repoxy.assert_nowhere("canary-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_a_clients_credentials_go_no_further() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"0s\""));
    let private = [
        ("authorization", "Bearer canary-1"),
        ("proxy-authorization", "Basic canary-1"),
        ("cookie", "canary-1"),
        ("x-jfrog-art-api", "canary-1"),
        ("private-token", "canary-1"),
        ("x-nuget-apikey", "canary-1"),
        ("x-forwarded-for", "canary-1"),
        ("referer", "http://canary-1/"),
        ("user-agent", "canary-1"),
    ];
    for path in [
        &*image.path,
        &*image.path,
        &*image.blobs[1].path,
        "/v2/library/app/tags/list",
        "/v2/library/app/manifests/missing",
    ] {
        repoxy.request(Method::GET, path, &private).await;
        repoxy.request(Method::HEAD, path, &private).await;
    }
    assert!(origin.total() > 5);
    for seen in ["GET", "HEAD", "POST"].into_iter().flat_map(|method| origin.seen(method, "*")) {
        assert!(!format!("{seen:?}").contains("canary-1"), "{seen:?}");
    }
    repoxy.assert_nowhere("canary-1").await;
    // And what came with them is for everybody: there is one object, not one for each client.
    let before = origin.count("GET", &image.blobs[1].path);
    assert_eq!(repoxy.get(&image.blobs[1].path).await.bytes(), &image.blobs[1].bytes);
    assert_eq!(origin.count("GET", &image.blobs[1].path), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_whoever_wants_to_write_is_told_that_nobody_can() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    repoxy.get(&image.path).await;
    repoxy.stored(1).await;
    let (requests, files) = (origin.total(), repoxy.files("type"));
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "BREW"] {
        let method = Method::from_bytes(method.as_bytes()).expect("a token");
        for path in [
            &*image.path,
            &*image.blobs[1].path,
            "/v2/library/app/blobs/uploads/",
            "/v2/",
            "/v2/_catalog",
            "/",
            "/-/metrics",
        ] {
            let got = repoxy.request(method.clone(), path, &[]).await;
            assert_eq!(got.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert_eq!(got.header("allow"), "GET, HEAD", "{method} {path}");
        }
    }
    // With a body that could be a manifest, and one that could be a layer.
    for size in [100_000, 32 << 20] {
        let put = repoxy.client().put(format!("{}{}", repoxy.url(), image.path)).body(vec![b'x'; size]);
        let answer = put.send().await.expect("an answer, though nobody reads the body");
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
    assert_eq!((origin.total(), repoxy.files("type")), (requests, files));
    assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_a_ref_from_the_future_is_asked_about_and_has_no_age() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100);
    let mut repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    repoxy.get(&image.path).await;
    repoxy.stored(1).await;
    repoxy.kill();
    // As if the clock had gone back since it was fetched; the index goes along.
    let file = repoxy.root().join("type/container/proxies/hub/refs/library/app/tags/1.0.json");
    for year in ["2096", "9999"] {
        let text = std::fs::read_to_string(&file).expect("a ref");
        let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        json["fetchedAt"] = format!("{year}-01-01T00:00:00Z").into();
        std::fs::write(&file, json.to_string()).expect("writable");
        std::fs::remove_dir_all(repoxy.root().join("index")).expect("removable");
        repoxy.start();
        let asked = origin.count("HEAD", &image.path);
        let got = repoxy.get(&image.path).await;
        assert_eq!(got.bytes(), &image.bytes);
        assert_eq!(origin.count("HEAD", &image.path), asked + 1, "{year}: it does not hold for ever");
        assert!(got.header("age").parse::<u64>().is_ok_and(|age| age < 3600), "{}", got.header("age"));
        repoxy.kill();
    }
    repoxy.start();
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c8_gc_does_nothing_by_a_clock_that_cannot_be_right() {
    let origin = Origin::start().await;
    let images: Vec<_> = (0..3).map(|n| origin.image("library/app", &format!("v{n}"), 1, 10)).collect();
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    for image in &images {
        repoxy.get(&image.path).await;
    }
    repoxy.stored(3).await;
    // The first run takes one of them, as it is told to.
    let limited = ["gc", "--grace", "0s", "--unused-for", "1h"];
    assert_eq!(repoxy.run(&limited).status.code(), Some(0));
    let note = repoxy.root().join("locks/gc.last");
    let now = std::fs::read_to_string(&note).expect("a note of the run");
    let files = repoxy.files("type");
    let year: u32 = now[..4].parse().expect("a year");
    for off in [year - 1, year + 1] {
        // A clock that is a year on, or a year back, since the last run.
        std::fs::write(&note, now.replacen(&year.to_string(), &off.to_string(), 1)).expect("writable");
        let refused = repoxy.run(&limited);
        assert_eq!(refused.status.code(), Some(3), "{off}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("--accept-clock"));
        assert_eq!(repoxy.files("type"), files, "{off}: nothing was deleted");
    }
    assert_eq!(repoxy.run(&["gc", "--accept-clock"]).status.code(), Some(0));
    assert_eq!(repoxy.run(&["gc"]).status.code(), Some(0), "and from then on it is believed");
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_conditions_and_ranges_are_answered_as_rfc_9110_has_them() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 1, 100_000);
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    let blob = &image.blobs[1];
    for path in [&image.path, &blob.path] {
        let first = repoxy.get(path).await;
        let (etag, size) = (first.header("etag").to_owned(), first.bytes().len());
        repoxy.stored(1).await;
        let weak = format!("W/{etag}");
        let list = format!("\"other\", {etag}");
        let range = ("range", "bytes=10-19");
        let all = format!("bytes={size}-");
        let cases: [(&[(&str, &str)], u16); 15] = [
            (&[("if-none-match", &etag)], 304),
            (&[("if-none-match", &weak)], 304),
            (&[("if-none-match", &list)], 304),
            (&[("if-none-match", "*")], 304),
            (&[("if-none-match", "\"other\"")], 200),
            (&[("if-none-match", "\"other\""), ("if-modified-since", MODIFIED)], 200),
            (&[("if-match", &etag)], 200),
            (&[("if-match", "\"other\"")], 412),
            (&[range], 206),
            (&[range, ("if-range", &etag)], 206),
            (&[range, ("if-range", "\"other\"")], 200),
            (&[range, ("if-range", &weak)], 200),
            (&[range, ("if-none-match", &etag)], 304),
            (&[("range", &all)], 416),
            (&[("range", "lines=1-2")], 200),
        ];
        for (headers, expected) in cases {
            for method in [Method::GET, Method::HEAD] {
                let got = repoxy.request(method.clone(), path, headers).await;
                // A range of a HEAD is not defined (section 14.2): it is ignored.
                let ignored = method == Method::HEAD && matches!(expected, 206 | 416);
                let expected = if ignored { 200 } else { expected };
                assert_eq!(got.status.as_u16(), expected, "{method} {headers:?} of {path}");
                if expected == 304 {
                    assert_eq!((got.header("etag"), got.bytes().len()), (&*etag, 0));
                }
                if method == Method::GET && expected == 206 {
                    assert_eq!(got.bytes(), &first.bytes()[10..20]);
                    assert_eq!(got.header("content-range"), format!("bytes 10-19/{size}"));
                }
                if method == Method::GET && expected == 200 {
                    assert_eq!(got.bytes(), first.bytes());
                }
                if expected == 416 {
                    assert_eq!(got.header("content-range"), format!("bytes */{size}"));
                }
            }
        }
        let modified = first.header("last-modified").to_owned();
        if !modified.is_empty() {
            for (since, expected) in [
                (&*modified, 304),
                ("Sun, 09 Nov 2042 12:34:56 GMT", 304),
                ("Sun, 09 Nov 2003 12:34:56 GMT", 200),
                ("yesterday", 200),
            ] {
                let got = repoxy.request(Method::GET, path, &[("if-modified-since", since)]).await;
                assert_eq!(got.status.as_u16(), expected, "{since}");
            }
        }
    }
    assert_eq!(origin.count("GET", &image.path), 1);
}
