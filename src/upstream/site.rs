//! What is remembered about one origin that is asked: breaker, pauses, permits, and how it wants to
//! be authenticated. In memory only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use url::Url;

use super::UpstreamError;
use super::breaker::{Breaker, Pass};
use super::credentials::Login;
use super::retry::Pauses;
use super::settings::Limits;
use super::trust::shown;

/// The most origins beside the bases that are remembered.
const MAX_OTHERS: usize = 256;

/// One origin.
#[derive(Debug)]
pub(super) struct Site {
    /// Host and port, as refs and errors call it.
    pub(super) host: String,
    /// Requests in flight, bodies included.
    pub(super) permits: Arc<Semaphore>,
    origin: String,
    breaker: Mutex<Breaker>,
    pauses: Mutex<Pauses<Login>>,
    scheme: Mutex<Option<Scheme>>,
}

/// How an origin wants to be authenticated, by its last challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scheme {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

impl Site {
    fn new(url: &Url, limits: &Limits) -> Self {
        let host = url.host_str().unwrap_or_default();
        Self {
            host: url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
            permits: Arc::new(Semaphore::new(limits.in_flight)),
            origin: shown(url),
            breaker: Mutex::new(Breaker::new(limits.breaker)),
            pauses: Mutex::new(Pauses::new()),
            scheme: Mutex::new(None),
        }
    }

    /// Whether it may be asked now by this identity.
    pub(super) fn check(&self, login: &Login, now: Instant) -> Result<(), UpstreamError> {
        if let Some(left) = lock(&self.pauses).left(login, now) {
            return Err(UpstreamError::RateLimited { retry_after: Some(left), asked: false });
        }
        match lock(&self.breaker).wait(now) {
            Some(retry_after) => Err(UpstreamError::Open { retry_after }),
            None => Ok(()),
        }
    }

    /// Lets a request through. What became of it must be told to the guard.
    pub(super) fn admit(self: &Arc<Self>, login: &Login) -> Result<Admitted, UpstreamError> {
        let now = Instant::now();
        self.check(login, now)?;
        let pass =
            lock(&self.breaker).admit(now).map_err(|retry_after| UpstreamError::Open { retry_after })?;
        Ok(Admitted { site: Arc::clone(self), pass: Some(pass) })
    }

    /// Leaves it alone for a while on behalf of an identity.
    pub(super) fn pause(&self, login: &Login, pause: Duration) {
        tracing::info!(
            upstream = self.origin,
            seconds = pause.as_secs(),
            "upstream limits the rate of requests"
        );
        lock(&self.pauses).extend(login.clone(), pause, Instant::now());
    }

    /// How it wants to be authenticated, if it has ever said so.
    pub(super) fn scheme(&self) -> Option<Scheme> {
        lock(&self.scheme).clone()
    }

    /// Remembers how it wants to be authenticated.
    pub(super) fn learn(&self, scheme: Scheme) {
        *lock(&self.scheme) = Some(scheme);
    }
}

/// A request under way. Dropped without an outcome, it leaves the breaker as if it had never been.
#[derive(Debug)]
pub(super) struct Admitted {
    site: Arc<Site>,
    pass: Option<Pass>,
}

impl Admitted {
    /// Tells the breaker what became of the request.
    pub(super) fn report<T>(mut self, outcome: &Result<T, UpstreamError>) {
        let Some(pass) = self.pass.take() else { return };
        let now = Instant::now();
        let mut breaker = lock(&self.site.breaker);
        match outcome {
            Err(error) if error.is_trouble() => {
                if breaker.failed(pass, now) {
                    tracing::warn!(upstream = self.site.origin, %error, "upstream counts as down");
                }
            }
            Ok(_) | Err(_) => breaker.succeeded(pass, now),
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            lock(&self.site.breaker).abandoned(pass, Instant::now());
        }
    }
}

/// All origins of one upstream.
#[derive(Debug)]
pub(super) struct Sites {
    bases: Vec<Arc<Site>>,
    others: Mutex<HashMap<String, Arc<Site>>>,
}

impl Sites {
    pub(super) fn new(bases: &[Url], limits: &Limits) -> Self {
        let bases = bases.iter().map(|base| Arc::new(Site::new(base, limits))).collect();
        Self { bases, others: Mutex::default() }
    }

    /// The sites of the bases, in their order.
    pub(super) fn bases(&self) -> &[Arc<Site>] {
        &self.bases
    }

    /// Lets all of them be asked once more that are being left alone because they failed.
    pub(super) fn reconsider(&self) {
        let now = Instant::now();
        for site in self.bases.iter().chain(lock(&self.others).values()) {
            lock(&site.breaker).reconsider(now);
        }
    }

    /// The site of any URL.
    pub(super) fn of(&self, url: &Url, limits: &Limits) -> Arc<Site> {
        let origin = shown(url);
        let mut others = lock(&self.others);
        if let Some(known) = self.bases.iter().find(|site| site.origin == origin).or(others.get(&origin)) {
            return Arc::clone(known);
        }
        if others.len() >= MAX_OTHERS {
            // Those in use are kept; what is forgotten is only how the others fared.
            others.retain(|_, site| Arc::strong_count(site) > 1);
        }
        let site = Arc::new(Site::new(url, limits));
        if others.len() < MAX_OTHERS {
            others.insert(origin, Arc::clone(&site));
        }
        site
    }
}

/// Nothing panics while it holds one of these locks; and if it did, the state would still be good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_about_other_hosts_is_bounded() {
        let limits = Limits::default();
        let base: Url = "https://base.example".parse().expect("a URL");
        let sites = Sites::new(std::slice::from_ref(&base), &limits);
        assert!(Arc::ptr_eq(&sites.of(&base, &limits), &sites.bases()[0]));
        for host in 0..=MAX_OTHERS {
            sites.of(&format!("https://h{host}.example").parse().expect("a URL"), &limits);
        }
        assert!(sites.others.lock().expect("no panics").len() <= MAX_OTHERS);
    }

    #[test]
    fn a_request_that_is_dropped_without_outcome_frees_the_probe() {
        let limits = Limits::default();
        let site = Arc::new(Site::new(&"https://base.example".parse().expect("a URL"), &limits));
        for _ in 0..5 {
            let failed: Result<(), _> = Err(UpstreamError::Status(500));
            site.admit(&Login::None).expect("closed").report(&failed);
        }
        assert!(matches!(site.admit(&Login::None), Err(UpstreamError::Open { .. })));
        lock(&site.breaker)
            .abandoned(Breaker::new(limits.breaker).admit(Instant::now()).expect("a pass"), Instant::now());
        assert!(matches!(site.admit(&Login::None), Err(UpstreamError::Open { .. })), "not a probe");
    }
}
