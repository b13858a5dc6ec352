//! G2: which blobs are needed.

use std::collections::BTreeMap;

use super::expiry::{Expired, Expiry};
use crate::index::Index;
use crate::maintain::digests::{Collector, Digests, key_digest};
use crate::maintain::links::links_of;
use crate::maintain::{MaintainError, Step, Upkeep};
use crate::model::{ArtifactType, Digest, Ref, RefKey};

/// Keys that are read from the index at a time.
const PAGE: usize = 10_000;

/// The blobs that refs need, by type.
#[derive(Debug, Default)]
pub(super) struct Marks {
    needed: BTreeMap<ArtifactType, Digests>,
    /// Ref files that were read, those left out of the mark included.
    pub(super) refs: u64,
    /// Refs that expire, and so are left out of the mark.
    pub(super) expired: Vec<Expired>,
}

impl Marks {
    /// Whether a ref of the type needs the blob.
    pub(super) fn contains(&self, artifact_type: ArtifactType, digest: &Digest) -> bool {
        self.needed.get(&artifact_type).is_some_and(|needed| needed.contains(digest))
    }
}

/// G2: reads every ref file of every proxy, and those that only a healthy index knows of, and marks what
/// those need that do not expire.
///
/// # Errors
/// Any ref that cannot be read or understood: what it needs is not known.
pub(super) async fn mark(at: Upkeep<'_>, expiry: &Expiry<'_>) -> Result<Marks, MaintainError> {
    at.progress.begin(Step::Mark, None);
    let (needs, seen) = (BTreeMap::new(), Collector::default());
    let mut marking = Marking { at, expiry, needs, seen, refs: 0, expired: Vec::new() };
    marking.files().await?;
    if let Some(index) = at.index {
        marking.rows(index).await?;
    }
    let needed = marking.needs.into_iter().map(|(of, needs)| (of, needs.finish())).collect();
    Ok(Marks { needed, refs: marking.refs, expired: marking.expired })
}

/// A mark in the making.
struct Marking<'m> {
    at: Upkeep<'m>,
    expiry: &'m Expiry<'m>,
    needs: BTreeMap<ArtifactType, Collector>,
    /// The keys of the files that were read, if there is an index to compare with.
    seen: Collector,
    refs: u64,
    expired: Vec<Expired>,
}

impl Marking<'_> {
    /// Every ref file of every proxy.
    async fn files(&mut self) -> Result<(), MaintainError> {
        for proxy in self.at.store.proxies().await? {
            let mut scan = self.at.store.scan_refs(&proxy);
            while let Some(page) = scan.next_page().await {
                let page = page?;
                self.refs += page.len() as u64;
                self.at.progress.advance(page.len() as u64);
                let verdicts = self.expiry.verdicts(self.at, &page);
                for (entry, verdict) in page.into_iter().zip(verdicts) {
                    let reference = entry.reference.map_err(|source| MaintainError::UnreadableRef {
                        path: entry.path.clone(),
                        source,
                    })?;
                    if let Some(key) = &entry.key
                        && self.at.index.is_some()
                    {
                        self.seen.insert(key_digest(key));
                    }
                    if let (Some(key), Some((reason, last_used))) = (&entry.key, verdict) {
                        // Of a million keys each had the name of its proxy to itself.
                        let key = RefKey { proxy: proxy.clone(), ..key.clone() };
                        self.expired.push(Expired { key, reason, last_used });
                    } else {
                        // One in a place where no name leads is not served, but may yet be put right.
                        self.need(proxy.artifact_type, &entry.path, &reference).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Refs that the index knows and the walk did not see: a directory that changes while it is
    /// read may hide a file. Each such row is a hint to look at its file, which decides (invariant
    /// I3). So a row without a file keeps nothing, and a healthy index, an empty one and none all
    /// lead to the same mark.
    async fn rows(&mut self, index: &Index) -> Result<(), MaintainError> {
        let seen = std::mem::take(&mut self.seen).finish();
        let mut after = None;
        loop {
            let page = match index.keys(PAGE, after) {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "the index cannot be asked, the files alone are marked");
                    return Ok(());
                }
            };
            for key in page.rows {
                if seen.contains(&key_digest(&key)) {
                    continue;
                }
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

    async fn need(
        &mut self,
        artifact_type: ArtifactType,
        path: &str,
        reference: &Ref,
    ) -> Result<(), MaintainError> {
        let links = links_of(self.at.store, self.at.rules, artifact_type, reference)
            .await?
            .map_err(|why| MaintainError::UnknownLinks { path: path.to_owned(), why })?;
        let needs = self.needs.entry(artifact_type).or_default();
        needs.insert(reference.target_digest);
        links.iter().for_each(|link| needs.insert(link.digest));
        Ok(())
    }
}
