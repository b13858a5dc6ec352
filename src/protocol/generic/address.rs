//! From a request's target to a ref's path: each target has one, and no two that mean different things have
//! the same.
//!
//! | target | path |
//! |---|---|
//! | `/a/b.zip` | `a/b.zip` |
//! | `/`, `/a/`, `/a//b` | `%`, `a/%`, `a/%/b` |
//! | `/a?x=1/2` | `a?x=1%s2` |
//! | `/a%7eb`, `/a%2fb`, `/100%` | `a~b`, `a%2Fb`, `100%p` |
//!
//! In a path, `%` stands before two hexadecimal digits or is one of these marks: alone an empty segment,
//! `%s` a slash in a query, `%p` a per cent sign that encodes nothing. `%v` is the engine's, for variants.

use crate::model::RefPath;
use crate::protocol::{Part, Refusal};

/// What every target begins with.
pub(super) const MOUNT: &str = "/generic/";

/// A target's path as proxy and path below it, which begins with `/`.
pub(super) fn split(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix(MOUNT)?;
    let slash = rest.find('/')?;
    Some(rest.split_at(slash))
}

/// The path of the ref of what is at a path (begins with `/`) and query.
///
/// # Errors
/// [`Refusal::Invalid`] for what a server or a file system might read in another way, or what is too long.
pub(super) fn ref_path(path: &str, query: Option<&str>) -> Result<RefPath, Refusal> {
    let invalid = |why| Refusal::Invalid { what: Part::Path, why };
    let path = path.strip_prefix('/').ok_or(invalid("it does not begin with a slash"))?;
    if path.contains('\\') {
        return Err(invalid("a backslash, which some read as a slash"));
    }
    let mut text = String::with_capacity(path.len());
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            text.push('/');
        }
        let segment = canonical(segment);
        // Some servers take an encoded slash for a slash, which would lead out of the upstream's own path.
        let mut parts = segment.split("%2F").flat_map(|part| part.split("%5C"));
        if parts.any(|part| matches!(part, "." | "..")) {
            return Err(invalid("a segment `.` or `..`"));
        }
        text.push_str(if segment.is_empty() { "%" } else { &segment });
    }
    if let Some(query) = query {
        text.push('?');
        text.push_str(&canonical(query).replace('/', "%s"));
    }
    text.parse().map_err(|_| invalid("it is too long, or holds a control character"))
}

/// Percent-encoding in one form (RFC 3986, section 6.2.2): what needs none has none, digits are upper case.
fn canonical(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 3).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let byte = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            Some(byte) if is_unreserved(byte) => out.push(char::from(byte)),
            Some(_) => {
                out.push('%');
                out.push_str(&digits.unwrap_or_default().to_ascii_uppercase());
            }
            None => out.push_str("%p"),
        }
        rest = &rest[at + if byte.is_some() { 3 } else { 1 }..];
    }
    out.push_str(rest);
    out
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}
