//! What cached catalogues say of the content that they name.
//!
//! A catalogue (a Debian `Packages` file) names tens of thousands of files and what each must hash to.
//! It is read once, when something in it is first asked for, and kept as a table of hashes: 56 bytes
//! an item. Nothing here is the truth: what is dropped is read again.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use moka::sync::Cache as Bounded;
use tokio::task::spawn_blocking;

use super::Cache;
use crate::index::RefQuery;
use crate::model::{CATALOGUE_MAX_LEN, Claim, Digest, ProxyId, RefKey, RefPath, RefRules, Timestamp};
use crate::protocol::{Lookup, Protocol};

/// The most bytes that tables take together.
const MAX_TABLE_BYTES: u64 = 128 << 20;
/// The most items of one catalogue; a large distribution's has some 200,000.
const MAX_ITEMS: usize = 1 << 20;
/// The most catalogues of one kind and proxy that are looked into, the newest first.
const MAX_CATALOGUES: usize = 256;

/// The catalogues that are known, and tables of what they name.
#[derive(Debug)]
pub(super) struct Catalogues {
    known: Mutex<HashMap<(ProxyId, String), Listing>>,
    tables: Bounded<Digest, Arc<Table>>,
    hasher: RandomState,
}

/// The catalogues of one kind and proxy.
#[derive(Debug, Default)]
struct Listing {
    /// Whether those are in it that were there before anybody looked.
    is_complete: bool,
    list: Vec<Known>,
}

/// A cached catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    path: RefPath,
    digest: Digest,
    fetched_at: Timestamp,
}

/// What one catalogue names, by the hash of the name, sorted. Names that collide, which takes luck
/// that nobody has (the hash is keyed at random), could make content be refused, never be accepted.
#[derive(Debug, Default)]
struct Table(Vec<(u64, Claim)>);

impl Table {
    fn get(&self, hash: u64) -> Option<Claim> {
        let at = self.0.binary_search_by_key(&hash, |(hash, _)| *hash).ok()?;
        Some(self.0[at].1)
    }
}

impl Catalogues {
    pub(super) fn new() -> Self {
        let weight = |_: &Digest, table: &Arc<Table>| {
            u32::try_from(table.0.capacity() * size_of::<(u64, Claim)>()).unwrap_or(u32::MAX)
        };
        Self {
            known: Mutex::default(),
            tables: Bounded::builder().weigher(weight).max_capacity(MAX_TABLE_BYTES).build(),
            hasher: RandomState::new(),
        }
    }

    /// Notes a catalogue that was published or confirmed.
    pub(super) fn note(
        &self,
        rules: &dyn RefRules,
        key: &RefKey,
        kind: &str,
        digest: Digest,
        fetched_at: Timestamp,
    ) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let listing = known.entry((key.proxy.clone(), kind.to_owned())).or_default();
        listing.list.push(Known { path: key.path.clone(), digest, fetched_at });
        shorten(rules, &mut listing.list);
    }

    /// Adds those that were there before; what was noted meanwhile is newer.
    fn complete(&self, rules: &dyn RefRules, lookup: &Lookup, mut list: Vec<Known>) -> Vec<Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let listing = known.entry((lookup.proxy.clone(), lookup.kind.to_owned())).or_default();
        list.append(&mut listing.list);
        shorten(rules, &mut list);
        *listing = Listing { is_complete: true, list: list.clone() };
        list
    }

    fn known(&self, lookup: &Lookup) -> Option<Vec<Known>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let listing = known.get(&(lookup.proxy.clone(), lookup.kind.to_owned()))?;
        listing.is_complete.then(|| listing.list.clone())
    }
}

/// The newest first, without older versions of themselves, and no more than are looked into.
fn shorten(rules: &dyn RefRules, list: &mut Vec<Known>) {
    // Of one moment, the one that came last.
    list.reverse();
    list.sort_by_key(|known| std::cmp::Reverse(known.fetched_at));
    let mut seen = HashSet::new();
    list.retain(|known| seen.insert(rules.catalogue_of(&known.path).to_owned()));
    list.truncate(MAX_CATALOGUES);
}

impl Cache {
    /// What the newest of a proxy's catalogues that names an item says of it.
    pub(super) async fn entry(&self, protocol: &'static dyn Protocol, lookup: &Lookup) -> Option<Claim> {
        let known = match self.catalogues.known(lookup) {
            Some(known) => known,
            None => self.find_catalogues(protocol, lookup).await,
        };
        let hash = self.catalogues.hasher.hash_one(&lookup.item);
        for catalogue in known {
            let table = self.table(protocol, lookup, &catalogue).await;
            if let Some(claim) = table.and_then(|table| table.get(hash)) {
                return Some(claim);
            }
        }
        None
    }

    /// Lists a proxy's catalogues once: by the index, or by the files if it is not complete.
    async fn find_catalogues(&self, rules: &dyn RefRules, lookup: &Lookup) -> Vec<Known> {
        let list = match self.catalogues_by_index(lookup) {
            Some(list) => list,
            None => self.catalogues_by_files(lookup).await,
        };
        self.catalogues.complete(rules, lookup, list)
    }

    fn catalogues_by_index(&self, lookup: &Lookup) -> Option<Vec<Known>> {
        let index = self.index.get().filter(|index| index.is_complete())?;
        let mut query = RefQuery {
            artifact_type: Some(lookup.proxy.artifact_type),
            proxy: Some(lookup.proxy.name.clone()),
            kind: Some(lookup.kind.to_owned()),
            ..RefQuery::default()
        };
        let mut list = Vec::new();
        loop {
            let page = index.query(&query).ok()?;
            list.extend(page.rows.into_iter().map(|row| Known {
                path: row.key.path,
                digest: row.reference.target_digest,
                fetched_at: row.reference.fetched_at,
            }));
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Some(list),
            }
        }
    }

    async fn catalogues_by_files(&self, lookup: &Lookup) -> Vec<Known> {
        let mut list = Vec::new();
        let mut scan = self.store.scan_refs(&lookup.proxy);
        while let Some(page) = scan.next_page().await {
            for entry in page.unwrap_or_default() {
                let (Some(key), Ok(reference)) = (entry.key, entry.reference) else { continue };
                if reference.kind == lookup.kind {
                    let (digest, fetched_at) = (reference.target_digest, reference.fetched_at);
                    list.push(Known { path: key.path, digest, fetched_at });
                }
            }
        }
        list
    }

    /// The table of a catalogue; `None` if it is not there or not readable.
    async fn table(
        &self,
        protocol: &'static dyn Protocol,
        lookup: &Lookup,
        catalogue: &Known,
    ) -> Option<Arc<Table>> {
        if let Some(table) = self.catalogues.tables.get(&catalogue.digest) {
            return Some(table);
        }
        let artifact_type = lookup.proxy.artifact_type;
        let blob = self.store.open_blob(artifact_type, &catalogue.digest, None).ok().flatten()?;
        let lent = self.proofs.lend(artifact_type, catalogue.digest, &blob);
        if blob.size() > CATALOGUE_MAX_LEN || !self.proofs.check(&lent).await {
            return None;
        }
        let (path, tables) = (catalogue.path.clone(), self.catalogues.tables.clone());
        let (digest, hasher) = (catalogue.digest, self.catalogues.hasher.clone());
        let read = move || {
            // Whoever asks for the same table meanwhile waits for this one.
            tables.try_get_with(digest, || {
                let document = blob.read_all()?;
                let mut rows = Vec::new();
                let mut named = 0;
                let whole = protocol.catalogue(&path, &document, &mut |item, claim| {
                    named += 1;
                    if named <= MAX_ITEMS {
                        rows.push((hasher.hash_one(item), claim));
                    }
                });
                if !whole || named > MAX_ITEMS {
                    tracing::warn!(%digest, %path, "a catalogue could not be read to its end");
                }
                rows.sort_by_key(|(hash, _)| *hash);
                rows.shrink_to_fit();
                Ok::<_, std::io::Error>(Arc::new(Table(rows)))
            })
        };
        spawn_blocking(read).await.ok()?.ok()
    }
}
