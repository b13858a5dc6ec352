//! Executes what a finding names as its mend.
//!
//! Deletes in the order index, ref, blob: a crash in between leaves less than was found.

use super::finding::Mend;
use crate::maintain::reindex::record_of;
use crate::maintain::{MaintainError, PARTIALS_KEPT, Upkeep};
use crate::model::RefKey;

/// Mends once. What somebody else has mended meanwhile is no error.
pub(super) async fn mend(at: Upkeep<'_>, mend: Mend<'_>) -> Result<(), MaintainError> {
    match mend {
        Mend::Quarantine(artifact_type, digest) => {
            at.store.quarantine(artifact_type, digest).await?;
            Ok(())
        }
        Mend::SetAside(path, key) => {
            forget(at, key)?;
            let moved = at.store.set_aside(path).await?;
            if moved { Ok(()) } else { Err(MaintainError::Gone(path.to_owned())) }
        }
        Mend::Withdraw(key) => {
            forget(at, Some(key))?;
            at.store.remove_ref(key).await?;
            forget(at, Some(key))
        }
        Mend::Restore(artifact_type, digest) => {
            at.store.ensure_live(artifact_type, digest, None).await?;
            Ok(())
        }
        Mend::Record(key) => record(at, key).await,
        Mend::Forget(key) => forget(at, Some(key)),
        Mend::Clear => {
            at.store.reap_staging(at.partials_since(PARTIALS_KEPT), false).await?;
            Ok(())
        }
    }
}

fn forget(at: Upkeep<'_>, key: Option<&RefKey>) -> Result<(), MaintainError> {
    match (at.index, key) {
        (Some(index), Some(key)) => Ok(index.forget(std::slice::from_ref(key))?),
        _ => Ok(()),
    }
}

async fn record(at: Upkeep<'_>, key: &RefKey) -> Result<(), MaintainError> {
    let (Some(index), Some(reference)) = (at.index, at.store.read_ref(key).await?) else { return Ok(()) };
    let record = record_of(at.store, at.rules, key.clone(), reference).await?;
    Ok(index.record(&[record])?)
}
