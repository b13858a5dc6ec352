//! Last uses: noted in memory, flushed in batches, mirrored to the files now and then.
//!
//! A use never costs a write on the request's way. Uses less than [`RESOLUTION`] after the last one
//! that was flushed are not noted at all; what is noted when the process dies is lost, which makes
//! eviction a little less exact and nothing wrong.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

use jiff::SignedDuration;
use moka::sync::Cache as Bounded;

use crate::model::{RefKey, Timestamp};

/// Uses closer together than this are one use.
const RESOLUTION: SignedDuration = SignedDuration::from_mins(5);
/// How often a last use is mirrored into its ref file's mtime.
const MIRROR_EVERY: std::time::Duration = std::time::Duration::from_hours(1);
/// The most uses that wait to be flushed; more are dropped.
const MAX_PENDING: usize = 100_000;
/// The most refs whose last flush is remembered.
const MAX_REMEMBERED: u64 = 100_000;

#[derive(Debug)]
pub(super) struct Uses {
    pending: Mutex<HashMap<RefKey, Timestamp>>,
    flushed: Bounded<RefKey, Timestamp>,
    mirrored: Bounded<RefKey, ()>,
}

impl Uses {
    pub(super) fn new() -> Self {
        Self {
            pending: Mutex::default(),
            flushed: Bounded::new(MAX_REMEMBERED),
            mirrored: Bounded::builder().max_capacity(MAX_REMEMBERED).time_to_live(MIRROR_EVERY).build(),
        }
    }

    /// Notes a use.
    pub(super) fn note(&self, key: &RefKey, now: Timestamp) {
        if self.flushed.get(key).is_some_and(|last| is_same_use(last, now)) {
            return;
        }
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let room = pending.len() < MAX_PENDING;
        match pending.entry(key.clone()) {
            Entry::Occupied(mut last) => {
                last.insert(now);
            }
            Entry::Vacant(first) if room => {
                first.insert(now);
            }
            Entry::Vacant(_) => {}
        }
    }

    /// Takes what is to be flushed, sorted by key.
    pub(super) fn take(&self) -> Vec<(RefKey, Timestamp)> {
        let pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        let mut uses: Vec<_> = pending.into_iter().collect();
        uses.sort_unstable();
        for (key, at) in &uses {
            self.flushed.insert(key.clone(), *at);
        }
        uses
    }

    /// Every next use is noted, however soon after the last one: refs are about to be told apart by them.
    pub(super) fn renew(&self) {
        self.flushed.invalidate_all();
    }

    /// Whether a use should be mirrored to the file now; says yes at most once an hour for a ref.
    pub(super) fn should_mirror(&self, key: &RefKey) -> bool {
        self.mirrored.entry_by_ref(key).or_default().is_fresh()
    }
}

/// Whether two uses are too close together to be told apart.
pub(super) fn is_same_use(last: Timestamp, now: Timestamp) -> bool {
    last <= now && now.duration_since(last) < RESOLUTION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_within_five_minutes_of_a_flush_are_not_noted_again() {
        let uses = Uses::new();
        let key: RefKey = "container/hub/refs/library/alpine/tags/3".parse().expect("valid");
        let at = |seconds| Timestamp::from_second(seconds).expect("in range");
        uses.note(&key, at(0));
        uses.note(&key, at(10));
        assert_eq!(uses.take(), [(key.clone(), at(10))]);
        uses.note(&key, at(309));
        assert_eq!(uses.take(), []);
        uses.note(&key, at(310));
        assert_eq!(uses.take(), [(key.clone(), at(310))]);
        uses.renew();
        uses.note(&key, at(311));
        assert_eq!(uses.take(), [(key, at(311))]);
    }

    #[test]
    fn a_use_is_mirrored_once() {
        let uses = Uses::new();
        let key: RefKey = "container/hub/refs/library/alpine/tags/3".parse().expect("valid");
        assert!(uses.should_mirror(&key));
        assert!(!uses.should_mirror(&key));
    }
}
