//! Guard rails: what a run does not do without being told so.
//!
//! They catch a wrong clock and a wrong configuration, whose effect would be a mass of deletions.
//! Nothing is unsafe without them: only cached content would go.

use std::time::Duration;

use super::Plan;
use crate::maintain::MaintainError;
use crate::model::Timestamp;
use crate::store::Store;

/// Where the start of the last run is kept.
const LAST_RUN: &str = "gc.last";
/// How far behind the last run's start the clock may be.
const MAX_BACK: Duration = Duration::from_secs(5 * 60);
/// How far ahead of the last run's start the clock may be.
const MAX_AHEAD: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Why a run does not go on by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The clock is before the last run's start, or long after it.
    #[error("the clock says {now}, but the last run began at {last}")]
    Clock {
        /// The last run's start.
        last: Timestamp,
        /// This run's.
        now: Timestamp,
    },
    /// More than half of all refs would expire.
    #[error("{expiring} of {total} refs would expire, more than half")]
    Refs {
        /// Refs that would expire.
        expiring: u64,
        /// All refs.
        total: u64,
    },
    /// More than half of all bytes would be condemned.
    #[error("{condemned} of {total} bytes would be condemned, more than half")]
    Bytes {
        /// Bytes that would be condemned.
        condemned: u64,
        /// All live bytes.
        total: u64,
    },
}

/// Whether the clock can be believed: not 5 minutes before the last run began, not 30 days after.
pub(super) async fn clock(store: &Store, now: Timestamp) -> Result<Option<Refusal>, MaintainError> {
    // A note that cannot be understood says nothing about the clock.
    let last = store.read_note(LAST_RUN).await?.and_then(|note| note.trim().parse::<Timestamp>().ok());
    Ok(last.filter(|last| !believable(*last, now)).map(|last| Refusal::Clock { last, now }))
}

fn believable(last: Timestamp, now: Timestamp) -> bool {
    let since = now.duration_since(last);
    match Duration::try_from(since) {
        Ok(ahead) => ahead <= MAX_AHEAD,
        Err(_) => since.unsigned_abs() <= MAX_BACK,
    }
}

/// Notes when this run began, for the next one to compare.
pub(super) async fn remember(store: &Store, now: Timestamp) -> Result<(), MaintainError> {
    Ok(store.write_note(LAST_RUN, &format!("{now}\n")).await?)
}

/// Whether the plan takes more than half of all refs or bytes.
pub(super) fn share(plan: &Plan) -> Option<Refusal> {
    let expiring = plan.expire.len();
    if expiring > plan.refs / 2 {
        return Some(Refusal::Refs { expiring, total: plan.refs });
    }
    let condemned = plan.condemn_bytes;
    (condemned > plan.bytes / 2).then_some(Refusal::Bytes { condemned, total: plan.bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_believed_from_five_minutes_before_to_thirty_days_after_the_last_run() {
        let last: Timestamp = "2026-01-01T00:00:00Z".parse().expect("valid");
        let at = |seconds: i64| last + jiff::SignedDuration::from_secs(seconds);
        for (seconds, expected) in
            [(0, true), (-300, true), (-301, false), (30 * 86_400, true), (30 * 86_400 + 1, false)]
        {
            assert_eq!(believable(last, at(seconds)), expected, "{seconds}");
        }
    }
}
