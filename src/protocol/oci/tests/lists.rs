//! Lists of tags, referrers and repositories: their pages, their links and what is filtered here.

use super::*;

/// A rewritten list as its body and its `Link`.
fn rewritten(
    target: &str,
    upstream_link: Option<&str>,
    document: &str,
) -> (serde_json::Value, Option<String>) {
    let asked = get(target);
    let link: Vec<_> = upstream_link.map(|link| ("link", link)).into_iter().collect();
    let document = Oci.rewrite(&asked.head(), &reference(&link), document.as_bytes()).expect(target);
    let link = header(&document.headers, "link").map(str::to_owned);
    (serde_json::from_slice(&document.body).expect("JSON"), link)
}

#[test]
fn a_list_of_tags_holds_to_n_and_last_even_if_upstream_does_not() {
    let all = r#"{"name":"library/alpine","tags":["d","b","c","a","b"]}"#;
    let page2 = r#"{"name":"x","tags":["c","d"]}"#;
    let by_age = r#"{"name":"x","tags":["9","10","1"]}"#;
    let next = Some("</v2/library/alpine/tags/list?n=2&last=d>; rel=\"next\"");
    for (target, link, document, tags, expected) in [
        // Upstream knows neither `n` nor `last`.
        ("/v2/alpine/tags/list", None, all, "a b c d", None),
        ("/v2/alpine/tags/list?n=2", None, all, "a b", Some("alpine/tags/list?last=b&n=2")),
        ("/v2/alpine/tags/list?n=2&last=b", None, all, "c d", None),
        ("/v2/alpine/tags/list?n=1&last=b", None, all, "c", Some("alpine/tags/list?last=c&n=1")),
        ("/v2/alpine/tags/list?n=5&last=d", None, all, "", None),
        ("/v2/alpine/tags/list?n=0", None, all, "", None),
        ("/v2/alpine/tags/list?n=4", None, all, "a b c d", None),
        // … and `last` is gone since: more than was asked for is all there are.
        ("/v2/alpine/tags/list?n=1&last=bb", None, all, "c", Some("alpine/tags/list?last=c&n=1")),
        ("/v2/alpine/tags/list?n=3&last=e", None, all, "", None),
        // No more than was asked for may be a page by age, the last one.
        ("/v2/a/tags/list?n=3&last=5", None, by_age, "1 10 9", None),
        // The client's own name for it is kept, in the link too.
        ("/v2/hub/alpine/tags/list?n=3", None, all, "a b c", Some("hub/alpine/tags/list?last=c&n=3")),
        (
            "/v2/alpine/tags/list?n=3&ns=docker.io",
            None,
            all,
            "a b c",
            Some("alpine/tags/list?last=c&n=3&ns=docker.io"),
        ),
        // Upstream pages itself.
        ("/v2/alpine/tags/list?n=2&last=b", next, page2, "c d", Some("alpine/tags/list?last=d&n=2")),
        ("/v2/alpine/tags/list?last=b", next, page2, "c d", Some("alpine/tags/list?last=d")),
        // … by age: nothing is dropped, and the next page is where upstream says.
        (
            "/v2/a/tags/list?n=3&last=5",
            Some("<https://h/v2/a/tags/list?last=9&n=0>; rel=\"next\""),
            by_age,
            "1 10 9",
            Some("a/tags/list?last=9&n=3"),
        ),
        // … with a token of its own.
        (
            "/v2/a/tags/list?n=3",
            Some("<https://h/api?next_page=g%2FA%3D%3D&n=3>; rel=next"),
            by_age,
            "1 10 9",
            Some("a/tags/list?n=3&next_page=g%2FA%3D%3D"),
        ),
        // … with a link that cannot be used: by name, if that leads forward.
        ("/v2/a/tags/list", Some("</x?last=%ff>; rel=\"next\""), page2, "c d", Some("a/tags/list?last=d")),
        ("/v2/a/tags/list?last=x", Some("</x?last=x>; rel=\"next\""), page2, "c d", None),
        // … and ignores `last`: the link would lead in a circle.
        ("/v2/a/tags/list?last=d&n=2", next, page2, "", None),
        ("/v2/a/tags/list", Some("</x?last=d>; rel=\"prev\""), page2, "c d", None),
        // Odd but valid.
        ("/v2/a/tags/list", None, r#"{"tags":null}"#, "", None),
        ("/v2/a/tags/list", None, r#"{"name":"a","tags":["ok","../x","-no",""]}"#, "ok", None),
    ] {
        let (body, link) = rewritten(target, link, document);
        let tags: Vec<_> = tags.split_terminator(' ').collect();
        let name = target.trim_start_matches("/v2/").split("/tags/").next();
        assert_eq!(body, serde_json::json!({"name": name, "tags": tags}), "{target}");
        let expected = expected.map(|page| format!("</v2/{page}>; rel=\"next\""));
        assert_eq!(link, expected, "{target} with {document}");
    }
}

#[test]
fn the_link_to_the_next_page_is_a_request_that_is_understood() {
    let (_, link) = rewritten("/v2/hub/alpine/tags/list?n=1&ns=", None, r#"{"tags":["a","b"]}"#);
    let link = link.expect("a next page");
    let target = link.strip_prefix('<').and_then(|link| link.split_once('>')).expect("a link").0;
    assert_eq!(
        get(target).fetch().resource.key.to_string(),
        "container/hub/cache/library/alpine/tags-list/last=a&n=1"
    );
}

#[test]
fn what_is_no_list_is_upstreams_fault() {
    let referrers = format!("/v2/a/referrers/sha256:{HEX}");
    let typed = format!("{referrers}?artifactType=x/y");
    for bad in [
        "",
        "<html>",
        "[]",
        "{}",
        r#"{"errors":[]}"#,
        r#"{"tags":{},"manifests":{}}"#,
        r#"{"tags":[1],"manifests":[1]}"#,
        r#"{"tags":["#,
        r#"{"manifests":[[]]}"#,
    ] {
        for target in ["/v2/a/tags/list", &referrers, &typed] {
            let asked = get(target);
            let vetted = Oci.vet(&asked.fetch().resource, bad.as_bytes(), &Gathered::default());
            assert!(matches!(vetted, Err(Refusal::BadUpstream(_))), "{target}: {bad}");
            // One that was kept before lists were judged.
            if asked.fetch().rewrite {
                let refusal = Oci.rewrite(&asked.head(), &reference(&[]), bad.as_bytes());
                assert!(matches!(refusal, Err(Refusal::BadUpstream(_))), "{target}: {bad}");
            }
        }
    }
}

#[test]
fn what_is_a_list_is_accepted_and_what_is_none_is_not_read_for_one() {
    for (target, good) in [
        ("/v2/a/tags/list".to_owned(), r#"{"name":"a","tags":["x","../y"],"more":1}"#),
        ("/v2/a/tags/list".to_owned(), r#"{"tags":null}"#),
        (format!("/v2/a/referrers/sha256:{HEX}"), r#"{"manifests":[]}"#),
        (format!("/v2/a/referrers/sha256:{HEX}"), r#"{"schemaVersion":2,"manifests":null}"#),
        (format!("/v2/a/referrers/sha256:{HEX}"), r#"{"manifests":[{},{"artifactType":"x/y"}]}"#),
        ("/v2/a/manifests/x".to_owned(), "<html>"),
        (format!("/v2/a/blobs/sha256:{HEX}"), "<html>"),
    ] {
        let vetted = Oci.vet(&get(&target).fetch().resource, good.as_bytes(), &Gathered::default());
        assert_eq!(vetted, Ok(Vec::new()), "{target}: {good}");
    }
}

#[test]
fn referrers_are_filtered_here_only_if_upstream_did_not() {
    let document = include_bytes!("../../../../fixtures/oci/referrers.json");
    let asked =
        get(&format!("/v2/a/referrers/sha256:{HEX}?artifactType=application/vnd.example.sbom.v1%2Bjson"));
    let filtered = Oci.rewrite(&asked.head(), &reference(&[]), document).expect("filtered");
    assert_eq!(filtered.media_type, "application/vnd.oci.image.index.v1+json");
    assert_eq!(header(&filtered.headers, "oci-filters-applied"), Some("artifactType"));
    let body: serde_json::Value = serde_json::from_slice(&filtered.body).expect("JSON");
    let original: serde_json::Value = serde_json::from_slice(document).expect("JSON");
    let kept = serde_json::json!([original["manifests"][0], original["manifests"][2]]);
    assert_eq!(body["manifests"], kept);
    assert_eq!(
        (&body["annotations"], &body["schemaVersion"]),
        (&original["annotations"], &original["schemaVersion"])
    );

    let done = reference(&[("oci-filters-applied", "artifactType")]);
    let untouched = Oci.rewrite(&asked.head(), &done, document).expect("as it is");
    assert_eq!(untouched.body, &document[..]);
    assert_eq!(header(&untouched.headers, "oci-filters-applied"), Some("artifactType"));
}

#[test]
fn the_next_page_of_referrers_is_asked_for_as_upstream_says() {
    let link = ("link", "</v2/x/referrers/y?nextToken=a%2Bb&n=5>; rel=\"next\"");
    let plain = get(&format!("/v2/hub/a/referrers/sha256:{HEX}"));
    let headers = Oci.headers(&plain.head(), &plain.fetch(), &reference(&[link]));
    let expected = format!("</v2/hub/a/referrers/sha256:{HEX}?nextToken=a%2Bb>; rel=\"next\"");
    assert_eq!(header(&headers, "link"), Some(expected.as_str()));

    let typed = get(&format!("/v2/hub/a/referrers/sha256:{HEX}?artifactType=x/y"));
    let fetch = typed.fetch();
    assert_eq!(
        header(&Oci.headers(&typed.head(), &fetch, &reference(&[link])), "link"),
        None,
        "it comes with the document"
    );
    let document = Oci.rewrite(&typed.head(), &reference(&[link]), b"{\"manifests\":[]}").expect("a list");
    let expected =
        format!("</v2/hub/a/referrers/sha256:{HEX}?artifactType=x%2Fy&nextToken=a%2Bb>; rel=\"next\"");
    assert_eq!(header(&document.headers, "link"), Some(expected.as_str()));
}

#[test]
fn the_catalog_lists_what_is_cached_in_pages() {
    let names = |names: &str| names.split_terminator(' ').map(str::to_owned).collect::<Vec<_>>();
    let scopes = |proxy: Option<&str>, after: Option<&str>, limit| Derive::Scopes {
        proxy: proxy.map(|name| ProxyId {
            artifact_type: ArtifactType::Container,
            name: name.parse().expect("valid"),
        }),
        after: after.map(str::to_owned),
        limit,
    };
    for (target, derive, gathered, expected, next) in [
        ("/v2/_catalog", scopes(None, None, 100), "a hub/b", "a hub/b", None),
        ("/v2/_catalog?n=2", scopes(None, None, 2), "a b c", "a b", Some("_catalog?last=b&n=2")),
        ("/v2/_catalog?n=2&last=hub/b", scopes(None, Some("hub/b"), 2), "", "", None),
        ("/v2/_catalog?n=99999", scopes(None, None, 1000), "a", "a", None),
        ("/v2/_catalog?n=0", scopes(None, None, 0), "a", "", None),
        ("/v2/hub/_catalog?n=1", scopes(Some("hub"), None, 1), "a b", "a", Some("hub/_catalog?last=a&n=1")),
        ("/v2/ghcr.io/_catalog", scopes(Some("ghcr"), None, 100), "", "", None),
        (
            "/v2/_catalog?ns=ghcr.io&n=1",
            scopes(Some("ghcr"), None, 1),
            "a/b c",
            "a/b",
            Some("_catalog?last=a%2Fb&n=1&ns=ghcr.io"),
        ),
    ] {
        let asked = get(target);
        let Ok(Route::Derive(found)) = asked.route() else { panic!("{target}") };
        assert_eq!(found, derive, "{target}");
        let document = Oci.derive(&asked.head(), &found, &names(gathered)).expect(target);
        let body: serde_json::Value = serde_json::from_slice(&document.body).expect("JSON");
        assert_eq!(body, serde_json::json!({"repositories": names(expected)}), "{target}");
        let next = next.map(|page| format!("</v2/{page}>; rel=\"next\""));
        assert_eq!(header(&document.headers, "link"), next.as_deref(), "{target}");
    }
}
