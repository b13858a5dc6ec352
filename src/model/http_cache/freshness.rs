//! How old an answer was when it came, and for how long it is fresh (RFC 9111, section 4.2).

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, StatusCode, header};

use super::MAX_SECONDS;
use super::directives::{ResponseDirectives, lines};
use super::storing::is_cacheable_by_default;
use crate::model::Timestamp;

/// The share of the time since the last modification for which an answer without a word on its
/// freshness is taken to be fresh (section 4.2.2).
const HEURISTIC_SHARE: u64 = 10;
/// The longest such time: a day.
const HEURISTIC_MAX: u64 = 24 * 60 * 60;

/// When an answer was asked for and when its headers were there, by our own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The request was sent.
    pub asked: Timestamp,
    /// The headers were there.
    pub received: Timestamp,
}

/// How old an answer was when it came, in seconds (section 4.2.3): what `Age` says and the time it took,
/// or what `Date` says, whichever is more.
///
/// An `Age` that is not one number stands for the greatest: caches on the way that disagree are none
/// to rely on.
pub fn initial_age(headers: &HeaderMap, moment: Moment) -> u64 {
    // Dates are whole seconds. What is not dated before it was asked for was made for us, and no older
    // than it took to come.
    let made = date(headers, &header::DATE).filter(|made| made.as_second() < moment.asked.as_second());
    let apparent = made.map_or(0, |made| between(made, moment.received));
    let said = match headers.get(header::AGE) {
        None => 0,
        Some(_) => age(headers).unwrap_or(MAX_SECONDS),
    };
    let delay = u64::try_from(moment.received.duration_since(moment.asked).as_secs()).unwrap_or(0);
    apparent.max(said.saturating_add(delay)).min(MAX_SECONDS)
}

/// `Age`, if it is one line with one number.
fn age(headers: &HeaderMap) -> Option<u64> {
    let mut all = headers.get_all(header::AGE).iter();
    let (text, None) = (all.next()?.to_str().ok()?, all.next()) else { return None };
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(MAX_SECONDS))
}

/// For how many seconds from its making an answer is fresh in a shared cache (section 4.2.1): what
/// `s-maxage`, `max-age` or `Expires` says; else a share of the time since its last modification, if
/// its status may be kept without being told to.
pub fn lifetime(status: StatusCode, headers: &HeaderMap, received: Timestamp) -> u64 {
    let directives = ResponseDirectives::of(headers);
    let made = date(headers, &header::DATE).unwrap_or(received);
    if let Some(explicit) = explicit_lifetime(&directives, headers, made) {
        return explicit;
    }
    if !directives.public && !is_cacheable_by_default(status) {
        return 0;
    }
    let Some(modified) = date(headers, &header::LAST_MODIFIED) else { return 0 };
    (between(modified, made) / HEURISTIC_SHARE).min(HEURISTIC_MAX)
}

/// What the answer itself says; an `Expires` that is no date lies in the past (section 5.3).
fn explicit_lifetime(directives: &ResponseDirectives, headers: &HeaderMap, made: Timestamp) -> Option<u64> {
    if let Some(said) = directives.s_maxage.or(directives.max_age) {
        return Some(said);
    }
    headers.get(header::EXPIRES)?;
    Some(date(headers, &header::EXPIRES).map_or(0, |expires| between(made, expires)))
}

/// Whether an answer says itself how long it is fresh.
pub(super) fn is_explicit(directives: &ResponseDirectives, headers: &HeaderMap) -> bool {
    directives.s_maxage.or(directives.max_age).is_some() || headers.contains_key(header::EXPIRES)
}

/// The date in a field, if it is there once and is one.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<Timestamp> {
    let mut all = lines(headers, name);
    let (line, None) = (all.next()?, all.next()) else { return None };
    let date: SystemTime = httpdate::parse_http_date(line).ok()?;
    Timestamp::try_from(date).ok()
}

/// Whole seconds from one moment to a later one, [`MAX_SECONDS`] at most; none if it is earlier.
fn between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_second() - from.as_second()).unwrap_or(0).min(MAX_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "Sun, 09 Nov 2025 12:00:00 GMT";

    fn now() -> Timestamp {
        "2025-11-09T12:00:00Z".parse().expect("a time")
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn the_lifetime_is_what_is_said_first_of_all() {
        let of = |fields: &[(&'static str, &str)]| lifetime(StatusCode::OK, &headers(fields), now());
        let in_an_hour = "Sun, 09 Nov 2025 13:00:00 GMT";
        for (fields, expected) in [
            (&[("cache-control", "s-maxage=7, max-age=3600"), ("expires", in_an_hour)][..], 7),
            (&[("cache-control", "max-age=0"), ("expires", in_an_hour)], 0),
            (&[("cache-control", "max-age=7"), ("expires", "0")], 7),
            (&[("expires", in_an_hour), ("date", NOW)], 3600),
            (&[("expires", in_an_hour)], 3600),
            (&[("expires", in_an_hour), ("date", "foo")], 3600),
            (&[("expires", NOW), ("date", NOW)], 0),
            (&[("expires", "0"), ("date", NOW), ("last-modified", "Sat, 08 Nov 2025 12:00:00 GMT")], 0),
            (&[("expires", in_an_hour), ("expires", in_an_hour)], 0),
            // Both clocks run fast: only the difference counts.
            (&[("expires", in_an_hour), ("date", "Sun, 09 Nov 2025 13:00:10 GMT")], 0),
            (&[("expires", "Thu, 31 Dec 9998 00:00:00 GMT")], MAX_SECONDS),
            (&[], 0),
        ] {
            assert_eq!(of(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn without_a_word_it_is_a_tenth_of_the_time_since_the_last_change_but_a_day_at_most() {
        let of = |status: u16, fields: &[(&'static str, &str)]| {
            lifetime(StatusCode::from_u16(status).expect("a status"), &headers(fields), now())
        };
        let yesterday = ("last-modified", "Sat, 08 Nov 2025 12:00:00 GMT");
        let long_ago = ("last-modified", "Sat, 08 Nov 2014 12:00:00 GMT");
        for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
            assert_eq!(of(status, &[yesterday]), 8640, "{status}");
        }
        for status in [201, 202, 302, 303, 307, 400, 403, 429, 500, 502, 503, 504, 599] {
            assert_eq!(of(status, &[yesterday]), 0, "{status}");
        }
        assert_eq!(of(599, &[yesterday, ("cache-control", "public")]), 8640);
        assert_eq!(of(200, &[long_ago]), HEURISTIC_MAX);
        assert_eq!(of(200, &[("last-modified", "Mon, 10 Nov 2025 12:00:00 GMT")]), 0, "from the future");
        assert_eq!(of(200, &[("last-modified", "yesterday")]), 0);
    }

    #[test]
    fn the_age_is_the_greatest_that_anything_tells() {
        let of = |fields: &[(&'static str, &str)], delay: i64| {
            let asked = now() - jiff::SignedDuration::from_secs(delay);
            initial_age(&headers(fields), Moment { asked, received: now() })
        };
        let earlier = ("date", "Sun, 09 Nov 2025 11:59:30 GMT");
        assert_eq!(of(&[], 0), 0);
        assert_eq!(of(&[("age", "30")], 0), 30);
        assert_eq!(of(&[("age", "30")], 3), 33, "the time on the way counts");
        assert_eq!(of(&[earlier], 0), 30, "the date tells it too");
        assert_eq!(of(&[earlier, ("age", "10")], 0), 30);
        assert_eq!(of(&[earlier, ("age", "31")], 0), 31);
        assert_eq!(of(&[earlier], 30), 30, "made for us: as old as it took to come");
        assert_eq!(of(&[("date", NOW)], 0), 0);
        assert_eq!(of(&[("date", "Sun, 09 Nov 2025 12:00:30 GMT")], 0), 0, "never negative");
        for bad in ["abc", "-7200", "7200.0", "7200,0", "0,7200", "0, 0", "3600, 3600", "7200;foo=bar", ""] {
            assert_eq!(of(&[("age", bad)], 0), MAX_SECONDS, "{bad}");
        }
        assert_eq!(of(&[("age", "0"), ("age", "0")], 0), MAX_SECONDS);
        assert_eq!(of(&[("age", "99999999999999999999")], 0), MAX_SECONDS);
    }
}
