//! Executes a plan: expire, G3 reap, G4 condemn, G5 staging. Each step may be killed anywhere; the
//! next run does what is left.

use super::{Condemned, Plan};
use crate::maintain::links::links_of;
use crate::maintain::sorted::{Sorted, Sorter};
use crate::maintain::{BLOB, MaintainError, Step, Upkeep, blob_key};
use crate::model::{Ref, RefKey, Timestamp};

/// Rows that are forgotten in one transaction.
const FORGET_BATCH: usize = 500;

/// Blobs that are condemned at a time.
const CONDEMN_BATCH: usize = 64;

/// What was done. It may be less than was planned: somebody else may have been quicker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Refs deleted.
    pub expired: u64,
    /// Condemned blobs linked back.
    pub restored: u64,
    /// Condemned blobs removed.
    pub reaped: u64,
    /// Their bytes.
    pub reaped_bytes: u64,
    /// Blobs condemned.
    pub condemned: u64,
    /// Their bytes.
    pub condemned_bytes: u64,
    /// Files removed from `tmp/`.
    pub staging_files: u64,
    /// Their bytes.
    pub staging_bytes: u64,
}

/// Blobs that a ref needs which was fetched anew after it was planned to expire.
type Spared = Sorted<BLOB>;

/// Executes the plan of a run that began at `start`.
pub(super) async fn execute(at: Upkeep<'_>, plan: &Plan, start: Timestamp) -> Result<Tally, MaintainError> {
    let mut tally = Tally::default();
    let mut spared = expire(at, plan, start, &mut tally).await?;
    reap(at, plan, &mut spared, &mut tally).await?;
    condemn(at, plan, &mut spared, start, &mut tally).await?;
    (tally.staging_files, tally.staging_bytes) = at.store.reap_staging(plan.partials_since, false).await?;
    Ok(tally)
}

/// Deletes the refs that expire: index first, then file. One that was fetched anew meanwhile stays,
/// and so does what it needs. An error ends the run before anything is reaped: the plan's mark holds
/// only if every one of them is gone or spared.
async fn expire(
    at: Upkeep<'_>,
    plan: &Plan,
    start: Timestamp,
    tally: &mut Tally,
) -> Result<Spared, MaintainError> {
    at.progress.begin(Step::Expire, Some(plan.expire.len()));
    let mut spared = Sorter::new(at);
    let mut expired = plan.expire.iter();
    loop {
        let batch = expired.by_ref().take(FORGET_BATCH).collect::<Result<Vec<_>, _>>()?;
        if batch.is_empty() {
            return spared.finish();
        }
        let mut gone = Vec::with_capacity(batch.len());
        for expired in &batch {
            match at.store.read_ref(&expired.key).await? {
                Some(reference) if reference.fetched_at > start => {
                    spare(at, &expired.key, &reference, &mut spared).await?;
                }
                Some(_) => gone.push(expired.key.clone()),
                None => {}
            }
        }
        if let Some(index) = at.index {
            index.forget(&gone)?;
        }
        for key in &gone {
            tally.expired += u64::from(at.store.remove_ref(key).await?);
        }
        // Somebody may have read a file before it went, and written a row for it since.
        if let Some(index) = at.index {
            index.forget(&gone)?;
        }
        at.progress.advance(batch.len() as u64);
    }
}

async fn spare(
    at: Upkeep<'_>,
    key: &RefKey,
    reference: &Ref,
    spared: &mut Sorter<BLOB>,
) -> Result<(), MaintainError> {
    let artifact_type = key.proxy.artifact_type;
    let links = links_of(at.store, at.rules, artifact_type, reference)
        .await?
        .map_err(|why| MaintainError::UnknownLinks { path: key.to_string(), why })?;
    let mut needs = links.iter().map(|link| &link.digest).chain([&reference.target_digest]);
    needs.try_for_each(|digest| spared.insert(blob_key(artifact_type, digest)))
}

/// G3: of what was in the trash before the mark, and of nothing else, links back what is needed and
/// removes the rest for good.
async fn reap(
    at: Upkeep<'_>,
    plan: &Plan,
    spared: &mut Spared,
    tally: &mut Tally,
) -> Result<(), MaintainError> {
    at.progress.begin(Step::Reap, Some(plan.restore.len() + plan.reap.len()));
    for condemned in &plan.restore {
        let Condemned { artifact_type, entry } = condemned?;
        at.store.restore(artifact_type, &entry).await?;
        tally.restored += 1;
        at.progress.advance(1);
    }
    for condemned in &plan.reap {
        let Condemned { artifact_type, entry } = condemned?;
        if spared.contains(&blob_key(artifact_type, &entry.digest))? {
            at.store.restore(artifact_type, &entry).await?;
            tally.restored += 1;
        } else {
            at.store.reap(artifact_type, &entry).await?;
            tally.reaped += 1;
            tally.reaped_bytes += entry.size;
        }
        at.progress.advance(1);
    }
    Ok(())
}

/// G4: moves the blobs that no ref needs into the trash of this run.
async fn condemn(
    at: Upkeep<'_>,
    plan: &Plan,
    spared: &mut Spared,
    start: Timestamp,
    tally: &mut Tally,
) -> Result<(), MaintainError> {
    at.progress.begin(Step::Condemn, Some(plan.condemn.len()));
    let run = run_id(start);
    let mut doomed = plan.condemn.iter();
    loop {
        let batch = doomed.by_ref().take(CONDEMN_BATCH).collect::<Result<Vec<_>, _>>()?;
        if batch.is_empty() {
            return Ok(());
        }
        let planned = batch.len() as u64;
        let mut unneeded = Vec::with_capacity(batch.len());
        for blob in batch {
            if !spared.contains(&blob_key(blob.artifact_type, &blob.digest))? {
                unneeded.push(blob);
            }
        }
        let names: Vec<_> = unneeded.iter().map(|blob| (blob.artifact_type, blob.digest)).collect();
        let moved = at.store.condemn(&names, &run).await?;
        for (blob, _) in unneeded.iter().zip(moved).filter(|(_, moved)| *moved) {
            tally.condemned += 1;
            tally.condemned_bytes += blob.size;
        }
        at.progress.advance(planned);
    }
}

/// A name that no other run has: two runs must never share a directory of the trash. Only the
/// random part counts for that; the time is for people who look at the directory.
fn run_id(start: Timestamp) -> String {
    let millisecond = u64::try_from(start.as_millisecond()).unwrap_or(0);
    ulid::Ulid::from_parts(millisecond, ulid::Ulid::new().random()).to_string().to_lowercase()
}
