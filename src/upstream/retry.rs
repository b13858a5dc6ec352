//! When to ask again: backoff, the budget for retries, pauses after a 429, and how slow is too slow.
//! All pure: time and chance are handed in.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use http::{HeaderMap, header};

use super::settings::Limits;

/// Retries that are free at first, and the most that can be saved up.
const BUDGET: f64 = 10.0;

/// The most identities whose pauses are remembered.
const MAX_PAUSES: usize = 256;

/// The wait before retry `retry` (from 0): it doubles each time, and `chance` (from 0 to 1) varies
/// it by half in both directions, so that clients that failed together do not return together.
pub(super) fn backoff(base: Duration, retry: u32, chance: f64) -> Duration {
    base.saturating_mul(1 << retry.min(10)).mul_f64(0.5 + chance.clamp(0.0, 1.0))
}

/// How many retries may still be made: each first try earns a share of one, so that retries never
/// become most of the load on an upstream that is in trouble.
#[derive(Debug)]
pub(super) struct Budget {
    saved: f64,
    share: f64,
}

impl Budget {
    pub(super) fn new(share: f64) -> Self {
        Self { saved: BUDGET, share }
    }

    /// A first try.
    pub(super) fn earn(&mut self) {
        self.saved = (self.saved + self.share).min(BUDGET);
    }

    /// A retry, if one may be made.
    pub(super) fn spend(&mut self) -> bool {
        let may = self.saved >= 1.0;
        if may {
            self.saved -= 1.0;
        }
        may
    }
}

/// How long a 429 asks to wait: `Retry-After` in seconds or as a date (RFC 9110, 10.2.3). A date is
/// measured against the answer's own `Date`, so that our clock does not matter.
fn pause(retry_after: Option<&str>, date: Option<&str>, limits: &Limits) -> Duration {
    let asked = retry_after.and_then(|text| {
        let text = text.trim();
        if !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()) {
            // More digits than fit are longer than any limit.
            return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
        }
        let until = httpdate::parse_http_date(text).ok()?;
        let now = httpdate::parse_http_date(date?).ok()?;
        Some(until.duration_since(now).unwrap_or(Duration::ZERO))
    });
    asked.unwrap_or(limits.pause).min(limits.max_pause)
}

/// The same, from an answer's headers.
pub(super) fn pause_of(headers: &HeaderMap, limits: &Limits) -> Duration {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    pause(text(header::RETRY_AFTER), text(header::DATE), limits)
}

/// Until when whom upstream wants to be left alone by.
#[derive(Debug)]
pub(super) struct Pauses<K>(HashMap<K, Instant>);

impl<K: Eq + Hash> Pauses<K> {
    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    /// What is left of a pause.
    pub(super) fn left(&self, who: &K, now: Instant) -> Option<Duration> {
        let until = self.0.get(who)?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Begins a pause, or makes one longer; never shorter.
    pub(super) fn extend(&mut self, who: K, pause: Duration, now: Instant) {
        self.0.retain(|_, until| *until > now);
        if self.0.len() >= MAX_PAUSES {
            self.0.clear();
        }
        let until = self.0.entry(who).or_insert(now);
        *until = (*until).max(now + pause);
    }
}

/// Whether a body comes too slowly. Only the time spent waiting for upstream counts, so that a slow
/// reader on our side is not held against it.
#[derive(Debug)]
pub(super) struct Pace {
    window: Duration,
    min_rate: u64,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { window: limits.rate_window, min_rate: limits.min_rate, waited: Duration::ZERO, bytes: 0 }
    }

    /// Notes a wait and what it brought; false if that is too slow by now.
    pub(super) fn keep_up(&mut self, waited: Duration, bytes: u64) -> bool {
        self.waited += waited;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.waited < self.window {
            return true;
        }
        let enough = self.bytes >= self.min_rate.saturating_mul(self.waited.as_secs().max(1));
        self.waited = Duration::ZERO;
        self.bytes = 0;
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn waits_double_and_vary_by_half() {
        let base = Duration::from_millis(250);
        for (retry, middle) in [(0, 250), (1, 500), (2, 1000)] {
            assert_eq!(backoff(base, retry, 0.0), Duration::from_millis(middle / 2));
            assert_eq!(backoff(base, retry, 0.5), Duration::from_millis(middle));
            assert_eq!(backoff(base, retry, 1.0), Duration::from_millis(middle * 3 / 2));
        }
        assert_eq!(backoff(base, u32::MAX, 0.5), base * 1024, "bounded");
    }

    #[test]
    fn retries_are_a_share_of_requests_once_the_first_are_spent() {
        let mut budget = Budget::new(0.2);
        let spent = (0..100).filter(|_| budget.spend()).count();
        assert_eq!(spent, 10);
        let mut retries = 0;
        for _ in 0..100 {
            budget.earn();
            retries += usize::from(budget.spend());
        }
        assert!((19..=20).contains(&retries), "{retries}");
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let limits = Limits::default();
        let date = Some("Sun, 09 Nov 2025 12:00:00 GMT");
        for (text, expect) in [
            (Some("120"), 120),
            (Some(" 1 "), 1),
            (Some("0"), 0),
            (Some("86400"), 600),
            (Some("99999999999999999999999"), 600),
            (Some("Sun, 09 Nov 2025 12:01:00 GMT"), 60),
            (Some("Sun, 09 Nov 2025 11:00:00 GMT"), 0),
            (Some("Fri, 09 Nov 2035 11:00:00 GMT"), 600),
            (Some("soon"), 10),
            (Some("-5"), 10),
            (Some("1.5"), 10),
            (Some(""), 10),
            (None, 10),
        ] {
            assert_eq!(pause(text, date, &limits), seconds(expect), "{text:?}");
        }
        assert_eq!(pause(Some("Sun, 09 Nov 2025 12:01:00 GMT"), None, &limits), seconds(10));
    }

    #[test]
    fn the_longest_pause_wins_and_each_identity_has_its_own() {
        let now = Instant::now();
        let mut pauses = Pauses::new();
        pauses.extend("me", seconds(120), now);
        pauses.extend("me", seconds(10), now);
        assert_eq!(pauses.left(&"me", now + seconds(20)), Some(seconds(100)));
        assert_eq!(pauses.left(&"you", now), None);
        assert_eq!(pauses.left(&"me", now + seconds(120)), None);
    }

    #[test]
    fn a_trickle_is_too_slow_after_a_window_and_a_slow_reader_is_not() {
        let mut pace = Pace::new(&Limits::default());
        assert!(pace.keep_up(seconds(20), 1));
        assert!(pace.keep_up(seconds(20), 1));
        assert!(!pace.keep_up(seconds(20), 1));
        let mut pace = Pace::new(&Limits::default());
        for _ in 0..1000 {
            assert!(pace.keep_up(seconds(20), 20 * 1024));
        }
    }
}
