//! gc, fsck, reindex: a plan made by reading, executed once.
//!
//! This module knows the store and the index. It must not know a protocol, upstream or the server:
//! what a document links is told by [`RefRules`] that it is handed as a value, and where they cannot
//! say it, nothing is deleted. Everything here runs beside a serving process; safety rests on the
//! order of steps that `docs/layout.md` describes, on no clock and no lock.

mod digests;
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
#[cfg(test)]
mod story;

pub use error::MaintainError;
pub use keeper::{Made, make_room};
pub use progress::{NoProgress, Progress, Step};
pub use reindex::{Rebuilt, reindex, survey};

use std::time::Duration;

use crate::index::Index;
use crate::model::{ArtifactType, Clock, RefRules, Timestamp};
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
}

/// What is left of a transfer that broke off is kept no longer than this for another to go on with.
const PARTIALS_KEPT: Duration = Duration::from_hours(24);

impl Upkeep<'_> {
    /// Since when partial files must have been left to stay: if unneeded content has a grace period, they have
    /// it too.
    fn partials_since(&self, grace: Duration) -> Timestamp {
        if grace.is_zero() {
            return Timestamp::MAX;
        }
        self.clock.now().checked_sub(grace.min(PARTIALS_KEPT)).unwrap_or(Timestamp::MIN)
    }
}

impl std::fmt::Debug for Upkeep<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upkeep")
            .field("store", &self.store)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}
