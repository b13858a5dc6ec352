//! What the newest catalogues name: content that none of them names any more is old, however recently
//! it was used, and goes first when bytes have to go.
//!
//! A catalogue that cannot be read to its end says nothing about what it does not name, so that nothing
//! that catalogues of its kind name is held to be old then.

use std::collections::{BTreeMap, BTreeSet};

use crate::maintain::sorted::{Sorted, Sorter};
use crate::maintain::{MaintainError, Upkeep};
use crate::model::{CATALOGUE_MAX_LEN, Digest, ProxyId, Ref, RefKey, RefPath, RefRules, Timestamp};

/// The newest catalogues of all proxies, of those refs that were seen so far. There are as many as archives
/// have lists, whatever the number of refs.
#[derive(Debug, Default)]
pub(super) struct Catalogues(BTreeMap<(ProxyId, &'static str, String), Newest>);

/// The newest of the catalogues that replace each other.
#[derive(Debug)]
struct Newest {
    fetched_at: Timestamp,
    path: RefPath,
    digest: Digest,
}

impl Catalogues {
    /// Notes a ref if it is a catalogue.
    pub(super) fn note(&mut self, rules: &dyn RefRules, proxy: &ProxyId, key: &RefKey, reference: &Ref) {
        let kind = rules.catalogue_kinds().iter().find(|kind| **kind == reference.kind);
        let Some(kind) = kind.copied() else { return };
        let catalogue = (proxy.clone(), kind, rules.catalogue_of(&key.path).to_owned());
        let fetched_at = reference.fetched_at;
        if self.0.get(&catalogue).is_none_or(|newest| newest.fetched_at <= fetched_at) {
            let newest = Newest { fetched_at, digest: reference.target_digest, path: key.path.clone() };
            self.0.insert(catalogue, newest);
        }
    }

    /// Reads them all.
    pub(super) async fn read(self, at: Upkeep<'_>) -> Result<Named, MaintainError> {
        let (mut known, mut unread) = (BTreeSet::new(), BTreeSet::new());
        let mut items = Sorter::new(at);
        for ((proxy, kind, _), catalogue) in self.0 {
            let Some(rules) = (at.rules)(proxy.artifact_type) else { continue };
            match read(at, rules, &proxy, catalogue).await? {
                Some(named) => named.into_iter().try_for_each(|item| items.insert(*item.as_bytes()))?,
                None => _ = unread.insert((proxy.clone(), kind)),
            }
            known.insert((proxy, kind));
        }
        known.retain(|of| !unread.contains(of));
        Ok(Named { known, items: items.finish()? })
    }
}

/// What is named, of all proxies that have catalogues.
#[derive(Debug)]
pub(super) struct Named {
    /// The proxies and kinds whose catalogues were all read.
    known: BTreeSet<(ProxyId, &'static str)>,
    /// Each name with its content, hashed together.
    items: Sorted<32>,
}

impl Named {
    /// Whether a ref of this kind, to this blob, is of content that catalogues name, but none of the newest does.
    pub(super) fn is_old(
        &mut self,
        rules: Option<&dyn RefRules>,
        key: &RefKey,
        kind: &str,
        target: &Digest,
    ) -> Result<bool, MaintainError> {
        let Some(kind) = rules.and_then(|rules| rules.catalogued_by(kind)) else { return Ok(false) };
        Ok(self.known.contains(&(key.proxy.clone(), kind))
            && !self.items.contains(item(&key.proxy, key.path.as_str(), target).as_bytes())?)
    }
}

/// Stands for a name and its content in a set.
fn item(proxy: &ProxyId, path: &str, digest: &Digest) -> Digest {
    Digest::of(format!("{proxy}\n{path}\n{digest}").as_bytes())
}

/// What a catalogue names; `None` if it could not be read to its end.
async fn read(
    at: Upkeep<'_>,
    rules: &'static dyn RefRules,
    proxy: &ProxyId,
    catalogue: Newest,
) -> Result<Option<Vec<Digest>>, MaintainError> {
    let digest = catalogue.digest;
    let Some(blob) = at.store.open_blob(proxy.artifact_type, &digest, None)? else { return Ok(None) };
    if blob.size() > CATALOGUE_MAX_LEN {
        return Ok(None);
    }
    let proxy = proxy.clone();
    let read = tokio::task::spawn_blocking(move || {
        let document = blob.read_all()?;
        let mut items = Vec::new();
        let whole = rules.catalogue(&catalogue.path, &document, &mut |name, claim| {
            items.push(item(&proxy, name, &claim.digest));
        });
        Ok(whole.then_some(items))
    });
    read.await?.map_err(|source| MaintainError::Read { digest, source })
}
