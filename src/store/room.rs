//! Memory that several share: taken before it is used and given back afterwards, so that all together
//! never have more than a limit. Nobody waits for it; who gets none does without.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Room for so many bytes.
#[derive(Debug)]
pub(super) struct Room {
    taken: AtomicUsize,
    most: usize,
}

impl Room {
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
        let room = Room::new(10);
        assert!(room.take(6));
        assert!(!room.take(5));
        assert!(room.take(4));
        assert!(!room.take(usize::MAX));
        assert_eq!(room.taken(), 10);
        room.give_back(6);
        assert!(room.take(5));
        assert_eq!(room.taken(), 9);
    }
}
