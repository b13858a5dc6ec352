//! From what the engine found to a response.
//!
//! The headers of the whole answer are made first, the same for GET and HEAD; then the request's
//! conditions decide how much of it is sent. A stream that ends early or fails cuts the connection:
//! a completed answer is always the right bytes (invariant I5).

use std::cell::Cell;
use std::ops::Range;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, AGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    HeaderValue, LAST_MODIFIED,
};
use http::{Response as HttpResponse, StatusCode};
use warp::Reply as _;

use super::conditional::{self, Verdict};
use super::exchange::Exchange;
use crate::cache::{Body, Forward, Outcome, Reader, Served, Way, Why};
use crate::model::{Digest, Ref, Timestamp};
use crate::protocol::{Document, Reply};

/// A response as warp sends it.
pub(super) type Response = warp::reply::Response;

/// The body of a [`Response`], which warp does not name.
pub(super) type ResponseBody = <Response as HasBody>::Body;

/// Names the body of a response type.
pub(super) trait HasBody {
    /// The body.
    type Body;
}

impl<B> HasBody for HttpResponse<B> {
    type Body = B;
}

/// RFC 9211.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

const BYTES: HeaderValue = HeaderValue::from_static("bytes");
const ANY_TYPE: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Header fields that every full answer has room for: our eight and a few of the dialect.
const USUAL_FIELDS: usize = 12;

/// How many numbers of seconds each thread keeps as text.
const AGES: usize = 64;

/// The bytes of an answer.
#[derive(Debug)]
pub(super) enum Content {
    /// In memory.
    Memory(Bytes),
    /// From the engine.
    Body(Body),
}

/// The headers of the whole answer, but for [`stamp`]. `extra` comes from the dialect and wins.
pub(super) fn headers(served: &Served, extra: Vec<(HeaderName, HeaderValue)>) -> HeaderMap {
    let digest = served.named.then_some(served.reference.target_digest);
    headers_of(&served.reference, digest, served.size, extra)
}

/// The same; `digest` stands in for a missing entity tag.
fn headers_of(
    reference: &Ref,
    digest: Option<Digest>,
    size: Option<u64>,
    extra: Vec<(HeaderName, HeaderValue)>,
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(USUAL_FIELDS);
    let media_type = reference.media_type.as_deref().and_then(value);
    headers.insert(CONTENT_TYPE, media_type.unwrap_or(ANY_TYPE));
    headers.insert(ACCEPT_RANGES, BYTES);
    if let Some(size) = size {
        headers.insert(CONTENT_LENGTH, size.into());
    }
    let etag = reference.etag.as_deref().and_then(value);
    if let Some(etag) = etag.or_else(|| digest.and_then(|digest| value(&tag(&digest)))) {
        headers.insert(ETAG, etag);
    }
    if let Some(modified) = reference.last_modified.as_deref().and_then(value) {
        headers.insert(LAST_MODIFIED, modified);
    }
    merge(&mut headers, extra);
    headers
}

/// The headers of a document that a dialect made; its bytes are its own, so is its tag.
pub(super) fn document_headers(document: &Document) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(USUAL_FIELDS);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(document.media_type));
    headers.insert(ACCEPT_RANGES, BYTES);
    headers.insert(CONTENT_LENGTH, document.body.len().into());
    if let Some(etag) = value(&tag(&Digest::of(&document.body))) {
        headers.insert(ETAG, etag);
    }
    merge(&mut headers, document.headers.iter().cloned());
    headers
}

/// Adds a dialect's headers. What they say of our own fields wins; others may come more than once.
fn merge(headers: &mut HeaderMap, extra: impl IntoIterator<Item = (HeaderName, HeaderValue)>) {
    for (name, value) in extra {
        if matches!(name, CONTENT_TYPE | ACCEPT_RANGES | CONTENT_LENGTH | ETAG | LAST_MODIFIED) {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
    }
}

/// The [`CACHE_STATUS`] of a ready answer.
pub(super) const HIT: HeaderValue = HeaderValue::from_static("repoxy; hit");

/// Says, instead of what may be there, what differs from one answer to the next: `Age`, if it has one, and
/// `Cache-Status`.
pub(super) fn stamp(headers: &mut HeaderMap, age_seconds: Option<u64>, status: HeaderValue) {
    if let Some(age_seconds) = age_seconds {
        headers.insert(AGE, seconds(age_seconds));
    }
    headers.insert(CACHE_STATUS, status);
}

/// A number as a header's value. What is asked for often is of few ages, so those that were asked for last are kept:
/// to write one down takes two allocations.
fn seconds(number: u64) -> HeaderValue {
    thread_local! {
        static LAST: [Cell<Option<(u64, HeaderValue)>>; AGES] = const { [const { Cell::new(None) }; AGES] };
    }
    LAST.with(|last| {
        #[expect(clippy::cast_possible_truncation, reason = "a remainder")]
        let place = &last[(number % AGES as u64) as usize];
        let kept = place.take().filter(|(known, _)| *known == number);
        let (_, value) = kept.unwrap_or_else(|| (number, number.into()));
        place.set(Some((number, value.clone())));
        value
    })
}

/// What `Cache-Status` says of an answer with content.
pub(super) fn status_of(served: &Served, now: Timestamp) -> HeaderValue {
    if served.outcome != Outcome::Stale {
        return cache_status(served.way, None, None);
    }
    let detail = format!("upstream {}", served.detail.unwrap_or("unavailable"));
    let reference = &served.reference;
    let over = reference.age(now).as_secs().saturating_sub(reference.ttl_seconds.unwrap_or(0));
    cache_status(served.way, Some(over), Some(&detail))
}

/// The member that this cache adds to `Cache-Status` (RFC 9211 section 2): by which way the answer came, by how
/// many seconds it is past its time, and what else there is to say. `hit` and `fwd` exclude each other there, and
/// an answer that comes neither from the cache nor from upstream has neither.
pub(super) fn cache_status(way: Way, over_seconds: Option<u64>, detail: Option<&str>) -> HeaderValue {
    let mut line = "repoxy".to_owned();
    match way {
        Way::Cache if over_seconds.is_none() && detail.is_none() => return HIT,
        Way::Cache => line.push_str("; hit"),
        Way::Here => {}
        Way::Forward(Forward { why, status, stored, collapsed }) => {
            line.push_str(match why {
                Why::UriMiss => "; fwd=uri-miss",
                Why::VaryMiss => "; fwd=vary-miss",
                Why::Miss => "; fwd=miss",
                Why::Stale => "; fwd=stale",
                Why::Method => "; fwd=method",
            });
            line.extend(status.map(|status| format!("; fwd-status={status}")));
            line.push_str(if stored { "; stored" } else { "" });
            line.push_str(if collapsed { "; collapsed" } else { "" });
        }
    }
    line.extend(over_seconds.map(|over| format!("; ttl=-{over}")));
    line.extend(detail.map(|detail| format!("; detail=\"{detail}\"")));
    value(&line).unwrap_or(HeaderValue::from_static("repoxy"))
}

/// Answers with content, or as much of it as the request's conditions leave.
pub(super) fn content(
    exchange: &Exchange,
    mut headers: HeaderMap,
    size: Option<u64>,
    content: Content,
) -> Response {
    let verdict = if exchange.survey.conditional {
        conditional::decide(&exchange.headers, &headers, size, !exchange.is_head())
    } else {
        Verdict::Whole
    };
    match verdict {
        Verdict::Whole if exchange.is_head() => empty(StatusCode::OK, headers),
        Verdict::Whole => {
            let mut response = body(content, 0..size.unwrap_or(u64::MAX), exchange.reader);
            *response.headers_mut() = headers;
            response
        }
        Verdict::Part(part) => {
            let size = size.unwrap_or(part.end);
            let line = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            headers.extend(value(&line).map(|line| (CONTENT_RANGE, line)));
            headers.insert(CONTENT_LENGTH, (part.end - part.start).into());
            let mut response = body(content, part, exchange.reader);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            *response.headers_mut() = headers;
            response
        }
        Verdict::NotModified => {
            for name in [CONTENT_LENGTH, CONTENT_TYPE, ACCEPT_RANGES] {
                headers.remove(name);
            }
            empty(StatusCode::NOT_MODIFIED, headers)
        }
        Verdict::Failed | Verdict::Unsatisfiable => {
            headers.insert(CONTENT_LENGTH, 0.into());
            headers.remove(CONTENT_TYPE);
            if verdict == Verdict::Failed {
                return empty(StatusCode::PRECONDITION_FAILED, headers);
            }
            let line = format!("bytes */{}", size.unwrap_or(0));
            headers.extend(value(&line).map(|line| (CONTENT_RANGE, line)));
            empty(StatusCode::RANGE_NOT_SATISFIABLE, headers)
        }
    }
}

/// Answers with what upstream answered that is not 200: whole, for conditions and ranges are about content
/// (RFC 9110 sections 13.2.1 and 14.2).
pub(super) fn relayed(
    exchange: &Exchange,
    status: StatusCode,
    mut headers: HeaderMap,
    content: Body,
) -> Response {
    headers.remove(ACCEPT_RANGES);
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bodiless {
        headers.remove(CONTENT_LENGTH);
    }
    if bodiless || exchange.is_head() {
        return empty(status, headers);
    }
    let mut response = body(Content::Body(content), 0..u64::MAX, exchange.reader);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Answers with a reply that is complete.
pub(super) fn reply(head: bool, reply: Reply) -> Response {
    let mut headers: HeaderMap = reply.headers.into_iter().collect();
    if reply.status != StatusCode::NO_CONTENT && reply.status != StatusCode::NOT_MODIFIED {
        headers.insert(CONTENT_LENGTH, reply.body.len().into());
    }
    let mut response = if head { empty(reply.status, headers) } else { with(reply.body, headers) };
    *response.status_mut() = reply.status;
    response
}

fn body(content: Content, range: Range<u64>, reader: Reader) -> Response {
    let bytes = match &content {
        Content::Memory(bytes) => Some(bytes),
        Content::Body(body) => body.in_memory(),
    };
    match (bytes.map(|bytes| cut(bytes, &range)), content) {
        (Some(bytes), _) => with(bytes, HeaderMap::new()),
        (None, Content::Body(body)) => warp::reply::stream(body.stream(range, reader)).into_response(),
        (None, Content::Memory(bytes)) => with(cut(&bytes, &range), HeaderMap::new()),
    }
}

/// A slice of bytes in memory; what lies past the end is not there.
fn cut(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let bound = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(bound(range.start)..bound(range.end))
}

fn with(bytes: Bytes, headers: HeaderMap) -> Response {
    let mut response = HttpResponse::new(bytes.into());
    *response.headers_mut() = headers;
    response
}

fn empty(status: StatusCode, headers: HeaderMap) -> Response {
    let mut response = HttpResponse::new(None.into());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// A header value; `None` for text of upstream's that is none.
fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use http::header::{IF_NONE_MATCH, IF_RANGE, LINK, RANGE};
    use http::{Method, Request};
    use http_body_util::BodyExt as _;

    use super::super::check::Survey;
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn reference(fields: &str) -> Ref {
        let json = format!(
            r#"{{"kind":"k","targetDigest":"{DIGEST}","size":10,"fetchedAt":"2025-11-09T12:00:00Z"{fields}}}"#
        );
        Ref::parse(json.as_bytes()).expect("a ref")
    }

    fn named(reference: &Ref, size: Option<u64>, extra: Vec<(HeaderName, HeaderValue)>) -> HeaderMap {
        headers_of(reference, Some(reference.target_digest), size, extra)
    }

    fn exchange(method: Method, lines: &[(HeaderName, &str)]) -> Exchange {
        let mut request = Request::builder().method(method).uri("/x");
        for (name, value) in lines {
            request = request.header(name, *value);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let survey = Survey { conditional: !lines.is_empty(), ..Survey::default() };
        Exchange::new(head, survey, "127.0.0.1:1".parse().expect("an address"), Reader::Program)
    }

    /// Status, headers and body of the answer to a request for ten bytes.
    async fn ask(method: Method, lines: &[(HeaderName, &str)]) -> (u16, HeaderMap, Bytes) {
        let mut headers = named(&reference(r#","etag":"\"e\"""#), Some(10), Vec::new());
        stamp(&mut headers, Some(7), HeaderValue::from_static("repoxy; hit"));
        let content = Content::Memory(Bytes::from_static(b"0123456789"));
        let response = super::content(&exchange(method, lines), headers, Some(10), content);
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("from memory").to_bytes();
        (head.status.as_u16(), head.headers, body)
    }

    #[test]
    fn upstreams_validators_are_passed_on_and_the_digest_stands_in_for_a_missing_one() {
        let full = reference(r#","etag":"W/\"a\"","lastModified":"then","mediaType":"text/x""#);
        let full = named(&full, Some(10), Vec::new());
        assert_eq!(full[ETAG], "W/\"a\"");
        assert_eq!(full[LAST_MODIFIED], "then");
        assert_eq!(full[CONTENT_TYPE], "text/x");
        assert_eq!(full[CONTENT_LENGTH], "10");

        let bare = named(&reference(""), None, Vec::new());
        assert_eq!(bare[ETAG], format!("\"{DIGEST}\""));
        assert_eq!(bare[CONTENT_TYPE], "application/octet-stream");
        assert!(!bare.contains_key(CONTENT_LENGTH) && !bare.contains_key(LAST_MODIFIED));

        let unnamed = headers_of(&reference(""), None, None, Vec::new());
        assert!(!unnamed.contains_key(ETAG), "the digest of content that is on its way is not known");
    }

    #[test]
    fn what_upstream_sent_cannot_add_lines_to_the_answer() {
        let evil = reference(r#","etag":"\"a\"\r\nX: y","lastModified":"a\nb","mediaType":"a\u0000""#);
        let headers = named(&evil, None, Vec::new());
        assert_eq!(headers[ETAG], format!("\"{DIGEST}\""));
        assert_eq!(headers[CONTENT_TYPE], "application/octet-stream");
        assert!(!headers.contains_key(LAST_MODIFIED));
    }

    #[test]
    fn the_dialects_headers_win() {
        let line = |name, value| (name, HeaderValue::from_static(value));
        let extra = vec![line(ETAG, "\"own\""), line(LINK, "a"), line(LINK, "b")];
        let headers = named(&reference(r#","etag":"\"a\"""#), None, extra);
        assert_eq!(headers.get_all(ETAG).iter().collect::<Vec<_>>(), ["\"own\""]);
        assert_eq!(headers.get_all(LINK).iter().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn what_differs_from_one_answer_to_the_next_is_said_once() {
        let mut headers = HeaderMap::new();
        // Two ages in one place of those that are kept, and one again.
        let far = 7 + AGES as u64;
        for (age, said) in [(7, "7"), (far, "71"), (7, "7"), (u64::MAX, "18446744073709551615")] {
            stamp(&mut headers, Some(age), HIT);
            assert_eq!(headers.get_all(AGE).iter().collect::<Vec<_>>(), [said]);
            assert_eq!(headers.get_all(CACHE_STATUS).iter().count(), 1);
        }
    }

    #[test]
    fn a_document_is_tagged_by_its_own_bytes() {
        let document = |body| Document { media_type: "text/x", headers: Vec::new(), body };
        let headers = document_headers(&document(Bytes::new()));
        assert_eq!(headers[ETAG], format!("\"{DIGEST}\""));
        assert_eq!(headers[CONTENT_LENGTH], "0");
        assert_ne!(document_headers(&document(Bytes::from_static(b"x")))[ETAG], headers[ETAG]);
    }

    #[test]
    fn cache_status_tells_which_way_an_answer_came() {
        let forward =
            |why, status, stored, collapsed| Way::Forward(Forward { why, status, stored, collapsed });
        for (way, over, detail, line) in [
            (Way::Cache, None, None, "repoxy; hit"),
            (Way::Cache, None, Some("not-found"), "repoxy; hit; detail=\"not-found\""),
            (
                Way::Cache,
                Some(3000),
                Some("upstream timeout"),
                "repoxy; hit; ttl=-3000; detail=\"upstream timeout\"",
            ),
            (Way::Here, None, Some("refused"), "repoxy; detail=\"refused\""),
            (forward(Why::Stale, Some(304), false, false), None, None, "repoxy; fwd=stale; fwd-status=304"),
            (
                forward(Why::UriMiss, Some(200), true, false),
                None,
                None,
                "repoxy; fwd=uri-miss; fwd-status=200; stored",
            ),
            (forward(Why::VaryMiss, None, false, true), None, None, "repoxy; fwd=vary-miss; collapsed"),
            (
                forward(Why::Miss, Some(429), false, false),
                None,
                Some("rate-limited"),
                "repoxy; fwd=miss; fwd-status=429; detail=\"rate-limited\"",
            ),
            (forward(Why::Method, Some(201), false, false), None, None, "repoxy; fwd=method; fwd-status=201"),
        ] {
            assert_eq!(cache_status(way, over, detail), line);
        }
    }

    #[tokio::test]
    async fn head_has_the_headers_of_get_and_no_body() {
        let (get_status, get_headers, get_body) = ask(Method::GET, &[]).await;
        let (status, headers, body) = ask(Method::HEAD, &[(RANGE, "bytes=0-1")]).await;
        assert_eq!((status, headers), (get_status, get_headers));
        assert_eq!((get_body.len(), body.len()), (10, 0));
    }

    #[tokio::test]
    async fn a_range_is_answered_with_its_bytes() {
        let (status, headers, body) = ask(Method::GET, &[(RANGE, "bytes=2-99"), (IF_RANGE, "\"e\"")]).await;
        assert_eq!(status, 206);
        assert_eq!(headers[CONTENT_RANGE], "bytes 2-9/10");
        assert_eq!(headers[CONTENT_LENGTH], "8");
        assert_eq!(headers[ETAG], "\"e\"");
        assert_eq!(body, "23456789");
    }

    #[tokio::test]
    async fn an_unsatisfiable_range_is_answered_with_the_size() {
        let (status, headers, body) = ask(Method::GET, &[(RANGE, "bytes=10-")]).await;
        assert_eq!((status, body.len()), (416, 0));
        assert_eq!(headers[CONTENT_RANGE], "bytes */10");
        assert_eq!(headers[CONTENT_LENGTH], "0");
    }

    #[tokio::test]
    async fn not_modified_carries_validators_and_age_but_nothing_about_a_body() {
        for method in [Method::GET, Method::HEAD] {
            let (status, headers, body) = ask(method, &[(IF_NONE_MATCH, "W/\"e\"")]).await;
            assert_eq!((status, body.len()), (304, 0));
            assert_eq!(headers[ETAG], "\"e\"");
            assert_eq!(headers[AGE], "7");
            assert_eq!(headers[CACHE_STATUS], "repoxy; hit");
            assert!(!headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(CONTENT_TYPE));
        }
    }

    #[tokio::test]
    async fn a_reply_has_its_length_for_head_too() {
        let answer = || Reply {
            status: StatusCode::NOT_FOUND,
            headers: vec![(CONTENT_TYPE, HeaderValue::from_static("text/x"))],
            body: Bytes::from_static(b"gone"),
        };
        for (head, len) in [(false, 4), (true, 0)] {
            let (parts, body) = reply(head, answer()).into_parts();
            assert_eq!(parts.status, 404);
            assert_eq!(parts.headers[CONTENT_LENGTH], "4");
            assert_eq!(body.collect().await.expect("from memory").to_bytes().len(), len);
        }
    }
}
