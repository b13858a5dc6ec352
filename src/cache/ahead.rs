//! Read-ahead: the small parts of a document that follow one which is fetched are fetched along with it.
//!
//! A client that has a document, the manifest of an image, asks for its parts one behind the other, a few at a time, and
//! waits each time for the way to upstream and back. The parts stand in an order: a layer of an image builds on those
//! before it, so that who lacks one lacks those that follow. What is large is left alone: it keeps the line
//! busy by itself, and what comes beside it takes from what the client waits for.
//!
//! What is fetched ahead is fetched as for a client: once, checked, published, and whoever asks meanwhile joins. Nobody
//! waits for it, and how it ends is for the next who asks to hear.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache as Bounded;
use tokio::sync::Semaphore;

use super::find::linked_digest;
use super::through::Company;
use super::{Cache, Call, Interest, Site, Want};
use crate::model::{Claim, Digest, ProxyId, RefKey, Resource};
use crate::protocol::Protocol;
use crate::upstream::Upstream;

/// How many parts ahead are looked at.
const WINDOW: usize = 8;
/// The most bytes of a part that is fetched ahead.
const PART_BYTES: u64 = 4 << 20;
/// The most bytes of all that are fetched along with one.
const WINDOW_BYTES: u64 = 8 << 20;
/// The most fetches ahead at a time for a proxy; and no more than half of what its upstream is asked at a time, so that
/// clients find a turn.
const MOST: usize = 16;

/// The most parts whose place is remembered, and the most of one document.
const PLACES: u64 = 10_000;
const PARTS: usize = 256;
/// How long they are: longer than a client takes from one part to the next.
const REMEMBERED: Duration = Duration::from_mins(10);

/// What is known of the order of parts. Bounded; lost on restart without harm.
#[derive(Debug)]
pub(super) struct ReadAhead {
    places: Bounded<Part, Place>,
}

/// Turns for what is fetched ahead from an upstream.
pub(super) fn turns(upstream: &Upstream) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MOST.min(upstream.in_flight() / 2)))
}

/// A part by the proxy, the scope and its digest.
type Part = (ProxyId, String, Digest);

/// All parts of the newest document that has it, and which of them it is.
type Place = (Arc<[Claim]>, usize);

impl ReadAhead {
    pub(super) fn new() -> Self {
        Self { places: Bounded::builder().max_capacity(PLACES).time_to_live(REMEMBERED).build() }
    }

    /// Remembers the order of a document's parts.
    pub(super) fn note(&self, proxy: &ProxyId, scope: &str, links: &[Claim]) {
        let links = &links[..links.len().min(PARTS)];
        // With the first nothing is fetched, and with the last there is nothing to.
        if links.len() < 3 {
            return;
        }
        let all: Arc<[Claim]> = links.into();
        for (at, link) in links.iter().enumerate().skip(1) {
            self.places.insert((proxy.clone(), scope.to_owned(), link.digest), (Arc::clone(&all), at));
        }
    }

    /// The parts worth fetching along with one: none with the first, which may describe the others (an image's
    /// configuration), so that who asks for it may only be looking.
    fn after(&self, proxy: &ProxyId, scope: &str, digest: Digest) -> Vec<Claim> {
        let Some((all, at)) = self.places.get(&(proxy.clone(), scope.to_owned(), digest)) else {
            return Vec::new();
        };
        let mut left = WINDOW_BYTES;
        let fits = |link: &&Claim| {
            let size = link.size.filter(|size| *size <= left.min(PART_BYTES));
            left -= size.unwrap_or(0);
            size.is_some()
        };
        all.iter().skip(at + 1).take(WINDOW).filter(fits).copied().collect()
    }
}

impl Cache {
    /// Remembers in which order the parts of a document stand, if its proxy reads ahead.
    pub(super) fn note_order(&self, key: &RefKey, scope: &str, links: &[Claim]) {
        let proxy = self.proxies.iter().find(|facts| facts.id == key.proxy);
        if proxy.is_some_and(|facts| facts.read_ahead) {
            self.ahead.note(&key.proxy, scope, links);
        }
    }

    /// Begins to fetch what is likely to be asked for after this, as far as there are turns for it.
    pub(super) fn read_ahead(self: &Arc<Self>, Call { site, protocol, resource, want }: Call<'_>) {
        let Some(digest) = linked_digest(resource).filter(|_| want.interest == Interest::Body) else {
            return;
        };
        let (proxy, scope) = (&resource.key.proxy, protocol.scope(&resource.key.path));
        for link in self.ahead.after(proxy, scope, digest) {
            let Some(part) = protocol.sibling(resource, &link) else { return };
            if self.fills.is_running(&part.key) || self.absent.holds(&part.key, self.clock.now()) {
                continue;
            }
            let Ok(turn) = Arc::clone(&site.ahead).try_acquire_owned() else { return };
            let fetch = Arc::clone(self).fetch_ahead(Arc::clone(site), protocol, part);
            tokio::spawn(async move {
                fetch.await;
                drop(turn);
            });
        }
    }

    /// Fetches a resource that is not cached; returns when that has ended.
    async fn fetch_ahead(
        self: Arc<Self>,
        site: Arc<Site>,
        protocol: &'static dyn Protocol,
        resource: Resource,
    ) {
        let (place, held) = self.look(protocol, &resource).await;
        if held.is_some() {
            return;
        }
        let want = Want { interest: Interest::Body, via: None };
        let call = Call { site: &site, protocol, resource: &resource, want };
        if let Ok((fill, started)) = self.join(call, place, None, Company::Any) {
            if started {
                site.meters.read_ahead();
            }
            // Its failure has been noted as any.
            let _ = fill.settled().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(name: &str) -> ProxyId {
        format!("container/{name}/refs/a").parse::<RefKey>().expect("valid").proxy
    }

    fn links(sizes: &[Option<u64>]) -> Vec<Claim> {
        let claim = |(number, size): (usize, &Option<u64>)| Claim {
            digest: Digest::of(&number.to_le_bytes()),
            size: *size,
        };
        sizes.iter().enumerate().map(claim).collect()
    }

    /// Which parts of a document are worth fetching along with one.
    fn after(sizes: &[Option<u64>], at: usize) -> Vec<usize> {
        let (ahead, links) = (ReadAhead::new(), links(sizes));
        ahead.note(&proxy("hub"), "app", &links);
        let found = ahead.after(&proxy("hub"), "app", links[at].digest);
        found.iter().map(|found| links.iter().position(|link| link == found).expect("one of them")).collect()
    }

    #[test]
    fn so_many_follow_and_none_that_is_large_or_of_unknown_size() {
        let small = Some(1000);
        assert_eq!(after(&[small; 20], 3), [4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(after(&[small; 6], 3), [4, 5], "to the end");
        assert_eq!(after(&[small; 6], 5), [] as [usize; 0]);
        assert_eq!(after(&[small; 6], 0), [] as [usize; 0], "it may be all that is wanted");
        let large = Some(PART_BYTES + 1);
        let sizes = [small, small, large, None, small, Some(PART_BYTES), Some(PART_BYTES), small];
        assert_eq!(after(&sizes, 1), [4, 5, 7], "no more than all may have together");
        let mut many = vec![large; WINDOW + 2];
        many.push(small);
        assert_eq!(after(&many, 1), [] as [usize; 0], "nothing that is far away");
    }

    #[test]
    fn an_order_is_of_one_proxy_and_scope_and_the_newest_counts() {
        let ahead = ReadAhead::new();
        let old = links(&[Some(1), Some(2), Some(3), Some(4)]);
        ahead.note(&proxy("hub"), "app", &old);
        let second = old[1].digest;
        assert_eq!(ahead.after(&proxy("hub"), "app", second), old[2..]);
        assert_eq!(ahead.after(&proxy("other"), "app", second), []);
        assert_eq!(ahead.after(&proxy("hub"), "other", second), []);
        let new = [old[0], old[1], old[3]];
        ahead.note(&proxy("hub"), "app", &new);
        assert_eq!(ahead.after(&proxy("hub"), "app", second), new[2..]);
        ahead.note(&proxy("hub"), "one", &old[..2]);
        assert_eq!(ahead.after(&proxy("hub"), "one", second), [], "nothing follows");
        let many = links(&vec![Some(1); PARTS + 9]);
        ahead.note(&proxy("hub"), "many", &many);
        assert_eq!(ahead.after(&proxy("hub"), "many", many[PARTS - 3].digest).len(), 2, "it is bounded");
    }
}
