//! gc, fsck, reindex: a plan made by reading, executed once.
//!
//! This module knows the store and the index. It must not know a protocol, upstream or the server:
//! what a document links is told by [`RefRules`] that it is handed as a value, and where they cannot
//! say it, nothing is deleted. Everything here runs beside a serving process; safety rests on the
//! order of steps that `docs/layout.md` describes, on no clock and no lock.

mod error;
#[cfg(test)]
mod fixture;
pub mod fsck;
pub mod gc;
mod keeper;
mod links;
mod progress;
mod reindex;
pub mod results;
mod seen;
mod sorted;
mod spool;
#[cfg(test)]
mod story;

pub use error::MaintainError;
pub use keeper::{Made, make_room};
pub use progress::{NoProgress, Progress, Step};
pub use reindex::{Rebuilt, reindex, survey};
pub use spool::{Entries, Entry, Reader, Spool};

use std::time::Duration;

use crate::index::Index;
use crate::model::{ArtifactType, Clock, Digest, RefRules, Timestamp};
use crate::store::Store;

/// The rules of each type, as a value; `None` for a type whose dialect is not known here.
pub type Rules<'r> = &'r (dyn Fn(ArtifactType) -> Option<&'static dyn RefRules> + Send + Sync);

/// What upkeep works on and with.
#[derive(Clone, Copy)]
pub struct Upkeep<'u> {
    /// The files.
    pub store: &'u Store,
    /// The index, if there is one that can be used. Everything is right without it.
    pub index: Option<&'u Index>,
    /// What the dialects say about refs.
    pub rules: Rules<'u>,
    /// The time.
    pub clock: &'u dyn Clock,
    /// Who wants to know how far it is.
    pub progress: &'u dyn Progress,
    /// Bytes of memory for each set of names that has to be sorted, of which there are a few at a time; what does
    /// not fit goes into temporary files ([`Store::scratch`]). [`Upkeep::BUFFER`] but for tests.
    pub buffer: usize,
}

/// What is left of a transfer that broke off is kept no longer than this for another to go on with.
const PARTIALS_KEPT: Duration = Duration::from_hours(24);

impl Upkeep<'_> {
    /// Names of a quarter of a million blobs or refs.
    pub const BUFFER: usize = 8 << 20;

    /// Since when partial files must have been left to stay: if unneeded content has a grace period, they have
    /// it too.
    fn partials_since(&self, grace: Duration) -> Timestamp {
        if grace.is_zero() {
            return Timestamp::MAX;
        }
        self.clock.now().checked_sub(grace.min(PARTIALS_KEPT)).unwrap_or(Timestamp::MIN)
    }
}

/// Bytes of a [`blob_key`].
const BLOB: usize = 1 + 32;

/// A blob as the beginning of a record: types one after the other, and the names of each in their order, as the
/// store lists them.
fn blob_key(artifact_type: ArtifactType, digest: &Digest) -> [u8; BLOB] {
    joined(&[artifact_type as u8], digest.as_bytes())
}

/// Two parts of a record, one behind the other; they must fill it.
fn joined<const A: usize, const B: usize, const N: usize>(front: &[u8; A], back: &[u8; B]) -> [u8; N] {
    const { assert!(A + B == N, "the parts fill it") };
    let mut whole = [0; N];
    whole[..A].copy_from_slice(front);
    whole[A..].copy_from_slice(back);
    whole
}

impl std::fmt::Debug for Upkeep<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upkeep")
            .field("store", &self.store)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}
