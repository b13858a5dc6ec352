//! How a refusal is worded (OCI distribution specification, "Error Codes").
//!
//! Nothing is told that the client does not know already: not which proxies there are, not what
//! upstream said.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::grammar::is_name;
use super::request::{Endpoint, Request};
use crate::protocol::{Head, Part, Refusal, Reply};

/// A refusal as status and body.
pub(super) fn reply(head: &Head<'_>, refusal: &Refusal) -> Reply {
    let request = Request::parse(head).ok();
    let (code, message) = wording(request.as_ref(), refusal);
    let error = match request.as_ref().and_then(detail) {
        Some(detail) => json!({"code": code, "message": message, "detail": detail}),
        None => json!({"code": code, "message": message}),
    };
    // Nobody is stood in for whose proxy is not there.
    let namesake = request.as_ref().filter(|_| *refusal != Refusal::NoProxy);
    let mut headers: Vec<_> = super::common(namesake).collect();
    headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    headers.extend(refusal.headers());
    Reply { status: status(refusal), headers, body: Bytes::from(json!({"errors": [error]}).to_string()) }
}

fn status(refusal: &Refusal) -> StatusCode {
    match refusal {
        // A tag that cannot exist is a manifest that does not: the conformance suite asks so. And
        // registries deny what does not exist to whom they do not know.
        Refusal::Invalid { what: Part::Reference, .. } | Refusal::Denied { anonymous: true } => {
            StatusCode::NOT_FOUND
        }
        _ => refusal.status(),
    }
}

/// Code and message. Long because it is one table: each refusal has its line.
fn wording(request: Option<&Request>, refusal: &Refusal) -> (&'static str, String) {
    let (code, message) = match refusal {
        Refusal::NoEndpoint => ("UNSUPPORTED", "there is no such endpoint"),
        Refusal::Invalid { what, .. } => {
            let code = match what {
                Part::Path | Part::Name => "NAME_INVALID",
                Part::Reference => "MANIFEST_UNKNOWN",
                Part::Digest => "DIGEST_INVALID",
                Part::Query | Part::Body => "UNSUPPORTED",
            };
            return (code, refusal.to_string());
        }
        Refusal::NoProxy => (
            "NAME_UNKNOWN",
            "no proxy is configured for this registry; check the name, or add a proxy to the configuration",
        ),
        Refusal::ReadOnly => ("UNSUPPORTED", "this is a read-only cache; push to the registry itself"),
        Refusal::NotFound => not_found(request),
        Refusal::Denied { anonymous: true } => (
            "NAME_UNKNOWN",
            "upstream has no such repository, or it is private and this cache has no credentials for it",
        ),
        Refusal::Denied { anonymous: false } => {
            ("DENIED", "upstream does not let the credentials of this cache read the repository")
        }
        Refusal::RateLimited { .. } => (
            "TOOMANYREQUESTS",
            "upstream limits the rate of requests and this is not cached yet; try again later",
        ),
        Refusal::Unavailable { .. } => {
            ("UNAVAILABLE", "upstream is unavailable and this is not cached yet; try again later")
        }
        Refusal::Unreachable => {
            ("UNAVAILABLE", "upstream cannot be reached and this is not cached yet; try again later")
        }
        Refusal::Timeout => {
            ("UNAVAILABLE", "upstream did not answer in time and this is not cached yet; try again later")
        }
        Refusal::BadUpstream(_) | Refusal::Untrusted { .. } => return ("UNKNOWN", refusal.to_string()),
        Refusal::TooLarge { limit } => {
            let message = format!("what upstream has is larger than the {limit} bytes that are accepted");
            return ("SIZE_INVALID", message);
        }
        Refusal::Loop => ("UNKNOWN", "the request has come back to this cache: an upstream leads here"),
        Refusal::Internal => ("UNKNOWN", "something failed in this cache; its log has the details"),
    };
    (code, message.to_owned())
}

fn not_found(request: Option<&Request>) -> (&'static str, &'static str) {
    match request.map(|request| &request.endpoint) {
        Some(Endpoint::Blob(_)) => ("BLOB_UNKNOWN", "upstream has no such blob in this repository"),
        Some(Endpoint::Tag(_) | Endpoint::Manifest(_)) => {
            ("MANIFEST_UNKNOWN", "upstream has no such manifest in this repository")
        }
        Some(Endpoint::Referrers(_)) => ("NAME_UNKNOWN", "upstream lists no referrers here"),
        _ => ("NAME_UNKNOWN", "upstream has no such repository"),
    }
}

/// What the request was about, as far as it passed the grammar.
fn detail(request: &Request) -> Option<Value> {
    let name = Some(request.name.as_str()).filter(|name| is_name(name))?;
    Some(match &request.endpoint {
        Endpoint::Tag(tag) => json!({"name": name, "tag": tag}),
        Endpoint::Manifest(digest) | Endpoint::Blob(digest) | Endpoint::Referrers(digest) => {
            json!({"name": name, "digest": digest.to_string()})
        }
        Endpoint::Base | Endpoint::Catalog | Endpoint::Tags => json!({"name": name}),
    })
}
