//! Table tests: what a request becomes.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};

use super::*;
use crate::model::{Digest, HttpRules, Leave, PathRule, Timestamp};
use crate::protocol::Gotten;

fn table(rules: HttpRules) -> ProxyTable {
    let name = "files".parse().expect("a name");
    ProxyTable::new(vec![ProxyFacts {
        http: Some(Arc::new(rules)),
        ..ProxyFacts::new(ProxyId { artifact_type: ArtifactType::Generic, name })
    }])
}

fn rule(pattern: &str, treatment: Treatment, sidecar: Option<&str>) -> PathRule {
    let pattern = pattern.parse().expect("a pattern");
    PathRule { pattern, treatment, sidecar: sidecar.map(str::to_owned) }
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().expect("a value"));
    }
    headers
}

fn route(
    rules: &HttpRules,
    method: &Method,
    target: &str,
    fields: &HeaderMap,
    gathered: &Gathered,
) -> Result<Route, Unrouted> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let head = Head { method, authority: None, path, query, headers: fields };
    Generic.route(&head, &table(rules.clone()), gathered)
}

fn fetched(rules: &HttpRules, target: &str, fields: &[(&'static str, &str)]) -> Resource {
    match route(rules, &Method::GET, target, &headers(fields), &Gathered::default()) {
        Ok(Route::Fetch(fetch)) => fetch.resource,
        other => panic!("{target}: {other:?}"),
    }
}

fn refused(target: &str) -> Refusal {
    match route(&HttpRules::DEFAULT, &Method::GET, target, &HeaderMap::new(), &Gathered::default()) {
        Err(Unrouted::Refused(refusal)) => refusal,
        other => panic!("{target}: {other:?}"),
    }
}

#[test]
fn each_target_has_a_path_and_no_two_that_differ_have_the_same() {
    for (target, path) in [
        ("/a/b.zip", "a/b.zip"),
        ("/", "%"),
        ("/a/", "a/%"),
        ("/a//b", "a/%/b"),
        ("/a?x=1", "a?x=1"),
        ("/a?", "a?"),
        ("/a/?x=1", "a/%?x=1"),
        ("/a?x=1/2/..", "a?x=1%s2%s.."),
        ("/a%7eb%2D", "a~b-"),
        ("/a%2fb", "a%2Fb"),
        ("/100%", "100%p"),
        ("/100%25", "100%25"),
        ("/%", "%p"),
        ("/%zz%+1", "%pzz%p+1"),
        ("/%vary", "%pvary"),
        ("/sp%20ace+plus", "sp%20ace+plus"),
        ("/a;b=c,d", "a;b=c,d"),
    ] {
        let resource = fetched(&HttpRules::DEFAULT, &format!("/generic/files{target}"), &[]);
        assert_eq!(resource.key.to_string(), format!("generic/files/refs/{path}"), "{target}");
        assert_eq!(resource.source, Source::Path(target.to_owned()), "upstream is asked as the client asks");
        let key = Generic.key_at(&resource.key.proxy, target);
        assert_eq!(key, Some(resource.key), "and found again by its path");
    }
}

#[test]
fn what_some_would_read_in_another_way_is_refused() {
    let long = format!("/{}", "a".repeat(5000));
    let climbing = ["/../x", "/a/./b", "/%2e%2E/x", "/..%2fx", "/a%2F%2e%2e%5cx", "/a/b%5C.."];
    for target in climbing.into_iter().chain(["/a\\b", &long]) {
        let refusal = refused(&format!("/generic/files{target}"));
        assert_eq!(refusal.status().as_u16(), 400, "{target}");
    }
    assert_eq!(refused("/generic/files"), Refusal::NoEndpoint);
    assert_eq!(refused("/generic/"), Refusal::NoEndpoint);
    assert_eq!(refused("/generic/none/x"), Refusal::NoProxy);
}

#[test]
fn without_a_rule_upstreams_word_counts_and_the_clients_beside_it() {
    let fields =
        [("cache-control", "max-age=7"), ("x-kind", "1"), ("cookie", "a=b"), ("x-original-url", "/")];
    let resource = fetched(&HttpRules::DEFAULT, "/generic/files/a", &fields);
    assert_eq!(resource.freshness, Freshness::Upstream(Leave::default()));
    assert_eq!(resource.directives().max_age, Some(7));
    assert_eq!(resource.asked.headers, headers(&[("cache-control", "max-age=7"), ("x-kind", "1")]));
    assert!(resource.transparent && !resource.keep_redirects);
    assert_eq!((resource.delivery, resource.expect), (Delivery::Streamed, None));

    let deaf = HttpRules { heed: Heed::Nothing, keep_redirects: true, ..HttpRules::DEFAULT };
    let resource = fetched(&deaf, "/generic/files/a", &fields);
    assert_eq!(resource.directives(), RequestDirectives::default());
    assert_eq!(resource.asked.headers, headers(&[("x-kind", "1")]));
    assert!(resource.keep_redirects);
}

#[test]
fn with_a_rule_nothing_of_the_client_counts() {
    let rules = HttpRules {
        rules: vec![
            rule("*.tgz", Treatment::Immutable, None),
            rule("list", Treatment::For(Duration::from_secs(60)), None),
            rule("never/**", Treatment::NoStore, None),
        ],
        forward_authorization: true,
        ..HttpRules::DEFAULT
    };
    let fields = [("cache-control", "no-cache"), ("authorization", "x"), ("x-kind", "1")];
    for (target, freshness) in
        [("/a.tgz", Freshness::Immutable), ("/list?page=2", Freshness::For(Duration::from_secs(60)))]
    {
        let resource = fetched(&rules, &format!("/generic/files{target}"), &fields);
        assert_eq!((resource.freshness, resource.transparent), (freshness, true), "{target}");
        assert_eq!(resource.asked, Asked::default(), "{target}");
    }
    let never = fetched(&rules, "/generic/files/never/a.zip", &[]);
    assert!(never.directives().no_store && never.directives().no_cache);
}

#[test]
fn methods_that_may_change_something_are_handed_on_only_if_the_operator_says_so() {
    let open = HttpRules { forward_unsafe: true, ..HttpRules::DEFAULT };
    let ask = |rules: &HttpRules, method: &str| {
        let method = method.parse().expect("a method");
        route(rules, &method, "/generic/files/a", &HeaderMap::new(), &Gathered::default())
    };
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "M-SEARCH"] {
        assert!(matches!(ask(&open, method), Ok(Route::Forward(_))), "{method}");
        let closed = ask(&HttpRules::DEFAULT, method);
        assert!(matches!(closed, Err(Unrouted::Refused(Refusal::ReadOnly))), "{method}");
    }
    assert!(matches!(ask(&open, "TRACE"), Err(Unrouted::Refused(Refusal::ReadOnly))));
}

#[test]
fn the_checksum_of_a_file_is_looked_for_beside_it() {
    let treatment = Treatment::Immutable;
    let rules = HttpRules { rules: vec![rule("*", treatment, Some(".sha256"))], ..HttpRules::DEFAULT };
    let none = HeaderMap::new();
    let ask = |target: &str, gathered: &Gathered| route(&rules, &Method::GET, target, &none, gathered);
    let Err(Unrouted::Needs(needs)) = ask("/generic/files/d/x.zip", &Gathered::default()) else {
        panic!("it needs the checksum")
    };
    let [crate::protocol::Need::Document(document)] = needs.as_slice() else { panic!("{needs:?}") };
    assert_eq!(document.key.to_string(), "generic/files/refs/d/x.zip.sha256");
    assert!(matches!(document.delivery, Delivery::Whole { .. }));

    let digest = Digest::of(b"content");
    let reference = Ref::new(KIND.to_owned(), digest, 0, Timestamp::UNIX_EPOCH);
    let with = |found| {
        let mut gathered = Gathered::default();
        gathered.add_document(document.key.clone(), found);
        match ask("/generic/files/d/x.zip", &gathered) {
            Ok(Route::Fetch(fetch)) => fetch.resource.expect,
            other => panic!("{other:?}"),
        }
    };
    let body = Bytes::from(format!("{}  x.zip\n", digest.hex()));
    assert_eq!(with(Ok(Gotten { reference: reference.clone(), body })), Some(digest.into()));
    assert_eq!(with(Ok(Gotten { reference, body: Bytes::from_static(b"<html>") })), None);
    assert_eq!(with(Err(Refusal::NotFound)), None);
    for target in ["/generic/files/x.sha256", "/generic/files/x?y", "/generic/files/d/"] {
        assert!(matches!(ask(target, &Gathered::default()), Ok(Route::Fetch(_))), "{target} has none");
    }
}

#[test]
fn everything_that_was_kept_comes_back_but_challenges_only_where_they_can_be_answered() {
    let mut reference = Ref::new(KIND.to_owned(), Digest::of(b""), 0, Timestamp::UNIX_EPOCH);
    for (name, value) in [("x-own", "1"), ("www-authenticate", "Basic"), ("bad", "a\nb")] {
        reference.headers.insert(name.to_owned(), value.to_owned());
    }
    let back = |rules: &HttpRules| {
        let resource = fetched(rules, "/generic/files/a", &[]);
        let fetch = Fetch { resource, rewrite: false };
        let none = HeaderMap::new();
        let head = Head { method: &Method::GET, authority: None, path: "/", query: None, headers: &none };
        let headers = Generic.headers(&head, &fetch, &reference);
        headers.iter().map(|(name, _)| name.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(back(&HttpRules::DEFAULT), ["x-own"]);
    let open = HttpRules { forward_authorization: true, ..HttpRules::DEFAULT };
    assert_eq!(back(&open), ["www-authenticate", "x-own"]);
}

#[test]
fn a_refusal_is_one_line_of_text() {
    let none = HeaderMap::new();
    let head = Head { method: &Method::GET, authority: None, path: "/", query: None, headers: &none };
    let reply = Generic.refuse(&head, &Refusal::ReadOnly);
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (405, &b"this is a read-only cache\n"[..]));
    assert!(reply.headers.iter().any(|(name, value)| name == "allow" && value == "GET, HEAD"));
}
