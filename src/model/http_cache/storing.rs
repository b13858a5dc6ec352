//! What may be stored, which fields of it, and how a 304 renews them (RFC 9111, sections 3 and 3.2).

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, StatusCode, header};

use super::directives::{RequestDirectives, ResponseDirectives, lines};
use super::freshness::{is_explicit, lifetime};
use super::vary::{Selection, selection};
use crate::model::Timestamp;

/// Fields of a connection, not of an answer, beside those that `Connection` names (RFC 9110, section
/// 7.6.1).
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields that are kept elsewhere or made anew for each answer, and those that are for one client alone
/// (`set-cookie`) or lead clients past this cache (`alt-svc`).
const NOT_KEPT: [&str; 8] = [
    "age",
    "alt-svc",
    "cache-status",
    "content-length",
    "content-type",
    "etag",
    "last-modified",
    "set-cookie",
];

/// Fields that say what the stored bytes are, so that a 304, which brings none, cannot change them.
const OF_THE_BYTES: [&str; 4] = ["content-encoding", "content-length", "content-md5", "content-range"];

/// The statuses that may be kept without being told to (RFC 9110, section 15.1), but for 206: parts are
/// never asked for.
pub(super) fn is_cacheable_by_default(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// The statuses whose meaning for a cache is known here (for `must-understand`).
fn is_understood(status: StatusCode) -> bool {
    is_cacheable_by_default(status)
        || matches!(status.as_u16(), 302 | 303 | 307 | 400 | 403 | 500 | 502..=504)
}

/// Whether a shared cache may store an answer to a GET (section 3), and gains by it: one that is stale
/// at once and cannot be asked about again is worth keeping only if it is the content itself, for the
/// time when upstream is away. `authorized` says that the request carried `Authorization` (section 3.5).
pub fn may_store(
    request: &RequestDirectives,
    authorized: bool,
    status: StatusCode,
    headers: &HeaderMap,
    received: Timestamp,
) -> bool {
    let directives = ResponseDirectives::of(headers);
    let forbidden = request.no_store
        || directives.no_store
        || directives.private
        || status.is_informational()
        || matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED)
        || directives.must_understand && !is_understood(status)
        || matches!(selection(headers), Selection::Never)
        || authorized && !(directives.public || directives.must_revalidate || directives.s_maxage.is_some());
    let allowed = is_explicit(&directives, headers) || directives.public || is_cacheable_by_default(status);
    // An error that is stale at once is no answer to keep.
    let useful = lifetime(status, headers, received) > 0
        || status == StatusCode::OK
        || !status.is_server_error()
            && (headers.contains_key(header::ETAG) || headers.contains_key(header::LAST_MODIFIED));
    !forbidden && allowed && useful
}

/// Whether a field belongs to one connection; those that `Connection` names do beside these.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(&name.as_str())
}

/// The fields of an answer that go on to clients and are kept: without those of the connection, and
/// those that have a place of their own. Several lines of a field become one (RFC 9110, section 5.3).
pub fn end_to_end(headers: &HeaderMap) -> BTreeMap<String, String> {
    let named: Vec<String> = lines(headers, &header::CONNECTION)
        .flat_map(|line| line.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let mut kept = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let Ok(value) = std::str::from_utf8(value.as_bytes()) else { continue };
        let is_kept = !is_hop_by_hop(name)
            && !NOT_KEPT.contains(&name.as_str())
            && !named.iter().any(|named| named == name.as_str());
        if is_kept {
            kept.entry(name.as_str().to_owned())
                .and_modify(|known| {
                    known.push_str(", ");
                    known.push_str(value);
                })
                .or_insert_with(|| value.to_owned());
        }
    }
    kept
}

/// What is stored of an answer's fields once a 304 has confirmed it (section 3.2): those of the 304
/// replace those of their name, but for what describes the bytes.
pub fn freshen(stored: &BTreeMap<String, String>, confirmed: &HeaderMap) -> BTreeMap<String, String> {
    let mut fields = stored.clone();
    let new = end_to_end(confirmed);
    fields.extend(new.into_iter().filter(|(name, _)| !OF_THE_BYTES.contains(&name.as_str())));
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    fn now() -> Timestamp {
        "2025-11-09T12:00:00Z".parse().expect("a time")
    }

    fn stores(status: u16, fields: &[(&'static str, &str)]) -> bool {
        let status = StatusCode::from_u16(status).expect("a status");
        may_store(&RequestDirectives::default(), false, status, &headers(fields), now())
    }

    const AN_HOUR: (&str, &str) = ("cache-control", "max-age=3600");

    #[test]
    fn what_is_fresh_for_a_time_is_stored_whatever_its_status() {
        for status in [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 503, 599] {
            assert!(stores(status, &[AN_HOUR]), "{status}");
        }
        for status in [206, 304] {
            assert!(!stores(status, &[AN_HOUR]), "{status}");
        }
    }

    #[test]
    fn without_a_word_only_content_and_what_can_be_asked_about_again_is_stored() {
        assert!(stores(200, &[]));
        assert!(stores(404, &[("etag", "\"a\"")]));
        assert!(stores(404, &[("last-modified", "Sat, 08 Nov 2025 12:00:00 GMT")]));
        for status in [201, 202, 302, 400, 403, 404, 410, 429, 500, 503] {
            assert!(!stores(status, &[]), "{status}");
        }
        for status in [201, 202, 403, 502, 503, 504, 599] {
            assert!(!stores(status, &[("last-modified", "Sat, 08 Nov 2025 12:00:00 GMT")]), "{status}");
        }
        assert!(!stores(503, &[("expires", "0"), ("etag", "\"a\"")]), "an error that is stale at once");
    }

    #[test]
    fn what_is_not_for_everybody_is_not_stored() {
        for line in ["no-store", "private", "private=\"x\"", "max-age=3600, No-Store"] {
            assert!(!stores(200, &[("cache-control", line)]), "{line}");
        }
        for vary in ["*", "*, *", ", *", "Foo, *", "*, Foo"] {
            assert!(!stores(200, &[AN_HOUR, ("vary", vary)]), "{vary}");
        }
        assert!(!stores(200, &[AN_HOUR, ("vary", ""), ("vary", "*")]));
        assert!(stores(200, &[AN_HOUR, ("vary", "Foo")]));
        assert!(!stores(599, &[("cache-control", "max-age=3600, must-understand")]));
        assert!(stores(404, &[("cache-control", "max-age=3600, must-understand")]));
    }

    #[test]
    fn an_answer_to_a_request_with_credentials_is_stored_only_if_it_says_so() {
        let ask = |line: &str| {
            let fields = headers(&[("cache-control", line)]);
            may_store(&RequestDirectives::default(), true, StatusCode::OK, &fields, now())
        };
        assert!(!ask("max-age=3600"));
        for line in ["max-age=3600, public", "max-age=3600, must-revalidate", "s-maxage=3600"] {
            assert!(ask(line), "{line}");
        }
    }

    #[test]
    fn a_request_can_forbid_it() {
        let request = RequestDirectives { no_store: true, ..RequestDirectives::default() };
        assert!(!may_store(&request, false, StatusCode::OK, &headers(&[AN_HOUR]), now()));
    }

    #[test]
    fn fields_of_the_connection_and_cookies_are_not_kept_and_lines_are_joined() {
        let kept = end_to_end(&headers(&[
            ("connection", "A, b"),
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("keep-alive", "x"),
            ("transfer-encoding", "chunked"),
            ("set-cookie", "a=b"),
            ("age", "7"),
            ("etag", "\"e\""),
            ("link", "<a>"),
            ("link", "<b>"),
        ]));
        let expected = [("c", "3"), ("link", "<a>, <b>")];
        assert_eq!(kept, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn a_304_renews_everything_but_what_describes_the_bytes() {
        let stored = end_to_end(&headers(&[("x-a", "1"), ("x-b", "1"), ("content-encoding", "br")]));
        let confirmed =
            headers(&[("x-b", "2"), ("x-c", "2"), ("content-encoding", "gzip"), ("content-md5", "x")]);
        let fields = freshen(&stored, &confirmed);
        let expected = [("content-encoding", "br"), ("x-a", "1"), ("x-b", "2"), ("x-c", "2")];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }
}
