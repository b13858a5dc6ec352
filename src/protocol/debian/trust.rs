//! Which new version of a Release is taken, and what goes along with it.
//!
//! A new `InRelease` is shown only together with the index files that clients have used of the old one,
//! in their new versions; a `Release` only with its signature. Nothing is taken that goes back in time,
//! that is no Release at all, or, where the archive has a keyring, that no key of it has signed.

use serde_json::{Map, Value};

use super::item;
use super::release::{Entry, Release, is_older};
use super::resource::{self, kind};
use crate::model::{Claim, Descriptor, Digest, Freshness, Ref, RefPath, Resource};
use crate::protocol::openpgp::{Keyring, SignatureError};
use crate::protocol::{Companion, Gathered, Refusal};

/// The facts of a Release that are written down as they stand in it.
const FACTS: [(&str, &str); 3] = [("origin", "Origin"), ("suite", "Suite"), ("codename", "Codename")];

/// What must be there before a new Release is shown: for each index file that it changes and that was
/// used, the new version; for a `Release`, its signature.
///
/// # Errors
/// [`Refusal::BadUpstream`] if it is no Release, or is older than the one that is held.
pub(super) fn companions(
    resource: &Resource,
    old: Option<&[u8]>,
    new: &[u8],
) -> Result<Vec<Companion>, Refusal> {
    let is_signed = is_signed(&resource.key.path);
    let new_release = read(is_signed, new)?;
    let old_release = old.and_then(|old| read(is_signed, old).ok());
    if old_release.is_some_and(|old| is_older(&new_release, &old)) {
        return Err(Refusal::BadUpstream("its `Date` is before that of the one that is cached"));
    }
    let (proxy, suite) = (&resource.key.proxy, item::dir_of(resource.key.path.as_str()));
    let mut companions = Vec::new();
    if !is_signed {
        companions.push(Companion {
            resource: signature(resource, new)?,
            only_if: None,
            // An archive that clients trust without a signature has none.
            optional: true,
        });
    }
    let Some(old_release) = old_release else { return Ok(companions) };
    let mut old_entries: Vec<_> = old_release.entries().collect();
    old_entries.sort_unstable_by_key(|entry| entry.path);
    for entry in new_release.entries() {
        let Ok(at) = old_entries.binary_search_by_key(&entry.path, |old| old.path) else { continue };
        if old_entries[at].digest == entry.digest {
            continue;
        }
        companions.push(Companion {
            resource: resource::index(proxy, suite, &new_release, entry)?,
            only_if: Some(resource::index_key(proxy, suite, old_entries[at])?),
            optional: false,
        });
    }
    Ok(companions)
}

/// Judges a Release: by the keyring in the resource's context, if there is one.
///
/// # Errors
/// [`Refusal::Untrusted`] if no key of the ring has signed it.
pub(super) fn vet(
    resource: &Resource,
    document: &[u8],
    companions: &Gathered,
) -> Result<Vec<Descriptor>, Refusal> {
    let is_signed = is_signed(&resource.key.path);
    let release = read(is_signed, document)?;
    let mut facts = Map::new();
    for (name, field) in FACTS {
        facts.extend(release.field(field).map(|value| (name.to_owned(), Value::from(value))));
    }
    facts.extend(release.date().map(|date| ("date".to_owned(), Value::from(date.to_string()))));
    let valid_until = release.valid_until();
    facts.extend(valid_until.map(|until| (Ref::VALID_UNTIL.to_owned(), Value::from(until.to_string()))));
    if !resource.context.is_empty() {
        let apart = if is_signed { None } else { Some(signature(resource, document)?.key) };
        let verified = Keyring::read(&resource.context).and_then(|keyring| match &apart {
            None => keyring.verify_cleartext(document),
            Some(key) => match companions.documents().find(|(of, _)| *of == key) {
                Some((_, signature)) => keyring.verify_detached(&signature.body, document),
                None => Err(SignatureError::NoSignature),
            },
        });
        let signer = verified.map_err(|why| Refusal::Untrusted { why: why.to_string() })?;
        facts.insert("signedBy".to_owned(), Value::from(signer.key));
    }
    facts.insert("verified".to_owned(), Value::from(!resource.context.is_empty()));
    Ok(vec![Descriptor { path: resource.key.path.clone(), kind: kind::VERDICT, facts }])
}

/// Visits every index that a Release names, by where it is kept. False if it is none.
pub(super) fn visit(path: &RefPath, document: &[u8], visit: &mut dyn FnMut(&str, Claim)) -> bool {
    let Ok(release) = read(is_signed(path), document) else { return false };
    let suite = item::dir_of(path.as_str());
    for Entry { path, digest, size } in release.entries() {
        let dir = item::below(suite, path);
        let path = item::by_digest_path(item::dir_of(&dir), digest);
        visit(&path, Claim { digest, size: Some(size) });
    }
    true
}

/// Whether a Release has its signature within.
fn is_signed(path: &RefPath) -> bool {
    path.segments().next_back() == Some("InRelease")
}

fn read(is_signed: bool, document: &[u8]) -> Result<Release<'_>, Refusal> {
    if is_signed { Release::signed(document) } else { Release::plain(document) }
}

/// The signature of a `Release` with this content.
fn signature(release: &Resource, document: &[u8]) -> Result<Resource, Refusal> {
    let suite = item::dir_of(release.key.path.as_str());
    let freshness = if release.context.is_empty() { release.freshness } else { Freshness::Immutable };
    resource::signature(&release.key.proxy, suite, Digest::of(document), freshness)
}
