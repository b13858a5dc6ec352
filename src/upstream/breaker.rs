//! Whether an upstream counts as down. A pure state machine: time is handed in, nothing waits here.
//!
//! Closed until a row of failures or a share of them; then open for a while, doubling; then one
//! probe decides. What was asked before it opened says nothing about how it is now, so only the
//! probe's outcome counts while it is not closed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::settings::BreakerLimits;

/// How finely the window is counted.
const SLICES: u32 = 10;

/// How long to wait for the outcome of somebody else's probe.
const PROBE_WAIT: Duration = Duration::from_secs(1);

/// The breaker of one host.
#[derive(Debug)]
pub(super) struct Breaker {
    limits: BreakerLimits,
    state: State,
    next_open: Duration,
    /// Whether what makes the probe fail that is under way may be over.
    is_outdated: bool,
    in_row: u32,
    /// Counts by slice of the window, oldest first; at most `SLICES + 1`.
    slices: VecDeque<Slice>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    Probing,
}

#[derive(Debug)]
struct Slice {
    begin: Instant,
    good: u32,
    bad: u32,
}

/// A request that was let through; its outcome is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pass {
    probe: bool,
}

impl Breaker {
    pub(super) fn new(limits: BreakerLimits) -> Self {
        Self {
            limits,
            state: State::Closed,
            next_open: limits.open,
            is_outdated: false,
            in_row: 0,
            slices: VecDeque::new(),
        }
    }

    /// How long to leave upstream alone; `None` if it may be asked.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Closed => None,
            State::Open { until } => until.checked_duration_since(now).filter(|left| !left.is_zero()),
            State::Probing => Some(PROBE_WAIT),
        }
    }

    /// Lets a request through, as the probe if it is time for one.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Pass, Duration> {
        if let Some(wait) = self.wait(now) {
            return Err(wait);
        }
        let probe = self.state != State::Closed;
        if probe {
            self.state = State::Probing;
            self.is_outdated = false;
        }
        Ok(Pass { probe })
    }

    /// Upstream answered, whatever it said.
    pub(super) fn succeeded(&mut self, pass: Pass, now: Instant) {
        if pass.probe {
            self.state = State::Closed;
            self.next_open = self.limits.open;
            self.slices.clear();
        }
        if self.state == State::Closed {
            self.in_row = 0;
            self.slice(now).good += 1;
        }
    }

    /// Upstream did not answer, or said that it is broken. True if the breaker opened by this.
    pub(super) fn failed(&mut self, pass: Pass, now: Instant) -> bool {
        if !pass.probe {
            if self.state != State::Closed {
                return false;
            }
            self.in_row += 1;
            self.slice(now).bad += 1;
            if !self.is_too_much() {
                return false;
            }
        }
        if pass.probe && self.is_outdated {
            self.state = State::Open { until: now };
            return false;
        }
        self.state = State::Open { until: now + self.next_open };
        self.next_open = (self.next_open * 2).min(self.limits.max_open);
        self.in_row = 0;
        self.slices.clear();
        true
    }

    /// The request ended before it had an outcome: the next one may probe.
    pub(super) fn abandoned(&mut self, pass: Pass, now: Instant) {
        if pass.probe {
            self.state = State::Open { until: now };
        }
    }

    /// What made it open may be over: the next request may probe, and a probe that is under way says nothing if it
    /// fails.
    pub(super) fn reconsider(&mut self, now: Instant) {
        self.next_open = self.limits.open;
        match &mut self.state {
            State::Closed => {}
            State::Open { until } => *until = now,
            State::Probing => self.is_outdated = true,
        }
    }

    fn is_too_much(&self) -> bool {
        let (good, bad) =
            self.slices.iter().fold((0, 0), |(good, bad), slice| (good + slice.good, bad + slice.bad));
        self.in_row >= self.limits.in_row
            || good + bad >= self.limits.at_least
                && f64::from(bad) >= self.limits.share * f64::from(good + bad)
    }

    fn slice(&mut self, now: Instant) -> &mut Slice {
        let (window, width) = (self.limits.window, self.limits.window / SLICES);
        self.slices.retain(|slice| now.saturating_duration_since(slice.begin) < window);
        let current =
            self.slices.back().is_some_and(|last| now.saturating_duration_since(last.begin) < width);
        if !current {
            self.slices.push_back(Slice { begin: now, good: 0, bad: 0 });
        }
        let last = self.slices.len() - 1;
        &mut self.slices[last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn fail(breaker: &mut Breaker, now: Instant) -> bool {
        let pass = breaker.admit(now).expect("let through");
        breaker.failed(pass, now)
    }

    fn succeed(breaker: &mut Breaker, now: Instant) {
        let pass = breaker.admit(now).expect("let through");
        breaker.succeeded(pass, now);
    }

    #[test]
    fn one_that_is_to_be_reconsidered_lets_one_request_through_at_once() {
        let start = Instant::now();
        let mut breaker = Breaker::new(BreakerLimits::default());
        breaker.reconsider(start);
        assert!((0..5).map(|_| fail(&mut breaker, start)).eq([false, false, false, false, true]));
        assert!(breaker.admit(start).is_err());
        breaker.reconsider(start);
        let probe = breaker.admit(start).expect("let through");
        assert!(breaker.admit(start).is_err(), "only one");
        breaker.reconsider(start);
        assert!(!breaker.failed(probe, start), "it began before");
        assert!(fail(&mut breaker, start), "the next one counts");
        assert_eq!(breaker.wait(start), Some(BreakerLimits::default().open), "as if for the first time");
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_a_success_between_does_not() {
        let start = Instant::now();
        let mut breaker = Breaker::new(BreakerLimits::default());
        for _ in 0..4 {
            assert!(!fail(&mut breaker, start));
        }
        succeed(&mut breaker, start);
        for _ in 0..4 {
            assert!(!fail(&mut breaker, start));
        }
        assert!(fail(&mut breaker, start));
        assert_eq!(breaker.wait(start + seconds(3)), Some(seconds(7)));
        assert_eq!(breaker.admit(start + seconds(9)), Err(seconds(1)));
    }

    #[test]
    fn half_of_twenty_within_the_window_open_it_and_what_is_older_does_not_count() {
        let start = Instant::now();
        let mut breaker = Breaker::new(BreakerLimits::default());
        for _ in 0..9 {
            succeed(&mut breaker, start);
            fail(&mut breaker, start);
        }
        succeed(&mut breaker, start);
        assert!(fail(&mut breaker, start + seconds(9)), "the twentieth");
        let mut breaker = Breaker::new(BreakerLimits::default());
        for _ in 0..9 {
            succeed(&mut breaker, start);
            fail(&mut breaker, start);
        }
        succeed(&mut breaker, start);
        assert!(!fail(&mut breaker, start + seconds(10)), "the others are forgotten");
    }

    #[test]
    fn one_probe_at_a_time_and_the_wait_doubles_up_to_its_limit() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(BreakerLimits::default());
        for _ in 0..5 {
            fail(&mut breaker, now);
        }
        for wait in [10, 20, 40, 80, 120, 120] {
            assert_eq!(breaker.wait(now), Some(seconds(wait)));
            now += seconds(wait);
            assert_eq!(breaker.wait(now), None);
            let probe = breaker.admit(now).expect("the probe");
            assert_eq!(breaker.admit(now), Err(PROBE_WAIT), "nobody beside it");
            assert!(breaker.failed(probe, now));
        }
        now += seconds(120);
        succeed(&mut breaker, now);
        for _ in 0..5 {
            fail(&mut breaker, now);
        }
        assert_eq!(breaker.wait(now), Some(seconds(10)), "it began anew");
    }

    #[test]
    fn a_probe_that_is_abandoned_leaves_room_for_the_next() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerLimits::default());
        for _ in 0..5 {
            fail(&mut breaker, now);
        }
        let later = now + seconds(10);
        let probe = breaker.admit(later).expect("the probe");
        breaker.abandoned(probe, later);
        assert!(breaker.admit(later).is_ok());
    }

    #[test]
    fn late_outcomes_of_earlier_requests_do_not_decide_for_the_probe() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerLimits::default());
        let early = breaker.admit(now).expect("let through");
        for _ in 0..5 {
            fail(&mut breaker, now);
        }
        breaker.succeeded(early, now + seconds(1));
        assert_eq!(breaker.wait(now + seconds(1)), Some(seconds(9)));
        breaker.admit(now + seconds(10)).expect("the probe");
        assert!(!breaker.failed(early, now + seconds(10)));
        assert_eq!(breaker.wait(now + seconds(10)), Some(PROBE_WAIT));
    }
}
