//! Which header fields of a request go along to upstream, and which of an answer's come back.

use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED,
    HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, MAX_FORWARDS, PRAGMA,
    RANGE, USER_AGENT, VIA, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::model::http_cache::is_hop_by_hop;
use crate::model::{Heed, HttpRules, Ref, Resource};

/// Fields by which proxies tell a server of whom and what they ask for. Many a server believes them of
/// anybody, and what it then answers must not become everybody's.
const OF_PROXIES: [&str; 5] =
    ["x-host", "x-http-method-override", "x-original-url", "x-real-ip", "x-rewrite-url"];

/// What goes along: what is not of the connection, of this cache's own making (validators, ranges, codings:
/// it always asks for the whole, as it is), or the client's own business (cookies, who and where it is).
pub(super) fn along(headers: &HeaderMap, rules: &HttpRules) -> HeaderMap {
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let goes = |name: &HeaderName| match *name {
        AUTHORIZATION => rules.forward_authorization,
        CACHE_CONTROL | PRAGMA => rules.heed != Heed::Nothing,
        ACCEPT_ENCODING | CONTENT_LENGTH | COOKIE | EXPECT | FORWARDED | HOST | IF_MATCH
        | IF_MODIFIED_SINCE | IF_NONE_MATCH | IF_RANGE | IF_UNMODIFIED_SINCE | MAX_FORWARDS | RANGE
        | USER_AGENT | VIA => false,
        _ => {
            let name = name.as_str();
            !name.starts_with("x-forwarded-")
                && !OF_PROXIES.contains(&name)
                && !named.iter().any(|named| named == name)
        }
    };
    let kept = headers.iter().filter(|(name, _)| !is_hop_by_hop(name) && goes(name));
    let mut along = HeaderMap::new();
    for (name, value) in kept {
        along.append(name.clone(), value.clone());
    }
    along
}

/// A resource's context, if a client's answer to a challenge of upstream's would be handed on.
pub(super) const CHALLENGES: &[u8] = b"challenges";

/// What comes back: all that was kept, but a challenge only where an answer to it would be handed on.
pub(super) fn back(resource: &Resource, reference: &Ref) -> Vec<(HeaderName, HeaderValue)> {
    let challenges = resource.context == CHALLENGES;
    reference
        .headers
        .iter()
        .filter(|(name, _)| challenges || *name != WWW_AUTHENTICATE.as_str())
        .filter_map(|(name, value)| Some((name.parse().ok()?, HeaderValue::try_from(value).ok()?)))
        .collect()
}
