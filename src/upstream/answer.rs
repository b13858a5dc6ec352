//! A good answer: its headers, and its body as it comes.
//!
//! Invariants: no header value with control characters leaves here; a body that ends otherwise than
//! its framing says is an error, now and whenever it is asked for again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;

use super::follow::Net;
use super::retry::{self, Pace};
use super::settings::Limits;
use super::{Ask, Resume, Take, UpstreamError};

/// A good answer: 200, 206 or 304, 204 where that was allowed, and with [`Take::Any`] any other. What is none
/// is an [`UpstreamError`].
///
/// It holds one of the host's request permits until it is dropped.
#[derive(Debug)]
pub struct Answer {
    /// 200, 204, 206 or 304, unless any was to be taken.
    pub status: StatusCode,
    /// The response headers, without those whose values hold control characters.
    pub headers: HeaderMap,
    /// The host that was asked (of the base URL, not of a redirect), with its port if that is not
    /// the scheme's own.
    pub host: String,
    /// How long it took from when it was asked for to the headers.
    pub waited: Duration,
    whole_length: Option<u64>,
    marks_end: bool,
    body: Body,
}

/// Who gave an answer, and how.
#[derive(Debug)]
pub(super) struct Giver {
    pub(super) host: String,
    /// Without credentials.
    pub(super) anonymous: bool,
    pub(super) waited: Duration,
}

/// What only [`Answer::chunk`] needs.
#[derive(Debug)]
struct Body {
    frames: reqwest::Body,
    /// What is still to come, if the length is known.
    rest: Option<u64>,
    state: State,
    idle: Duration,
    /// When the whole exchange must be over.
    until: Option<Instant>,
    pace: Pace,
    net: Arc<Net>,
    #[expect(dead_code, reason = "it is given back by being dropped")]
    permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum State {
    Coming,
    Whole,
    Failed(UpstreamError),
}

impl Answer {
    /// Judges an answer.
    ///
    /// # Errors
    /// Whatever is not 200, 206 to a resumed transfer, 304 to a conditional request, or 204 where the
    /// request allows it; with [`Take::Any`], what cannot be an answer to what was asked.
    pub(super) fn new(
        ask: &Ask,
        response: http::Response<reqwest::Body>,
        giver: Giver,
        until: Option<Instant>,
        net: Arc<Net>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, UpstreamError> {
        let (mut head, frames) = response.into_parts();
        drop_bad_values(&mut head.headers);
        if let Some(remaining) = text(&head.headers, "ratelimit-remaining") {
            net.meters.remaining(remaining);
        }
        judge(head.status, &head.headers, ask, giver.anonymous, &net.limits)?;
        let length: Option<u64> =
            text(&head.headers, "content-length").and_then(|length| length.parse().ok());
        let whole_length = match (&ask.resume, head.status) {
            (Some(resume), StatusCode::PARTIAL_CONTENT) => check_part(resume, &head.headers, length)?,
            _ => length,
        };
        let has_body = !ask.head && !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let marks_end =
            !has_body || length.is_some() || head.version >= Version::HTTP_2 || is_chunked(&head.headers);
        let body = Body {
            frames,
            rest: length.filter(|_| has_body),
            state: State::Coming,
            idle: net.limits.idle,
            until,
            pace: Pace::new(&net.limits),
            net,
            permit,
        };
        Ok(Self {
            status: head.status,
            headers: head.headers,
            host: giver.host,
            waited: giver.waited,
            whole_length,
            marks_end,
            body,
        })
    }

    /// The next bytes; `None` at the end of a body that arrived whole by HTTP's own framing.
    ///
    /// Cancel safe. There is no limit on the time of a whole body (but see [`Ask::patience`]).
    ///
    /// # Errors
    /// [`UpstreamError::Timeout`] if nothing comes for too long or too little over a minute;
    /// [`UpstreamError::Broken`] if the connection breaks or the length is not what was said. After
    /// an error every further call gives the same error.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        self.body.chunk().await
    }

    /// The length of the whole representation, if it was said: `Content-Length`, or for 206 what
    /// `Content-Range` gives.
    pub fn content_length(&self) -> Option<u64> {
        self.whole_length
    }

    /// Whether the end of the body is marked, by a length or by HTTP's chunks or frames. If not, a
    /// transfer that was cut looks like one that is complete, and only a checksum can tell.
    pub fn marks_end(&self) -> bool {
        self.marks_end
    }

    /// Whether upstream is in trouble, by its own word.
    pub(super) fn is_trouble(&self) -> bool {
        UpstreamError::Status(self.status.as_u16()).is_trouble()
    }

    /// A header's value, if it is text. The name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        text(&self.headers, name)
    }

    /// `ETag`, as sent, with quotes and `W/`.
    pub fn etag(&self) -> Option<&str> {
        self.header("etag")
    }

    /// `Last-Modified`, as sent.
    pub fn last_modified(&self) -> Option<&str> {
        self.header("last-modified")
    }

    /// `Content-Type` without parameters.
    pub fn content_type(&self) -> Option<&str> {
        let media_type = self.header("content-type")?.split(';').next()?.trim();
        (!media_type.is_empty()).then_some(media_type)
    }
}

impl Body {
    async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        match &self.state {
            State::Coming => {}
            State::Whole => return Ok(None),
            State::Failed(error) => return Err(error.clone()),
        }
        let next = self.next().await;
        match &next {
            Ok(Some(bytes)) => self.net.meters.received(bytes.len()),
            Ok(None) => self.state = State::Whole,
            Err(error) => {
                self.net.meters.failed(error);
                self.state = State::Failed(error.clone());
            }
        }
        next
    }

    async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            let begin = Instant::now();
            let left = self.until.map(|until| until.saturating_duration_since(begin));
            let wait = left.map_or(self.idle, |left| left.min(self.idle));
            let Ok(frame) = tokio::time::timeout(wait, self.frames.frame()).await else {
                let why = if wait < self.idle { "patience" } else { "idle" };
                return Err(UpstreamError::Timeout(why));
            };
            let bytes = match frame {
                None => return self.end(),
                Some(Err(_)) => return Err(broken("the connection broke")),
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            let count = bytes.len() as u64;
            if !self.pace.keep_up(begin.elapsed(), count) {
                return Err(UpstreamError::TooSlow);
            }
            if let Some(rest) = &mut self.rest {
                *rest = rest.checked_sub(count).ok_or_else(|| broken("longer than its length"))?;
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    fn end(&self) -> Result<Option<Bytes>, UpstreamError> {
        match self.rest {
            None | Some(0) => Ok(None),
            Some(_) => Err(broken("shorter than its length")),
        }
    }
}

fn broken(why: &str) -> UpstreamError {
    UpstreamError::Broken(why.to_owned())
}

/// The header type refuses most control characters; this takes what is left (C1, and bytes that
/// are not text), so that no value can break a header, a log line or a file of ours.
fn drop_bad_values(headers: &mut HeaderMap) {
    let is_bad = |value: &HeaderValue| match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => text.contains(|c: char| c.is_control() && c != '\t'),
        Err(_) => true,
    };
    let bad: Vec<_> =
        headers.iter().filter(|(_, value)| is_bad(value)).map(|(name, _)| name.clone()).collect();
    for name in bad {
        headers.remove(name);
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    std::str::from_utf8(headers.get(name)?.as_bytes()).ok()
}

/// Whether the end of the body is marked by chunks: they are the last coding of the transfer (RFC 9112,
/// section 6.3).
fn is_chunked(headers: &HeaderMap) -> bool {
    let last = headers.get_all(header::TRANSFER_ENCODING).iter().next_back();
    last.and_then(|line| line.to_str().ok()?.rsplit(',').next())
        .is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
}

fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    ask: &Ask,
    anonymous: bool,
    limits: &Limits,
) -> Result<(), UpstreamError> {
    let senseless = |what: &str| Err(UpstreamError::Senseless(what.to_owned()));
    match status.as_u16() {
        200 => {}
        204 if ask.no_content => {}
        206 if ask.resume.is_some() => {}
        206 => return senseless("a part of a whole that was asked for"),
        304 if ask.if_none_match.is_some() || ask.if_modified_since.is_some() => return Ok(()),
        304 => return senseless("`not modified` without a condition"),
        416 if ask.resume.is_some() => return Err(UpstreamError::NotResumable),
        429 => {
            let retry_after = Some(retry::pause_of(headers, limits));
            return Err(UpstreamError::RateLimited { retry_after, asked: true });
        }
        _ if ask.take == Take::Any => return Ok(()),
        404 | 410 => return Err(UpstreamError::NotFound),
        status @ (401 | 403) => return Err(UpstreamError::Denied { status, anonymous }),
        status => return Err(UpstreamError::Status(status)),
    }
    if ask.take != Take::Content {
        return Ok(());
    }
    let encoded = |value: &HeaderValue| !matches!(value.as_bytes(), b"" | b"identity");
    if ask.take == Take::Content && headers.get_all(header::CONTENT_ENCODING).iter().any(encoded) {
        return senseless("an encoding that was not asked for");
    }
    Ok(())
}

/// Checks that a 206 is the rest that was asked for, of the same version, up to the end; gives the
/// length of the whole (RFC 9110, 14.4).
fn check_part(
    resume: &Resume,
    headers: &HeaderMap,
    length: Option<u64>,
) -> Result<Option<u64>, UpstreamError> {
    let range = text(headers, "content-range").and_then(content_range).ok_or(UpstreamError::NotResumable)?;
    let is_rest = range.from == resume.from
        && length.is_none_or(|length| range.to.checked_sub(range.from) == length.checked_sub(1))
        && range.whole.is_none_or(|whole| range.to.checked_add(1) == Some(whole));
    let is_strong_etag = |tag: &&String| tag.starts_with('"');
    let same_version = match (resume.validator.as_ref().filter(is_strong_etag), text(headers, "etag")) {
        (Some(asked), Some(got)) => asked == got,
        _ => true,
    };
    if is_rest && same_version { Ok(range.whole) } else { Err(UpstreamError::NotResumable) }
}

struct ContentRange {
    from: u64,
    to: u64,
    whole: Option<u64>,
}

fn content_range(text: &str) -> Option<ContentRange> {
    let (range, whole) = text.strip_prefix("bytes ")?.trim().split_once('/')?;
    let (from, to) = range.split_once('-')?;
    let whole = if whole == "*" { None } else { Some(whole.parse().ok()?) };
    let (from, to) = (from.parse().ok()?, to.parse().ok()?);
    (from <= to).then_some(ContentRange { from, to, whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect()
    }

    #[test]
    fn a_part_must_be_the_rest_of_the_same_version() {
        let resume = Resume { from: 40, validator: Some("\"v1\"".to_owned()) };
        for (pairs, length, expect) in [
            (&[("content-range", "bytes 40-99/100")][..], Some(60), Ok(Some(100))),
            (&[("content-range", "bytes 40-99/100"), ("etag", "\"v1\"")], None, Ok(Some(100))),
            (&[("content-range", "bytes 40-99/*")], None, Ok(None)),
            (&[("content-range", "bytes 40-99/100"), ("etag", "\"v2\"")], None, Err(())),
            (&[("content-range", "bytes 39-99/100")], None, Err(())),
            (&[("content-range", "bytes 0-59/100")], None, Err(())),
            (&[("content-range", "bytes 40-98/100")], None, Err(())),
            (&[("content-range", "bytes 40-99/100")], Some(61), Err(())),
            (&[("content-range", "bytes 40-39/100")], Some(0), Err(())),
            (&[("content-range", "bytes 40-18446744073709551615/100")], None, Err(())),
            (&[("content-range", "40-99/100")], None, Err(())),
            (&[("content-range", "bytes */100")], None, Err(())),
            (&[], None, Err(())),
        ] {
            let result = check_part(&resume, &headers(pairs), length);
            assert_eq!(result.map_err(drop), expect, "{pairs:?} {length:?}");
        }
    }

    #[test]
    fn every_status_has_its_kind() {
        let (plain, limits) = (Ask::default(), Limits::default());
        let resumed = Ask { resume: Some(Resume { from: 1, validator: None }), ..Ask::default() };
        let conditional = Ask { if_none_match: Some("\"x\"".to_owned()), ..Ask::default() };
        let headers_only = Ask { no_content: true, ..Ask::default() };
        for (status, ask, expect) in [
            (200, &plain, "ok"),
            (204, &headers_only, "ok"),
            (206, &resumed, "ok"),
            (304, &conditional, "ok"),
            (206, &plain, "senseless"),
            (304, &plain, "senseless"),
            (404, &plain, "not-found"),
            (410, &plain, "not-found"),
            (401, &plain, "denied"),
            (403, &plain, "denied"),
            (416, &resumed, "not-resumable"),
            (416, &plain, "status"),
            (429, &plain, "rate-limited"),
            (204, &plain, "status"),
            (500, &plain, "status"),
            (508, &plain, "status"),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let result = judge(status, &HeaderMap::new(), ask, true, &limits);
            assert_eq!(result.as_ref().map_or_else(UpstreamError::kind, |()| "ok"), expect, "{status}");
        }
    }

    #[test]
    fn any_answer_is_one_if_any_is_wanted_but_for_what_was_not_asked() {
        let any = Ask { take: Take::Any, ..Ask::default() };
        for status in [200, 201, 204, 301, 302, 401, 403, 404, 405, 410, 416, 500, 503, 599] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(judge(status, &HeaderMap::new(), &any, true, &Limits::default()), Ok(()), "{status}");
        }
        for (status, kind) in [(206, "senseless"), (304, "senseless"), (429, "rate-limited")] {
            let status = StatusCode::from_u16(status).expect("a status");
            let judged = judge(status, &HeaderMap::new(), &any, true, &Limits::default());
            assert_eq!(judged.expect_err("none").kind(), kind, "{status}");
        }
        let encoded = headers(&[("content-encoding", "gzip")]);
        for take in [Take::Any, Take::AnyCoding] {
            let ask = Ask { take, ..Ask::default() };
            assert_eq!(judge(StatusCode::OK, &encoded, &ask, true, &Limits::default()), Ok(()));
        }
    }

    #[test]
    fn only_chunks_that_come_last_mark_the_end() {
        for (codings, marked) in [
            (&["chunked"][..], true),
            (&["gzip, Chunked"], true),
            (&["gzip", "chunked"], true),
            (&["chunked, gzip"], false),
            (&["whatever"], false),
            (&[], false),
        ] {
            let pairs: Vec<_> = codings.iter().map(|coding| ("transfer-encoding", *coding)).collect();
            let mut all = HeaderMap::new();
            for (name, value) in pairs {
                all.append(name, value.parse().expect("a value"));
            }
            assert_eq!(is_chunked(&all), marked, "{codings:?}");
        }
    }

    #[test]
    fn an_encoding_that_was_not_asked_for_is_refused() {
        let judge = |encoding| {
            judge(
                StatusCode::OK,
                &headers(&[("content-encoding", encoding)]),
                &Ask::default(),
                true,
                &Limits::default(),
            )
        };
        assert_eq!(judge("identity"), Ok(()));
        assert!(matches!(judge("gzip"), Err(UpstreamError::Senseless(_))));
        let any = Ask { take: Take::AnyCoding, ..Ask::default() };
        let encoded = headers(&[("content-encoding", "gzip")]);
        assert_eq!(super::judge(StatusCode::OK, &encoded, &any, true, &Limits::default()), Ok(()));
    }

    #[test]
    fn header_values_with_control_characters_are_dropped() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("etag", &b"\"good\""[..]),
            ("x-name", "gr\u{fc}n".as_bytes()),
            ("x-c1", "a\u{85}b".as_bytes()),
            ("x-bytes", b"a\xffb"),
        ] {
            headers.insert(name, HeaderValue::from_bytes(value).expect("the header type lets it pass"));
        }
        drop_bad_values(&mut headers);
        assert_eq!(headers.len(), 2);
        assert_eq!((text(&headers, "etag"), text(&headers, "x-name")), (Some("\"good\""), Some("gr\u{fc}n")));
    }
}
