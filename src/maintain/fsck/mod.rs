//! fsck: what is not as it should be, and mending it.
//!
//! Findings are given away as they are found; nothing is kept but counts, and in bounded memory one hash a ref
//! and the names and sizes of blobs. Beside a serving process things change while they are looked at, so
//! every finding is looked at twice before it is one. Blobs come first, then refs, then rows: so with
//! `repair` a corrupt blob goes into quarantine, then the refs that target it go, then their rows, in one run.

mod blobs;
mod finding;
mod index;
mod mend;
mod refs;
mod share;
#[cfg(test)]
mod tests;

pub use finding::{Corruption, Finding, Level, Mend};
pub use share::{Share, ShareError};

use std::ops::ControlFlow;

use super::seen::Noting;
use super::sorted::{Growing, Sorted, Sorter};
use super::{BLOB, MaintainError, PARTIALS_KEPT, Upkeep};
use crate::index::Index;

/// What a run is asked to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether to mend what is found.
    pub repair: bool,
    /// The blobs whose bytes are read and hashed.
    pub read_data: Option<Share>,
}

/// What became of a finding.
#[derive(Debug)]
pub enum Outcome {
    /// It remains.
    Remains,
    /// It was mended.
    Mended,
    /// It could not be mended.
    Failed(MaintainError),
}

/// Takes the findings as they are found; a `Break` ends the run.
pub type Sink<'s> = &'s mut (dyn FnMut(&Finding, &Outcome) -> ControlFlow<()> + Send);

/// What a run saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Ref files.
    pub refs: u64,
    /// Live blobs.
    pub blobs: u64,
    /// Bytes that were read and hashed.
    pub bytes_read: u64,
    /// Whether the index was compared with the files: there is one, and it is complete.
    pub index_checked: bool,
    /// Findings that remain, by level.
    pub errors: u64,
    /// See [`Self::errors`].
    pub warnings: u64,
    /// See [`Self::errors`].
    pub notes: u64,
    /// Findings that were mended.
    pub mended: u64,
}

impl Report {
    /// Whether nothing remains that somebody should do something about. Notes do not count: they
    /// are what a crash or a moment in between may leave.
    pub const fn is_clean(&self) -> bool {
        self.errors == 0 && self.warnings == 0
    }
}

/// Looks at everything once, and mends what it finds if asked to.
///
/// # Errors
/// Whatever keeps it from looking, and [`MaintainError::Stopped`]; a failure to mend is an
/// [`Outcome`] instead.
pub async fn fsck(at: Upkeep<'_>, options: &Options, sink: Sink<'_>) -> Result<Report, MaintainError> {
    let mut check = check(at, *options, sink);
    check.blobs().await?;
    check.refs().await?;
    check.rows().await?;
    check.staging().await?;
    Ok(check.report)
}

fn check<'c>(at: Upkeep<'c>, options: Options, sink: Sink<'c>) -> Check<'c> {
    let index_checked = at.index.is_some_and(Index::is_complete);
    let report = Report { index_checked, ..Report::default() };
    Check {
        at,
        options,
        sink,
        report,
        corrupt: Growing::new(at),
        sizes: Sorter::new(at),
        live: Sorted::default(),
        seen: index_checked.then(|| Noting::new(at)),
    }
}

/// Bytes of a blob's name and size.
const SIZED: usize = BLOB + 8;

/// A run in progress.
struct Check<'c> {
    at: Upkeep<'c>,
    options: Options,
    sink: Sink<'c>,
    report: Report,
    /// Corrupt blobs that were told of, so that each is told of once.
    corrupt: Growing<BLOB>,
    /// The live blobs that could be opened, and their sizes, as they are found.
    sizes: Sorter<SIZED>,
    /// All of them: what most refs have to be compared with, without looking at the same blob once for each of
    /// them.
    live: Sorted<SIZED>,
    /// The refs that were seen, if the index is to be compared.
    seen: Option<Noting>,
}

impl Check<'_> {
    /// Takes a finding that was looked at twice: mends it if asked to, counts it, gives it away.
    /// Returns whether it was mended.
    async fn found(&mut self, finding: &Finding) -> Result<bool, MaintainError> {
        let outcome = if self.options.repair {
            mend::mend(self.at, finding.mend()).await.map_or_else(Outcome::Failed, |()| Outcome::Mended)
        } else {
            Outcome::Remains
        };
        let mended = matches!(outcome, Outcome::Mended);
        let count = match finding.level() {
            _ if mended => &mut self.report.mended,
            Level::Error => &mut self.report.errors,
            Level::Warning => &mut self.report.warnings,
            Level::Note => &mut self.report.notes,
        };
        *count += 1;
        match (self.sink)(finding, &outcome) {
            ControlFlow::Continue(()) => Ok(mended),
            ControlFlow::Break(()) => Err(MaintainError::Stopped),
        }
    }

    /// What processes that are gone left in `tmp/`, and partial files that are too old. Those of living
    /// processes are locked and not counted.
    async fn staging(&mut self) -> Result<(), MaintainError> {
        let (files, bytes) = self.at.store.reap_staging(self.at.partials_since(PARTIALS_KEPT), true).await?;
        if files > 0 {
            self.found(&Finding::Leftovers { files, bytes }).await?;
        }
        Ok(())
    }
}
