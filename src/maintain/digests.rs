//! A set of digests that stays small: 32 bytes each in one sorted vector, no table beside it.
//!
//! A million refs name some millions of digests, most of them more than once. Insertions collect
//! behind; when there is no more room, all is sorted and repeats go, and only then does the vector grow.
//! So memory is at most half more than the distinct digests take.

use std::cmp::Ordering;

use crate::model::{Digest, RefKey};

/// The least room for digests that wait to be sorted: keeps small sets from sorting all the time.
const MIN_UNSORTED: usize = 64 * 1024;

/// Digests being collected.
#[derive(Debug, Default)]
pub(super) struct Collector {
    digests: Vec<Digest>,
}

impl Collector {
    /// Adds a digest; it may be there already.
    pub(super) fn insert(&mut self, digest: Digest) {
        if self.digests.len() == self.digests.capacity() {
            self.compact();
            // Grows by half of what is distinct, not by doubling what is not.
            self.digests.reserve_exact((self.digests.len() / 2).max(MIN_UNSORTED));
        }
        self.digests.push(digest);
    }

    fn compact(&mut self) {
        self.digests.sort_unstable_by(compare);
        self.digests.dedup();
    }

    /// Ends the collection.
    pub(super) fn finish(mut self) -> Digests {
        self.compact();
        Digests(self.digests)
    }
}

/// The order of digests. Their first bytes nearly always decide it, and take one comparison of numbers.
fn compare(one: &Digest, other: &Digest) -> Ordering {
    let first = |digest: &Digest| digest.as_bytes().first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    first(one).cmp(&first(other)).then_with(|| one.cmp(other))
}

/// A finished set of digests.
#[derive(Debug, Default)]
pub(super) struct Digests(Vec<Digest>);

impl Digests {
    /// Whether the digest is in the set.
    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.0.binary_search_by(|found| compare(found, digest)).is_ok()
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Stands for a key in a set of those that were seen.
pub(super) fn key_digest(key: &RefKey) -> Digest {
    Digest::of(key.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_each_digest_once_and_takes_no_room_for_repeats() {
        let nth = |n: u32| Digest::of(&n.to_le_bytes());
        let mut collector = Collector::default();
        for n in 0..400_000 {
            collector.insert(nth(n % 50_000));
            assert!(collector.digests.capacity() <= 3 * MIN_UNSORTED);
        }
        let set = collector.finish();
        assert_eq!(set.len(), 50_000);
        assert!((0..50_000).all(|n| set.contains(&nth(n))));
        assert!(!set.contains(&nth(50_000)));
    }
}
