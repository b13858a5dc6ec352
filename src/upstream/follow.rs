//! One request and the redirects it leads to, up to the headers of the last answer.
//!
//! Invariants: every hop passes the trust rules; from https it never goes to http; credentials are
//! dropped at the first hop to another origin and never come back, not even if a later hop returns
//! to where they came from.

use std::error::Error;
use std::io;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::Url;

use super::UpstreamError;
use super::clients::{Clients, Unresolved};
use super::meters::Meters;
use super::settings::Limits;
use super::trust::{Trust, shown};

/// What it takes to send requests.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) clients: Clients,
    pub(super) trust: Trust,
    pub(super) limits: Limits,
    pub(super) meters: Meters,
    pub(super) via: HeaderValue,
}

/// A request.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    /// Headers that go along to any host.
    pub(super) headers: HeaderMap,
    /// Headers that only the first origin may see.
    pub(super) private: HeaderMap,
    /// A body in form encoding; only the first origin may see it.
    pub(super) form: Option<String>,
    /// A body of another sort; the same holds for it.
    pub(super) body: Option<Bytes>,
    /// Whether redirects are answers.
    pub(super) keep_redirects: bool,
}

/// An answer's headers, the body to follow.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) response: http::Response<reqwest::Body>,
    /// Whether no hop left the first origin.
    pub(super) at_home: bool,
}

impl Net {
    /// Sends a request and follows redirects.
    pub(super) async fn follow(&self, mut call: Call) -> Result<Arrived, UpstreamError> {
        call.headers.entry(header::VIA).or_insert_with(|| self.via.clone());
        let mut at_home = true;
        for _ in 0..=self.limits.redirects {
            let response = self.hop(&call).await?;
            let status = response.status();
            if call.keep_redirects || !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(Arrived { response, at_home });
            }
            let next = location(&call.url, response.headers())?;
            if call.form.is_some() {
                return Err(UpstreamError::Senseless("a redirect of a token request".to_owned()));
            }
            if call.url.scheme() == "https" && next.scheme() != "https" {
                return Err(UpstreamError::Forbidden(shown(&next)));
            }
            if next.origin() != call.url.origin() {
                at_home = false;
                call.private.clear();
            }
            tracing::debug!(status = status.as_u16(), to = shown(&next), "upstream redirects");
            call.url = next;
        }
        Err(UpstreamError::Senseless(format!("more than {} redirects", self.limits.redirects)))
    }

    async fn hop(&self, call: &Call) -> Result<http::Response<reqwest::Body>, UpstreamError> {
        let door = self.trust.door(&call.url).map_err(UpstreamError::Forbidden)?;
        let mut headers = call.headers.clone();
        headers.extend(call.private.clone());
        let mut request =
            self.clients.of(door).request(call.method.clone(), call.url.clone()).headers(headers);
        if let Some(form) = &call.form {
            let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
            request = request.header(header::CONTENT_TYPE, form_type).body(form.clone());
        }
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        self.meters.asked();
        match tokio::time::timeout(self.limits.first_byte, request.send()).await {
            Ok(Ok(response)) => Ok(response.into()),
            Ok(Err(error)) => Err(failure(&error, &call.url)),
            Err(_) => Err(UpstreamError::Timeout("first byte")),
        }
    }
}

fn location(from: &Url, headers: &HeaderMap) -> Result<Url, UpstreamError> {
    let senseless = || UpstreamError::Senseless("a redirect to nowhere".to_owned());
    let location = headers.get(header::LOCATION).ok_or_else(senseless)?;
    let location = std::str::from_utf8(location.as_bytes()).map_err(|_| senseless())?;
    let mut next = from.join(location).map_err(|_| senseless())?;
    next.set_fragment(None);
    Ok(next)
}

/// What a client's error means, in our own words. The error's own text may hold the whole URL, so
/// none of it is used but the kinds of its causes.
fn failure(error: &reqwest::Error, url: &Url) -> UpstreamError {
    if let Some(unresolved) = cause::<Unresolved>(error) {
        return match unresolved {
            Unresolved::Timeout => UpstreamError::Timeout("name resolution"),
            Unresolved::NotPublic => UpstreamError::Forbidden(shown(url)),
        };
    }
    if error.is_timeout() {
        return UpstreamError::Timeout("connect");
    }
    let host = shown(url);
    UpstreamError::Unreachable(if let Some(tls) = cause::<rustls::Error>(error) {
        // These texts are made of certificate names and protocol words.
        format!("TLS with `{host}` failed: {tls}")
    } else if error.is_dns() {
        format!("the name of `{host}` cannot be resolved")
    } else if error.is_connect() {
        let kind = cause::<io::Error>(error).map_or(io::ErrorKind::Other, io::Error::kind);
        format!("no connection to `{host}`: {kind}")
    } else {
        format!("`{host}` ended the connection before an answer")
    })
}

/// The first cause of a kind. An I/O error's own cause is not in the chain of sources, but inside it.
fn cause<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inside.and_then(|inner| cause::<E>(inner)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Whether a status says that credentials are missing or not good enough.
pub(super) fn is_denial(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}
