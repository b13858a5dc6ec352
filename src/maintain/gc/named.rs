//! What the newest catalogues name: content that none of them names any more is old, however recently
//! it was used, and goes first when bytes have to go.
//!
//! A catalogue that cannot be read to its end says nothing about what it does not name, so that nothing
//! that catalogues of its kind name is held to be old then.

use std::collections::{BTreeMap, BTreeSet};

use crate::maintain::digests::{Collector, Digests};
use crate::maintain::{MaintainError, Upkeep};
use crate::model::{CATALOGUE_MAX_LEN, Digest, ProxyId, Ref, RefKey, RefPath, RefRules, Timestamp};

/// What is named, of all proxies that have catalogues.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// The proxies and kinds whose catalogues were all read.
    known: BTreeSet<(ProxyId, &'static str)>,
    /// Each name with its content, hashed together.
    items: Digests,
}

/// The newest of the catalogues that replace each other.
#[derive(Debug)]
struct Newest {
    fetched_at: Timestamp,
    path: RefPath,
    digest: Digest,
}

impl Named {
    /// Reads the newest catalogues of all proxies.
    pub(super) async fn read(at: Upkeep<'_>) -> Result<Self, MaintainError> {
        let mut known = BTreeSet::new();
        let mut items = Collector::default();
        for proxy in at.store.proxies().await? {
            let Some(rules) = (at.rules)(proxy.artifact_type) else { continue };
            if rules.catalogue_kinds().is_empty() {
                continue;
            }
            let mut unread = BTreeSet::new();
            for ((kind, _), catalogue) in newest(at, rules, &proxy).await? {
                known.insert((proxy.clone(), kind));
                match read(at, rules, &proxy, catalogue).await? {
                    Some(named) => named.into_iter().for_each(|item| items.insert(item)),
                    None => _ = unread.insert((proxy.clone(), kind)),
                }
            }
            known.retain(|of| !unread.contains(of));
        }
        Ok(Self { known, items: items.finish() })
    }

    /// Whether a ref is of content that catalogues name, but none of the newest does.
    pub(super) fn is_old(&self, rules: Option<&dyn RefRules>, key: &RefKey, reference: &Ref) -> bool {
        let Some(kind) = rules.and_then(|rules| rules.catalogued_by(&reference.kind)) else { return false };
        self.known.contains(&(key.proxy.clone(), kind))
            && !self.items.contains(&item(&key.proxy, key.path.as_str(), &reference.target_digest))
    }
}

/// Stands for a name and its content in a set.
fn item(proxy: &ProxyId, path: &str, digest: &Digest) -> Digest {
    Digest::of(format!("{proxy}\n{path}\n{digest}").as_bytes())
}

/// The newest version of each catalogue of a proxy.
async fn newest(
    at: Upkeep<'_>,
    rules: &dyn RefRules,
    proxy: &ProxyId,
) -> Result<BTreeMap<(&'static str, String), Newest>, MaintainError> {
    let mut found: BTreeMap<(&'static str, String), Newest> = BTreeMap::new();
    let mut scan = at.store.scan_refs(proxy);
    while let Some(page) = scan.next_page().await {
        for entry in page? {
            let (Some(key), Ok(reference)) = (entry.key, entry.reference) else { continue };
            let kind = rules.catalogue_kinds().iter().find(|kind| **kind == reference.kind);
            let Some(kind) = kind.copied() else { continue };
            let catalogue = (kind, rules.catalogue_of(&key.path).to_owned());
            let fetched_at = reference.fetched_at;
            if found.get(&catalogue).is_none_or(|newest| newest.fetched_at <= fetched_at) {
                let newest = Newest { fetched_at, digest: reference.target_digest, path: key.path.clone() };
                found.insert(catalogue, newest);
            }
        }
    }
    Ok(found)
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
