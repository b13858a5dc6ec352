//! Whether what is stored may be used (RFC 9111, sections 4, 4.2.4 and 5.2.1; RFC 5861).

use std::time::Duration;

use super::directives::{RequestDirectives, ResponseDirectives};
use crate::model::{Ref, Timestamp};

/// What may be done with a stored answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// It is used: fresh, and fresh enough for the client.
    Fresh,
    /// It is used although it is stale: the client allows that.
    Stale,
    /// It is used although it is stale, and upstream is asked meanwhile: upstream allows that.
    StaleMeanwhile,
    /// Upstream is asked first.
    Ask,
}

/// Why upstream could not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excuse {
    /// It cannot be reached, or does not answer.
    Away,
    /// It answers that it cannot: 500, 502, 503, 504, 429.
    Erring,
}

/// Whether a request will not have a stored answer before upstream has been asked, however fresh it is.
pub fn asks_again(reference: &Ref, request: &RequestDirectives, now: Timestamp) -> bool {
    let too_old = match request.max_age {
        // The way clients say "ask again", also right after the answer was made.
        Some(0) => true,
        Some(max_age) => reference.current_age(now).as_secs() > max_age,
        None => false,
    };
    request.no_cache || too_old
}

/// Whether a stored answer may be used for a request.
pub fn reuse(reference: &Ref, request: &RequestDirectives, now: Timestamp) -> Reuse {
    if asks_again(reference, request, now) {
        return Reuse::Ask;
    }
    let stale_for = match remaining(reference, now) {
        Remaining::Fresh(left) if left >= request.min_fresh.unwrap_or(0) => return Reuse::Fresh,
        Remaining::Fresh(_) => return Reuse::Ask,
        Remaining::Stale(over) => over,
    };
    let directives = directives_of(reference);
    if directives.forbids_stale() || request.min_fresh.is_some() {
        Reuse::Ask
    } else if directives.stale_while_revalidate.is_some_and(|allowed| stale_for <= allowed) {
        Reuse::StaleMeanwhile
    } else if request.max_stale.is_some_and(|allowed| stale_for <= allowed) {
        Reuse::Stale
    } else {
        Reuse::Ask
    }
}

/// Whether a stored answer that is stale may be used because upstream could not be asked. If upstream is
/// away, anything may that is not forbidden (section 4.2.4). If it errs, upstream or the client must
/// have allowed it, or the operator, for at most `by_operator` past its time.
pub fn may_excuse(
    reference: &Ref,
    request: &RequestDirectives,
    excuse: Excuse,
    by_operator: Duration,
    now: Timestamp,
) -> bool {
    let directives = directives_of(reference);
    if directives.forbids_stale() || request.no_cache {
        return false;
    }
    let over = match remaining(reference, now) {
        Remaining::Fresh(_) => 0,
        Remaining::Stale(over) => over,
    };
    let operator = (!by_operator.is_zero()).then_some(by_operator.as_secs());
    let allowed = directives.stale_if_error.max(request.stale_if_error).max(operator);
    excuse == Excuse::Away || allowed.is_some_and(|allowed| over <= allowed)
}

/// How long an answer is still fresh, or has been stale, in seconds.
enum Remaining {
    Fresh(u64),
    Stale(u64),
}

fn remaining(reference: &Ref, now: Timestamp) -> Remaining {
    let Some(ttl) = reference.ttl_seconds else { return Remaining::Fresh(u64::MAX) };
    let resident = reference.age(now).as_secs();
    if reference.is_fresh(now) {
        Remaining::Fresh(ttl.saturating_sub(resident))
    } else {
        Remaining::Stale(resident.saturating_sub(ttl))
    }
}

fn directives_of(reference: &Ref) -> ResponseDirectives {
    ResponseDirectives::of_lines(reference.headers.get("cache-control").map(String::as_str))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::model::{Digest, Http};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("in range")
    }

    /// Fresh for a minute; `age` seconds old when it came.
    fn stored(cache_control: &str, age: u64) -> Ref {
        let mut reference = Ref::new("k".to_owned(), Digest::of(b""), 0, at(0));
        reference.ttl_seconds = Some(60);
        reference.headers.insert("cache-control".to_owned(), cache_control.to_owned());
        reference.http = Some(Http { age_seconds: age, ..Http::default() });
        reference
    }

    fn asked(cache_control: &str) -> RequestDirectives {
        let headers =
            HeaderMap::from_iter([(http::header::CACHE_CONTROL, cache_control.parse().expect("a value"))]);
        RequestDirectives::of(&headers)
    }

    #[test]
    fn what_is_stored_is_used_as_far_as_it_and_the_client_allow() {
        use Reuse::{Ask, Fresh, Stale, StaleMeanwhile};
        for (response, age, request, now, expected) in [
            ("", 0, "", 0, Fresh),
            ("", 0, "", 59, Fresh),
            ("", 0, "", 60, Ask),
            ("", 0, "", -1, Ask),
            ("", 0, "no-cache", 0, Ask),
            ("", 0, "max-age=0", 0, Ask),
            ("", 0, "max-age=5", 5, Fresh),
            ("", 0, "max-age=5", 6, Ask),
            ("", 10, "max-age=5", 0, Ask),
            ("", 0, "min-fresh=30", 30, Fresh),
            ("", 0, "min-fresh=30", 31, Ask),
            ("", 0, "max-stale=5", 65, Stale),
            ("", 0, "max-stale=5", 66, Ask),
            ("", 0, "max-stale", 6000, Stale),
            ("", 0, "max-stale, min-fresh=1", 65, Ask),
            ("must-revalidate", 0, "max-stale", 65, Ask),
            ("proxy-revalidate", 0, "max-stale", 65, Ask),
            ("s-maxage=60", 0, "max-stale", 65, Ask),
            ("no-cache", 0, "max-stale", 65, Ask),
            ("stale-while-revalidate=10", 0, "", 70, StaleMeanwhile),
            ("stale-while-revalidate=10", 0, "", 71, Ask),
            ("stale-while-revalidate=10, must-revalidate", 0, "", 65, Ask),
            ("stale-while-revalidate=10", 0, "no-cache", 65, Ask),
            ("no-store", 0, "no-store", 0, Fresh),
        ] {
            let reuse = reuse(&stored(response, age), &asked(request), at(now));
            assert_eq!(reuse, expected, "{response:?} {age} {request:?} {now}");
        }
    }

    #[test]
    fn stale_answers_need_an_excuse_and_leave() {
        use Excuse::{Away, Erring};
        let month = Duration::from_secs(30 * 24 * 3600);
        for (response, request, excuse, by_operator, now, expected) in [
            ("", "", Away, Duration::ZERO, 1_000_000, true),
            ("", "", Erring, Duration::ZERO, 61, false),
            ("", "", Erring, month, 61, true),
            ("", "", Erring, month, 60 + 30 * 24 * 3600, true),
            ("", "", Erring, month, 61 + 30 * 24 * 3600, false),
            ("stale-if-error=10", "", Erring, Duration::ZERO, 70, true),
            ("stale-if-error=10", "", Erring, Duration::ZERO, 71, false),
            ("", "stale-if-error=10", Erring, Duration::ZERO, 70, true),
            ("", "no-cache", Away, month, 61, false),
            ("must-revalidate", "", Away, month, 61, false),
            ("proxy-revalidate", "", Away, month, 61, false),
            ("no-cache", "", Away, month, 61, false),
            ("s-maxage=60", "", Away, month, 61, false),
        ] {
            let may = may_excuse(&stored(response, 0), &asked(request), excuse, by_operator, at(now));
            assert_eq!(may, expected, "{response:?} {request:?} {excuse:?} {by_operator:?} {now}");
        }
    }
}
