//! Which requests are refused before anybody asks what they are for. Pure.
//!
//! hyper refuses what cannot be parsed (400), heads that are too large (431) and framing that
//! contradicts itself in `Content-Length`; the rest of what two HTTP parsers might read in two ways,
//! or what would make this an open proxy, is refused here.

use std::net::SocketAddr;

use http::header::{CACHE_CONTROL, HOST, HeaderValue, PRAGMA, TRANSFER_ENCODING, VIA};
use http::uri::Authority;
use http::{Method, StatusCode, Version, request};

use super::conditional;

/// The longest request target in bytes.
const MAX_TARGET: usize = 8 * 1024;
/// The most header fields. hyper has the same bound for HTTP/1, HTTP/2 has none of its own.
const MAX_FIELDS: usize = 100;

/// Why a request is refused, whatever it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    /// The status.
    pub(super) status: StatusCode,
    /// One line for whoever reads it.
    pub(super) why: &'static str,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a finding, and any may stand beside any other")]
/// What one pass over the header fields told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// There is a condition or a range to look at.
    pub(super) conditional: bool,
    /// It has something to say of caching.
    pub(super) directed: bool,
    /// The request has passed through this instance already.
    pub(super) looped: bool,
    /// The target's authority is another's: the client takes this server for its HTTP proxy, which it
    /// is only for what a configured proxy answers for.
    pub(super) foreign: bool,
}

/// The names this server goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own<'s> {
    /// Our name in `Via`.
    pub(super) instance: &'s str,
    /// Authorities that the operator says are ours, such as that of the public URL.
    pub(super) authorities: &'s [String],
    /// The address this connection came in on.
    pub(super) local: SocketAddr,
    /// The port that an authority without one means.
    pub(super) default_port: u16,
}

/// Looks a request head over.
///
/// # Errors
/// A [`Fault`]; the connection must be closed after it has been answered.
pub(super) fn check(head: &request::Parts, own: Own<'_>) -> Result<Survey, Fault> {
    let fault = |status, why| Err(Fault { status, why });
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());

    if head.method == Method::CONNECT {
        return fault(StatusCode::METHOD_NOT_ALLOWED, "this is not a tunnel");
    }
    if target.len() > MAX_TARGET {
        return fault(StatusCode::URI_TOO_LONG, "the request target is longer than 8 KiB");
    }
    if head.headers.len() > MAX_FIELDS {
        return fault(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "more than 100 header fields");
    }

    let mut survey = Survey::default();
    let mut hosts = 0;
    for (name, value) in &head.headers {
        match *name {
            HOST => {
                hosts += 1;
                if !value.as_bytes().iter().all(|&byte| fits_host(byte)) {
                    return fault(StatusCode::BAD_REQUEST, "the Host header is not a host");
                }
            }
            // hyper drops a `Content-Length` beside it (RFC 9112 section 6.1 allows that, but others on
            // the way may have read it), and nothing this server offers needs a chunked request.
            TRANSFER_ENCODING => {
                return fault(StatusCode::BAD_REQUEST, "chunked requests are not accepted");
            }
            CACHE_CONTROL | PRAGMA => survey.directed = true,
            VIA => survey.looped |= names(value, own.instance),
            _ => survey.conditional |= conditional::matters(name),
        }
    }

    if head.version < Version::HTTP_2 {
        // RFC 9112 section 3.2.
        if hosts > 1 {
            return fault(StatusCode::BAD_REQUEST, "more than one Host header");
        }
        if hosts == 0 && head.version == Version::HTTP_11 {
            return fault(StatusCode::BAD_REQUEST, "no Host header");
        }
        // Every HTTP/2 target has an authority; on HTTP/1 it is what a client sends to a proxy.
        survey.foreign = head.uri.authority().is_some_and(|authority| !is_own(authority, own));
    }
    if !target.starts_with('/') {
        return fault(StatusCode::METHOD_NOT_ALLOWED, "the request target is not a path");
    }
    Ok(survey)
}

/// The bytes of `uri-host [":" port]` (RFC 3986 section 3.2.2), user information left out.
fn fits_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

/// Whether a `Via` header names an instance (RFC 9110 section 7.6.3).
fn names(via: &HeaderValue, instance: &str) -> bool {
    via.to_str()
        .is_ok_and(|via| via.split(',').any(|hop| hop.split_ascii_whitespace().nth(1) == Some(instance)))
}

/// Whether an authority is this server: by configuration, or by the address that was connected to.
fn is_own(authority: &Authority, own: Own<'_>) -> bool {
    if own.authorities.iter().any(|name| name.eq_ignore_ascii_case(authority.as_str())) {
        return true;
    }
    let host = authority.host().trim_matches(['[', ']']);
    let here = host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|ip: std::net::IpAddr| ip == own.local.ip().to_canonical());
    here && authority.port_u16().unwrap_or(own.default_port) == own.local.port()
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::header::{IF_NONE_MATCH, RANGE};

    use super::*;

    fn ask(request: http::request::Builder) -> Result<Survey, u16> {
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let authorities = ["packages.example.org".to_owned()];
        let own = Own {
            instance: "repoxy-1",
            authorities: &authorities,
            local: "10.0.0.7:7080".parse().expect("an address"),
            default_port: 80,
        };
        check(&head, own).map_err(|fault| fault.status.as_u16())
    }

    fn get(uri: &str) -> http::request::Builder {
        Request::get(uri).header(HOST, "cache")
    }

    #[test]
    fn an_ordinary_request_passes() {
        assert_eq!(ask(get("/v2/")), Ok(Survey::default()));
        assert_eq!(ask(Request::put("/v2/").header(HOST, "cache:7080")), Ok(Survey::default()));
        assert_eq!(ask(Request::get("/").version(Version::HTTP_10)), Ok(Survey::default()));
        assert_eq!(ask(Request::get("http://other/").version(Version::HTTP_2)), Ok(Survey::default()));
    }

    #[test]
    fn a_request_that_can_be_read_in_two_ways_is_refused() {
        for request in [
            Request::get("/"),
            get("/").header(HOST, "cache"),
            Request::get("/").version(Version::HTTP_10).header(HOST, "a").header(HOST, "b"),
            get("/").header(TRANSFER_ENCODING, "chunked"),
            Request::get("/").header(HOST, "a b"),
            Request::get("/").header(HOST, "evil/@cache"),
            Request::get("/").header(HOST, HeaderValue::from_bytes(b"\xff").expect("opaque")),
        ] {
            assert_eq!(ask(request), Err(400));
        }
    }

    #[test]
    fn targets_of_others_are_told_from_its_own() {
        for uri in [
            "http://evil/x",
            "http://10.0.0.8:7080/x",
            "http://10.0.0.7/x",
            "http://10.0.0.7:7081/x",
            "http://packages.example.org.evil/x",
            "https://u@packages.example.org/",
        ] {
            assert!(ask(get(uri)).expect("passes").foreign, "{uri}");
        }
        for uri in ["http://10.0.0.7:7080/x", "http://LOCALHOST:7080/x", "http://Packages.example.org/x"] {
            assert_eq!(ask(get(uri)), Ok(Survey::default()), "{uri}");
        }
        assert_eq!(ask(Request::connect("evil:443").header(HOST, "evil:443")), Err(405));
        assert_eq!(ask(Request::options("*").header(HOST, "cache")), Err(405));
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let path = |len: usize| format!("/{}", "a".repeat(len - 1));
        assert!(ask(get(&path(MAX_TARGET))).is_ok());
        assert_eq!(ask(get(&path(MAX_TARGET + 1))), Err(414));
        let fields = |count| (0..count).fold(get("/"), |request, n| request.header(format!("x-{n}"), "1"));
        assert!(ask(fields(MAX_FIELDS - 1)).is_ok());
        assert_eq!(ask(fields(MAX_FIELDS)), Err(431));
    }

    #[test]
    fn one_pass_sees_conditions_and_loops() {
        let survey = |name, value: &str| ask(get("/").header(name, value)).expect("passes");
        assert!(survey(CACHE_CONTROL, "no-cache").directed && survey(PRAGMA, "x").directed);
        assert!(!survey(RANGE, "bytes=0-").directed);
        assert!(survey(RANGE, "bytes=0-").conditional);
        assert!(survey(IF_NONE_MATCH, "*").conditional);
        for (via, looped) in [
            ("1.1 repoxy-1", true),
            ("1.1 other, HTTP/1.1 repoxy-1 (comment)", true),
            ("1.1 repoxy-12", false),
            ("repoxy-1", false),
            ("", false),
        ] {
            assert_eq!(survey(VIA, via).looped, looped, "{via}");
        }
    }
}
