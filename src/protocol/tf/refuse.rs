//! How a refusal is worded: `{"errors":["…"]}`, as registries do. Clients print it, or the status alone.
//!
//! Nothing is told that the client does not know already, but for the name of a key that is not to
//! be trusted: that one is in public documents, and without it nobody could look into the matter.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::json;

use super::resource::JSON;
use crate::protocol::{Refusal, Reply};

/// A refusal as status and body.
pub(super) fn reply(refusal: &Refusal) -> Reply {
    let status = match refusal {
        // Registries deny what does not exist to whom they do not know; and 403 would make clients
        // speak of their own credentials, which play no part here.
        Refusal::Denied { anonymous: true } => StatusCode::NOT_FOUND,
        _ => refusal.status(),
    };
    let mut headers = vec![(CONTENT_TYPE, HeaderValue::from_static(JSON))];
    headers.extend(refusal.headers());
    Reply { status, headers, body: Bytes::from(json!({"errors": [wording(refusal)]}).to_string()) }
}

fn wording(refusal: &Refusal) -> String {
    let text = match refusal {
        Refusal::NoEndpoint => "there is no such endpoint",
        Refusal::NoProxy => {
            "no proxy is configured for this registry; check the name, or add a proxy to the configuration"
        }
        Refusal::ReadOnly => "this is a read-only cache; publish to the registry itself",
        Refusal::NotFound => "the registry has no such thing",
        Refusal::Denied { anonymous: true } => {
            "the registry has no such thing, or it is private and this cache has no credentials for it"
        }
        Refusal::Denied { anonymous: false } => {
            "the registry does not let the credentials of this cache read it"
        }
        Refusal::RateLimited { .. } => {
            "the registry limits the rate of requests and this is not cached yet; try again later"
        }
        Refusal::Unavailable { .. } => {
            "the registry is unavailable and this is not cached yet; try again later"
        }
        Refusal::Unreachable => "the registry cannot be reached and this is not cached yet; try again later",
        Refusal::Timeout => "the registry did not answer in time and this is not cached yet; try again later",
        Refusal::Loop => "the request has come back to this cache: an upstream leads here",
        Refusal::Internal => "something failed in this cache; its log has the details",
        Refusal::Invalid { .. }
        | Refusal::BadUpstream(_)
        | Refusal::Untrusted { .. }
        | Refusal::TooLarge { .. } => return refusal.to_string(),
    };
    text.to_owned()
}
