//! gc: expire, then list, mark, reap, condemn (`docs/layout.md`, "Writers and gc").
//!
//! A blob that no ref needs goes after two runs: the first moves it to `trash/`, the second removes
//! it if it is still unneeded then. Writers look at their blob again after publishing a ref; with
//! that, no interleaving of writers, runs and crashes loses a blob that a ref needs, whatever the
//! clocks say and whether or not the lock works (`tests/gc_model.rs` checks all interleavings).
//!
//! A run first reads and makes a [`Plan`], then executes it once; a dry run stops in between. If it
//! is killed at any point, the next run does what is left.
//!
//! Why the plan may leave out of its mark the refs that it expires, although they are still there
//! while it reads: each of them is deleted before anything is reaped, or the run ends. Deleting a
//! ref is a reading of its place that finds it empty; so the mark is one reading of every place,
//! after the trash was listed and before it is reaped, which is all that the protocol asks.

mod execute;
mod expiry;
mod guard;
mod mark;
mod named;
mod plan;
#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use execute::Tally;
pub use expiry::{Expired, Reason};
pub use guard::Refusal;
pub use plan::{Condemned, Doomed, Plan};

use super::{MaintainError, Upkeep};

/// The lock that keeps two runs from doing the same work twice. Nothing is unsafe without it.
const LOCK: &str = "gc.lock";

/// What a run is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Blobs that were written more recently are not condemned. Zero asks nothing of the clock.
    pub grace: Duration,
    /// Refs that were not used for so long expire.
    pub unused_for: Option<Duration>,
    /// The least recently used refs expire until what the others need is at most so many bytes; before
    /// them those of content that no current catalogue of its proxy names any more.
    pub max_bytes: Option<u64>,
    /// Refs that were used no longer ago stay, whatever `max_bytes` says.
    pub in_use: Option<Duration>,
    /// Go on where a guard rail would refuse.
    pub force: bool,
    /// Go on although the clock has jumped since the last run.
    pub accept_clock: bool,
    /// Only plan.
    pub dry_run: bool,
}

impl Options {
    /// The grace period unless configured.
    pub const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
}

impl Default for Options {
    fn default() -> Self {
        Self {
            grace: Self::GRACE,
            unused_for: None,
            max_bytes: None,
            in_use: None,
            force: false,
            accept_clock: false,
            dry_run: false,
        }
    }
}

/// What a run did, or would do.
#[derive(Debug)]
pub struct Report {
    /// What the run set out to do; for a dry run, what the next run does if nothing changes.
    pub plan: Plan,
    /// The guard rail that a run without `force` or `accept_clock` does not pass.
    pub refusal: Option<Refusal>,
    /// What was done; `None` if nothing was touched: a dry run, or refused.
    pub done: Option<Tally>,
}

/// Runs gc once.
///
/// # Errors
/// [`MaintainError::Locked`] if another run is going on; the others end the run where it is.
/// [`MaintainError::UnreadableRef`] and [`MaintainError::UnknownLinks`] come before anything is
/// deleted.
pub async fn gc(at: Upkeep<'_>, options: &Options) -> Result<Report, MaintainError> {
    let _lock = if options.dry_run {
        None // Changes no byte, so it needs no turn and makes no lock file.
    } else {
        Some(at.store.lock(LOCK)?.ok_or(MaintainError::Locked(LOCK))?)
    };
    let now = at.clock.now();
    if let Some(refusal) = guard::clock(at.store, now).await?
        && !options.accept_clock
    {
        return Ok(Report { plan: Plan::nothing(at), refusal: Some(refusal), done: None });
    }
    let plan = plan::make(at, options, now).await?;
    let refusal = guard::share(&plan).filter(|_| !options.force);
    if options.dry_run || refusal.is_some() {
        return Ok(Report { plan, refusal, done: None });
    }
    guard::remember(at.store, now).await?;
    let done = execute::execute(at, &plan, now).await?;
    Ok(Report { plan, refusal: None, done: Some(done) })
}
