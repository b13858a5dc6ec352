//! Answers that are ready to go: headers made, bytes in memory or file open.
//!
//! The map is keyed by the request target as the client sent it, so that a hit parses nothing. It
//! is bounded in bytes and open files, and holds no truth: dropping it costs time and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use moka::sync::Cache as Bounded;

use super::proof::Lent;
use super::uses::is_same_use;
use super::variants::varies;
use super::{Body, Cache, Outcome, ProxyMeters, Served};
use crate::model::http_cache::RequestDirectives;
use crate::model::{Heed, RefKey, Resource, Timestamp};

/// Bodies up to this size are kept in memory, larger ones as open files.
pub(super) const MAX_IN_MEMORY: u64 = 64 << 10;
/// The most files that are kept open for hot bodies.
const MAX_OPEN: u64 = 256;
/// What an entry is taken to cost beside its body: headers, key and bookkeeping.
const OVERHEAD: usize = 1024;
/// How long a ready answer may be used before its blob is opened anew.
const READY_HOLDS: Duration = Duration::from_hours(24);
/// Targets longer than this are not kept.
const MAX_TARGET: usize = 2048;

/// A ready answer.
#[derive(Debug)]
pub struct Ready {
    /// All headers but `Age` and `Cache-Status`.
    pub headers: HeaderMap,
    /// The bytes.
    pub body: ReadyBody,
    /// Since when it has aged: when upstream confirmed it, or earlier if it came aged.
    pub fetched_at: Timestamp,
    /// The proxy's counters.
    pub meters: Arc<ProxyMeters>,
    /// How much of what a client says of caching counts.
    pub(super) heed: Heed,
    pub(super) fresh_until: Timestamp,
    pub(super) used: RefKey,
    noted_at: AtomicI64,
}

/// The bytes of a ready answer.
#[derive(Debug, Clone)]
pub enum ReadyBody {
    /// In memory.
    Memory(Bytes),
    /// In an open file.
    Blob(Lent),
}

impl Ready {
    pub(super) fn new(
        headers: HeaderMap,
        body: ReadyBody,
        fetched_at: Timestamp,
        fresh_until: Timestamp,
        used: RefKey,
        meters: Arc<ProxyMeters>,
    ) -> Self {
        let noted_at = AtomicI64::new(fetched_at.as_second());
        Self { headers, body, fetched_at, meters, heed: Heed::Nothing, fresh_until, used, noted_at }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        match &self.body {
            ReadyBody::Memory(bytes) => bytes.len() as u64,
            ReadyBody::Blob(lent) => lent.blob().size(),
        }
    }

    /// The bytes as a body.
    pub fn body(&self) -> Body {
        match &self.body {
            ReadyBody::Memory(bytes) => Body::Memory(bytes.clone()),
            ReadyBody::Blob(lent) => Body::Blob(lent.clone()),
        }
    }

    /// Whether this use is to be noted: the first in a while.
    pub(super) fn should_note(&self, now: Timestamp) -> bool {
        let last = self.noted_at.load(Ordering::Relaxed);
        let same = Timestamp::from_second(last).is_ok_and(|last| is_same_use(last, now));
        !same
            && self
                .noted_at
                .compare_exchange(last, now.as_second(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Whether the open file is still what it was.
    fn is_whole(&self) -> bool {
        match &self.body {
            ReadyBody::Memory(_) => true,
            ReadyBody::Blob(lent) => lent.is_whole(),
        }
    }
}

/// A time between two clearings of the hot map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Era(u64);

/// The hot map.
#[derive(Debug)]
pub(super) struct Hot {
    era: AtomicU64,
    in_memory: Bounded<Arc<str>, Arc<Ready>>,
    open: Bounded<Arc<str>, Arc<Ready>>,
    off: bool,
}

impl Hot {
    /// A map that holds at most `max_bytes` of bodies and headers; none at all for zero.
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            era: AtomicU64::new(0),
            in_memory: Bounded::builder()
                .weigher(|target: &Arc<str>, ready: &Arc<Ready>| weight(target, ready))
                .max_capacity(max_bytes)
                .build(),
            open: Bounded::new(MAX_OPEN),
            off: max_bytes == 0,
        }
    }

    /// The ready answer for a target, if it may be used now.
    pub(super) fn get(&self, target: &str, now: Timestamp) -> Option<Arc<Ready>> {
        if self.off {
            return None;
        }
        let ready = self.in_memory.get(target).or_else(|| self.open.get(target))?;
        if now < ready.fresh_until && ready.fetched_at <= now && ready.is_whole() {
            return Some(ready);
        }
        self.forget(target);
        None
    }

    /// Whether it holds nothing, ever.
    pub(super) const fn is_off(&self) -> bool {
        self.off
    }

    /// The present era.
    pub(super) fn era(&self) -> Era {
        Era(self.era.load(Ordering::Acquire))
    }

    /// Keeps a ready answer that was looked for in this era: what was read before a clearing is what the clearing was for.
    pub(super) fn keep(&self, era: Era, target: &str, ready: Ready) {
        if self.off || target.len() > MAX_TARGET {
            return;
        }
        let map = if matches!(ready.body, ReadyBody::Memory(_)) { &self.in_memory } else { &self.open };
        map.insert(target.into(), Arc::new(ready));
        // Asked last: a clearing that begins now finds it.
        if self.era() != era {
            self.forget(target);
        }
    }

    /// Drops a ready answer.
    pub(super) fn forget(&self, target: &str) {
        self.in_memory.invalidate(target);
        self.open.invalidate(target);
    }

    /// Drops everything: the store has changed under it.
    pub(super) fn clear(&self) {
        self.era.fetch_add(1, Ordering::AcqRel);
        self.in_memory.invalidate_all();
        self.open.invalidate_all();
    }
}

/// What an entry costs, in bytes.
fn weight(target: &str, ready: &Ready) -> u32 {
    let body = match &ready.body {
        ReadyBody::Memory(bytes) => bytes.len(),
        ReadyBody::Blob(_) => 0,
    };
    u32::try_from(target.len() + body + OVERHEAD).unwrap_or(u32::MAX)
}

impl Cache {
    /// A ready answer for a request target (path and query as sent), if it is hot and fresh; `directed` are
    /// the header fields of a request that has something to say of caching, which some answers must heed.
    pub fn ready(&self, target: &str, directed: Option<&HeaderMap>) -> Option<Arc<Ready>> {
        let now = self.clock.now();
        let ready = self.hot.get(target, now)?;
        if let Some(headers) = directed.filter(|_| ready.heed != Heed::Nothing)
            && ready.heed.of(RequestDirectives::of(headers)) != RequestDirectives::default()
        {
            // It may be replaced by what is answered instead.
            self.hot.forget(target);
            return None;
        }
        if ready.should_note(now) {
            self.uses.note(&ready.used, now);
        }
        ready.meters.served(Outcome::Hit);
        Some(ready)
    }

    /// Keeps a ready answer for a request target; `headers` are all but `Age` and `Cache-Status`.
    /// Only content whose bytes are in the store, and that any request for the target may have, is kept;
    /// other answers are ignored.
    pub fn keep_ready(
        &self,
        era: Era,
        target: &str,
        resource: &Resource,
        served: &Served,
        headers: &HeaderMap,
    ) {
        if self.hot.is_off() {
            return;
        }
        let body = match &served.body {
            Body::Memory(bytes) if served.size == Some(bytes.len() as u64) => {
                ReadyBody::Memory(bytes.clone())
            }
            Body::Blob(lent) if !lent.is_unproved() => ReadyBody::Blob(lent.clone()),
            Body::Memory(_) | Body::Blob(_) | Body::Following(_) | Body::Passing(_) => return,
        };
        let reference = &served.reference;
        let is_special = varies(reference) || reference.status() != 200;
        if matches!(served.outcome, Outcome::Stale | Outcome::Passed) || is_special {
            return;
        }
        let fresh_until = reference.ttl_seconds.map_or(Timestamp::MAX, |ttl| {
            reference.fetched_at.saturating_add(Duration::from_secs(ttl)).unwrap_or(Timestamp::MAX)
        });
        let opened_until = self.clock.now().saturating_add(READY_HOLDS).unwrap_or(Timestamp::MAX);
        let fresh_until = fresh_until.min(opened_until);
        let (used, meters) = (served.used.clone(), Arc::clone(&served.meters));
        // What it was old when it came counts as time that has passed since.
        let came_aged = Duration::from_secs(reference.http.as_ref().map_or(0, |http| http.age_seconds));
        let made_at = reference.fetched_at.saturating_sub(came_aged).unwrap_or(reference.fetched_at);
        let mut ready = Ready::new(headers.clone(), body, made_at, fresh_until, used, meters);
        ready.heed = resource.asked.heed;
        self.hot.keep(era, target, ready);
    }

    /// What [`Self::keep_ready`] is to be told of an answer that is looked for from now on.
    pub fn era(&self) -> Era {
        self.hot.era()
    }

    /// Drops all ready answers, because another process has taken something away.
    pub fn drop_ready(&self) {
        self.hot.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::proof::Proofs;
    use super::*;
    use crate::model::{ArtifactType, Digest, SystemClock};
    use crate::store::Store;

    /// Enough for every test that is not about the bound.
    const ROOM: u64 = 1 << 20;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    /// Fetched at 10, fresh until 20.
    fn ready(body: ReadyBody) -> Ready {
        let used: RefKey = "container/hub/refs/library/app/tags/1".parse().expect("valid");
        let meters = Arc::new(ProxyMeters::new(&used.proxy));
        Ready::new(HeaderMap::new(), body, at(10), at(20), used, meters)
    }

    fn bytes(len: usize) -> ReadyBody {
        ReadyBody::Memory(vec![0; len].into())
    }

    /// An open blob.
    async fn open_blob() -> ReadyBody {
        let store = Arc::new(Store::create("mem://").await.expect("a root"));
        let used: RefKey = "container/hub/refs/a".parse().expect("valid");
        let mut staged = store.stage(&used.proxy, None, &[]).await;
        staged.write("open".into()).await.expect("written");
        staged.seal(&[]).await.expect("sealed").publish().await.expect("published");
        let (container, digest) = (ArtifactType::Container, Digest::of(b"open"));
        let blob = store.open_blob(container, &digest, None).expect("opens").expect("it is there");
        let proofs = Arc::new(Proofs::new(store, Arc::new(SystemClock), Timestamp::MIN));
        ReadyBody::Blob(proofs.lend(container, digest, &blob))
    }

    /// How many of these targets are hot.
    fn count(hot: &Hot, targets: u64) -> u64 {
        hot.in_memory.run_pending_tasks();
        hot.open.run_pending_tasks();
        (0..targets).filter(|n| hot.get(&n.to_string(), at(15)).is_some()).count() as u64
    }

    #[test]
    fn bodies_and_what_goes_with_them_stay_within_the_bound() {
        let each = 10_000 + OVERHEAD as u64;
        let hot = Hot::new(5 * each);
        for n in 0..50 {
            hot.keep(hot.era(), &n.to_string(), ready(bytes(10_000)));
        }
        let kept = count(&hot, 50);
        assert!((1..=4).contains(&kept), "{kept}: the targets count too");
        assert!(hot.in_memory.weighted_size() <= 5 * each);
        hot.keep(hot.era(), "large", ready(bytes(60_000)));
        hot.in_memory.run_pending_tasks();
        assert!(hot.get("large", at(15)).is_none(), "larger than all the room there is");
        assert!(hot.in_memory.weighted_size() <= 5 * each);
    }

    #[tokio::test]
    async fn so_many_files_are_kept_open_and_no_more_whatever_room_there_is_in_memory() {
        let hot = Hot::new(ROOM);
        let open = open_blob().await;
        for n in 0..MAX_OPEN + 50 {
            hot.keep(hot.era(), &n.to_string(), ready(open.clone()));
        }
        assert_eq!(count(&hot, MAX_OPEN + 50), MAX_OPEN);
        assert_eq!(hot.in_memory.entry_count(), 0);
        hot.keep(hot.era(), "in memory", ready(bytes(10)));
        assert!(hot.get("in memory", at(15)).is_some());
    }

    #[tokio::test]
    async fn clearing_drops_what_is_in_memory_and_what_is_open_and_what_comes_later_stays() {
        let hot = Hot::new(ROOM);
        hot.keep(hot.era(), "memory", ready(bytes(10)));
        hot.keep(hot.era(), "open", ready(open_blob().await));
        assert!(["memory", "open"].iter().all(|target| hot.get(target, at(15)).is_some()));
        let before = hot.era();
        hot.clear();
        assert!(["memory", "open"].iter().all(|target| hot.get(target, at(15)).is_none()));
        hot.keep(before, "memory", ready(bytes(10)));
        assert!(hot.get("memory", at(15)).is_none(), "it was read before");
        hot.keep(hot.era(), "memory", ready(bytes(10)));
        assert!(hot.get("memory", at(15)).is_some());
    }

    #[test]
    fn an_answer_is_ready_from_when_it_was_fetched_until_it_is_past_its_time_and_then_gone() {
        for (asked, expected) in [(9, false), (10, true), (19, true), (20, false)] {
            let hot = Hot::new(ROOM);
            hot.keep(hot.era(), "a", ready(bytes(10)));
            assert_eq!(hot.get("a", at(asked)).is_some(), expected, "at {asked}");
            assert_eq!(hot.get("a", at(15)).is_some(), expected, "forgotten if it was not at {asked}");
        }
    }

    #[test]
    fn without_room_and_for_long_targets_nothing_is_kept() {
        let (off, on) = (Hot::new(0), Hot::new(ROOM));
        off.keep(off.era(), "a", ready(bytes(10)));
        assert!(off.is_off() && off.get("a", at(15)).is_none());
        for (length, kept) in [(MAX_TARGET, true), (MAX_TARGET + 1, false)] {
            let target = "x".repeat(length);
            on.keep(on.era(), &target, ready(bytes(10)));
            assert_eq!(on.get(&target, at(15)).is_some(), kept, "{length}");
        }
    }
}
