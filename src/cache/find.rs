//! What is cached for a resource: the index first, then one look at the files.
//!
//! The index is never believed against the files, but it is believed where it agrees with itself: a
//! row that turns out to be wrong (its blob is not there) sends the request on as a miss. No row
//! means one look at the file, and a row is written for what is found (invariant I3).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache as Bounded;

use super::Cache;
use crate::index::{Grant, Index, Record};
use crate::model::{DOCUMENT_MAX_LEN, Digest, MediaType, ProxyId, Ref, RefKey, Resource};
use crate::protocol::Protocol;
use crate::store::StoreError;

/// What is cached for a resource.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// What is known of the content.
    pub reference: Ref,
    /// The ref that vouches for it, whose last use counts.
    pub used: RefKey,
    /// Its size, if a ref says so; one that merely links the content may not.
    pub size: Option<u64>,
}

/// The grants of one scope, read from the files.
#[derive(Debug, Default)]
struct ScopeGrants {
    /// By what is targeted, and whether that is a document.
    targets: HashMap<(Digest, bool), Grant>,
    links: HashMap<Digest, Grant>,
}

impl ScopeGrants {
    /// What [`Index::grant`] says of the same refs.
    fn grant(&self, digest: Digest, is_document: bool) -> Option<&Grant> {
        match self.targets.get(&(digest, is_document)) {
            None if !self.targets.contains_key(&(digest, !is_document)) => self.links.get(&digest),
            target => target,
        }
    }
}

/// Grants read from the files while there is no complete index.
#[derive(Debug)]
pub(super) struct FileGrants(Bounded<(ProxyId, String), Arc<ScopeGrants>>);

/// How long grants read from the files are used before the files are read again.
const FILE_GRANTS_HOLD: Duration = Duration::from_secs(10);
/// The most scopes whose grants are kept.
const MAX_SCOPES: u64 = 256;
/// The most refs that are read to answer for one scope without an index.
const MAX_SCOPE_REFS: usize = 10_000;

impl FileGrants {
    /// Forgets what was read of a scope, because it has another ref now.
    pub(super) fn forget(&self, proxy: &ProxyId, scope: &str) {
        self.0.invalidate(&(proxy.clone(), scope.to_owned()));
    }

    pub(super) fn new() -> Self {
        Self(Bounded::builder().max_capacity(MAX_SCOPES).time_to_live(FILE_GRANTS_HOLD).build())
    }
}

impl Cache {
    /// What is cached for a resource, if a ref of its own proxy and scope vouches for it.
    pub(super) async fn find(&self, protocol: &'static dyn Protocol, resource: &Resource) -> Option<Held> {
        let index = self.index.get();
        // Asked for once and first: a rebuild may end while the files are looked at, and what the index did not know
        // before that is not unknown.
        let is_complete = index.as_ref().is_some_and(|index| index.is_complete());
        if let Some(index) = &index {
            match index.lookup(&resource.key) {
                Ok(Some(reference)) => return Some(Held::own(reference, &resource.key)),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "the index did not answer"),
            }
            if is_complete && let Some(held) = granted_by_index(index, protocol, resource) {
                return Some(held);
            }
        }
        if let Some(reference) = self.read_ref(&resource.key).await {
            Box::pin(self.heal(protocol, &resource.key)).await;
            return Some(Held::own(reference, &resource.key));
        }
        if is_complete {
            return None;
        }
        Box::pin(self.granted_by_files(protocol, resource)).await
    }

    /// Whether what upstream has in place of a resource is cached.
    pub(super) async fn has_alternative(&self, resource: &Resource) -> bool {
        match &resource.alternative {
            Some(key) => self.read_ref(key).await.is_some(),
            None => false,
        }
    }

    /// What another ref of the scope grants.
    pub(super) async fn granted(&self, protocol: &'static dyn Protocol, resource: &Resource) -> Option<Held> {
        match self.index.get().filter(|index| index.is_complete()) {
            Some(index) => granted_by_index(&index, protocol, resource),
            None => self.granted_by_files(protocol, resource).await,
        }
    }

    /// The same from the files, for as long as the index does not know all refs.
    async fn granted_by_files(&self, protocol: &'static dyn Protocol, resource: &Resource) -> Option<Held> {
        let digest = linked_digest(resource)?;
        let scope = protocol.scope(&resource.key.path).to_owned();
        let of = (resource.key.proxy.clone(), scope);
        let grants = match self.file_grants.0.get(&of) {
            Some(grants) => grants,
            None => {
                let grants = Arc::new(self.read_grants(protocol, &of.0, &of.1).await);
                self.file_grants.0.insert(of, Arc::clone(&grants));
                grants
            }
        };
        let grant = grants.grant(digest, protocol.is_document(resource.kind))?;
        Held::granted(grant.clone(), digest, resource)
    }

    async fn read_grants(
        &self,
        protocol: &'static dyn Protocol,
        proxy: &ProxyId,
        scope: &str,
    ) -> ScopeGrants {
        let mut grants = ScopeGrants::default();
        let mut refs = 0;
        let mut scan = self.store.scan_scope(proxy, scope);
        while let Some(page) = scan.next_page().await {
            let page = page.unwrap_or_else(|error| {
                tracing::warn!(%error, %proxy, scope, "could not read all refs of a scope");
                Vec::new()
            });
            for entry in page {
                let (Some(key), Ok(mut reference)) = (entry.key, entry.reference) else { continue };
                if protocol.scope(&key.path) != scope {
                    continue;
                }
                refs += 1;
                self.complete(protocol, &key, &mut reference);
                let fetched_at = reference.fetched_at;
                for link in reference.links.iter().flatten() {
                    let grant = || Grant { key: key.clone(), fetched_at, size: link.size, target: None };
                    grants.links.entry(link.digest).or_insert_with(grant);
                }
                let target = (reference.target_digest, protocol.is_document(&reference.kind));
                let size = Some(reference.size);
                grants.targets.insert(target, Grant { key, fetched_at, size, target: Some(reference) });
            }
            if refs >= MAX_SCOPE_REFS {
                tracing::warn!(%proxy, scope, refs, "too many refs to read without an index");
                break;
            }
        }
        grants
    }

    /// Reads a ref file; one that is not a ref is as good as none (fsck reports it).
    async fn read_ref(&self, key: &RefKey) -> Option<Ref> {
        match self.store.read_ref(key).await {
            Ok(reference) => reference,
            Err(error @ StoreError::BadRef { .. }) => {
                tracing::warn!(%error, "ignoring a damaged ref");
                None
            }
            Err(error) => {
                tracing::warn!(%error, %key, "could not read a ref");
                None
            }
        }
    }

    /// Writes the row for a ref that was found as a file only. Waited for (a commit takes well under a
    /// millisecond, and the wait is bounded): what the ref links is asked for next, and is granted
    /// by this row.
    async fn heal(&self, protocol: &'static dyn Protocol, key: &RefKey) {
        // Read under the lock: it may have been written over since.
        let _lock = self.ref_locks.lock(key).await;
        let Some(mut reference) = self.read_ref(key).await else { return };
        self.complete(protocol, key, &mut reference);
        let scope = protocol.scope(&key.path).to_owned();
        self.file_grants.forget(&key.proxy, &scope);
        self.record(Record { key: key.clone(), scope, reference }).await;
    }

    /// Fills in the links of a ref that was written without them, by hand or by an older version.
    /// They stay unknown if what it targets is not there, is no document, or is too large for one.
    pub(super) fn complete(&self, protocol: &dyn Protocol, key: &RefKey, reference: &mut Ref) {
        let is_small = reference.size <= DOCUMENT_MAX_LEN;
        if reference.links.is_some() || !protocol.is_document(&reference.kind) || !is_small {
            return;
        }
        let artifact_type = key.proxy.artifact_type;
        let document = self
            .store
            .open_blob(artifact_type, &reference.target_digest, Some(reference.size))
            .ok()
            .flatten()
            .and_then(|blob| blob.read_all().ok());
        reference.links = document
            .and_then(|document| protocol.links(&reference.kind, reference.media_type.as_deref(), &document));
    }
}

/// What another ref of the scope grants, by the index. One that is being rebuilt is not to be asked: it does
/// not know all, and may be without what makes the question cheap.
fn granted_by_index(index: &Index, protocol: &dyn Protocol, resource: &Resource) -> Option<Held> {
    let digest = linked_digest(resource)?;
    let scope = protocol.scope(&resource.key.path);
    let fits = |kind: &str| are_alike(protocol, kind, resource.kind);
    match index.grant(&resource.key.proxy, scope, &digest, fits) {
        Ok(grant) => grant.and_then(|grant| Held::granted(grant, digest, resource)),
        Err(error) => {
            tracing::debug!(%error, "the index did not answer");
            None
        }
    }
}

/// Whether one kind's content may be the other's: both are documents, or neither is. A document has been read
/// and found to be one, and has a media type of its own; other content may be anything.
pub(super) fn are_alike(protocol: &dyn Protocol, one: &str, other: &str) -> bool {
    protocol.is_document(one) == protocol.is_document(other)
}

/// The digest by which another ref of the scope may grant a resource.
pub(super) fn linked_digest(resource: &Resource) -> Option<Digest> {
    resource.expect.as_ref().filter(|_| resource.linked)?.digest()
}

impl Held {
    fn own(reference: Ref, key: &RefKey) -> Self {
        Self { size: Some(reference.size), reference, used: key.clone() }
    }

    /// Content that another ref of the scope vouches for. One that merely links it does not say
    /// what it is; that suffices only where the protocol fixes the media type.
    fn granted(grant: Grant, digest: Digest, resource: &Resource) -> Option<Self> {
        let kind = resource.kind.to_owned();
        let (size, used) = (grant.size, grant.key);
        if let Some(target) = grant.target {
            return Some(Self { reference: Ref { kind, ..target }, used, size });
        }
        let MediaType::Fixed(media_type) = resource.media_type else { return None };
        let mut reference = Ref::new(kind, digest, size.unwrap_or(0), grant.fetched_at);
        reference.media_type = Some(media_type.to_owned());
        Some(Self { reference, used, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn files_grant_what_the_index_would() {
        let digest = Digest::of(b"x");
        let grant = |path: &str| Grant {
            key: format!("container/hub/refs/a/{path}").parse().expect("a key"),
            fetched_at: Timestamp::MIN,
            size: None,
            target: None,
        };
        let link = || HashMap::from([(digest, grant("link"))]);
        for (targets, document, other) in [
            (&[][..], Some("link"), Some("link")),
            (&[true], Some("true"), None),
            (&[false], None, Some("false")),
            (&[true, false], Some("true"), Some("false")),
        ] {
            let targets = targets.iter().map(|&is| ((digest, is), grant(&is.to_string()))).collect();
            let grants = ScopeGrants { targets, links: link() };
            let of = |is_document| {
                let key = grants.grant(digest, is_document)?.key.to_string();
                Some(key.rsplit('/').next()?.to_owned())
            };
            assert_eq!((of(true).as_deref(), of(false).as_deref()), (document, other));
            assert_eq!(grants.grant(Digest::of(b"y"), true), None);
        }
    }
}
