//! How a refusal is worded (OCI distribution specification, "Error Codes").
//!
//! Nothing is told that the client does not know already: not which proxies there are, not what
//! upstream said.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::grammar::is_name;
use super::request::{Endpoint, Request};
use crate::protocol::{Head, Part, Refusal, Reply};

/// When to come back if upstream did not say. Clients that get no `Retry-After` try again at once or
/// wait for minutes.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(10);

/// A refusal as status and body.
pub(super) fn reply(head: &Head<'_>, refusal: &Refusal) -> Reply {
    let request = Request::parse(head).ok();
    let (status, code, message) = wording(request.as_ref(), refusal);
    let error = match request.as_ref().and_then(detail) {
        Some(detail) => json!({"code": code, "message": message, "detail": detail}),
        None => json!({"code": code, "message": message}),
    };
    let mut headers = vec![super::API_VERSION, (CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    match refusal {
        Refusal::ReadOnly => headers.push((ALLOW, HeaderValue::from_static("GET, HEAD"))),
        Refusal::RateLimited { retry_after } | Refusal::Unavailable { retry_after } => {
            let wait = retry_after.unwrap_or(RETRY_AFTER_DEFAULT);
            // Whole seconds, rounded up: never early, never 0, which means at once.
            let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1);
            headers.push((RETRY_AFTER, HeaderValue::from(seconds)));
        }
        _ => {}
    }
    Reply { status, headers, body: Bytes::from(json!({"errors": [error]}).to_string()) }
}

/// Status, code and message. Long because it is one table: each refusal has its line.
fn wording(request: Option<&Request>, refusal: &Refusal) -> (StatusCode, &'static str, String) {
    let (status, code, message) = match refusal {
        Refusal::NoEndpoint => (StatusCode::NOT_FOUND, "UNSUPPORTED", "there is no such endpoint"),
        Refusal::Invalid { what, .. } => {
            let (status, code) = match what {
                Part::Path | Part::Name => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
                // A tag that cannot exist is a manifest that does not: the conformance suite asks so.
                Part::Reference => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
                Part::Digest => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
                Part::Query => (StatusCode::BAD_REQUEST, "UNSUPPORTED"),
            };
            return (status, code, refusal.to_string());
        }
        Refusal::NoProxy => (
            StatusCode::NOT_FOUND,
            "NAME_UNKNOWN",
            "no proxy is configured for this registry; check the name, or add a proxy to the configuration",
        ),
        Refusal::ReadOnly => (
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            "this is a read-only cache; push to the registry itself",
        ),
        Refusal::NotFound => not_found(request),
        Refusal::Denied { anonymous: true } => (
            StatusCode::NOT_FOUND,
            "NAME_UNKNOWN",
            "upstream has no such repository, or it is private and this cache has no credentials for it",
        ),
        Refusal::Denied { anonymous: false } => (
            StatusCode::FORBIDDEN,
            "DENIED",
            "upstream does not let the credentials of this cache read the repository",
        ),
        Refusal::RateLimited { .. } => (
            StatusCode::TOO_MANY_REQUESTS,
            "TOOMANYREQUESTS",
            "upstream limits the rate of requests and this is not cached yet; try again later",
        ),
        Refusal::Unavailable { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "UNAVAILABLE",
            "upstream is unavailable and this is not cached yet; try again later",
        ),
        Refusal::Timeout => (
            StatusCode::GATEWAY_TIMEOUT,
            "UNAVAILABLE",
            "upstream did not answer in time and this is not cached yet; try again later",
        ),
        Refusal::BadUpstream(_) => return (StatusCode::BAD_GATEWAY, "UNKNOWN", refusal.to_string()),
        // Not 413: it is upstream's answer that is too large, not the client's request.
        Refusal::TooLarge { limit } => {
            let message = format!("what upstream has is larger than the {limit} bytes that are accepted");
            return (StatusCode::BAD_GATEWAY, "SIZE_INVALID", message);
        }
        Refusal::Loop => (
            StatusCode::LOOP_DETECTED,
            "UNKNOWN",
            "the request has come back to this cache: an upstream leads here",
        ),
        Refusal::Internal => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "UNKNOWN",
            "something failed in this cache; its log has the details",
        ),
    };
    (status, code, message.to_owned())
}

fn not_found(request: Option<&Request>) -> (StatusCode, &'static str, &'static str) {
    let (code, message) = match request.map(|request| &request.endpoint) {
        Some(Endpoint::Blob(_)) => ("BLOB_UNKNOWN", "upstream has no such blob in this repository"),
        Some(Endpoint::Tag(_) | Endpoint::Manifest(_)) => {
            ("MANIFEST_UNKNOWN", "upstream has no such manifest in this repository")
        }
        Some(Endpoint::Referrers(_)) => ("NAME_UNKNOWN", "upstream lists no referrers here"),
        _ => ("NAME_UNKNOWN", "upstream has no such repository"),
    };
    (StatusCode::NOT_FOUND, code, message)
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
