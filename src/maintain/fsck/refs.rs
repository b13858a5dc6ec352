//! The refs: whether each can be read, is in its place, has its target, and is in the index.

use super::blobs::{Inspected, inspect};
use super::{Check, Finding, Mend};
use crate::maintain::links::links_of;
use crate::maintain::{MaintainError, Step, blob_key, joined};
use crate::model::{Ref, RefKey};
use crate::store::{RefEntry, StoreError};

/// What is seen of a ref's target without reading it.
enum Target {
    Right,
    Wrong(Finding),
    /// It is there, but cannot be opened or has another size than the ref states: the blob or the
    /// ref is wrong, and its bytes tell which.
    Doubtful,
}

impl Check<'_> {
    /// Looks at every ref file.
    pub(super) async fn refs(&mut self) -> Result<(), MaintainError> {
        self.at.progress.begin(Step::CheckRefs, None);
        for proxy in self.at.store.proxies().await? {
            let mut scan = self.at.store.scan_refs(&proxy);
            while let Some(page) = scan.next_page().await {
                let page = page?;
                self.report.refs += page.len() as u64;
                self.at.progress.advance(page.len() as u64);
                let rows = self.rows_of(&page)?;
                for (entry, row) in page.into_iter().zip(rows) {
                    self.entry(entry, row).await?;
                }
            }
        }
        Ok(())
    }

    /// What the index says of the refs of a page, if it is to be compared.
    fn rows_of(&self, page: &[RefEntry]) -> Result<Vec<Option<Ref>>, MaintainError> {
        let Some(index) = self.at.index.filter(|_| self.report.index_checked) else {
            return Ok(vec![None; page.len()]);
        };
        let mut rows = index.lookup_all(page.iter().filter_map(|entry| entry.key.as_ref()))?.into_iter();
        Ok(page.iter().map(|entry| entry.key.as_ref().and_then(|_| rows.next().flatten())).collect())
    }

    async fn entry(&mut self, entry: RefEntry, row: Option<Ref>) -> Result<(), MaintainError> {
        let RefEntry { path, key, reference, .. } = entry;
        if let (Some(key), Some(seen)) = (&key, &mut self.seen) {
            seen.note(key)?;
        }
        match (key, reference) {
            (Some(key), Ok(reference)) => self.reference(&key, reference, row).await,
            (None, Ok(_)) => {
                self.found(&Finding::MisplacedRef { path }).await?;
                Ok(())
            }
            (key, Err(error)) => {
                // A ref is published whole, but it may have been replaced or deleted meanwhile.
                let still = match &key {
                    Some(key) => matches!(self.at.store.read_ref(key).await, Err(StoreError::BadRef { .. })),
                    None => true,
                };
                if still {
                    let why = match error {
                        StoreError::BadRef { why, .. } => why,
                        other => other.to_string(),
                    };
                    self.found(&Finding::UnreadableRef { path, key, why }).await?;
                }
                Ok(())
            }
        }
    }

    /// Looks at a ref of which the index says `row`.
    pub(super) async fn reference(
        &mut self,
        key: &RefKey,
        first: Ref,
        row: Option<Ref>,
    ) -> Result<(), MaintainError> {
        if self.suspects(key, &first, row).await? {
            // Looked at again: what has changed meanwhile is no finding.
            match self.at.store.read_ref(key).await {
                Ok(Some(again)) => self.report_ref(key, &again).await?,
                Ok(None) | Err(StoreError::BadRef { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether anything seems wrong at first sight.
    pub(super) async fn suspects(
        &mut self,
        key: &RefKey,
        reference: &Ref,
        row: Option<Ref>,
    ) -> Result<bool, MaintainError> {
        let blob = blob_key(key.proxy.artifact_type, &reference.target_digest);
        let sized = joined(&blob, &reference.size.to_be_bytes());
        let seen = self.live.contains(&sized)? && !self.corrupt.contains(&blob)?;
        Ok(!(seen || matches!(self.target(key, reference).await?, Target::Right))
            || self.links(key, reference).await?.is_some()
            || (self.report.index_checked && disagreement(key, reference, row).is_some()))
    }

    /// Tells of what is wrong.
    async fn report_ref(&mut self, key: &RefKey, reference: &Ref) -> Result<(), MaintainError> {
        let mut target = self.target(key, reference).await?;
        if matches!(target, Target::Doubtful) {
            target = self.read_target(key, reference).await?;
        }
        if let Target::Wrong(finding) = target {
            let withdraws = matches!(finding.mend(), Mend::Withdraw(_));
            if self.found(&finding).await? && withdraws {
                return Ok(());
            }
        }
        if let Some(finding) = self.links(key, reference).await?
            && self.found(&finding).await?
        {
            return Ok(());
        }
        if let Some(finding) = self.row(key, reference)? {
            self.found(&finding).await?;
        }
        Ok(())
    }

    async fn target(&self, key: &RefKey, reference: &Ref) -> Result<Target, MaintainError> {
        let (artifact_type, digest) = (key.proxy.artifact_type, reference.target_digest);
        Ok(match self.at.store.open_blob(artifact_type, &digest, None) {
            Ok(Some(blob)) if blob.size() == reference.size => Target::Right,
            Ok(Some(_)) | Err(_) => Target::Doubtful,
            Ok(None) => match self.at.store.open_condemned(artifact_type, &digest).await? {
                Some(_) => Target::Wrong(Finding::CondemnedTarget { key: key.clone(), digest }),
                None => Target::Wrong(Finding::MissingTarget { key: key.clone(), digest }),
            },
        })
    }

    /// Reads a doubtful target, and tells of it if the blob is wrong.
    async fn read_target(&mut self, key: &RefKey, reference: &Ref) -> Result<Target, MaintainError> {
        let (artifact_type, digest) = (key.proxy.artifact_type, reference.target_digest);
        match inspect(self.at.store, artifact_type, digest).await? {
            Inspected::Sound(actual) if actual != reference.size => {
                Ok(Target::Wrong(Finding::WrongSize { key: key.clone(), stated: reference.size, actual }))
            }
            Inspected::Sound(_) => Ok(Target::Right),
            Inspected::Absent => self.target(key, reference).await,
            Inspected::Corrupt(how) => {
                let mended = self.corrupt_blob(artifact_type, digest, how).await?;
                // While it is there, the finding about the blob says it all.
                if mended { self.target(key, reference).await } else { Ok(Target::Right) }
            }
        }
    }

    async fn links(&self, key: &RefKey, reference: &Ref) -> Result<Option<Finding>, MaintainError> {
        let linked = links_of(self.at.store, self.at.rules, key.proxy.artifact_type, reference).await?;
        Ok(linked.err().map(|why| Finding::UnknownLinks { key: key.clone(), why }))
    }

    fn row(&self, key: &RefKey, reference: &Ref) -> Result<Option<Finding>, MaintainError> {
        let Some(index) = self.at.index.filter(|_| self.report.index_checked) else { return Ok(None) };
        Ok(disagreement(key, reference, index.lookup(key)?))
    }
}

/// What is wrong with a ref's row.
fn disagreement(key: &RefKey, reference: &Ref, row: Option<Ref>) -> Option<Finding> {
    let key = || key.clone();
    match row {
        None => Some(Finding::NoRow { key: key() }),
        Some(row) if agree(&row, reference) => None,
        Some(row) if row.fetched_at < reference.fetched_at => Some(Finding::OldRow { key: key() }),
        Some(_) => Some(Finding::WrongRow { key: key() }),
    }
}

/// Whether a row says what the file says, of what a row holds.
fn agree(row: &Ref, file: &Ref) -> bool {
    row.target_digest == file.target_digest
        && row.kind == file.kind
        && row.media_type == file.media_type
        && row.size == file.size
        && row.upstream == file.upstream
        && row.ttl_seconds == file.ttl_seconds
        && row.etag == file.etag
        && row.last_modified == file.last_modified
        && row.fetched_at == file.fetched_at
}
