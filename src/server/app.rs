//! From a request to the dialect that owns it, to the engine, and back.
//!
//! The hot path asks the engine for a ready answer by the request target alone and needs neither a
//! filter nor a dialect nor a future. Everything else goes through [`Protocol::route`]. Of the two, only
//! the second may wait.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use metrics_exporter_prometheus::PrometheusHandle;

use super::answer::{self, Content, Response};
use super::exchange::Exchange;
use super::health::{self, Lifecycle};
use crate::cache::{Body, Cache, Era, Interest, Outcome, Reader, ReadyBody, Refused, Served, Want, Way};
use crate::model::{ProxyId, ProxyTable, Resource, Timestamp};
use crate::protocol::{
    Derive, Document, Fetch, Gathered, Need, Part, Protocol, Refusal, Reply, Route, Unrouted,
};

/// The most bytes of a document that is rewritten, where its resource gives no limit.
const MAX_DOCUMENT: u64 = 64 << 20;

/// The largest body of a request that is handed on.
const MAX_REQUEST: usize = 4 << 20;

/// The longest that such a body may take to arrive.
const REQUEST_PATIENCE: Duration = Duration::from_secs(60);

/// What `Cache-Status` says of a document that is composed of what is cached.
const DERIVED: &str = "derived";

/// How often a dialect may find that it has to know more.
const MAX_ROUNDS: usize = 8;

/// Everything that requests are answered from.
#[derive(Debug)]
pub struct App {
    /// The engine.
    pub cache: Arc<Cache>,
    /// The dialects, in the order in which they are asked whose a path is.
    pub protocols: &'static [&'static dyn Protocol],
    /// The configured proxies.
    pub proxies: ProxyTable,
    /// The counters, for `/-/metrics`.
    pub metrics: PrometheusHandle,
    /// Whether the server is ready, for `/-/ready`.
    pub lifecycle: Arc<Lifecycle>,
}

/// An answer, now or later. Boxed only if it has to wait, so that a hit moves nothing large.
pub(super) enum Answering {
    Now(Response),
    Later(BoxFuture<'static, Response>),
}

/// What a server serves.
pub(super) trait Application: Send + Sync + 'static {
    /// Whether it answers for a target that is another server's.
    fn stands_for(&self, exchange: &Exchange) -> bool;

    /// A ready answer from memory, if there is one.
    fn ready(&self, exchange: &Exchange) -> Option<Response>;

    /// Answers a request for which there was none.
    fn answer(self: Arc<Self>, exchange: Arc<Exchange>) -> Answering;

    /// Waits until what clients have got is stored. Called when there are no clients any more.
    fn finish(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

impl Application for App {
    fn stands_for(&self, exchange: &Exchange) -> bool {
        let head = exchange.head();
        self.protocols.iter().any(|protocol| protocol.owns(&head, &self.proxies))
    }

    async fn finish(&self) {
        self.cache.finish().await;
    }

    fn ready(&self, exchange: &Exchange) -> Option<Response> {
        if !exchange.is_read() || exchange.survey.looped {
            return None;
        }
        let directed = exchange.survey.directed.then_some(&exchange.headers);
        let ready = self.cache.ready(exchange.target()?, directed)?;
        let mut headers = ready.headers.clone();
        let age = seconds(ready.fetched_at, self.cache.clock().now());
        answer::stamp(&mut headers, Some(age), answer::HIT);
        exchange.belongs_to(Arc::clone(&ready.meters));
        exchange.settle(Outcome::Hit.as_str());
        let content = match &ready.body {
            ReadyBody::Memory(bytes) => Content::Memory(bytes.clone()),
            ReadyBody::Blob(_) => Content::Body(ready.body()),
        };
        Some(answer::content(exchange, headers, Some(ready.size()), content))
    }

    fn answer(self: Arc<Self>, exchange: Arc<Exchange>) -> Answering {
        let head = exchange.head();
        let Some(&protocol) = self.protocols.iter().find(|protocol| protocol.owns(&head, &self.proxies))
        else {
            let path = exchange.uri.path();
            let page = health::page(path, exchange.is_read(), &self.lifecycle, &self.metrics);
            return Answering::Now(local(&exchange, page));
        };
        if exchange.survey.looped {
            return Answering::Now(refused(&exchange, protocol, &Refusal::Loop.into()));
        }
        match protocol.route(&head, &self.proxies, &Gathered::default()) {
            Ok(Route::Local(reply)) => Answering::Now(local(&exchange, reply)),
            Err(Unrouted::Refused(refusal)) => Answering::Now(refused(&exchange, protocol, &refusal.into())),
            routed => Answering::Later(Box::pin(async move {
                let answered = self.answer_later(&exchange, protocol, routed).await;
                answered.unwrap_or_else(|why| refused(&exchange, protocol, &why))
            })),
        }
    }
}

impl App {
    /// Gathers what the dialect needs until it can route the request, and answers it.
    async fn answer_later(
        &self,
        exchange: &Exchange,
        protocol: &'static dyn Protocol,
        mut routed: Result<Route, Unrouted>,
    ) -> Result<Response, Refused> {
        let mut gathered = Gathered::default();
        for _ in 0..MAX_ROUNDS {
            if let Some(meters) = proxy_of(&routed).and_then(|proxy| self.cache.meters(proxy)) {
                exchange.belongs_to(meters);
            }
            match routed {
                Ok(Route::Local(reply)) => return Ok(local(exchange, reply)),
                Ok(Route::Made(document)) => return Ok(self.made_of(exchange, &gathered, document)),
                Ok(Route::Derive(derive)) => return Box::pin(self.derive(exchange, protocol, &derive)).await,
                Ok(Route::Forward(resource)) => {
                    return Box::pin(self.forward(exchange, protocol, *resource)).await;
                }
                Ok(Route::Fetch(fetch)) => {
                    return self.fetch(exchange, protocol, &fetch, gathered.is_empty()).await;
                }
                Ok(Route::Held { fetch, otherwise }) => {
                    return Box::pin(self.held(exchange, protocol, &fetch, &otherwise)).await;
                }
                Err(Unrouted::Refused(refusal)) => return Err(refusal.into()),
                Err(Unrouted::Needs(needs)) => {
                    let via = exchange.via();
                    Box::pin(self.cache.gather(protocol, needs, via.as_deref(), &mut gathered)).await;
                    routed = protocol.route(&exchange.head(), &self.proxies, &gathered);
                }
            }
        }
        tracing::error!(resource = %exchange.uri, "a dialect never has enough");
        Err(Refusal::Internal.into())
    }

    /// Serves a resource. `lasting` says that the target alone decides which resource it is, so that
    /// the answer may be kept ready under the target.
    async fn fetch(
        &self,
        exchange: &Exchange,
        protocol: &'static dyn Protocol,
        fetch: &Fetch,
        lasting: bool,
    ) -> Result<Response, Refused> {
        let via = exchange.via();
        let want = Want { interest: interest(exchange, fetch), via: via.as_deref() };
        let era = lasting.then(|| self.cache.era());
        let served = self.cache.fetch(protocol, fetch, want).await?;
        self.show(exchange, protocol, fetch, served, era).await
    }

    /// Serves a resource from the cache alone.
    async fn held(
        &self,
        exchange: &Exchange,
        protocol: &'static dyn Protocol,
        fetch: &Fetch,
        otherwise: &Refusal,
    ) -> Result<Response, Refused> {
        let want = Want { interest: interest(exchange, fetch), via: None };
        let served = self.cache.held(protocol, fetch, want, otherwise).await?;
        self.show(exchange, protocol, fetch, served, None).await
    }

    /// Answers with what was served, and keeps it ready if it was looked for in an era of the ready answers.
    async fn show(
        &self,
        exchange: &Exchange,
        protocol: &'static dyn Protocol,
        fetch: &Fetch,
        served: Served,
        era: Option<Era>,
    ) -> Result<Response, Refused> {
        exchange.settle(served.outcome.as_str());

        let now = self.cache.clock().now();
        let age = Some(served.reference.current_age(now).as_secs());
        let status = answer::status_of(&served, now);
        if fetch.rewrite {
            let document = Box::pin(rewrite(exchange, protocol, fetch, served)).await?;
            let mut headers = answer::document_headers(&document);
            answer::stamp(&mut headers, age, status);
            return Ok(made(exchange, headers, document.body));
        }

        let extra = protocol.headers(&exchange.head(), fetch, &served.reference);
        let mut headers = answer::headers(&served, extra);
        answer::stamp(&mut headers, age, status);
        let code = StatusCode::from_u16(served.reference.status()).unwrap_or(StatusCode::BAD_GATEWAY);
        if code != StatusCode::OK {
            return Ok(answer::relayed(exchange, code, headers, served.body));
        }
        if let Some(era) = era
            && served.size.is_some()
            && let Some(target) = exchange.target()
        {
            self.cache.keep_ready(era, target, &fetch.resource, &served, &headers);
        }
        Ok(answer::content(exchange, headers, served.size, Content::Body(served.body)))
    }

    /// Hands a request on to upstream with its body, and the answer back.
    async fn forward(
        &self,
        exchange: &Exchange,
        protocol: &'static dyn Protocol,
        resource: Resource,
    ) -> Result<Response, Refused> {
        let body = receive(exchange).await?;
        let via = exchange.via();
        let want = Want { interest: Interest::Body, via: via.as_deref() };
        let act = (exchange.method.clone(), body);
        let served = self.cache.forward(protocol, &resource, act, want).await?;
        exchange.settle(served.outcome.as_str());
        let now = self.cache.clock().now();
        let fetch = Fetch { resource, rewrite: false };
        let extra = protocol.headers(&exchange.head(), &fetch, &served.reference);
        let mut headers = answer::headers(&served, extra);
        let age = Some(served.reference.current_age(now).as_secs());
        answer::stamp(&mut headers, age, answer::status_of(&served, now));
        let code = StatusCode::from_u16(served.reference.status()).unwrap_or(StatusCode::BAD_GATEWAY);
        Ok(answer::relayed(exchange, code, headers, served.body))
    }

    async fn derive(
        &self,
        exchange: &Exchange,
        protocol: &'static dyn Protocol,
        derive: &Derive,
    ) -> Result<Response, Refused> {
        let names = self.cache.names(protocol, derive).await?;
        let document = protocol.derive(&exchange.head(), derive, &names)?;
        exchange.settle("derived");
        let mut headers = answer::document_headers(&document);
        answer::stamp(&mut headers, None, answer::cache_status(Way::Cache, None, Some(DERIVED)));
        Ok(made(exchange, headers, document.body))
    }

    /// Answers with a document that was made of others; it is as old as the oldest of them.
    fn made_of(&self, exchange: &Exchange, gathered: &Gathered, document: Document) -> Response {
        exchange.settle("derived");
        let now = self.cache.clock().now();
        let oldest = gathered.documents().map(|(_, gotten)| gotten.reference.fetched_at).min();
        let mut headers = answer::document_headers(&document);
        let age = Some(seconds(oldest.unwrap_or(now), now));
        // Some of it may have been fetched for it, some not.
        answer::stamp(&mut headers, age, answer::cache_status(Way::Here, None, Some(DERIVED)));
        made(exchange, headers, document.body)
    }
}

/// What is needed of a resource: a document that is rewritten is needed whole in any case.
fn interest(exchange: &Exchange, fetch: &Fetch) -> Interest {
    if exchange.is_head() && !fetch.rewrite { Interest::Head } else { Interest::Body }
}

/// A document as a dialect shows it. What is stored stays what upstream sent.
async fn rewrite(
    exchange: &Exchange,
    protocol: &dyn Protocol,
    fetch: &Fetch,
    served: Served,
) -> Result<Document, Refusal> {
    let limit = fetch.resource.delivery.limit().unwrap_or(MAX_DOCUMENT);
    let bytes = collect(served.body, limit).await?;
    protocol.rewrite(&exchange.head(), &served.reference, &bytes)
}

/// The body of a request, whole.
async fn receive(exchange: &Exchange) -> Result<Bytes, Refusal> {
    let Some(body) = exchange.take_body() else { return Ok(Bytes::new()) };
    let why = |why| Refusal::Invalid { what: Part::Body, why };
    let collected = tokio::time::timeout(REQUEST_PATIENCE, Limited::new(body, MAX_REQUEST).collect());
    match collected.await {
        Ok(Ok(body)) => {
            exchange.body_was_read();
            Ok(body.to_bytes())
        }
        Ok(Err(_)) => Err(why("it broke, or is larger than 4 MiB")),
        Err(_) => Err(why("it did not come in time")),
    }
}

/// All bytes of a body, if they are no more than `limit`.
async fn collect(body: Body, limit: u64) -> Result<Bytes, Refusal> {
    if let Some(bytes) = body.in_memory() {
        return Ok(bytes.clone());
    }
    let mut stream = body.stream(0..u64::MAX, Reader::Program);
    let mut bytes = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Refusal::BadUpstream("the document ended early"))?;
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(Refusal::TooLarge { limit });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn made(exchange: &Exchange, headers: HeaderMap, body: Bytes) -> Response {
    let size = Some(body.len() as u64);
    answer::content(exchange, headers, size, Content::Memory(body))
}

fn local(exchange: &Exchange, reply: Reply) -> Response {
    exchange.settle("local");
    answer::reply(exchange.is_head(), reply)
}

fn refused(exchange: &Exchange, protocol: &dyn Protocol, why: &Refused) -> Response {
    let Refused { refusal, way, detail } = why;
    // The client hears of it too, but is seldom who can do something about it.
    if let Refusal::Untrusted { why } = refusal {
        tracing::warn!(resource = %exchange.shown(), why, "upstream sent what cannot be trusted");
    }
    exchange.settle("refused");
    let mut response = answer::reply(exchange.is_head(), protocol.refuse(&exchange.head(), refusal));
    answer::stamp(response.headers_mut(), None, answer::cache_status(*way, None, Some(detail)));
    response
}

/// What a client gets whose request made a handler panic.
pub(super) fn broken(exchange: &Exchange) -> Response {
    exchange.settle("panicked");
    let text = health::text(StatusCode::INTERNAL_SERVER_ERROR, "internal error; the log has the details\n");
    answer::reply(exchange.is_head(), text)
}

/// Whose request it is, if that can be told by now.
fn proxy_of(routed: &Result<Route, Unrouted>) -> Option<&ProxyId> {
    match routed {
        Ok(Route::Fetch(fetch) | Route::Held { fetch, .. }) => Some(&fetch.resource.key.proxy),
        Ok(Route::Forward(resource)) => Some(&resource.key.proxy),
        Ok(Route::Derive(Derive::Scopes { proxy, .. })) => proxy.as_ref(),
        Err(Unrouted::Needs(needs)) => needs.first().map(Need::proxy),
        Ok(Route::Made(_) | Route::Local(_)) | Err(Unrouted::Refused(_)) => None,
    }
}

/// Whole seconds from `then` to `now`; none if the clock has gone back.
fn seconds(then: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.as_second() - then.as_second()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_never_negative() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        assert_eq!(seconds(at(5), at(9)), 4);
        assert_eq!(seconds(at(9), at(5)), 0);
        assert_eq!(seconds(Timestamp::MAX, Timestamp::MIN), 0);
    }
}
