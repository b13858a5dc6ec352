//! Several answers at one address: which one a request selects, and where each is kept.
//!
//! The ref of the address holds the newest answer and says what they differ by; each has a ref of its own
//! below it (`model::http_cache`). Those written before the address's first ref that says so do not count:
//! it was withdrawn in between, and they with it.

use http::HeaderMap;

use super::Cache;
use super::find::Held;
use super::obtain::Job;
use crate::model::http_cache::{Selection, selection, variant_path};
use crate::model::{Http, Ref, RefKey, Resource, Timestamp};
use crate::protocol::Protocol;

/// Where an answer is kept, and when that was known.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Its ref, by which requests for it find each other.
    pub key: RefKey,
    /// Since when variants count at its address, if there are any.
    pub since: Option<Timestamp>,
    /// How many fills had ended when it was looked at.
    pub looked_at: u64,
    /// The size of what is not there but named by its digest, if a ref states it.
    pub stated_size: Option<u64>,
}

impl Place {
    /// Where a resource is kept that has no variants, as far as is known.
    pub(super) fn of(resource: &Resource) -> Self {
        Self { key: resource.key.clone(), since: None, looked_at: 0, stated_size: None }
    }
}

impl Cache {
    /// The answer that a request selects of those at its address, of which `found` is the newest.
    pub(super) async fn select(
        &self,
        protocol: &'static dyn Protocol,
        resource: &Resource,
        found: Option<Held>,
    ) -> (Place, Option<Held>) {
        let found = found.filter(|held| is_variant(&held.reference) || !varies(&held.reference));
        let http = found.as_ref().and_then(|held| held.reference.http.as_ref());
        let Some((variant, since)) = http.and_then(|http| Some((http.variant.clone()?, http.variants_since)))
        else {
            return (Place::of(resource), found);
        };
        let wanted = found.as_ref().and_then(|held| variant_of(&held.reference, resource));
        let Some((wanted, key)) = wanted else { return (Place::of(resource), None) };
        let place = Place { key, since, looked_at: 0, stated_size: None };
        if wanted == variant {
            return (place, found);
        }
        let of_variant = Resource { key: place.key.clone(), ..resource.clone() };
        let held = self.find(protocol, &of_variant).await;
        let counts = |held: &Held| {
            held.reference.http.as_ref().is_some_and(|http| http.variants_since == since && since.is_some())
        };
        (place, held.filter(counts))
    }
}

/// Whether an answer is for some requests for its address and not for others.
pub(super) fn varies(reference: &Ref) -> bool {
    let vary = reference.headers.get("vary").filter(|_| reference.http.is_some());
    vary.is_some_and(|vary| Selection::of_lines([vary.as_str()]) != Selection::Always)
}

/// Whether it is known for which. Of one that a 304 says varies, where there is no place for variants, it is not.
fn is_variant(reference: &Ref) -> bool {
    reference.http.as_ref().is_some_and(|http| http.variant.is_some())
}

/// The variant that a request selects at an address by what an answer from there says, and its place;
/// `None` if answers do not differ there, or the address is too long for variants.
pub(super) fn variant_of(reference: &Ref, resource: &Resource) -> Option<(String, RefKey)> {
    let vary = reference.headers.get("vary").map(String::as_str);
    let variant = Selection::of_lines(vary).variant(&resource.asked.headers)?;
    let path = variant_path(&resource.key.path, &variant)?;
    Some((variant, RefKey { path, ..resource.key.clone() }))
}

impl Job {
    /// Notes which variant an answer is, if it is one.
    pub(super) fn mark_variant(&self, reference: &mut Ref) {
        let Some(http) = &reference.http else { return };
        let variant = variant_of(reference, &self.resource).map(|(variant, _)| variant);
        let since = variant.is_some().then(|| self.place.since.unwrap_or(reference.fetched_at));
        reference.http = Some(Http { variant, variants_since: since, ..http.clone() });
    }

    /// Where an answer's refs go, the address's own last.
    pub(super) fn keys_of(&self, reference: &Ref) -> Vec<RefKey> {
        let is_variant = reference.http.as_ref().is_some_and(|http| http.variant.is_some());
        let of_variant = variant_of(reference, &self.resource).filter(|_| is_variant);
        of_variant.map(|(_, key)| key).into_iter().chain([self.resource.key.clone()]).collect()
    }

    /// Whether there is a place for an answer: an address may be too long for variants.
    pub(super) fn has_place(&self, headers: &HeaderMap) -> bool {
        let variant = selection(headers).variant(&self.resource.asked.headers);
        variant.is_none_or(|variant| variant_path(&self.resource.key.path, &variant).is_some())
    }

    /// Lets a variant count along with those that are kept at its address by now. To be asked by who alone writes
    /// there.
    pub(super) async fn join_variants(&self, reference: &mut Ref) {
        let Some(http) = reference.http.as_mut().filter(|http| http.variant.is_some()) else { return };
        let (cache, key) = (&self.cache, &self.resource.key);
        let there = cache.store.read_ref(key).await.ok().flatten();
        let there = there.filter(|there| !cache.withdrawals.covers(key, there.fetched_at));
        let since = there.and_then(|there| there.http?.variants_since);
        http.variants_since = since.or(http.variants_since);
    }
}
