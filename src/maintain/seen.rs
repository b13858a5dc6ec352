//! Which refs were seen among the files, for whoever looks for those that only the index knows.

use super::sorted::{Sorted, Sorter};
use super::{MaintainError, Upkeep};
use crate::model::{Digest, RefKey};

/// Bytes of what stands for a key.
const LEN: usize = 32;

/// Stands for a key in a set.
pub(super) fn key_digest(key: &RefKey) -> Digest {
    Digest::of(key.to_string().as_bytes())
}

/// Keys that are being noted.
#[derive(Debug)]
pub(super) struct Noting(Sorter<LEN>);

impl Noting {
    /// None yet.
    pub(super) fn new(at: Upkeep<'_>) -> Self {
        Self(Sorter::new(at))
    }

    /// Notes that the file of this key was seen.
    pub(super) fn note(&mut self, key: &RefKey) -> Result<(), MaintainError> {
        self.0.insert(*key_digest(key).as_bytes())
    }

    /// Ends it.
    pub(super) fn finish(self) -> Result<Seen, MaintainError> {
        Ok(Seen(self.0.finish()?))
    }
}

/// The keys that were noted.
#[derive(Debug)]
pub(super) struct Seen(Sorted<LEN>);

impl Seen {
    /// Those of a page that were not seen, in its order.
    pub(super) fn unseen(&mut self, page: Vec<RefKey>) -> Result<Vec<RefKey>, MaintainError> {
        let mut asked: Vec<_> = page.iter().map(|key| *key_digest(key).as_bytes()).zip(0_usize..).collect();
        // Asked for in their order, each block of the set is read once for a page.
        asked.sort_unstable();
        let mut is_seen = vec![false; page.len()];
        for (digest, place) in asked {
            is_seen[place] = self.0.contains(&digest)?;
        }
        Ok(page.into_iter().zip(is_seen).filter(|(_, is_seen)| !is_seen).map(|(key, _)| key).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintain::fixture::{Fixture, key};

    #[tokio::test]
    async fn of_a_page_the_keys_that_were_not_noted_are_left_in_their_order() {
        let fixture = Fixture::memory().await;
        let keys: Vec<_> = (0..500).map(|n| key(&format!("container/p/refs/{n}"))).collect();
        for buffer in [100, usize::MAX] {
            let mut noting = Noting::new(Upkeep { buffer, ..fixture.at() });
            for key in keys.iter().step_by(3) {
                noting.note(key).expect("noted");
            }
            let unseen = noting.finish().expect("finished").unseen(keys.clone()).expect("asked");
            let expected: Vec<_> =
                keys.iter().zip(0..).filter(|(_, n)| n % 3 != 0).map(|(key, _)| key).collect();
            assert_eq!(unseen.iter().collect::<Vec<_>>(), expected);
        }
    }
}
