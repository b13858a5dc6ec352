//! What an origin answers: files with validators and ranges, lists of tags, challenges and tokens.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::HeaderMap;

use super::super::protection::scope_of;
use super::super::script::Faults;
use super::super::wire::{Request, Response};
use super::{File, Seen, Shared};

const LAST_MODIFIED: &str = "Sun, 09 Nov 2025 12:34:56 GMT";

impl Shared {
    pub(super) fn note(&self, request: &Request) {
        let seen = Seen {
            method: request.method.clone(),
            path: request.path.clone(),
            query: request.query.clone(),
            headers: request.headers.clone(),
            body: request.body.clone(),
        };
        self.seen.lock().expect("no panics").push(seen);
        self.arrivals.send_modify(|count| *count += 1);
    }

    /// The answer with those faults that change what is said, not how it is sent.
    pub(super) fn answer(&self, request: &Request, faults: &Faults) -> Response {
        let mut response = match (faults.status, &faults.body) {
            (None, None) => self.content(request, faults),
            (status, body) => plain(status.unwrap_or(200), body.clone().unwrap_or_default()),
        };
        for (name, value) in &faults.headers {
            let name: http::HeaderName = name.parse().expect("a header name");
            match value {
                Some(value) => {
                    response.headers.insert(name, value.parse().expect("a header value"));
                }
                None => {
                    response.headers.remove(name);
                }
            }
        }
        response
    }

    fn content(&self, request: &Request, faults: &Faults) -> Response {
        if request.path == "/token" {
            return self.token(request);
        }
        if let Some(challenge) = self.challenge(request) {
            let mut response = plain(401, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#);
            response.headers.insert("www-authenticate", challenge.parse().expect("a header value"));
            return response;
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return plain(405, "");
        }
        let file = self.files.lock().expect("no panics").get(&request.path).cloned();
        match file {
            Some(file) => serve(request, &file, faults),
            None if request.path == "/v2/" => json("{}"),
            None => self.tag_list(&request.path).unwrap_or_else(|| {
                plain(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"not here"}]}"#)
            }),
        }
    }

    fn tag_list(&self, path: &str) -> Option<Response> {
        let repository = path.strip_prefix("/v2/")?.strip_suffix("/tags/list")?;
        let tags = self.tags.lock().expect("no panics").get(repository)?.clone();
        Some(json(&serde_json::json!({ "name": repository, "tags": tags }).to_string()))
    }

    /// The challenge that a request meets, or `None` if it may pass.
    fn challenge(&self, request: &Request) -> Option<String> {
        let path = request.path.strip_prefix("/v2/")?;
        let protection = self.protection.lock().expect("no panics").clone();
        let authorization = request.headers.get("authorization").and_then(|value| value.to_str().ok());
        if let Some(login) = &protection.basic {
            return (authorization != Some(login)).then(|| r#"Basic realm="origin""#.to_owned());
        }
        let bearer = protection.bearer?;
        let scope = scope_of(path);
        if let Some(token) = authorization.and_then(|value| value.strip_prefix("Bearer "))
            && self.tokens.lock().expect("no panics").contains(&format!("{token} {scope}"))
        {
            return None;
        }
        let realm = bearer.realm.unwrap_or_else(|| format!("http://localhost:{}/token", self.port));
        let named = bearer.scope_in_challenge && !scope.is_empty();
        let scope = if named { format!(r#",scope="{scope}""#) } else { String::new() };
        Some(format!(r#"Bearer realm="{realm}",service="origin"{scope}"#))
    }

    fn token(&self, request: &Request) -> Response {
        let protection = self.protection.lock().expect("no panics").clone();
        let Some(bearer) = protection.bearer else { return plain(404, "") };
        let form = String::from_utf8_lossy(&request.body);
        let parameters =
            if request.method == "POST" { &*form } else { request.query.as_deref().unwrap_or("") };
        let parameters: Vec<(String, String)> =
            url::form_urlencoded::parse(parameters.as_bytes()).into_owned().collect();
        let parameter =
            |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        if let Some(wanted) = &bearer.refresh_token
            && (request.method != "POST"
                || parameter("grant_type").is_none_or(|grant| grant != "refresh_token")
                || parameter("refresh_token") != Some(wanted))
        {
            return plain(401, "");
        }
        if let Some(login) = &bearer.login
            && request.headers.get("authorization").is_none_or(|value| value.as_bytes() != login.as_bytes())
        {
            return plain(401, "");
        }
        let token = format!("token-{}", self.serial.fetch_add(1, Ordering::SeqCst));
        let scope = parameter("scope").map_or("", String::as_str);
        self.tokens.lock().expect("no panics").insert(format!("{token} {scope}"));
        json(&serde_json::json!({ "token": token, "expires_in": bearer.expires_in }).to_string())
    }
}

fn plain(status: u16, body: impl Into<Bytes>) -> Response {
    Response { status, headers: HeaderMap::new(), body: body.into() }
}

fn json(body: &str) -> Response {
    let mut response = plain(200, body.to_owned());
    response.headers.insert("content-type", "application/json".parse().expect("a header value"));
    response
}

/// A file with validators and ranges, as a good server sends it.
fn serve(request: &Request, file: &File, faults: &Faults) -> Response {
    let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
    let etag = format!("\"{}\"", file.digest);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", file.media_type.as_str()),
        ("docker-content-digest", &file.digest.to_string()),
        ("etag", &etag),
        ("last-modified", LAST_MODIFIED),
        ("accept-ranges", "bytes"),
    ] {
        headers.insert(
            name.parse::<http::HeaderName>().expect("a header name"),
            value.parse().expect("a header value"),
        );
    }
    if header("if-none-match") == Some(&etag) {
        return Response { status: 304, headers, body: Bytes::new() };
    }
    let mut content = file.bytes.to_vec();
    if let Some(byte) = faults.flip_at.and_then(|at| content.get_mut(usize::try_from(at).ok()?)) {
        *byte = !*byte;
    }
    let content = Bytes::from(content);
    let asked = header("range").filter(|_| {
        !faults.ignore_range && header("if-range").is_none_or(|value| value == etag || value == LAST_MODIFIED)
    });
    let Some((from, to)) = asked.and_then(|range| slice(range, content.len())) else {
        if request.method == "HEAD" {
            headers.insert("content-length", content.len().into());
        }
        return Response { status: 200, headers, body: content };
    };
    let range = if from < to {
        format!("bytes {from}-{}/{}", to - 1, content.len())
    } else {
        format!("bytes */{}", content.len())
    };
    headers.insert("content-range", range.parse().expect("a header value"));
    if from >= to {
        return Response { status: 416, headers, body: Bytes::new() };
    }
    Response { status: 206, headers, body: content.slice(from..to) }
}

/// `bytes=a-` and `bytes=a-b`, clamped; empty if it begins past the end; `None` if it is another form.
fn slice(range: &str, size: usize) -> Option<(usize, usize)> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let from = from.parse::<usize>().ok()?;
    let to = if to.is_empty() { size } else { to.parse::<usize>().ok()?.saturating_add(1).min(size) };
    Some((from, to))
}
