//! What is refused, and with which status, code and words.

use super::*;
use crate::protocol::Part;

#[test]
fn what_is_not_a_request_of_the_protocol_is_refused_before_anything_is_looked_up() {
    use Part::{Digest, Name, Path, Query, Reference};
    let upper = HEX.to_uppercase();
    for (target, part) in [
        ("/v2/../../etc/passwd/manifests/x", Path),
        ("/v2/..%2f..%2fetc/manifests/x", Path),
        ("/v2/a/%2e%2e/manifests/x", Path),
        ("/v2/a//b/manifests/x", Path),
        ("/v2/a%2F%2Fb/manifests/x", Path),
        ("/v2/a\\..\\b/manifests/x", Path),
        ("/v2/a%5Cb/manifests/x", Path),
        ("/v2/a%00/manifests/x", Path),
        ("/v2/a%c0%af/manifests/x", Path),
        ("/v2/a/./manifests/x", Path),
        ("/v2/a/manifests/..", Path),
        ("/v2/%252e%252e/b/manifests/x", Name),
        ("/v2/A/b/manifests/x", Name),
        ("/v2/hub/_a/manifests/x", Name),
        ("/v2/a-/manifests/x", Name),
        ("/v2/CON/x/manifests/x", Name),
        ("/v2/u:p@h/b/manifests/x", Name),
        (&format!("/v2/{}/manifests/x", "a".repeat(256)), Name),
        // `library/` makes it too long.
        (&format!("/v2/{}/manifests/x", "a".repeat(250)), Name),
        ("/v2/a/manifests/-x", Reference),
        ("/v2/a/manifests/.x", Reference),
        ("/v2/a/manifests/a+b", Reference),
        (&format!("/v2/a/manifests/{}", "x".repeat(129)), Reference),
        ("/v2/a/manifests/sha256:", Digest),
        ("/v2/a/manifests/sha256:totallywrong", Digest),
        ("/v2/a/blobs/sha256:..", Digest),
        (&format!("/v2/a/blobs/sha256:{upper}"), Digest),
        (&format!("/v2/a/blobs/SHA256:{HEX}"), Digest),
        (&format!("/v2/a/blobs/sha256:{}", &HEX[1..]), Digest),
        (&format!("/v2/a/blobs/sha256:{HEX}0"), Digest),
        (&format!("/v2/a/blobs/sha512:{HEX}"), Digest),
        (&format!("/v2/a/blobs/md5:{}", &HEX[..32]), Digest),
        (&format!("/v2/a/blobs/{HEX}"), Digest),
        ("/v2/a/blobs/uploads", Digest),
        ("/v2/a/referrers/x", Digest),
        ("/v2/a/tags/list?n=-1", Query),
        ("/v2/a/tags/list?n=x", Query),
        ("/v2/a/tags/list?last=../", Query),
        (&format!("/v2/a/tags/list?last={}", "x".repeat(129)), Query),
        ("/v2/a/tags/list?n=1&n=2", Query),
        ("/v2/a/manifests/x?ns=docker.io&ns=evil.example", Query),
        (&format!("/v2/a/referrers/sha256:{HEX}?artifactType={}", "x".repeat(256)), Query),
        ("/v2/_catalog?n=-1", Query),
        (&format!("/v2/_catalog?last={}", "x".repeat(321)), Query),
    ] {
        match get(target).route() {
            Err(Refusal::Invalid { what, .. }) => assert_eq!(what, part, "{target}"),
            other => panic!("{target} leads to {other:?}"),
        }
    }
}

#[test]
fn what_is_not_there_is_said_to_be_so() {
    for target in [
        "/v2/a",
        "/v2/a/b/c",
        "/v2/manifests/x",
        "/v2/tags/list",
        "/v2/a/tags/other",
        "/v2/a/blobs/uploads/7c4f",
        "/v2/a/b/_catalog",
        "/v2x",
    ] {
        assert_eq!(get(target).route().err(), Some(Refusal::NoEndpoint), "{target}");
    }
    for target in [
        "/v2/a/manifests/x?ns=evil.example",
        "/v2/hub/a/manifests/x?ns=hub",
        "/v2/_catalog?ns=evil.example",
        "/v2/nope/_catalog",
    ] {
        assert_eq!(get(target).route().err(), Some(Refusal::NoProxy), "{target}");
    }
    let none = ProxyTable::new(vec![proxy("ghcr", &["ghcr.io"], false)]);
    let asked = get("/v2/org/app/manifests/x");
    assert_eq!(asked.route_with(&none).err(), Some(Refusal::NoProxy), "there is no default");
}

#[test]
fn everything_but_get_and_head_is_refused_as_read_only() {
    for method in ["PUT", "POST", "PATCH", "DELETE", "OPTIONS", "CONNECT", "BREW"] {
        for target in ["/v2/", "/v2/a/blobs/uploads/", "/v2/a/manifests/x", "/v2/../x", "/v2/A//"] {
            let asked = Asked::new(method, target);
            assert_eq!(asked.route().err(), Some(Refusal::ReadOnly), "{method} {target}");
            let (status, code, reply) = asked.refuse(&Refusal::ReadOnly);
            assert_eq!((status, code.as_str()), (405, "UNSUPPORTED"));
            assert_eq!(header(&reply.headers, "allow"), Some("GET, HEAD"));
        }
    }
}

#[test]
fn every_refusal_has_a_status_a_code_and_a_message() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let invalid = |what| Refusal::Invalid { what, why: "it is wrong" };
    let manifest = "/v2/a/manifests/x".to_owned();
    let digest = format!("/v2/a/manifests/sha256:{HEX}");
    let blob = format!("/v2/a/blobs/sha256:{HEX}");
    let referrers = format!("/v2/a/referrers/sha256:{HEX}");
    let tags = "/v2/a/tags/list".to_owned();
    for (target, refusal, status, code, retry_after) in [
        (&manifest, Refusal::NotFound, 404, "MANIFEST_UNKNOWN", None),
        (&digest, Refusal::NotFound, 404, "MANIFEST_UNKNOWN", None),
        (&blob, Refusal::NotFound, 404, "BLOB_UNKNOWN", None),
        (&tags, Refusal::NotFound, 404, "NAME_UNKNOWN", None),
        (&referrers, Refusal::NotFound, 404, "NAME_UNKNOWN", None),
        (&manifest, Refusal::NoEndpoint, 404, "UNSUPPORTED", None),
        (&manifest, Refusal::NoProxy, 404, "NAME_UNKNOWN", None),
        (&manifest, invalid(Part::Path), 400, "NAME_INVALID", None),
        (&manifest, invalid(Part::Name), 400, "NAME_INVALID", None),
        (&manifest, invalid(Part::Reference), 404, "MANIFEST_UNKNOWN", None),
        (&manifest, invalid(Part::Digest), 400, "DIGEST_INVALID", None),
        (&manifest, invalid(Part::Query), 400, "UNSUPPORTED", None),
        (&manifest, Refusal::Denied { anonymous: true }, 404, "NAME_UNKNOWN", None),
        (&manifest, Refusal::Denied { anonymous: false }, 403, "DENIED", None),
        (&manifest, Refusal::RateLimited { retry_after: None }, 429, "TOOMANYREQUESTS", Some("10")),
        (&manifest, Refusal::RateLimited { retry_after: seconds(60) }, 429, "TOOMANYREQUESTS", Some("60")),
        (
            &manifest,
            Refusal::Unavailable { retry_after: Some(Duration::ZERO) },
            503,
            "UNAVAILABLE",
            Some("1"),
        ),
        (
            &manifest,
            Refusal::Unavailable { retry_after: Some(Duration::from_millis(1500)) },
            503,
            "UNAVAILABLE",
            Some("2"),
        ),
        (&manifest, Refusal::Unreachable, 502, "UNAVAILABLE", None),
        (&manifest, Refusal::Timeout, 504, "UNAVAILABLE", None),
        (&manifest, Refusal::BadUpstream("status 500"), 502, "UNKNOWN", None),
        (&manifest, Refusal::TooLarge { limit: 16 }, 502, "SIZE_INVALID", None),
        (&manifest, Refusal::Loop, 508, "UNKNOWN", None),
        (&manifest, Refusal::Internal, 500, "UNKNOWN", None),
    ] {
        let (found, found_code, reply) = get(target).refuse(&refusal);
        assert_eq!((found, found_code.as_str()), (status, code), "{target}: {refusal:?}");
        assert_eq!(header(&reply.headers, "retry-after"), retry_after, "{refusal:?}");
        assert_eq!(header(&reply.headers, "content-type"), Some("application/json"));
        assert_eq!(header(&reply.headers, "docker-distribution-api-version"), Some("registry/2.0"));
        assert_eq!(header(&reply.headers, "www-authenticate"), None, "clients have no login here");
    }
}

#[test]
fn a_refusal_says_what_it_is_about_and_nothing_that_is_not_in_the_grammar() {
    let body = |target: &str, refusal: &Refusal| {
        let (_, _, reply) = get(target).refuse(refusal);
        String::from_utf8(reply.body.to_vec()).expect("text")
    };
    assert_eq!(
        body("/v2/hub/alpine/manifests/3.99", &Refusal::NotFound),
        r#"{"errors":[{"code":"MANIFEST_UNKNOWN","detail":{"name":"hub/alpine","tag":"3.99"},"message":"upstream has no such manifest in this repository"}]}"#
    );
    let bad = get("/v2/%1b[2J/manifests/x");
    let refusal = bad.route().expect_err("refused");
    assert!(!body(&bad.path, &refusal).contains("2J"));
    let message = body("/v2/a/manifests/x?ns=evil.example", &Refusal::NoProxy);
    assert!(["hub", "ghcr", "lan"].iter().all(|name| !message.contains(name)), "{message}");
}
