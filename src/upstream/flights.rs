//! Values that are fetched by one and used by many until they expire.
//!
//! Invariants: at most one fetch a key at a time; followers get the leader's result, failure
//! included; a failure is not kept; no more than [`MAX_ENTRIES`] values are kept. A fetch lives in
//! those who wait for it: if all leave, it stands still, and the next one to ask takes it up again.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use super::UpstreamError;

/// The most values that are kept.
pub(super) const MAX_ENTRIES: usize = 4096;

/// A value and how long it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease<V> {
    pub(super) value: V,
    pub(super) until: Instant,
}

type Fetching<V> = Shared<BoxFuture<'static, Result<Lease<V>, UpstreamError>>>;

/// See the module.
pub(super) struct Flights<K, V: Clone>(Mutex<HashMap<K, Fetching<V>>>);

impl<K: Eq + Hash + Clone, V: Clone + PartialEq> Flights<K, V> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// The value for a key: one that holds, or what `fetch` gives, or what the fetch under way gives.
    pub(super) async fn get<F>(
        &self,
        key: &K,
        now: Instant,
        fetch: impl FnOnce() -> F,
    ) -> Result<V, UpstreamError>
    where
        F: Future<Output = Result<Lease<V>, UpstreamError>> + Send + 'static,
    {
        let flight = {
            let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(flight) = flights.get(key).filter(|flight| is_good(flight, now)) {
                flight.clone()
            } else {
                make_room(&mut flights, now);
                let flight = fetch().boxed().shared();
                flights.insert(key.clone(), flight.clone());
                flight
            }
        };
        flight.await.map(|lease| lease.value)
    }

    /// Forgets a value that turned out to be bad; one that has taken its place stays.
    pub(super) fn forget(&self, key: &K, bad: &V) {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_bad = |flight: &Fetching<V>| {
            flight.peek().is_some_and(|result| result.as_ref().is_ok_and(|lease| lease.value == *bad))
        };
        if flights.get(key).is_some_and(is_bad) {
            flights.remove(key);
        }
    }
}

/// Under way, or a value that holds.
fn is_good<V: Clone>(flight: &Fetching<V>, now: Instant) -> bool {
    flight.peek().is_none_or(|result| result.as_ref().is_ok_and(|lease| lease.until > now))
}

fn make_room<K: Eq + Hash, V: Clone>(flights: &mut HashMap<K, Fetching<V>>, now: Instant) {
    if flights.len() >= MAX_ENTRIES {
        flights.retain(|_, flight| is_good(flight, now));
    }
    if flights.len() >= MAX_ENTRIES {
        flights.clear();
    }
}

impl<K, V: Clone> fmt::Debug for Flights<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    fn lease(value: u32, until: Instant) -> Lease<u32> {
        Lease { value, until }
    }

    #[tokio::test]
    async fn many_who_ask_at_once_share_one_fetch() {
        let (flights, fetches, now) = (Flights::new(), AtomicUsize::new(0), Instant::now());
        let (answer, wait) = oneshot::channel();
        let mut wait = Some(wait);
        let mut get = || {
            let wait = wait.take();
            flights.get(&"key", now, || {
                fetches.fetch_add(1, Ordering::SeqCst);
                async move {
                    Ok(lease(wait.expect("only one").await.expect("sent"), now + Duration::from_secs(9)))
                }
            })
        };
        let (one, two) = (get(), get());
        answer.send(7).expect("waited for");
        let (one, two) = tokio::join!(one, two);
        assert_eq!((one.expect("good"), two.expect("good")), (7, 7));
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_value_is_fetched_anew_when_it_expired_was_forgotten_or_could_not_be_had() {
        let (flights, now) = (Flights::new(), Instant::now());
        let later = now + Duration::from_secs(10);
        let error = flights.get(&"key", now, || async { Err(UpstreamError::NotFound) }).await;
        assert!(matches!(error, Err(UpstreamError::NotFound)));
        let get = async |at, value| {
            flights.get(&"key", at, || async move { Ok(lease(value, later)) }).await.expect("good")
        };
        assert_eq!(get(now, 1).await, 1);
        assert_eq!(get(now, 2).await, 1, "it holds");
        flights.forget(&"key", &9);
        assert_eq!(get(now, 3).await, 1, "another one was bad");
        flights.forget(&"key", &1);
        assert_eq!(get(now, 4).await, 4);
        assert_eq!(get(later, 5).await, 5);
    }

    #[tokio::test]
    async fn a_fetch_whose_leader_left_is_taken_up_by_the_next() {
        let (flights, now) = (Flights::new(), Instant::now());
        let (answer, wait) = oneshot::channel();
        let leader = flights.get(&"key", now, || async move { Ok(lease(wait.await.expect("sent"), now)) });
        assert!(leader.now_or_never().is_none());
        answer.send(3).expect("waited for");
        assert_eq!(flights.get(&"key", now, || async { unreachable!() }).await.expect("good"), 3);
    }

    #[tokio::test]
    async fn no_more_values_are_kept_than_the_bound() {
        let (flights, now) = (Flights::new(), Instant::now());
        for key in 0..=MAX_ENTRIES {
            flights
                .get(&key, now, || async move { Ok(lease(0, now + Duration::from_secs(9))) })
                .await
                .expect("good");
        }
        assert!(flights.0.lock().expect("no panics").len() <= MAX_ENTRIES);
    }
}
