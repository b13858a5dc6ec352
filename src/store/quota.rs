//! A bound on memory that many share: so many bytes, taken before they are used and given back afterwards.
//!
//! Nobody waits here; who gets nothing does without.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Room for so many bytes.
#[derive(Debug)]
pub(super) struct Quota {
    taken: AtomicUsize,
    most: usize,
}

impl Quota {
    /// Room for `most` bytes, all free.
    pub(super) const fn new(most: usize) -> Self {
        Self { taken: AtomicUsize::new(0), most }
    }

    /// Takes room; false if there is not so much.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let more = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= self.most);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What is taken now.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_given_out_than_there_is_and_what_comes_back_is_given_out_again() {
        let quota = Quota::new(10);
        assert!(quota.take(6));
        assert!(!quota.take(5));
        assert!(quota.take(4));
        assert!(!quota.take(usize::MAX));
        assert_eq!(quota.taken(), 10);
        quota.give_back(6);
        assert!(quota.take(5));
        assert_eq!(quota.taken(), 9);
    }
}
