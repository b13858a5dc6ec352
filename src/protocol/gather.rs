//! What a dialect has to know before it can route a request, and how it says so.
//!
//! A request may depend on documents of upstream's: where an archive is, what an index file must hash
//! to. A dialect stays pure all the same: [`super::Protocol::route`] is called with what is known, asks
//! by [`Unrouted::Needs`] for what is not, and is called again. It keeps nothing in between.

use std::time::Duration;

use bytes::Bytes;

use super::Refusal;
use crate::model::{Claim, ProxyId, Ref, RefKey, Resource};

/// Why a request could not be routed.
#[derive(Debug)]
pub enum Unrouted {
    /// Something has to be known first.
    Needs(Vec<Need>),
    /// It is refused.
    Refused(Refusal),
}

impl From<Refusal> for Unrouted {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Something that has to be known before a request can be routed.
#[derive(Debug, Clone)]
pub enum Need {
    /// A document, from the cache or through it; its delivery is `Whole`.
    Document(Box<Resource>),
    /// A document from the cache alone, whatever its age, because where upstream has it cannot be learned
    /// now; its source is not looked at. The refusal is what is said if it is not cached.
    Held(Box<Resource>, Refusal),
    /// The same, but what is cached will do, past its time or not, if upstream confirmed it no longer
    /// ago than this: the version that clients were given last.
    Recent(Box<Resource>, Duration),
    /// What a proxy's cached catalogues say of an item.
    Entry(Lookup),
    /// What is known of cached content from reading it.
    Fact(Box<Inquiry>),
}

impl Need {
    /// The proxy that it is of.
    pub fn proxy(&self) -> &ProxyId {
        match self {
            Self::Document(resource) | Self::Held(resource, _) | Self::Recent(resource, _) => {
                &resource.key.proxy
            }
            Self::Entry(lookup) => &lookup.proxy,
            Self::Fact(inquiry) => &inquiry.content.key.proxy,
        }
    }
}

/// A question to content that may be cached: what [`super::Protocol::examine`] finds in it. Nothing is fetched
/// for it and nobody waits for it: content is read once, behind the back of the first request that asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Inquiry {
    /// The content, as its own proxy has it. What it must hash to is known.
    pub content: Resource,
    /// Where in the proxy's `meta` tree the answer is kept.
    pub fact: RefKey,
    /// The answer's `kind`.
    pub kind: &'static str,
}

/// A question to all catalogues of one kind that a proxy has cached
/// ([`crate::model::RefRules::catalogue`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// Whose catalogues.
    pub proxy: ProxyId,
    /// The kind of their refs.
    pub kind: &'static str,
    /// The item's name in them.
    pub item: String,
}

/// A document that was asked for.
#[derive(Debug, Clone)]
pub struct Gotten {
    /// What is known of it.
    pub reference: Ref,
    /// Its bytes, as upstream sent them.
    pub body: Bytes,
}

/// What was asked for and found so far.
#[derive(Debug, Default)]
pub struct Gathered {
    documents: Vec<(RefKey, Result<Gotten, Refusal>)>,
    entries: Vec<(Lookup, Option<Claim>)>,
    facts: Vec<(RefKey, Option<Ref>)>,
}

impl Gathered {
    /// A document that the request cannot do without.
    ///
    /// # Errors
    /// [`Unrouted::Needs`] if it was not asked for yet, [`Unrouted::Refused`] if it cannot be had.
    pub fn document(&self, resource: Resource) -> Result<&Gotten, Unrouted> {
        self.attempt(resource)?.map_err(|refusal| Unrouted::Refused(refusal.clone()))
    }

    /// A document that the request can do without: the inner error says why it cannot be had.
    ///
    /// # Errors
    /// [`Unrouted::Needs`] if it was not asked for yet.
    pub fn attempt(&self, resource: Resource) -> Result<Result<&Gotten, &Refusal>, Unrouted> {
        match self.documents.iter().find(|(key, _)| *key == resource.key) {
            Some((_, found)) => Ok(found.as_ref()),
            None => Err(Unrouted::Needs(vec![Need::Document(Box::new(resource))])),
        }
    }

    /// A document that the request cannot do without, from the cache alone; `otherwise` says why it cannot
    /// be fetched.
    ///
    /// # Errors
    /// [`Unrouted::Needs`] if it was not asked for yet, [`Unrouted::Refused`] if it is not cached.
    pub fn held(&self, resource: Resource, otherwise: Refusal) -> Result<&Gotten, Unrouted> {
        match self.documents.iter().find(|(key, _)| *key == resource.key) {
            Some((_, found)) => found.as_ref().map_err(|refusal| Unrouted::Refused(refusal.clone())),
            None => Err(Unrouted::Needs(vec![Need::Held(Box::new(resource), otherwise)])),
        }
    }

    /// A document in the version that clients were given last, if upstream confirmed that no longer ago
    /// than `within`; otherwise as [`Self::attempt`]. For what must agree with it: a newer version would
    /// be one that the client has not seen.
    ///
    /// # Errors
    /// [`Unrouted::Needs`] if it was not asked for yet.
    pub fn recent(
        &self,
        resource: Resource,
        within: Duration,
    ) -> Result<Result<&Gotten, &Refusal>, Unrouted> {
        match self.documents.iter().find(|(key, _)| *key == resource.key) {
            Some((_, found)) => Ok(found.as_ref()),
            None => Err(Unrouted::Needs(vec![Need::Recent(Box::new(resource), within)])),
        }
    }

    /// What the catalogues say of an item; `None` if nothing.
    ///
    /// # Errors
    /// [`Unrouted::Needs`] if that was not asked yet.
    pub fn entry(&self, lookup: Lookup) -> Result<Option<&Claim>, Unrouted> {
        match self.entries.iter().find(|(known, _)| *known == lookup) {
            Some((_, claim)) => Ok(claim.as_ref()),
            None => Err(Unrouted::Needs(vec![Need::Entry(lookup)])),
        }
    }

    /// What is known of each of several contents, in their order; `None` for what is not cached, or not known
    /// yet.
    ///
    /// # Errors
    /// [`Unrouted::Needs`] for those that were not asked yet.
    pub fn facts(&self, inquiries: Vec<Inquiry>) -> Result<Vec<Option<&Ref>>, Unrouted> {
        let known = |inquiry: &Inquiry| self.facts.iter().find(|(fact, _)| *fact == inquiry.fact);
        let facts: Option<Vec<_>> =
            inquiries.iter().map(|inquiry| Some(known(inquiry)?.1.as_ref())).collect();
        facts.ok_or_else(|| {
            let unknown = inquiries.into_iter().filter(|inquiry| known(inquiry).is_none());
            Unrouted::Needs(unknown.map(Box::new).map(Need::Fact).collect())
        })
    }

    /// Adds a document, or why it cannot be had.
    pub fn add_document(&mut self, key: RefKey, found: Result<Gotten, Refusal>) {
        self.documents.push((key, found));
    }

    /// Adds what the catalogues say of an item.
    pub fn add_entry(&mut self, lookup: Lookup, claim: Option<Claim>) {
        self.entries.push((lookup, claim));
    }

    /// Adds what is known of content, by where that is kept.
    pub fn add_fact(&mut self, fact: RefKey, known: Option<Ref>) {
        self.facts.push((fact, known));
    }

    /// The documents that were had.
    pub fn documents(&self) -> impl Iterator<Item = (&RefKey, &Gotten)> {
        self.documents.iter().filter_map(|(key, found)| Some((key, found.as_ref().ok()?)))
    }

    /// Whether nothing was needed.
    pub const fn is_empty(&self) -> bool {
        self.documents.is_empty() && self.entries.is_empty() && self.facts.is_empty()
    }
}

/// A document, or content, that is fetched along with a new version of another document, and without
/// which that version is not published.
#[derive(Debug, Clone)]
pub struct Companion {
    /// What is fetched. With a checksum it vouches for itself, and is published as soon as it is there;
    /// without one (its delivery is `Whole` then) it is published with the document, when
    /// [`super::Protocol::vet`] has accepted both.
    pub resource: Resource,
    /// Fetched only if this ref is there: what nobody has used need not be fetched ahead.
    pub only_if: Option<RefKey>,
    /// Whether upstream need not have it. [`super::Protocol::vet`] then does not find it among those
    /// that were fetched. Only for one without a checksum.
    pub optional: bool,
}
