//! What the engine remembers for a short while so as not to ask upstream in vain. Bounded; lost on
//! restart without harm.

use std::time::Duration;

use moka::sync::Cache as Bounded;

use crate::model::{Freshness, RefKey, Timestamp};

/// The most names that are remembered.
const MAX_NAMES: u64 = 100_000;
/// How long upstream's "not found" holds for a name that may appear at any time.
const ABSENT_NAME: Duration = Duration::from_mins(1);
/// The same for content named by its digest, which is often pushed right after somebody asked.
const ABSENT_CONTENT: Duration = Duration::from_secs(10);
/// How long a failed revalidation keeps upstream from being asked about the same name again.
const DOUBT: Duration = Duration::from_secs(30);

/// Names that upstream said it does not have.
#[derive(Debug)]
pub(super) struct Absent(Bounded<RefKey, Timestamp>);

impl Absent {
    pub(super) fn new() -> Self {
        Self(bounded(ABSENT_NAME))
    }

    /// Whether upstream said no recently.
    pub(super) fn holds(&self, key: &RefKey, now: Timestamp) -> bool {
        self.0.get(key).is_some_and(|until| now < until)
    }

    /// Remembers upstream's no.
    pub(super) fn note(&self, key: &RefKey, freshness: Freshness, now: Timestamp) {
        let hold = match freshness {
            Freshness::Immutable => ABSENT_CONTENT,
            Freshness::For(ttl) => ttl.min(ABSENT_NAME),
        };
        self.0.insert(key.clone(), now.saturating_add(hold).unwrap_or(now));
    }

    /// Forgets a no that is no longer true.
    pub(super) fn clear(&self, key: &RefKey) {
        self.0.invalidate(key);
    }
}

/// Names whose last revalidation failed: cached content is served at once meanwhile.
#[derive(Debug)]
pub(super) struct Doubts(Bounded<RefKey, (Timestamp, &'static str)>);

impl Doubts {
    pub(super) fn new() -> Self {
        Self(bounded(DOUBT))
    }

    /// Why the last revalidation failed, if that was recently.
    pub(super) fn about(&self, key: &RefKey, now: Timestamp) -> Option<&'static str> {
        self.0.get(key).and_then(|(until, detail)| (now < until).then_some(detail))
    }

    /// Remembers a failure.
    pub(super) fn note(&self, key: &RefKey, detail: &'static str, now: Timestamp) {
        self.0.insert(key.clone(), (now.saturating_add(DOUBT).unwrap_or(now), detail));
    }

    /// Upstream answered again.
    pub(super) fn clear(&self, key: &RefKey) {
        self.0.invalidate(key);
    }
}

fn bounded<V: Clone + Send + Sync + 'static>(longest: Duration) -> Bounded<RefKey, V> {
    Bounded::builder().max_capacity(MAX_NAMES).time_to_live(longest).build()
}
