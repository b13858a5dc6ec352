//! Answers that are ready to go: headers made, bytes in memory or file open.
//!
//! The map is keyed by the request target as the client sent it, so that a hit parses nothing. It
//! is bounded in bytes and open files, and holds no truth: dropping it costs time and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use http::HeaderMap;
use moka::sync::Cache as Bounded;

use super::proof::Lent;
use super::uses::is_same_use;
use super::{Body, ProxyMeters};
use crate::model::{Heed, RefKey, Timestamp};

/// Bodies up to this size are kept in memory, larger ones as open files.
pub(super) const MAX_IN_MEMORY: u64 = 64 << 10;
/// The most files that are kept open for hot bodies.
const MAX_OPEN: u64 = 256;
/// What an entry is taken to cost beside its body: headers, key and bookkeeping.
const OVERHEAD: usize = 1024;
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

/// The hot map.
#[derive(Debug)]
pub(super) struct Hot {
    in_memory: Bounded<Arc<str>, Arc<Ready>>,
    open: Bounded<Arc<str>, Arc<Ready>>,
    off: bool,
}

impl Hot {
    /// A map that holds at most `max_bytes` of bodies and headers; none at all for zero.
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
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

    /// Keeps a ready answer.
    pub(super) fn keep(&self, target: &str, ready: Ready) {
        if self.off || target.len() > MAX_TARGET {
            return;
        }
        let map = if matches!(ready.body, ReadyBody::Memory(_)) { &self.in_memory } else { &self.open };
        map.insert(target.into(), Arc::new(ready));
    }

    /// Drops a ready answer.
    pub(super) fn forget(&self, target: &str) {
        self.in_memory.invalidate(target);
        self.open.invalidate(target);
    }

    /// Drops everything: the store has changed under it.
    pub(super) fn clear(&self) {
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
