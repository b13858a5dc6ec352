//! The plan: everything a run will do, found by reading alone.

use std::time::Duration;

use super::expiry::{Expired, Expiry};
use super::mark::{Marks, mark};
use super::{Options, Tally};
use crate::maintain::{MaintainError, Step, Upkeep};
use crate::model::{ArtifactType, Digest, Timestamp};
use crate::store::TrashEntry;

/// A live blob that no ref needs and whose grace is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    /// Its type.
    pub artifact_type: ArtifactType,
    /// Its name.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// What a run will do, in this order. Each list is in the order of the walk.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Ref files seen.
    pub refs: u64,
    /// Live blobs seen.
    pub blobs: u64,
    /// Bytes of live blobs.
    pub bytes: u64,
    /// Refs to delete.
    pub expire: Vec<Expired>,
    /// Condemned blobs that a ref needs again.
    pub restore: Vec<(ArtifactType, TrashEntry)>,
    /// Condemned blobs to remove for good.
    pub reap: Vec<(ArtifactType, TrashEntry)>,
    /// Live blobs to condemn.
    pub condemn: Vec<Doomed>,
    /// Since when partial files must have been left to stay.
    pub partials_since: Timestamp,
    /// Files in `tmp/` of processes that are gone, and partial files that are too old.
    pub staging_files: u64,
    /// Their bytes.
    pub staging_bytes: u64,
}

impl Plan {
    /// Bytes that will be condemned.
    pub fn condemned_bytes(&self) -> u64 {
        self.condemn.iter().map(|blob| blob.size).sum()
    }

    /// What is done if everything goes by the plan.
    pub fn tally(&self) -> Tally {
        Tally {
            expired: self.expire.len() as u64,
            restored: self.restore.len() as u64,
            reaped: self.reap.len() as u64,
            reaped_bytes: self.reap.iter().map(|(_, entry)| entry.size).sum(),
            condemned: self.condemn.len() as u64,
            condemned_bytes: self.condemned_bytes(),
            staging_files: self.staging_files,
            staging_bytes: self.staging_bytes,
        }
    }
}

/// Reads everything and decides. Changes nothing.
pub(super) async fn make(at: Upkeep<'_>, options: &Options, now: Timestamp) -> Result<Plan, MaintainError> {
    let expiry = Expiry::prepare(at, options, now).await?;
    let trash = list_trash(at).await?;
    let mut marks = mark(at, &expiry).await?;
    let (restore, reap) =
        trash.into_iter().partition(|(artifact_type, entry)| marks.contains(*artifact_type, &entry.digest));
    let expire = std::mem::take(&mut marks.expired);
    let mut plan = Plan { refs: marks.refs, expire, restore, reap, ..Plan::default() };
    choose_condemned(at, &marks, options.grace, now, &mut plan).await?;
    plan.partials_since = at.partials_since(options.grace);
    (plan.staging_files, plan.staging_bytes) = at.store.reap_staging(plan.partials_since, true).await?;
    Ok(plan)
}

/// G1: what earlier runs condemned. Must come before the mark: what another run condemns from now
/// on was judged by that run's mark, which may be older than a ref that this one sees.
async fn list_trash(at: Upkeep<'_>) -> Result<Vec<(ArtifactType, TrashEntry)>, MaintainError> {
    at.progress.begin(Step::ListTrash, None);
    let mut trash = Vec::new();
    for artifact_type in ArtifactType::ALL {
        let mut scan = at.store.scan_trash(artifact_type);
        while let Some(page) = scan.next_page().await {
            let page = page?;
            at.progress.advance(page.len() as u64);
            trash.extend(page.into_iter().map(|entry| (artifact_type, entry)));
        }
    }
    Ok(trash)
}

/// The live blobs that no ref needs and that were written before the grace period.
async fn choose_condemned(
    at: Upkeep<'_>,
    marks: &Marks,
    grace: Duration,
    now: Timestamp,
    plan: &mut Plan,
) -> Result<(), MaintainError> {
    at.progress.begin(Step::ListBlobs, None);
    for artifact_type in ArtifactType::ALL {
        let mut scan = at.store.scan_blobs(artifact_type);
        while let Some(page) = scan.next_page().await {
            let page = page?;
            at.progress.advance(page.len() as u64);
            for entry in page {
                // What is not a blob is fsck's to find.
                let Some(digest) = entry.digest else { continue };
                plan.blobs += 1;
                plan.bytes += entry.size;
                if !marks.contains(artifact_type, &digest) && is_over(entry.modified, grace, now) {
                    plan.condemn.push(Doomed { artifact_type, digest, size: entry.size });
                }
            }
        }
    }
    Ok(())
}

/// Whether a period that began at `since` is over. A period of no length always is; one that began
/// in the future never is, whichever clock was wrong.
pub(super) fn is_over(since: Timestamp, period: Duration, now: Timestamp) -> bool {
    period.is_zero() || Duration::try_from(now.duration_since(since)).is_ok_and(|age| age >= period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_that_began_in_the_future_is_not_over_unless_it_has_no_length() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("valid");
        let at = |seconds: i64| now + jiff::SignedDuration::from_secs(seconds);
        let hour = Duration::from_secs(3600);
        assert!(is_over(at(-3600), hour, now));
        assert!(!is_over(at(-3599), hour, now));
        assert!(!is_over(at(7200), hour, now));
        assert!(is_over(at(7200), Duration::ZERO, now));
    }
}
