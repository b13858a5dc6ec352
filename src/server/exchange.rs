//! One request and what becomes of its answer.
//!
//! An [`Exchange`] is the request head, shared by everybody who works on it. A [`Ticket`] is the duty
//! to account for the answer: it is taken out when the request has been read, goes along with the
//! handler and then with the body, and pays on drop, whichever way the exchange ends.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Response, StatusCode, Uri, request};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::check::Survey;
use super::log::Entry;
use super::watch::Watch;
use crate::cache::{ProxyMeters, Reader};
use crate::protocol::Head;

/// A request.
#[derive(Debug)]
pub(super) struct Exchange {
    /// The method.
    pub(super) method: Method,
    /// The target; whether an authority in it is ours, `survey` says.
    pub(super) uri: Uri,
    /// The header fields.
    pub(super) headers: HeaderMap,
    /// What a first look at them told.
    pub(super) survey: Survey,
    /// Where it came from.
    pub(super) peer: SocketAddr,
    /// Who reads the frames of its answer.
    pub(super) reader: Reader,
    /// Its body, until somebody takes it; of most there is none.
    body: Mutex<Option<Incoming>>,
    /// It came with a body.
    has_body: bool,
    /// Nobody has read the body to its end.
    unread: AtomicBool,
    /// How the answer came about, in the word for the log.
    outcome: OnceLock<&'static str>,
    /// Whose request it is: the proxy that the log names and the bytes are counted for.
    meters: OnceLock<Arc<ProxyMeters>>,
}

impl Exchange {
    /// A request that has come in.
    pub(super) fn new(head: request::Parts, survey: Survey, peer: SocketAddr, reader: Reader) -> Self {
        let request::Parts { method, uri, headers, .. } = head;
        Self {
            method,
            uri,
            headers,
            survey,
            peer,
            reader,
            body: Mutex::default(),
            has_body: false,
            unread: AtomicBool::default(),
            outcome: OnceLock::new(),
            meters: OnceLock::new(),
        }
    }

    /// The same with its body.
    pub(super) fn with_body(self, body: Incoming) -> Self {
        let has_body = !body.is_end_stream();
        Self { body: Mutex::new(has_body.then_some(body)), has_body, unread: has_body.into(), ..self }
    }

    /// The body, once, if there is one. Whoever reads it to its end says so by [`Self::body_was_read`].
    pub(super) fn take_body(&self) -> Option<Incoming> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Says that nothing of the body is left.
    pub(super) fn body_was_read(&self) {
        self.unread.store(false, Relaxed);
    }

    /// Gives up what nobody has read of the body; whether there was any. `None` if there was no body.
    fn leave_body(&self) -> Option<bool> {
        self.has_body.then(|| {
            drop(self.take_body());
            self.unread.load(Relaxed)
        })
    }

    /// The path and query as sent; of a target that is this server's own.
    pub(super) fn target(&self) -> Option<&str> {
        self.uri.path_and_query().filter(|_| !self.survey.foreign).map(PathAndQuery::as_str)
    }

    /// The target for people to read.
    pub(super) fn shown(&self) -> Cow<'_, str> {
        self.target().map_or_else(|| Cow::Owned(self.uri.to_string()), Cow::Borrowed)
    }

    /// The head as dialects want it.
    pub(super) fn head(&self) -> Head<'_> {
        let authority = self.uri.authority().filter(|_| self.survey.foreign);
        Head {
            method: &self.method,
            authority: authority.map(Authority::as_str),
            path: self.uri.path(),
            query: self.uri.query(),
            headers: &self.headers,
        }
    }

    /// Whether only the headers of the answer are wanted.
    pub(super) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// The caches that it has passed through, all `Via` lines in one.
    pub(super) fn via(&self) -> Option<String> {
        let lines: Vec<_> =
            self.headers.get_all(http::header::VIA).iter().filter_map(|line| line.to_str().ok()).collect();
        (!lines.is_empty()).then(|| lines.join(", "))
    }

    /// Whether it asks to read something.
    pub(super) fn is_read(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// Says how the answer came about; the first word counts.
    pub(super) fn settle(&self, outcome: &'static str) {
        // A second word would be of an answer made after the first failed, such as a refusal.
        let _ = self.outcome.set(outcome);
    }

    /// Says whose request it is, as soon as that is known: a refusal is a proxy's too.
    pub(super) fn belongs_to(&self, meters: Arc<ProxyMeters>) {
        // What is routed anew, because something had to be known first, is the same proxy's.
        let _ = self.meters.set(meters);
    }

    /// How the answer came about.
    pub(super) fn outcome(&self) -> Option<&'static str> {
        self.outcome.get().copied()
    }

    /// The counters of the proxy whose request it is.
    pub(super) fn meters(&self) -> Option<&ProxyMeters> {
        self.meters.get().map(|meters| &**meters)
    }
}

/// The duty to account for one answer.
#[derive(Debug)]
pub(super) struct Ticket {
    exchange: Arc<Exchange>,
    watch: Arc<Watch>,
    /// Present if anybody reads the log.
    entry: Option<Entry>,
    status: Option<StatusCode>,
    /// Bytes of body that were handed to the connection.
    sent: u64,
    /// Bytes of body that are owed, if that is known.
    owed: Option<u64>,
    /// The body said that it had ended.
    ended: bool,
    waits_for_us: bool,
}

impl Ticket {
    /// Takes out the duty for a request that the watch has been told of.
    pub(super) fn new(exchange: Arc<Exchange>, watch: Arc<Watch>, entry: Option<Entry>) -> Self {
        Self { exchange, watch, entry, status: None, sent: 0, owed: None, ended: false, waits_for_us: true }
    }

    /// Gives up what nobody has read of the request's body; whether there was any. `None` if there was no body.
    pub(super) fn leaves_body(&self) -> Option<bool> {
        self.exchange.leave_body()
    }

    /// Hands the duty on to the body of the answer.
    pub(super) fn attach<B>(mut self, response: Response<B>) -> Response<Tracked<B>> {
        self.status = Some(response.status());
        self.owed = if self.exchange.is_head() || response.status() == StatusCode::NOT_MODIFIED {
            Some(0)
        } else {
            let length = response.headers().get(CONTENT_LENGTH);
            length.and_then(|length| length.to_str().ok()).and_then(|length| length.parse().ok())
        };
        response.map(|body| Tracked { body, ticket: self })
    }

    fn set_waits_for_us(&mut self, does: bool) {
        if self.waits_for_us != does {
            self.waits_for_us = does;
            self.watch.waits_for_us(does);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.set_waits_for_us(false);
        self.watch.ended();
        if let Some(meters) = self.exchange.meters() {
            meters.sent(self.sent);
        }
        if let Some(entry) = self.entry.take() {
            let whole = self.ended || self.owed == Some(self.sent);
            entry.write(&self.exchange, self.status, self.sent, whole);
        }
    }
}

/// A body that is accounted for.
#[derive(Debug)]
pub(super) struct Tracked<B> {
    body: B,
    ticket: Ticket,
}

impl<B> http_body::Body for Tracked<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let ticket = &mut self.ticket;
        ticket.set_waits_for_us(polled.is_pending());
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                ticket.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(None) => ticket.ended = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
