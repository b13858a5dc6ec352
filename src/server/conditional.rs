//! What a request's conditions come to (RFC 9110 section 13). Pure.
//!
//! It knows the request's headers and the headers that the whole answer would have; the bytes it
//! never sees. Order of evaluation: `If-Match`, `If-Unmodified-Since`, `If-None-Match`,
//! `If-Modified-Since`, then `Range` with `If-Range` (section 13.2.2).

use std::ops::Range;
use std::time::SystemTime;

use http::header::{
    ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};

use super::range::{Slice, slice};

/// What of the content is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// 200: all of it.
    Whole,
    /// 206: these bytes.
    Part(Range<u64>),
    /// 304: the client has it.
    NotModified,
    /// 412: it is not what the client insists on.
    Failed,
    /// 416: no byte of it.
    Unsatisfiable,
}

/// Whether a request header can make the verdict anything but [`Verdict::Whole`].
pub(super) fn matters(name: &HeaderName) -> bool {
    matches!(*name, IF_MATCH | IF_MODIFIED_SINCE | IF_NONE_MATCH | IF_RANGE | IF_UNMODIFIED_SINCE | RANGE)
}

/// Decides what to send for a GET or HEAD whose whole answer would carry `answer` as headers.
///
/// `ranges` is false where a `Range` means nothing: for HEAD (section 14.2). Without a known size it
/// is ignored too.
pub(super) fn decide(request: &HeaderMap, answer: &HeaderMap, size: Option<u64>, ranges: bool) -> Verdict {
    let etag = answer.get(ETAG).map(HeaderValue::as_bytes);
    let modified = answer.get(LAST_MODIFIED);

    if request.contains_key(IF_MATCH) {
        if !any_tag(request, &IF_MATCH, |tag| etag.is_some_and(|own| strong(tag, own))) {
            return Verdict::Failed;
        }
    } else if let (Some(limit), Some(own)) = (date(request.get(IF_UNMODIFIED_SINCE)), date(modified))
        && own > limit
    {
        return Verdict::Failed;
    }

    if request.contains_key(IF_NONE_MATCH) {
        if any_tag(request, &IF_NONE_MATCH, |tag| etag.is_some_and(|own| opaque(tag) == opaque(own))) {
            return Verdict::NotModified;
        }
    } else if let (Some(known), Some(own)) = (date(request.get(IF_MODIFIED_SINCE)), date(modified))
        && own <= known
    {
        return Verdict::NotModified;
    }

    let mut asked = request.get_all(RANGE).iter();
    match (asked.next(), asked.next(), size) {
        (Some(value), None, Some(size)) if ranges && still_the_same(request, etag, modified) => {
            match slice(value.as_bytes(), size) {
                Slice::Whole => Verdict::Whole,
                Slice::Part(part) => Verdict::Part(part),
                Slice::Unsatisfiable => Verdict::Unsatisfiable,
            }
        }
        _ => Verdict::Whole,
    }
}

/// `If-Range` (section 13.1.5): a strong entity tag that is ours, or exactly our `Last-Modified`.
fn still_the_same(request: &HeaderMap, etag: Option<&[u8]>, modified: Option<&HeaderValue>) -> bool {
    let Some(condition) = request.get(IF_RANGE) else {
        return true;
    };
    let condition = condition.as_bytes();
    if condition.starts_with(b"\"") || condition.starts_with(b"W/") {
        etag.is_some_and(|own| strong(condition, own))
    } else {
        modified.is_some_and(|own| own.as_bytes() == condition)
    }
}

/// Whether a list of entity tags is `*` or has a tag that `fits`. What is malformed ends the list.
fn any_tag(request: &HeaderMap, name: &HeaderName, fits: impl Fn(&[u8]) -> bool) -> bool {
    request.get_all(name).iter().any(|line| {
        let mut rest = line.as_bytes().trim_ascii();
        if rest == b"*" {
            return true;
        }
        while let Some((tag, after)) = next_tag(rest) {
            if fits(tag) {
                return true;
            }
            rest = after;
        }
        false
    })
}

/// The first entity tag of a list and what follows it. A comma may stand inside the quotes.
fn next_tag(list: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = list.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
    let list = &list[start..];
    let weak = if list.starts_with(b"W/") { 2 } else { 0 };
    let quoted = list[weak..].strip_prefix(b"\"")?;
    let end = weak + 1 + quoted.iter().position(|&byte| byte == b'"')? + 1;
    Some(list.split_at(end))
}

/// Strong comparison (section 8.8.3.2).
fn strong(tag: &[u8], own: &[u8]) -> bool {
    tag == own && tag.starts_with(b"\"")
}

/// The tag without its mark of weakness.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// An HTTP date; what is none is as if it were absent.
fn date(value: Option<&HeaderValue>) -> Option<SystemTime> {
    httpdate::parse_http_date(value?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const OWN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(name, HeaderValue::from_str(value).expect("a header value"));
        }
        map
    }

    fn verdict(request: &[(HeaderName, &str)]) -> Verdict {
        let answer = headers(&[(ETAG, "\"a,b\""), (LAST_MODIFIED, OWN)]);
        decide(&headers(request), &answer, Some(10), true)
    }

    #[test]
    fn if_none_match_compares_weakly_over_a_list() {
        for list in ["\"a,b\"", "W/\"a,b\"", "*", " * ", "\"x\", \"a,b\"", "\"x\",,W/\"a,b\" ,\"y\""] {
            assert_eq!(verdict(&[(IF_NONE_MATCH, list)]), Verdict::NotModified, "{list}");
        }
        for list in ["\"x\"", "a,b", "\"a", "\"a,b", "", "w/\"a,b\"", "x, \"a,b\"", "\"a\", \"b\""] {
            assert_eq!(verdict(&[(IF_NONE_MATCH, list)]), Verdict::Whole, "{list}");
        }
        assert_eq!(verdict(&[(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, "\"a,b\"")]), Verdict::NotModified);
    }

    #[test]
    fn if_modified_since_counts_only_without_if_none_match() {
        for (since, expected) in [
            (BEFORE, Verdict::Whole),
            (OWN, Verdict::NotModified),
            (AFTER, Verdict::NotModified),
            ("yesterday", Verdict::Whole),
        ] {
            assert_eq!(verdict(&[(IF_MODIFIED_SINCE, since)]), expected, "{since}");
        }
        assert_eq!(verdict(&[(IF_MODIFIED_SINCE, AFTER), (IF_NONE_MATCH, "\"x\"")]), Verdict::Whole);
    }

    #[test]
    fn a_failed_precondition_is_412_before_anything_else() {
        for (request, expected) in [
            (vec![(IF_MATCH, "\"a,b\"")], Verdict::Whole),
            (vec![(IF_MATCH, "*")], Verdict::Whole),
            (vec![(IF_MATCH, "W/\"a,b\"")], Verdict::Failed),
            (vec![(IF_MATCH, "\"x\"")], Verdict::Failed),
            (vec![(IF_MATCH, "\"x\""), (IF_NONE_MATCH, "*")], Verdict::Failed),
            (vec![(IF_UNMODIFIED_SINCE, BEFORE)], Verdict::Failed),
            (vec![(IF_UNMODIFIED_SINCE, OWN)], Verdict::Whole),
            (vec![(IF_UNMODIFIED_SINCE, "soon")], Verdict::Whole),
            (vec![(IF_MATCH, "*"), (IF_UNMODIFIED_SINCE, BEFORE)], Verdict::Whole),
        ] {
            assert_eq!(verdict(&request), expected, "{request:?}");
        }
    }

    #[test]
    fn a_range_counts_if_if_range_is_strongly_ours() {
        for (condition, expected) in [
            ("\"a,b\"", Verdict::Part(2..4)),
            ("W/\"a,b\"", Verdict::Whole),
            ("\"x\"", Verdict::Whole),
            (OWN, Verdict::Part(2..4)),
            (AFTER, Verdict::Whole),
            (BEFORE, Verdict::Whole),
        ] {
            assert_eq!(verdict(&[(RANGE, "bytes=2-3"), (IF_RANGE, condition)]), expected, "{condition}");
        }
        assert_eq!(verdict(&[(IF_RANGE, "\"a,b\"")]), Verdict::Whole);
        assert_eq!(verdict(&[(RANGE, "bytes=10-")]), Verdict::Unsatisfiable);
        assert_eq!(verdict(&[(RANGE, "bytes=10-"), (IF_RANGE, "\"x\"")]), Verdict::Whole);
        assert_eq!(verdict(&[(RANGE, "bytes=2-3"), (IF_NONE_MATCH, "*")]), Verdict::NotModified);
        assert_eq!(verdict(&[(RANGE, "bytes=2-3"), (RANGE, "bytes=4-5")]), Verdict::Whole);
    }

    #[test]
    fn a_range_is_ignored_for_head_and_without_a_size() {
        let request = headers(&[(RANGE, "bytes=2-3")]);
        assert_eq!(decide(&request, &HeaderMap::new(), Some(10), false), Verdict::Whole);
        assert_eq!(decide(&request, &HeaderMap::new(), None, true), Verdict::Whole);
        assert_eq!(decide(&request, &HeaderMap::new(), Some(10), true), Verdict::Part(2..4));
    }

    #[test]
    fn a_weak_own_tag_matches_weakly_only() {
        let answer = headers(&[(ETAG, "W/\"a\"")]);
        let ask = |name, tag| decide(&headers(&[(name, tag)]), &answer, None, true);
        assert_eq!(ask(IF_NONE_MATCH, "\"a\""), Verdict::NotModified);
        assert_eq!(ask(IF_MATCH, "W/\"a\""), Verdict::Failed);
    }

    #[test]
    fn without_validators_only_a_star_matches() {
        let ask = |name, value| decide(&headers(&[(name, value)]), &HeaderMap::new(), None, true);
        assert_eq!(ask(IF_NONE_MATCH, "\"a\""), Verdict::Whole);
        assert_eq!(ask(IF_MODIFIED_SINCE, AFTER), Verdict::Whole);
        assert_eq!(ask(IF_UNMODIFIED_SINCE, BEFORE), Verdict::Whole);
        assert_eq!(ask(IF_MATCH, "\"a\""), Verdict::Failed);
        assert_eq!(ask(IF_NONE_MATCH, "*"), Verdict::NotModified);
    }

    #[test]
    fn every_header_that_is_read_is_known_to_matter() {
        for name in [IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE] {
            assert!(matters(&name), "{name}");
        }
        assert!(!matters(&http::header::HOST));
    }

    proptest! {
        #[test]
        fn a_tag_is_found_anywhere_in_a_list(before in prop::collection::vec("(W/)?\"[a-z,]{0,5}\"", 0..5), tag in "[A-Z,]{1,5}") {
            let own = format!("\"{tag}\"");
            let answer = headers(&[(ETAG, &own)]);
            let list = [before.as_slice(), std::slice::from_ref(&own)].concat().join(", ");
            prop_assert_eq!(
                decide(&headers(&[(IF_NONE_MATCH, &list)]), &answer, None, true),
                Verdict::NotModified
            );
        }

        #[test]
        fn no_list_makes_it_fail(list in "[W/\", *a\\t]{0,30}") {
            verdict(&[(IF_NONE_MATCH, &list)]);
            verdict(&[(IF_MATCH, &list)]);
            verdict(&[(IF_RANGE, &list), (RANGE, "bytes=0-")]);
        }
    }
}
