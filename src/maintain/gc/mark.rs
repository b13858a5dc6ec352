//! G2: which blobs are needed. Every ref is read once.

use std::borrow::Cow;

use super::Options;
use super::expiry::{Candidate, Expired, Newest, Ranking, Reason, USE, Use, is_unused, last_uses};
use super::named::Catalogues;
use super::plan::Live;
use crate::index::Index;
use crate::maintain::links::links_of;
use crate::maintain::seen::Noting;
use crate::maintain::sorted::{Sorted, Sorter};
use crate::maintain::spool::Spool;
use crate::maintain::{BLOB, MaintainError, Step, Upkeep, blob_key};
use crate::model::{ArtifactType, Claim, Digest, ProxyId, Ref, Timestamp};
use crate::store::RefEntry;

/// Keys that are read from the index at a time.
const PAGE: usize = 10_000;

/// The blobs that refs need, and the refs that expire.
#[derive(Debug)]
pub(super) struct Marks {
    /// What is needed by refs that no limit takes.
    needed: Sorted<BLOB>,
    /// Of what the others need, the most recent use; it is needed if that is after the cut.
    newest: Newest,
    cut: Option<Use>,
    /// Ref files that were read, those left out of the mark included.
    pub(super) refs: u64,
    /// Refs that expire, and so are left out of the mark.
    pub(super) expired: Spool<Expired>,
}

impl Marks {
    /// Whether a ref of the type needs the blob.
    pub(super) fn contains(
        &mut self,
        artifact_type: ArtifactType,
        digest: &Digest,
    ) -> Result<bool, MaintainError> {
        let key = blob_key(artifact_type, digest);
        if self.needed.contains(&key)? {
            return Ok(true);
        }
        let Some(found) = self.newest.find(&key)? else { return Ok(false) };
        let newest = found.last_chunk::<USE>().ok_or(MaintainError::BadScratch)?;
        Ok(Some(Use::from_bytes(newest)?) > self.cut)
    }
}

/// G2: reads every ref file of every proxy, and those that only a healthy index knows of, and notes what
/// those need that do not expire. Changes nothing.
///
/// # Errors
/// Any ref that cannot be read or understood: what it needs is not known.
pub(super) async fn read_refs<'m>(
    at: Upkeep<'m>,
    options: &'m Options,
    now: Timestamp,
) -> Result<Reading<'m>, MaintainError> {
    at.progress.begin(Step::Mark, None);
    let mut reading = Reading {
        at,
        options,
        now,
        needed: Sorter::new(at),
        seen: at.index.map(|_| Noting::new(at)),
        refs: 0,
        expired: Spool::new(at),
        candidates: Spool::new(at),
        catalogues: Catalogues::default(),
    };
    reading.files().await?;
    if let Some(index) = at.index {
        reading.rows(index).await?;
    }
    Ok(reading)
}

/// What was read of the refs.
pub(super) struct Reading<'m> {
    at: Upkeep<'m>,
    options: &'m Options,
    now: Timestamp,
    needed: Sorter<BLOB>,
    /// The keys of the files that were read, if there is an index to compare with.
    seen: Option<Noting>,
    refs: u64,
    /// Refs that expire, if there is no limit.
    expired: Spool<Expired>,
    /// Every ref that may expire, if there is a limit.
    candidates: Spool<Candidate>,
    catalogues: Catalogues,
}

impl Reading<'_> {
    /// Decides which refs expire, if these blobs are live.
    pub(super) async fn decide(mut self, blobs: &Spool<Live>) -> Result<Marks, MaintainError> {
        let (at, options, now) = (self.at, self.options, self.now);
        let (mut newest, mut cut) = (Newest::default(), None);
        if let Some(max_bytes) = options.max_bytes {
            at.progress.begin(Step::ChooseExpired, Some(self.candidates.len()));
            let named = self.catalogues.read(at).await?;
            let mut ranking = Ranking::of(at, options, now, self.candidates, named, &mut self.needed)?;
            cut = ranking.cut(at, options, now, blobs, max_bytes)?;
            self.expired = ranking.expired(at, options, now, cut)?;
            newest = ranking.newest;
        }
        Ok(Marks { needed: self.needed.finish()?, newest, cut, refs: self.refs, expired: self.expired })
    }

    /// Every ref file of every proxy.
    async fn files(&mut self) -> Result<(), MaintainError> {
        for proxy in self.at.store.proxies().await? {
            let mut scan = self.at.store.scan_refs(&proxy);
            while let Some(page) = scan.next_page().await {
                let page = page?;
                self.refs += page.len() as u64;
                self.at.progress.advance(page.len() as u64);
                let asks_for_uses = self.options.unused_for.is_some() || self.options.max_bytes.is_some();
                let uses = if asks_for_uses { last_uses(self.at, &page) } else { Vec::new() };
                let uses = uses.into_iter().map(Some).chain(std::iter::repeat(None));
                for (entry, last_used) in page.into_iter().zip(uses) {
                    self.file(&proxy, entry, last_used).await?;
                }
            }
        }
        Ok(())
    }

    /// A ref file, and when it was used last if that matters.
    async fn file(
        &mut self,
        proxy: &ProxyId,
        entry: RefEntry,
        last_used: Option<Timestamp>,
    ) -> Result<(), MaintainError> {
        let RefEntry { path, key, reference, .. } = entry;
        let reference =
            reference.map_err(|source| MaintainError::UnreadableRef { path: path.clone(), source })?;
        if let (Some(key), Some(seen)) = (&key, &mut self.seen) {
            seen.note(key)?;
        }
        let (Some(key), Some(last_used)) = (key, last_used) else {
            // One in a place where no name leads is not served, but may yet be put right.
            return self.need(proxy.artifact_type, &path, &reference).await;
        };
        let is_unused = is_unused(last_used, self.options, self.now);
        if self.options.max_bytes.is_none() {
            return if is_unused {
                self.expired.push(&Expired { key, reason: Reason::Unused, last_used })
            } else {
                self.need(proxy.artifact_type, &path, &reference).await
            };
        }
        if let Some(rules) = (self.at.rules)(proxy.artifact_type) {
            self.catalogues.note(rules, proxy, &key, &reference);
        }
        let needs = match is_unused {
            true => None,
            false => {
                let links = self.links(proxy.artifact_type, &path, &reference).await?;
                Some(links.iter().map(|link| link.digest).chain([reference.target_digest]).collect())
            }
        };
        let (kind, target) = (reference.kind, reference.target_digest);
        self.candidates.push(&Candidate { key, last_used, kind, target, needs })
    }

    /// Refs that the index knows and the walk did not see: a directory that changes while it is
    /// read may hide a file. Each such row is a hint to look at its file, which decides (invariant
    /// I3). So a row without a file keeps nothing, and a healthy index, an empty one and none all
    /// lead to the same mark.
    async fn rows(&mut self, index: &Index) -> Result<(), MaintainError> {
        let Some(seen) = self.seen.take() else { return Ok(()) };
        let mut seen = seen.finish()?;
        let mut after = None;
        loop {
            let page = match index.keys(PAGE, after) {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "the index cannot be asked, the files alone are marked");
                    return Ok(());
                }
            };
            for key in seen.unseen(page.rows)? {
                let path = key.to_string();
                match self.at.store.read_ref(&key).await {
                    Ok(Some(reference)) => {
                        self.refs += 1;
                        self.need(key.proxy.artifact_type, &path, &reference).await?;
                    }
                    Ok(None) => {}
                    Err(source) => return Err(MaintainError::UnreadableRef { path, source }),
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Notes what a ref needs that stays.
    async fn need(
        &mut self,
        artifact_type: ArtifactType,
        path: &str,
        reference: &Ref,
    ) -> Result<(), MaintainError> {
        let links = self.links(artifact_type, path, reference).await?;
        for digest in links.iter().map(|link| &link.digest).chain([&reference.target_digest]) {
            self.needed.insert(blob_key(artifact_type, digest))?;
        }
        Ok(())
    }

    async fn links<'r>(
        &self,
        artifact_type: ArtifactType,
        path: &str,
        reference: &'r Ref,
    ) -> Result<Cow<'r, [Claim]>, MaintainError> {
        links_of(self.at.store, self.at.rules, artifact_type, reference)
            .await?
            .map_err(|why| MaintainError::UnknownLinks { path: path.to_owned(), why })
    }
}
