//! What the engine remembers for a short while so as not to ask upstream in vain. Bounded; lost on
//! restart without harm.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache as Bounded;

use crate::model::{Freshness, RefKey, Timestamp};

/// The most names that are remembered.
const MAX_NAMES: u64 = 100_000;
/// How long upstream's "not found" holds for a name that may appear at any time.
const ABSENT_NAME: Duration = Duration::from_mins(1);
/// The same for content named by its digest, which is often pushed right after somebody asked.
const ABSENT_CONTENT: Duration = Duration::from_secs(10);
/// How long answers of a name that were for one client alone keep the next client from waiting for
/// somebody else's.
const UNSHARED: Duration = Duration::from_mins(2);
/// How long a withdrawal is remembered: longer than a fetch lasts.
const WITHDRAWN: Duration = Duration::from_hours(24);
/// How long it is remembered that a name has gone on without the store: longer than a client takes from one
/// document to what it names.
const OVERTAKEN: Duration = Duration::from_hours(1);
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
            // Its own answer says how long it holds.
            Freshness::Upstream(_) => return,
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

    /// Forgets all of them, because what they came of may have been put right.
    pub(super) fn clear_all(&self) {
        self.0.invalidate_all();
    }

    /// Upstream answered again.
    pub(super) fn clear(&self, key: &RefKey) {
        self.0.invalidate(key);
    }
}

/// Names whose last answer was for one client alone: nobody waits for another's.
#[derive(Debug)]
pub(super) struct Unshared(Bounded<RefKey, Timestamp>);

impl Unshared {
    pub(super) fn new() -> Self {
        Self(bounded(UNSHARED))
    }

    /// Whether that was recently.
    pub(super) fn holds(&self, key: &RefKey, now: Timestamp) -> bool {
        self.0.get(key).is_some_and(|until| now < until)
    }

    /// Remembers it.
    pub(super) fn note(&self, key: &RefKey, now: Timestamp) {
        self.0.insert(key.clone(), now.saturating_add(UNSHARED).unwrap_or(now));
    }

    /// The answer is for everybody again.
    pub(super) fn clear(&self, key: &RefKey) {
        self.0.invalidate(key);
    }
}

/// Names that were withdrawn while a fetch of them may have been under way: what that brings does not count.
#[derive(Debug)]
pub(super) struct Withdrawals {
    /// The number of the last withdrawal of a name, and when it was.
    names: Bounded<RefKey, (u64, Timestamp)>,
    count: AtomicU64,
}

impl Withdrawals {
    pub(super) fn new() -> Self {
        Self { names: bounded(WITHDRAWN), count: AtomicU64::new(0) }
    }

    /// How many there were; what is withdrawn later has a greater number.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Notes one. To be called before the ref is removed, so that a fetch which finds none after it has
    /// published has published before the removal.
    pub(super) fn note(&self, key: &RefKey, now: Timestamp) {
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        self.names.insert(key.clone(), (number, now));
    }

    /// Whether a name was withdrawn since there were this many.
    pub(super) fn since(&self, count: u64, key: &RefKey) -> bool {
        self.count() > count && self.names.get(key).is_some_and(|(number, _)| number > count)
    }

    /// Whether what was fetched at a moment has been withdrawn since.
    pub(super) fn covers(&self, key: &RefKey, fetched_at: Timestamp) -> bool {
        self.count() > 0 && self.names.get(key).is_some_and(|(_, at)| fetched_at <= at)
    }
}

/// Names of which clients have been given a newer version than the one that is cached, because the store did not
/// take it.
#[derive(Debug)]
pub(super) struct Overtaken(Bounded<RefKey, Timestamp>);

impl Overtaken {
    pub(super) fn new() -> Self {
        Self(bounded(OVERTAKEN))
    }

    /// Remembers it.
    pub(super) fn note(&self, key: &RefKey, now: Timestamp) {
        self.0.insert(key.clone(), now);
    }

    /// Whether clients have been given a newer version than what was fetched at a moment.
    pub(super) fn covers(&self, key: &RefKey, fetched_at: Timestamp) -> bool {
        self.0.get(key).is_some_and(|at| fetched_at <= at)
    }
}

fn bounded<V: Clone + Send + Sync + 'static>(longest: Duration) -> Bounded<RefKey, V> {
    Bounded::builder().max_capacity(MAX_NAMES).time_to_live(longest).build()
}
