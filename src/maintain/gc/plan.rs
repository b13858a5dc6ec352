//! The plan: everything a run will do, found by reading alone.

use std::time::Duration;

use super::expiry::Expired;
use super::mark::read_refs;
use super::{Options, Tally};
use crate::maintain::spool::{self, Entry, Reader, Spool};
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

impl Entry for Doomed {
    fn write(&self, into: &mut Vec<u8>) {
        spool::put_type(into, self.artifact_type);
        into.extend_from_slice(self.digest.as_bytes());
        spool::put_number(into, self.size);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self { artifact_type: from.artifact_type()?, digest: from.digest()?, size: from.number()? })
    }
}

/// An entry of the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condemned {
    /// The type of the blob.
    pub artifact_type: ArtifactType,
    /// The entry.
    pub entry: TrashEntry,
}

impl Entry for Condemned {
    fn write(&self, into: &mut Vec<u8>) {
        spool::put_type(into, self.artifact_type);
        spool::put_text(into, &self.entry.run);
        into.extend_from_slice(self.entry.digest.as_bytes());
        spool::put_number(into, self.entry.size);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let (artifact_type, run) = (from.artifact_type()?, from.text()?.to_owned());
        let entry = TrashEntry { run, digest: from.digest()?, size: from.number()? };
        Some(Self { artifact_type, entry })
    }
}

/// A live blob.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) artifact_type: ArtifactType,
    pub(super) digest: Digest,
    pub(super) size: u64,
    modified: Timestamp,
}

impl Entry for Live {
    fn write(&self, into: &mut Vec<u8>) {
        spool::put_type(into, self.artifact_type);
        into.extend_from_slice(self.digest.as_bytes());
        spool::put_number(into, self.size);
        spool::put_time(into, self.modified);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let (artifact_type, digest) = (from.artifact_type()?, from.digest()?);
        Some(Self { artifact_type, digest, size: from.number()?, modified: from.time()? })
    }
}

/// What a run will do, in this order. Each list is in the order of the walk.
#[derive(Debug)]
pub struct Plan {
    /// Ref files seen.
    pub refs: u64,
    /// Live blobs seen.
    pub blobs: u64,
    /// Bytes of live blobs.
    pub bytes: u64,
    /// Refs to delete.
    pub expire: Spool<Expired>,
    /// Condemned blobs that a ref needs again.
    pub restore: Spool<Condemned>,
    /// Condemned blobs to remove for good.
    pub reap: Spool<Condemned>,
    /// Their bytes.
    pub reap_bytes: u64,
    /// Live blobs to condemn.
    pub condemn: Spool<Doomed>,
    /// Their bytes.
    pub condemn_bytes: u64,
    /// Since when partial files must have been left to stay.
    pub partials_since: Timestamp,
    /// Files in `tmp/` of processes that are gone, and partial files that are too old.
    pub staging_files: u64,
    /// Their bytes.
    pub staging_bytes: u64,
}

impl Plan {
    /// To do nothing.
    pub(super) fn nothing(at: Upkeep<'_>) -> Self {
        Self {
            refs: 0,
            blobs: 0,
            bytes: 0,
            expire: Spool::new(at),
            restore: Spool::new(at),
            reap: Spool::new(at),
            reap_bytes: 0,
            condemn: Spool::new(at),
            condemn_bytes: 0,
            partials_since: Timestamp::MIN,
            staging_files: 0,
            staging_bytes: 0,
        }
    }

    /// What is done if everything goes by the plan.
    pub fn tally(&self) -> Tally {
        Tally {
            expired: self.expire.len(),
            restored: self.restore.len(),
            reaped: self.reap.len(),
            reaped_bytes: self.reap_bytes,
            condemned: self.condemn.len(),
            condemned_bytes: self.condemn_bytes,
            staging_files: self.staging_files,
            staging_bytes: self.staging_bytes,
        }
    }
}

/// Reads everything once and decides. Changes nothing.
pub(super) async fn make(at: Upkeep<'_>, options: &Options, now: Timestamp) -> Result<Plan, MaintainError> {
    let trash = list_trash(at).await?;
    let reading = read_refs(at, options, now).await?;
    let mut plan = Plan::nothing(at);
    let blobs = list_blobs(at, &mut plan).await?;
    let mut marks = reading.decide(&blobs).await?;
    plan.refs = marks.refs;
    for condemned in &trash {
        let condemned = condemned?;
        if marks.contains(condemned.artifact_type, &condemned.entry.digest)? {
            plan.restore.push(&condemned)?;
        } else {
            plan.reap_bytes += condemned.entry.size;
            plan.reap.push(&condemned)?;
        }
    }
    for blob in &blobs {
        let Live { artifact_type, digest, size, modified } = blob?;
        if is_over(modified, options.grace, now) && !marks.contains(artifact_type, &digest)? {
            plan.condemn_bytes += size;
            plan.condemn.push(&Doomed { artifact_type, digest, size })?;
        }
    }
    plan.expire = marks.expired;
    plan.partials_since = at.partials_since(options.grace);
    (plan.staging_files, plan.staging_bytes) = at.store.reap_staging(plan.partials_since, true).await?;
    Ok(plan)
}

/// G1: what earlier runs condemned. Must come before the mark: what another run condemns from now
/// on was judged by that run's mark, which may be older than a ref that this one sees.
async fn list_trash(at: Upkeep<'_>) -> Result<Spool<Condemned>, MaintainError> {
    at.progress.begin(Step::ListTrash, None);
    let mut trash = Spool::new(at);
    for artifact_type in ArtifactType::ALL {
        let mut scan = at.store.scan_trash(artifact_type);
        while let Some(page) = scan.next_page().await {
            let page = page?;
            at.progress.advance(page.len() as u64);
            page.into_iter().try_for_each(|entry| trash.push(&Condemned { artifact_type, entry }))?;
        }
    }
    Ok(trash)
}

/// The live blobs.
async fn list_blobs(at: Upkeep<'_>, plan: &mut Plan) -> Result<Spool<Live>, MaintainError> {
    at.progress.begin(Step::ListBlobs, None);
    let mut blobs = Spool::new(at);
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
                blobs.push(&Live { artifact_type, digest, size: entry.size, modified: entry.modified })?;
            }
        }
    }
    Ok(blobs)
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
