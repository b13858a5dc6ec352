//! Between hyper and the application: the requests of one connection.
//!
//! Each is looked over and ticketed. If there is a ready answer, that is it; else the request is handed to
//! one catch-all warp filter. The head travels as one shared [`Exchange`] in the request's extensions, so
//! that no filter clones a header map; so does the body, for the application to take. On HTTP/1 an answer that comes before the end of the request's
//! body is the last on its connection. A panic in a handler is that client's 500 and nobody else's.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{Either, ready};
use http::header::{ALLOW, CONNECTION};
use http::{HeaderValue, Request, Response as HttpResponse, StatusCode, Version};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use warp::Filter as _;

use super::answer::{self, Response, ResponseBody};
use super::app::{Answering, Application, broken};
use super::check::{Fault, Own, check};
use super::exchange::{Exchange, Ticket, Tracked};
use super::health;
use super::listen::Shared;
use super::watch::Watch;
use crate::cache::Reader;

/// What a connection asks for answers. One for the whole server; each connection has a clone.
pub(super) trait Edge: Clone + Send + 'static {
    /// An answer that has to be found first.
    type Later: Future<Output = Result<Response, Infallible>> + Send;

    /// The answer, if it is ready.
    fn ready(&self, exchange: &Exchange) -> Option<Response>;

    /// Finds the answer.
    fn answer(&self, exchange: Arc<Exchange>) -> Self::Later;
}

/// The application behind one warp filter, with its ready answers in front.
#[derive(Debug)]
pub(super) struct Filtered<A, S> {
    application: Arc<A>,
    shared: Arc<Shared>,
    filter: S,
}

impl<A, S: Clone> Clone for Filtered<A, S> {
    fn clone(&self) -> Self {
        let (application, shared) = (Arc::clone(&self.application), Arc::clone(&self.shared));
        Self { application, shared, filter: self.filter.clone() }
    }
}

impl<A, S> Edge for Filtered<A, S>
where
    A: Application,
    S: Service<Request<Empty<Bytes>>, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
{
    type Later = S::Future;

    fn ready(&self, exchange: &Exchange) -> Option<Response> {
        catch_unwind(AssertUnwindSafe(|| self.application.ready(exchange)))
            .unwrap_or_else(|_| Some(panicked(&self.shared, exchange)))
    }

    fn answer(&self, exchange: Arc<Exchange>) -> S::Future {
        let mut request = Request::new(Empty::new());
        request.extensions_mut().insert(exchange);
        self.filter.call(request)
    }
}

/// Puts the application behind one warp filter.
pub(super) fn edge<A: Application>(application: Arc<A>, shared: Arc<Shared>) -> impl Edge {
    let (own, all) = (Arc::clone(&application), Arc::clone(&shared));
    let filter = warp::ext::get::<Arc<Exchange>>()
        .then(move |exchange| answer(Arc::clone(&own), Arc::clone(&all), exchange));
    Filtered { application, shared, filter: TowerToHyperService::new(warp::service(filter)) }
}

/// Answers, whatever happens.
fn answer<A: Application>(
    application: Arc<A>,
    shared: Arc<Shared>,
    exchange: Arc<Exchange>,
) -> impl Future<Output = Response> + Send {
    // Nothing that is shared between requests is left half changed by a handler that unwinds: the
    // engine's fills are tasks of their own, and its maps are changed in one step.
    if exchange.survey.foreign && !application.stands_for(&exchange) {
        exchange.settle("refused");
        let reply = health::text(StatusCode::MISDIRECTED_REQUEST, "this is not an open proxy\n");
        return Either::Left(ready(answer::reply(exchange.is_head(), reply)));
    }
    let own = Arc::clone(&exchange);
    match catch_unwind(AssertUnwindSafe(|| application.answer(own))) {
        Ok(Answering::Now(response)) => Either::Left(ready(response)),
        Ok(Answering::Later(later)) => Either::Right(
            AssertUnwindSafe(later)
                .catch_unwind()
                .map(move |outcome| outcome.unwrap_or_else(|_| panicked(&shared, &exchange))),
        ),
        Err(_) => Either::Left(ready(panicked(&shared, &exchange))),
    }
}

/// What a client gets whose request made a handler panic.
fn panicked(shared: &Shared, exchange: &Exchange) -> Response {
    shared.meters.panics.increment(1);
    broken(exchange)
}

/// What the requests of one connection have in common.
#[derive(Debug)]
pub(super) struct Line {
    /// The client's address.
    pub(super) peer: SocketAddr,
    /// The address it connected to.
    pub(super) local: SocketAddr,
    /// Whether it came over TLS.
    pub(super) tls: bool,
    /// Its marks.
    pub(super) watch: Arc<Watch>,
    /// The server.
    pub(super) shared: Arc<Shared>,
}

/// Answers one request of a connection.
pub(super) fn respond<E: Edge>(
    line: &Line,
    edge: &E,
    request: Request<Incoming>,
) -> impl Future<Output = Result<HttpResponse<Tracked<ResponseBody>>, Infallible>> + Send + use<E> {
    let (head, body) = request.into_parts();
    let version = head.version;
    line.watch.began(version == Version::HTTP_2);
    let shared = Arc::clone(&line.shared);
    let checked = check(
        &head,
        Own {
            instance: &shared.instance,
            authorities: &shared.authorities,
            local: line.local,
            default_port: if line.tls { 443 } else { 80 },
        },
    );
    let survey = checked.unwrap_or_default();
    // HTTP/1.1 hands frames to the socket as they are; TLS and HTTP/2 put their own around them.
    let plain = !line.tls && version != Version::HTTP_2;
    let reader = if plain { Reader::Kernel } else { Reader::Program };
    let exchange = Arc::new(Exchange::new(head, survey, line.peer, reader).with_body(body));
    let watch = Arc::clone(&line.watch);
    let ticket = Ticket::new(Arc::clone(&exchange), Arc::clone(&watch), shared.journal.begin());
    let now = match checked {
        Ok(_) => edge.ready(&exchange),
        Err(fault) => Some(refuse(&exchange, fault, version)),
    };
    let answered = match now {
        Some(response) => Either::Left(ready(Ok(response))),
        None => Either::Right(edge.answer(exchange)),
    };
    answered.map(move |answered| {
        answered.map(|mut response| {
            match ticket.leaves_body() {
                Some(true) if version < Version::HTTP_2 => {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    watch.left_unread();
                }
                Some(false) => watch.read_whole(),
                _ => {}
            }
            shared.meters.answered(response.status());
            ticket.attach(response)
        })
    })
}

/// Words a fault. What follows on the connection cannot be trusted to be what it seems.
fn refuse(exchange: &Exchange, fault: Fault, version: Version) -> Response {
    exchange.settle("refused");
    let mut reply = health::text(fault.status, fault.why);
    if fault.status == StatusCode::METHOD_NOT_ALLOWED {
        reply.headers.push((ALLOW, HeaderValue::from_static("GET, HEAD")));
    }
    if version < Version::HTTP_2 {
        reply.headers.push((CONNECTION, HeaderValue::from_static("close")));
    }
    answer::reply(exchange.is_head(), reply)
}
